"""tinygrad_zen.io: safetensors files, checkpoints, descriptions of networks."""

import os
import stat
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygrad_zen as tz
from tinygrad_zen import io
from tinygrad_zen.io import files

DTYPES = "float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool".split()


def raises(kind, message):
    return pytest.raises(kind, match=rf"\A{message}\Z")


def same(a, b):
    """Equal names, dtypes, shapes and bits."""
    assert list(a) == list(b)
    for name in a:
        assert a[name].dtype == b[name].dtype and a[name].shape == b[name].shape
        assert a[name].tobytes() == b[name].tobytes()


# states


@settings(deadline=None, max_examples=30)
@given(
    st.dictionaries(
        st.text(max_size=5), hnp.arrays(st.sampled_from(DTYPES), hnp.array_shapes(min_dims=0))
    )
)
def test_arrays_come_back_bit_for_bit(tmp_path_factory, arrays):
    path = tmp_path_factory.mktemp("states") / "a.safetensors"
    arrays.pop("__metadata__", None)
    io.save_state(path, arrays, {"note": "Grüße"})
    back, metadata = io.load_state(path)
    assert metadata == {"note": "Grüße"}
    same(back, dict(sorted(arrays.items())))


def test_memory_order_and_tensors_do_not_matter(tmp_path):
    x = np.arange(24.0).reshape(2, 3, 4)
    views = {
        "f": np.asfortranarray(x),
        "s": x[:, ::-1, ::2],
        "t": tz.tensor(x).T,
        "z": np.float32(3),
    }
    views["big"] = x.astype(">f8")
    io.save_state(tmp_path / "a", views)
    back, _ = io.load_state(tmp_path / "a")
    np.testing.assert_array_equal(back["f"], x)
    np.testing.assert_array_equal(back["s"], x[:, ::-1, ::2])
    np.testing.assert_array_equal(back["t"], x.T)
    np.testing.assert_array_equal(back["big"], x)
    assert back["z"] == 3 and back["z"].shape == ()
    back["f"][0] = 0  # what is loaded can be written to


def test_the_same_state_gives_the_same_bytes(tmp_path):
    arrays = {name: np.zeros(3) for name in "abc"}
    for name in "xy":
        io.save_state(tmp_path / name, arrays, {"a": "b"})
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_files_go_to_and_fro_between_pytorch_and_here(tmp_path):
    torch = pytest.importorskip("torch")
    other = pytest.importorskip("safetensors.torch")
    tensors = {"w": torch.randn(3, 4), "half": torch.randn(5).bfloat16(), "n": torch.tensor(7)}
    other.save_file(tensors, tmp_path / "torch")
    back, metadata = io.load_state(tmp_path / "torch")
    assert metadata == {} and back["half"].dtype == np.float32
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(back[name], tensor.float().numpy())
    io.save_state(tmp_path / "ours", {"w": tensors["w"].numpy()})
    assert torch.equal(other.load_file(tmp_path / "ours")["w"], tensors["w"])
    other.save_file({"w": torch.zeros(2, dtype=torch.float8_e4m3fn)}, tmp_path / "f8")
    with raises(
        io.FileError, rf"{tmp_path}/f8: 'w' holds numbers of kind F8_E4M3, which NumPy lacks"
    ):
        io.load_state(tmp_path / "f8")
    torch.save(tensors, tmp_path / "zip")
    with raises(io.FileError, r".*/zip: this is a zip or pickle file, as torch.save writes; .*"):
        io.load_state(tmp_path / "zip")


def test_files_that_cannot_be_read(tmp_path):
    path = tmp_path / "a"
    with raises(FileNotFoundError, rf"{path}: no such file"):
        io.load_state(path)
    with raises(
        io.FileError, rf"{tmp_path}: a safetensors file is needed; this is a folder or a device"
    ):
        io.load_state(tmp_path)
    io.save_state(path, {"w": np.arange(100.0)}, {"key": "value"})
    whole = path.read_bytes()
    path.write_bytes(b"")
    with raises(io.FileError, rf"{path}: the file is empty"):
        io.load_state(path)
    for cut in (5, 8, 30, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with raises(io.FileError, rf"{path}: the safetensors file is cut short or damaged: .*"):
            io.load_state(path)
    path.write_bytes(whole + b"x")
    with raises(io.FileError, rf"{path}: the safetensors file is cut short or damaged: .*"):
        io.load_state(path)
    for foreign in (b"\x89HDF\r\n\x1a\n" + bytes(100), b"a,b,c\n1,2,3\n" * 10, bytes(100)):
        path.write_bytes(foreign)
        with raises(io.FileError, rf"{path}: not a safetensors file"):
            io.load_state(path)


def test_what_cannot_be_written(tmp_path):
    with raises(TypeError, rf"{tmp_path}/a: 'w' must be an array of numbers; got <U1"):
        io.save_state(tmp_path / "a", {"w": np.array(["x"])})
    with raises(TypeError, rf"{tmp_path}/a: 'w' must be an array of numbers; got complex128"):
        io.save_state(tmp_path / "a", {"w": np.zeros(2, complex)})
    with raises(FileNotFoundError, rf"{tmp_path}/no/a: the folder {tmp_path}/no does not exist"):
        io.save_state(tmp_path / "no" / "a", {})


def test_a_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"before")

    def full(_):
        raise OSError("no space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        io.write_whole(path, b"after")
    assert [p.name for p in tmp_path.iterdir()] == ["a"] and path.read_bytes() == b"before"
    monkeypatch.undo()
    io.write_whole(path, b"after")
    assert [p.name for p in tmp_path.iterdir()] == ["a"] and path.read_bytes() == b"after"
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


@pytest.mark.skipif(os.name != "posix", reason="asks whether a process runs")
def test_what_a_killed_process_left_is_removed(tmp_path):
    """Before a training; the files of processes that run, and whatever is named otherwise, stay."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    others = [f".a[1].x.{os.getppid()}.part", ".a[1].x.1.part", f".a1.x.{ended.pid}.part"]
    others += [".a[1].x.part", ".a[1].x.b.part", f"a[1].x.{ended.pid}.part", f".b.{ended.pid}.part"]
    for name in (*others, f".a[1].x.{ended.pid}.part"):
        (tmp_path / name).write_bytes(b"cut sho")
    io.check_writable(tmp_path / "none")
    assert len(list(tmp_path.iterdir())) == 8
    io.check_writable(tmp_path / "a[1].x")
    assert {p.name for p in tmp_path.iterdir()} == set(others)


# checkpoints


class Part:
    def __init__(self, state):
        self.state = state

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


def test_checkpoint(tmp_path):
    path = tmp_path / "c"
    array = np.arange(3, dtype=np.float32)
    state = {"state": {0: {"step": 3, "m": array}}, "groups": [{"betas": (0.9, 0.999), "on": None}]}
    tz.seed(5)
    io.save_checkpoint(path, optimizer=Part(state), net=Part({"w": array, "n": np.int64(3)}))
    expected = tz.default_generator().random(4)
    tz.seed(0)
    optimizer, net = Part(None), Part(None)
    io.load_checkpoint(path, net=net, optimizer=optimizer)
    np.testing.assert_array_equal(tz.default_generator().random(4), expected)
    np.testing.assert_array_equal(optimizer.state["state"][0].pop("m"), array)
    assert optimizer.state == {"state": {0: {"step": 3}}, "groups": state["groups"]}
    assert net.state["n"] == 3
    assert set(io.load_state(path)[0]) == {"net.w", "optimizer.state.0.m"}

    with raises(ValueError, rf"{path}: the checkpoint is of \['net', 'optimizer'\]; got \['net'\]"):
        io.load_checkpoint(path, net=net)
    with raises(TypeError, r"checkpoint: net.f must be made of arrays and numbers; got set"):
        io.save_checkpoint(path, net=Part({"f": {1}}))
    with raises(
        ValueError, r"save_checkpoint: the name 'generator' is that of the engine's own; .*"
    ):
        io.save_checkpoint(path, generator=np.random.default_rng(0))
    io.save_state(path, {})
    with raises(ValueError, rf"{path}: this is not a checkpoint, but a state dict or a model"):
        io.load_checkpoint(path, net=net)
