"""Scaled dot-product attention: each query takes a mean of the values, weighted by how its key fits."""

from ._arrays import namespace


def attention(q, k, v, mask, keep, causal, scale):
    """softmax(scale q k^T + mask) v: (..., L, E), (..., S, E), (..., S, V) -> (..., L, V), weights.

    mask: None, bools (True: this key counts for this query) or numbers that are added to the scores,
    of a shape that broadcasts to (..., L, S). causal: query i sees the keys 0..i alone. A query that
    sees no key gets 0. keep: None, or factors for the weights (dropout). Vaswani et al. 2017.
    """
    xp = namespace(q)
    scores = xp.matmul(q, k.swapaxes(-1, -2)) * scale
    if mask is not None:
        scores = xp.where(mask, scores, -float("inf")) if mask.dtype.kind == "b" else scores + mask
    if causal:
        seen = xp.arange(q.shape[-2]).reshape((-1, 1)) >= xp.arange(k.shape[-2])
        scores = xp.where(seen, scores, -float("inf"))
    largest = scores.max(axis=-1, keepdims=True)
    e = xp.exp(scores - xp.where(xp.isfinite(largest), largest, 0))
    total = e.sum(axis=-1, keepdims=True)
    weights = e / xp.where(total > 0, total, 1)
    return xp.matmul(weights if keep is None else weights * keep, v), weights


def attention_grad(g, q, k, v, mask, keep, causal, scale, weights):
    """Gradients of attention for q, k and v; weights as the forward returned them."""
    xp = namespace(g)
    used = weights if keep is None else weights * keep
    gw = xp.matmul(g, v.swapaxes(-1, -2))
    gw = gw if keep is None else gw * keep
    gs = weights * (gw - (gw * weights).sum(axis=-1, keepdims=True)) * scale
    gq, gk = xp.matmul(gs, k), xp.matmul(gs.swapaxes(-1, -2), q)
    return gq, gk, xp.matmul(used.swapaxes(-1, -2), g)
