"""Fine-tuning by depth: lower layers learn more slowly, or not at all."""

from itertools import chain

from kerasformer.errors import InputError
from kerasformer.models.head import Head


def rate_shares(model: Head, decay: float) -> dict[str, float]:
    """The share of the rate at which each weight below the head learns, by its path: `decay` less for each block down.

    Discriminative rates of ULMFiT (Howard & Ruder 2018, arXiv 1801.06146), as ELECTRA has them (arXiv 2003.10555): the
    last block's share is `decay`, the first of L blocks' `decay ** L`, and that of the embeddings once more. What is
    above the blocks, such as a pooler and the head, learns at the full rate.

    Raises:
        InputError: a decay that is no number above 0.
    """
    if not isinstance(decay, int | float) or not decay > 0:
        raise InputError(f"expected decay as a number above 0, got {decay!r:.60}; 1 leaves all rates alike")
    if decay == 1:
        return {}
    stages = model.backbone.stages
    shares = [decay ** (len(stages) - depth) for depth in range(len(stages))]
    return {
        weight.path: share
        for stage, share in zip(stages, shares, strict=True)
        for layer in stage
        for weight in layer.weights
    }


def freeze(model: Head, what: str | int | None) -> None:
    """Keeps the lower layers as they are; call it before `compile`.

    The embeddings of a language model are its head as well, which is then kept with them.

    Args:
        what: "embeddings"; or how many blocks, and the embeddings below them; None or 0 for nothing.

    Raises:
        InputError: more blocks than there are, or another word.
    """
    stages = model.backbone.stages
    depths = {None: 0, 0: 0, "embeddings": 1} | {blocks: blocks + 1 for blocks in range(1, len(stages))}
    if what not in depths:
        raise InputError(
            f"expected embeddings or at most {len(stages) - 1} blocks to freeze, got {what!r}; "
            "freeze fewer (--train.freeze)"
        )
    for layer in chain.from_iterable(stages[: depths[what]]):
        layer.trainable = False
