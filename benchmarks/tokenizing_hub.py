"""KerasHub's run for tokenizing.py, in an environment of its own: TASK.json."""

import json
import sys
from pathlib import Path

import tensorflow as tf
from keras_hub.tokenizers import GPT2Tokenizer
from tokenizing import measure

task = json.loads(Path(sys.argv[1]).read_text())
folder = Path(task["folder"])
tokenizer = GPT2Tokenizer(vocabulary=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
tokenize = tf.function(tokenizer.tokenize, input_signature=[tf.TensorSpec([None], tf.string)])
print(json.dumps(measure(lambda texts: tokenize(tf.constant(texts)), task["documents"], task["repeats"])))
