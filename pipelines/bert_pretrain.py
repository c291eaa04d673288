r"""Train a BERT on text of one's own, from scratch or from a checkpoint: it learns to predict masked tokens.

    kerasformer train pipelines/bert_pretrain.py --name mine --data.train FILES... --data.tokenizer wordpiece

    kerasformer tokenizer wordpiece --vocab-size 30522 --output tokenizer FILES...
    kerasformer prepare --tokenizer tokenizer --output prepared FILES...
    kerasformer train pipelines/bert_pretrain.py --name mine --data.train prepared

    kerasformer train pipelines/bert_pretrain.py --name tuned --data.train my.txt --model.from_pretrained path/to/bert \
        --train.learning_rate 5e-5 --train.steps 2000 --train.evaluate_every 500

A classifier then starts from it: `kerasformer train pipelines/bert_classify.py --model.from_pretrained runs/mine/model`
and so on. The sizes and settings are those of Devlin et al. 2018 (arXiv 1810.04805), without the prediction of the next
sentence, which does not help (Liu et al. 2019, arXiv 1907.11692).

Hardware: GPUs or a TPU. On a CPU a smaller model learns something in minutes, for example with `--train.steps 3000
--train.evaluate_every 500 --train.learning_rate 1e-3 --train.warmup 0.1 --model.preset bert_tiny_uncased
--model.dropout 0 --data.vocab_size 8192 --data.max_length 64 --data.batch_size 32`.

Expected: that smaller model reaches a loss of about 4.6 nats a masked token (a perplexity of 98) on the 2.4 MB of
WikiText-2's test and validation texts (with `--data.documents lines`), of which a tenth is held out, in 5 to 10 minutes
on 2 cores. After the first 500 steps it is 6.1.
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
