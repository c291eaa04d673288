"""Train a small GPT on the characters of one text file, as nanoGPT does on Shakespeare's plays on a CPU.

    kerasformer train pipelines/gpt_shakespeare_char.py --data.train shakespeare.txt

The hyperparameters are those of nanoGPT's recipe for a laptop's CPU (https://github.com/karpathy/nanoGPT). Windows are
laid end to end and each is seen once an epoch, where nanoGPT draws them anywhere. The last 10 % of the file validates.

Hardware: a CPU. On the 1.1 MB of tiny Shakespeare it takes a minute on 2 cores with avx512_bf16.

Expected: a validation loss of about 1.87 nats a character, over the whole of what is held out; with --data.order random
1.88.
"""

from kerasformer.config import LanguageData, LanguageModel, LanguageRecipe, LanguageTrain

recipe = LanguageRecipe(
    name="shakespeare",
    data=LanguageData(tokenizer="char", split=0.1, max_length=64, batch_size=12, order="consecutive"),
    model=LanguageModel(num_layers=4, num_heads=4, dim=128, dropout=0.0),
    train=LanguageTrain(
        steps=2000,
        learning_rate=1e-3,
        min_learning_rate=1e-4,
        schedule="cosine",
        warmup=0.05,
        weight_decay=0.1,
        beta_2=0.99,
        clip_norm=1.0,
        evaluate_every=500,
        evaluation_batches=20,
        steps_per_execution=20,
    ),
)
