"""Choices between implementations: measured once on a machine, kept, and never in the way."""

import json
import logging

import pytest

from kerasformer.kernels import probes


@pytest.fixture(autouse=True)
def measuring(tmp_path, monkeypatch):
    """Measures, into a folder of the test's own."""
    monkeypatch.setenv("KERASFORMER_KERNELS", "measure")
    monkeypatch.setenv("KERASFORMER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def clock(monkeypatch):
    """A clock that the candidates advance."""

    class Clock:
        now = 0.0
        calls: list[str] = []

        def candidate(self, name, seconds):
            def run():
                self.calls.append(name)
                self.now += seconds

            return run

    clock = Clock()
    clock.calls = []
    monkeypatch.setattr(probes.time, "perf_counter", lambda: clock.now)
    return clock


def test_the_fastest_is_measured_once_and_kept(clock, caplog):
    candidates = {"slow": clock.candidate("slow", 2.0), "fast": clock.candidate("fast", 1.0)}
    with caplog.at_level(logging.INFO):
        assert probes.fastest("sums", candidates) == "fast"
    assert caplog.messages == ["measured on this machine, sums: slow 2e+03 ms, fast 1e+03 ms; takes fast"]
    assert len(clock.calls) == 2 * (1 + probes.ROUNDS)
    assert probes.fastest("sums", candidates) == "fast"
    assert len(clock.calls) == 2 * (1 + probes.ROUNDS)  # read from the file
    [path] = probes.cache_folder().iterdir()
    assert json.loads(path.read_text()) == {"sums": "fast"}


def test_the_default_stays_where_the_gain_is_small(clock):
    candidates = {"default": clock.candidate("default", 1.0), "other": clock.candidate("other", 0.95)}
    assert probes.fastest("sums", candidates) == "default"


def test_nothing_is_measured_where_it_is_off_or_there_is_no_choice(clock, monkeypatch):
    assert probes.fastest("sums", {"only": clock.candidate("only", 1.0)}) == "only"
    monkeypatch.setenv("KERASFORMER_KERNELS", "default")
    assert probes.fastest("sums", {"a": clock.candidate("a", 2.0), "b": clock.candidate("b", 1.0)}) == "a"
    assert not clock.calls
    assert not probes.cache_folder().exists()


def test_another_setting_of_the_kernels_is_measured_anew(clock, monkeypatch):
    probes.fastest("sums", {"a": clock.candidate("a", 2.0), "b": clock.candidate("b", 1.0)})
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    assert probes.fastest("sums", {"a": clock.candidate("a", 1.0), "b": clock.candidate("b", 2.0)}) == "a"
    assert len([*probes.cache_folder().iterdir()]) == 2


@pytest.mark.parametrize("content", ["", "[]", '{"sums": "gone"}', '{"sums": 1}', "\0"])
def test_a_damaged_file_is_measured_over(clock, content):
    candidates = {"slow": clock.candidate("slow", 2.0), "fast": clock.candidate("fast", 1.0)}
    probes.fastest("sums", candidates)
    [path] = probes.cache_folder().iterdir()
    path.write_text(content)
    assert probes.fastest("sums", candidates) == "fast"
    assert json.loads(path.read_text())["sums"] == "fast"


def test_a_folder_that_cannot_be_written_only_costs_time(clock, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KERASFORMER_CACHE", str(tmp_path / "file/cache"))
    with caplog.at_level(logging.INFO):
        assert probes.fastest("sums", {"a": clock.candidate("a", 2.0), "b": clock.candidate("b", 1.0)}) == "b"
    assert "measured choices are not kept" in caplog.text
