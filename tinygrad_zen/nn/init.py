"""Initial weights: each function fills a Tensor in place and returns it.

Random numbers come from `rng` (a numpy.random.Generator) or from the engine's generator (`tz.seed`).
They are drawn in double precision on the host and then rounded, so a seed means the same weights in
every dtype and on every backend.
"""

import math

import numpy as np

from ..backend import default_generator


def _fill(tensor, values):
    tensor.data[...] = tensor.backend.array(values, tensor.dtype)
    return tensor


def _generator(rng):
    return default_generator() if rng is None else rng


def uniform_(tensor, a=0.0, b=1.0, rng=None):
    """Evenly from [a, b)."""
    if not a <= b:
        raise ValueError(f"uniform_: a must not exceed b; got {a} and {b}")
    return _fill(tensor, _generator(rng).uniform(a, b, tensor.shape))


def normal_(tensor, mean=0.0, std=1.0, rng=None):
    """From the normal distribution."""
    if not std >= 0:
        raise ValueError(f"normal_: std must be at least 0; got {std}")
    return _fill(tensor, _generator(rng).normal(mean, std, tensor.shape))


def trunc_normal_(tensor, mean=0.0, std=1.0, a=-2.0, b=2.0, rng=None):
    """From the part of the normal distribution that lies in [a, b]."""
    if not std > 0:
        raise ValueError(f"trunc_normal_: std must be positive; got {std}")
    # beyond 9 standard deviations lies nothing that a draw would ever meet
    low, high = max((a - mean) / std, -9.0), min((b - mean) / std, 9.0)
    if not low < high:
        raise ValueError(
            f"trunc_normal_: [a, b] must hold a part of the distribution; got [{a}, {b}] for mean "
            f"{mean} and std {std}"
        )
    # rejection sampling: an even draw is kept in proportion to the density there
    rng = _generator(rng)
    densest = min(max(0.0, low), high)
    x = rng.uniform(low, high, tensor.shape).reshape(-1)
    rejected = rng.random(x.shape) >= _density(x, densest)
    while rejected.any():
        again = rng.uniform(low, high, rejected.sum())
        x[rejected] = again
        rejected[rejected] = rng.random(again.shape) >= _density(again, densest)
    return _fill(tensor, (mean + std * x).reshape(tensor.shape))


def _density(x, densest):
    """The normal density at x over that at its densest point."""
    return np.exp((densest**2 - x**2) / 2)


def constant_(tensor, val):
    """The same number everywhere."""
    tensor.data[...] = val
    return tensor


def zeros_(tensor):
    return constant_(tensor, 0)


def ones_(tensor):
    return constant_(tensor, 1)


def xavier_uniform_(tensor, gain=1.0, rng=None):
    """Evenly from +-gain sqrt(6 / (fan_in + fan_out)). Glorot & Bengio 2010."""
    bound = gain * math.sqrt(6 / sum(_fans("xavier_uniform_", tensor)))
    return uniform_(tensor, -bound, bound, rng)


def xavier_normal_(tensor, gain=1.0, rng=None):
    """Normal with standard deviation gain sqrt(2 / (fan_in + fan_out)). Glorot & Bengio 2010."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(_fans("xavier_normal_", tensor))), rng)


def kaiming_uniform_(tensor, a=0.0, mode="fan_in", nonlinearity="leaky_relu", rng=None):
    """Evenly from +-gain sqrt(3 / fan). a: the slope of leaky_relu. He et al. 2015."""
    bound = math.sqrt(3) * _kaiming_std("kaiming_uniform_", tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, rng)


def kaiming_normal_(tensor, a=0.0, mode="fan_in", nonlinearity="leaky_relu", rng=None):
    """Normal with standard deviation gain / sqrt(fan). a: the slope of leaky_relu. He et al. 2015."""
    return normal_(tensor, 0.0, _kaiming_std("kaiming_normal_", tensor, a, mode, nonlinearity), rng)


def orthogonal_(tensor, gain=1.0, rng=None):
    """Orthonormal rows, or columns if there are fewer, times gain; axes behind the first count as one.

    Saxe, McClelland & Ganguli 2014.
    """
    if tensor.ndim < 2:
        raise ValueError(f"orthogonal_: at least 2 axes are needed; got shape {tensor.shape}")
    rows, columns = tensor.shape[0], tensor.size // tensor.shape[0]
    noise = _generator(rng).normal(size=(max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(noise)
    q *= np.sign(np.diag(r))  # QR alone prefers some rotations over others
    return _fill(tensor, gain * (q if rows >= columns else q.T).reshape(tensor.shape))


GAINS = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4}


def calculate_gain(nonlinearity, param=None):
    """By how much weights must grow for a nonlinearity to keep the variance; param: leaky_relu's slope."""
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + (0.01 if param is None else param) ** 2))
    if nonlinearity not in GAINS:
        known = ", ".join([*GAINS, "leaky_relu"])
        raise ValueError(
            f"calculate_gain: unknown nonlinearity {nonlinearity!r}: choose from {known}"
        )
    return GAINS[nonlinearity]


def _fans(name, tensor):
    """How many numbers feed one output, and how many outputs one input feeds: (O, I, ...)."""
    if tensor.ndim < 2:
        raise ValueError(
            f"{name}: fan in and fan out need at least 2 axes (O, I, ...); got shape {tensor.shape}"
        )
    taps = math.prod(tensor.shape[2:])
    return tensor.shape[1] * taps, tensor.shape[0] * taps


def _kaiming_std(name, tensor, a, mode, nonlinearity):
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"{name}: mode must be 'fan_in' or 'fan_out'; got {mode!r}")
    fan = _fans(name, tensor)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan)
