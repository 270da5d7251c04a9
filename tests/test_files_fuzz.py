"""Damaged files, a few for each reader: read right or refused. `make proof` reads 20,000."""

import dataclasses
import os
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from tinygrad_zen.io import FileError

pooch = pytest.importorskip("pooch")
pytest.importorskip("safetensors")
BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import proof_files  # noqa: E402
from file_readers import READERS, Reader, equal  # noqa: E402

sys.path.remove(str(BENCHMARKS))
FILES = 25


@pytest.fixture
def traced(monkeypatch):
    monkeypatch.setattr(pooch, "os_cache", pooch.os_cache)  # a reader puts its own in place
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_damaged_files(reader, tmp_path, traced):
    trial = proof_files.Trial(reader, tmp_path, seed=1)
    for number in range(FILES):
        trial.run(number)
    assert trial.counts.total() == FILES
    if reader.judge is not None:
        assert trial.counts["refused"] > FILES // 4


# the trial itself


def refuse(path):
    content = path.read_bytes()
    if content != WHOLE:
        raise FileError("damaged")
    return content


WHOLE = b"what a file says, " * 9
GOOD = Reader("good", "a", lambda path, seed: path.write_bytes(WHOLE), refuse, bytes)


def reads(wrongly):
    """A reader that refuses nothing and makes this of what is damaged."""

    def read(path):
        content = path.read_bytes()
        return content if content == WHOLE else wrongly(content)

    return dataclasses.replace(GOOD, read=read)


def of_an_error(content):
    raise KeyError("sizes")


def of_nothing(content):
    raise FileError


def of_much_time(content):
    start = time.process_time()
    while time.process_time() < start + 0.1:
        pass


@pytest.mark.parametrize(
    "wrongly, words",
    [
        (of_an_error, "KeyError: 'sizes'"),
        (of_nothing, "refused without a word"),
        (lambda content: content + b"x", "was read wrongly"),
        (lambda content: len(bytes(65 << 20)), "took 68,15"),
        (of_much_time, "took 0."),
    ],
    ids=["error", "word", "wrong", "memory", "time"],
)
def test_a_trial_finds_what_is_wrong(wrongly, words, tmp_path, traced, monkeypatch):
    monkeypatch.setattr(proof_files, "SECONDS", 0.1)
    trial = proof_files.Trial(reads(wrongly), tmp_path)
    with pytest.raises(AssertionError, match=r"\Agood, file \d+ \(.*\): ") as caught:
        for number in range(20):
            trial.run(number)
    assert words in str(caught.value)


def test_what_the_judge_refuses_must_not_be_read(tmp_path, traced):
    def judge(content):
        raise ValueError("no")

    trial = proof_files.Trial(dataclasses.replace(reads(bytes), judge=judge), tmp_path)
    with pytest.raises(AssertionError, match="was read, but the judge says ValueError: no"):
        for number in range(20):
            trial.run(number)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at memory as Linux tells it")
def test_processes_that_crash_or_hang(monkeypatch):
    counts, memory, seconds, _ = proof_files.in_a_process(GOOD, 12)
    assert counts.total() == 12 and counts["refused"] > 6 and memory < 1 << 20 and seconds < 1
    with pytest.raises(AssertionError, match="the process died after file -1, exit code 7"):
        proof_files.in_a_process(reads(lambda content: os._exit(7)), 12)
    with pytest.raises(AssertionError, match="KeyError: 'sizes'"):
        proof_files.in_a_process(reads(of_an_error), 12)
    monkeypatch.setattr(proof_files, "HANGS", 1)
    with pytest.raises(AssertionError, match="good: hangs after file -1"):
        proof_files.in_a_process(reads(lambda content: os.read(os.pipe()[0], 1)), 12)


def test_equal():
    one, nan = np.ones(2), float("nan")
    assert equal({"a": [one, nan, 1]}, {"a": (np.ones(2), nan, 1.0)})
    assert not equal(one, [1, 1]) and not equal(one, one.astype("f4"))
    assert not equal([1], [1, 2]) and not equal({"a": 1}, {"b": 1}) and not equal(nan, 1)
