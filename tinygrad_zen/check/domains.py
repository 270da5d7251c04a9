"""Domains: what the arguments of a function are drawn from, stated in words, away from its kinks.

Differences that straddle a kink of |x|, max or sign prove nothing, and a logarithm needs its domain:
`gradcheck(F.relu, away(3, 4))` draws from a set where the function is smooth and says so.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Draw:
    """An argument still to be drawn: what from, and whether it carries a gradient."""

    words: str
    draw: Any  # from a numpy Generator to the argument
    differentiable: bool = False

    def __repr__(self):
        return self.words


def normal(*shape):
    """Numbers around 0, all signs."""
    return Draw(f"{_by(shape)}", lambda rng: rng.standard_normal(shape), True)


def uniform(low, high, *shape):
    """Numbers of a range: the domain of logarithms, roots, probabilities."""
    return Draw(f"{_by(shape)} in {low}..{high}", lambda rng: rng.uniform(low, high, shape), True)


def away(*shape, gap=0.2):
    """Numbers of both signs, not closer than gap to 0, where |x| and its like have their kink."""

    def draw(rng):
        return rng.choice([-1.0, 1.0], shape) * rng.uniform(gap, 1.5, shape)

    return Draw(f"{_by(shape)} away from 0", draw, True)


def distinct(*shape):
    """Numbers no two of which are close: extremes stay where they are when one moves a little."""

    def draw(rng):
        n = int(np.prod(shape))
        return (rng.permutation(n).reshape(shape) - (n - 1) / 2) * (3 / max(n, 12)) + 0.03

    return Draw(f"{_by(shape)} distinct", draw, True)


def exactly(values):
    """These numbers, with a gradient."""
    array = np.array(values, dtype=np.float64)
    return Draw(_listed(array), lambda rng: array.copy(), True)


def integers(high, *shape, low=0):
    """Whole numbers below high: labels, indices."""
    return Draw(f"{_by(shape)} of {low}..{high - 1}", lambda rng: rng.integers(low, high, shape))


def given(values):
    """These numbers, without a gradient: labels, indices."""
    array = np.array(values)
    return Draw(_listed(array), lambda rng: array.copy())


def mask(*shape):
    """True and False, at least one of each."""

    def draw(rng):
        out = rng.random(shape) < 0.5
        out.flat[0], out.flat[-1] = True, False
        return out

    return Draw(f"{_by(shape)} mask", draw)


def signs(*shape):
    """-1 and 1: the targets of a hinge loss; they carry no gradient here."""
    return fixed(Draw(f"{_by(shape)} of -1, 1", lambda rng: rng.choice([-1.0, 1.0], shape)))


def distribution(*shape):
    """Probabilities that add up to 1 along axis 1."""

    def draw(rng):
        p = rng.uniform(0.2, 1.0, shape)
        return p / p.sum(axis=1, keepdims=True)

    return Draw(f"{_by(shape)} distribution", draw, True)


def fixed(drawn):
    """The same numbers without a gradient: class weights, targets."""
    return Draw(f"{drawn} fixed", drawn.draw)


def channels_last(drawn):
    """The same images with the channels of a pixel side by side in memory."""

    def draw(rng):
        return drawn.draw(rng).transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)

    return Draw(f"{drawn} channels last", draw, drawn.differentiable)


def generator(seed):
    """A fresh generator for each call, so that a random op is a function."""
    return Draw(f"generator({seed})", lambda rng: np.random.default_rng(seed))


def _listed(array):
    return str(array.tolist()) if array.size <= 8 else f"{_by(array.shape)} given"


def _by(shape):
    return "x".join(map(str, shape)) or "scalar"
