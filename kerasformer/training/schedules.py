"""Learning-rate schedules, as functions of the optimizer's step."""

import math

import keras
from keras import KerasTensor, ops

DECAY = 0.2  # share of its way in which WarmupStableDecay falls


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly to `peak` over `warmup_steps`, then goes down to `floor` at `steps`, and stays there."""

    def __init__(self, peak: float, steps: int, warmup_steps: int, floor: float = 0.0):
        self.peak, self.steps, self.warmup_steps, self.floor = peak, steps, warmup_steps, floor

    def __call__(self, step: int | KerasTensor) -> KerasTensor:
        # The first step is number 0; it must not be lost to a rate of zero.
        step = ops.cast(step, "float32") + 1
        rise = step / max(self.warmup_steps, 1)
        way = (step - self.warmup_steps) / max(self.steps + 1 - self.warmup_steps, 1)
        height = self.height(ops.clip(way, 0.0, 1.0))
        return ops.minimum(self.peak * rise, self.floor + (self.peak - self.floor) * height)

    def height(self, way: KerasTensor) -> KerasTensor:
        """Where between `floor`, 0, and `peak`, 1, the rate is after this share of the way down."""
        raise NotImplementedError

    def get_config(self) -> dict:
        return {"peak": self.peak, "steps": self.steps, "warmup_steps": self.warmup_steps, "floor": self.floor}


class WarmupLinear(Schedule):
    """Falls linearly: the schedule that BERT was trained with (Devlin et al. 2018, arXiv 1810.04805, appendix A.2)."""

    def height(self, way: KerasTensor) -> KerasTensor:
        return 1 - way


class WarmupCosine(Schedule):
    """Falls along half a cosine (Loshchilov & Hutter 2016, arXiv 1608.03983), as GPT-3 was trained."""

    def height(self, way: KerasTensor) -> KerasTensor:
        return 0.5 + 0.5 * ops.cos(math.pi * way)


class WarmupStableDecay(Schedule):
    """Stays at `peak` and falls linearly in the last fifth of the way (Hu et al. 2024, arXiv 2404.06395)."""

    def height(self, way: KerasTensor) -> KerasTensor:
        return ops.minimum((1 - way) / DECAY, 1.0)


SCHEDULES: dict[str, type[Schedule]] = {"linear": WarmupLinear, "cosine": WarmupCosine, "wsd": WarmupStableDecay}
