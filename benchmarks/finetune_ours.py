"""One run of kerasformer for finetune.py: PRECISION CHECKPOINT TRAIN.csv TEST.csv."""

import json
import statistics
import sys
import time

import keras

import kerasformer as kf
from kerasformer.training.evaluation import Report
from kerasformer.training.precision import dtype_policy


class StepTimes(keras.callbacks.Callback):
    """Seconds of each training step."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_train_batch_begin(self, batch, logs=None):
        self.begun = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.seconds.append(time.perf_counter() - self.begun)


precision, checkpoint, train_file, test_file = sys.argv[1:]
keras.utils.set_random_seed(0)
begun = time.perf_counter()
train_examples = kf.data.read_examples(train_file)
labels = sorted(set(train_examples.labels))
model = kf.Classifier.from_pretrained(checkpoint, labels, dtype=dtype_policy(precision))
train, test = kf.data.classification(
    train_examples, validation=test_file, tokenizer=model.tokenizer, max_length=128, batch_size=16
)
model.compile(kf.optimizers.adamw(1e-4, steps=len(train), warmup=0.1))
times = StepTimes()
model.fit(train, epochs=1, verbose=0, callbacks=[times])
accuracy = Report(test.labels, test.label_ids, model.predict(test)).accuracy
result = {"seconds": time.perf_counter() - begun, "accuracy": accuracy}
print(json.dumps(result | {"step_ms": 1e3 * statistics.median(times.seconds)}))
