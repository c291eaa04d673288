"""Train a small GPT on the characters of one text file in a quarter of the steps of gpt_shakespeare_char.py.

    kerasformer train pipelines/gpt_shakespeare_fast.py --data.train shakespeare.txt

The model is the same. Muon learns more from each step, at a higher rate that falls linearly to zero.

Hardware: a CPU. On tiny Shakespeare it takes 31 s on 2 cores with avx512_bf16.

Expected: on tiny Shakespeare a validation loss of 1.87 nats a character, over the whole of what is held out.
"""

from kerasformer.config import LanguageData, LanguageModel, LanguageRecipe, LanguageTrain

recipe = LanguageRecipe(
    name="shakespeare_fast",
    data=LanguageData(tokenizer="char", split=0.1, max_length=64, batch_size=12),
    model=LanguageModel(num_layers=4, num_heads=4, dim=128, dropout=0.0),
    train=LanguageTrain(
        steps=500,
        optimizer="muon",
        learning_rate=1.2e-2,
        schedule="linear",
        warmup=0.1,
        weight_decay=0.1,
        beta_2=0.99,
        evaluate_every=250,
        evaluation_batches=20,
        steps_per_execution=20,
    ),
)
