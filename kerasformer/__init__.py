"""From text files to a served transformer, in Keras."""

from kerasformer.lazy import attach, register_with_keras

__version__ = "0.1.0"
_MODELS = {
    "Bert": "kerasformer.models.bert.model",
    "CausalLM": "kerasformer.training.tasks",
    "Classifier": "kerasformer.training.tasks",
    "GPT": "kerasformer.models.gpt.model",
    "MaskedLM": "kerasformer.training.tasks",
    "MultiHead": "kerasformer.training.multihead",
}
register_with_keras("kerasformer", _MODELS)
__getattr__, __dir__, __all__ = attach(
    {
        **_MODELS,
        "BPE": "kerasformer.text.bpe",
        "BertConfig": "kerasformer.models.bert.config",
        "GPTConfig": "kerasformer.models.gpt.config",
        "InputError": "kerasformer.errors",
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
