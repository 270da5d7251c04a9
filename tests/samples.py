"""The table of ops as the tests take it: PyTorch's counterpart of every op.

The samples themselves are in tinygrad_zen/check/samples.py; a new op is one line there, and one here
where PyTorch has it.
"""

import numpy as np

from tinygrad_zen.check.samples import SAMPLES  # noqa: F401  (handed on)

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    torch = F = None


def _tensor(x):
    """A constant of a sample (a number, a list, an array) as PyTorch takes it."""
    return x if isinstance(x, torch.Tensor) else torch.as_tensor(x, dtype=torch.float64)


def _folded(reduce):
    """A reduction under our options: axis may be None, an int or several."""

    def call(x, axis=None, keepdims=False):
        axes = tuple(range(x.ndim)) if axis is None else axis
        return reduce(x, axes, keepdims) if axes != () else x

    return call


def _prod(x, axis=None, keepdims=False):
    axes = range(x.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    for a in sorted((a % x.ndim for a in axes), reverse=True):
        x = x.prod(a, keepdim=keepdims)
    return x


def _spread(reduce):
    """var and std: ddof is PyTorch's correction."""

    def call(x, axis=None, keepdims=False, ddof=0):
        return reduce(x, dim=axis, correction=ddof, keepdim=keepdims)

    return call


def _pad(x, widths, value=0.0):
    return F.pad(x, [n for pair in reversed(widths) for n in pair], value=value)


def _getitem(x, key):
    """PyTorch has no negative steps: those are flips."""
    keys = key if isinstance(key, tuple) else (key,)
    for axis, k in enumerate(keys):
        if isinstance(k, slice) and (k.step or 1) < 0:
            x = x.flip(axis)
            keys = (*keys[:axis], slice(None), *keys[axis + 1 :])
    keys = tuple(torch.as_tensor(k) if isinstance(k, np.ndarray) else k for k in keys)
    return x[keys]


def _batch_norm(x, w, b, eps=1e-5):
    return F.batch_norm(x, None, None, w, b, training=True, eps=eps)


def _batch_norm_eval(x, w, b, mean, var):
    each = (1, -1) + (1,) * (x.ndim - 2)  # PyTorch's own gives mean and var no gradient
    scale = w / (var + 1e-5).sqrt()
    return (x - mean.reshape(each)) * scale.reshape(each) + b.reshape(each)


def _conv2d_relu_max_pool2d(*xs, kernel_size, pool_stride=None, **options):
    return F.max_pool2d(F.conv2d(*xs, **options).relu(), kernel_size, pool_stride)


def _bce_with_logits(x, t, pos_weight=None, **options):
    weight = None if pos_weight is None else _tensor(pos_weight)
    return F.binary_cross_entropy_with_logits(x, t, pos_weight=weight, **options)


def _hinge_loss(x, t, margin=1.0, reduction="mean"):
    losses = (margin - t * x).clamp(min=0)
    return {"mean": losses.mean, "sum": losses.sum, "none": lambda: losses}[reduction]()


def _attention(q, k, v, mask=None, keep=None, causal=False, scale=None):
    if keep is None and not (causal and mask is not None):
        return F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal, scale=scale)
    scores = q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5  # what PyTorch refuses, or draws by chance
    if causal:
        seen = torch.ones(scores.shape, dtype=torch.bool).tril() & mask
        return scores.masked_fill(~seen, -torch.inf).softmax(-1).masked_fill(~seen, 0) @ v
    return (scores.softmax(-1) * keep) @ v


def _recurrent(layer):
    """A whole-sequence op by PyTorch's layer: all states, then the last ones; padding packed away."""

    def call(x, *rest, relu=False, reverse=False):
        states = rest[: 2 if layer is torch.nn.LSTM else 1]
        w_ih, w_hh, b_ih, b_hh, lengths = (*rest[len(states) :], None, None, None)[:5]
        options = {"nonlinearity": "relu"} if relu else {}
        module = layer(x.shape[2], w_hh.shape[1], bias=b_ih is not None, **options).double()
        names = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]
        weights = {
            n: w for n, w in zip(names, (w_ih, w_hh, b_ih, b_hh), strict=True) if w is not None
        }
        n = [len(x)] * x.shape[1] if lengths is None else lengths.tolist()

        def turned(y):
            """Each sequence, without its padding, from the end."""
            columns = [torch.cat([y[:k, i].flip(0), y[k:, i]]) for i, k in enumerate(n)]
            return torch.stack(columns, 1) if reverse else y

        packed = torch.nn.utils.rnn.pack_padded_sequence(turned(x), n, enforce_sorted=False)
        hx = tuple(s.unsqueeze(0) for s in states)
        y, last = torch.func.functional_call(
            module, weights, (packed, hx if len(hx) > 1 else hx[0])
        )
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, total_length=len(x))
        return torch.cat([turned(y), *(last if isinstance(last, tuple) else (last,))])

    return call


# op -> the same in PyTorch, under our options; None: PyTorch has no counterpart, and why
TORCH = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "pow": lambda x, y: _tensor(x) ** y,
    "neg": lambda x: -x,
    "square": lambda x: x.square(),
    "reciprocal": lambda x: x.reciprocal(),
    "maximum": lambda x, y: torch.maximum(_tensor(x), _tensor(y)),
    "minimum": lambda x, y: torch.minimum(_tensor(x), _tensor(y)),
    "clip": lambda x, **limits: x.clamp(**limits),
    "where": lambda c, x, y: torch.where(c, _tensor(x), _tensor(y)),
    "astype": lambda x, dtype: x.to(getattr(torch, dtype)),
    "sum": _folded(lambda x, axes, keep: x.sum(axes, keep)),
    "mean": _folded(lambda x, axes, keep: x.mean(axes, keep)),
    "max": _folded(lambda x, axes, keep: x.amax(axes, keep)),
    "min": _folded(lambda x, axes, keep: x.amin(axes, keep)),
    "logsumexp": _folded(lambda x, axes, keep: x.logsumexp(axes, keep)),
    "prod": _prod,
    "var": _spread(lambda x, **o: x.var(**o)),
    "std": _spread(lambda x, **o: x.std(**o)),
    "cumsum": lambda x, axis=None: x.reshape(-1).cumsum(0) if axis is None else x.cumsum(axis),
    "reshape": lambda x, shape: x.reshape(shape),
    "flatten": lambda x, start_axis=0: x.flatten(start_axis),
    "transpose": lambda x, axes=None: x.permute(axes or tuple(range(x.ndim))[::-1]),
    "swapaxes": lambda x, a, b: x.swapaxes(a, b),
    "moveaxis": lambda x, a, b: x.moveaxis(a, b),
    "expand": lambda x, shape: x.expand(shape),
    "squeeze": lambda x, axis=None: x.squeeze() if axis is None else x.squeeze(axis),
    "expand_dims": lambda x, axis: x.unsqueeze(axis),
    "concat": lambda xs, axis=0: torch.cat(xs, axis),
    "stack": lambda xs, axis=0: torch.stack(xs, axis),
    "split": lambda x, sections, axis=0: x.split(sections, axis),
    "pad": _pad,
    "flip": lambda x, axis=None: x.flip(tuple(range(x.ndim)) if axis is None else axis),
    "roll": lambda x, shift, axis: x.roll(shift, axis),
    "repeat": lambda x, repeats, axis=None: x.repeat_interleave(repeats, axis),
    "tile": lambda x, reps: x.tile(reps),
    "tril": lambda x, k=0: x.tril(k),
    "triu": lambda x, k=0: x.triu(k),
    "getitem": _getitem,
    "gather": lambda x, index, axis: x.gather(axis, index),
    "scatter_add": lambda x, index, source, axis: x.scatter_add(axis, index, source),
    "embedding": lambda index, w, **options: F.embedding(index, w, **options),
    "matmul": lambda x, y: x @ y,
    "linear": lambda x, w, b=None: F.linear(x, w, b),
    "feed_forward": lambda x, w1, b1, w2, b2, activation="gelu": F.linear(
        getattr(F, activation)(F.linear(x, w1, b1)), w2, b2
    ),
    "linear_activation": lambda *xs, activation: getattr(torch, activation)(F.linear(*xs)),
    "einsum": lambda spec, *xs: torch.einsum(spec, *xs),
    "relu": lambda x: x.relu(),
    "leaky_relu": lambda x, slope=0.01: F.leaky_relu(x, slope),
    "elu": lambda x, alpha=1.0: F.elu(x, alpha),
    "softplus": lambda x, beta=1.0: F.softplus(x, beta),
    "silu": lambda x: F.silu(x),
    "gelu": lambda x, approximate="none": F.gelu(x, approximate=approximate),
    "logsigmoid": lambda x: F.logsigmoid(x),
    "softmax": lambda x, axis=-1: x.softmax(axis),
    "log_softmax": lambda x, axis=-1: x.log_softmax(axis),
    "conv1d": lambda *xs, **options: F.conv1d(*xs, **options),
    "conv2d": lambda *xs, **options: F.conv2d(*xs, **options),
    "conv2d_relu_max_pool2d": _conv2d_relu_max_pool2d,
    "conv_transpose1d": lambda *xs, **options: F.conv_transpose1d(*xs, **options),
    "conv_transpose2d": lambda *xs, **options: F.conv_transpose2d(*xs, **options),
    "max_pool1d": lambda x, **options: F.max_pool1d(x, **options),
    "max_pool2d": lambda x, **options: F.max_pool2d(x, **options),
    "avg_pool1d": lambda x, **options: F.avg_pool1d(x, **options),
    "avg_pool2d": lambda x, **options: F.avg_pool2d(x, **options),
    "adaptive_avg_pool1d": lambda x, output_size: F.adaptive_avg_pool1d(x, output_size),
    "adaptive_avg_pool2d": lambda x, output_size: F.adaptive_avg_pool2d(x, output_size),
    "adaptive_max_pool1d": lambda x, output_size: F.adaptive_max_pool1d(x, output_size),
    "adaptive_max_pool2d": lambda x, output_size: F.adaptive_max_pool2d(x, output_size),
    "batch_norm": _batch_norm,
    "batch_norm_eval": _batch_norm_eval,
    "batch_norm_relu": lambda *xs, **options: _batch_norm(*xs, **options).relu(),
    "layer_norm": lambda x, w, b, eps=1e-5: F.layer_norm(x, w.shape, w, b, eps),
    "group_norm": lambda x, w, b, groups: F.group_norm(x, groups, w, b),
    "attention": _attention,
    "rnn": _recurrent(torch and torch.nn.RNN),
    "lstm": _recurrent(torch and torch.nn.LSTM),
    "gru": _recurrent(torch and torch.nn.GRU),
    "dropout": None,  # draws other numbers
    "dropout_channels": None,  # draws other numbers
    "mse_loss": lambda x, t, **options: F.mse_loss(x, t, **options),
    "l1_loss": lambda x, t, **options: F.l1_loss(x, t, **options),
    "huber_loss": lambda x, t, **options: F.huber_loss(x, t, **options),
    "binary_cross_entropy": lambda p, t, **options: F.binary_cross_entropy(p, t, **options),
    "binary_cross_entropy_with_logits": _bce_with_logits,
    "cross_entropy": lambda x, t, w=None, **options: F.cross_entropy(x, t, w, **options),
    "nll_loss": lambda x, t, w=None, **options: F.nll_loss(x, t, w, **options),
    "kl_div": lambda x, t, **options: F.kl_div(x, t, **options),
    "hinge_loss": _hinge_loss,
    "multi_margin_loss": lambda x, t, **options: F.multi_margin_loss(x, t, **options),
}
for _name in (
    "abs sign exp expm1 log log1p log2 log10 sqrt sin cos tan arcsin arccos arctan sinh cosh erf "
    "floor ceil round sigmoid tanh"
).split():
    TORCH[_name] = lambda x, name=_name: getattr(torch, name)(x)
