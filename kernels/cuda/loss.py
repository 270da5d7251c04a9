"""Losses that fuse a logarithm with what it is taken of, and their gradients."""

import functools
import math

from numba import cuda

from .. import reference
from ._arrays import contiguous, empty, same_floats
from ._device import LINE, SIMULATOR, WARP, blocks, cover, jit, launch, mine
from ._elementwise import elementwise
from ._instructions import split
from ._reduce import warp_max, warp_sum


def cross_entropy(x, labels, weight, smoothing):
    """The loss of each row against its class: (N, C), (N,) integers -> losses (N,), log_softmax (N, C).

    weight: (C,), how much each class counts, or None. smoothing: the share of each target that is
    spread evenly over all classes.
    """
    if not same_floats(x) or (weight is not None and weight.dtype != x.dtype):
        return reference.cross_entropy(x, labels, weight, smoothing)
    run = cross_entropy_rows if x.shape[1] <= 16 or SIMULATOR else cross_entropy_warps
    return run(x, labels, weight, smoothing)


def cross_entropy_rows(x, labels, weight, smoothing):
    """One thread a row: log-softmax and the loss in one launch."""
    x, losses, logp = contiguous(x), empty(x, (len(x),)), empty(x, x.shape)
    kernel = rows_kernel(weight is not None, bool(smoothing))
    weight = losses if weight is None else weight
    shares = _shares(x, smoothing)
    launch(kernel, cover(len(x)), LINE, x, labels, weight, *shares, losses, logp)
    return losses, logp


def cross_entropy_warps(x, labels, weight, smoothing):
    """A warp a row: coalesced reads, maximum and sum in one pass, reduced by shuffles."""
    x, losses, logp = contiguous(x), empty(x, (len(x),)), empty(x, x.shape)
    kernel = warps_kernel(weight is not None, bool(smoothing))
    weight = losses if weight is None else weight
    shares = _shares(x, smoothing)
    launch(kernel, blocks(len(x), LINE // WARP), LINE, x, labels, weight, *shares, losses, logp)
    return losses, logp


CROSS_ENTROPIES = cross_entropy_rows, cross_entropy_warps


def cross_entropy_grad(g, logp, labels, weight, smoothing):
    """Gradient of cross_entropy for x, given the gradient g (N,) of the losses."""
    if not same_floats(g, logp) or (weight is not None and weight.dtype != g.dtype):
        return reference.cross_entropy_grad(g, logp, labels, weight, smoothing)
    logp, gx = contiguous(logp), empty(logp, logp.shape)
    kernel = grad_kernel(weight is not None)
    total = g[:1] if weight is None else weight.sum().reshape((1,))
    weight = g if weight is None else weight
    shares = _shares(g, smoothing, logp.shape[1])
    launch(kernel, cover(gx.size), LINE, g, logp, labels, weight, total, *shares, gx)
    return gx


def _shares(x, smoothing, classes=None):
    """What of a target goes to its label, and what to every class, in x's dtype."""
    classes = x.shape[1] if classes is None else classes
    return x.dtype.type(1 - smoothing), x.dtype.type(smoothing / max(classes, 1))


@functools.cache
def rows_kernel(weighted, smoothed):
    @jit
    def rows(x, labels, weight, own, spread, losses, logp):
        """Thread i of the grid computes row i of logp, and its loss."""
        for i in mine(x.shape[0]):
            largest = x.dtype.type(-math.inf)
            for j in range(x.shape[1]):
                largest = max(largest, x[i, j])
            total = x.dtype.type(0)
            for j in range(x.shape[1]):
                total += math.exp(x[i, j] - largest)
            shift = largest + math.log(total)
            smooth = x.dtype.type(0)
            for j in range(x.shape[1]):
                value = x[i, j] - shift
                logp[i, j] = value
                if smoothed:
                    smooth += value * weight[j] if weighted else value
            label = labels[i]
            loss = own * (x[i, label] - shift)
            if weighted:
                loss *= weight[label]
            losses[i] = -(loss + spread * smooth)

    return rows


@functools.cache
def warps_kernel(weighted, smoothed):
    rows = LINE // WARP

    @jit
    def warps(x, labels, weight, own, spread, losses, logp):
        """Warp w of block b computes row b * rows + w of logp, and its loss; lane l the columns l,
        l + WARP, and so on."""
        shared = cuda.shared.array(LINE, x.dtype)  # used by the simulator only
        t = cuda.threadIdx.x
        i, lane = cuda.blockIdx.x * rows + t // WARP, t % WARP
        columns = x.shape[1] if i < x.shape[0] else 0
        seen = x.dtype.type(-math.inf)  # the largest so far
        total = x.dtype.type(0)  # of exp(x - seen)
        for j in range(lane, columns, WARP):
            value = x[i, j]
            if value > seen:
                total = total * math.exp(seen - value) + x.dtype.type(1)
                seen = value
            elif value != -math.inf:
                total += math.exp(value - seen)
        largest = warp_max(seen, shared)
        total = warp_sum(total * math.exp(seen - largest) if seen > -math.inf else total, shared)
        shift = largest
        if columns > 0:
            shift += math.log(total)
        smooth = x.dtype.type(0)
        for j in range(lane, columns, WARP):
            value = x[i, j] - shift
            logp[i, j] = value
            if smoothed:
                smooth += value * weight[j] if weighted else value
        if smoothed:
            smooth = warp_sum(smooth, shared)
        if lane == 0 and columns > 0:
            label = labels[i]
            loss = own * (x[i, label] - shift)
            if weighted:
                loss *= weight[label]
            losses[i] = -(loss + spread * smooth)

    return warps


@functools.cache
def grad_kernel(weighted):
    @jit
    def grad(g, logp, labels, weight, total, own, spread, gx):
        """Thread i of the grid computes number i of gx, (N, C) in row-major order.

        total[0]: the sum of the weights.
        """
        for i in mine(gx.size):
            n, c = split(i, gx.shape[1])
            label = labels[n]
            target = own + spread if c == label else spread
            targets = own + spread * gx.dtype.type(gx.shape[1])  # their sum over the row: 1
            if weighted:
                target *= weight[c]
                targets = own * weight[label] + spread * total[0]
            gx[n, c] = g[n] * (math.exp(logp[n, c]) * targets - target)

    return grad


@elementwise
def bce_with_logits(x, t):
    """-t log(sigmoid(x)) - (1 - t) log(1 - sigmoid(x)), written so that nothing overflows."""
    return max(x, type(x)(0)) - x * t + type(x)(math.log1p(math.exp(-abs(x))))


@elementwise
def bce_with_logits_grad(g, x, t):
    one = type(x)(1)
    e = type(x)(math.exp(-abs(x)))
    return g * ((one / (one + e) if x >= type(x)(0) else e / (one + e)) - t)


def bce_with_logits_mean(x, t):
    """The mean of bce_with_logits over all elements: ()."""
    return bce_with_logits(x, t).sum() / x.size


def bce_with_logits_mean_grad(g, x, t):
    """Gradient of bce_with_logits_mean for x, given the gradient g () of the mean."""
    return bce_with_logits_grad(g / x.size, x, t)


@elementwise
def binary_cross_entropy(p, t):
    """-t log(p) - (1 - t) log(1 - p); logarithms are held above -100, so p = 0 and p = 1 are finite."""
    one, least = type(p)(1), type(p)(-100)
    log_p = least if p == type(p)(0) else max(type(p)(math.log(p)), least)
    log_q = least if p == one else max(type(p)(math.log1p(-p)), least)
    return -t * log_p - (one - t) * log_q


@elementwise
def binary_cross_entropy_grad(g, p, t):
    return g * (p - t) / max(p * (type(p)(1) - p), type(p)(1e-12))
