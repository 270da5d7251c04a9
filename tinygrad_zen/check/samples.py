"""THE table of ops: for each op, calls that must be right on every backend and in every derivative.

A new op is one line here. It is then differentiated twice against differences, run in float32 and
from every memory order, compared between backends, and (with its counterpart in tests/samples.py)
held against PyTorch. Inputs are drawn away from kinks, where differences would straddle them.
"""

from dataclasses import dataclass

import numpy as np

from .. import ops
from ..backend import backend as find_backend
from ..tensor import Tensor
from .domains import (
    Draw,
    away,
    channels_last,
    distinct,
    distribution,
    exactly,
    fixed,
    generator,
    given,
    integers,
    mask,
    normal,
    signs,
    uniform,
)


@dataclass(frozen=True)
class Sample:
    """One call of an op: `op(*args, **options)` with what is still to be drawn.

    once: why the op has no second derivative here, or None where it has. float32: how far its results
    in float32 may be from those in float64, relative to the largest.
    """

    op: str
    args: tuple
    options: dict
    once: str | None = None
    float32: float = 2e-5

    def __str__(self):
        words = [_words(a) for a in self.args] + [
            f"{k}={_words(v)}" for k, v in self.options.items()
        ]
        return f"{self.op}({', '.join(words)})"

    __name__ = property(__str__)  # as functions have one, for messages

    def draws(self):
        """The arguments to draw, in order; a list among the arguments is spread."""
        spread = [b for a in self.args for b in (a if isinstance(a, list) else [a])]
        return [d for d in spread if isinstance(d, Draw)]

    def arrays(self, seed=0, dtype="float64"):
        """The drawn arrays; floats in dtype."""
        rng = np.random.default_rng(seed)
        drawn = [np.asarray(d.draw(rng)) for d in self.draws()]
        return [a.astype(dtype) if a.dtype.kind == "f" else a for a in drawn]

    def tensors(self, seed=0, dtype="float64", backend="numpy"):
        """The drawn arrays as Tensors; those that carry a gradient require it."""
        return self.lift(self.arrays(seed, dtype), backend)

    def lift(self, arrays, backend="numpy"):
        """Arrays for the drawn arguments as Tensors, in the memory order they have."""
        where = find_backend(backend)
        return [
            Tensor(where.array(a), where, d.differentiable)
            for a, d in zip(arrays, self.draws(), strict=True)
        ]

    def __call__(self, *drawn, function=None):
        """Call the op (or another function in its place) with these for the drawn arguments."""
        rest = iter(drawn)
        args = [_fill(a, rest) for a in self.args]
        options = {k: v.draw(None) if isinstance(v, Draw) else v for k, v in self.options.items()}
        return (function or getattr(ops, self.op))(*args, **options)


def sample(op, *args, once=None, float32=2e-5, **options):
    return Sample(op, args, options, once, float32)


def _fill(a, rest):
    """An argument with the next of the drawn in the place of each Draw."""
    if isinstance(a, list):
        return [_fill(b, rest) for b in a]
    return next(rest) if isinstance(a, Draw) else a


def _words(a):
    return a.__name__ if isinstance(a, type) else repr(a).replace("slice(None, None, None)", ":")


SAMPLES = [
    # elementwise: broadcasting is the engine's, so a few ops carry all of its cases
    sample("add", normal(3, 4), normal(3, 4)),
    sample("add", normal(3, 4), normal(4)),
    sample("add", normal(3, 1), normal(1, 4)),
    sample("add", normal(), normal(2, 3)),
    sample("add", normal(2, 1, 3), 1.5),
    sample("sub", normal(3, 4), normal(3, 1)),
    sample("sub", normal(1), normal(2, 3)),
    sample("sub", 2, normal(3)),
    sample("mul", normal(3, 4), normal(3, 4)),
    sample("mul", normal(3, 1), normal(1, 4)),
    sample("mul", normal(4), normal(2, 3, 4)),
    sample("mul", normal(1, 1), normal()),
    sample("mul", normal(2, 3), 0.5),
    sample("mul", normal(3, 4), mask(3, 4)),
    sample("div", normal(3, 4), away(3, 4)),
    sample("div", normal(3, 1), away(4)),
    sample("div", 1.0, away(3)),
    sample("div", normal(3), 3.0),
    sample("pow", uniform(0.3, 2, 3, 4), normal(3, 4)),
    sample("pow", uniform(0.3, 2, 3, 1), normal(4)),
    sample("pow", normal(3), 2),
    sample("pow", normal(3), 3.0),
    sample("pow", normal(3), 1),
    sample("pow", normal(3), 0),
    sample("pow", away(3), -1),
    sample("pow", uniform(0.3, 2, 3), 0.5),
    sample("pow", 2.3, normal(3)),
    sample("neg", normal(2, 3)),
    sample("square", normal(2, 3)),
    sample("reciprocal", away(2, 3)),
    sample("abs", away(2, 3)),
    sample("sign", away(2, 3)),
    sample("exp", normal(2, 3)),
    sample("expm1", normal(2, 3)),
    sample("log", uniform(0.2, 2, 2, 3)),
    sample("log1p", uniform(-0.5, 2, 2, 3)),
    sample("log2", uniform(0.2, 2, 2, 3)),
    sample("log10", uniform(0.2, 2, 2, 3)),
    sample("sqrt", uniform(0.2, 2, 2, 3)),
    sample("sin", normal(2, 3)),
    sample("cos", normal(2, 3)),
    sample("tan", uniform(-1, 1, 2, 3)),
    sample("arcsin", uniform(-0.8, 0.8, 2, 3)),
    sample("arccos", uniform(-0.8, 0.8, 2, 3)),
    sample("arctan", normal(2, 3)),
    sample("sinh", normal(2, 3)),
    sample("cosh", normal(2, 3)),
    sample("erf", normal(2, 3)),
    sample("maximum", distinct(3, 4), exactly(np.zeros((3, 1)))),
    sample("maximum", away(3), 0.0),
    sample("minimum", distinct(3, 4), exactly(np.zeros(4))),
    sample("minimum", 0.0, away(3)),
    sample("clip", away(3, 4), min=-0.1, max=0.1),
    sample("clip", away(3, 4), min=0.0),
    sample("clip", away(3, 4), max=0.0),
    sample("where", mask(3, 4), normal(3, 4), normal(3, 4)),
    sample("where", mask(3, 1), normal(4), normal(3, 1)),
    sample("where", mask(4), normal(3, 4), 0.5),
    sample("where", mask(4), 0.5, normal()),
    sample("astype", normal(2, 3), dtype="float64"),
    sample("floor", uniform(0.2, 0.8, 2, 3)),
    sample("ceil", uniform(0.2, 0.8, 2, 3)),
    sample("round", uniform(0.6, 1.4, 2, 3)),
    # reductions
    sample("sum", normal(2, 3, 4)),
    sample("sum", normal(2, 3, 4), axis=1),
    sample("sum", normal(2, 3, 4), axis=-1, keepdims=True),
    sample("sum", normal(2, 3, 4), axis=(0, -1)),
    sample("sum", normal(2, 1, 3), axis=2),
    sample("sum", normal(), keepdims=True),
    sample("sum", normal(2, 3), axis=()),
    sample("mean", normal(2, 3, 4)),
    sample("mean", normal(2, 3, 4), axis=(0, 2), keepdims=True),
    sample("mean", normal(2, 3, 4), axis=-2),
    sample("mean", normal(1, 3, 1), axis=0),
    sample("var", normal(2, 3, 4)),
    sample("var", normal(2, 3, 4), axis=1),
    sample("var", normal(1, 3, 4), axis=(1, 2), keepdims=True),
    sample("var", normal(2, 3), axis=-1, ddof=1),
    sample("std", normal(2, 3, 4)),
    sample("std", normal(2, 1, 4), axis=2),
    sample("std", normal(1, 4), axis=-1, keepdims=True),
    sample("std", normal(3, 2), axis=0, ddof=1),
    sample("max", distinct(3, 4)),
    sample("max", distinct(3, 4), axis=1),
    sample("max", distinct(2, 3, 2), axis=(0, -1), keepdims=True),
    sample("max", distinct(3, 1), axis=1),
    sample("min", distinct(3, 4)),
    sample("min", distinct(3, 4), axis=-1, keepdims=True),
    sample("min", distinct(2, 3, 2), axis=(0, 1)),
    sample("prod", away(2, 3)),
    sample("prod", away(2, 3, 2), axis=1),
    sample("prod", away(2, 3, 2), axis=(0, -1), keepdims=True),
    sample("prod", exactly([[1.5, 0.0, -2.0], [0.5, 1.0, 3.0]]), axis=1),
    sample("prod", exactly([[1.5, 0.0, 0.0, -2.0], [0.5, 1.0, 3.0, 0.0]]), axis=-1),
    sample("prod", exactly([[1.5, 0.0], [0.5, 2.0]])),
    sample("prod", exactly([[[0.0, 1.5]], [[2.0, 0.5]]]), axis=(0, 2), keepdims=True),
    sample("prod", exactly([[1.5, 0.0, -2.0], [0.5, 1.0, 0.0]]), axis=0),
    sample("logsumexp", normal(3, 4)),
    sample("logsumexp", normal(3, 4), axis=1),
    sample("logsumexp", normal(2, 1, 3), axis=2),
    sample("logsumexp", normal(2, 1, 3), axis=(0, -1), keepdims=True),
    sample("cumsum", normal(2, 3)),
    sample("cumsum", normal(2, 3), axis=0),
    sample("cumsum", normal(2, 3, 2), axis=-2),
    # shapes
    sample("reshape", normal(2, 6), shape=(3, 4)),
    sample("reshape", normal(2, 3), shape=-1),
    sample("reshape", normal(2, 3, 4), shape=(4, -1)),
    sample("reshape", normal(1), shape=()),
    sample("flatten", normal(2, 3, 4)),
    sample("flatten", normal(2, 3, 4), 1),
    sample("flatten", normal()),
    sample("transpose", normal(3, 4)),
    sample("transpose", normal(2, 3, 4), axes=(1, 2, 0)),
    sample("transpose", normal(2, 3, 4), axes=(-1, 0, 1)),
    sample("swapaxes", normal(2, 3, 4), 0, -1),
    sample("moveaxis", normal(2, 3, 4), 0, -1),
    sample("moveaxis", normal(2, 3, 4), -1, 1),
    sample("expand", normal(3, 1), shape=(2, 3, 4)),
    sample("expand", normal(3, 1), shape=(-1, 4)),
    sample("expand", normal(), shape=(2, 2)),
    sample("squeeze", normal(1, 3, 1)),
    sample("squeeze", normal(1, 3, 1), axis=-1),
    sample("squeeze", normal(1, 3, 1), axis=(0, 2)),
    sample("expand_dims", normal(2, 3), axis=1),
    sample("expand_dims", normal(2, 3), axis=-1),
    sample("expand_dims", normal(), axis=0),
    sample("concat", [normal(2, 3), normal(1, 3)]),
    sample("concat", [normal(2, 1), normal(2, 3), normal(2, 2)], axis=-1),
    sample("concat", [normal(2)]),
    sample("stack", [normal(2, 3), normal(2, 3)]),
    sample("stack", [normal(2, 3), normal(2, 3), normal(2, 3)], axis=-1),
    sample("split", normal(5, 2), 2),
    sample("split", normal(2, 6), [1, 3, 2], axis=-1),
    sample("pad", normal(2, 3), widths=((1, 0), (0, 2))),
    sample("pad", normal(2, 3), widths=((0, 0), (1, 1)), value=1.5),
    sample("flip", normal(2, 3)),
    sample("flip", normal(2, 3), axis=-1),
    sample("flip", normal(2, 3, 2), axis=(0, 2)),
    sample("roll", normal(2, 5), shift=2, axis=-1),
    sample("roll", normal(2, 5), shift=-3, axis=0),
    sample("roll", normal(3, 5), shift=(1, -2), axis=(0, 1)),
    sample("repeat", normal(2, 3), repeats=2),
    sample("repeat", normal(2, 3), repeats=3, axis=0),
    sample("repeat", normal(2, 3, 2), repeats=2, axis=-2),
    sample("tile", normal(2, 3), (2, 1)),
    sample("tile", normal(3), 2),
    sample("tril", normal(3, 4)),
    sample("tril", normal(2, 3, 3), k=-1),
    sample("triu", normal(3, 4)),
    sample("triu", normal(2, 3, 3), k=1),
    # indices
    sample("getitem", normal(4, 5), 2),
    sample("getitem", normal(4, 5), -1),
    sample("getitem", normal(4, 5), (slice(1, 3), slice(None, None, 2))),
    sample("getitem", normal(4, 5), (slice(None, None, -1), 0)),
    sample("getitem", normal(4, 5), (..., None, slice(2))),
    sample("getitem", normal(4, 5), slice(2, 2)),
    sample("getitem", normal(4, 5), [0, 2, 0, -1]),
    sample("getitem", normal(4, 5), ([[0, 1], [3, 1]], [2, 2])),
    sample("getitem", normal(4, 5), (slice(None), [1, 1, 4])),
    sample("getitem", normal(4, 5), ([0, 2], slice(1, 4), None)),
    sample("getitem", normal(4, 5), ((1, 1), (2, 2))),
    sample("getitem", normal(4, 5), integers(4, 3, low=-4)),
    sample("getitem", normal(4, 5), mask(4, 5)),
    sample("getitem", normal(4, 5), mask(4)),
    sample("getitem", normal(4, 5), (slice(1, 3), [True, False, True, True, False])),
    sample("gather", normal(3, 4), integers(4, 3, 2), axis=1),
    sample("gather", normal(3, 4), integers(3, 5, 4), axis=-2),
    sample(
        "scatter_add", normal(3, 4), given([[0, 0, 3], [1, 1, 1], [2, 0, 2]]), normal(3, 3), axis=1
    ),
    sample("scatter_add", normal(3, 2), integers(3, 4, 2), normal(4, 2), axis=0),
    sample("embedding", integers(5, 2, 3), normal(5, 4)),
    sample("embedding", given([1, 1, 0, 1]), normal(3, 2)),
    sample("embedding", given([1, 1, 0, 1]), normal(3, 2), padding_idx=2),
    # matrix products
    sample("matmul", normal(3, 4), normal(4, 2)),
    sample("matmul", normal(2, 3, 4), normal(2, 4, 2)),
    sample("matmul", normal(2, 3, 4), normal(4, 2)),
    sample("matmul", normal(3, 4), normal(2, 4, 2)),
    sample("matmul", normal(2, 1, 3, 4), normal(3, 4, 2)),
    sample("matmul", normal(4), normal(4)),
    sample("matmul", normal(4), normal(4, 2)),
    sample("matmul", normal(3, 4), normal(4)),
    sample("matmul", normal(4), normal(2, 4, 3)),
    sample("matmul", normal(2, 3, 4), normal(4)),
    *(
        sample("linear_activation", away(3, 4), away(2, 4), away(2), activation=activation)
        for activation in ("relu", "sigmoid", "tanh")
    ),
    sample("linear_activation", normal(2, 3, 4), normal(5, 4), activation="tanh"),
    sample("feed_forward", normal(3, 4), normal(5, 4), normal(5), normal(2, 5), normal(2)),
    *(
        sample(
            "feed_forward", away(2, 1, 3), away(4, 3), away(4), away(3, 4), away(3), activation=a
        )
        for a in ("relu", "sigmoid", "tanh")
    ),
    sample("linear", normal(3, 4), normal(2, 4), normal(2)),
    sample("linear", normal(3, 4), normal(2, 4)),
    sample("linear", normal(2, 3, 4), normal(5, 4), normal(5)),
    sample("linear", normal(4), normal(2, 4), normal(2)),
    sample("einsum", "ij,jk->ik", normal(2, 3), normal(3, 4)),
    sample("einsum", "bij,bjk->bik", normal(2, 3, 2), normal(2, 2, 3)),
    sample("einsum", "ij->ji", normal(2, 3)),
    sample("einsum", "ij->", normal(2, 3)),
    sample("einsum", "ii", normal(3, 3)),
    sample("einsum", "ii->i", normal(3, 3)),
    sample("einsum", "iij->j", normal(3, 3, 2)),
    sample("einsum", "i,j->ij", normal(2), normal(3)),
    sample("einsum", "ij,ij", normal(2, 3), normal(2, 3)),
    sample("einsum", "ijk,l->il", normal(2, 3, 2), normal(3)),
    sample("einsum", "...ij,...jk->...ik", normal(2, 3, 4), normal(2, 4, 2)),
    sample("einsum", "...ij,jk", normal(2, 2, 3), normal(3, 2)),
    sample("einsum", "...,...", normal(2, 3), normal(3)),
    sample("einsum", "...i,...i->...", normal(1, 3), normal(2, 3)),
    sample("einsum", "ij,jk,kl->il", normal(2, 3), normal(3, 2), normal(2, 2)),
    # activations
    sample("relu", away(3, 4)),
    sample("leaky_relu", away(3, 4)),
    sample("leaky_relu", away(3, 4), slope=0.2),
    sample("elu", away(3, 4)),
    sample("elu", away(3, 4), alpha=0.5),
    sample("sigmoid", normal(3, 4)),
    sample("tanh", normal(3, 4)),
    sample("softplus", normal(3, 4)),
    sample("softplus", normal(3, 4), beta=2.0),
    sample("silu", normal(3, 4)),
    sample("gelu", normal(3, 4)),
    sample("gelu", normal(3, 4), approximate="tanh"),
    sample("logsigmoid", normal(3, 4)),
    sample("softmax", normal(3, 4)),
    sample("softmax", normal(2, 3, 2), axis=1),
    sample("softmax", normal(3, 1), axis=-1),
    sample("log_softmax", normal(3, 4)),
    sample("log_softmax", normal(2, 3, 2), axis=0),
    # convolutions
    sample("conv2d", normal(2, 3, 5, 4), normal(4, 3, 3, 2), normal(4)),
    sample("conv2d", normal(1, 2, 4, 4), normal(3, 2, 3, 3), padding=1),
    sample(
        "conv2d", normal(2, 2, 7, 6), normal(2, 2, 3, 2), normal(2), stride=(2, 3), padding=(1, 0)
    ),
    sample("conv2d", normal(1, 2, 6, 7), normal(2, 2, 2, 3), dilation=(2, 1), stride=2),
    sample("conv2d", normal(1, 4, 4, 4), normal(6, 2, 2, 2), normal(6), groups=2),
    sample("conv2d", normal(2, 3, 5, 5), normal(3, 1, 3, 3), groups=3, padding=1, stride=2),
    sample("conv2d", normal(1, 2, 5, 4), normal(2, 2, 2, 3), normal(2), padding="same"),
    sample("conv2d", normal(2, 3, 4, 4), normal(2, 3, 1, 1), stride=3),
    sample("conv2d", channels_last(normal(2, 3, 4, 5)), normal(2, 3, 3, 2), padding=1, stride=2),
    sample(
        "conv2d_relu_max_pool2d", normal(2, 2, 8, 7), normal(3, 2, 3, 3), normal(3), kernel_size=2
    ),
    # whole vectors of filters, and of channels
    sample(
        "conv2d_relu_max_pool2d", normal(1, 2, 6, 6), normal(8, 2, 3, 3), normal(8), kernel_size=2
    ),
    sample(
        "conv2d_relu_max_pool2d", normal(1, 8, 6, 4), normal(8, 8, 3, 3), padding=1, kernel_size=2
    ),
    sample(
        "conv2d_relu_max_pool2d",
        normal(1, 2, 6, 6),
        normal(4, 1, 2, 3),
        normal(4),
        stride=(1, 2),
        padding=1,
        groups=2,
        kernel_size=(3, 2),
        pool_stride=(2, 1),
    ),  # fmt: skip
    sample(
        "conv2d_relu_max_pool2d",
        normal(1, 2, 5, 6),
        normal(2, 2, 2, 3),
        padding="same",
        kernel_size=2,
    ),  # fmt: skip
    sample("conv1d", normal(2, 3, 6), normal(4, 3, 3), normal(4)),
    sample("conv1d", normal(1, 2, 9), normal(2, 1, 3), stride=2, padding=2, dilation=2, groups=2),
    sample("conv1d", normal(1, 2, 5), normal(2, 2, 4), normal(2), padding="same"),
    sample("conv_transpose2d", normal(2, 3, 3, 2), normal(3, 2, 3, 2), normal(2)),
    sample(
        "conv_transpose2d",
        normal(1, 2, 3, 3),
        normal(2, 2, 3, 3),
        stride=2,
        padding=1,
        output_padding=1,
    ),
    sample(
        "conv_transpose2d", normal(1, 4, 3, 2), normal(4, 1, 2, 2), normal(2), groups=2, dilation=2
    ),
    sample(
        "conv_transpose2d",
        normal(1, 2, 3, 3),
        normal(2, 1, 2, 2),
        stride=2,
        dilation=3,
        output_padding=2,
    ),
    sample("conv_transpose1d", normal(2, 3, 4), normal(3, 2, 3), normal(2)),
    sample("conv_transpose1d", normal(1, 2, 4), normal(2, 1, 3), stride=3, padding=1, groups=2),
    # pooling
    sample("max_pool2d", distinct(2, 2, 4, 4), kernel_size=2),
    sample("max_pool2d", distinct(1, 2, 5, 6), kernel_size=(3, 2), stride=(1, 2), padding=1),
    sample("max_pool2d", distinct(1, 1, 6, 7), kernel_size=2, dilation=2, stride=1),
    sample("max_pool2d", distinct(1, 2, 5, 5), kernel_size=2, ceil_mode=True),
    sample(
        "max_pool2d",
        distinct(1, 1, 6, 7),
        kernel_size=(3, 2),
        stride=(2, 3),
        padding=(1, 0),
        dilation=(1, 2),
        ceil_mode=True,
    ),
    sample("max_pool1d", distinct(2, 2, 7), kernel_size=3, stride=2, padding=1),
    sample("max_pool1d", distinct(2, 2, 9), kernel_size=2, stride=2, dilation=4),
    sample("avg_pool2d", normal(2, 2, 4, 4), kernel_size=2),
    sample("avg_pool2d", normal(1, 2, 5, 6), kernel_size=(3, 2), stride=(1, 2), padding=1),
    sample("avg_pool2d", normal(1, 2, 5, 5), kernel_size=3, padding=1, count_include_pad=False),
    sample("avg_pool2d", normal(1, 2, 5, 5), kernel_size=2, ceil_mode=True),
    sample(
        "avg_pool2d",
        normal(1, 1, 6, 5),
        kernel_size=(3, 2),
        stride=2,
        padding=1,
        ceil_mode=True,
        count_include_pad=False,
    ),
    sample("avg_pool1d", normal(2, 2, 7), kernel_size=3, stride=2, padding=1),
    sample("adaptive_avg_pool2d", normal(2, 2, 4, 6), output_size=2),
    sample("adaptive_avg_pool2d", normal(1, 2, 5, 7), output_size=(3, None)),
    sample("adaptive_avg_pool2d", normal(2, 3, 3, 4), output_size=1),
    sample("adaptive_avg_pool1d", normal(2, 2, 7), output_size=3),
    sample("adaptive_max_pool2d", distinct(2, 2, 4, 6), output_size=2),
    sample("adaptive_max_pool2d", distinct(1, 2, 5, 7), output_size=(3, 2)),
    sample("adaptive_max_pool1d", distinct(2, 2, 7), output_size=3),
    # normalisation
    sample("batch_norm", normal(4, 3), normal(3), normal(3)),
    sample("batch_norm", normal(2, 3, 4, 2), normal(3), normal(3)),
    sample("batch_norm", normal(3, 2, 4), normal(2), normal(2), eps=0.1),
    sample("batch_norm_relu", normal(4, 3), normal(3), normal(3)),
    sample("batch_norm_relu", normal(2, 3, 4, 2), normal(3), normal(3), eps=0.1),
    sample(
        "batch_norm_eval", normal(2, 3, 2, 2), normal(3), normal(3), normal(3), uniform(0.5, 2, 3)
    ),
    sample("layer_norm", normal(3, 4), normal(4), normal(4)),
    sample("layer_norm", normal(2, 3, 4), normal(3, 4), normal(3, 4), eps=0.1),
    sample("group_norm", normal(2, 4, 3), normal(4), normal(4), groups=2),
    sample("group_norm", normal(2, 3, 2, 2), normal(3), normal(3), groups=3),
    sample("group_norm", normal(2, 4), normal(4), normal(4), groups=1),
    # attention
    sample("attention", normal(3, 2), normal(4, 2), normal(4, 3)),
    sample("attention", normal(2, 3, 2), normal(2, 3, 2), normal(2, 3, 3), causal=True),
    sample("attention", normal(2, 4), normal(3, 4), normal(3, 2), fixed(normal(2, 3)), scale=0.7),
    sample(
        "attention", normal(2, 3, 2), normal(2, 2, 2), normal(2, 2, 2), mask(2, 3, 1), causal=True
    ),
    sample("attention", normal(3, 2), normal(3, 2), normal(3, 2), given([[True, False, True]])),
    sample("attention", normal(3, 2), normal(2, 2), normal(2, 2), None, fixed(normal(3, 2))),
    # recurrent layers
    *(
        sample(op, normal(3, 2, 2), *states, *weights, **options)
        for op, k, states in (
            ("rnn", 1, [normal(2, 3)]),
            ("lstm", 4, [normal(2, 3), normal(2, 3)]),
            ("gru", 3, [normal(2, 3)]),
        )
        for weights, options in (
            ([normal(k * 3, 2), normal(k * 3, 3), normal(k * 3), normal(k * 3)], {}),
            ([normal(k * 3, 2), normal(k * 3, 3)], {"reverse": True}),
            (
                [normal(k * 3, 2), normal(k * 3, 3), normal(k * 3), normal(k * 3), given([3, 1])],
                {"reverse": True},
            ),
        )
    ),
    sample(
        "rnn",  # one of its four units is off
        exactly([[[1.0], [-1.0]], [[0.1], [2.0]]]),
        *(exactly([[0.5], [0.3]]), exactly([[1.5]]), exactly([[0.4]])),
        relu=True,
    ),
    # random ops, with their generator
    sample("dropout", normal(3, 4), p=0.4, rng=generator(1)),
    sample("dropout", normal(3, 4), p=0, rng=generator(1)),
    sample("dropout_channels", normal(2, 3, 2, 2), p=0.4, rng=generator(1)),
    # losses
    sample("mse_loss", normal(3, 4), normal(3, 4)),
    sample("mse_loss", normal(3, 4), normal(3, 4), reduction="sum"),
    sample("mse_loss", normal(3, 4), normal(3, 4), reduction="none"),
    sample("l1_loss", distinct(3, 4), exactly(np.zeros((3, 4)))),
    sample("l1_loss", distinct(3, 4), exactly(np.zeros((3, 4))), reduction="sum"),
    sample("l1_loss", distinct(3, 4), exactly(np.zeros((3, 4))), reduction="none"),
    sample("huber_loss", exactly([-2.0, -0.5, 0.2, 1.8]), exactly([0.1, 0.2, 0.3, 0.4])),
    sample(
        "huber_loss",
        exactly([-2.0, -0.5, 0.2, 1.8]),
        exactly([0.1, 0.2, 0.3, 0.4]),
        delta=0.4,
        reduction="sum",
    ),
    sample("huber_loss", exactly([-2.0, 0.2]), exactly([0.1, 0.3]), reduction="none"),
    sample("binary_cross_entropy", uniform(0.1, 0.9, 3, 4), uniform(0.1, 0.9, 3, 4)),
    sample(
        "binary_cross_entropy", uniform(0.1, 0.9, 3, 4), uniform(0.1, 0.9, 3, 4), reduction="sum"
    ),
    sample("binary_cross_entropy", uniform(0.1, 0.9, 3), given([0.0, 1.0, 1.0]), reduction="none"),
    sample("binary_cross_entropy_with_logits", normal(3, 4), uniform(0.1, 0.9, 3, 4)),
    sample(
        "binary_cross_entropy_with_logits", normal(3, 4), uniform(0.1, 0.9, 3, 4), reduction="none"
    ),
    sample(
        "binary_cross_entropy_with_logits",
        normal(3, 4),
        uniform(0.1, 0.9, 3, 4),
        pos_weight=3.0,
        reduction="sum",
    ),
    sample(
        "binary_cross_entropy_with_logits", normal(3, 4), uniform(0.1, 0.9, 3, 4), pos_weight=0.5
    ),
    sample("cross_entropy", normal(3, 4), integers(4, 3)),
    sample("cross_entropy", normal(3, 4), integers(4, 3), reduction="sum"),
    sample("cross_entropy", normal(3, 4), integers(4, 3), reduction="none"),
    sample("cross_entropy", normal(4), given(2)),
    sample("cross_entropy", normal(2, 4, 3, 2), integers(4, 2, 3, 2)),
    sample("cross_entropy", normal(2, 4, 3), integers(4, 2, 3), reduction="none"),
    sample("cross_entropy", normal(3, 4), integers(4, 3), label_smoothing=0.1),
    sample("cross_entropy", normal(4, 3), given([0, 2, 1, 2]), fixed(uniform(0.5, 2, 3))),
    sample("cross_entropy", normal(4, 3), given([0, 2, -100, 2])),
    sample("cross_entropy", normal(4, 3), given([0, 2, 1, 2]), ignore_index=2, reduction="sum"),
    sample("cross_entropy", normal(4, 3), given([0, 2, -1, 2]), ignore_index=-1, reduction="none"),
    sample(
        "cross_entropy",
        normal(4, 3),
        given([0, 2, -100, 2]),
        fixed(uniform(0.5, 2, 3)),
        label_smoothing=0.2,
    ),
    sample("cross_entropy", normal(3, 4), distribution(3, 4)),
    sample("cross_entropy", normal(2, 4, 3), distribution(2, 4, 3), reduction="none"),
    sample("cross_entropy", normal(3, 4), distribution(3, 4), label_smoothing=0.1, reduction="sum"),
    sample("cross_entropy", normal(3, 4), distribution(3, 4), fixed(uniform(0.5, 2, 4))),
    sample("nll_loss", normal(3, 4), integers(4, 3)),
    sample("nll_loss", normal(3, 4), integers(4, 3), reduction="sum"),
    sample("nll_loss", normal(2, 4, 3), integers(4, 2, 3), reduction="none"),
    sample("nll_loss", normal(4, 3), given([0, 2, 1, 2]), fixed(uniform(0.5, 2, 3))),
    sample("nll_loss", normal(4, 3), given([0, 2, -100, 2])),
    sample(
        "nll_loss", normal(4, 3), given([0, 2, 1, 2]), fixed(uniform(0.5, 2, 3)), ignore_index=2
    ),
    sample("kl_div", normal(3, 4), distribution(3, 4)),
    sample("kl_div", normal(3, 4), distribution(3, 4), reduction="batchmean"),
    sample("kl_div", normal(3, 4), normal(3, 4), log_target=True, reduction="sum"),
    sample("kl_div", normal(3, 4), given([[0.0, 0.5, 0.5, 0.0]] * 3), reduction="none"),
    sample("hinge_loss", away(3, 4), signs(3, 4)),
    sample("hinge_loss", away(3, 4), signs(3, 4), margin=0.1, reduction="sum"),
    sample("hinge_loss", away(3, 4), signs(3, 4), reduction="none"),
    sample("hinge_loss", exactly([-2.0, -0.5, 0.2, 1.8]), exactly([-1.5, -0.5, 0.8, 1.2])),
    sample("multi_margin_loss", normal(3, 4), integers(4, 3)),
    sample("multi_margin_loss", distinct(3, 4), integers(4, 3), margin=0.4, reduction="sum"),
    sample("multi_margin_loss", normal(3, 4), integers(4, 3), reduction="none"),
]
