r"""Train a BERT on text of one's own, from scratch or from a checkpoint: it learns to predict masked tokens.

    kerasformer train pipelines/bert_pretrain.py --name mine --data.train FILES... --data.tokenizer wordpiece

    kerasformer tokenizer wordpiece --vocab-size 30522 --output tokenizer FILES...
    kerasformer prepare --tokenizer tokenizer --output prepared FILES...
    kerasformer train pipelines/bert_pretrain.py --name mine --data.train prepared

    kerasformer train pipelines/bert_pretrain.py --name tuned --data.train my.txt --model.from_pretrained path/to/bert \
        --train.learning_rate 5e-5 --train.steps 2000

Then `kerasformer train pipelines/bert_classify.py --model.from_pretrained runs/mine/model ...`.

Hardware: GPUs.
"""

from kerasformer.config import LanguageModel, MaskedData, MaskedRecipe, TextTrain

recipe = MaskedRecipe(
    name="bert",
    data=MaskedData(vocab_size=30_522, max_length=128, batch_size=256, mask_share=0.15),
    model=LanguageModel(preset="bert_base_uncased", dropout=0.1),
    train=TextTrain(
        steps=1_000_000,
        learning_rate=1e-4,
        schedule="linear",
        warmup=0.01,
        weight_decay=0.01,
        beta_2=0.999,
        evaluate_every=10_000,
        evaluation_batches=100,
    ),
)
