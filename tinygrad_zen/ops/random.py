"""Ops that draw random numbers, from the engine's generator or one that is given."""

from ..backend import default_generator


def dropout(x, *, p=0.5, rng=None):
    """Each element 0 with probability p, else x / (1 - p): the expectation stays. Srivastava 2014.

    rng: a numpy.random.Generator; the engine's own (see tz.seed) if None.
    """
    if not 0 <= p < 1:
        raise ValueError(f"dropout: p must lie in [0, 1); got {p}")
    if p == 0:
        return x
    mask = dropout_mask(x, x.shape, p, rng)
    return x * mask


def dropout_channels(x, *, p=0.5, rng=None):
    """Whole channels of (N, C, ...) dropped together. Tompson 2015."""
    if x.ndim < 2:
        raise ValueError(f"dropout_channels: x must be (N, C, ...); got {x.shape}")
    if not 0 <= p < 1:
        raise ValueError(f"dropout_channels: p must lie in [0, 1); got {p}")
    return x * dropout_mask(x, (*x.shape[:2], *(1,) * (x.ndim - 2)), p, rng)


def dropout_mask(x, shape, p, rng=None):
    """An array of 0 and 1 / (1 - p), in the dtype and on the backend of x."""
    rng = default_generator() if rng is None else rng
    keep = rng.random(shape, dtype="float32") >= p
    return x.backend.array(keep.astype(x.dtype) / x.dtype.type(1 - p))
