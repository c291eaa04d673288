"""On which devices a model trains, and what of the data each of them gets."""

import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, get_args

import numpy as np
import tensorflow as tf

from kerasformer.config.run import Strategy
from kerasformer.errors import InputError, Stopped

TOLD_BYTES = 1024  # of what workers compare
GONE = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError)  # of another worker


def strategy(name: str = "auto", devices: int = 0, timeout: float = 600.0) -> tf.distribute.Strategy:
    """The tf.distribute strategy to make and train a model under: `with kf.strategy("mirrored").scope(): ...`.

    Args:
        name: "one" device; "mirrored": several of this host; "multiworker": those of all hosts that TF_CONFIG or Slurm
            tell of; "tpu"; "auto": what there is, in the order TPU, several hosts, several GPUs, one device.
        devices: how many of this host's to use, all by default; without GPUs the CPU is made into so many.
        timeout: seconds after which a step that waits for another host fails.

    Raises:
        InputError: devices that are not there, or an environment that does not describe the hosts.
    """
    if name not in (names := get_args(Strategy)):
        raise InputError(f"expected a strategy among {', '.join(names)}, got {name!r}; name one of them")
    _read_slurm()
    hosts = len(_addresses())
    if name == "auto":
        name = _found(devices)
    if hosts > 1 and name != "multiworker":
        raise InputError(f"expected multiworker for the {hosts} workers that TF_CONFIG tells of, got {name}; unset one")
    if devices > 1 and name != "mirrored":
        raise InputError(f"expected devices to be told for mirrored alone, got {devices} for {name}; leave them out")
    if name == "tpu":
        return _tpu()
    if name == "multiworker":
        return _multiworker(timeout)
    if name == "mirrored":
        return tf.distribute.MirroredStrategy(_local_devices(devices))
    return tf.distribute.get_strategy()


def is_chief() -> bool:
    """Whether this process is the one that writes files: of several workers the first."""
    task = _cluster().get("task", {})
    return task.get("type", "chief") == "chief" or ("chief" not in _workers() and task.get("index", 0) == 0)


def has_others() -> bool:
    """Whether this process is one of several workers."""
    return len(_addresses()) > 1


def agreed(strategy: tf.distribute.Strategy, *flags: bool) -> list[bool]:
    """Each flag, if it holds on any worker: the same on all of them, who wait for each other here."""
    if not strategy.extended._in_multi_worker_mode():
        return list(flags)
    mine = tf.constant([float(flag) for flag in (*flags, True)])
    values = strategy.experimental_distribute_values_from_function(lambda _: mine)
    return [bool(count) for count in strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)[:-1] > 0]


def check_alike(strategy: tf.distribute.Strategy, expected: str, found: str, advice: str) -> None:
    """Makes sure that all workers have found the same; they wait for each other here.

    Args:
        found: what this one has; of a long text the end is compared, and told, as a hash.

    Raises:
        InputError: not all have, which each of them tells.
    """
    if not strategy.extended._in_multi_worker_mode():
        return
    content = found.encode(errors="surrogateescape")
    if len(content) > TOLD_BYTES:
        content = content[: TOLD_BYTES - 20] + f"... ({hashlib.sha256(content).hexdigest()[:8]})".encode()
    written = np.frombuffer(content.ljust(TOLD_BYTES), np.uint8).astype(np.float32)

    def row_of(context: tf.distribute.experimental.ValueContext) -> tf.Tensor:
        others = tf.one_hot(context.replica_id_in_sync_group, context.num_replicas_in_sync)
        return others[:, None] * written

    rows = strategy.reduce("SUM", strategy.experimental_distribute_values_from_function(row_of), axis=None)
    local = len(strategy.extended.worker_devices)  # replicas of a worker
    told = [row.astype(np.uint8).tobytes().decode(errors="replace").rstrip() for row in rows.numpy()[::local]]
    if len(set(told)) > 1:
        each = [f"{text} on worker {told.index(text)}" for text in dict.fromkeys(told)]
        raise InputError(f"expected {expected}, got {', '.join(each)}; {advice}")


@contextmanager
def workers_answer() -> Iterator[None]:
    """Says what has happened where another worker has gone, which TensorFlow notices within seconds.

    Raises:
        InputError: one has.
    """
    try:
        yield
    except (InputError, Stopped):
        raise
    except Exception as error:
        cause = error
        while cause is not None and not isinstance(cause, GONE):
            cause = cause.__context__  # Keras fails where it adds to the message of an error in a layer
        if cause is None or not has_others():
            raise
        raise InputError(
            f"expected every worker to answer, got {type(cause).__name__}, as one has ended or cannot be reached; "
            "see what it said last, and start all of them again to go on from the last checkpoint"
        ) from error


def distributed(strategy: tf.distribute.Strategy, dataset: tf.data.Dataset) -> Any:
    """A dataset of global batches, of which each replica gets its rows.

    Every host makes the same batches and takes the rows of its own replicas, so that what a step sees is the same for
    any number of replicas; where that number does not divide a batch, some get a row more. Repeats without end.
    """
    total = strategy.num_replicas_in_sync
    if total == 1:
        return dataset

    def local(context: tf.distribute.InputContext) -> tf.data.Dataset:
        count = total // context.num_input_pipelines
        first = context.input_pipeline_id * count

        def rows_of(*batch: Any) -> tf.data.Dataset:
            replicas = tf.data.Dataset.range(first, first + count)
            return replicas.map(lambda replica: tf.nest.map_structure(lambda t: _rows(t, replica, total), batch))

        rows = dataset.repeat().flat_map(rows_of)
        return rows.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))

    return strategy.distribute_datasets_from_function(local)


def _rows(tensor: tf.Tensor, replica: tf.Tensor, total: int) -> tf.Tensor:
    """The rows of a batch that one of `total` replicas gets."""
    if tensor.shape[0] is not None and tensor.shape[0] % total == 0:
        return tf.reshape(tensor, [total, tensor.shape[0] // total, *tensor.shape[1:]])[replica]  # of a known size
    rows = tf.shape(tensor, tf.int64)[0]
    return tensor[replica * rows // total : (replica + 1) * rows // total]


def _found(devices: int) -> str:
    if tf.config.list_physical_devices("TPU") or "TPU_NAME" in os.environ:
        return "tpu"
    if has_others():
        return "multiworker"
    return "mirrored" if devices > 1 or len(tf.config.list_physical_devices("GPU")) > 1 else "one"


def _local_devices(count: int) -> list[str]:
    """The GPUs to mirror a model on, or parts of the CPU."""
    gpus = tf.config.list_logical_devices("GPU") if tf.config.list_physical_devices("GPU") else []
    if not gpus and count > 1:
        _divide_cpu(count)
    found = [device.name for device in gpus or tf.config.list_logical_devices("CPU")]
    if count > len(found):
        raise InputError(
            f"expected at most the {len(found)} devices that are here, got {count}; ask for fewer (--train.devices)"
        )
    return found[: count or None]


def _divide_cpu(count: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or ()) >= count:
        return
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError as error:
        raise InputError(
            f"expected the CPU to be made into {count} devices before TensorFlow first uses it, got one in use; "
            "call kf.strategy first"
        ) from error


def _tpu() -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(os.environ.get("TPU_NAME", "local"))
    except (ValueError, tf.errors.OpError) as error:
        raise InputError(f"expected a TPU, got none ({str(error).splitlines()[0]}); choose another strategy") from error
    return tf.distribute.TPUStrategy(resolver)


def _cluster() -> dict:
    """TF_CONFIG; {} where it tells of no workers."""
    text = os.environ.get("TF_CONFIG") or "{}"
    try:
        value = json.loads(text)
        if not isinstance(value, dict):
            raise ValueError(f"a {type(value).__name__}")
        if not value.get("cluster"):
            return {}
        _check_cluster(value["cluster"], value["task"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise InputError(
            'expected TF_CONFIG as {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
            f", got {what} in {text:.200}; mend it"
        ) from error
    return value


def _check_cluster(cluster: dict[str, list[str]], task: dict) -> None:
    """Raises ValueError, or what Python does, where a cluster is not one of workers, or the task is none of it."""
    if not isinstance(cluster, dict):
        raise ValueError(f"a {type(cluster).__name__} as cluster")
    if others := sorted({*cluster, task["type"]} - {"chief", "worker"}):
        raise ValueError(f"{others[0]!r}, where each task is a worker, or the chief,")
    for address in chain(*cluster.values()):
        host, _, port = str(address).rpartition(":")
        if not (host and port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
            raise ValueError(f"the address {address!r}, which is not host:port,")
    count, index = len(cluster[task["type"]]), task["index"]
    if type(index) is not int or not 0 <= index < count:
        raise ValueError(f"index {index!r}, which is none of the {count} of {task['type']!r},")


def _read_slurm() -> None:
    """Writes TF_CONFIG from what Slurm tells of a step of several tasks."""
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))
    if os.environ.get("TF_CONFIG") or tasks < 2:
        return
    # Each task sees the GPUs that Slurm gives it; the numbers keep the resolver from looking for them.
    gpus = {"gpus_per_node": tasks, "gpus_per_task": 1, "auto_set_gpu": False}
    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(**gpus)
    cluster = resolver.cluster_spec().as_dict()
    kind, index = resolver.get_task_info()
    os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


def _workers() -> dict[str, list[str]]:
    return _cluster().get("cluster", {})


def _addresses() -> list[str]:
    return [*chain(*_workers().values())]


def _multiworker(timeout: float) -> tf.distribute.Strategy:
    options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=timeout)
    if not _workers():
        raise InputError(
            "expected TF_CONFIG or Slurm to tell of the workers, got neither; run kerasformer launch --workers N, "
            "or set TF_CONFIG on each host"
        )
    _wait_for_workers(timeout)
    return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)


def _wait_for_workers(timeout: float) -> None:
    """Returns when all workers have come: TensorFlow itself waits for them for an hour, past any signal."""
    task = _cluster()["task"]
    own = _workers()[task["type"]][task["index"]]
    missing = [address for address in _addresses() if address != own]
    deadline = time.monotonic() + timeout
    # Until TensorFlow's server listens at this worker's address, this does, to tell the others that it has come.
    with _listening(own, len(missing)):
        while missing := [address for address in missing if not _listens(address)]:
            if time.monotonic() > deadline:
                raise InputError(
                    f"expected all workers within {timeout:.0f} s, got no answer from {', '.join(missing)}; start one "
                    "on each host at about the same time, or wait for longer (--train.worker_timeout)"
                )
            time.sleep(0.2)


def _listening(address: str, others: int) -> socket.socket:
    """A server at this worker's own address, for so many others.

    Raises:
        InputError: the port cannot be had.
    """
    try:
        return socket.create_server(("", int(address.rpartition(":")[2])), backlog=others + 1)
    except OSError as error:
        raise InputError(
            f"expected a free port for this worker at {address}, got {os.strerror(error.errno).lower()}; "
            "end what has it, or choose another in the TF_CONFIG of every worker"
        ) from error


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except OSError:
        return False
    return True
