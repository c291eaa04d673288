"""Several heads on one backbone, trained together: a step reads the inputs once and learns from every head's labels."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

import keras
import tensorflow as tf
from keras import KerasTensor

from kerasformer.data.batches import Batches
from kerasformer.data.masking import AnyWindows
from kerasformer.errors import InputError
from kerasformer.files import path_of
from kerasformer.training.inputs import DataCheck, data_check
from kerasformer.training.progress import STEP_LOGS
from kerasformer.training.step import TrainingStep, all_reduced
from kerasformer.training.targets import as_targets, check_heads, is_ids
from kerasformer.training.tasks import Classifier, TokenLoss

Labels = dict[str, tf.Tensor]  # by head


@keras.saving.register_keras_serializable("kerasformer")
class MultiHead(TrainingStep, keras.Model):
    """Heads on the same backbone. The loss is the sum of the heads' mean losses, each times its loss weight.

    A head's mean is over its own labels: over all that a step has of them, in whichever micro-batch and replica. Data
    are the backbone's inputs, labels by head and, where wanted, sample weights by head; a label below 0 weighs nothing.

    Args:
        heads: a Classifier, MaskedLM or CausalLM by the name that it has in data and logs. Their order is kept.

    Raises:
        InputError: no heads, heads of several backbones, or a name that cannot be one of a log.
    """

    batches_class = ()  # data are any that Keras takes
    for_texts = "tokenize them: a head's tokenizer.in_graph() does"

    def __init__(self, heads: Mapping[str, Classifier | TokenLoss], **kwargs):
        _check(heads)
        backbone = next(iter(heads.values())).backbone
        super().__init__(**{"dtype": backbone.dtype_policy, **kwargs})
        self.backbone, self.heads = backbone, dict(heads)
        self.head_losses = {name: keras.metrics.Mean(name=f"{name}_loss") for name in heads}
        self.built = True

    def call(self, inputs: dict[str, KerasTensor], training: bool = False) -> dict[str, KerasTensor]:
        """Token ids, and what else the backbone takes, [B, T] -> logits by head."""
        outputs = self.backbone(inputs, training=training)
        return {name: head.score(outputs, training=training) for name, head in self.heads.items()}

    def compile(
        self,
        optimizer: str | keras.Optimizer = "rmsprop",
        loss: Mapping[str, Any] | None = None,
        loss_weights: Mapping[str, float] | None = None,
        **kwargs,
    ) -> None:
        """Keras's `compile`; beside the loss, `fit` logs `<name>_loss` of each head, and no other metrics.

        Args:
            loss: by head, Keras losses of its logits; cross-entropy by default.
            loss_weights: by head, 1 by default. Of a head that has 0 only the loss is seen.

        Raises:
            InputError: losses or loss weights of heads that there are not, a weight below 0, or other metrics.
        """
        for given, values in {"loss": loss, "loss_weights": loss_weights}.items():
            if not isinstance(values, Mapping | None) or (values and not values.keys() <= self.heads.keys()):
                raise InputError(
                    f"expected {given} by head, of {', '.join(self.heads)}, got {values!r}; name these heads alone"
                )
        weights = {name: (loss_weights or {}).get(name, 1.0) for name in self.heads}
        if wrong := {name: w for name, w in weights.items() if not isinstance(w, int | float) or w < 0}:
            raise InputError(f"expected loss_weights of 0 or more, got {wrong}; give such numbers")
        if kwargs.get("metrics") or kwargs.get("weighted_metrics"):
            raise InputError("expected no metrics, as several heads log their losses alone, got some; leave them out")
        super().compile(optimizer=optimizer, **kwargs)
        self.losses_by_head, self.loss_weights = dict(loss or {}), [*map(float, weights.values())]

    def get_config(self) -> dict[str, Any]:
        """See Keras; the backbone is described once."""
        backbone = keras.saving.serialize_keras_object(self.backbone)
        heads = {name: keras.saving.serialize_keras_object(head) for name, head in self.heads.items()}
        for head in heads.values():
            head["config"]["backbone"] = None
        return {**super().get_config(), "backbone": backbone, "heads": heads}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """See Keras."""
        config = dict(config)
        backbone = keras.saving.deserialize_keras_object(config.pop("backbone"))
        heads = {
            name: keras.saving.get_registered_object(head["registered_name"]).from_config(head["config"], backbone)
            for name, head in config.pop("heads").items()
        }
        return cls(heads, **config)

    def get_compile_config(self) -> dict[str, Any]:
        """See TrainingStep."""
        if not self.compiled:
            return {}
        losses = {name: keras.saving.serialize_keras_object(loss) for name, loss in self.losses_by_head.items()}
        weights = dict(zip(self.heads, self.loss_weights, strict=True))
        return super().get_compile_config() | {"loss": losses, "loss_weights": weights}

    def checked(self, x: Any, *args, **kwargs) -> tuple[Any, Any, Any]:
        """See Fitting.

        Raises:
            InputError: data of a single head as well.
        """
        if isinstance(x, Batches | AnyWindows):
            raise InputError(
                f"expected the backbone's inputs and labels by head, {', '.join(self.heads)}, got {type(x).__name__}, "
                "which are of a single head; map their dataset() to both"
            )
        return super().checked(x, *args, **kwargs)

    def data_check(self) -> DataCheck:
        """See Fitting; a label below 0 is of nothing that a head has to learn."""
        checks = {name: head.label_check() for name, head in self.heads.items()}
        anything = {name: replace(check, ids=replace(check.ids, lowest=None)) for name, check in checks.items()}
        return data_check(self.backbone, anything)

    def train_step(self, data: tuple) -> dict[str, tf.Tensor]:
        """See TrainingStep. The sums are over shares of each head's weight, so that their total weight is 1."""
        inputs, labels, weights = self._unpacked(data)
        weight_sums = _sums(weights)
        [totals] = all_reduced([weight_sums])
        totals = tf.maximum(totals, 1e-12)
        shares = {name: weights[name] / total for name, total in zip(self.heads, tf.unstack(totals), strict=True)}
        losses, _, gradients = self._accumulated(inputs, labels, shares)
        self._update_losses(losses * totals, weight_sums)
        return self._take_step(
            inputs, self.weighed(losses), 1 / self.distribute_strategy.num_replicas_in_sync, gradients
        )

    def test_step(self, data: tuple) -> dict[str, tf.Tensor]:
        inputs, labels, weights = self._unpacked(data)
        losses, _ = self.sum_losses(inputs, labels, weights, training=False)
        self._update_losses(losses, _sums(weights))
        return {}

    def sum_losses(
        self, inputs: dict[str, tf.Tensor], labels: Labels, weights: Labels, training: bool
    ) -> tuple[tf.Tensor, None]:
        """Sum of the weighted losses of each head [H]."""
        outputs = self.backbone(inputs, training=training)
        losses = [
            head.sum_scored(outputs, labels[name], weights[name], training, self.losses_by_head.get(name))
            for name, head in self.heads.items()
        ]
        return tf.stack(losses), None

    def weighed(self, loss_sum: tf.Tensor) -> tf.Tensor:
        """See TrainingStep; [H] -> []."""
        return tf.reduce_sum(loss_sum * self.loss_weights)

    def get_metrics_result(self) -> dict[str, tf.Tensor]:
        """See Keras; the loss by the heads' mean losses, which do not depend on how data were divided into batches."""
        losses = {metric.name: metric.result() for metric in self.head_losses.values()}
        return {"loss": self.weighed(tf.stack([*losses.values()]))} | losses

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Writes a folder of each head's name, that `transformers` and the head's `from_pretrained` load."""
        for name, head in self.heads.items():
            head.save_pretrained(path_of(folder) / name)

    def _unpacked(self, data: tuple) -> tuple[dict[str, tf.Tensor], Labels, Labels]:
        """Inputs, labels and weights; what weighs nothing has some label that there is."""
        inputs, labels, given = keras.utils.unpack_x_y_sample_weight(data)
        check_heads(self.heads, labels, given)
        known, weights = {}, {}
        for name, head in self.heads.items():
            targets = as_targets(labels[name], head.label_rank)
            counted = head.weights_of(targets, None if given is None else given.get(name))
            known[name] = tf.maximum(targets, 0) if is_ids(targets) else targets
            weights[name] = tf.where(targets < 0, 0.0, counted) if is_ids(targets) else counted
        return inputs, known, weights

    def _update_losses(self, loss_sums: tf.Tensor, weight_sums: tf.Tensor) -> None:
        """Adds a replica's part, both [H], to the heads' running means."""
        means = loss_sums / tf.maximum(weight_sums, 1e-12)
        for i, metric in enumerate(self.head_losses.values()):
            metric.update_state(means[i], sample_weight=weight_sums[i])


def _sums(weights: Labels) -> tf.Tensor:
    """The sum of each head's weights [H]."""
    return tf.stack([tf.reduce_sum(tensor) for tensor in weights.values()])


def _check(heads: Mapping[str, Classifier | TokenLoss]) -> None:
    if not isinstance(heads, Mapping) or not heads:
        found = "none" if isinstance(heads, Mapping | None) else f"a {type(heads).__name__}"
        raise InputError(f"expected at least one head by name, got {found}; pass a dict of heads on a backbone")
    for name, head in heads.items():
        if not isinstance(name, str) or not name.isidentifier() or f"{name}_loss" in STEP_LOGS:
            raise InputError(f"expected heads with names of letters, digits and _, got {name!r}; rename it")
        if not isinstance(head, Classifier | TokenLoss):
            raise InputError(f"expected a Classifier, MaskedLM or CausalLM as {name!r}, got {head!r}; make one of them")
    backbones = {id(head.backbone) for head in heads.values()}
    if len(backbones) > 1:
        raise InputError(
            f"expected heads of one backbone, got {len(backbones)} backbones; make each head on the same object"
        )
