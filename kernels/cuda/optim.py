"""One step of an optimizer in one trip through memory: the weights w move against their gradient g.

The library makes a trip for each operation, and Adam has a dozen. Arguments as in reference/optim.py;
factors such as 1 - beta2 are formed by Python in double precision and only then take the arrays' dtype.
"""

import functools
import math

from numba import cuda

from .. import reference
from ..reference._pieces import on_pieces
from ._arrays import aligned, contiguous, flat_in_place, same_floats
from ._device import LINE, cover, jit, launch, mine
from ._instructions import copy4


@on_pieces
def sgd_(w, g, buf, t, lr, momentum, dampening, weight_decay, nesterov):
    """Gradient descent; with a buffer buf for momentum (None without). Sutskever et al. 2013."""
    arrays = _alike(w, g, *(() if buf is None else (buf,)))
    if arrays is None:
        return reference.sgd_(w, g, buf, t, lr, momentum, dampening, weight_decay, nesterov)
    kernel = sgd_kernel(buf is not None, t == 1, bool(nesterov))
    w, g, buf = arrays if buf is not None else (*arrays, arrays[0])
    numbers = map(w.dtype.type, (lr, momentum, 1 - dampening, weight_decay))
    launch(kernel, cover(w.size), LINE, w, g, buf, *numbers)


@functools.cache
def sgd_kernel(with_buffer, first, nesterov):
    @jit
    def sgd(w, g, buf, lr, momentum, new, decay):
        """Thread i of the grid moves weights i, i + threads of the grid, and so on."""
        for i in mine(w.size):
            step = g[i] + decay * w[i]
            if with_buffer:
                # The velocity remembers: buf = momentum buf + (1 - dampening) g.
                speed = step if first else momentum * buf[i] + new * step
                buf[i] = speed
                # Nesterov looks ahead to where the velocity will have carried the weights.
                step = step + momentum * speed if nesterov else speed
            w[i] -= lr * step

    return sgd


@on_pieces
def adam_(w, g, m, v, v_max, t, lr, beta1, beta2, eps, weight_decay, decoupled):
    """Adam: steps of the mean gradient over its root mean square. Kingma & Ba 2015, Algorithm 1.

    v_max: the largest v so far, which takes the place of v (AMSGrad, Reddi et al. 2018), or None.
    decoupled: weight decay shrinks the weights by themselves instead of adding to the gradient
    (AdamW, Loshchilov & Hutter 2019).
    """
    adam_vectors_(w, g, m, v, v_max, t, lr, beta1, beta2, eps, weight_decay, decoupled)


def adam_library_(w, g, m, v, v_max, t, lr, beta1, beta2, eps, weight_decay, decoupled):
    """A library call for each operation: the reference kernel. About 30 trips through memory."""
    reference.adam_(w, g, m, v, v_max, t, lr, beta1, beta2, eps, weight_decay, decoupled)


def adam_one_pass_(w, g, m, v, v_max, t, lr, beta1, beta2, eps, weight_decay, decoupled):
    """One thread a weight and one launch: four numbers read, three written."""
    _adam(False, w, g, m, v, v_max, t, lr, beta1, beta2, eps, weight_decay, decoupled)


def adam_vectors_(w, g, m, v, v_max, t, lr, beta1, beta2, eps, weight_decay, decoupled):
    """Four weights a thread, in loads of 16 bytes, and a grid that just fills the card."""
    _adam(True, w, g, m, v, v_max, t, lr, beta1, beta2, eps, weight_decay, decoupled)


ADAMS = adam_library_, adam_one_pass_, adam_vectors_


def _alike(w, g, *state):
    """The arrays as flat arrays in w's order of memory, or None where the library must do: w and the
    state as views, for they are changed in place; g may be a copy."""
    if not same_floats(w, g, *state):
        return None
    flat = flat_in_place(w, *state)
    if flat is None:
        return None
    order = sorted(range(w.ndim), key=lambda axis: -w.strides[axis])
    return flat[0], contiguous(g.transpose(order)).reshape(-1), *flat[1:]


def _adam(vectors, w, g, m, v, v_max, *options):
    arrays = _alike(w, g, m, v, *(() if v_max is None else (v_max,)))
    if arrays is None:
        return reference.adam_(w, g, m, v, v_max, *options)
    numbers = _adam_numbers(w.dtype.type, *options)
    kernels = adam_kernels(v_max is not None, bool(options[-1]))
    arrays = arrays if v_max is not None else (*arrays, arrays[0])  # any, where none is needed
    whole = w.size // 4 * 4 if vectors and aligned(*arrays) else 0
    launch(kernels[1], cover(whole // 4), LINE, *(a[:whole] for a in arrays), *numbers)
    rest = [a[whole:] for a in arrays]  # fewer than four, or all
    launch(kernels[0], cover(w.size - whole), LINE, *rest, *numbers)


def _adam_numbers(number, t, lr, beta1, beta2, eps, weight_decay, decoupled):
    """Adam's factors: 1 - beta1, 1 - beta2, eps, step length, and what weight decay multiplies with."""
    # w = w - lr mhat / (sqrt(vhat) + eps) with mhat = m / (1 - beta1^t) and vhat = v / (1 - beta2^t); the
    # fraction is multiplied by sqrt(1 - beta2^t) above and below
    correction = math.sqrt(1 - beta2**t)
    length = lr * correction / (1 - beta1**t)
    decay = 1 - lr * weight_decay if decoupled else weight_decay
    return tuple(map(number, (1 - beta1, 1 - beta2, eps * correction, length, decay)))


@functools.cache
def adam_kernels(with_largest, decoupled):
    """The kernels of adam_one_pass_ and of adam_vectors_."""

    @jit
    def one_pass(w, g, m, v, largest, new1, new2, eps, length, decay):
        """Thread i of the grid moves weight i."""
        for i in mine(w.size):
            weight = decay * w[i] if decoupled else w[i]
            slope = g[i] if decoupled else g[i] + decay * w[i]
            # First moment estimate: m = beta1 m + (1 - beta1) g.
            mean = m[i] + new1 * (slope - m[i])
            # Second moment estimate: v = beta2 v + (1 - beta2) g^2.
            square = v[i] + new2 * (slope * slope - v[i])
            m[i] = mean
            v[i] = square
            if with_largest:
                square = max(largest[i], square)
                largest[i] = square
            w[i] = weight - length * (mean / (math.sqrt(square) + eps))

    @jit
    def four_at_a_time(w, g, m, v, largest, new1, new2, eps, length, decay):
        """Thread i of the grid moves the four weights from 4 i on, then those a whole grid further."""
        w4 = cuda.local.array(4, w.dtype)
        g4 = cuda.local.array(4, w.dtype)
        m4 = cuda.local.array(4, w.dtype)
        v4 = cuda.local.array(4, w.dtype)
        largest4 = cuda.local.array(4, w.dtype)
        for i in mine(w.size // 4):
            copy4(w4, 0, w, 4 * i)
            copy4(g4, 0, g, 4 * i)
            copy4(m4, 0, m, 4 * i)
            copy4(v4, 0, v, 4 * i)
            if with_largest:
                copy4(largest4, 0, largest, 4 * i)
            for e in range(4):
                weight = decay * w4[e] if decoupled else w4[e]
                slope = g4[e] if decoupled else g4[e] + decay * w4[e]
                m4[e] += new1 * (slope - m4[e])
                v4[e] += new2 * (slope * slope - v4[e])
                square = v4[e]
                if with_largest:
                    square = max(largest4[e], square)
                    largest4[e] = square
                w4[e] = weight - length * (m4[e] / (math.sqrt(square) + eps))
            copy4(w, 4 * i, w4, 0)
            copy4(m, 4 * i, m4, 0)
            copy4(v, 4 * i, v4, 0)
            if with_largest:
                copy4(largest, 4 * i, largest4, 0)

    return one_pass, four_at_a_time
