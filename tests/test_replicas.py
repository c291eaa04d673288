"""Each way in which Keras's `fit` is wrong or fails on several replicas, and that ours is right; see `replicas.py`."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from processes import Forked, run_python

from kerasformer.training.launch import environments

SCRIPT = Path(__file__).with_name("replicas.py")


# What our training makes of each case on two replicas, and Keras's own, or what its error says.
ON_TWO_REPLICAS = {
    "A1": ({"w": -1.0, "iterations": 1}, {"w": -2.0}),  # clipped on each replica, then added up
    "A2": ({"w": 0.0, "iterations": 1}, {"w": float("-inf"), "iterations": 1}),
    "A3": ({"w": -5.0}, {"w": -3.75}),  # divided by the rows, padding too
    "A4": ({"w": -2.5, "iterations": 1}, "merge_call"),
    "A5": ({"w": -1.0, "iterations": 2}, {"w": 0.0}),  # the schedule has run twice as fast, past the rate of 1
    "A6": ({"w": -4.0, "iterations": 4}, "Placeholder"),
    "rest": ({"w": -5.0, "loss": -2.0, "iterations": 5, "same": True}, "Placeholder"),
    "A7": ({"w": -2.0, "iterations": 2}, "InvalidArgumentError"),
    "A8": ({"w": -1.0}, "bool"),
    "A10": ({"w": -3.0}, "AddN"),
    "A13": ({"w": -40.0, "iterations": 40}, {"w": -50.0, "iterations": 50}),  # what was done is done again
    "A14": ({"third": [[8.0, 9.0], [10.0, 11.0]]}, "iterator"),
}


def answers(maker: str, environments: list[dict[str, str]], folder: Path) -> list[dict]:
    """What the script prints in each of these processes, which share a folder."""
    words = [str(SCRIPT), maker, str(folder)]
    processes = [Forked(words, run_python, environment=own) for own in environments]
    try:
        printed = [process.communicate(timeout=600) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, err) in zip(processes, printed, strict=True):
        assert process.returncode == 0, err
    return [json.loads(out.splitlines()[-1]) for out, _ in printed]


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory) -> Callable[[str], dict]:
    return cache(lambda maker: answers(maker, [{}], tmp_path_factory.mktemp(maker))[0])


@pytest.fixture(scope="module")
def workers(tmp_path_factory) -> Callable[[str], list[dict]]:
    return cache(lambda maker: answers(maker, environments(2), tmp_path_factory.mktemp(maker)))


@pytest.mark.parametrize("case", ON_TWO_REPLICAS)
def test_on_two_replicas(mirrored, case):
    expected, found = ON_TWO_REPLICAS[case][0], mirrored("ours")[case]
    assert {name: found.get(name) for name in expected} == expected


@pytest.mark.slow
@pytest.mark.parametrize("case", ON_TWO_REPLICAS)
def test_keras_on_two_replicas(mirrored, case):
    expected, found = ON_TWO_REPLICAS[case][1], mirrored("keras")[case]
    if isinstance(expected, str):
        assert expected in found["error"]
    else:
        assert {name: found.get(name) for name in expected} == expected


def test_on_two_workers(workers):
    first, second = workers("ours")
    assert first["A11"] == second["A11"] == {"w": -5.0, "loss": -6.25, "iterations": 2}
    assert first["A12"] == second["A12"] == {"w": -40.0, "iterations": 40}


@pytest.mark.slow
def test_keras_on_two_workers(workers):
    for worker in workers("keras"):
        assert "error" in worker["A11"] and "error" in worker["A12"]


def test_each_row_of_an_epoch_is_seen_once_in_the_same_order(mirrored, workers):
    [alone], both = [mirrored("ours")["once"]["rows"]], [worker["once"]["rows"] for worker in workers("ours")]
    assert [sum(step, []) for step in alone] == [[*map(float, range(i, min(i + 4, 21)))] for i in range(0, 21, 4)]
    assert [first + second for first, second in zip(*both, strict=True)] == alone


def test_workers_that_do_not_have_the_same_say_what_each_has(workers):
    first, second = (worker["hosts"] for worker in workers("ours"))
    assert first == second, "each of them says it"
    step = "step-00000040 (545df32f)"
    shared = (
        "expected all workers to find the same in RUNS/run/checkpoints, got {}; put --runs where all hosts share it"
    )
    assert first == {
        "alike": None,
        "recipe": "expected all workers to have one recipe, got --train.epochs 2 on worker 0, --train.epochs 3 on "
        "worker 1; start the same command on every host",
        "data": "expected all workers to have the same data, got those of fingerprint 00000000 on worker 0, those of "
        "fingerprint 11111111 on worker 1; give each host the same files",
        "checkpoint": shared.format(f"no checkpoint on worker 0, {step} on worker 1")
        + ", and end what else trains in it",
        "figures": shared.format(f"{step} and figures on worker 0, {step} on worker 1")
        + ", and end what else trains in it",
        "warned": [
            "%s is not on every host: put --runs where all share it, or a run that breaks off cannot go on",
        ],
    }
