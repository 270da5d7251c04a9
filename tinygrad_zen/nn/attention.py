"""Multi-head attention, and what tells a Transformer where in a sequence it is."""

import numpy as np

from .. import ops
from ..backend import default_backend
from ..tensor import Tensor
from . import functional as F
from . import init
from .linear import Linear, check_sizes
from .module import Module, new_parameter, reserve


class MultiheadAttention(Module):
    """Attention by num_heads heads, each on its own projection: -> (N, L, embed_dim), weights or None.

    query (N, L, D), key and value (N, S, D) if batch_first, else (L, N, D) and (S, N, D), as in PyTorch.
    As there, masks say what is left out: key_padding_mask (N, S), True for padding; attn_mask (L, S) or
    (N * num_heads, L, S), True for pairs that must not meet, or numbers added to the scores. is_causal:
    each position sees itself and what comes before. need_weights=False is faster, and saves memory.
    in_proj_weight (3 D, D) and in_proj_bias hold the projections of query, key and value; out_proj is a
    Linear. dropout: of the weights. Vaswani et al. 2017.

        layer = nn.MultiheadAttention(128, 4, batch_first=True)
        y, weights = layer(x, x, x)             # (N, L, 128), (N, L, L): means over the heads
    """

    def __init__(self, embed_dim, num_heads, dropout=0.0, bias=True, batch_first=False):
        check_sizes("MultiheadAttention", embed_dim=embed_dim, num_heads=num_heads)
        if embed_dim % num_heads:
            raise ValueError(
                f"MultiheadAttention: num_heads ({num_heads}) must divide embed_dim ({embed_dim})"
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"MultiheadAttention: dropout must lie in [0, 1); got {dropout}")
        self.embed_dim, self.num_heads, self.dropout = embed_dim, num_heads, dropout
        self.batch_first = batch_first
        self.in_proj_weight = new_parameter(3 * embed_dim, embed_dim)
        self.in_proj_bias = new_parameter(3 * embed_dim) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias)
        self.reset_parameters()

    def reset_parameters(self):
        """Draw new weights: Glorot's for the projections, biases of 0."""
        init.xavier_uniform_(self.in_proj_weight)
        self.out_proj.reset_parameters()
        if self.in_proj_bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query,
        key,
        value,
        key_padding_mask=None,
        need_weights=True,
        attn_mask=None,
        average_attn_weights=True,
        is_causal=False,
    ):
        xs = query, key, value
        for word, x in zip(("query", "key", "value"), xs, strict=True):
            if x.ndim != 3 or x.shape[2] != self.embed_dim:
                order = "(N, L, D)" if self.batch_first else "(L, N, D)"
                raise ValueError(
                    f"MultiheadAttention: {word} must be {order} with D = {self.embed_dim}; got {x.shape}"
                )
        q, k, v = (self._heads(x, i) for i, x in enumerate(xs))
        mask = self._mask(key_padding_mask, attn_mask, (*q.shape[:3], k.shape[2]))
        p = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            weights = F.attention_weights(q, k, mask, is_causal)
            y = ops.matmul(F.dropout(weights, p), v)
            weights = weights.mean(axis=1) if average_attn_weights else weights
        else:
            y = F.scaled_dot_product_attention(q, k, v, mask, p, is_causal)
        order = (0, 2, 1, 3) if self.batch_first else (2, 0, 1, 3)
        y = ops.transpose(y, axes=order)
        return self.out_proj(ops.reshape(y, shape=(*y.shape[:2], self.embed_dim))), weights

    def _heads(self, x, i):
        """x through the i-th projection, cut into heads: (N, heads, L, D / heads)."""
        rows = slice(i * self.embed_dim, (i + 1) * self.embed_dim)
        bias = None if self.in_proj_bias is None else self.in_proj_bias[rows]
        y = F.linear(x, self.in_proj_weight[rows], bias)
        y = ops.reshape(y, shape=(*y.shape[:2], self.num_heads, -1))
        return ops.transpose(y, axes=(0, 2, 1, 3) if self.batch_first else (1, 2, 0, 3))

    def _mask(self, padding, pairs, shape):
        """Both masks as one that broadcasts to (N, heads, L, S): bools (True: counts), or floats."""
        n, _, queries, keys = shape
        if padding is not None:
            if tuple(padding.shape) != (n, keys) or padding.dtype.kind not in "bf":
                raise ValueError(
                    f"MultiheadAttention: key_padding_mask must be bools or floats (N, S) = "
                    f"{(n, keys)}; got {padding.dtype} {tuple(padding.shape)}"
                )
            padding = padding.reshape((n, 1, 1, keys))
        if pairs is not None:
            whole = n * self.num_heads, queries, keys
            if tuple(pairs.shape) not in (whole, whole[1:]) or pairs.dtype.kind not in "bf":
                raise ValueError(
                    f"MultiheadAttention: attn_mask must be bools or floats (L, S) = {whole[1:]} or "
                    f"{whole}; got {pairs.dtype} {tuple(pairs.shape)}"
                )
            pairs = pairs.reshape(shape) if pairs.ndim == 3 else pairs
        masks = [m for m in (padding, pairs) if m is not None]
        if all(m.dtype.kind == "b" for m in masks):
            left_out = masks[0] | masks[1] if len(masks) == 2 else masks[0] if masks else None
            return None if left_out is None else left_out == False  # noqa: E712 (an array)
        return sum(_added(m, self.in_proj_weight.dtype) for m in masks)

    def extra_repr(self):
        s = f"{self.embed_dim}, {self.num_heads}"
        s += f", dropout={self.dropout}" if self.dropout else ""
        s += ", bias=False" if self.in_proj_bias is None else ""
        return s + (", batch_first=True" if self.batch_first else "")


def _added(mask, dtype):
    """A mask of bools (True: left out) as numbers that are added to the scores."""
    if mask.dtype.kind == "f":
        return mask
    array = mask.numpy() if isinstance(mask, Tensor) else np.asarray(mask)
    added = np.where(array, -np.inf, 0).astype(dtype)
    return Tensor(mask.backend.array(added), mask.backend) if isinstance(mask, Tensor) else added


class _Positions(Module):
    """Adds a row of its table to each position of a sequence."""

    def __init__(self, num_positions, embedding_dim):
        name = type(self).__name__
        check_sizes(name, num_positions=num_positions, embedding_dim=embedding_dim)
        self.num_positions, self.embedding_dim = num_positions, embedding_dim

    def forward(self, x):
        if x.ndim < 2 or x.shape[-1] != self.embedding_dim or x.shape[-2] > self.num_positions:
            raise ValueError(
                f"{type(self).__name__}: x must be (..., L, {self.embedding_dim}) with L at most "
                f"{self.num_positions}; got {x.shape}"
            )
        return x + self.weight[: x.shape[-2]]

    def extra_repr(self):
        return f"{self.num_positions}, {self.embedding_dim}"


class PositionalEmbedding(_Positions):
    """Adds to each position a vector that is learned: (..., L, D) -> (..., L, D), L <= num_positions.

    weight (num_positions, embedding_dim) starts normal, with standard deviation 0.02. Devlin et al. 2019.

        layer = nn.PositionalEmbedding(512, 128)
    """

    def __init__(self, num_positions, embedding_dim):
        super().__init__(num_positions, embedding_dim)
        self.weight = new_parameter(num_positions, embedding_dim)
        self.reset_parameters()

    def reset_parameters(self):
        """Draw a new table."""
        init.normal_(self.weight, std=0.02)


class PositionalEncoding(_Positions):
    """Adds to each position sines and cosines of it: (..., L, D) -> (..., L, D), L <= num_positions.

    Elements 2 i and 2 i + 1 of position t are sin and cos of t / 10000^(2 i / D). weight, a buffer, is the
    table. Vaswani et al. 2017.

        layer = nn.PositionalEncoding(512, 128)
    """

    def __init__(self, num_positions, embedding_dim):
        super().__init__(num_positions, embedding_dim)
        reserve(num_positions, embedding_dim)
        even = np.arange(0, embedding_dim, 2)
        angles = np.arange(num_positions)[:, None] / 10000 ** (even / embedding_dim)
        table = np.empty((num_positions, embedding_dim), np.float32)
        table[:, 0::2] = np.sin(angles)
        table[:, 1::2] = np.cos(angles[:, : embedding_dim // 2])
        be = default_backend()
        self.weight = Tensor(be.array(table), be)
