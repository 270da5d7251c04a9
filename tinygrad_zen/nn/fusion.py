"""Layers in a row that one op computes faster: which, and how.

`apply` is for layers in a Sequential, `feed_forward` for those of a Transformer. A rule takes the layers
from one place of a Sequential on, and the input; it returns the output and how many layers it stood for,
or None if they are not what it knows. Only the layers of this package themselves are fused, without
hooks: what a subclass or a hook does must be seen.
"""

from .. import ops
from ..autograd import recording
from . import functional as F
from .activation import ReLU, Sigmoid, Tanh
from .conv import Conv2d
from .linear import Linear
from .normalize import BatchNorm1d, BatchNorm2d
from .pool import MaxPool2d


def apply(layers, x):
    """The output of layers one after the other, some of them fused."""
    rules = RULES if _may_fuse() else {}
    i = 0
    while i < len(layers):
        rule = rules.get(type(layers[i]))
        fused = None if rule is None else rule(layers[i : i + LONGEST], x)
        x, taken = fused or (layers[i](x), 1)
        i += taken
    return x


def feed_forward(first, activation, second, x):
    """second(activation(first(x))) for dense layers and F.relu or F.gelu; None for anything else."""
    name = FUNCTIONS.get(activation)
    if name is None or not (_may_fuse() and _are([first], Linear) and _are([second], Linear)):
        return None
    return _both_dense(first, name, second, x)


def _both_dense(first, activation, second, x):
    if first.bias is None or second.bias is None:
        return None
    return ops.feed_forward(
        x, first.weight, first.bias, second.weight, second.bias, activation=activation
    )


def _may_fuse():
    """Whether nobody who watches wants to see each layer by itself."""
    watcher = recording.watcher
    return watcher is None or watcher.fuses


def _convolution(layers, x):
    """Conv2d with ReLU and MaxPool2d, or with BatchNorm2d by running statistics."""
    if layers[0].padding_mode != "zeros":
        return None
    if _are(layers, Conv2d, BatchNorm2d):
        return _scaled_convolution(*layers[:2], x)
    if not _are(layers, Conv2d, ReLU, MaxPool2d):
        return None
    conv, _, pool = layers[:3]
    if pool.padding or pool.dilation != 1 or pool.ceil_mode:
        return None
    y = ops.conv2d_relu_max_pool2d(
        x, conv.weight, conv.bias, stride=conv.stride, padding=conv.padding,
        dilation=conv.dilation, groups=conv.groups,
        kernel_size=pool.kernel_size, pool_stride=pool.stride,
    )  # fmt: skip
    return y, 3


def _scaled_convolution(conv, norm, x):
    """In evaluation the norm scales and shifts by fixed numbers: the filters do that on the way."""
    if norm.by_batch or not norm.affine:
        return None
    scale = norm.weight / ops.sqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    if conv.bias is not None:
        shift = shift + conv.bias * scale
    y = ops.conv2d(
        x, conv.weight * scale.reshape(-1, 1, 1, 1), shift, stride=conv.stride,
        padding=conv.padding, dilation=conv.dilation, groups=conv.groups,
    )  # fmt: skip
    return y, 2


def _normalization(layers, x):
    """BatchNorm1d or BatchNorm2d by the batch's own statistics, then ReLU."""
    norm = layers[0]
    if not _are(layers, type(norm), ReLU) or not (norm.affine and norm.by_batch):
        return None
    norm.check(x)
    momentum, running = norm.count_batch(), None
    if norm.track_running_stats:
        running = norm.running_mean.data, norm.running_var.data, momentum
    return ops.batch_norm_relu(x, norm.weight, norm.bias, eps=norm.eps, running=running), 2


def _dense(layers, x):
    """Linear, then ReLU, Sigmoid or Tanh, and the next Linear unless that has an activation of its own."""
    activation = ACTIVATIONS.get(type(layers[1])) if len(layers) > 1 else None
    if activation is None or layers[0]._forward_hooks or layers[1]._forward_hooks:
        return None
    dense = layers[0]
    if (
        len(layers) > 2
        and type(layers[2]) is Linear
        and type(layers[-1]) not in ACTIVATIONS
        and not layers[2]._forward_hooks
    ):
        y = _both_dense(dense, activation, layers[2], x)
        if y is not None:
            return y, 3
    return ops.linear_activation(x, dense.weight, dense.bias, activation=activation), 2


def _are(layers, *kinds):
    """Whether layers begin with these kinds, none of them watched by a hook."""
    return [type(layer) for layer in layers[: len(kinds)]] == list(kinds) and not any(
        layer._forward_hooks for layer in layers[: len(kinds)]
    )


FUNCTIONS = {F.relu: "relu", F.gelu: "gelu"}
ACTIVATIONS = {ReLU: "relu", Sigmoid: "sigmoid", Tanh: "tanh"}
LONGEST = 4  # layers at which a rule looks
RULES = {
    BatchNorm1d: _normalization,
    BatchNorm2d: _normalization,
    Conv2d: _convolution,
    Linear: _dense,
}
