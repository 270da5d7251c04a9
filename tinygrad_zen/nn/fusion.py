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
from .pool import MaxPool2d


def apply(layers, x):
    """The output of layers one after the other, some of them fused."""
    rules = RULES if _may_fuse() else {}
    i = 0
    while i < len(layers):
        rule = rules.get(type(layers[i]))
        fused = None if rule is None else rule(layers[i : i + 3], x)
        x, taken = fused or (layers[i](x), 1)
        i += taken
    return x


def feed_forward(first, activation, second, x):
    """second(activation(first(x))) for dense layers and F.relu or F.gelu; None for anything else."""
    name = FUNCTIONS.get(activation)
    if name is None or not (_may_fuse() and _are([first], Linear) and _are([second], Linear)):
        return None
    if first.bias is None or second.bias is None:
        return None
    return ops.feed_forward(
        x, first.weight, first.bias, second.weight, second.bias, activation=name
    )


def _may_fuse():
    """Whether nobody who watches wants to see each layer by itself."""
    return recording.watcher is None or recording.watcher.fuses


def _convolution(layers, x):
    """Conv2d, ReLU, MaxPool2d."""
    if not _are(layers, Conv2d, ReLU, MaxPool2d) or layers[0].padding_mode != "zeros":
        return None
    conv, _, pool = layers
    if pool.padding or pool.dilation != 1 or pool.ceil_mode:
        return None
    y = ops.conv2d_relu_max_pool2d(
        x, conv.weight, conv.bias, stride=conv.stride, padding=conv.padding,
        dilation=conv.dilation, groups=conv.groups,
        kernel_size=pool.kernel_size, pool_stride=pool.stride,
    )  # fmt: skip
    return y, 3


def _dense(layers, x):
    """Linear, then ReLU, Sigmoid or Tanh."""
    activation = ACTIVATIONS.get(type(layers[1])) if len(layers) > 1 else None
    if activation is None or layers[0]._forward_hooks or layers[1]._forward_hooks:
        return None
    dense = layers[0]
    return ops.linear_activation(x, dense.weight, dense.bias, activation=activation), 2


def _are(layers, *kinds):
    """Whether layers begin with these kinds, none of them watched by a hook."""
    return [type(layer) for layer in layers[: len(kinds)]] == list(kinds) and not any(
        layer._forward_hooks for layer in layers[: len(kinds)]
    )


FUNCTIONS = {F.relu: "relu", F.gelu: "gelu"}
ACTIVATIONS = {ReLU: "relu", Sigmoid: "sigmoid", Tanh: "tanh"}
RULES = {Conv2d: _convolution, Linear: _dense}
