"""The training step of every head, behind Keras's own `compile`.

Losses, weights and gradients are summed over micro-batches and replicas, divided once, cut to their norm once and
applied once, so that padding, class weights and uneven parts count as they should on any number of devices.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import keras
import tensorflow as tf

from kerasformer import backend
from kerasformer.errors import InputError
from kerasformer.gradients import held_by_graph
from kerasformer.training.fitting import Fitting
from kerasformer.training.optimizers import AdamW, global_clipnorm, leave_to_step
from kerasformer.training.progress import STEP_LOGS
from kerasformer.training.targets import as_targets, as_weights, weighted_sum


class TrainingStep(Fitting):
    """Mixin before a head's Keras model: its step. A head may say what it loses, if not Keras's loss of its outputs.

    Beside the metrics, which are running means, `fit` logs STEP_LOGS of each step.
    """

    label_rank: ClassVar[int] = 1  # of class ids: one for each row

    def compile(
        self,
        *args,
        loss_weights: float | None = None,
        accumulate: int = 1,
        jit_compile: bool | str = "auto",
        **kwargs,
    ) -> None:
        """Keras's `compile`, with defaults for the head's loss and metrics.

        Args:
            loss_weights: a number that the loss is multiplied with; those of several heads are for `MultiHead`.
            accumulate: micro-batches of a step: a batch is read in so many parts, which takes less memory.
            jit_compile: True compiles forward and backward pass with XLA. "auto" leaves the matrix products to
                TensorFlow's own kernels, which are the faster ones in bfloat16 on a CPU, and there compiles what lies
                between them, where XLA makes one pass over memory of many; and on any device the update of an
                optimizer other than `AdamW`. False uses no XLA at all.

        Raises:
            InputError: loss_weights that are no number above 0, or no micro-batch.
        """
        loss_weight = 1.0 if loss_weights is None else loss_weights
        if not isinstance(loss_weight, int | float) or loss_weight <= 0:
            raise InputError(
                f"expected loss_weights as one number above 0, as the model has one loss, got {loss_weights!r}; "
                "give a number, or train several heads in a kf.MultiHead"
            )
        if not isinstance(accumulate, int) or accumulate < 1:
            raise InputError(f"expected accumulate as a whole number of at least 1, got {accumulate!r}; change it")
        if jit_compile not in (True, False, "auto"):
            raise InputError(f'expected jit_compile as True, False or "auto", got {jit_compile!r}; change it')
        backend.drop_kernels()
        with self.distribute_strategy.scope():
            super().compile(*args, jit_compile=False, **kwargs)
            if self.optimizer is None:
                raise InputError("expected an optimizer, got None; pass kf.optimizers.adamw(...), or one of Keras")
            self.optimizer.build(self.trainable_variables)  # inside of a tf.function it would be traced twice
        leave_to_step(self.optimizer, self.distribute_strategy)
        self.accumulate, self.loss_weight = accumulate, loss_weight
        self._own_settings = {"accumulate": accumulate, "loss_weights": loss_weights, "jit_compile": jit_compile}
        self._fuses = jit_compile == "auto" and not backend.has_accelerator()  # it was measured on CPUs alone
        self._gradients = self.compiled_gradients(jit_compile is True)
        jit_update = not isinstance(self.optimizer, AdamW) if jit_compile == "auto" else jit_compile
        # On several replicas the update meets the others, which no compiled function can.
        alone = self.distribute_strategy.num_replicas_in_sync == 1
        apply = tf.function(self._apply_gradients, jit_compile=jit_update, autograph=False)
        self._update = apply if alone else self._apply_gradients

    def get_compile_config(self) -> dict[str, Any]:
        """See Keras; what `compile` was given."""
        return super().get_compile_config() | self._own_settings if self.compiled else {}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """See Keras."""
        self.compile(**keras.saving.deserialize_keras_object(config))

    def train_step(self, data: tuple) -> dict[str, tf.Tensor]:
        """What one replica does in a step; returns STEP_LOGS, of all replicas together."""
        inputs, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        labels = as_targets(labels, self.label_rank)
        weights = self.weights_of(labels, sample_weight)
        loss_sum, outputs, gradients = self._accumulated(inputs, labels, weights)
        loss_sum, weight_sum = self.weighed(loss_sum), tf.reduce_sum(weights)
        self._update_metrics(loss_sum, weight_sum, labels, outputs, sample_weight)
        return self._take_step(inputs, loss_sum, weight_sum, gradients)

    def _take_step(
        self, inputs: dict[str, tf.Tensor], loss_sum: tf.Tensor, weight_sum: tf.Tensor, gradients: list[tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        """The step by a replica's sums and those of the others; returns STEP_LOGS."""
        positions = tf.cast(tf.size(inputs["token_ids"]), tf.float32)
        rows = tf.cast(tf.shape(inputs["token_ids"])[0], tf.float32)
        mask = inputs.get("padding_mask")
        tokens = positions if mask is None else tf.reduce_sum(tf.cast(mask, tf.float32))
        sums = tf.stack([loss_sum, weight_sum, tokens, positions, rows])
        *gradients, sums = all_reduced([*gradients, sums])
        loss_sum, weight_sum, *seen = tf.unstack(sums)
        # A batch whose weights are all zero teaches nothing; it must not divide by zero.
        weight_sum = tf.maximum(weight_sum, 1e-12)
        gradient_norm = self._update(gradients, weight_sum)
        return dict(zip(STEP_LOGS, (loss_sum / weight_sum, gradient_norm, *seen), strict=True))

    def test_step(self, data: tuple) -> dict[str, tf.Tensor]:
        inputs, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        labels = as_targets(labels, self.label_rank)
        weights = self.weights_of(labels, sample_weight)
        loss_sum, outputs = self.sum_losses(inputs, labels, weights, training=False)
        self._update_metrics(self.weighed(loss_sum), tf.reduce_sum(weights), labels, outputs, sample_weight)
        return {}

    def weights_of(self, labels: tf.Tensor, sample_weight: tf.Tensor | None) -> tf.Tensor:
        """How much each example counts, float32; see `as_weights`."""
        return as_weights(labels, sample_weight, self.label_rank)

    def seen_by_metrics(self, labels: tf.Tensor, sample_weight: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Labels and their weights as metrics take them."""
        return labels, None if sample_weight is None else self.weights_of(labels, sample_weight)

    def sum_losses(
        self, inputs: dict[str, tf.Tensor], labels: tf.Tensor, weights: tf.Tensor, training: bool
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Sum of the weighted losses, and the outputs that metrics are to see."""
        outputs = self(inputs, training=training)
        return weighted_sum(self.loss, labels, outputs, weights), outputs

    def weighed(self, loss_sum: tf.Tensor) -> tf.Tensor:
        """What is to become small, of what `sum_losses` gives."""
        return loss_sum if self.loss_weight == 1 else loss_sum * self.loss_weight

    def sum_gradients(
        self, inputs: dict[str, tf.Tensor], labels: tf.Tensor, weights: tf.Tensor, draw: int | tf.Tensor = 0
    ) -> tuple[tf.Tensor, tf.Tensor | None, list[tf.Tensor]]:
        """What `sum_losses` gives, and the sum's gradients: a pure function of the weights and its arguments.

        Args:
            draw: of the random numbers: each number gives others.
        """
        variables = [variable.value for variable in self.trainable_variables]
        with backend.fusing(self._fuses):
            with keras.StatelessScope(self._seeds(draw)), tf.GradientTape() as tape:
                loss_sum, outputs = self.sum_losses(inputs, labels, weights, training=True)
                scaled = self.optimizer.scale_loss(self.weighed(loss_sum))
            gradients = tape.gradient(scaled, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return loss_sum, outputs, [tf.convert_to_tensor(gradient) for gradient in gradients]

    def compiled_gradients(self, jit: bool) -> Callable:
        """`sum_gradients` in a graph, which XLA compiles with `jit`."""
        return backend.fused(self.sum_gradients) if jit else tf.function(self.sum_gradients, autograph=False)

    def _accumulated(
        self, inputs: dict[str, tf.Tensor], labels: tf.Tensor, weights: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor | None, list[tf.Tensor]]:
        """What `sum_gradients` gives of the replica's rows, read one micro-batch after another."""
        count, draw = self.accumulate, self._draw()
        if count == 1:
            return self._gradients(inputs, labels, weights, draw)
        parts = tf.nest.map_structure(lambda tensor: _split(tensor, count), (inputs, labels, weights))

        def read(i: int | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None, list[tf.Tensor]]:
            part = tf.nest.map_structure(lambda tensor: tensor[i], parts)
            return self._gradients(*part, draw + tf.cast(i, tf.int64))

        loss_sum, outputs, gradients = read(0)
        rows = ()
        if outputs is not None:
            rows = tf.TensorArray(outputs.dtype, count, element_shape=outputs.shape).write(0, outputs)

        def add(i: tf.Tensor, loss_sum: tf.Tensor, rows: Any, gradients: list[tf.Tensor]) -> tuple:
            loss, outputs, more = read(i)
            rows = rows if outputs is None else rows.write(i, outputs)
            return i + 1, loss_sum + loss, rows, [old + new for old, new in zip(gradients, more, strict=True)]

        start = (tf.constant(1), loss_sum, rows, gradients)
        _, loss_sum, rows, gradients = tf.while_loop(lambda i, *_: i < count, add, start, parallel_iterations=1)
        if outputs is not None:
            outputs = tf.reshape(rows.stack(), [-1, *outputs.shape[1:]])[: tf.shape(labels)[0]]
        return loss_sum, outputs, gradients

    def _draw(self) -> tf.Tensor:
        """Which random numbers this replica's first micro-batch draws, the others the ones after.

        Of 2**41 steps of 2**20 micro-batches on all replicas together, none has the number of another.
        """
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        step = tf.cast(self.optimizer.iterations, tf.int64)
        return step * 2**20 + tf.cast(replica, tf.int64) * self.accumulate

    def _seeds(self, draw: int | tf.Tensor) -> list[tuple[keras.Variable, tf.Tensor]]:
        """The model's random generators, and the states [2] that they have in a draw.

        Keras takes both words of a state modulo 2**31 - 2 and counts the second up within a draw. Hashed to 62 bits,
        two of n states in a run meet with a probability of n**2 / 2**63.
        """
        generators = [variable for variable in self.variables if variable.name == "seed_generator_state"]
        draw = tf.cast(draw, tf.int64)
        key = tf.cast(tf.stack([draw // 2**30, draw % 2**30]), tf.int32)
        # Philox (Salmon et al. 2011) is such a hash: one key gives all generators' words.
        shape, whole = [len(generators), 2], {"minval": None, "maxval": None, "dtype": tf.int32}
        words = tf.random.stateless_uniform(shape, key, alg="philox", **whole)
        states = tf.unstack(tf.cast(words, tf.int64))
        return [(variable, variable.value + state) for variable, state in zip(generators, states, strict=True)]

    def _apply_gradients(self, gradients: list[tf.Tensor], weight_sum: tf.Tensor) -> tf.Tensor:
        """One optimizer step on the mean gradient; returns that gradient's global norm, before it is cut."""
        total = weight_sum * self.optimizer.scale_loss(1.0)
        gradient_norm = tf.linalg.global_norm([tf.cast(gradient, tf.float32) for gradient in gradients]) / total
        factor = 1 / weight_sum
        if limit := global_clipnorm(self.optimizer):
            factor *= limit / tf.maximum(gradient_norm, limit)
        gradients = [gradient * tf.cast(factor, gradient.dtype) for gradient in gradients]
        steps = self.optimizer.iterations + 1
        self.optimizer.apply(gradients, self.trainable_variables)
        if hasattr(self.optimizer, "inner_optimizer"):
            # It leaves a step out whose scaled gradients overflow. What comes next is other data all the same.
            self.optimizer.iterations.assign(steps)
        return gradient_norm

    def _update_metrics(
        self,
        loss_sum: tf.Tensor,
        weight_sum: tf.Tensor,
        labels: tf.Tensor,
        outputs: tf.Tensor | None,
        sample_weight: tf.Tensor | None,
    ) -> None:
        """Adds a replica's part to the running means."""
        labels, sample_weight = self.seen_by_metrics(labels, sample_weight)
        given = self._compile_metrics
        if given is not None and not given.built:
            with tf.init_scope(), tf.variable_creator_scope(_outside):
                given.build(labels, outputs)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss_sum / tf.maximum(weight_sum, 1e-12), sample_weight=weight_sum)
            else:
                metric.update_state(labels, outputs, sample_weight=sample_weight)


def _outside(make: Callable, **settings: Any) -> tf.Variable:
    """A variable that the graph being traced is no owner of; one with variables of its own would be traced twice."""
    return make(**settings | {"experimental_enable_variable_lifting": False})


def all_reduced(tensors: list[tf.Tensor]) -> list[tf.Tensor]:
    """Each tensor's sum over all replicas."""
    all_reduce = tf.distribute.get_replica_context().all_reduce  # which has a custom gradient
    return held_by_graph(all_reduce)(tf.distribute.ReduceOp.SUM, tensors)


def _split(tensor: tf.Tensor, count: int) -> tf.Tensor:
    """Rows [n, ...] as micro-batches [count, n / count, ...]; zeros, which weigh nothing, fill the last one."""
    rows = tensor.shape[0] if tensor.shape[0] is not None else tf.shape(tensor)[0]
    length = -(-rows // count)
    padded = tf.pad(tensor, [[0, count * length - rows]] + [[0, 0]] * (tensor.shape.rank - 1))
    return tf.reshape(padded, [count, length, *tf.unstack(tf.shape(tensor))[1:]])
