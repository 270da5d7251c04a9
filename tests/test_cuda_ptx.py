"""The CUDA kernels compiled for real, without a card: typing, arithmetic in 64 bits, registers, spills.

The wrappers run on NumPy arrays, and each launch is caught: its kernel is then compiled for the types of
its arguments, as it would be on a card. Large kernels take seconds; of their variants (matrices turned,
rows not in fours, ...) only some are compiled unless TINYGRAD_ZEN_ALL_KERNELS=1.
"""

import math
import os
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba")
pytest.importorskip("cuda.bindings.nvjitlink", reason='needs `pip install "numba-cuda[cu13]"`')
if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
    pytest.skip("the simulator compiles nothing", allow_module_level=True)

from cuda.bindings import nvjitlink
from cuda_calls import calls
from numba import cuda as numba_cuda
from numba import typeof, types
from numba.cuda.cudadrv.error import CCSupportError

from tinygrad_zen.kernels.cuda import _card, _device, _kept

# CUDA 13 begins at compute capability 7.5 (Turing); its compiler refuses 7.0 (Volta), which needs the
# libraries of CUDA 12: numba-cuda[cu12].
LOWEST, CAPABILITIES = (7, 5), [(7, 5), (8, 0), (9, 0)]

ALL = os.environ.get("TINYGRAD_ZEN_ALL_KERNELS") == "1"


def kernels(dtype):
    """{name: (kernel, argument types)} of all launches that the calls lead to."""
    found = {}

    def type_of(arg):
        if isinstance(arg, np.ndarray):
            layout = typeof(arg).layout
            return types.Array(typeof(arg).dtype, arg.ndim, layout)
        return typeof(_card.narrow(arg))

    def catch(kernel, grid, block, args):
        assert math.prod(grid if isinstance(grid, tuple) else (grid,)) > 0
        signature = tuple(map(type_of, args))
        if (kernel, signature) not in found.values():
            name = kernel.py_func.__name__.strip("_")
            number = sum(key.split("-")[0] == name for key in found)
            found[f"{name}-{number}" if number else name] = kernel, signature

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_device, "enqueue", catch)
        for _, function, *arguments in calls(dtype, ALL):
            with np.errstate(all="ignore"):  # results are whatever was in memory: nothing is run
                function(*arguments)
    return found


def compiled(kernel, signature, capability):
    """A kernel as PTX, the assembly language of all cards from a compute capability on."""
    bounds = kernel.targetoptions.get("launch_bounds")
    return numba_cuda.compile_ptx(kernel.py_func, signature, cc=capability, launch_bounds=bounds)[0]


def assembled(ptx, capability):
    """What the assembler reports of PTX made into a card's own code: (registers, bytes of local memory,
    of spills written, of spills read)."""
    options = [f"-arch=sm_{capability[0]}{capability[1]}", "-verbose", "-O3"]
    linker = nvjitlink.create(len(options), options)
    try:
        text = ptx.encode()
        nvjitlink.add_data(linker, nvjitlink.InputType.PTX, text, len(text), "kernel")
        nvjitlink.complete(linker)
        log = bytearray(nvjitlink.get_info_log_size(linker))
        nvjitlink.get_info_log(linker, log)
    finally:
        nvjitlink.destroy(linker)
    log = log.decode(errors="replace")
    registers = re.search(r"Used (\d+) registers", log)[1]
    memory = re.search(
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log
    )
    return int(registers), *map(int, memory.groups())


KERNELS = kernels("float32")


def test_the_calls_reach_every_kernel():
    folder = Path(_device.__file__).parent
    source = "".join(path.read_text() for path in folder.glob("[!_]*.py"))
    named = {name.strip("_") for name in re.findall(r"@jit(?:\(.*\))?\s+def (\w+)\(", source)}
    assert len(named) > 30 and not named - {name.split("-")[0] for name in KERNELS}


def test_machine_code_of_every_kernel_is_kept_under_a_name_of_its_own():
    names = {_kept.name(kernel, signature, "90") for kernel, signature in KERNELS.values()}
    assert len(names) == len(KERNELS)


def test_volta_needs_the_libraries_of_cuda_12():
    try:
        ptx = compiled(*KERNELS["naive"], (7, 0))
    except CCSupportError as e:
        assert "7.5" in str(e), "and CUDA 13 takes Turing for the oldest"
    else:
        assert ".target sm_70" in ptx


@pytest.mark.parametrize("name", KERNELS)
def test_float32_kernel(name):
    """Compiles for the oldest cards and assembles for newer ones, without 64-bit floats or spills."""
    ptx = compiled(*KERNELS[name], LOWEST)
    assert ".f64" not in ptx, re.findall(r".*\.f64.*", ptx)[:5]
    for capability in CAPABILITIES:
        registers, *memory = assembled(ptx, capability)
        assert registers <= 128, f"{registers} registers on {capability}"
        assert memory == [0, 0, 0], f"{memory} bytes of stack and spills on {capability}"


DOUBLES = kernels("float64") if ALL else {}


@pytest.mark.skipif(not ALL, reason="compiled only if TINYGRAD_ZEN_ALL_KERNELS=1")
@pytest.mark.parametrize("name", DOUBLES)
def test_float64_kernel(name):
    registers, *memory = assembled(compiled(*DOUBLES[name], LOWEST), (9, 0))
    assert registers <= 255 and memory == [0, 0, 0]
