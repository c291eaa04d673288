"""Learning-rate schedules, as functions of the optimizer's step alone."""

import math

import keras
from keras import KerasTensor, ops

DECAY_SHARE, POWER = 0.2, 2.0


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly to `peak` over `warmup_steps`, then goes down to `floor` at `steps`, and stays there."""

    def __init__(self, peak: float, steps: int, warmup_steps: int, floor: float = 0.0):
        self.peak, self.steps, self.warmup_steps, self.floor = peak, steps, warmup_steps, floor

    def __call__(self, step: int | KerasTensor) -> KerasTensor:
        # The first step is number 0; it must not be lost to a rate of zero. Whole numbers until they are subtracted:
        # of one in 2**24 steps float32 knows nothing, and the last rates are that near to the floor.
        done, left = ops.cast(step + 1, "float32"), ops.cast(self.steps - step, "float32")
        left = ops.clip(left / max(self.steps + 1 - self.warmup_steps, 1), 0.0, 1.0)
        rise = self.rise(done / max(self.warmup_steps, 1))
        return ops.minimum(self.peak * rise, self.floor + (self.peak - self.floor) * self.height(left, done))

    def rise(self, way: KerasTensor) -> KerasTensor:
        """The share of `peak` that the rate has after this share of the warm-up; 1 or more after all of it."""
        return way

    def height(self, left: KerasTensor, done: KerasTensor) -> KerasTensor:
        """Where between `floor`, 0, and `peak`, 1, the rate is; 1 during the warm-up.

        Args:
            left: the share of the way down that is to come.
            done: the number of steps, this one too.
        """
        raise NotImplementedError

    def get_config(self) -> dict:
        return {"peak": self.peak, "steps": self.steps, "warmup_steps": self.warmup_steps, "floor": self.floor}


@keras.saving.register_keras_serializable("kerasformer")
class WarmupLinear(Schedule):
    """Falls linearly: the schedule that BERT was trained with (Devlin et al. 2018, arXiv 1810.04805, appendix A.2)."""

    def height(self, left: KerasTensor, done: KerasTensor) -> KerasTensor:
        return left


@keras.saving.register_keras_serializable("kerasformer")
class WarmupCosine(Schedule):
    """Falls along half a cosine (Loshchilov & Hutter 2016, arXiv 1608.03983), as GPT-3 was trained."""

    def height(self, left: KerasTensor, done: KerasTensor) -> KerasTensor:
        return ops.square(ops.sin(math.pi / 2 * left))  # (1 + cos(pi * way)) / 2, whose digits cancel at the end


@keras.saving.register_keras_serializable("kerasformer")
class WarmupPolynomial(Schedule):
    """Falls as a power of what is left of the way: linear with a `power` of 1, and the higher, the sooner."""

    def __init__(self, peak: float, steps: int, warmup_steps: int, floor: float = 0.0, power: float = POWER):
        super().__init__(peak, steps, warmup_steps, floor)
        self.power = power

    def height(self, left: KerasTensor, done: KerasTensor) -> KerasTensor:
        return ops.power(left, self.power)

    def get_config(self) -> dict:
        return {**super().get_config(), "power": self.power}


@keras.saving.register_keras_serializable("kerasformer")
class WarmupInverseSqrt(Schedule):
    """Falls as sqrt(warmup_steps / step) (Vaswani et al. 2017, arXiv 1706.03762): towards `floor`, whatever `steps`."""

    def height(self, left: KerasTensor, done: KerasTensor) -> KerasTensor:
        return ops.minimum(ops.sqrt(max(self.warmup_steps, 1) / done), 1.0)


@keras.saving.register_keras_serializable("kerasformer")
class WarmupConstant(Schedule):
    """Stays at `peak`."""

    def height(self, left: KerasTensor, done: KerasTensor) -> KerasTensor:
        return ops.ones_like(left)


@keras.saving.register_keras_serializable("kerasformer")
class WarmupStableDecay(Schedule):
    """Stays at `peak` and falls linearly in the last `decay_share` of the way (Hu et al. 2024, arXiv 2404.06395)."""

    def __init__(
        self, peak: float, steps: int, warmup_steps: int, floor: float = 0.0, decay_share: float = DECAY_SHARE
    ):
        super().__init__(peak, steps, warmup_steps, floor)
        self.decay_share = decay_share

    def height(self, left: KerasTensor, done: KerasTensor) -> KerasTensor:
        return ops.minimum(left / self.decay_share, 1.0)

    def get_config(self) -> dict:
        return {**super().get_config(), "decay_share": self.decay_share}


@keras.saving.register_keras_serializable("kerasformer")
class OneCycle(Schedule):
    """Rises from a tenth of `peak`, falls back as far, and then to `floor` (Smith 2018, arXiv 1803.09820).

    With a warm-up of 0.45 of the steps both halves of the cycle are as long, and the last tenth is for the end. This is
    the cycle of the rate alone: the momentum stays what it is.
    """

    low, tail = 0.1, 2 / 11

    def rise(self, way: KerasTensor) -> KerasTensor:
        return self.low + (1 - self.low) * way

    def height(self, left: KerasTensor, done: KerasTensor) -> KerasTensor:
        end = self.low * left / self.tail
        return ops.where(left < self.tail, end, 1 - (1 - self.low) * (1 - left) / (1 - self.tail))


SCHEDULES: dict[str, type[Schedule]] = {
    "linear": WarmupLinear,
    "cosine": WarmupCosine,
    "polynomial": WarmupPolynomial,
    "inverse_sqrt": WarmupInverseSqrt,
    "constant": WarmupConstant,
    "wsd": WarmupStableDecay,
    "one_cycle": OneCycle,
}
