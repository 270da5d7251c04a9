"""Op cards: what an op computes and costs, how its gradient goes back, and the kernels that do it."""

from .card import Card, explain

__all__ = ["Card", "explain"]
