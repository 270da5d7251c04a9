"""Pooling layers."""

from . import functional as F
from .module import Module


class _MaxPool(Module):
    """The constructor of MaxPool1d and MaxPool2d."""

    def __init__(self, kernel_size, stride=None, padding=0, dilation=1, *, ceil_mode=False):
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding, self.dilation, self.ceil_mode = padding, dilation, ceil_mode

    def extra_repr(self):
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPool):
    """The largest element of each window: (N, C, L) -> (N, C, OL). Options as for MaxPool2d.

    layer = nn.MaxPool1d(2)
    """

    def forward(self, x):
        options = self.stride, self.padding, self.dilation, self.ceil_mode
        return F.max_pool1d(x, self.kernel_size, *options)


class MaxPool2d(_MaxPool):
    """The largest element of each window: (N, C, H, W) -> (N, C, OH, OW).

    OH = (H + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1, rounded up with ceil_mode.
    Sizes are ints or pairs (height, width); stride is kernel_size unless given.

        layer = nn.MaxPool2d(2)             # (8, 32, 28, 28) -> (8, 32, 14, 14)
    """

    def forward(self, x):
        options = self.stride, self.padding, self.dilation, self.ceil_mode
        return F.max_pool2d(x, self.kernel_size, *options)


class _AvgPool(Module):
    """The constructor of AvgPool1d and AvgPool2d."""

    def __init__(
        self, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True
    ):
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding, self.ceil_mode = padding, ceil_mode
        self.count_include_pad = count_include_pad

    def extra_repr(self):
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool1d(_AvgPool):
    """The mean of each window: (N, C, L) -> (N, C, OL). Options as for AvgPool2d.

    layer = nn.AvgPool1d(2)
    """

    def forward(self, x):
        options = self.stride, self.padding, self.ceil_mode, self.count_include_pad
        return F.avg_pool1d(x, self.kernel_size, *options)


class AvgPool2d(_AvgPool):
    """The mean of each window: (N, C, H, W) -> (N, C, OH, OW).

    Sizes as for MaxPool2d. count_include_pad: the zeros of the padding count as elements.

        layer = nn.AvgPool2d(2)
    """

    def forward(self, x):
        options = self.stride, self.padding, self.ceil_mode, self.count_include_pad
        return F.avg_pool2d(x, self.kernel_size, *options)


class _AdaptivePool(Module):
    """The constructor of the adaptive layers."""

    def __init__(self, output_size):
        self.output_size = output_size

    def extra_repr(self):
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptivePool):
    """The mean of output_size windows that cover the sequence: (N, C, L) -> (N, C, output_size)."""

    def forward(self, x):
        return F.adaptive_avg_pool1d(x, self.output_size)


class AdaptiveAvgPool2d(_AdaptivePool):
    """The mean of OH x OW windows that cover the image: (N, C, H, W) -> (N, C, OH, OW).

    output_size: an int or a pair; None keeps an axis.

        layer = nn.AdaptiveAvgPool2d((7, 7))
    """

    def forward(self, x):
        return F.adaptive_avg_pool2d(x, self.output_size)


class AdaptiveMaxPool1d(_AdaptivePool):
    """The largest element of output_size windows over the sequence: (N, C, L) -> (N, C, output_size)."""

    def forward(self, x):
        return F.adaptive_max_pool1d(x, self.output_size)


class AdaptiveMaxPool2d(_AdaptivePool):
    """The largest element of OH x OW windows that cover the image: (N, C, H, W) -> (N, C, OH, OW)."""

    def forward(self, x):
        return F.adaptive_max_pool2d(x, self.output_size)


class GlobalAvgPool2d(Module):
    """The mean of each channel of each image: (N, C, H, W) -> (N, C). Lin, Chen & Yan 2014."""

    def forward(self, x):
        if x.ndim != 4:
            raise ValueError(f"GlobalAvgPool2d: x must be (N, C, H, W); got shape {x.shape}")
        return x.mean(axis=(2, 3))
