"""As good a model of a text's characters as gpt_shakespeare_char.py makes, in a fraction of its time.

    kerasformer train pipelines/gpt_shakespeare_fast.py --data.train shakespeare.txt

The same model sees its text at a higher rate, which rises and falls faster.

Hardware: a CPU.

Expected: on tiny Shakespeare a validation loss of at most 1.88 nats a character.
"""

from kerasformer.config import LanguageData, LanguageModel, LanguageRecipe, LanguageTrain

recipe = LanguageRecipe(
    name="shakespeare_fast",
    data=LanguageData(tokenizer="char", split=0.1, max_length=64, batch_size=12),
    model=LanguageModel(num_layers=4, num_heads=4, dim=128, dropout=0.0),
    train=LanguageTrain(
        steps=1000,
        learning_rate=4e-3,
        min_learning_rate=0.0,
        schedule="linear",
        warmup=0.1,
        weight_decay=0.1,
        beta_2=0.99,
        precision="float32",
        compile="none",
        evaluate_every=500,
        evaluation_batches=20,
        steps_per_execution=20,
    ),
)
