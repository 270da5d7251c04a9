"""Losses by name, and targets brought into the shape and dtype that a loss needs."""

import numpy as np

from .. import ops
from ..tensor import Tensor
from .metrics import as_labels

# name -> (function, what the target holds, whether the network gives logits)
LOSSES = {
    "cross_entropy": (ops.cross_entropy, "classes", True),
    "nll": (ops.nll_loss, "classes", True),
    "multi_margin": (ops.multi_margin_loss, "classes", True),
    "binary_cross_entropy": (ops.binary_cross_entropy, "yes or no", False),
    "binary_cross_entropy_with_logits": (ops.binary_cross_entropy_with_logits, "yes or no", True),
    "hinge": (ops.hinge_loss, "yes or no", True),
    "mse": (ops.mse_loss, "values", False),
    "mae": (ops.l1_loss, "values", False),
    "l1": (ops.l1_loss, "values", False),
    "huber": (ops.huber_loss, "values", False),
    "kl_div": (ops.kl_div, "values", False),
}

# the classes of tinygrad_zen.nn that say the same
CLASSES = {
    "CrossEntropyLoss": "cross_entropy",
    "NLLLoss": "nll",
    "MultiMarginLoss": "multi_margin",
    "BCELoss": "binary_cross_entropy",
    "BCEWithLogitsLoss": "binary_cross_entropy_with_logits",
    "MSELoss": "mse",
    "L1Loss": "mae",
    "HuberLoss": "huber",
    "HingeLoss": "hinge",
    "KLDivLoss": "kl_div",
}


class Loss:
    """A loss that takes targets as people have them.

    given: a name of LOSSES ("_loss" may follow it), a loss of tinygrad_zen.nn, or a function
    (output, target) -> Tensor with one number. Raises ValueError for an unknown name.

    The target becomes a Tensor beside the output. Numbers take the output's dtype, except the
    integers of a loss over classes or of a function of the user's own. A target (N,) is reshaped to
    (N, 1) for an output (N, 1), and labels (N, 1) to (N,) for an output (N, C).
    """

    def __init__(self, given):
        self.given = given
        if isinstance(given, str):
            name = given.removesuffix("_loss")
            if name not in LOSSES:
                raise ValueError(
                    f"compile: unknown loss {given!r}: choose from {', '.join(LOSSES)}"
                )
        elif callable(given):
            own = getattr(given, "__name__", type(given).__name__)
            name = CLASSES.get(own, own.removesuffix("_loss"))
        else:
            raise TypeError(
                "compile: loss must be a name or a function (output, target) -> Tensor; got "
                f"{type(given).__name__}"
            )
        self.function, self.holds, self.from_logits = LOSSES.get(name, (given, "anything", False))
        if not isinstance(given, str):
            self.function = given

    def __call__(self, output, target, class_weight=None, sample_weight=None):
        """The mean loss of a batch: a Tensor with one number.

        class_weight: {class: weight}; the loss of each sample counts that often, 1 if not named.
        sample_weight: an array (N,), the same sample by sample.
        """
        target = self.prepare(output, target)
        if class_weight is None and sample_weight is None:
            loss = self.function(output, target)
            if getattr(loss, "size", 0) != 1:
                raise ValueError(
                    "fit: the loss must be a Tensor with one number; got "
                    + (f"shape {loss.shape}" if hasattr(loss, "shape") else type(loss).__name__)
                )
            return loss
        each = self.function(output, target, reduction="none")
        if class_weight is not None:
            each = each * self._weights(each, target.numpy(), class_weight)
        if sample_weight is not None:
            weight = each.backend.array(sample_weight, each.dtype)
            each = each * weight.reshape(len(target), *(1,) * (each.ndim - 1))
        return each.mean()

    def prepare(self, output, target):
        """The target (a NumPy array) as a Tensor beside the output; see the class."""
        of_one = output.ndim > 1 and output.shape[1:] == (1,)
        if of_one and target.shape == output.shape[:1]:
            target = target.reshape(output.shape)
        elif self.holds == "classes" and target.shape == (len(target), 1) and not of_one:
            target = target.reshape(-1)
        if target.dtype.kind == "f" or self.holds in ("values", "yes or no"):
            dtype = output.dtype
        else:
            dtype = np.int64
        return Tensor(output.backend.array(target, dtype), output.backend)

    def check_weights(self, class_weight, sample_weight):
        """Raise ValueError unless this loss can weigh classes, or samples."""
        if sample_weight is not None and not isinstance(self.given, str):
            raise ValueError(
                f"fit: sample_weight needs one of the losses {', '.join(LOSSES)}, by name"
            )
        if class_weight is None:
            return
        if self.holds not in ("classes", "yes or no") or not isinstance(self.given, str):
            names = [name for name, (_, holds, _) in LOSSES.items() if holds != "values"]
            raise ValueError(
                f"fit: class_weight needs one of the losses {', '.join(names)}, by name"
            )

    def _weights(self, each, target, class_weight):
        if self.holds == "classes" and target.ndim > each.ndim:  # probabilities
            target = target.argmax(axis=1)
        labels = as_labels("class_weight", target)
        table = np.ones(max(int(labels.max(initial=0)), *class_weight) + 1)
        for label, weight in class_weight.items():
            table[label] = weight
        return each.backend.array(table[labels], each.dtype)
