"""Functions with gradients of their own, on every backend.

TensorFlow keeps the gradient of each call of `tf.custom_gradient` in a graph in its registry for good, and a gradient
holds the graph, with all variables that it reads. Here the graph holds its gradients, and the registry refers to them
weakly: a model that nobody uses any more is freed with all that was traced of it.
"""

import functools
import weakref
from collections.abc import Callable, Sequence

import keras

HELD = "_kerasformer_gradients"  # attribute of a graph


def custom_gradient(function: Callable) -> Callable:
    """`keras.ops.custom_gradient`: the written gradient takes that of each output, on every backend."""

    @functools.wraps(function)
    def call(*tensors):
        outputs, gradient = function(*tensors)

        def given(*args, upstream=None):  # TensorFlow gives each, JAX several as a tuple, torch a name
            upstreams = args if upstream is None else (upstream,)
            return gradient(*upstreams[0]) if isinstance(upstreams[0], tuple) else gradient(*upstreams)

        return outputs, given

    call = keras.ops.custom_gradient(call)
    return functools.wraps(function)(held_by_graph(call)) if keras.backend.backend() == "tensorflow" else call


def recomputed(
    function: Callable, x: keras.KerasTensor, variables: Sequence[keras.Variable], generators: Sequence
) -> keras.KerasTensor:
    """`function(x)`, of which the backward pass keeps `x` alone: it computes all between anew.

    Args:
        variables: those that `function` reads.
        generators: the SeedGenerators that it draws from, once each. It draws the same both times.
    """
    drawn = [(generator.state, generator.next()) for generator in generators]
    # Under JAX an enclosing scope holds the values, which a scope within it hides.
    held = [(variable, variable.value) for variable in variables] if keras.backend.backend() == "jax" else []

    def stateless(x):
        with keras.StatelessScope(held + drawn):
            return function(x)

    return (_remat if keras.backend.backend() == "tensorflow" else keras.remat)(stateless)(x)


def _remat(function: Callable) -> Callable:
    """`tf.recompute_grad` of a function of one tensor, without the custom gradient that it makes of its gradient."""
    import tensorflow as tf

    def call(x):
        def gradient(upstream, variables=()):
            # XLA heeds no control dependencies. This zero makes it compute the function after the upstream gradient,
            # and not at once with what the forward pass computes; a size of 0 has no number to depend on.
            number = tf.cast(tf.reduce_max(tf.reshape(upstream, [-1])[:1]), tf.bool)
            zero = tf.where(number == number, 0.0, float("nan"))
            with tf.GradientTape() as tape:
                again = tf.identity(x) + tf.cast(zero, x.dtype)
                tape.watch(again)
                y = function(again)
            zeros = tf.UnconnectedGradients.ZERO
            for_x, *others = tape.gradient(y, [again, *variables], upstream, unconnected_gradients=zeros)
            return (for_x, others) if variables else for_x

        return function(x), gradient

    return held_by_graph(tf.custom_gradient(call))


def held_by_graph(function: Callable) -> Callable:
    """A function that returns what `tf.custom_gradient` gives; the gradient lives as long as the graph of the call."""
    import tensorflow as tf
    from tensorflow.python.framework.ops import gradient_registry  # it has no public name

    def call(*args):
        outputs = function(*args)
        if tf.executing_eagerly():  # the tape alone holds the gradient
            return outputs
        operation = tf.nest.flatten(outputs)[0].op  # which names its gradient
        name, entries = operation.get_attr("_gradient_op_type").decode(), gradient_registry._registry
        gradient, graph = entries[name]["type"], _outermost(operation.graph)
        if not hasattr(graph, HELD):
            setattr(graph, HELD, [])
        getattr(graph, HELD).append(gradient)
        entries[name]["type"] = functools.partial(_call, weakref.ref(gradient))
        weakref.finalize(gradient, entries.pop, name, None).atexit = False
        return outputs

    return call


def _outermost(graph):
    """The graph of the function around all: the body of a loop is traced anew, for its gradient, from what it made."""
    from tensorflow.python.framework.func_graph import FuncGraph  # it has no public name

    while isinstance(graph.outer_graph if isinstance(graph, FuncGraph) else None, FuncGraph):
        graph = graph.outer_graph
    return graph


def _call(reference: weakref.ref, *args):
    return reference()(*args)
