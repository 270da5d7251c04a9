"""Penalties on weights, which a loss can carry to keep them small: L1 and L2."""

from .. import ops
from ..nn.module import name_filter


class Penalty:
    """strength times a measure of the weights, added to the loss of each batch in training.

        model.compile("adam", "mse", penalties=[L2(1e-4), L1(1e-5, "encoder.*weight")])

    names: which parameters count, see nn.module.name_filter; those whose name ends in weight by
    default. Frozen parameters do not count.
    Raises ValueError for a negative strength, or, when the training begins, if no parameter counts.
    """

    def __init__(self, strength, names="*weight"):
        if not strength >= 0:
            raise ValueError(f"{type(self).__name__}: strength must be at least 0; got {strength}")
        self.strength, self.names = strength, names

    def __call__(self, net):
        """The penalty of a network: a Tensor with one number."""
        wanted = name_filter(self.names)
        terms = [
            self.measure(p)
            for name, p in net.named_parameters()
            if p.requires_grad and wanted(name)
        ]
        if not terms:
            raise ValueError(
                f"{type(self).__name__}: no parameter that is trained has a name like {self.names!r}"
            )
        return self.strength * sum(terms[1:], terms[0])

    def measure(self, weight):
        """What is penalised of one parameter: a Tensor with one number."""
        raise NotImplementedError(f"{type(self).__name__}.measure")


class L1(Penalty):
    """strength * sum |w|, which drives weights to 0; see Penalty."""

    def measure(self, weight):
        return ops.abs(weight).sum()


class L2(Penalty):
    """strength * sum w^2, which keeps weights small; see Penalty.

    With Adam this is not AdamW's weight decay: it passes through the moments, as in Keras.
    """

    def measure(self, weight):
        return (weight * weight).sum()
