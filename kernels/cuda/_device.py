"""The words that kernels need beyond `numba.cuda`, and all that differs between card and simulator.

Numba's simulator (NUMBA_ENABLE_CUDASIM=1) runs the same kernels in Python on NumPy arrays: each thread
of a block is a Python thread, so blocks are small there and their threads do more work each.
"""

import functools
import sys
import threading

import numpy as np
from numba import config, cuda
from numba import int32 as _int32

from ._card import enqueue

SIMULATOR = bool(config.ENABLE_CUDASIM)

# Threads of a block: in a line, in a square, and in a warp (which runs in lockstep on the card).
LINE, SQUARE, WARP = (8, (4, 4), 4) if SIMULATOR else (256, (16, 16), 32)

# Blocks that a card must have at once to be busy: about two for each of its 132 multiprocessors.
BUSY = 2 if SIMULATOR else 264

# Numba computes with integers of 64 bits; int32(...) around an index takes it back to 32, which the
# card adds and multiplies several times faster. In Python it is just an int.
int32 = int if SIMULATOR else _int32


def jit(function=None, threads=None, blocks=None):
    """Compile a kernel. threads, blocks: how many threads a block has, and how many blocks shall fit
    on a multiprocessor at once; from this the compiler knows how many registers a thread may use."""
    if function is None:
        return functools.partial(jit, threads=threads, blocks=blocks)
    if SIMULATOR or threads is None:
        return cuda.jit(function)
    return cuda.jit(function, launch_bounds=(threads, blocks))


def device(function):
    """A function that kernels call: compiled into each of its callers, plain Python in the simulator."""
    return function if SIMULATOR else cuda.jit(function, device=True, inline="always")


def cooperative(function):
    """Like `device`, for functions that themselves name `cuda` (the simulator must know of them)."""
    return cuda.jit(function, device=True) if SIMULATOR else device(function)


def launch(kernel, grid, block, *args):
    """Run a kernel on CuPy's current stream, or in the simulator. A grid without blocks is no launch."""
    if 0 in (grid if isinstance(grid, tuple) else (grid,)):
        return
    (_simulate if SIMULATOR else enqueue)(kernel, grid, block, args)


def blocks(n, size):
    """How many blocks of a size cover n."""
    return -(-n // size)


def cover(n):
    """A grid for kernels that loop over mine(n): no more blocks than fill the card a few times over."""
    return min(blocks(n, LINE), BUSY if SIMULATOR else 8 * BUSY)


@cooperative
def mine(n):
    """Which of n pieces of work are this thread's: its number in the grid, then a whole grid further, and
    so on. Neighbouring threads always have neighbouring pieces, and a grid of any size does them all."""
    return range(cuda.grid(1), n, cuda.gridsize(1))


_one_at_a_time = threading.Lock()


def _simulate(kernel, grid, block, args):
    from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

    # Wrapped by hand, an array is used where it lies; the simulator would copy it in and out, and
    # refuse one with gaps.
    args = [FakeCUDAArray(a) if isinstance(a, np.ndarray) else a for a in args]
    with _one_at_a_time:
        # Barriers are awaited by polling: with Python's usual turns of 5 ms each would cost as much.
        turn = sys.getswitchinterval()
        sys.setswitchinterval(0.0005)
        try:
            kernel[grid, block](*args)
        finally:
            sys.setswitchinterval(turn)
