"""Keras's optimizers, whose updates of a variable are one thing: its own share of the rate, its decay, its step.

Each works on the local copy of a variable, so that all is the same on one replica and on many.
"""

from collections.abc import Mapping

import keras
import tensorflow as tf

# Biases, and the scales and shifts of normalisations.
NOT_DECAYED = ["bias", "gamma", "beta"]


class Update:
    """Mixin before a Keras optimizer: `update_step` decays a variable, and at the variable's own rate.

    Keras decays all variables beforehand, at one rate, which on several replicas is another pass over all of them.

    Args:
        rate_shares: the share of the rate at which a variable is trained, by its path; 1 for others.
    """

    def __init__(self, *args, rate_shares: Mapping[str, float] | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.rate_shares = dict(rate_shares or {})
        self.exclude_from_weight_decay(var_names=NOT_DECAYED)

    def build(self, variables: list[keras.Variable]) -> None:
        super().build(variables)
        self._shares = tuple(self.rate_shares.get(variable.path, 1.0) for variable in variables)

    def get_config(self) -> dict:
        return {**super().get_config(), "rate_shares": dict(self.rate_shares)}

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        rate = self._rate(variable, learning_rate)
        if self._decays(variable):
            # Not before the gradient is there: all products at once would take as much memory as the weights.
            with tf.control_dependencies([gradient]):
                variable.assign(variable * (1 - rate * self.weight_decay))  # one product; Keras makes two
        self._step(gradient, variable, rate)

    def _rate(self, variable: tf.Variable, learning_rate: tf.Tensor) -> tf.Tensor:
        """The rate of a variable, in its dtype."""
        rate, share = tf.cast(learning_rate, variable.dtype), self._shares[self._get_variable_index(variable)]
        return rate if share == 1 else rate * share

    def _decays(self, variable: tf.Variable) -> bool:
        return bool(self.weight_decay) and self._use_weight_decay(variable)

    def _step(self, gradient: tf.Tensor, variable: tf.Variable, rate: tf.Tensor) -> None:
        super().update_step(gradient, variable, rate)

    def _apply_weight_decay(self, variables: list[keras.Variable]) -> None:
        """Nothing: a variable decays where it is updated."""


@keras.saving.register_keras_serializable("kerasformer")
class AdamW(Update, keras.optimizers.AdamW):
    """Keras's AdamW, whose update of a variable is two operations: each one pass over memory, in place.

    The arithmetic is the same; Keras makes some twenty operations of it, which take long to trace and to compile.
    """

    def _step(self, gradient: tf.Tensor, variable: tf.Variable, rate: tf.Tensor) -> None:
        if variable.dtype != tf.float32 or self.amsgrad:  # the operation has two slots, of float32
            return super()._step(gradient, variable, rate)
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=self.beta_1**step,
            beta2_power=self.beta_2**step,
            lr=rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.convert_to_tensor(gradient),
        )


@keras.saving.register_keras_serializable("kerasformer")
class Muon(Update, keras.optimizers.Muon):
    """Keras's Muon; what AdamW trains in it decays as much as the rest."""


@keras.saving.register_keras_serializable("kerasformer")
class Lion(Update, keras.optimizers.Lion):
    """Keras's Lion."""


@keras.saving.register_keras_serializable("kerasformer")
class SGD(Update, keras.optimizers.SGD):
    """Keras's SGD."""


@keras.saving.register_keras_serializable("kerasformer")
class Lamb(Update, keras.optimizers.Lamb):
    """Keras's Lamb, with the decay in the step whose length the variable's norm decides, as the paper has it."""

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        index, dtype = self._get_variable_index(variable), variable.dtype
        momentum, velocity = self._momentums[index].value, self._velocities[index].value
        gradient, count = tf.cast(gradient, dtype), tf.cast(self.iterations + 1, dtype)
        m = momentum.assign_add((gradient - momentum) * (1 - self.beta_1)) / (1 - self.beta_1**count)
        v = velocity.assign_add((tf.square(gradient) - velocity) * (1 - self.beta_2)) / (1 - self.beta_2**count)
        step = m / (tf.sqrt(v) + self.epsilon)
        if self._decays(variable):
            step += self.weight_decay * variable
        weight, length = tf.norm(variable), tf.norm(step)
        ratio = tf.where((weight > 0) & (length > 0), weight / length, 1.0)
        variable.assign_sub(self._rate(variable, learning_rate) * ratio * step)


@keras.saving.register_keras_serializable("kerasformer")
class Adafactor(Update, keras.optimizers.Optimizer):
    """Adafactor without momentum; Keras's own also keeps a slot as large as the matrix beside its factors.

    Args:
        beta_2_decay: the second moments' momentum is 1 - step ** beta_2_decay.
        epsilon_1: is added to the squared gradients.
        epsilon_2: least root mean square of a variable that its rate is in proportion to.
        clip_threshold: most root mean square of a step before that.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 1e-2,
        *,
        beta_2_decay: float = -0.8,
        epsilon_1: float = 1e-30,
        epsilon_2: float = 1e-3,
        clip_threshold: float = 1.0,
        **kwargs,
    ):
        super().__init__(learning_rate, **kwargs)
        self.beta_2_decay, self.clip_threshold = beta_2_decay, clip_threshold
        self.epsilon_1, self.epsilon_2 = epsilon_1, epsilon_2

    def build(self, variables: list[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self._moments = []
        for variable in variables:
            shape, dtype = tuple(variable.shape), variable.dtype
            shapes = (shape[:-1], shape[:-2] + shape[-1:]) if len(shape) > 1 else (shape,)  # [..., R] and [..., C]
            self._moments.append(tuple(self.add_variable(s, dtype=dtype, name="moments") for s in shapes))

    def _step(self, gradient: tf.Tensor, variable: tf.Variable, rate: tf.Tensor) -> None:
        gradient, count = tf.cast(gradient, variable.dtype), tf.cast(self.iterations + 1, variable.dtype)
        squares, fresh = tf.square(gradient) + self.epsilon_1, count**self.beta_2_decay
        moments = self._moments[self._get_variable_index(variable)]
        if len(moments) == 1:
            step = gradient * tf.math.rsqrt(self._averaged(moments[0], squares, fresh))
        else:
            rows = self._averaged(moments[0], tf.reduce_mean(squares, -1), fresh)  # [..., R]
            columns = self._averaged(moments[1], tf.reduce_mean(squares, -2), fresh)  # [..., C]
            rows /= tf.reduce_mean(rows, -1, keepdims=True)
            step = gradient * tf.math.rsqrt(rows)[..., None] * tf.math.rsqrt(columns)[..., None, :]
        step /= tf.maximum(_root_mean_square(step) / self.clip_threshold, 1.0)
        variable.assign_sub(rate * tf.maximum(_root_mean_square(variable), self.epsilon_2) * step)

    def _averaged(self, moment: keras.Variable, squares: tf.Tensor, fresh: tf.Tensor) -> tf.Tensor:
        moment.assign(moment + fresh * (squares - moment))
        return tf.convert_to_tensor(moment)

    def _rate(self, variable: tf.Variable, learning_rate: tf.Tensor) -> tf.Tensor:
        # Where the paper's limit holds, each variable has its share of it.
        limit = tf.math.rsqrt(tf.cast(self.iterations + 1, tf.float32))
        return super()._rate(variable, tf.minimum(learning_rate, limit))

    def get_config(self) -> dict:
        names = ("beta_2_decay", "epsilon_1", "epsilon_2", "clip_threshold")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _root_mean_square(values: tf.Tensor) -> tf.Tensor:
    return tf.sqrt(tf.reduce_mean(tf.square(values)))
