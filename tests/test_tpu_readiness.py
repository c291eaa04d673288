"""No TPU is here: that one could run the step of each head is seen from what XLA makes of it at static shapes."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasformer.models.bert.config import BertConfig
from kerasformer.models.bert.model import Bert
from kerasformer.models.gpt.config import GPTConfig
from kerasformer.models.gpt.model import GPT
from kerasformer.training.optimizers import adamw
from kerasformer.training.tasks import CausalLM, Classifier

ROWS, LENGTH, VOCAB = 4, 8, 32
SIZES = {"vocab_size": VOCAB, "max_length": LENGTH, "num_layers": 2, "num_heads": 2, "dim": 16, "mlp_dim": 32}
BATCH = {
    "token_ids": np.full((ROWS, LENGTH), 7, np.int32),
    "segment_ids": np.zeros((ROWS, LENGTH), np.int32),
    "padding_mask": np.ones((ROWS, LENGTH), np.int32),
}
HEADS = {
    "classifier": (lambda dtype: Classifier(Bert(BertConfig(**SIZES), dtype=dtype), ["a", "b"]), (ROWS,), BATCH),
    "gpt": (
        lambda dtype: CausalLM(GPT(GPTConfig(**SIZES), dtype=dtype)),
        (ROWS, LENGTH),
        {"token_ids": BATCH["token_ids"]},
    ),
}
# What a replica's step may not hold on a TPU: sizes known at run time alone, and whatever speaks to the host.
FORBIDDEN = {
    "a dynamic shape": r"\[[\d,]*<=|set-dimension-size|dynamic-reshape",
    "a call to the host": r"infeed|outfeed|send\(|recv\(|host.*callback|xla_python|xla_ffi",
    "strings": r"\bstr\[|DT_STRING",
}


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("head", HEADS)
def test_the_step_is_static_and_speaks_to_no_host(head, accumulate):
    make, shape, inputs = HEADS[head]
    model = make("mixed_bfloat16")
    model.compile(adamw(1e-3, steps=10), accumulate=accumulate)
    data = ({name: tf.constant(value) for name, value in inputs.items()}, tf.zeros(shape, tf.int32))
    step = tf.function(model.train_step, jit_compile=True)
    hlo = step.experimental_get_compiler_ir(data)(stage="hlo")
    assert "bf16[" in hlo and re.search(r"dot\(", hlo)  # it is the step
    assert "rng" in hlo  # with its dropout
    found = {what: match.group() for what, pattern in FORBIDDEN.items() if (match := re.search(pattern, hlo))}
    assert not found


def test_what_is_forbidden_is_found():
    @tf.function(jit_compile=True)
    def dynamic(x):
        return tf.boolean_mask(x, x > 0)

    hlo = dynamic.experimental_get_compiler_ir(tf.constant([1.0, -1.0]))(stage="hlo")
    assert re.search(FORBIDDEN["a dynamic shape"], hlo)
    assert keras.backend.backend() == "tensorflow"
