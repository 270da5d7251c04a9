"""Losses as modules: prediction first, target second. reduction: "mean", "sum" or "none"."""

import numpy as np

from ..tensor import Tensor, tensor
from . import functional as F
from .module import Module


class _Loss(Module):
    """The constructor of losses with no option but reduction."""

    def __init__(self, reduction="mean"):
        self.reduction = check_reduction(type(self).__name__, reduction)


class _WeightedLoss(Module):
    """A loss with a weight, which is a buffer: it is saved and moved with the module."""

    def __init__(self, weight, reduction):
        if weight is not None and not isinstance(weight, Tensor):
            weight = tensor(weight, dtype=np.float32)
        self.weight = weight
        self.reduction = check_reduction(type(self).__name__, reduction)


class MSELoss(_Loss):
    """Squared error, (x - t)^2."""

    def forward(self, input, target):
        return F.mse_loss(input, target, reduction=self.reduction)


class L1Loss(_Loss):
    """Absolute error, |x - t|."""

    def forward(self, input, target):
        return F.l1_loss(input, target, reduction=self.reduction)


class HuberLoss(_Loss):
    """Half the squared error up to a distance of delta, linear beyond. Huber 1964."""

    def __init__(self, reduction="mean", delta=1.0):
        super().__init__(reduction)
        if not delta > 0:
            raise ValueError(f"HuberLoss: delta must be positive; got {delta}")
        self.delta = delta

    def forward(self, input, target):
        return F.huber_loss(input, target, self.reduction, self.delta)


class BCELoss(_WeightedLoss):
    """Binary cross-entropy of probabilities p in 0..1: -t log(p) - (1 - t) log(1 - p).

    weight: how much each element counts.
    """

    def __init__(self, weight=None, *, reduction="mean"):
        super().__init__(weight, reduction)

    def forward(self, input, target):
        return F.binary_cross_entropy(input, target, self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(_WeightedLoss):
    """Binary cross-entropy of raw scores, finite at any size.

    weight: how much each element counts. pos_weight: how much more a target of 1 counts than one of
    0, a number.
    """

    def __init__(self, weight=None, *, reduction="mean", pos_weight=None):
        super().__init__(weight, reduction)
        self.pos_weight = pos_weight

    def forward(self, input, target):
        return F.binary_cross_entropy_with_logits(
            input, target, self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )


class CrossEntropyLoss(_WeightedLoss):
    """Cross-entropy of raw scores (N, C, ...) against classes (N, ...) or probabilities (N, C, ...).

    weight (C,): how much each class counts. Labels equal to ignore_index count nothing.
    label_smoothing: the share of each target that is spread evenly over the classes.

        loss = nn.CrossEntropyLoss()(net(x), labels)
    """

    def __init__(self, weight=None, *, ignore_index=-100, reduction="mean", label_smoothing=0.0):
        super().__init__(weight, reduction)
        if not 0 <= label_smoothing < 1:
            raise ValueError(
                f"CrossEntropyLoss: label_smoothing must lie in [0, 1); got {label_smoothing}"
            )
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def forward(self, input, target):
        options = self.ignore_index, self.reduction, self.label_smoothing
        return F.cross_entropy(input, target, self.weight, *options)


class NLLLoss(_WeightedLoss):
    """Minus the log-probability (N, C, ...) of each label (N, ...); options as CrossEntropyLoss."""

    def __init__(self, weight=None, *, ignore_index=-100, reduction="mean"):
        super().__init__(weight, reduction)
        self.ignore_index = ignore_index

    def forward(self, input, target):
        return F.nll_loss(input, target, self.weight, self.ignore_index, self.reduction)


class KLDivLoss(Module):
    """Kullback-Leibler divergence t (log t - x) of log-probabilities x from probabilities t.

    log_target: t holds logarithms too. reduction may also be "batchmean": the divergence proper.
    """

    def __init__(self, reduction="mean", log_target=False):
        self.reduction = check_reduction("KLDivLoss", reduction, "batchmean")
        self.log_target = log_target

    def forward(self, input, target):
        return F.kl_div(input, target, self.reduction, self.log_target)


class HingeLoss(_Loss):
    """max(0, margin - t x) for targets t of -1 or 1."""

    def __init__(self, margin=1.0, reduction="mean"):
        super().__init__(reduction)
        self.margin = margin

    def forward(self, input, target):
        return F.hinge_loss(input, target, margin=self.margin, reduction=self.reduction)


class MultiMarginLoss(_Loss):
    """Multi-class hinge: the mean over classes j of max(0, margin - x[label] + x[j])."""

    def __init__(self, *, margin=1.0, reduction="mean"):
        super().__init__(reduction)
        self.margin = margin

    def forward(self, input, target):
        return F.multi_margin_loss(input, target, margin=self.margin, reduction=self.reduction)


def check_reduction(name, reduction, *more):
    """The reduction, if there is one of that name."""
    known = ("mean", "sum", "none", *more)
    if reduction not in known:
        raise ValueError(f"{name}: unknown reduction {reduction!r}: choose from {', '.join(known)}")
    return reduction
