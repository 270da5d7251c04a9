"""When the machine fails: memory, a full disk, folders that may not be written to."""

import contextlib
import errno
import json
import os
import re
import resource
import tempfile
from pathlib import Path

import numpy as np
import pytest

import tinygrad_zen as tz
import tinygrad_zen.nn.functional as F
from tinygrad_zen import data, io, nn, ops
from tinygrad_zen.train import Callback, Checkpoint, CSVLogger, Model, ModelCheckpoint
from tinygrad_zen.train.history import History

# memory

BYTES = "takes 400,000,000,000,000 bytes (372,529.0 GiB)"
ROWS = COLUMNS = 10**7


def absurd():
    """The same number over and over, in no memory."""
    return np.broadcast_to(np.float32(1), (ROWS, COLUMNS))


def column():
    return tz.tensor(np.ones((ROWS, 1), np.float32))


def row():
    return tz.tensor(np.ones((1, COLUMNS), np.float32))


@pytest.mark.parametrize(
    "call, words",
    [
        (
            lambda: column() + row(),
            f"add: *(10000000, 10000000), float32, {BYTES}; it is made of *",
        ),
        (
            lambda: column() @ row(),
            f"matmul: out of memory: an array of shape (10000000, 10000000), float32, {BYTES}; it is "
            "made of (10000000, 1) and (1, 10000000)",
        ),
        (
            lambda: F.linear(column(), row().T),
            f"linear: *(10000000, 10000000), float32, {BYTES}; *",
        ),
        (lambda: F.pad(column(), (0, COLUMNS - 1)), f"pad: *(10000000, 10000000), *{BYTES}; *"),
        (
            lambda: F.embedding(np.zeros(ROWS, int), row()),
            f"embedding: *(10000000, 10000000), float32, {BYTES}; it is made of *",
        ),
        (
            lambda: ops.concat([row()] * 10**5),
            "concat: *(100000, 10000000), float32, takes 4,000,000,000,000 bytes (3,725.3 GiB); * and "
            "99997 more",
        ),
        (lambda: tz.tensor(absurd()), f"tensor: *(10000000, 10000000), float32, {BYTES}"),
        (
            lambda: nn.Linear(ROWS, COLUMNS),
            f"a layer's weights: out of memory: an array of shape (10000000, 10000000), float32, {BYTES}",
        ),
        (
            lambda: data.one_hot(np.zeros(ROWS, int), COLUMNS),
            f"one_hot: *(10000000, 10000000), float32, {BYTES}",
        ),
        (
            lambda: data.pad_sequences([[1]], ROWS * COLUMNS),
            f"pad_sequences: *(1, 100000000000000), int32, {BYTES}",
        ),
    ],
    ids="add matmul linear pad embedding concat tensor layer one_hot pad_sequences".split(),
)
def test_absurd_shapes(backend, call, words):
    if backend.name not in ("numpy", "numba"):
        pytest.skip("of NumPy's arrays")
    pattern = ".*".join(map(re.escape, words.split("*")))
    with pytest.raises(tz.OutOfMemory, match=rf"\A{pattern}\Z"):
        call()


def test_gradients_of_absurd_shapes():
    @tz.op
    def first(be, x):
        return x[0], (lambda g: g * be.xp.ones((10**7, 10**7), x.dtype),)

    x = tz.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(
        tz.OutOfMemory, match=r"\Abackward: out of memory: .*\(10000000, 10000000\)"
    ):
        first(x).backward()
    assert x.grad is None


def test_errors_of_libraries_that_know_less():
    for error, words in (
        (MemoryError(), "f: out of memory: there is no more; it is made of (2,)"),
        (MemoryError("Out of memory allocating 8 bytes"), "f: out of memory: Out of memory *"),
    ):
        pattern = ".*".join(map(re.escape, words.split("*")))

        @tz.op
        def f(be, x):
            raise error

        with pytest.raises(tz.OutOfMemory, match=rf"\A{pattern}") as caught:
            f(tz.tensor([1.0, 2.0]))
        assert isinstance(caught.value, MemoryError) and caught.value.__cause__ is error


# a full disk, and a folder that may not be written to


@contextlib.contextmanager
def full_disk(room):
    """The system writes no file beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield "cannot be written: File too large"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def read_only(folder):
    """The folder is read-only; root, who may write there nevertheless, is somebody else meanwhile."""
    folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield "cannot be written: Permission denied"
    finally:
        os.seteuid(user)
        folder.chmod(0o755)


@pytest.fixture
def folder():
    """A folder that others than root can look into."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture(params=["full disk", "read-only"])
def fault(request, folder):
    """A function for the time of the fault."""
    return (lambda: full_disk(100)) if request.param == "full disk" else lambda: read_only(folder)


def history():
    made = History()
    for epoch in range(100):
        made.append(epoch, {"loss": 1 / (1 + epoch)})
    return made


def tokenizer():
    made = data.Tokenizer()
    made.fit_on_texts([" ".join(map(str, range(300)))])
    return made


WRITERS = {
    "state": lambda path: io.save_state(path, {"w": np.ones(1000)}),
    "model": lambda path: Model(nn.Linear(30, 30)).save(path),
    "checkpoint": lambda path: io.save_checkpoint(path, net=nn.Linear(30, 30)),
    "history": lambda path: history().save(path.with_suffix(".csv")),
    "words": lambda path: data.WordPiece.train([" ".join(map(str, range(999)))]).save(path),
    "tokenizer": lambda path: tokenizer().save(path),
    "characters": lambda path: data.Characters("".join(map(chr, range(300, 999)))).save(path),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_what_was_there_stays_and_nothing_is_left(writer, fault, folder):
    write, path = WRITERS[writer], folder / "file.csv"
    write(path)
    before = path.read_bytes()
    with fault() as words, pytest.raises(OSError, match=rf"{path}: {words}\Z") as caught:
        write(path)
    assert caught.value.errno in (errno.EFBIG, errno.EACCES)
    assert os.listdir(folder) == ["file.csv"] and path.read_bytes() == before


def samples():
    rng = np.random.default_rng(0)
    return rng.random((64, 4), np.float32), rng.integers(0, 3, 64)


def model():
    tz.seed(0)
    made = Model(nn.Sequential(nn.Linear(4, 300), nn.ReLU(), nn.Linear(300, 3)))
    made.compile("adam", "cross_entropy")
    return made


class FromEpoch(Callback):
    """The disk is full from an epoch on."""

    def __init__(self, epoch, inside):
        self.epoch, self.inside = epoch, inside

    def on_epoch_end(self, epoch, logs):
        if epoch == self.epoch:
            self.inside.enter_context(full_disk(100))


def test_a_training_on_a_full_disk_goes_on_from_its_last_checkpoint(tmp_path):
    x, y = samples()
    straight = model()
    straight.fit(x, y, epochs=6, batch_size=16, seed=1, verbose=0)
    run = tmp_path / "run"
    with contextlib.ExitStack() as inside:
        fault = FromEpoch(3, inside)
        with pytest.raises(OSError, match=rf"{run}: cannot be written: File too large"):
            model().fit(
                x, y, epochs=6, batch_size=16, seed=1, verbose=0, callbacks=[fault, Checkpoint(run)]
            )
    assert os.listdir(tmp_path) == ["run"]
    again = model()
    again.fit(
        x, y, epochs=6, batch_size=16, seed=1, verbose=0, callbacks=[Checkpoint(run)], resume=run
    )
    for name, array in straight.net.state_dict().items():
        np.testing.assert_array_equal(again.net.state_dict()[name], array)


@pytest.mark.parametrize("kind", [Checkpoint, ModelCheckpoint, CSVLogger])
def test_a_training_into_a_read_only_folder_says_so_at_once(kind, folder):
    model().fit(*samples(), epochs=1, verbose=0)  # imports what it needs
    made = model()
    path = folder / "h.csv"
    with read_only(folder) as words, pytest.raises(PermissionError, match=f"{path}: {words}"):
        made.fit(*samples(), epochs=2, verbose=0, callbacks=[kind(path)])
    assert made.history.epoch == [] and not os.listdir(folder)


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    from tinygrad_zen.data.cache import unpacked

    pooch = pytest.importorskip("pooch")
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache")
    (tmp_path / "a.xz").write_bytes(b"x")
    with full_disk(100):
        array = unpacked("a", [tmp_path / "a.xz"], lambda: np.ones((200, 20), np.uint8))
    assert array.sum() == 4000 and os.listdir(tmp_path / "cache") == []


def test_json_of_a_history_is_whole_or_not_there(tmp_path):
    path = tmp_path / "h.json"
    with full_disk(100), pytest.raises(OSError):
        history().save(path)
    assert not path.exists()
    history().save(path)
    assert len(json.loads(path.read_text())["epoch"]) == 100
