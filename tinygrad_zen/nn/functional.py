"""The ops under torch.nn.functional's names and in its order of arguments.

Axes are called `axis`, NumPy's word, where PyTorch says `dim`. Layers are written with these.
"""

import math

import numpy as np

from .. import ops
from ..tensor import Tensor

# dense layers, convolution and pooling

linear = ops.linear


def conv1d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Cross-correlate sequences with filters: (N, C, L), (K, C/groups, KL), (K,) -> (N, K, OL)."""
    return ops.conv1d(
        input, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups
    )


def conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Cross-correlate images with filters: (N, C, H, W), (K, C/groups, KH, KW), (K,) -> (N, K, OH, OW)."""
    return ops.conv2d(
        input, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups
    )


def conv_transpose1d(
    input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1
):
    """Transposed convolution of sequences: (N, C, L), (C, K/groups, KL), (K,) -> (N, K, OL)."""
    return ops.conv_transpose1d(
        input,
        weight,
        bias,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        groups=groups,
        dilation=dilation,
    )


def conv_transpose2d(
    input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1
):
    """Transposed convolution: (N, C, H, W), (C, K/groups, KH, KW), (K,) -> (N, K, OH, OW)."""
    return ops.conv_transpose2d(
        input,
        weight,
        bias,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        groups=groups,
        dilation=dilation,
    )


def max_pool1d(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """The largest element of each window: (N, C, L) -> (N, C, OL)."""
    return ops.max_pool1d(
        input,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        ceil_mode=ceil_mode,
    )


def max_pool2d(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """The largest element of each window: (N, C, H, W) -> (N, C, OH, OW)."""
    return ops.max_pool2d(
        input,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        ceil_mode=ceil_mode,
    )


def avg_pool1d(input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """The mean of each window: (N, C, L) -> (N, C, OL)."""
    return ops.avg_pool1d(
        input,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
    )


def avg_pool2d(input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """The mean of each window: (N, C, H, W) -> (N, C, OH, OW)."""
    return ops.avg_pool2d(
        input,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
    )


def adaptive_avg_pool1d(input, output_size):
    """The mean of OL windows that cover the sequence: (N, C, L) -> (N, C, OL)."""
    return ops.adaptive_avg_pool1d(input, output_size=output_size)


def adaptive_avg_pool2d(input, output_size):
    """The mean of OH x OW windows that cover the image: (N, C, H, W) -> (N, C, OH, OW)."""
    return ops.adaptive_avg_pool2d(input, output_size=output_size)


def adaptive_max_pool1d(input, output_size):
    """The largest element of OL windows that cover the sequence: (N, C, L) -> (N, C, OL)."""
    return ops.adaptive_max_pool1d(input, output_size=output_size)


def adaptive_max_pool2d(input, output_size):
    """The largest element of OH x OW windows that cover the image: (N, C, H, W) -> (N, C, OH, OW)."""
    return ops.adaptive_max_pool2d(input, output_size=output_size)


# activations

relu = ops.relu
sigmoid = ops.sigmoid
logsigmoid = ops.logsigmoid
tanh = ops.tanh
silu = ops.silu


def leaky_relu(input, negative_slope=0.01):
    """x where positive, else negative_slope * x."""
    return ops.leaky_relu(input, slope=negative_slope)


def elu(input, alpha=1.0):
    """x where positive, else alpha * (exp(x) - 1)."""
    return ops.elu(input, alpha=alpha)


def gelu(input, approximate="none"):
    """x times the normal distribution function of x; approximate="tanh" for the older formula."""
    return ops.gelu(input, approximate=approximate)


def softplus(input, beta=1.0):
    """log(1 + exp(beta x)) / beta, exact at any size."""
    return ops.softplus(input, beta=beta)


def softmax(input, axis=-1):
    """exp(x) over its sum along an axis."""
    return ops.softmax(input, axis=axis)


def log_softmax(input, axis=-1):
    """The logarithm of softmax."""
    return ops.log_softmax(input, axis=axis)


# randomness, tables, shapes


def dropout(input, p=0.5, training=True):
    """In training each element 0 with probability p, else x / (1 - p)."""
    return ops.dropout(input, p=p) if training else input


def dropout2d(input, p=0.5, training=True):
    """In training whole channels of (N, C, ...) 0 with probability p, else x / (1 - p)."""
    return ops.dropout_channels(input, p=p) if training else input


def embedding(input, weight, padding_idx=None):
    """Rows of a table by number: integers (...), (V, D) -> (..., D); row padding_idx is not learned."""
    if padding_idx is not None:
        rows = weight.shape[0]
        if not -rows <= padding_idx < rows:
            raise ValueError(
                f"embedding: padding_idx must name one of {rows} rows; got {padding_idx}"
            )
        padding_idx %= rows
    return ops.embedding(input, weight, padding_idx=padding_idx)


def one_hot(input, num_classes=-1):
    """Integers (...) -> 0 and 1 (..., num_classes), integers too; by default the largest label + 1."""
    if input.dtype.kind not in "iu":
        raise TypeError(f"one_hot: labels must be integers; got {input.dtype}")
    low, high = (int(input.data.min()), int(input.data.max())) if input.size else (0, -1)
    if num_classes == -1:
        num_classes = high + 1
    if low < 0 or high >= num_classes:
        raise ValueError(f"one_hot: labels must lie in 0..{num_classes - 1}; got {low}..{high}")
    classes = input.backend.xp.arange(num_classes)
    return Tensor((input.data[..., None] == classes).astype(np.int64), input.backend)


NUMPY_PADS = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def pad(input, pad, mode="constant", value=0.0):
    """Widen the last axes: pad=(left, right, top, bottom, ...), a pair an axis, the last axis first.

    mode: "constant" (with value), "reflect" (mirrored, the border once), "replicate" (the border) or
    "circular" (from the other end).
    """
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise ValueError(
            f"pad: a pair of sizes for each of at most {input.ndim} axes is needed; got {pad}"
        )
    pairs = [tuple(pad[i : i + 2]) for i in range(0, len(pad), 2)]
    if mode == "constant":
        widths = [(0, 0)] * (input.ndim - len(pairs)) + pairs[::-1]
        return ops.pad(input, widths=widths, value=value)
    if mode not in NUMPY_PADS:
        raise ValueError(
            f"pad: unknown mode {mode!r}: choose from constant, {', '.join(NUMPY_PADS)}"
        )
    for i, pair in enumerate(pairs):
        axis = input.ndim - 1 - i
        n = input.shape[axis]
        most = {"reflect": n - 1, "circular": n}.get(mode, max(pair))
        if n == 0 or min(pair) < 0 or max(pair) > most:
            raise ValueError(
                f"pad: {mode} along an axis of {n} can add 0 to {most} on each side; got {pair}"
            )
        # the padded axis reads the elements in this order, some of them more than once
        order = np.pad(np.arange(n), pair, NUMPY_PADS[mode])
        input = input[(slice(None),) * axis + (input.backend.array(order),)]
    return input


def normalize(input, p=2.0, axis=1, eps=1e-12):
    """x over its p-norm along an axis; a norm below eps counts as eps."""
    return input / _norm(input, p, axis, eps)


def cosine_similarity(x1, x2, axis=1, eps=1e-8):
    """The cosine of the angle between x1 and x2 along an axis; norms below eps count as eps."""
    return (normalize(x1, 2.0, axis, eps) * normalize(x2, 2.0, axis, eps)).sum(axis=axis)


def _norm(x, p, axis, eps):
    """The p-norm along an axis, kept, at least eps; below that it has no gradient, not even at 0."""
    if not p > 0:
        raise ValueError(f"normalize: p must be positive; got {p}")
    if p == math.inf:
        return ops.clip(abs(x).max(axis=axis, keepdims=True), min=eps)
    least = max(eps**p, float(np.finfo(x.dtype).tiny))  # eps^p must not round to 0
    if p == 2:
        return ops.sqrt(ops.clip((x * x).sum(axis=axis, keepdims=True), min=least))
    return ops.clip((abs(x) ** p).sum(axis=axis, keepdims=True), min=least) ** (1 / p)


# normalisation


def batch_norm(
    input,
    running_mean,
    running_var,
    weight=None,
    bias=None,
    training=False,
    momentum=0.1,
    eps=1e-5,
):
    """Normalise each channel of (N, C, ...), then scale by weight and shift by bias, both (C,).

    training: by the mean and variance of the batch, towards which the running statistics (Tensors or
    None) are moved by momentum; else by the running statistics.
    """
    weight, bias = _scale_and_shift(input, input.shape[1:2], weight, bias)
    if training:
        running = None
        if running_mean is not None:
            running = running_mean.data, running_var.data, momentum
        return ops.batch_norm(input, weight, bias, eps=eps, running=running)
    if running_mean is None or running_var is None:
        raise ValueError("batch_norm: running_mean and running_var are needed except in training")
    return ops.batch_norm_eval(input, weight, bias, running_mean, running_var, eps)


def layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5):
    """Normalise over the last axes, those of normalized_shape; weight and bias have that shape."""
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    weight, bias = _scale_and_shift(input, shape, weight, bias)
    if weight.shape != shape:
        raise ValueError(
            f"layer_norm: weight must have normalized_shape {shape}; got {weight.shape}"
        )
    return ops.layer_norm(input, weight, bias, eps=eps)


def group_norm(input, num_groups, weight=None, bias=None, eps=1e-5):
    """Normalise groups of channels of each image: (N, C, ...), weight and bias (C,)."""
    weight, bias = _scale_and_shift(input, input.shape[1:2], weight, bias)
    return ops.group_norm(input, weight, bias, groups=num_groups, eps=eps)


def instance_norm(
    input,
    running_mean=None,
    running_var=None,
    weight=None,
    bias=None,
    use_input_stats=True,
    momentum=0.1,
    eps=1e-5,
):
    """Normalise each channel of each image: (N, C, ...), weight and bias (C,).

    use_input_stats: by its own mean and variance, towards whose means over the batch the running
    statistics (Tensors or None) are moved; else by the running statistics.
    """
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    if running_mean is None:
        return group_norm(input, input.shape[1], weight, bias, eps)
    # the images as channels of one image: batch norm then treats each channel of each by itself
    n, c = input.shape[:2]
    be = input.backend
    mean, var = (Tensor(be.xp.tile(t.data, n), be) for t in (running_mean, running_var))
    flat = ops.reshape(input, shape=(1, n * c, *input.shape[2:]))
    normal = batch_norm(flat, mean, var, training=True, momentum=momentum, eps=eps)
    running_mean.data[...] = mean.data.reshape(n, c).mean(axis=0)
    running_var.data[...] = var.data.reshape(n, c).mean(axis=0)
    weight, bias = _scale_and_shift(input, (c,), weight, bias)
    each = (1, c) + (1,) * (input.ndim - 2)
    normal = ops.reshape(normal, shape=input.shape)
    return normal * ops.reshape(weight, shape=each) + ops.reshape(bias, shape=each)


def _scale_and_shift(input, shape, weight, bias):
    """weight and bias, with ones and zeros of a shape for those that are None."""
    xp = input.backend.xp
    if weight is None:
        weight = Tensor(xp.ones(shape, input.dtype), input.backend)
    if bias is None:
        bias = Tensor(xp.zeros(shape, input.dtype), input.backend)
    return weight, bias


# attention


def scaled_dot_product_attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None
):
    """softmax(scale q k^T + mask) v: (..., L, E), (..., S, E), (..., S, V) -> (..., L, V).

    attn_mask: bools (True: this key counts for this query) or numbers added to the scores, broadcast to
    (..., L, S). is_causal: query i sees the keys 0..i alone. A query that sees no key gets 0. dropout_p:
    of the weights. scale: 1 / sqrt(E) if None. Vaswani et al. 2017.
    """
    if isinstance(attn_mask, Tensor) and attn_mask.requires_grad:
        weights = attention_weights(query, key, attn_mask, is_causal, scale)
        return ops.matmul(dropout(weights, dropout_p), value)
    keep = None
    if dropout_p:
        shape = (*query.shape[:-1], key.shape[-2])
        keep = ops.dropout_mask(query, shape, dropout_p)
    return ops.attention(query, key, value, attn_mask, keep, causal=is_causal, scale=scale)


def attention_weights(query, key, attn_mask=None, is_causal=False, scale=None):
    """How much each query looks at each key: (..., L, E), (..., S, E) -> (..., L, S), rows that add up to 1.

    Arguments as for scaled_dot_product_attention; a mask that requires a gradient receives it.
    """
    ops.check_attention("attention_weights", query, key, key, attn_mask)
    scores = ops.matmul(query, ops.swapaxes(key, -1, -2))
    scores = scores * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    xp = query.backend.xp
    seen = None
    if attn_mask is not None and attn_mask.dtype.kind == "f":
        scores = scores + attn_mask
    elif attn_mask is not None:
        seen = attn_mask.data if isinstance(attn_mask, Tensor) else attn_mask
    if is_causal:
        before = xp.tril(xp.ones(scores.shape[-2:], bool))
        seen = before if seen is None else before & xp.asarray(seen)
    if seen is None:
        return softmax(scores)
    # scores so low that they weigh nothing, but are numbers: a row without any key has no gradient then
    low = float(np.finfo(scores.dtype).min)
    return ops.where(seen, softmax(ops.where(seen, scores, low)), 0.0)


# losses


def mse_loss(input, target, *, reduction="mean"):
    """Squared error, (x - t)^2."""
    return ops.mse_loss(input, target, reduction=reduction)


def l1_loss(input, target, *, reduction="mean"):
    """Absolute error, |x - t|."""
    return ops.l1_loss(input, target, reduction=reduction)


def huber_loss(input, target, reduction="mean", delta=1.0):
    """Half the squared error up to a distance of delta, linear beyond."""
    return ops.huber_loss(input, target, reduction=reduction, delta=delta)


def binary_cross_entropy(input, target, weight=None, *, reduction="mean"):
    """-t log(p) - (1 - t) log(1 - p) of probabilities; weight: how much each element counts."""
    if weight is None:
        return ops.binary_cross_entropy(input, target, reduction=reduction)
    losses = ops.binary_cross_entropy(input, target, reduction="none")
    return _reduce("binary_cross_entropy", losses * weight, reduction)


def binary_cross_entropy_with_logits(
    input, target, weight=None, *, reduction="mean", pos_weight=None
):
    """Binary cross-entropy of raw scores; weight: how much each element counts.

    pos_weight: how much more a target of 1 counts than one of 0, a number.
    """
    name, loss = "binary_cross_entropy_with_logits", ops.binary_cross_entropy_with_logits
    if weight is None:
        return loss(input, target, reduction=reduction, pos_weight=pos_weight)
    losses = loss(input, target, reduction="none", pos_weight=pos_weight)
    return _reduce(name, losses * weight, reduction)


def _reduce(name, losses, reduction):
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{name}: reduction must be 'mean', 'sum' or 'none'; got {reduction!r}")
    return losses if reduction == "none" else getattr(losses, reduction)()


def cross_entropy(
    input, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0
):
    """Cross-entropy of raw scores (N, C, ...) against classes (N, ...) or probabilities (N, C, ...)."""
    return ops.cross_entropy(
        input,
        target,
        weight,
        ignore_index=ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
    )


def nll_loss(input, target, weight=None, ignore_index=-100, reduction="mean"):
    """Minus the log-probability (N, C, ...) of each label (N, ...)."""
    return ops.nll_loss(input, target, weight, ignore_index=ignore_index, reduction=reduction)


def kl_div(input, target, reduction="mean", log_target=False):
    """Kullback-Leibler divergence t (log t - x) of log-probabilities x from probabilities t."""
    return ops.kl_div(input, target, reduction=reduction, log_target=log_target)


def hinge_loss(input, target, *, margin=1.0, reduction="mean"):
    """max(0, margin - t x) for targets of -1 or 1."""
    return ops.hinge_loss(input, target, margin=margin, reduction=reduction)


def multi_margin_loss(input, target, *, margin=1.0, reduction="mean"):
    """Multi-class hinge: the mean over classes j of max(0, margin - x[label] + x[j])."""
    return ops.multi_margin_loss(input, target, margin=margin, reduction=reduction)
