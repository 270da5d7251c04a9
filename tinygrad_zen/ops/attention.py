"""Scaled dot-product attention."""

import math

import numpy as np

from ..autograd import op


@op
def attention(be, q, k, v, mask=None, keep=None, *, causal=False, scale=None):
    """softmax(scale q k^T + mask) v: (..., L, E), (..., S, E), (..., S, V) -> (..., L, V).

    mask: bools (True: this key counts for this query), or numbers that are added to the scores and
    carry no gradient, broadcast to (..., L, S). causal: query i sees the keys 0..i alone. A query that
    sees no key gets 0. keep: factors for the weights, as dropout draws them. scale: 1 / sqrt(E) if
    None. Vaswani et al. 2017.
    """
    check_attention("attention", q, k, v, mask)
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    options = mask, keep, causal, scale
    y, saved = be.kernels.attention(q, k, v, *options)
    return y, lambda g: (*be.kernels.attention_grad(g, q, k, v, *options, saved), None, None)


def check_attention(name, q, k, v, mask):
    """Raise unless queries, keys, values and mask fit each other."""
    if (
        min(q.ndim, k.ndim, v.ndim) < 2
        or q.shape[-1] != k.shape[-1]
        or k.shape[-2] != v.shape[-2]
        or not q.shape[:-2] == k.shape[:-2] == v.shape[:-2]
        or 0 in (k.shape[-2], q.shape[-1])
    ):
        raise ValueError(
            f"{name}: q (..., L, E), k (..., S, E) and v (..., S, V) must share their leading axes, E "
            f"and S, at least 1; got {q.shape}, {k.shape} and {v.shape}"
        )
    if mask is None:
        return
    if mask.dtype.kind not in "bf":
        raise TypeError(f"{name}: mask must be bools or floats; got {mask.dtype}")
    scores = (*q.shape[:-1], k.shape[-2])
    try:
        fits = np.broadcast_shapes(mask.shape, scores) == scores
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"{name}: mask must broadcast to (..., L, S) = {scores}; got {mask.shape}")
