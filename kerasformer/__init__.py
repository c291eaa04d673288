"""From text files to a served transformer, in Keras."""

from kerasformer.lazy import attach

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = attach(
    {
        "BPE": "kerasformer.text.bpe",
        "Bert": "kerasformer.models.bert.model",
        "BertConfig": "kerasformer.models.bert.config",
        "CausalLM": "kerasformer.training.tasks",
        "Classifier": "kerasformer.training.tasks",
        "GPT": "kerasformer.models.gpt.model",
        "GPTConfig": "kerasformer.models.gpt.config",
        "InputError": "kerasformer.errors",
        "MaskedLM": "kerasformer.training.tasks",
        "MultiHead": "kerasformer.training.multihead",
        "WordPiece": "kerasformer.text.wordpiece",
        "check": "kerasformer.serving.check",
        "export": "kerasformer.serving.export",
        "serve": "kerasformer.serving.server",
        "strategy": "kerasformer.training.strategies",
    },
    modules={
        "callbacks": "kerasformer.training.callbacks",
        "data": "kerasformer.data",
        "losses": "kerasformer.training.losses",
        "optimizers": "kerasformer.training.optimizers",
        "tuning": "kerasformer.training.tuning",
    },
)
