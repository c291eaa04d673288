"""A better model of a text's characters than gpt_shakespeare_char.py makes, in fewer steps.

    kerasformer train pipelines/gpt_shakespeare_fast.py --data.train shakespeare.txt

The model is the same. Muon learns more from each step, at a higher rate that falls linearly to zero.

Hardware: a CPU.

Expected: on tiny Shakespeare a validation loss of about 1.81 nats a character, over the whole of what is held out.
"""

from kerasformer.config import LanguageData, LanguageModel, LanguageRecipe, LanguageTrain

recipe = LanguageRecipe(
    name="shakespeare_fast",
    data=LanguageData(tokenizer="char", split=0.1, max_length=64, batch_size=12),
    model=LanguageModel(num_layers=4, num_heads=4, dim=128, dropout=0.0),
    train=LanguageTrain(
        steps=900,
        optimizer="muon",
        learning_rate=4e-3,
        schedule="linear",
        warmup=0.11,
        weight_decay=0.1,
        beta_2=0.99,
        precision="float32",
        evaluate_every=300,
        evaluation_batches=20,
        steps_per_execution=20,
    ),
)
