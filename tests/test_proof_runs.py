"""Trainings killed and resumed, memory of many steps, the same bits again: quickly, and the judges."""

import mmap
import os
import random
from pathlib import Path

import numpy as np
import pytest

import tinygrad_zen as tz

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals, and memory from /proc")


@pytest.fixture
def runs(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import proof_runs

    return proof_runs


def test_killed_and_resumed(runs):
    title, lines = runs.kills(quick=True)
    assert title == "Killed and resumed"
    counts = [int(line.split("|")[2]) for line in lines if line.startswith(("| be", "| while"))]
    assert sum(counts) >= 5 and f"**{sum(counts)} kills of " in "\n".join(lines)


def test_many_steps(runs):
    _, lines = runs.soak(quick=True)
    rows = [line.split("|") for line in lines if line.startswith(("| numpy", "| numba"))]
    assert [row[2].strip() for row in rows] == ["on", "off"]
    assert all(float(row[3]) > 10 and float(row[4]) < 2 for row in rows)


def test_the_same_bits(runs):
    _, lines = runs.determinism(quick=True)
    assert [line for line in lines if line.startswith("| numpy | LSTM")]
    assert sum("| same bits | same bits |" in line for line in lines) == len(runs.NETWORKS)


def test_a_resumed_training_that_differs_by_a_bit_is_seen(runs, tmp_path):
    straight = runs.answer(runs.start("train", tmp_path, 2))
    assert runs.answer(runs.start("train", tmp_path, 2)) == straight  # it was finished
    path = tmp_path / runs.CHECKPOINT
    arrays, metadata = tz.io.load_state(path)
    name = next(name for name in arrays if name.startswith("optimizer"))
    flat = arrays[name].reshape(-1)
    flat[0] = np.nextafter(flat[0], np.float32(np.inf))
    tz.io.save_state(path, arrays, metadata)
    assert runs.answer(runs.start("train", tmp_path, 2)) != straight
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(AssertionError, match="cut short or damaged"):
        runs.answer(runs.start("train", tmp_path, 2))


def test_what_a_kill_left_is_read(runs, tmp_path):
    process, end = runs.killed(tmp_path, 9, seconds=0)
    assert end is None and process.returncode < 0 and not any(tmp_path.iterdir())
    assert runs.moment(tmp_path, 1) == "before the first checkpoint"
    runs.answer(runs.start("train", tmp_path, 2))
    assert runs.read_all(tmp_path) == set() and runs.moment(tmp_path, 1).startswith("between")
    part = tmp_path / ".best.safetensors.1.part"
    part.write_bytes(b"")
    assert runs.moment(tmp_path, 1) == "while a file was being written"
    assert runs.moment(tmp_path, 2).startswith("between")  # what an earlier process left
    (tmp_path / ".history.csv.3.part").write_bytes(b"")
    with pytest.raises(AssertionError, match="the temporary file of an earlier process"):
        runs.moment(tmp_path, 1)
    for name, kind in [
        (runs.HISTORY, AssertionError),
        (runs.BEST, ValueError),
        (runs.CHECKPOINT, ValueError),
    ]:
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) * 9 // 10])
        with pytest.raises(kind):
            runs.read_all(tmp_path)
        (tmp_path / name).write_bytes(whole)


def test_digests_tell_everything_apart(runs):
    x = np.arange(4.0)
    things = [
        *(x, x.astype("f4"), x.reshape(2, 2), -x, x[::-1], np.arange(4)),
        *([0.0], [-0.0], [0], ["0"], [None], [1.0], [1 + 2**-52]),
        *({"a": x}, {"b": x}, {"a": {"b": 1}}, {"a": x, "b": 1}),
    ]
    assert len({runs.digest(thing) for thing in things}) == len(things)
    assert runs.digest({"a": x, "b": [1, 2.5]}) == runs.digest({"a": x.copy(), "b": [1, 2.5]})


def test_memory_that_grows_is_seen(runs):
    before = runs.resident()
    with mmap.mmap(
        -1, 2 * runs.GROWTH
    ) as kept:  # of the system: no memory that something left behind
        kept.write(random.randbytes(len(kept)))
        assert runs.resident() - before > runs.GROWTH
