"""Normalisation layers."""

import numpy as np

from ..backend import default_backend
from ..tensor import Tensor
from . import functional as F
from . import init
from .linear import check_sizes
from .module import Module, new_buffer, new_parameter


class _RunningNorm(Module):
    """What batch and instance norm hold: scale and shift, and running statistics.

    momentum: how far the running statistics move towards those of a batch; None averages over all
    batches evenly.
    """

    ndims = ()
    spelled = ""

    def __init__(self, num_features, eps, momentum, affine, track_running_stats):
        check_sizes(type(self).__name__, num_features=num_features)
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self.weight = new_parameter(num_features) if affine else None
        self.bias = new_parameter(num_features) if affine else None
        self.running_mean = self.running_var = self.num_batches_tracked = None
        if track_running_stats:
            be = default_backend()
            self.running_mean = new_buffer(num_features)
            self.running_var = init.ones_(new_buffer(num_features))
            self.num_batches_tracked = Tensor(be.xp.zeros((), np.int64), be)
        if affine:
            init.ones_(self.weight)

    def check(self, x):
        """Raise ValueError unless x has the shape that this layer takes."""
        if x.ndim not in self.ndims or x.shape[1] != self.num_features:
            raise ValueError(
                f"{type(self).__name__}: x must be {self.spelled} with C = {self.num_features}; "
                f"got {x.shape}"
            )

    def count_batch(self):
        """Count a batch whose statistics are tracked; returns how far to move towards them."""
        if not (self.training and self.track_running_stats):
            return 0.0
        self.num_batches_tracked.data += 1
        return 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum

    def extra_repr(self):
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_RunningNorm):
    """The constructor and the computation of BatchNorm1d and BatchNorm2d."""

    def __init__(self, num_features, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True):
        super().__init__(num_features, eps, momentum, affine, track_running_stats)

    def forward(self, x):
        self.check(x)
        stats = self.running_mean, self.running_var
        momentum = self.count_batch()
        return F.batch_norm(x, *stats, self.weight, self.bias, self.by_batch, momentum, self.eps)

    @property
    def by_batch(self):
        """Whether a batch is normalised by its own statistics, not by the running ones."""
        return self.training or not self.track_running_stats


class BatchNorm1d(_BatchNorm):
    """Normalise each feature over the batch: (N, C) or (N, C, L), the shape stays.

    y = weight (x - mean) / sqrt(var + eps) + bias. Options as for BatchNorm2d.

        layer = nn.BatchNorm1d(64)
    """

    ndims, spelled = (2, 3), "(N, C) or (N, C, L)"


class BatchNorm2d(_BatchNorm):
    """Normalise each channel over the batch: (N, C, H, W), the shape stays. Ioffe & Szegedy 2015.

    y = weight (x - mean) / sqrt(var + eps) + bias, with weight and bias (C,) if affine. In training
    mean and var are the batch's, and running_mean and running_var move towards them: running +=
    momentum (batch - running), the variance as n / (n - 1) var; momentum=None averages all batches.
    In evaluation, the running ones take their place, unless track_running_stats=False.

        layer = nn.BatchNorm2d(32)
    """

    ndims, spelled = (4,), "(N, C, H, W)"


class InstanceNorm2d(_RunningNorm):
    """Normalise each channel of each image: (N, C, H, W), the shape stays. Ulyanov et al. 2016.

    y = weight (x - mean) / sqrt(var + eps) + bias, the same in training and evaluation, unless
    track_running_stats=True: then evaluation uses the running statistics, as in BatchNorm2d.

        layer = nn.InstanceNorm2d(32)
    """

    ndims, spelled = (4,), "(N, C, H, W)"

    def __init__(
        self, num_features, eps=1e-5, momentum=0.1, affine=False, track_running_stats=False
    ):
        super().__init__(num_features, eps, momentum, affine, track_running_stats)

    def forward(self, x):
        self.check(x)
        stats = self.running_mean, self.running_var
        by_image = self.training or not self.track_running_stats
        momentum = self.count_batch()
        return F.instance_norm(x, *stats, self.weight, self.bias, by_image, momentum, self.eps)


class LayerNorm(Module):
    """Normalise over the last axes: (..., *normalized_shape), the shape stays.

    y = weight (x - mean) / sqrt(var + eps) + bias, with weight and bias of normalized_shape if
    elementwise_affine. Ba, Kiros & Hinton 2016.

        layer = nn.LayerNorm(512)
    """

    def __init__(self, normalized_shape, eps=1e-5, elementwise_affine=True, bias=True):
        if isinstance(normalized_shape, int):
            normalized_shape = (normalized_shape,)
        self.normalized_shape = tuple(normalized_shape)
        for n in self.normalized_shape:
            check_sizes("LayerNorm", normalized_shape=n)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        self.weight = new_parameter(*self.normalized_shape) if elementwise_affine else None
        self.bias = new_parameter(*self.normalized_shape) if elementwise_affine and bias else None
        if elementwise_affine:
            init.ones_(self.weight)

    def forward(self, x):
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self):
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
        )


class GroupNorm(Module):
    """Normalise num_groups groups of channels of each image: (N, C, ...), the shape stays.

    y = weight (x - mean) / sqrt(var + eps) + bias, with weight and bias (C,) if affine. Wu & He 2018.

        layer = nn.GroupNorm(8, 64)
    """

    def __init__(self, num_groups, num_channels, eps=1e-5, affine=True):
        check_sizes("GroupNorm", num_groups=num_groups, num_channels=num_channels)
        if num_channels % num_groups:
            raise ValueError(
                f"GroupNorm: num_groups ({num_groups}) must divide num_channels ({num_channels})"
            )
        self.num_groups, self.num_channels = num_groups, num_channels
        self.eps, self.affine = eps, affine
        self.weight = new_parameter(num_channels) if affine else None
        self.bias = new_parameter(num_channels) if affine else None
        if affine:
            init.ones_(self.weight)

    def forward(self, x):
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self):
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"
