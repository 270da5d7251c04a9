"""PyTorch's operators as calls of ours: `TABLE`, for op_db.py.

Names and arguments are those of PyTorch's database; a call that we do not offer raises Unsupported.
"""

import numpy as np

from .. import ops
from ..tensor import Tensor


class Unsupported(Exception):
    """A call of PyTorch's that we do not offer; the message says what of it."""


def _need(holds, reason):
    if not holds:
        raise Unsupported(reason)


def _axis(x, axis):
    """PyTorch's dim as our axis; it has an axis 0 and -1 for a single number, too."""
    if isinstance(axis, list | tuple):
        axis = tuple(axis)
        _need(axis != () or x.ndim == 0, "dim=() that means every axis")
    if axis is not None and x.ndim == 0:
        raise Unsupported("an axis of a 0-d array")
    return axis


def _fold(reduce):
    def call(x, dim=None, keepdim=False, dtype=None):
        axis = _axis(x, dim)
        _need(x.size, "an empty array is refused")
        y = reduce(x, axis=axis, keepdims=keepdim)
        return y if dtype is None else y.astype(dtype)

    return call


def _spread(reduce):
    def call(x, *args, dim=None, unbiased=True, correction=None, keepdim=False):
        if args and isinstance(args[0], bool):
            unbiased, *args = args
        dim, unbiased, keepdim = (*args, *(dim, unbiased, keepdim)[len(args) :])
        axis = _axis(x, dim)
        ddof = int(unbiased) if correction is None else correction
        axes = range(x.ndim) if axis is None else [axis] if isinstance(axis, int) else axis
        count = int(np.prod([x.shape[a] for a in axes]))
        _need(x.size and count > ddof, "fewer elements than the correction needs are refused")
        return reduce(x, axis=axis, keepdims=keepdim, ddof=ddof)

    return call


def _extreme(reduce, where):
    def call(x, dim, keepdim=False):
        axis = _axis(x, dim)
        _need(x.size, "an empty array is refused")
        index = where(x, axis=axis)
        return reduce(x, axis=axis, keepdims=keepdim), ops.expand_dims(
            index, axis=axis % x.ndim
        ) if keepdim else index

    return call


def _place(find):
    def call(x, dim=None, keepdim=False):
        axis = _axis(x, dim)
        _need(x.size, "an empty array is refused")
        _need(not keepdim or axis is not None, "keepdims of an index into all elements")
        y = find(x, axis=axis)
        return ops.expand_dims(y, axis=axis % x.ndim) if keepdim else y

    return call


def _prod(x, dim=None, keepdim=False, dtype=None):
    return ops.prod(x, axis=_axis(x, dim), keepdims=keepdim)


def _add(sign):
    def call(x, y, alpha=1):
        return x + (y if sign * alpha == 1 else y * (sign * alpha))

    return call


def _rsub(x, y, alpha=1):
    return y - x * alpha


def _pair(f):
    return lambda x, y: f(x, y)


def _clamp(x, min=None, max=None):
    if isinstance(min, Tensor) or isinstance(max, Tensor):  # limits of each element
        x = x if min is None else ops.maximum(x, min)
        return x if max is None else ops.minimum(x, max)
    _need(min is None or max is None or min <= max, "min above max")
    return ops.clip(x, min=min, max=max)


def _where(x, condition, y):
    return ops.where(condition, x, y)


def _shape(*shape):
    return tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], list | tuple) else shape


def _reshape(x, *shape):
    shape = _shape(*shape)
    _need(x.size or -1 not in shape, "-1 in the shape of an empty array")
    return ops.reshape(x, shape=shape)


def _flatten(x, start_dim=0, end_dim=-1):
    _need(end_dim in (-1, x.ndim - 1), "an end_dim before the last")
    return ops.flatten(x, start_dim)


def _swap(x, a, b):
    _axis(x, a)
    return ops.swapaxes(x, a, b)


def _move(x, source, destination):
    _axis(x, source)
    _need(isinstance(source, int), "several axes moved at once")
    return ops.moveaxis(x, source, destination)


def _permute(x, dims):
    return ops.transpose(x, axes=tuple(dims))


def _matrix_transpose(x):
    _need(x.ndim >= 2, "a matrix transpose of fewer than 2 axes")
    return ops.swapaxes(x, -1, -2)


def _squeeze(x, dim=None):
    if dim is None:
        return ops.squeeze(x)
    axes = _axis(x, dim)
    axes = (axes,) if isinstance(axes, int) else axes or ()
    axes = tuple(a for a in axes if x.shape[a] == 1)  # PyTorch passes over the others
    return ops.squeeze(x, axis=axes) if axes else x


def _cat(xs, dim=0):
    _need(len({x.ndim for x in xs}) == 1, "arrays of different numbers of axes, an old empty one")
    return ops.concat(xs, axis=dim)


def _split(x, sections, dim=0):
    _axis(x, dim)
    return ops.split(x, sections if isinstance(sections, int) else list(sections), axis=dim)


def _pad(x, pad, mode="constant", value=None):
    _need(mode == "constant", f"mode {mode}")
    _need(min(pad, default=0) >= 0, "a negative padding, which crops")
    widths = [(0, 0)] * (x.ndim - len(pad) // 2)
    widths += list(zip(pad[::2], pad[1::2], strict=True))[::-1]
    return ops.pad(x, widths=widths, value=0.0 if value is None else value)


def _flip(x, dims):
    return ops.flip(x, axis=tuple(dims) if isinstance(dims, list | tuple) else dims)


def _roll(x, shifts, dims=None):
    _need(dims is not None and dims != (), "a roll of the flattened array")
    _axis(x, dims)
    return ops.roll(x, shift=shifts, axis=dims)


def _repeat(x, *reps):
    reps = _shape(*reps)
    x = x.reshape((1,) * (len(reps) - x.ndim) + x.shape)
    reps = (1,) * (x.ndim - len(reps)) + tuple(reps)
    _need(0 not in reps, "a repeat of 0")
    return ops.tile(x, reps)


def _repeat_interleave(x, repeats, dim=None, output_size=None):
    _need(isinstance(repeats, int), "a number of repeats for each element")
    if dim is not None:
        _axis(x, dim)
    return ops.repeat(x, repeats=repeats, axis=dim)


def _triangle(f):
    return lambda x, diagonal=0: f(x, k=diagonal)


def _getitem(x, key):
    return x[key]


def _index_select(x, dim, index):
    _axis(x, dim)
    return x[(slice(None),) * (dim % x.ndim) + (index,)]


def _select(x, dim, index):
    _axis(x, dim)
    return x[(slice(None),) * (dim % x.ndim) + (index,)]


def _narrow(x, dim, start, length):
    _axis(x, dim)
    start = int(start) % (x.shape[dim] + 1) if int(start) >= 0 else int(start) + x.shape[dim]
    return x[(slice(None),) * (dim % x.ndim) + (slice(start, start + length),)]


def _gather(x, dim, index):
    _axis(x, dim)
    _need(
        x.ndim == index.ndim
        and all(
            m == n
            for i, (m, n) in enumerate(zip(x.shape, index.shape, strict=True))
            if i != dim % x.ndim
        ),
        "an index that is shorter on other axes",
    )
    return ops.gather(x, index, axis=dim)


def _take_along(x, index, dim=None):
    _need(dim is not None, "an index into the flattened array")
    _need(index.numpy().min(initial=0) >= 0, "indices that count from the end")
    return _gather(x, dim, index)


def _scatter_add(x, dim, index, source):
    _axis(x, dim)
    _need(index.shape == source.shape, "an index that is shorter than the source")
    _gather(x, dim, index)
    return ops.scatter_add(x, index, source, axis=dim)


def _embedding(w, index, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False,
               sparse=False):  # fmt: skip
    _need(max_norm is None, "max_norm")
    _need(not scale_grad_by_freq, "scale_grad_by_freq")
    if padding_idx is not None and padding_idx < 0:
        padding_idx += w.shape[0]
    return ops.embedding(index, w, padding_idx=padding_idx)


def _einsum(operands, spec):
    return ops.einsum(spec, *operands)


def _leaky_relu(x, negative_slope=0.01, inplace=False):
    return ops.leaky_relu(x, slope=negative_slope)


def _elu(x, alpha=1.0, inplace=False):
    return ops.elu(x, alpha=alpha)


def _softplus(x, beta=1, threshold=20):
    _need(threshold >= 20, "a threshold above which softplus is x")
    return ops.softplus(x, beta=float(beta))


def _softmax(f):
    def call(x, dim, dtype=None):
        _need(dtype in (None, "float64"), "a dtype to compute in")
        return f(x, axis=_axis(x, dim))

    return call


def _unary(f):
    return lambda x, inplace=False: f(x)


def _in_batches(f, x, axes):
    """f of a batch of images; a single image, which PyTorch takes too, is a batch of one."""
    return f(x) if x.ndim == axes + 2 else f(x[None])[0]


def _conv(f, axes):
    def call(x, *args, **options):
        names = "weight bias stride padding".split()
        if "transpose" in f.__name__:
            names += ["output_padding", "groups", "dilation"]
        else:
            names += ["dilation", "groups"]
        options = dict(zip(names, args, strict=False)) | options
        options = {k: _plain(v, axes) for k, v in options.items()}
        w, b = options.pop("weight"), options.pop("bias", None)
        return _in_batches(lambda x: f(x, w, b, **options), x, axes)

    return call


def _plain(v, axes):
    """An option as we take it: PyTorch writes (2,) for 2."""
    if isinstance(v, list | tuple) and len(v) == 1:
        return v[0] if axes == 1 else (v[0],) * axes
    return tuple(v) if isinstance(v, list) else v


def _pool(f, axes):
    def call(x, kernel_size, stride=None, padding=0, *rest, **options):
        names = ["dilation", "ceil_mode", "return_indices"]
        if "avg" in f.__name__:
            names = ["ceil_mode", "count_include_pad", "divisor_override"]
        options = dict(zip(names, rest, strict=False)) | options
        _need(not options.pop("return_indices", False), "indices returned as well")
        _need(options.pop("divisor_override", None) is None, "a divisor_override")
        stride = None if stride is None or stride == () else stride
        options |= {"kernel_size": kernel_size, "stride": stride, "padding": padding}
        options = {k: _plain(v, axes) for k, v in options.items()}
        return _in_batches(lambda x: f(x, **options), x, axes)

    return call


def _adaptive(f, axes):
    def call(x, output_size, return_indices=False):
        _need(x.size, "an empty batch")
        _need(not return_indices, "indices returned as well")
        sizes = output_size if isinstance(output_size, list | tuple) else [output_size]
        _need(0 not in sizes, "an output of size 0")
        return _in_batches(lambda x: f(x, output_size=_plain(output_size, axes)), x, axes)

    return call


def _batch_norm(x, mean, var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    _need(x.size // x.shape[1] > 1 if x.size else False, "an empty batch, or one value a channel")
    c = x.shape[1]
    w, b = np.ones(c) if weight is None else weight, np.zeros(c) if bias is None else bias
    if training:
        running = None if mean is None else (mean.numpy().copy(), var.numpy().copy(), momentum)
        return ops.batch_norm(x, w, b, eps=eps, running=running)
    return ops.batch_norm_eval(x, w, b, mean, var, eps)


def _layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    _need(x.size, "an empty array is refused")
    w = np.ones(normalized_shape) if weight is None else weight
    b = np.zeros(normalized_shape) if bias is None else bias
    return ops.layer_norm(x, w, b, eps=eps)


def _group_norm(x, num_groups, weight=None, bias=None, eps=1e-5):
    _need(x.size, "an empty array is refused")
    c = x.shape[1]
    w, b = np.ones(c) if weight is None else weight, np.zeros(c) if bias is None else bias
    return ops.group_norm(x, w, b, groups=num_groups, eps=eps)


def _loss(f):
    def call(x, t, *args, weight=None, **options):
        weight = args[0] if args else weight
        _need(weight is None, "a weight for each element")
        _need(x.size or options.get("reduction", "mean") != "mean", "the mean of an empty batch")
        _need(x.shape == t.shape, "a target that broadcasts")
        return f(x, t, **options)

    return call


def _bce_logits(x, t, weight=None, pos_weight=None, reduction="mean"):
    _need(weight is None, "a weight for each element")
    _need(pos_weight is None or pos_weight.size == 1, "a pos_weight for each class")
    scalar = None if pos_weight is None else pos_weight.item()
    return ops.binary_cross_entropy_with_logits(x, t, reduction=reduction, pos_weight=scalar)


def _labelled(f):
    def call(x, t, weight=None, **options):
        _need(x.size, "an empty batch")
        ignored = t.dtype.kind != "f" and (t.numpy() == options.get("ignore_index", -100)).all()
        _need(not ignored or options.get("reduction") != "mean", "every label ignored")
        return f(x, t, weight, **options)

    return call


def _multi_margin(x, t, p=1, margin=1.0, weight=None, reduction="mean"):
    _need(p == 1 and weight is None, "p=2 or a weight for each class")
    _need(x.ndim == 2, "a single row")
    return ops.multi_margin_loss(x, t, margin=margin, reduction=reduction)


def _attention(
    q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    _need(dropout_p == 0, "dropout draws other numbers")
    _need(not enable_gqa, "fewer heads of keys than of queries")
    _need(attn_mask is None or not attn_mask.requires_grad, "a mask with a gradient")
    _need(q.shape[:-2] == k.shape[:-2] == v.shape[:-2], "leading axes that broadcast")
    return ops.attention(q, k, v, attn_mask, causal=is_causal, scale=scale)


def _astype(dtype):
    return lambda x, memory_format=None: ops.astype(x, dtype=dtype)


SAME = (
    "abs ceil cos cosh exp expm1 floor log log10 log1p log2 neg reciprocal sign sin sinh sqrt square "
    "tan erf tanh sigmoid isfinite isnan logical_not"
)
TABLE = {
    **{name: _unary(getattr(ops, name)) for name in SAME.split()},
    "acos": _unary(ops.arccos),
    "asin": _unary(ops.arcsin),
    "atan": _unary(ops.arctan),
    "round": lambda x: ops.round(x),
    "double": _astype("float64"),
    "float": _astype("float32"),
    "add": _add(1),
    "sub": _add(-1),
    "rsub": _rsub,
    "mul": _pair(ops.mul),
    "div:no_rounding_mode": lambda x, y, rounding_mode=None: x / y,
    "pow": _pair(ops.pow),
    "__radd__": lambda x, y: y + x,
    "__rsub__": lambda x, y: y - x,
    "__rmul__": lambda x, y: y * x,
    "__rdiv__": lambda x, y: y / x,
    "__rpow__": lambda x, y: y**x,
    "__rmatmul__": lambda x, y: ops.matmul(y, x),
    "maximum": _pair(ops.maximum),
    "minimum": _pair(ops.minimum),
    "max:binary": _pair(ops.maximum),
    "min:binary": _pair(ops.minimum),
    "clamp": _clamp,
    "clamp_min": lambda x, min: _clamp(x, min=min),
    "clamp_max": lambda x, max: _clamp(x, max=max),
    "where": _where,
    "eq": _pair(ops.equal),
    "ne": _pair(ops.not_equal),
    "lt": _pair(ops.less),
    "le": _pair(ops.less_equal),
    "gt": _pair(ops.greater),
    "ge": _pair(ops.greater_equal),
    "logical_and": _pair(ops.logical_and),
    "logical_or": _pair(ops.logical_or),
    "sum": _fold(ops.sum),
    "mean": _fold(ops.mean),
    "amax": _fold(ops.max),
    "amin": _fold(ops.min),
    "all": _fold(ops.all),
    "any": _fold(ops.any),
    "logsumexp": _fold(ops.logsumexp),
    "max:reduction_no_dim": _fold(ops.max),
    "min:reduction_no_dim": _fold(ops.min),
    "max:reduction_with_dim": _extreme(ops.max, ops.argmax),
    "min:reduction_with_dim": _extreme(ops.min, ops.argmin),
    "argmax": _place(ops.argmax),
    "argmin": _place(ops.argmin),
    "prod": _prod,
    "var": _spread(ops.var),
    "var:unbiased": _spread(ops.var),
    "std": _spread(ops.std),
    "std:unbiased": _spread(ops.std),
    "cumsum": lambda x, dim, dtype=None: ops.cumsum(x, axis=_axis(x, dim)),
    "reshape": _reshape,
    "view": _reshape,
    "flatten": _flatten,
    "ravel": lambda x: ops.flatten(x),
    "permute": _permute,
    "transpose": _swap,
    "movedim": _move,
    "T": lambda x: ops.transpose(x),
    "t": lambda x: ops.transpose(x),
    "mT": _matrix_transpose,
    "expand": lambda x, *shape: ops.expand(x, shape=_shape(*shape)),
    "expand_as": lambda x, other: ops.expand(x, shape=other.shape),
    "broadcast_to": lambda x, shape: ops.expand(x, shape=shape),
    "squeeze": _squeeze,
    "squeeze:multiple": _squeeze,
    "unsqueeze": lambda x, dim: ops.expand_dims(x, axis=dim),
    "cat": _cat,
    "stack": lambda xs, dim=0: ops.stack(xs, axis=dim),
    "split": _split,
    "split:list_args": _split,
    "split_with_sizes": _split,
    "constant_pad_nd": lambda x, pad, value=0.0: _pad(x, pad, value=value),
    "nn.functional.pad:constant": _pad,
    "flip": _flip,
    "roll": _roll,
    "repeat": _repeat,
    "tile": _repeat,
    "repeat_interleave": _repeat_interleave,
    "tril": _triangle(ops.tril),
    "triu": _triangle(ops.triu),
    "__getitem__": _getitem,
    "index_select": _index_select,
    "select": _select,
    "narrow": _narrow,
    "gather": _gather,
    "take_along_dim": _take_along,
    "scatter_add": _scatter_add,
    "nn.functional.embedding": _embedding,
    "matmul": _pair(ops.matmul),
    "mm": _pair(ops.matmul),
    "bmm": _pair(ops.matmul),
    "mv": _pair(ops.matmul),
    "dot": _pair(ops.matmul),
    "einsum": _einsum,
    "nn.functional.linear": lambda x, w, b=None: ops.linear(x, w, b),
    "nn.functional.relu": _unary(ops.relu),
    "nn.functional.leaky_relu": _leaky_relu,
    "nn.functional.elu": _elu,
    "nn.functional.silu": _unary(ops.silu),
    "nn.functional.gelu": lambda x, approximate="none": ops.gelu(x, approximate=approximate),
    "nn.functional.softplus": _softplus,
    "nn.functional.logsigmoid": _unary(ops.logsigmoid),
    "softmax": _softmax(ops.softmax),
    "softmax:with_dtype": _softmax(ops.softmax),
    "log_softmax": _softmax(ops.log_softmax),
    "log_softmax:with_dtype": _softmax(ops.log_softmax),
    "nn.functional.conv1d": _conv(ops.conv1d, 1),
    "nn.functional.conv2d": _conv(ops.conv2d, 2),
    "nn.functional.conv_transpose1d": _conv(ops.conv_transpose1d, 1),
    "nn.functional.conv_transpose2d": _conv(ops.conv_transpose2d, 2),
    "nn.functional.max_pool1d": _pool(ops.max_pool1d, 1),
    "nn.functional.max_pool2d": _pool(ops.max_pool2d, 2),
    "nn.functional.avg_pool1d": _pool(ops.avg_pool1d, 1),
    "nn.functional.avg_pool2d": _pool(ops.avg_pool2d, 2),
    "nn.functional.adaptive_avg_pool1d": _adaptive(ops.adaptive_avg_pool1d, 1),
    "nn.functional.adaptive_avg_pool2d": _adaptive(ops.adaptive_avg_pool2d, 2),
    "nn.functional.adaptive_max_pool1d": _adaptive(ops.adaptive_max_pool1d, 1),
    "nn.functional.adaptive_max_pool2d": _adaptive(ops.adaptive_max_pool2d, 2),
    "nn.functional.scaled_dot_product_attention": _attention,
    "nn.functional.batch_norm": _batch_norm,
    "nn.functional.layer_norm": _layer_norm,
    "nn.functional.group_norm": _group_norm,
    "nn.functional.mse_loss": _loss(ops.mse_loss),
    "nn.functional.l1_loss": _loss(ops.l1_loss),
    "nn.functional.huber_loss": _loss(ops.huber_loss),
    "nn.functional.kl_div": _loss(ops.kl_div),
    "nn.functional.binary_cross_entropy": _loss(ops.binary_cross_entropy),
    "nn.functional.binary_cross_entropy_with_logits": _bce_logits,
    "nn.functional.cross_entropy": _labelled(ops.cross_entropy),
    "nn.functional.nll_loss": _labelled(ops.nll_loss),
    "nn.functional.multi_margin_loss": _multi_margin,
}
