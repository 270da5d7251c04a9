"""TENSORS: the backend whose arrays are Tensors. It turns derivatives into things to differentiate.

An op's body is written against `be.xp`, `be.kernels`, operators and methods. Run with TENSORS, the
same body makes its value and its gradients out of ops, and what they do is recorded: derivatives of
any order from one definition. `xp` holds the ops under NumPy's names and signatures. `kernels` holds
the reference kernels themselves where they are plain expressions, and ops in place of those that
write into arrays.
"""

from types import SimpleNamespace

import numpy as np

from tinygrad_zen.kernels import reference

from ..backend import Backend
from . import activation, conv, elementwise, index, pool, shape
from .embedding import embedding_grad
from .linear import einsum, linear, matmul

XP = SimpleNamespace(
    abs=elementwise.abs,
    arange=np.arange,
    arctan=elementwise.arctan,
    broadcast_to=lambda x, to: shape.expand(x, shape=to),
    clip=lambda x, low, high: elementwise.clip(x, min=low, max=high),
    concatenate=shape.concat,
    cos=elementwise.cos,
    cosh=elementwise.cosh,
    einsum=lambda spec, *xs, optimize=False: einsum(spec, *xs),
    erf=elementwise.erf,
    exp=elementwise.exp,
    expm1=elementwise.expm1,
    eye=np.eye,
    flip=shape.flip,
    isfinite=elementwise.isfinite,
    isnan=elementwise.isnan,
    log=elementwise.log,
    log1p=elementwise.log1p,
    log2=elementwise.log2,
    log10=elementwise.log10,
    logical_and=elementwise.logical_and,
    logical_not=elementwise.logical_not,
    logical_or=elementwise.logical_or,
    arccos=elementwise.arccos,
    arcsin=elementwise.arcsin,
    ceil=elementwise.ceil,
    floor=elementwise.floor,
    matmul=matmul,
    maximum=elementwise.maximum,
    minimum=elementwise.minimum,
    ones_like=lambda x: x * 0.0 + 1.0,
    pad=lambda x, widths, constant_values=0.0: shape.pad(x, widths=widths, value=constant_values),
    repeat=lambda x, n, axis=None: shape.repeat(x, repeats=n, axis=axis),
    roll=lambda x, n, axis: shape.roll(x, shift=n, axis=axis),
    round=elementwise.round,
    sign=elementwise.sign,
    sin=elementwise.sin,
    sinh=elementwise.sinh,
    sqrt=elementwise.sqrt,
    stack=shape.stack,
    take=lambda x, rows, axis: x[rows],  # of axis 0, the only one that an op takes
    take_along_axis=lambda x, i, axis: index.gather(x, i, axis=axis),
    tan=elementwise.tan,
    tanh=activation.tanh,
    tril=lambda x, k: shape.tril(x, k=k),
    triu=lambda x, k: shape.triu(x, k=k),
    where=elementwise.where,
    zeros_like=lambda x: x * 0.0,
)


def _batch_norm(x, w, b, eps, running):
    """Without the running statistics: the first run has moved them, this one only differentiates."""
    return reference.batch_norm(x, w, b, eps, None)


def _batch_norm_relu(x, w, b, eps, running):
    return reference.batch_norm_relu(x, w, b, eps, None)


KERNELS = {
    "batch_norm": _batch_norm,
    "batch_norm_relu": _batch_norm_relu,
    "embedding_grad": lambda g, i, to: embedding_grad(g, i, shape=to),
    "erf": elementwise.erf,
    "gather_grad": lambda g, i, to, axis: index.gather_grad(g, i, shape=to, axis=axis),
    "getitem_grad": lambda g, key, to: index.getitem_grad(g, key=key, shape=to),
    "linear": linear,
    "matmul": matmul,
    **conv.KERNELS_ON_TENSORS,
    **pool.KERNELS_ON_TENSORS,
}

TENSORS = Backend("tensors", XP, SimpleNamespace(**vars(reference) | KERNELS))
