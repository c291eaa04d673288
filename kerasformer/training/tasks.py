"""The heads as users train them: those of `models.heads`, with the training step of `training.step`."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasformer.data.batches import Batches
from kerasformer.data.encoding import padded, unlabelled
from kerasformer.data.masking import MaskedWindows
from kerasformer.data.windows import Windows
from kerasformer.errors import InputError
from kerasformer.generation.generating import Generating
from kerasformer.models import heads
from kerasformer.models.labels import quoted
from kerasformer.text.columns import holds_texts, text_columns
from kerasformer.text.tokenizer import Tokenizer
from kerasformer.training.inputs import DataCheck, Ids, LabelCheck, data_check, told_as_input_errors
from kerasformer.training.losses import Crossentropy
from kerasformer.training.next_token import summed_crossentropy
from kerasformer.training.step import TrainingStep
from kerasformer.training.targets import is_ids, weighted_sum

LOGITS_AT_A_TIME = 2**22  # that become probabilities: 16 MB in float32


@keras.saving.register_keras_serializable("kerasformer")
class Classifier(TrainingStep, heads.Classifier):
    """Assigns one of `labels` to a text or a pair of texts; see `models.heads.Classifier`."""

    batches_class = Batches

    def label_check(self) -> LabelCheck:
        """What the labels of data may be."""
        return LabelCheck(Ids(len(self.labels)), self.label_rank, tuple(self.labels))

    def data_check(self) -> DataCheck:
        """See Fitting."""
        return data_check(self.backbone, {"": self.label_check()})

    def class_weights(self, class_weight: Mapping[int | str, float]) -> dict[int, float]:
        """See Fitting.

        Raises:
            InputError: a label that the model does not have, or a weight that is no number of 0 or more.
        """
        if not isinstance(class_weight, Mapping):
            raise InputError(f"expected class_weight as a dict by label or index, got {class_weight!r:.60}; pass one")
        places = {label: i for i, label in enumerate(self.labels)}
        weights = dict.fromkeys(range(len(self.labels)), 1.0)
        for key, weight in class_weight.items():
            place = places.get(key, key)
            if isinstance(place, bool) or not isinstance(place, int | np.integer) or place not in weights:
                raise InputError(
                    f"expected class_weight by label or index, as {self.labels[0]!r} or 0, got {key!r}; name one"
                )
            if not isinstance(weight, int | float | np.number) or not 0 <= weight < np.inf:
                raise InputError(f"expected a class_weight of 0 or more, got {weight!r} for {key!r}; give a number")
            weights[int(place)] = float(weight)
        return weights

    def from_texts(self, x: Any, fits: bool = False) -> Any:
        """See Fitting; of the model's own length, and batches of a dataset are tokenized as they come.

        Raises:
            InputError: no tokenizer, or something else than texts or pairs of texts.
        """
        length = self._own_tokenizer().max_length
        if isinstance(x, tf.data.Dataset):
            return self._tokenized(x, length)
        texts, pairs = text_columns(x)
        if fits:
            self.text_pair = pairs is not None
        rows = padded(self.tokenizer.encode(texts, pairs, max_length=length), self.tokenizer.pad_id)
        return {name: rows[name] for name in self.input_names}

    def _tokenized(self, dataset: tf.data.Dataset, length: int) -> tf.data.Dataset:
        """Batches of texts [B] as inputs, beside what else they have."""
        inputs, *_ = keras.utils.unpack_x_y_sample_weight(dataset.element_spec)
        if not isinstance(inputs, tf.TensorSpec) or inputs.shape.rank != 1:
            raise InputError(
                f"expected a dataset of batches of texts [batch], got {inputs}; batch it, or read the texts with "
                "kf.data.classification"
            )
        tokenize = self.tokenizer.in_graph()

        def ids(*batch: tf.Tensor) -> Any:
            inputs = tokenize(batch[0], max_length=length)
            return (inputs, *batch[1:]) if len(batch) > 1 else inputs

        return dataset.map(ids)

    def sum_scored(
        self, outputs: dict[str, tf.Tensor], labels: tf.Tensor, weights: tf.Tensor, training: bool, loss: Any = None
    ) -> tf.Tensor:
        """Sum of the weighted losses by what the backbone gives; cross-entropies unless another loss is given."""
        if loss is None:
            self.check_single_label()
        return weighted_sum(loss or Crossentropy(), labels, self.score(outputs, training=training), weights)

    def training_set(self, batches: Batches, first_step: int, steps: int) -> tf.data.Dataset:
        dataset = self._checked(batches).dataset(first_step, steps)
        # The trained model predicts, and is served, with inputs like those that it has learned from.
        self.text_pair = batches.text_pair
        if self.tokenizer is not None:
            self.tokenizer.max_length = batches.max_length
        return dataset

    def validation_set(self, batches: Batches) -> tf.data.Dataset:
        return self._checked(batches).dataset()

    def predict(self, x: Any, batch_size: int | None = None, verbose: str | int | None = None, **kwargs) -> np.ndarray:
        """Probabilities [N, C] of Batches, of texts, of (text, text_pair) tuples or of ids, in the order given.

        Those of a text sum to 1, unless any number of the labels may be true of it.

        Args:
            x: texts may be a list, an array, a column of a table or two of them in a tuple, or a dataset of batches.
            verbose: of Keras; by default texts are predicted without its progress bar.

        Raises:
            InputError: something else, or ids outside of their range.
        """
        if not isinstance(x, Batches | Mapping | tf.data.Dataset) and (holds_texts(x) or isinstance(x, Sequence)):
            x = unlabelled(x, tokenizer=self._own_tokenizer(), batch_size=batch_size or 32)
        if not isinstance(x, Batches):
            verbose = "auto" if verbose is None else verbose
            return self._numpy_probabilities(super().predict(x, batch_size, verbose, **kwargs))
        dataset = x.dataset()
        self._trace_predict(dataset.element_spec)
        data, steps = self._once(dataset)
        with told_as_input_errors():
            logits = keras.Model.predict(self, data, verbose=verbose or 0, steps=steps, **kwargs)
        probabilities = np.empty_like(logits)
        probabilities[np.concatenate(x.order())] = self._numpy_probabilities(logits)
        return probabilities

    def _trace_predict(self, batch: Any) -> None:
        """Traces what is done with batches of this spec, of any length: the first one's would be traced as well."""
        self.make_predict_function()
        alone = self.distribute_strategy.num_replicas_in_sync == 1 and self.steps_per_execution == 1
        if alone and not self.run_eagerly:
            self.predict_function.get_concrete_function([batch])

    def _numpy_probabilities(self, logits: np.ndarray) -> np.ndarray:
        """What `probabilities` gives, some rows at a time: of many classes the logits alone take gigabytes."""
        count = max(1, LOGITS_AT_A_TIME // logits.shape[1])
        for start in range(0, len(logits), count):
            rows = slice(start, start + count)
            logits[rows] = keras.ops.convert_to_numpy(self.probabilities(logits[rows]))
        return logits

    def _own_tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise InputError("expected token ids, as the model has no tokenizer, got texts; pass ids, or give it one")
        return self.tokenizer

    def _checked(self, batches: Batches) -> Batches:
        self.check_single_label()
        if batches.labels is not None and list(batches.labels) != list(self.labels):
            raise InputError(
                f"expected data with the model's labels [{quoted(self.labels)}], got [{quoted(batches.labels)}]; "
                "pass labels=model.labels when the data is read"
            )
        return batches


class TokenLoss(TrainingStep):
    """Mixin of what predicts tokens of a vocabulary: a label below 0 is not to be predicted, and weighs nothing.

    A head says how hidden states become those that its backbone's output table is multiplied with, and with what bias.
    """

    label_rank = 2  # one for each token
    few = False  # of the labels are to be predicted

    def label_check(self) -> LabelCheck:
        """What the labels of data may be: a token, or any number below 0."""
        return LabelCheck(Ids(self.backbone.config.vocab_size, lowest=None), self.label_rank)

    def data_check(self) -> DataCheck:
        """See Fitting."""
        return data_check(self.backbone, {"": self.label_check()})

    def output_states(self, hidden_states: tf.Tensor) -> tf.Tensor:
        """[B, T, D] -> [B, T, D]."""
        return hidden_states

    @property
    def output_bias(self) -> tf.Tensor | None:
        """Of the logits, float32 [V]."""
        return None

    def compile(
        self,
        *args,
        loss: Any = None,
        metrics: list | None = None,
        weighted_metrics: list | None = None,
        **kwargs,
    ) -> None:
        """Keras's `compile`; the loss is cross-entropy unless another is given.

        Without other losses or metrics, the logits never exist all at once. All metrics are weighted: one that is not
        would count what is not to be predicted.
        """
        weighted = [*(metrics or ()), *(weighted_metrics or ())]
        self.sees_logits = loss is not None or bool(weighted)
        super().compile(*args, loss=loss or Crossentropy(), weighted_metrics=weighted or None, **kwargs)

    def get_compile_config(self) -> dict[str, Any]:
        """See TrainingStep; the head's own loss is not among it, as one that is given sees the logits."""
        return super().get_compile_config() | ({} if not self.compiled or self.sees_logits else {"loss": None})

    def sum_losses(
        self, inputs: dict[str, tf.Tensor], labels: tf.Tensor, weights: tf.Tensor, training: bool
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """See TrainingStep."""
        if self.sees_logits:
            return super().sum_losses(inputs, _known(labels), weights, training)
        return self.sum_scored(self.backbone(inputs, training=training), labels, weights, training), None

    def sum_scored(
        self, outputs: dict[str, tf.Tensor], labels: tf.Tensor, weights: tf.Tensor, training: bool, loss: Any = None
    ) -> tf.Tensor:
        """Sum of the weighted losses by what the backbone gives; cross-entropies unless another loss is given."""
        if loss is not None:
            return weighted_sum(loss, _known(labels), self.score(outputs, training=training), weights)
        if not is_ids(labels):
            raise InputError(
                f"expected labels as token ids [batch, length], got shape {labels.shape}; "
                "pass a loss that takes a number for each token, as keras.losses.CategoricalCrossentropy"
            )
        table = tf.convert_to_tensor(self.backbone.output_table.value)
        states = self.output_states(outputs["hidden_states"])
        settings = {"bias": self.output_bias, "few": self.few, "gradients": training}
        return summed_crossentropy(states, table, labels, weights, **settings)

    def weights_of(self, labels: tf.Tensor, sample_weight: tf.Tensor | None) -> tf.Tensor:
        """See TrainingStep; what is not to be predicted weighs nothing."""
        weights = super().weights_of(labels, sample_weight)
        return tf.where(labels < 0, 0.0, weights) if is_ids(labels) else weights

    def seen_by_metrics(self, labels: tf.Tensor, sample_weight: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        """See TrainingStep; what is not to be predicted is some token of weight 0."""
        return _known(labels), self.weights_of(labels, sample_weight)

    def inputs_of(self, token_ids: tf.Tensor) -> dict[str, tf.Tensor]:
        """What the model takes of rows without padding."""
        return {"token_ids": token_ids}

    def training_set(self, batches: Windows | MaskedWindows, first_step: int, steps: int) -> tf.data.Dataset:
        return self._named(self._checked(batches).dataset(first_step, steps))

    def validation_set(self, batches: Windows | MaskedWindows, limit: int | None = None) -> tf.data.Dataset:
        """The windows that lie end to end, once each and in order, or the first `limit` batches of them."""
        return self._named(self._checked(batches).in_order(limit))

    def _named(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Token ids and labels as the model takes them."""
        return dataset.map(lambda token_ids, labels: (self.inputs_of(token_ids), labels))

    def _checked(self, windows: Windows | MaskedWindows) -> Windows | MaskedWindows:
        config = self.backbone.config
        if windows.max_length > config.max_length:
            raise InputError(
                f"expected windows of at most the model's {config.max_length} tokens, got {windows.max_length}; "
                "lower max_length"
            )
        if windows.vocab_size > config.vocab_size:
            raise InputError(
                f"expected token ids of at most the model's {config.vocab_size} tokens, got {windows.vocab_size}; "
                "tokenize the text with the model's tokenizer"
            )
        return windows


@keras.saving.register_keras_serializable("kerasformer")
class CausalLM(TokenLoss, Generating, heads.CausalLM):
    """Predicts the next token and continues texts; see `models.heads.CausalLM` and `generation.generating`."""

    batches_class = Windows
    for_texts = "call generate to continue texts, or read them with kf.data.language_modelling to train"


@keras.saving.register_keras_serializable("kerasformer")
class MaskedLM(TokenLoss, heads.MaskedLM):
    """Predicts hidden tokens from those around them; see `models.heads.MaskedLM`."""

    batches_class = MaskedWindows
    for_texts = "call model.tokenizer.in_graph()(texts), or read them with kf.data.masked_language_modelling to train"
    few = True

    def output_states(self, hidden_states: tf.Tensor) -> tf.Tensor:
        """See TokenLoss."""
        return self.head(hidden_states)

    @property
    def output_bias(self) -> tf.Tensor:
        """See TokenLoss."""
        return tf.convert_to_tensor(self.head.bias.value)

    def inputs_of(self, token_ids: tf.Tensor) -> dict[str, tf.Tensor]:
        """See TokenLoss."""
        segment_ids, padding_mask = tf.zeros_like(token_ids), tf.ones_like(token_ids)
        return {"token_ids": token_ids, "segment_ids": segment_ids, "padding_mask": padding_mask}


def _known(labels: tf.Tensor) -> tf.Tensor:
    """Labels of which those that are not to be predicted are some token."""
    return tf.maximum(labels, 0) if is_ids(labels) else labels
