"""Activation functions and their gradients: fused elementwise kernels, and a ladder for softmax.

relu, tanh and erf are one library call each, which is one trip through memory already: they come from
reference. Softmax and its kin work along the last axis of (rows, columns).
"""

import functools
import math

from numba import cuda

from .. import reference
from ..reference._arrays import namespace
from ._arrays import contiguous, empty, same_floats
from ._device import LINE, SIMULATOR, WARP, blocks, cover, jit, launch, mine
from ._elementwise import elementwise
from ._reduce import block_max, block_sum, warp_max, warp_sum


@elementwise
def relu_grad(g, y):
    """g where the output is positive, else 0 (so 0 at x = 0)."""
    return g if y > type(y)(0) else type(y)(0)


@elementwise
def leaky_relu(x, slope):
    """x where positive, else slope * x."""
    return x if x > type(x)(0) else slope * x


@elementwise
def leaky_relu_grad(g, x, slope):
    return g if x > type(x)(0) else slope * g


@elementwise
def elu(x, alpha):
    """x where positive, else alpha * (exp(x) - 1)."""
    return x if x > type(x)(0) else alpha * type(x)(math.expm1(x))


@elementwise
def elu_grad(g, x, alpha):
    return g if x > type(x)(0) else g * alpha * type(x)(math.exp(x))


@elementwise
def sigmoid(x):
    """1 / (1 + exp(-x)), through exp(-|x|), which cannot overflow."""
    one = type(x)(1)
    e = type(x)(math.exp(-abs(x)))
    return one / (one + e) if x >= type(x)(0) else e / (one + e)


@elementwise
def sigmoid_grad(g, y):
    return g * (y * (type(y)(1) - y))


@elementwise
def tanh_grad(g, y):
    return g * (type(y)(1) - y * y)


@elementwise
def softplus(x, beta):
    """log(1 + exp(beta x)) / beta, written so that neither end overflows."""
    return max(x, type(x)(0)) + type(x)(math.log1p(math.exp(-beta * abs(x)))) / beta


@elementwise
def silu(x):
    """x * sigmoid(x)."""
    one = type(x)(1)
    e = type(x)(math.exp(-abs(x)))
    return x / (one + e) if x >= type(x)(0) else x * e / (one + e)


@elementwise
def silu_grad(g, x):
    one = type(x)(1)
    e = type(x)(math.exp(-abs(x)))
    s = one / (one + e) if x >= type(x)(0) else e / (one + e)
    return g * (s * (one + x * (one - s)))


@elementwise
def gelu(x):
    """x times the normal distribution function: x / 2 * (1 + erf(x / sqrt 2))."""
    return type(x)(0.5) * x * (type(x)(1) + type(x)(math.erf(x * type(x)(SQRT_HALF))))


@elementwise
def gelu_grad(g, x):
    half = type(x)(0.5)
    cdf = half * (type(x)(1) + type(x)(math.erf(x * type(x)(SQRT_HALF))))
    pdf = type(x)(math.exp(-half * x * x)) * type(x)(NORMAL)
    return g * (cdf + x * pdf)


@elementwise
def gelu_tanh(x):
    """GELU's older approximation: x / 2 * (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""
    inner = type(x)(SQRT_2_PI) * (x + type(x)(0.044715) * x * x * x)
    return type(x)(0.5) * x * (type(x)(1) + type(x)(math.tanh(inner)))


@elementwise
def gelu_tanh_grad(g, x):
    half, one = type(x)(0.5), type(x)(1)
    t = type(x)(math.tanh(type(x)(SQRT_2_PI) * (x + type(x)(0.044715) * x * x * x)))
    inner = type(x)(SQRT_2_PI) * (one + type(x)(3 * 0.044715) * x * x)
    return g * (half * (one + t) + half * x * (one - t * t) * inner)


SQRT_HALF, NORMAL, SQRT_2_PI = math.sqrt(0.5), 1 / math.sqrt(2 * math.pi), math.sqrt(2 / math.pi)


# --- softmax -----------------------------------------------------------------------------------------


def softmax(x, axis):
    """exp(x) over its sum along an axis, shifted by the largest so that nothing overflows."""
    if not same_floats(x):
        return reference.softmax(x, axis)
    return _by_rows(_rung(x.shape[axis]), axis, x)


def log_softmax(x, axis):
    """x minus log(sum(exp(x))) along an axis, never through a softmax that underflows to 0."""
    if not same_floats(x):
        return reference.log_softmax(x, axis)
    return _by_rows(functools.partial(_rung(x.shape[axis]), log=True), axis, x)


def softmax_grad(g, y, axis):
    if not same_floats(g, y):
        return reference.softmax_grad(g, y, axis)
    return _by_rows(_softmax_grad, axis, g, y)


def log_softmax_grad(g, y, axis):
    if not same_floats(g, y):
        return reference.log_softmax_grad(g, y, axis)
    return _by_rows(functools.partial(_softmax_grad, log=True), axis, g, y)


def _by_rows(run, axis, *arrays):
    """Run on (rows, columns) with the axis last, and give the result the shape of the arrays."""
    xp = namespace(arrays[0])
    moved = [xp.moveaxis(a, axis, -1) for a in arrays]
    shape = moved[0].shape
    rows = [contiguous(a).reshape((math.prod(shape[:-1]), shape[-1])) for a in moved]
    return xp.moveaxis(run(*rows).reshape(shape), -1, axis)


def softmax_rows(x, log=False):
    """One thread a row: three passes over it, for the maximum, the sum and the result."""
    y = empty(x, x.shape)
    launch(rows_kernel(log), cover(len(x)), LINE, x, y)
    return y


def softmax_blocks(x, log=False):
    """A block of threads a row: coalesced reads; maximum and sum are reduced in shared memory."""
    y = empty(x, x.shape)
    launch(blocks_kernel(log), min(len(x), 2**31 - 1), LINE, x, y)
    return y


def softmax_online(x, log=False):
    """Maximum and sum in one pass, the sum corrected whenever the maximum grows: 2 reads, not 3.

    Milakov & Gimelshein 2018.
    """
    y = empty(x, x.shape)
    launch(online_kernel(log), min(len(x), 2**31 - 1), LINE, x, y)
    return y


def softmax_warps(x, log=False):
    """A warp a row, eight rows a block: reductions by shuffles between registers, without barriers."""
    y = empty(x, x.shape)
    launch(warps_kernel(log), blocks(len(x), ROWS), LINE, x, y)
    return y


SOFTMAXES = softmax_rows, softmax_blocks, softmax_online, softmax_warps
ROWS = LINE // WARP  # of a block in softmax_warps


def _rung(columns):
    """Which softmax for rows of a length: short ones leave most threads of a warp without work."""
    if columns <= 16 or SIMULATOR:
        return softmax_rows
    return softmax_warps if columns <= 2048 else softmax_online


@functools.cache
def rows_kernel(log):
    @jit
    def rows(x, y):
        """Thread i of the grid computes row i. Neighbouring threads read numbers a row apart: every read
        of a warp touches 32 lines of memory, of which the cache saves what the rows' length lets it."""
        for i in mine(x.shape[0]):
            largest = x.dtype.type(-math.inf)
            for j in range(x.shape[1]):
                largest = max(largest, x[i, j])
            total = x.dtype.type(0)
            for j in range(x.shape[1]):
                total += math.exp(x[i, j] - largest)
            if log:
                shift = largest + math.log(total)
            for j in range(x.shape[1]):
                y[i, j] = x[i, j] - shift if log else math.exp(x[i, j] - largest) / total

    return rows


@functools.cache
def blocks_kernel(log):
    @jit
    def blocks(x, y):
        """Block i computes row i; its thread t the columns t, t + LINE, and so on."""
        shared = cuda.shared.array(LINE, x.dtype)
        i, t = cuda.blockIdx.x, cuda.threadIdx.x
        largest = x.dtype.type(-math.inf)
        for j in range(t, x.shape[1], LINE):
            largest = max(largest, x[i, j])
        largest = block_max(largest, shared)
        total = x.dtype.type(0)
        for j in range(t, x.shape[1], LINE):
            total += math.exp(x[i, j] - largest)
        total = block_sum(total, shared)
        if log:
            shift = largest + math.log(total)
        for j in range(t, x.shape[1], LINE):
            y[i, j] = x[i, j] - shift if log else math.exp(x[i, j] - largest) / total

    return blocks


@functools.cache
def online_kernel(log):
    @jit
    def online(x, y):
        """Block i computes row i; its thread t the columns t, t + LINE, and so on."""
        shared = cuda.shared.array(LINE, x.dtype)
        i, t = cuda.blockIdx.x, cuda.threadIdx.x
        own = x.dtype.type(-math.inf)  # the largest that this thread has seen
        total = x.dtype.type(0)  # of exp(x - own), over the columns seen
        for j in range(t, x.shape[1], LINE):
            value = x[i, j]
            if value > own:
                total = total * math.exp(own - value) + x.dtype.type(1)
                own = value
            elif value != -math.inf:
                total += math.exp(value - own)
        largest = block_max(own, shared)
        # a thread without columns has exp(-inf) = 0 of nothing
        total = block_sum(total * math.exp(own - largest), shared)
        if log:
            shift = largest + math.log(total)
        for j in range(t, x.shape[1], LINE):
            y[i, j] = x[i, j] - shift if log else math.exp(x[i, j] - largest) / total

    return online


@functools.cache
def warps_kernel(log):
    @jit
    def warps(x, y):
        """Warp w of block b computes row b * ROWS + w; its lane l the columns l, l + WARP, and so on.

        Warps beyond the last row do no harm and stay, for in the simulator they must call the reductions.
        """
        shared = cuda.shared.array(LINE, x.dtype)  # used by the simulator only
        t = cuda.threadIdx.x
        i, lane = cuda.blockIdx.x * ROWS + t // WARP, t % WARP
        columns = x.shape[1] if i < x.shape[0] else 0
        own = x.dtype.type(-math.inf)
        total = x.dtype.type(0)
        for j in range(lane, columns, WARP):
            value = x[i, j]
            if value > own:
                total = total * math.exp(own - value) + x.dtype.type(1)
                own = value
            elif value != -math.inf:
                total += math.exp(value - own)
        largest = warp_max(own, shared)
        total = warp_sum(total * math.exp(own - largest) if own > -math.inf else total, shared)
        shift = largest
        if log and columns > 0:
            shift += math.log(total)
        for j in range(lane, columns, WARP):
            y[i, j] = x[i, j] - shift if log else math.exp(x[i, j] - largest) / total

    return warps


def _softmax_grad(g, y, log=False):
    """Gradient along rows: g, y (R, C) -> (R, C)."""
    run = softmax_grad_rows if g.shape[1] <= 16 or SIMULATOR else softmax_grad_warps
    return run(g, y, log)


def softmax_grad_rows(g, y, log=False):
    """One thread a row."""
    gx = empty(g, g.shape)
    launch(grad_rows_kernel(log), cover(len(g)), LINE, g, y, gx)
    return gx


def softmax_grad_warps(g, y, log=False):
    """A warp a row: coalesced reads, and a sum by shuffles."""
    gx = empty(g, g.shape)
    launch(grad_warps_kernel(log), blocks(len(g), ROWS), LINE, g, y, gx)
    return gx


SOFTMAX_GRADS = softmax_grad_rows, softmax_grad_warps


@functools.cache
def grad_rows_kernel(log):
    @jit
    def grad_rows(g, y, gx):
        """Thread i of the grid computes row i."""
        for i in mine(g.shape[0]):
            total = g.dtype.type(0)
            for j in range(g.shape[1]):
                total += g[i, j] if log else g[i, j] * y[i, j]
            for j in range(g.shape[1]):
                if log:
                    gx[i, j] = g[i, j] - math.exp(y[i, j]) * total
                else:
                    gx[i, j] = y[i, j] * (g[i, j] - total)

    return grad_rows


@functools.cache
def grad_warps_kernel(log):
    @jit
    def grad_warps(g, y, gx):
        """Warp w of block b computes row b * ROWS + w; its lane l the columns l, l + WARP, and so on."""
        shared = cuda.shared.array(LINE, g.dtype)  # used by the simulator only
        t = cuda.threadIdx.x
        i, lane = cuda.blockIdx.x * ROWS + t // WARP, t % WARP
        columns = g.shape[1] if i < g.shape[0] else 0
        total = g.dtype.type(0)
        for j in range(lane, columns, WARP):
            total += g[i, j] if log else g[i, j] * y[i, j]
        total = warp_sum(total, shared)
        for j in range(lane, columns, WARP):
            if log:
                gx[i, j] = g[i, j] - math.exp(y[i, j]) * total
            else:
                gx[i, j] = y[i, j] * (g[i, j] - total)

    return grad_warps
