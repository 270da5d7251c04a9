"""exp, tanh and their kin for one float32, in a form that LLVM turns into vector instructions.

The C library's functions take one number at a time. These are straight lines of arithmetic, with
choices instead of branches, so that a loop over them computes 8 or 16 numbers at once: 4 to 20 times
faster. Each is a polynomial on a short interval, fitted to the function at Chebyshev nodes (so its
error is spread evenly), and an identity that reaches the rest. Relative errors are at most a few times
float32's rounding, 6e-8; NaN stays NaN. float64 is for proofs and goes to the reference.
"""

import math

import numpy as np
from numba import njit

from ._compiled import INLINED

_f = np.float32
_ZERO, _HALF, _ONE, _TWO = _f(0), _f(0.5), _f(1), _f(2)

_LOWEST, _HIGHEST = _f(-87.3), _f(88)  # beyond, exp(x) has no normal float32
_INFINITE = _f(88.7)  # the exponent of e^x is that of infinity
_ONE_FROM = _f(9.02)  # tanh(x) is 1 in float32
_LOG2_E = _f(1 / math.log(2))
_LN_2_HIGH = _f(0.693359375)  # ln 2 in two parts: the first has so few bits that n * it is exact
_LN_2_LOW = _f(math.log(2) - 0.693359375)
# Added to a number of a few hundred, it leaves the nearest integer n in the last bits, as n + 127.
_INTEGER = _f(1.5 * 2**23 + 127)


@njit(**INLINED)
def _power(x):
    """2^n and e^r - 1 with x = n ln 2 + r and |r| <= ln 2 / 2, for x from _LOWEST to _INFINITE.

    So e^x = 2^n e^r. 2^n is made by writing n + 127 into the exponent.
    """
    shifted = x * _LOG2_E + _INTEGER
    n = shifted - _INTEGER
    r = x - n * _LN_2_HIGH - n * _LN_2_LOW
    p = _f(1.3814321e-3)
    p = p * r + _f(8.3688507e-3)
    p = p * r + _f(4.16684e-2)
    p = p * r + _f(1.666652e-1)
    p = p * r + _f(4.9999994e-1)
    power = np.int32(np.float32(shifted).view(np.int32) << np.int32(23)).view(np.float32)
    return power, r * r * p + r


@njit(**INLINED)
def exp(x):
    """e^x; 0 below -87.3, and e^88 above 88."""
    inside = _LOWEST if x < _LOWEST else x
    inside = _HIGHEST if inside > _HIGHEST else inside
    power, rest = _power(inside)
    y = (rest + _ONE) * power
    return _ZERO if x < _LOWEST else y


@njit(**INLINED)
def log_1_plus(e):
    """log(1 + e) for 0 <= e <= 1: twice the inverse hyperbolic tangent of e / (2 + e)."""
    s = e / (_TWO + e)
    z = s * s
    p = _f(1.1622311e-1)
    p = p * z + _f(1.0851110e-1)
    p = p * z + _f(1.4296325e-1)
    p = p * z + _f(1.9999850e-1)
    p = p * z + _f(3.3333334e-1)
    return _TWO * (s + s * z * p)


@njit(**INLINED)
def sigmoid(x):
    """1 / (1 + e^-x); 0 below -88.1, where 2^n is infinite."""
    inside = -_INFINITE if x < -_INFINITE else x
    inside = -_LOWEST if inside > -_LOWEST else inside
    power, rest = _power(-inside)
    return _ONE / (_ONE + (rest + _ONE) * power)


@njit(**INLINED)
def tanh(x):
    """Hyperbolic tangent: e / (e + 2) with e = e^2x - 1, which keeps its digits near 0."""
    inside = -_ONE_FROM if x < -_ONE_FROM else x
    inside = _ONE_FROM if inside > _ONE_FROM else inside
    power, rest = _power(inside + inside)
    e = power * rest + (power - _ONE)
    return e / (e + _TWO)


@njit(**INLINED)
def softplus(x):
    """log(1 + e^x)."""
    return (x if x > _ZERO else _ZERO) + log_1_plus(exp(-abs(x)))


@njit(**INLINED)
def normal(x):
    """The standard normal distribution at x: its function and its density.

    The function's smaller side is erfc(t) / 2 with t = |x| / sqrt(2), and erfc(t) = e^(-t^2) f(t) with
    a smooth f, a polynomial in 1 / (1 + t / 2). So the tail keeps its relative accuracy.
    """
    t = abs(x) * _f(math.sqrt(0.5))
    e = exp(-t * t)
    u = _ONE / (_ONE + _HALF * t)
    p = _f(-5.9898097e-2)
    p = p * u + _f(2.8843954e-1)
    p = p * u + _f(-4.9479252e-1)
    p = p * u + _f(2.8624287e-1)
    p = p * u + _f(-3.1876624e-2)
    p = p * u + _f(2.0473550e-1)
    p = p * u + _f(2.4263227e-1)
    p = p * u + _f(2.8243354e-1)
    p = p * u + _f(2.8208348e-1)
    tail = _HALF * e * (p * u)
    return tail if x < _ZERO else _ONE - tail, e * _f(1 / math.sqrt(2 * math.pi))
