"""A language model as it is served: a prompt in, its continuation out; and the likelihood of a text.

Shapes: B texts, T tokens of the longest, P columns of the prompts, R room for new tokens, D width, V vocabulary.
"""

import numpy as np
import tensorflow as tf

from kerasformer.errors import InputError
from kerasformer.generation.arguments import rules_of
from kerasformer.generation.decoding import decode
from kerasformer.generation.sampling import Rules
from kerasformer.models.heads import CausalLM
from kerasformer.serving.served import Requests, Served, backbone_in_float32, check_shapes
from kerasformer.serving.session import DEFAULT_SIGNATURE

WARMUP_PROMPTS = (["Once"], ["A longer prompt, of which there are several in a batch, "] * 4)
# What a request may set, each [B], after `prompt`.
SETTINGS = {
    "max_new_tokens": tf.int32,
    "temperature": tf.float32,
    "top_k": tf.int32,
    "top_p": tf.float32,
    "seed": tf.int32,
}


class ServedGenerator(Served):
    """`serving_default` takes `prompt` string [B] and gives `text` string [B], the continuation as valid UTF-8, and
    `token_count` int32 [B]. `generate` takes SETTINGS as well. `score` takes `text` and gives `log_likelihood` (nats,
    given an end of text before it), `perplexity` and `token_count`, each [B].

    What a row gets depends on that row alone, so a server may batch requests; and the same seed gives the same text.
    No setting fails a request, which may share its batch: numbers out of range are moved into it.

    Args:
        model: a CausalLM with a tokenizer.
        max_new_tokens: the most that a request can get, and what it gets where it does not say.
        temperature, top_k, top_p, repetition_penalty, seed: of `serving_default`, as in `model.generate`; greedy by
            default. Without a seed one is drawn, for good.
    """

    task = "generation"
    options = frozenset([*SETTINGS, "repetition_penalty"])

    def __init__(
        self,
        model: CausalLM,
        *,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int = 0,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        seed: int | None = 0,
    ):
        context = model.backbone.config.max_length
        max_new_tokens = min(128, context // 2) if max_new_tokens is None else max_new_tokens
        rules = rules_of(1, max_new_tokens, temperature, top_k, top_p, repetition_penalty, seed)
        if not 1 <= max_new_tokens < context:
            raise InputError(
                f"expected max_new_tokens from 1 to {context - 1}, as the model has {context} positions, "
                f"got {max_new_tokens}; change it"
            )
        super().__init__(model, CausalLM(backbone_in_float32(model), model.tokenizer))
        self.context, self.room, self.end_id = context, int(max_new_tokens), model.tokenizer.eot_id
        self.repetition_penalty = float(repetition_penalty)
        self.defaults = {
            "max_new_tokens": self.room,
            "temperature": float(rules.temperature[0] if temperature is None else temperature),
            "top_k": int(top_k),
            "top_p": float(top_p),
            "seed": int(rules.seed[0]),
        }

    def generate(self, prompt: tf.Tensor, **settings: tf.Tensor) -> dict[str, tf.Tensor]:
        """Continues prompts [B] by settings [B]; of one that is too long the last tokens are read."""
        settings = check_shapes(1, {"prompt": prompt, **settings})
        prompt = settings.pop("prompt")
        ends = tf.fill([tf.size(prompt), 1], self.end_id)
        ids = tf.concat([ends, self.tokenizer.tokenize(prompt)], axis=1)
        sizes = ids.row_lengths()
        # An empty prompt is continued from an end of text.
        kept = tf.clip_by_value(sizes - 1, 1, self.context - self.room)
        length = tf.reduce_max(tf.concat([kept, [1]], axis=0))  # P; no prompts make one column
        columns = ids.row_limits()[:, None] - length + tf.range(length)  # [B, P], padding on the left
        is_token = tf.range(length) >= (length - kept)[:, None]
        token_ids = tf.where(is_token, tf.gather(ids.values, tf.maximum(columns, 0)), self.end_id)
        rules = self._rules(settings)
        new_ids, counts = decode(
            self.model.backbone, token_ids, tf.cast(is_token, tf.int32), rules, room=self.room, end_id=self.end_id
        )
        return {"text": self.tokenizer.detokenize(tf.RaggedTensor.from_tensor(new_ids, counts)), "token_count": counts}

    def score(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """How likely the model finds texts [B], by their first tokens where they are too long."""
        text = check_shapes(1, {"text": text})["text"]
        ends = tf.fill([tf.size(text), 1], self.end_id)
        ids = tf.concat([ends, self.tokenizer.tokenize(text)], axis=1)[:, : self.context]
        counts = tf.cast(ids.row_lengths(), tf.int32) - 1
        token_ids = ids.to_tensor(self.end_id)  # [B, 1 + T]
        hidden_states = self.model.backbone({"token_ids": token_ids})["hidden_states"]

        def log_likelihood(row):  # of one text at a time: the logits of all, [B, T, V], would be large
            hidden_states, token_ids, count = row
            logits = self.model.backbone.logits(hidden_states[:-1])
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(token_ids[1:], logits)
            return tf.reduce_sum(-losses[:count])

        total = tf.map_fn(
            log_likelihood, (hidden_states, token_ids, counts), fn_output_signature=tf.float32, parallel_iterations=1
        )
        perplexity = tf.exp(-total / tf.cast(tf.maximum(counts, 1), tf.float32))
        return {"log_likelihood": total, "perplexity": perplexity, "token_count": counts}

    def signatures(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        def by_default(prompt):
            size = tf.shape(prompt)
            return self.generate(
                prompt, **{name: tf.fill(size, tf.constant(self.defaults[name], SETTINGS[name])) for name in SETTINGS}
            )

        prompt = tf.TensorSpec([None], tf.string, name="prompt")
        settings = {name: tf.TensorSpec([None], dtype, name=name) for name, dtype in SETTINGS.items()}
        return {
            DEFAULT_SIGNATURE: tf.function(by_default, autograph=False).get_concrete_function(prompt),
            "generate": tf.function(self.generate, autograph=False).get_concrete_function(prompt, **settings),
            "score": tf.function(self.score, autograph=False).get_concrete_function(
                tf.TensorSpec([None], tf.string, name="text")
            ),
        }

    def warmup_requests(self) -> Requests:
        requests = []
        for texts in WARMUP_PROMPTS:
            prompts = np.array(texts, object)
            settings = {n: np.full(len(texts), self.defaults[n], d.as_numpy_dtype) for n, d in SETTINGS.items()}
            requests.append((DEFAULT_SIGNATURE, {"prompt": prompts}))
            requests.append(("generate", {"prompt": prompts, **settings, "temperature": np.ones(len(texts), "f4")}))
            requests.append(("score", {"text": prompts}))
        return requests

    def description(self) -> dict:
        prompt = f"string [B], UTF-8; of a longer one the last {self.context - self.room} tokens count"
        text = {
            "text": "string [B], the continuation, UTF-8",
            "token_count": "int32 [B], new tokens, the end of text not among them",
        }
        settings = {
            "max_new_tokens": f"int32 [B], 0 to {self.room}",
            "temperature": "float32 [B], 0 or below takes the best token each time",
            "top_k": "int32 [B], draw among the k best tokens; 0 or below: among all",
            "top_p": "float32 [B], draw among the best tokens that have this probability together; at least the best",
            "seed": "int32 [B], the same seed gives the same text",
        }
        score = {
            "log_likelihood": f"float32 [B], nats, of the first {self.context - 1} tokens",
            "perplexity": "float32 [B]",
            "token_count": "int32 [B]",
        }
        return {
            "context": self.context,
            "defaults": self.defaults | {"repetition_penalty": self.repetition_penalty},
            "signatures": {
                DEFAULT_SIGNATURE: {"inputs": {"prompt": prompt}, "outputs": text},
                "generate": {"inputs": {"prompt": prompt, **settings}, "outputs": text},
                "score": {"inputs": {"text": "string [B], UTF-8"}, "outputs": score},
            },
        }

    def _rules(self, settings: dict[str, tf.Tensor]) -> Rules:
        """The rules of each row, moved into their ranges; NaN counts as greedy, and as all of the probability."""
        temperature, top_p = settings["temperature"], settings["top_p"]
        return Rules(
            max_new_tokens=tf.clip_by_value(settings["max_new_tokens"], 0, self.room),
            temperature=tf.where(temperature > 0, temperature, 0.0),
            top_k=tf.maximum(settings["top_k"], 0),
            top_p=tf.where(top_p < 1, tf.maximum(top_p, 1e-6), 1.0),
            repetition_penalty=tf.fill(tf.shape(temperature), self.repetition_penalty),
            seed=settings["seed"],
        )
