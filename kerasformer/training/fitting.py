"""Keras's `fit`, `evaluate` and `predict` under any tf.distribute strategy, from any step on.

Keras's own fail on several replicas where data hold booleans or batches are uneven, with several steps per execution,
and on several hosts; and they cannot begin within an epoch.
"""

import itertools
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import keras
import tensorflow as tf

from kerasformer.errors import InputError
from kerasformer.text.columns import holds_texts
from kerasformer.training.feed import Feed
from kerasformer.training.inputs import DataCheck, told_as_input_errors
from kerasformer.training.progress import with_bar
from kerasformer.training.strategies import distributed


class Fitting:
    """Mixin before a head's Keras model. A head says what its data are: `batches_class` and how to read them."""

    batches_class: ClassVar[type]
    for_texts: ClassVar[str]  # what to do with them, of a head that takes ids alone
    accumulate: int

    def training_set(self, batches: Any, first_step: int, steps: int) -> tf.data.Dataset:
        """What these steps see of the head's data, one after another."""
        raise NotImplementedError

    def validation_set(self, batches: Any) -> tf.data.Dataset:
        """The head's data once."""
        raise NotImplementedError

    def data_check(self) -> DataCheck | None:
        """What the model's inputs and labels may be; None for any."""
        return None

    def from_texts(self, x: Any, fits: bool = False) -> Any:
        """Inputs of texts, in whatever container they come.

        Args:
            fits: the model is to learn from them.

        Raises:
            InputError: a head that takes ids alone.
        """
        purpose = "learn from" if fits else "predict the logits of"
        raise InputError(
            f"expected a dict of {', '.join(self.backbone.input_names)} to {purpose}, got a {type(x).__name__}; "
            f"{self.for_texts}"
        )

    def checked(self, x: Any, y: Any = None, sample_weight: Any = None, *, fits: bool = False) -> tuple[Any, Any, Any]:
        """Inputs, labels and weights, of which a step finds nothing to complain.

        Raises:
            InputError: arrays that are not of the model; see `DataCheck`.
        """
        check = self.data_check()
        if check is None:
            return x, y, sample_weight
        if isinstance(x, tf.data.Dataset):
            texts = any(spec.dtype == tf.string for spec in tf.nest.flatten(_first(x.element_spec)))
            return check.dataset(self.from_texts(x, fits) if texts else x), y, sample_weight
        if isinstance(x, keras.utils.PyDataset | types.GeneratorType | tf.distribute.DistributedDataset):
            return x, y, sample_weight  # whose batches nobody sees before they are a step's
        if not isinstance(x, Mapping) and holds_texts(x):
            x = self.from_texts(x, fits)
        return check.arrays(x, y, sample_weight)

    def make_train_function(self, force: bool = False) -> Callable:
        """See Keras."""
        if self.train_function is None or force:
            self.train_function = self._execution(self.train_step)
        return self.train_function

    def make_test_function(self, force: bool = False) -> Callable:
        """See Keras."""
        if self.test_function is None or force:
            self.test_function = self._execution(self.test_step)
        return self.test_function

    def make_predict_function(self, force: bool = False) -> Callable:
        """See Keras; the outputs of all replicas, on all hosts."""
        strategy = self.distribute_strategy
        if strategy.num_replicas_in_sync == 1:
            return super().make_predict_function(force)
        if self.predict_function is None or force:

            def predict(batches: list) -> Any:
                outputs = [strategy.run(self.predict_step, (data,)) for data in batches]
                return tf.nest.map_structure(
                    lambda *parts: tf.concat([strategy.gather(part, axis=0) for part in parts], axis=0), *outputs
                )

            self.predict_function = tf.function(predict, reduce_retracing=True, autograph=False)
        return self.predict_function

    def _execution(self, step: Callable) -> Callable:
        """`steps_per_execution` steps on the batches of an iterator: the metrics, and the logs of the last step."""
        strategy, count = self.distribute_strategy, self.steps_per_execution
        step = self._autoconvert_optionals(step)

        def one(data: Any) -> dict[str, tf.Tensor]:
            logs = strategy.run(step, args=(data,))
            return {name: strategy.experimental_local_results(value)[0] for name, value in logs.items()}

        def several(iterator: Any) -> dict[str, tf.Tensor]:
            logs = one(next(iterator))
            if count > 1:

                def go_on(i: tf.Tensor, logs: dict) -> tuple:
                    if isinstance(iterator, tf.distribute.DistributedIterator):
                        return i + 1, one(next(iterator))  # see _has_whole
                    batch = iterator.get_next_as_optional()
                    return i + 1, tf.cond(batch.has_value(), lambda: one(batch.get_value()), lambda: logs)

                start = (tf.constant(1), logs)
                _, logs = tf.while_loop(lambda i, _: i < count, go_on, start, parallel_iterations=1)
            return self.get_metrics_result() | logs

        if not self.run_eagerly:
            one = tf.function(one, reduce_retracing=True, autograph=False)
            several = tf.function(several, reduce_retracing=True, autograph=False)

        def function(iterator: Any) -> dict[str, tf.Tensor]:
            if isinstance(iterator, tf.data.Iterator) or _has_whole(iterator, count):
                return several(iterator)
            # Batches of train_on_batch, or for replicas, of data that may end within the loop, which then fails.
            logs = None
            for data in itertools.islice(iterator, count):
                logs = one(data)
            if logs is None:
                raise StopIteration
            return self.get_metrics_result() | logs

        return function

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Builds metrics from a batch; Keras takes the mean of one over the replicas, which not every batch has."""
        if self._distribute_strategy is None or self._compile_metrics is None or self._compile_metrics.built:
            return
        strategy = self.distribute_strategy
        if iterator is not None:
            _, _, batches = next(iter(iterator.enumerate_epoch()))
            data_batch = tf.nest.map_structure(lambda t: strategy.experimental_local_results(t)[0], next(batches))
        with strategy.scope():
            self._symbolic_build(data_batch=data_batch)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: str | int = "auto",
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        *,
        initial_epoch: int = 0,
        initial_step: int = 0,
        steps_per_epoch: int | None = None,
        total_steps: int | None = None,
        validation_data: Any = None,
        class_weight: Mapping[int | str, float] | None = None,
        sample_weight: Any = None,
        **kwargs,
    ) -> keras.callbacks.History:
        """Keras's `fit`; `x` and `validation_data` may be of the head's `batches_class`, or texts of a classifier.

        Args:
            initial_step: of such data: where to go on, counted over all epochs.
            total_steps: of such data: where to end, within the last epoch; whole executions.
            class_weight: by label or its index; 1 by default.

        Raises:
            InputError: data that are not for this model, a batch that replicas and micro-batches do not divide, or an
                epoch of no whole number of executions.
        """
        kwargs |= {"verbose": verbose, "callbacks": with_bar(callbacks, verbose), "epochs": epochs}
        kwargs |= {"initial_epoch": initial_epoch, "steps_per_epoch": steps_per_epoch} | self._validation(
            validation_data
        )
        class_weight = None if class_weight is None else self.class_weights(class_weight)
        if isinstance(x, self.batches_class):
            self._check_alone(x, y=y, sample_weight=sample_weight, batch_size=batch_size)
            return self._fit_batches(x, initial_step, total_steps, class_weight, **kwargs)
        if initial_step or total_steps is not None:
            raise InputError(
                "expected no initial_step nor total_steps with data that are not of the head's own kind, "
                f"got {initial_step} and {total_steps}; take what is to be seen: dataset.skip and dataset.take"
            )
        if class_weight is not None and sample_weight is not None:
            raise InputError("expected class_weight or sample_weight, got both; multiply them in sample_weight")
        self.feed = None
        x, y, sample_weight = self.checked(x, y, sample_weight, fits=True)
        kwargs |= {"batch_size": batch_size, "sample_weight": sample_weight, "class_weight": class_weight}
        with told_as_input_errors():
            return super().fit(x, y, **kwargs)

    def _validation(self, data: Any) -> dict[str, Any]:
        """Validation data as Keras's `fit` takes them."""
        if data is None:
            return {}
        if isinstance(data, self.batches_class):
            dataset, steps = self._once(self.validation_set(data))
            return {"validation_data": dataset, "validation_steps": steps}
        return {"validation_data": _packed(self.checked(*(data if isinstance(data, tuple) else (data,))))}

    def _fit_batches(
        self,
        x: Any,
        initial_step: int,
        total_steps: int | None,
        class_weight: dict[int, float] | None,
        *,
        epochs: int,
        initial_epoch: int,
        steps_per_epoch: int | None,
        **kwargs,
    ) -> keras.callbacks.History:
        """`fit` on data of the head's own kind."""
        steps = steps_per_epoch or x.steps_per_epoch
        first = max(initial_step, initial_epoch * steps)
        total = epochs * steps if total_steps is None else total_steps
        for size in x.batch_sizes:
            self._check_size("batch_size" if size == x.batch_size else "batch_ramp size", size)
        self._check_steps(steps, first, total)
        self.feed = Feed()

        def data(first: int, count: int) -> Any:
            dataset = self.training_set(x, first, count)
            dataset = dataset if class_weight is None else dataset.map(_weighting(class_weight))
            if self.distribute_strategy.num_replicas_in_sync == 1:
                return self.feed.counted(dataset)  # behind it several replicas prefetch
            return distributed(self.distribute_strategy, dataset)

        kwargs["shuffle"] = False  # they are in order already
        if first >= total or first % steps == total % steps == 0:
            kwargs |= {"initial_epoch": -(-first // steps), "epochs": -(-total // steps), "steps_per_epoch": steps}
            return super().fit(data(first, total - first), **kwargs)
        return self._fit_parts(data, first, total, steps, **kwargs)

    def _fit_parts(
        self, data: Callable[[int, int], Any], first: int, total: int, steps: int, **kwargs
    ) -> keras.callbacks.History:
        """The rest of an epoch, whole ones and the begin of one, in what callbacks see as one training."""
        verbose, epochs = kwargs["verbose"], -(-total // steps)
        shown = {"add_history": True, "add_progbar": verbose != 0, "verbose": verbose}
        shown |= {"epochs": epochs, "steps": steps, "total_steps": total}
        callbacks = kwargs["callbacks"] = _OneTraining(kwargs.pop("callbacks"), model=self, **shown)
        # Where the epochs change their length, which is one for each `fit`.
        ends = sorted({min(-(-first // steps) * steps, total), total // steps * steps, total})
        with _unfinished(self.optimizer):
            for end in (end for end in ends if end > first):
                epoch, length = first // steps, min(end - first, steps)
                others = {"initial_epoch": epoch, "epochs": -(-end // steps), "steps_per_epoch": length}
                history = super().fit(data(first, end - first), **others, **kwargs)
                first = end
                if self.stop_training:
                    break
        self.optimizer.finalize_variable_values(self.trainable_variables)
        callbacks.end()
        return history

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        sample_weight: Any = None,
        **kwargs,
    ) -> list[float] | dict[str, float]:
        """Keras's `evaluate`; `x` may be what `fit` takes, or what `validation_set` gives of it.

        Raises:
            InputError: data that are not for this model.
        """
        if isinstance(x, self.batches_class):
            self._check_alone(x, y=y, sample_weight=sample_weight, batch_size=batch_size)
            x = self.validation_set(x)
        else:
            x, y, sample_weight = self.checked(x, y, sample_weight)
        if isinstance(x, tf.data.Dataset) and "steps" not in kwargs and x.cardinality() > 0:
            x, kwargs["steps"] = self._once(x)
        kwargs |= {"batch_size": batch_size, "verbose": verbose, "sample_weight": sample_weight}
        with told_as_input_errors():
            return super().evaluate(x, y, **kwargs)

    def predict(self, x: Any, batch_size: int | None = None, verbose: str | int = "auto", **kwargs) -> Any:
        """Keras's `predict`: logits of inputs by name.

        Raises:
            InputError: inputs that are not for this model.
        """
        with told_as_input_errors():
            return super().predict(self.checked(x)[0], batch_size=batch_size, verbose=verbose, **kwargs)

    def class_weights(self, class_weight: Mapping[int | str, float]) -> dict[int, float]:
        """The weight of each class by its index.

        Raises:
            InputError: a model without classes.
        """
        raise InputError(
            "expected no class_weight, as a model of tokens or of several heads has no classes; leave it out"
        )

    def _check_alone(self, x: Any, **others: Any) -> None:
        """Raises InputError for what is given beside data that hold it."""
        if given := [name for name, value in others.items() if value is not None]:
            raise InputError(f"expected no {given[0]} beside {type(x).__name__}, which have their own; leave it out")

    def _once(self, dataset: tf.data.Dataset) -> tuple[Any, int | None]:
        """A dataset for all replicas, and how many steps it has, in whole executions."""
        if self.distribute_strategy.num_replicas_in_sync == 1:
            return dataset, None
        missing = -int(dataset.cardinality()) % self.steps_per_execution
        nothing = dataset.take(1).map(lambda *batch: tf.nest.map_structure(lambda t: t[:0], batch)).repeat(missing)
        dataset = dataset.concatenate(nothing) if missing else dataset
        return distributed(self.distribute_strategy, dataset), int(dataset.cardinality())

    def _check_size(self, what: str, size: int) -> None:
        replicas = self.distribute_strategy.num_replicas_in_sync
        parts = replicas * self.accumulate
        if size % parts:
            below, above = size // parts * parts, -(-size // parts) * parts
            raise InputError(
                f"expected a {what} that {replicas} replicas of {self.accumulate} micro-batches divide, "
                f"got {size}; take {f'{below} or ' if below else ''}{above}"
            )

    def _check_steps(self, steps: int, first: int, total: int) -> None:
        if any(count % self.steps_per_execution for count in (steps, first, total)):
            raise InputError(
                f"expected steps_per_execution to divide the {steps} steps of an epoch, the {first} that are done and "
                f"the {total} in all, got {self.steps_per_execution}; change one of them"
            )


def _has_whole(iterator: Any, count: int) -> bool:
    """Whether an iterator for replicas is known to end with an execution of so many steps, or never to."""
    if not isinstance(iterator, tf.distribute.DistributedIterator):
        return False
    size = int(iterator._cardinality)
    return size == tf.data.INFINITE_CARDINALITY or (size > 0 and size % count == 0)


@contextmanager
def _unfinished(optimizer: keras.Optimizer) -> Iterator[None]:
    """Within it the end of a `fit` does not put moving averages in the place of the weights."""
    finalize, optimizer.finalize_variable_values = optimizer.finalize_variable_values, lambda variables: None
    try:
        yield
    finally:
        optimizer.finalize_variable_values = finalize


class _OneTraining(keras.callbacks.CallbackList):
    """Callbacks that see one training where `fit` is called several times."""

    begun = False

    def on_train_begin(self, logs: dict | None = None) -> None:
        if not self.begun:
            self.begun = True
            super().on_train_begin(logs)

    def on_train_end(self, logs: dict | None = None) -> None:
        self.logs = logs

    def end(self) -> None:
        """After the last `fit`."""
        super().on_train_end(self.logs)


def _weighting(class_weight: dict[int, float]) -> Callable:
    """Adds each example's weight to inputs and labels."""
    weights = tf.constant([class_weight[label] for label in range(len(class_weight))], tf.float32)
    return lambda inputs, labels: (inputs, labels, tf.gather(weights, labels))


def _first(batch: Any) -> Any:
    """The inputs of a batch of a dataset."""
    return keras.utils.unpack_x_y_sample_weight(batch)[0]


def _packed(data: tuple[Any, Any, Any]) -> Any:
    """Inputs, labels and weights as Keras takes validation data."""
    return data[0] if data[1] is None else tuple(part for part in data if part is not None)
