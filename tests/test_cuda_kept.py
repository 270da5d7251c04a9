"""Machine code of CUDA kernels, kept on disk from one process to the next."""

import os
import shutil
import types
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba")
if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
    pytest.skip("the simulator compiles nothing", allow_module_level=True)

import numba

from tinygrad_zen.kernels.cuda import _kept
from tinygrad_zen.kernels.cuda.linear import SMALL, vectors_kernel


def kernel(function):
    return types.SimpleNamespace(py_func=function, targetoptions={})


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def get(kernel, kinds=("float32",), capability="90"):
    """What a process gets that has not compiled the kernel yet, and whether it had to."""
    compiled = []

    def compile():
        compiled.append(kinds)
        return "entry", b"machine\0code"

    assert _kept.machine_code(kernel, kinds, capability, compile) == ("entry", b"machine\0code")
    return bool(compiled)


def ours():
    return vectors_kernel(np.dtype("float32"), SMALL, False, False, (True,) * 3, False)


def test_machine_code_is_compiled_once_for_all_processes(folder):
    assert get(ours()) and not get(ours())
    assert get(ours(), ("float64",)) and get(ours(), capability="80")
    turned = vectors_kernel(np.dtype("float32"), SMALL, True, False, (True,) * 3, False)
    assert get(turned) and not get(turned) and not get(ours())
    assert len(list(folder.iterdir())) == 4


def test_the_name_depends_on_sources_and_settings(folder, monkeypatch):
    assert get(ours())
    for change in "NUMBA_OPT", "NUMBA_CUDA_FASTMATH":
        monkeypatch.setenv(change, "1")
        _kept._surroundings.cache_clear()
        assert get(ours()), change
    sources = folder.parent / "sources"
    shutil.copytree(Path(_kept.__file__).parent, sources)
    monkeypatch.setattr(_kept, "_FOLDER", sources)
    digests = []
    for text in "", "# changed":
        with open(sources / "linear.py", "a") as file:
            file.write(text)
        _kept._surroundings.cache_clear()
        digests.append(_kept._surroundings()[0])
    assert digests[0] != digests[1]
    _kept._surroundings.cache_clear()


@pytest.mark.parametrize("damage", [lambda c: c[:-1], lambda c: b"\0" + c[1:], lambda c: b""])
def test_a_damaged_file_is_made_anew(folder, damage):
    assert get(ours())
    (file,) = folder.iterdir()
    file.write_bytes(damage(whole := file.read_bytes()))
    assert get(ours()) and file.read_bytes() == whole and not get(ours())


def test_without_a_folder_it_is_compiled_each_time(folder):
    folder.write_text("in the way")
    assert get(ours()) and get(ours())
    assert folder.read_text() == "in the way"


def test_kernels_of_others_are_not_kept(folder):
    """Of their sources nothing is known here, nor of what such a value would do."""
    assert get(kernel(lambda x: x)) and get(kernel(lambda x: x))
    table = {}
    source = "def build(table):\n    def kernel(x):\n        return table\n    return kernel"
    exec(compile(source, str(Path(_kept.__file__).parent / "new.py"), "exec"), names := {})
    assert get(kernel(names["build"](table))) and get(kernel(names["build"](table)))
    assert get(kernel(names["build"](3))) and not get(kernel(names["build"](3)))
    assert get(kernel(names["build"](3.0))) and get(kernel(names["build"]((3,))))
