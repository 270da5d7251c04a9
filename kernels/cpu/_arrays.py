"""Memory: where results go, and in which order arrays lie: the kernels of this folder want them dense."""

import functools
import math
import threading
from sys import getrefcount

import numpy as np

LARGE = 1 << 17  # bytes, from which on the C library asks the system for memory
LIMIT = 1 << 30  # bytes that are kept at most
LINE, PAGE = 64, 4096


class _Blocks(threading.local):
    """Blocks of memory of this thread, by size: in use by an array, or waiting for the next."""

    def __init__(self):
        self.by_size, self.total, self.count = {}, 0, 0

    def add(self, size):
        """One more block, the last of those of that size: returns them, and where each is used from.

        From the beginning of a cache line, and not all from the same place in a page: a processor takes
        a read for one of what it has just written if the last 12 bits of both addresses agree, and waits.
        """
        keep_freed_memory()
        if self.total + size > LIMIT:
            self.let_go()
        block = np.empty(size + PAGE + LINE, np.uint8)
        self.total += size
        blocks, starts = self.by_size.setdefault(size, ([], []))
        blocks.append(block)
        self.count += 1
        starts.append(-block.ctypes.data % LINE + self.count * 5 % (PAGE // LINE) * LINE)
        return blocks, starts

    def let_go(self):
        """Keep none of the blocks; one that is in use stays with its arrays."""
        self.by_size, self.total = {}, 0


_blocks = _Blocks()


@functools.cache
def keep_freed_memory():
    """Let the C library keep up to 64 MB of what is freed, where NumPy makes arrays of its own.

    It hands freed memory back to the system beyond twice the largest array that was ever freed, and the
    system clears each page before it gives it out again. Sums of residuals and losses of a Transformer
    layer spent most of their time there: 1000 pages a step. So one array of 32 MB, the most that counts,
    is made and freed, untouched. (glibc's mallopt, M_MMAP_THRESHOLD; elsewhere it has no effect.)
    """
    np.empty((32 << 20) - 2 * PAGE, np.uint8)


def empty(shape, dtype):
    """As np.empty, in memory that an earlier array of that size has left.

    The system hands out memory in pages that it must first clear: a third of a training step went
    there, since a step needs the same sizes again and again. An array keeps its block alive, as does a
    view of it; so a block that only our list refers to is free.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if not LARGE <= size <= LIMIT:  # a failure of np.empty names the shape
        return np.empty(shape, dtype)
    blocks, starts = _blocks.by_size.get(size) or _blocks.add(size)
    for i in range(len(blocks)):
        if getrefcount(blocks[i]) == 2:  # the list's, and that of the call
            break
    else:
        blocks, starts = _blocks.add(size)
        i = -1
    return blocks[i][starts[i] : starts[i] + size].view(dtype).reshape(shape)


def zeros(shape, dtype):
    """As np.zeros, in memory that an earlier array of that size has left."""
    out = empty(shape, dtype)
    out.fill(0)
    return out


def empty_like(x):
    """As np.empty_like for a dense array: in the shape, dtype and memory order of x."""
    if x.nbytes < LARGE:
        return np.empty_like(x)
    order = _memory_order(x)
    back = sorted(range(x.ndim), key=order.__getitem__)
    return empty([x.shape[axis] for axis in order], x.dtype).transpose(back)


def dense(x):
    """x, or a copy of it that is C-contiguous and writable: Numba compiles anew for other kinds."""
    return x if x.flags.carray else np.array(x, order="C")


def rows(x, axis):
    """x as dense rows along an axis, (R, C); and the way back, a view: rows -> the shape of x."""
    if axis in (-1, x.ndim - 1):
        return dense(x).reshape(-1, x.shape[-1]), lambda y: y.reshape(x.shape)
    moved = dense(np.moveaxis(x, axis, -1))
    back = functools.partial(np.moveaxis, source=-1, destination=axis)
    return moved.reshape(-1, moved.shape[-1]), lambda y: back(y.reshape(moved.shape))


def in_memory_order(x):
    """x as its numbers lie in memory, (x.size,), a view; None if there are gaps between them."""
    if not x.flags.c_contiguous:
        x = x.transpose(_memory_order(x))
    return x.reshape(-1) if x.flags.c_contiguous else None


def _memory_order(x):
    """The axes of x, the one whose elements lie farthest apart first."""
    return sorted(range(x.ndim), key=lambda axis: -x.strides[axis])


def elementwise(kernel, x, *others, args=()):
    """kernel(x, *others, y, *args) on flat arrays: a new y in the shape and memory order of x."""
    shape, dtype = x.shape, x.dtype
    if x.flags.carray:
        for o in others:
            if o.dtype is not dtype or o.shape != shape or not o.flags.carray:
                break
        else:  # the common case, without much ado
            y = np.empty(shape, dtype) if x.nbytes < LARGE else empty(shape, dtype)
            kernel(x.reshape(-1), *[o.reshape(-1) for o in others], y.reshape(-1), *args)
            return y
    if in_memory_order(x) is None or not x.flags.writeable:
        x = x.copy(order="K")
    y = empty_like(x)
    kernel(*map(in_memory_order, (x, *(like(x, other) for other in others), y)), *args)
    return y


def like(x, other):
    """The numbers of `other` in the shape, dtype and memory order of x: itself if it has them."""
    if (
        isinstance(other, np.ndarray)
        and other.shape == x.shape
        and other.strides == x.strides
        and other.dtype == x.dtype
        and other.flags.writeable
    ):
        return other
    copy = empty_like(x)
    copy[...] = other
    return copy
