"""Learning-rate schedules, as functions of the optimizer's step."""

import keras
from keras import KerasTensor, ops


class WarmupLinear(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly to `peak` over `warmup_steps`, then falls linearly to zero at `steps`.

    The schedule that BERT was trained with (Devlin et al. 2018, arXiv 1810.04805, appendix A.2).
    """

    def __init__(self, peak: float, steps: int, warmup_steps: int):
        self.peak, self.steps, self.warmup_steps = peak, steps, warmup_steps

    def __call__(self, step: int | KerasTensor) -> KerasTensor:
        # The first step is number 0; it must not be lost to a rate of zero.
        step = ops.cast(step, "float32") + 1
        rise = step / max(self.warmup_steps, 1)
        fall = (self.steps + 1 - step) / max(self.steps + 1 - self.warmup_steps, 1)
        return self.peak * ops.maximum(ops.minimum(rise, fall), 0.0)

    def get_config(self) -> dict:
        return {"peak": self.peak, "steps": self.steps, "warmup_steps": self.warmup_steps}
