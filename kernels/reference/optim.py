"""One step of an optimizer: the weights w move against their gradient g, in place.

w, g and the arrays of state have one shape, in any memory order; g is left as it is. Or w is a list of
arrays of any shapes, which follow each other in the flat state; g is such a list too, or flat. t counts
the steps of these weights, from 1. Factors such as 1 - beta2 are formed by Python in double precision and
only then meet the arrays: 1 - 0.999 taken in float32 is off by 1.3e-5 of itself.
"""

import math

from ._arrays import namespace
from ._pieces import on_pieces


@on_pieces
def sgd_(w, g, buf, t, lr, momentum, dampening, weight_decay, nesterov):
    """Gradient descent; with a buffer buf for momentum (None without). Sutskever et al. 2013."""
    if weight_decay:
        g = g + weight_decay * w
    if buf is not None:
        if t == 1:
            buf[...] = g
        else:
            # The velocity remembers: buf = momentum buf + (1 - dampening) g.
            buf *= momentum
            buf += (1 - dampening) * g if dampening else g
        # Nesterov looks ahead to where the velocity will have carried the weights.
        g = g + momentum * buf if nesterov else buf
    # w = w - lr g.
    w -= lr * g


@on_pieces
def rmsprop_(w, g, v, mean, buf, lr, alpha, eps, momentum, weight_decay):
    """Divide by a running root mean square of the gradients. Hinton 2012, lecture 6.

    mean: their running mean, which makes the divisor a standard deviation (centred form), or None.
    buf: the buffer of momentum, or None.
    """
    xp = namespace(w)
    if weight_decay:
        g = g + weight_decay * w
    # v = alpha v + (1 - alpha) g^2.
    step = xp.multiply(g, g, out=xp.empty_like(w))
    _towards_(v, step, alpha, step)
    if mean is None:
        xp.sqrt(v, out=step)
    else:
        # mean = alpha mean + (1 - alpha) g; then sqrt(v - mean^2), which rounding may push below 0.
        _towards_(mean, g, alpha, step)
        xp.multiply(mean, mean, out=step)
        xp.subtract(v, step, out=step)
        xp.sqrt(xp.maximum(step, 0, out=step), out=step)
    # step = g / (sqrt(v) + eps).
    step += eps
    xp.divide(g, step, out=step)
    if buf is not None:
        # buf = momentum buf + step.
        buf *= momentum
        buf += step
        step[...] = buf
    # w = w - lr step.
    step *= lr
    w -= step


@on_pieces
def adagrad_(w, g, total, t, lr, lr_decay, eps, weight_decay):
    """Divide by the root of the sum of all squared gradients. Duchi, Hazan & Singer 2011."""
    xp = namespace(w)
    if weight_decay:
        g = g + weight_decay * w
    # total = total + g^2.
    step = xp.multiply(g, g, out=xp.empty_like(w))
    total += step
    # step = g / (sqrt(total) + eps).
    xp.sqrt(total, out=step)
    step += eps
    xp.divide(g, step, out=step)
    # w = w - lr / (1 + (t - 1) lr_decay) step.
    step *= lr / (1 + (t - 1) * lr_decay)
    w -= step


@on_pieces
def adam_(w, g, m, v, v_max, t, lr, beta1, beta2, eps, weight_decay, decoupled):
    """Adam: steps of the mean gradient over its root mean square. Kingma & Ba 2015, Algorithm 1.

    v_max: the largest v so far, which takes the place of v (AMSGrad, Reddi et al. 2018), or None.
    decoupled: weight decay shrinks the weights by themselves instead of adding to the gradient
    (AdamW, Loshchilov & Hutter 2019).
    """
    xp = namespace(w)
    if weight_decay and decoupled:
        w *= 1 - lr * weight_decay
    elif weight_decay:
        g = g + weight_decay * w
    # First moment estimate: m = beta1 m + (1 - beta1) g.
    step = xp.empty_like(w)
    _towards_(m, g, beta1, step)
    # Second moment estimate: v = beta2 v + (1 - beta2) g^2.
    xp.multiply(g, g, out=step)
    _towards_(v, step, beta2, step)
    if v_max is not None:
        v = xp.maximum(v_max, v, out=v_max)
    # Bias correction and update: w = w - lr mhat / (sqrt(vhat) + eps) with mhat = m / (1 - beta1^t)
    # and vhat = v / (1 - beta2^t); the fraction is multiplied by sqrt(1 - beta2^t) above and below.
    correction = math.sqrt(1 - beta2**t)
    xp.sqrt(v, out=step)
    step += eps * correction
    xp.divide(m, step, out=step)
    step *= lr * correction / (1 - beta1**t)
    w -= step


def _towards_(average, new, keep, scratch):
    """average = keep average + (1 - keep) new, in the form average += (1 - keep) (new - average)."""
    namespace(new).subtract(new, average, out=scratch)
    scratch *= 1 - keep
    average += scratch
