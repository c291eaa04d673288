r"""Fine-tune a BERT to classify texts, or pairs of texts.

    kerasformer train pipelines/bert_classify.py --name news --data.train news.csv \
        --model.from_pretrained path/to/minilm

Hardware: a laptop's CPU is enough for MiniLM and a few thousand texts. MiniLM-L6 on 1,780 articles of BBC News
(128 tokens, batch 16) takes about a minute an epoch on 2 cores with bfloat16 instructions; accuracy about 0.97.
"""

from kerasformer.config import Data, Recipe, Train

recipe = Recipe(
    name="classify",
    data=Data(max_length=128, batch_size=16, split=0.1),
    train=Train(epochs=3, learning_rate=1e-4, warmup=0.1),
)
