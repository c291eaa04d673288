r"""Train a GPT-2 of 124 million parameters on text of one's own, or go on from a checkpoint.

    kerasformer tokenizer bpe --vocab-size 50257 --output tokenizer FILES...
    kerasformer prepare --tokenizer tokenizer --output prepared FILES...
    kerasformer train pipelines/gpt_pretrain.py --name mine --data.train prepared

    kerasformer train pipelines/gpt_pretrain.py --name tuned --data.train my.txt --model.from_pretrained path/to/gpt2 \
        --train.learning_rate 3e-5 --train.steps 500 --train.evaluate_every 100

Hardware: GPUs or a TPU. On a CPU with a few cores a smaller model trains in an hour, for example with
`--model.preset None --model.num_layers 4 --model.num_heads 4 --model.dim 256 --data.max_length 256 --train.steps 4000`.

Expected: GPT-2's size reaches a validation loss of about 3.3 nats a token of web text after some 10 billion tokens,
which are 600,000 of these steps; the 100,000 here read 1.6 billion.
"""

from kerasformer.config import LanguageData, LanguageModel, LanguageRecipe, LanguageTrain

recipe = LanguageRecipe(
    name="gpt",
    data=LanguageData(max_length=1024, batch_size=16),
    model=LanguageModel(preset="gpt2"),
    train=LanguageTrain(
        steps=100_000,
        learning_rate=6e-4,
        min_learning_rate=6e-5,
        warmup=0.02,
        weight_decay=0.1,
        evaluate_every=1000,
        evaluation_batches=100,
    ),
)
