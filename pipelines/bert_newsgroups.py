"""Fine-tune a BERT to tell 20 newsgroups apart.

    kerasformer train pipelines/bert_newsgroups.py --model.from_pretrained path/to/minilm

The posts, without headers, footers and quotes, come through scikit-learn (`pip install "kerasformer[eval]"`), which
downloads them the first time, to ~/scikit_learn_data or where SCIKIT_LEARN_DATA says. 80 % train, 20 % validate.

Hardware: a GPU; on a CPU with a few cores, hours for BERT-base and the better part of one for MiniLM-L6.
"""

from kerasformer.config import Data, Recipe, Train

recipe = Recipe(
    name="newsgroups",
    data=Data(max_length=256, batch_size=8, split=0.2),
    train=Train(epochs=3, learning_rate=5e-5, warmup=0.1),
)


def examples() -> tuple[list[str], list[str]]:
    """The posts that still have text, and the groups that they were sent to."""
    from sklearn.datasets import fetch_20newsgroups

    posts = fetch_20newsgroups(subset="all", remove=("headers", "footers", "quotes"))
    kept = [
        (text, posts.target_names[group]) for text, group in zip(posts.data, posts.target, strict=True) if text.strip()
    ]
    texts, labels = zip(*kept, strict=True)
    return list(texts), list(labels)
