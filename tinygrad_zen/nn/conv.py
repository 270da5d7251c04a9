"""Convolution layers."""

from ..ops._windows import per_axis
from . import functional as F
from .linear import check_sizes, init_weight_and_bias
from .module import Module, new_parameter


class _Filters(Module):
    """What all convolution layers hold: sizes, a weight and a bias."""

    axes = None  # of one image: 1 or 2

    def _build(self, in_channels, out_channels, kernel_size, stride, padding, dilation, groups):
        name = type(self).__name__
        check_sizes(name, in_channels=in_channels, out_channels=out_channels, groups=groups)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"{name}: groups ({groups}) must divide in_channels ({in_channels}) and out_channels "
                f"({out_channels})"
            )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = per_axis(name, "kernel_size", kernel_size, self.axes, 1)
        self.stride = per_axis(name, "stride", stride, self.axes, 1)
        self.padding = padding
        if not isinstance(padding, str):
            self.padding = per_axis(name, "padding", padding, self.axes, 0)
        self.dilation = per_axis(name, "dilation", dilation, self.axes, 1)

    def reset_parameters(self):
        """Draw new weights."""
        init_weight_and_bias(self.weight, self.bias)

    def extra_repr(self):
        none = (0,) * self.axes
        s = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        s += f", stride={self.stride}"
        s += f", padding={self.padding}" if self.padding != none else ""
        s += f", dilation={self.dilation}" if self.dilation != (1,) * self.axes else ""
        s += self._own_repr(none)
        s += f", groups={self.groups}" if self.groups != 1 else ""
        return s if self.bias is not None else s + ", bias=False"


class _Conv(_Filters):
    """The constructor of Conv1d and Conv2d."""

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
        bias=True,
        padding_mode="zeros",
    ):
        self._build(in_channels, out_channels, kernel_size, stride, padding, dilation, groups)
        name = type(self).__name__
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise ValueError(
                    f"{name}: padding must be 'same', 'valid' or numbers; got {padding!r}"
                )
            if padding == "same" and any(s != 1 for s in self.stride):
                raise ValueError(f"{name}: padding 'same' needs stride 1; got stride {stride}")
        modes = "zeros", "reflect", "replicate", "circular"
        if padding_mode not in modes:
            raise ValueError(
                f"{name}: unknown padding_mode {padding_mode!r}: choose from {', '.join(modes)}"
            )
        self.padding_mode = padding_mode
        self.weight = new_parameter(out_channels, in_channels // groups, *self.kernel_size)
        self.bias = new_parameter(out_channels) if bias else None
        self.reset_parameters()

    def pad(self, x):
        """x with the border that padding_mode makes, and the padding that is left to the op."""
        if self.padding_mode == "zeros" or self.padding == "valid":
            return x, self.padding
        totals = [d * (k - 1) for k, d in zip(self.kernel_size, self.dilation, strict=True)]
        if self.padding != "same":
            totals = [2 * p for p in self.padding]
        # F.pad wants the last axis first
        widths = [w for t in reversed(totals) for w in (t // 2, t - t // 2)]
        return F.pad(x, widths, self.padding_mode), 0

    def _own_repr(self, none):
        return "" if self.padding_mode == "zeros" else f", padding_mode={self.padding_mode}"


class Conv1d(_Conv):
    """Cross-correlate sequences with learned filters: (N, in_channels, L) -> (N, out_channels, OL).

    OL = (L + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1. weight (out_channels,
    in_channels/groups, kernel_size), bias (out_channels,). padding and padding_mode as for Conv2d.

        layer = nn.Conv1d(16, 32, kernel_size=3, padding="same")
    """

    axes = 1

    def forward(self, x):
        x, padding = self.pad(x)
        return F.conv1d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class Conv2d(_Conv):
    """Cross-correlate images with learned filters: (N, in_channels, H, W) -> (N, out_channels, OH, OW).

    OH = (H + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1. weight (out_channels,
    in_channels/groups, KH, KW), bias (out_channels,). Sizes are ints or pairs (height, width); padding
    also "valid" (none) or "same" (keeps the size; stride 1); padding_mode: "zeros", "reflect",
    "replicate" or "circular", see F.pad.

        layer = nn.Conv2d(3, 32, kernel_size=3, padding=1)
    """

    axes = 2

    def forward(self, x):
        x, padding = self.pad(x)
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class _ConvTranspose(_Filters):
    """The constructor of ConvTranspose1d and ConvTranspose2d."""

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride=1,
        padding=0,
        output_padding=0,
        groups=1,
        bias=True,
        dilation=1,
    ):
        self._build(in_channels, out_channels, kernel_size, stride, padding, dilation, groups)
        name = type(self).__name__
        if isinstance(padding, str):
            raise ValueError(f"{name}: padding must be numbers; got {padding!r}")
        self.output_padding = per_axis(name, "output_padding", output_padding, self.axes, 0)
        self.weight = new_parameter(in_channels, out_channels // groups, *self.kernel_size)
        self.bias = new_parameter(out_channels) if bias else None
        self.reset_parameters()

    def _own_repr(self, none):
        return "" if self.output_padding == none else f", output_padding={self.output_padding}"


class ConvTranspose1d(_ConvTranspose):
    """Transposed convolution of sequences: (N, in_channels, L) -> (N, out_channels, OL).

    OL = (L - 1) * stride - 2 * padding + dilation * (kernel_size - 1) + output_padding + 1. weight
    (in_channels, out_channels/groups, kernel_size), bias (out_channels,).

        layer = nn.ConvTranspose1d(32, 16, kernel_size=4, stride=2, padding=1)     # twice as long
    """

    axes = 1

    def forward(self, x):
        options = self.stride, self.padding, self.output_padding, self.groups, self.dilation
        return F.conv_transpose1d(x, self.weight, self.bias, *options)


class ConvTranspose2d(_ConvTranspose):
    """Transposed convolution: (N, in_channels, H, W) -> (N, out_channels, OH, OW).

    OH = (H - 1) * stride - 2 * padding + dilation * (kernel_size - 1) + output_padding + 1. weight
    (in_channels, out_channels/groups, KH, KW), bias (out_channels,). output_padding chooses among the
    sizes that a Conv2d with that stride maps to H.

        layer = nn.ConvTranspose2d(64, 32, kernel_size=4, stride=2, padding=1)     # twice the size
    """

    axes = 2

    def forward(self, x):
        options = self.stride, self.padding, self.output_padding, self.groups, self.dilation
        return F.conv_transpose2d(x, self.weight, self.bias, *options)
