"""Dropout layers: noise in training, nothing in evaluation."""

from . import functional as F
from .module import Module


class _Dropout(Module):
    def __init__(self, p=0.5):
        if not 0 <= p < 1:
            raise ValueError(f"{type(self).__name__}: p must lie in [0, 1); got {p}")
        self.p = p

    def extra_repr(self):
        return f"p={self.p}"


class Dropout(_Dropout):
    """In training each element 0 with probability p, else x / (1 - p). Srivastava et al. 2014.

    (...) -> (...). The random numbers come from the engine's generator, see tz.seed.

        layer = nn.Dropout(0.3)
    """

    def forward(self, x):
        return F.dropout(x, self.p, self.training)


class Dropout2d(_Dropout):
    """In training whole channels 0 with probability p, else x / (1 - p). Tompson et al. 2015.

    (N, C, H, W) -> (N, C, H, W).

        layer = nn.Dropout2d(0.2)
    """

    def forward(self, x):
        return F.dropout2d(x, self.p, self.training)
