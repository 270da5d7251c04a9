"""Dense layers and what stands around them."""

import math
from numbers import Integral

from .. import ops
from . import functional as F
from . import init
from .module import Module, new_parameter


class Linear(Module):
    """A dense layer, y = x W^T + b: (..., in_features) -> (..., out_features).

    weight (out_features, in_features) and bias (out_features,) start evenly in +-1 / sqrt(in_features).

        layer = nn.Linear(10, 64)
        layer(x).shape                      # (32, 64) for x (32, 10)
    """

    def __init__(self, in_features, out_features, bias=True):
        check_sizes("Linear", in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self.weight = new_parameter(out_features, in_features)
        self.bias = new_parameter(out_features) if bias else None
        self.reset_parameters()

    def reset_parameters(self):
        """Draw new weights."""
        init_weight_and_bias(self.weight, self.bias)

    def forward(self, x):
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self):
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


class Identity(Module):
    """What came in, unchanged: (...) -> (...). It takes the place of a layer that is left out."""

    def forward(self, x):
        return x


class Flatten(Module):
    """Axes from start_axis to end_axis as one, in logical order: (N, C, H, W) -> (N, C*H*W).

    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten(), nn.Linear(8 * 26 * 26, 10))
    """

    def __init__(self, start_axis=1, end_axis=-1):
        self.start_axis, self.end_axis = start_axis, end_axis

    def forward(self, x):
        for axis in (self.start_axis, self.end_axis):
            if not -x.ndim <= axis < x.ndim:
                raise ValueError(f"Flatten: axis {axis} is out of range for shape {x.shape}")
        start, end = self.start_axis % x.ndim, self.end_axis % x.ndim
        if start > end:
            raise ValueError(f"Flatten: start_axis {start} comes after end_axis {end}")
        middle = math.prod(x.shape[start : end + 1])
        return ops.reshape(x, shape=(*x.shape[:start], middle, *x.shape[end + 1 :]))

    def extra_repr(self):
        return f"start_axis={self.start_axis}, end_axis={self.end_axis}"


def init_weight_and_bias(weight, bias):
    """PyTorch's default for dense layers and convolutions: evenly in +-1 / sqrt(fan in)."""
    init.kaiming_uniform_(weight, a=math.sqrt(5))
    if bias is not None:
        bound = 1 / math.sqrt(math.prod(weight.shape[1:]))
        init.uniform_(bias, -bound, bound)


def check_sizes(layer, **sizes):
    """Raise unless each size is a whole number above 0."""
    for name, value in sizes.items():
        if not isinstance(value, Integral):
            raise TypeError(f"{layer}: {name} must be an int; got {value!r}")
        if value < 1:
            raise ValueError(f"{layer}: {name} must be at least 1; got {value}")
