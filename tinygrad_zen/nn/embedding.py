"""Embedding: a learned table of rows."""

from . import functional as F
from . import init
from .linear import check_sizes
from .module import Module, new_parameter


class Embedding(Module):
    """Rows of a learned table by number: integers (...) -> (..., embedding_dim).

    weight (num_embeddings, embedding_dim) starts normal with mean 0 and standard deviation 1. Row
    padding_idx starts at 0 and receives no gradient; a negative one counts from the end.

        layer = nn.Embedding(1000, 32, padding_idx=0)
    """

    def __init__(self, num_embeddings, embedding_dim, padding_idx=None):
        check_sizes("Embedding", num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise ValueError(
                    f"Embedding: padding_idx must name one of {num_embeddings} rows; got {padding_idx}"
                )
            padding_idx %= num_embeddings
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = padding_idx
        self.weight = new_parameter(num_embeddings, embedding_dim)
        self.reset_parameters()

    def reset_parameters(self):
        """Draw a new table."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            self.weight.data[self.padding_idx] = 0

    def forward(self, x):
        return F.embedding(x, self.weight, self.padding_idx)

    def extra_repr(self):
        s = f"{self.num_embeddings}, {self.embedding_dim}"
        return s if self.padding_idx is None else s + f", padding_idx={self.padding_idx}"
