"""What every op says when it is used wrongly; convolution and pooling have theirs beside their tests."""

import ast
from pathlib import Path

import numpy as np
import pytest

import tinygrad_zen as tz
from tinygrad_zen import ops

OPS = Path(ops.__file__).parent
# tests/test_conv.py, test_pool.py, test_recurrent.py, test_attention.py
ELSEWHERE = {"conv.py", "pool.py", "_windows.py", "recurrent.py", "attention.py"}


def x(*shape, dtype="float32"):
    return tz.tensor(np.ones(shape, dtype), dtype=dtype)


def labels(*values):
    return np.array(values)


# (call, kind of error, what it says: word for word, dots stand for what does not matter)
ERRORS = [
    # elementwise
    (lambda: x(3) + x(4), ValueError, "add: shapes (3,) and (4,) do not broadcast together"),
    (lambda: x(2, 3) * np.ones(2), ValueError, "mul: shapes (2, 3) and (2,) do not broadcast"),
    (
        lambda: ops.where(np.ones(2, bool), x(3), x(4)),
        ValueError,
        "where: shapes (2,) and (3,) and (4,) do not broadcast together",
    ),
    (
        lambda: ops.clip(x(3)),
        ValueError,
        "clip: at least one of min and max is needed; got None and None",
    ),
    # reductions
    (
        lambda: x(2, 3).sum(axis=2),
        ValueError,
        "sum: axis 2 is out of range for shape (2, 3)",
    ),
    (
        lambda: x(2, 3).mean(axis=-3),
        ValueError,
        "mean: axis -3 is out of range for shape (2, 3)",
    ),
    (
        lambda: x(2, 3).sum(axis=[0, 1]),
        TypeError,
        "sum: axis must be an int, a tuple of ints or None; got [0, 1]",
    ),
    (
        lambda: x(2, 3).prod(axis=1.5),
        TypeError,
        "prod: axis must be an int, a tuple of ints or None; got 1.5",
    ),
    (
        lambda: x(2, 3).max(axis=(0, -2)),
        ValueError,
        "max: axis (0, -2) names one axis twice for shape (2, 3)",
    ),
    (
        lambda: x(2, 0).max(axis=1),
        ValueError,
        "max: nothing to fold along axis 1 of shape (2, 0)",
    ),
    (lambda: x(0).mean(), ValueError, "mean: nothing to fold along axis None of shape (0,)"),
    (lambda: x(0).argmin(), ValueError, "argmin: nothing to fold along axis None of shape (0,)"),
    (
        lambda: ops.logsumexp(x(0, 2), axis=0),
        ValueError,
        "logsumexp: nothing to fold along axis 0 of shape (0, 2)",
    ),
    (
        lambda: x(1, 3).var(axis=0, ddof=1),
        ValueError,
        "var: 1 elements to fold, more than ddof=1 are needed",
    ),
    (
        lambda: x(2, 3).std(axis=0, ddof=2),
        ValueError,
        "std: 2 elements to fold, more than ddof=2 are needed",
    ),
    (lambda: x(3).cumsum(axis=1), ValueError, "cumsum: axis 1 is out of range for shape (3,)"),
    # shapes
    (
        lambda: x(2, 3).reshape(-1, -1),
        ValueError,
        "reshape: one entry at most may be -1 and none below; got (-1, -1)",
    ),
    (
        lambda: x(2, 3).reshape(4, 2),
        ValueError,
        "reshape: 6 elements of shape (2, 3) do not fill (4, 2)",
    ),
    (
        lambda: x(2, 3).reshape(-1, 4),
        ValueError,
        "reshape: 6 elements of shape (2, 3) do not fill (-1, 4)",
    ),
    (
        lambda: x(2, 3).flatten(2),
        ValueError,
        "flatten: start_axis 2 is out of range for shape (2, 3)",
    ),
    (
        lambda: x(2, 3).transpose(0, 0),
        ValueError,
        "transpose: axes (0, 0) do not name each axis of shape (2, 3) once",
    ),
    (
        lambda: x(2, 3).transpose(0, 1, 2),
        ValueError,
        "transpose: axes (0, 1, 2) do not name each axis of shape (2, 3) once",
    ),
    (
        lambda: x(2, 3).swapaxes(0, 2),
        ValueError,
        "swapaxes: axis 2 is out of range for shape (2, 3)",
    ),
    (
        lambda: ops.moveaxis(x(2, 3), -3, 0),
        ValueError,
        "moveaxis: axis -3 is out of range for shape (2, 3)",
    ),
    (
        lambda: x(2, 3).expand(2, 4),
        ValueError,
        "expand: shape (2, 3) does not stretch to (2, 4)",
    ),
    (lambda: x(2, 3).expand(3), ValueError, "expand: shape (2, 3) does not stretch to (3,)"),
    (
        lambda: x(3).expand(-1, 3),
        ValueError,
        "expand: shape (3,) does not stretch to (-1, 3)",
    ),
    (
        lambda: x(2, 1).squeeze(0),
        ValueError,
        "squeeze: axis 0 of shape (2, 1) is not of size 1",
    ),
    (
        lambda: x(2, 3).unsqueeze(3),
        ValueError,
        "expand_dims: axis 3 is out of range for shape (2, 3)",
    ),
    (lambda: ops.concat([]), ValueError, "concat: at least one Tensor is needed; got none"),
    (
        lambda: ops.concat([x(2)], axis=1),
        ValueError,
        "concat: axis 1 is out of range for shape (2,)",
    ),
    (
        lambda: ops.concat([x(2, 3), x(2, 4)]),
        ValueError,
        "concat: all axes but axis 0 must agree; got [(2, 3), (2, 4)]",
    ),
    (
        lambda: ops.stack([x(2), x(3)]),
        ValueError,
        "stack: Tensors of one shape are needed; got [(2,), (3,)]",
    ),
    (
        lambda: ops.stack([]),
        ValueError,
        "stack: Tensors of one shape are needed; got []",
    ),
    (
        lambda: x(4).split(2, axis=1),
        ValueError,
        "split: axis 1 is out of range for shape (4,)",
    ),
    (
        lambda: x(4).split(0),
        ValueError,
        "split: the size of a piece must be at least 1; got 0",
    ),
    (
        lambda: x(4).split([1, 2]),
        ValueError,
        "split: sizes [1, 2] do not add up to 4 along axis 0",
    ),
    (
        lambda: ops.pad(x(2, 3), widths=((1, 1),)),
        ValueError,
        "pad: one pair of sizes >= 0 for each axis of shape (2, 3) is needed; got ((1, 1),)",
    ),
    (
        lambda: ops.pad(x(2), widths=((-1, 1),)),
        ValueError,
        "pad: one pair of sizes >= 0 for each axis of shape (2,) is needed; got ((-1, 1),)",
    ),
    (lambda: x(2, 3).flip(2), ValueError, "flip: axis 2 is out of range for shape (2, 3)"),
    (
        lambda: ops.roll(x(2), shift=1, axis=1),
        ValueError,
        "roll: axis 1 is out of range for shape (2,)",
    ),
    (
        lambda: x(2).repeat(1.5),
        ValueError,
        "repeat: repeats must be a whole number >= 0; got 1.5",
    ),
    (
        lambda: x(2).repeat(2, axis=1),
        ValueError,
        "repeat: axis 1 is out of range for shape (2,)",
    ),
    (
        lambda: ops.tile(x(2, 3), 2),
        ValueError,
        "tile: one number >= 1 for each axis of shape (2, 3); got (2,)",
    ),
    # indices
    (
        lambda: x(3)[np.ones(3)],
        TypeError,
        "getitem: an index array must hold integers or bools; got float64",
    ),
    (
        lambda: x(3)[np.ones((3, 1), bool)],
        ValueError,
        "getitem: a mask of shape (3, 1) does not fit shape (3,)",
    ),
    (lambda: x(2, 3)[2], IndexError, "getitem: shape (2, 3): index 2 is out of bounds"),
    (lambda: x(2, 3)[0, 0, 0], IndexError, "getitem: shape (2, 3): too many indices"),
    (
        lambda: x(2, 3)[np.ones((2, 2), bool)],
        IndexError,
        "getitem: shape (2, 3): boolean index did not match",
    ),
    (lambda: x(3)["a"], IndexError, "getitem: shape (3,): only integers, slices"),
    (
        lambda: ops.gather(x(2, 3), np.ones((2, 3)), axis=1),
        TypeError,
        "gather: index must hold integers; got float64",
    ),
    (
        lambda: ops.gather(x(2, 3), labels([0]), axis=2),
        ValueError,
        "gather: axis 2 is out of range for shape (2, 3)",
    ),
    (
        lambda: ops.gather(x(2, 3), labels([0, 1, 2]), axis=1),
        ValueError,
        "gather: index and x must agree on every axis but 1; got (1, 3) and (2, 3)",
    ),
    (
        lambda: ops.gather(x(2, 3), labels(0, 1), axis=1),
        ValueError,
        "gather: index and x must agree on every axis but 1; got (2,) and (2, 3)",
    ),
    (
        lambda: ops.gather(x(2, 3), labels([0], [3]), axis=1),
        ValueError,
        "gather: index must lie in 0..2; got 0..3",
    ),
    (
        lambda: ops.gather(x(2, 3), labels([0], [-1]), axis=1),
        ValueError,
        "gather: index must lie in 0..2; got -1..0",
    ),
    (
        lambda: ops.scatter_add(x(2, 3), labels([0], [1]), x(2, 2), axis=1),
        ValueError,
        "scatter_add: index and source must have one shape; got (2, 1) and (2, 2)",
    ),
    (
        lambda: ops.scatter_add(x(2, 3), labels([0], [3]), x(2, 1), axis=1),
        ValueError,
        "scatter_add: index must lie in 0..2; got 0..3",
    ),
    (
        lambda: ops.embedding(np.ones(2), x(3, 4)),
        TypeError,
        "embedding: indices must be integers; got float64",
    ),
    (
        lambda: ops.embedding(labels(0), x(3)),
        ValueError,
        "embedding: the table must be (V, D); got (3,)",
    ),
    (
        lambda: ops.embedding(labels(0, 3), x(3, 4)),
        ValueError,
        "embedding: indices must lie in 0..2; got 0..3",
    ),
    # matrix products
    (
        lambda: x(2, 3) @ x(2, 3),
        ValueError,
        "matmul: the last axis of x (..., M, K) and the last but one of y (..., K, N) must agree; "
        "got (2, 3) and (2, 3)",
    ),
    (lambda: x(3) @ x(4), ValueError, "must agree; got (3,) and (4,)"),
    (lambda: x(3, 3) @ 2.0, ValueError, "must agree; got (3, 3) and ()"),
    (
        lambda: x(2, 3, 4) @ x(5, 4, 2),
        ValueError,
        "matmul: shapes (2, 3, 4) and (5, 4, 2) do not broadcast together",
    ),
    (
        lambda: ops.linear(x(2, 3), x(5, 4)),
        ValueError,
        "linear: x (..., I) and w (O, I) must share I; got (2, 3) and (5, 4)",
    ),
    (
        lambda: ops.linear(x(2, 3), x(5, 3), x(3)),
        ValueError,
        "linear: w (O, I) and b (O,) must share O; got (5, 3) and (3,)",
    ),
    (
        lambda: ops.linear_activation(x(2, 3), x(5, 3), activation="step"),
        ValueError,
        "linear_activation: activation must be relu, sigmoid or tanh; got 'step'",
    ),
    (
        lambda: ops.feed_forward(x(2, 3), x(5, 3), x(5), x(4, 6), x(4)),
        ValueError,
        "feed_forward: w1 (H, I) and w2 (O, H) must share H, w2 and b2 (O,) share O; got (5, 3), "
        "(4, 6) and (4,)",
    ),
    (
        lambda: ops.feed_forward(x(2, 3), x(5, 3), x(5), x(4, 5), x(4), activation="silu"),
        ValueError,
        "feed_forward: activation must be relu, sigmoid, tanh or gelu; got 'silu'",
    ),
    (
        lambda: ops.einsum("ij,jk", x(2, 3)),
        ValueError,
        "einsum: 'ij,jk' names 2 operands; got 1",
    ),
    (
        lambda: ops.einsum("ij->j", x(2)),
        ValueError,
        "einsum: 'ij' in 'ij->j' does not fit shape (2,)",
    ),
    (
        lambda: ops.einsum("i2->i", x(2, 2)),
        ValueError,
        "einsum: 'i2' in 'i2->i' does not fit shape (2, 2)",
    ),
    (
        lambda: ops.einsum("ij->ik", x(2, 3)),
        ValueError,
        "einsum: the result of 'ij->ik' names 'k' twice or from nowhere",
    ),
    (
        lambda: ops.einsum("ij->ii", x(2, 3)),
        ValueError,
        "einsum: the result of 'ij->ii' names 'i' twice or from nowhere",
    ),
    (
        lambda: ops.einsum("ij,jk->ik", x(2, 3), x(4, 5)),
        ValueError,
        "einsum: label 'j' of 'ij,jk->ik' has sizes 3 and 4; shapes [(2, 3), (4, 5)]",
    ),
    # activations
    (lambda: ops.softplus(x(2), beta=0), ValueError, "softplus: beta must be positive; got 0"),
    (
        lambda: ops.gelu(x(2), approximate="erf"),
        ValueError,
        "gelu: approximate must be 'none' or 'tanh'; got 'erf'",
    ),
    (
        lambda: ops.softmax(x(2, 3), axis=2),
        ValueError,
        "softmax: axis 2 is out of range for shape (2, 3)",
    ),
    (
        lambda: ops.log_softmax(x(2, 3), axis=2),
        ValueError,
        "log_softmax: axis 2 is out of range for shape (2, 3)",
    ),
    # normalisation
    (
        lambda: ops.batch_norm(x(3), x(3), x(3)),
        ValueError,
        "batch_norm: x must be (N, C, ...); got (3,)",
    ),
    (
        lambda: ops.batch_norm(x(2, 3), x(3), x(2)),
        ValueError,
        "batch_norm: x (N, C, ...), weight (C,) and bias (C,) must share C; got (2, 3), (3,) and (2,)",
    ),
    (
        lambda: ops.batch_norm(x(1, 3), x(3), x(3)),
        ValueError,
        "batch_norm: training needs more than one value a channel; got shape (1, 3)",
    ),
    (
        lambda: ops.batch_norm_relu(x(1, 3), x(3), x(3)),
        ValueError,
        "batch_norm_relu: training needs more than one value a channel; got shape (1, 3)",
    ),
    (
        lambda: ops.batch_norm_eval(x(2, 3), x(2), x(3), x(3), x(3)),
        ValueError,
        "batch_norm: x (N, C, ...), weight (C,) and bias (C,) must share C",
    ),
    (
        lambda: ops.layer_norm(x(2, 3), x(2), x(2)),
        ValueError,
        "layer_norm: the last axes of x must be those of weight and bias; got (2, 3), (2,) and (2,)",
    ),
    (
        lambda: ops.group_norm(x(2, 3), x(3), x(3), groups=2),
        ValueError,
        "group_norm: 2 groups must divide 3 channels",
    ),
    # random
    (lambda: ops.dropout(x(3), p=1.0), ValueError, "dropout: p must lie in [0, 1); got 1.0"),
    (
        lambda: ops.dropout_channels(x(3, 2), p=-0.1),
        ValueError,
        "dropout_channels: p must lie in [0, 1); got -0.1",
    ),
    (
        lambda: ops.dropout_channels(x(3)),
        ValueError,
        "dropout_channels: x must be (N, C, ...); got (3,)",
    ),
    # losses
    (
        lambda: ops.mse_loss(x(3), x(3, 1)),
        ValueError,
        "mse_loss: prediction and target must have one shape; got (3,) and (3, 1)",
    ),
    (lambda: ops.mse_loss(x(3), 0.0), ValueError, "must have one shape; got (3,) and ()"),
    (
        lambda: ops.mse_loss(x(3), x(3), reduction="avg"),
        ValueError,
        "mse_loss: reduction must be 'mean', 'sum' or 'none'; got 'avg'",
    ),
    (
        lambda: ops.l1_loss(x(0, 2), x(0, 2)),
        ValueError,
        "l1_loss: the mean over an empty batch is undefined; got shape (0, 2)",
    ),
    (
        lambda: ops.mse_loss(x(2, 2), np.array([[1, np.nan], [1, np.nan]])),
        ValueError,
        "mse_loss: the target holds 2 NaN, the first at (0, 1)",
    ),
    (
        lambda: ops.huber_loss(x(3), x(3), delta=0),
        ValueError,
        "huber_loss: delta must be positive; got 0",
    ),
    (
        lambda: ops.binary_cross_entropy(x(3) * 1.5, x(3)),
        ValueError,
        "binary_cross_entropy: probabilities must lie in 0..1; got 1.5..1.5 "
        "(for raw scores use binary_cross_entropy_with_logits)",
    ),
    (
        lambda: ops.cross_entropy(x(2, 3), labels(0, 1), label_smoothing=1),
        ValueError,
        "cross_entropy: label_smoothing must lie in [0, 1); got 1",
    ),
    (
        lambda: ops.cross_entropy(x(2, 3), labels(0, 1), np.ones(2)),
        ValueError,
        "cross_entropy: weight must be (C,) for x (2, 3); got (2,)",
    ),
    (
        lambda: ops.cross_entropy(x(), labels(0)),
        ValueError,
        "cross_entropy: scores need an axis of classes; got shape ()",
    ),
    (
        lambda: ops.cross_entropy(x(2, 3), labels(0, 1, 2)),
        ValueError,
        "cross_entropy: target must be classes (2,) or probabilities (2, 3) for x (2, 3); got (3,)",
    ),
    (
        lambda: ops.cross_entropy(x(2, 3), np.ones(2)),
        TypeError,
        "cross_entropy: labels must be integers; got float64 of shape (2,)",
    ),
    (
        lambda: ops.cross_entropy(x(2, 3), labels(0, 3)),
        ValueError,
        "cross_entropy: labels must lie in 0..2; got 3",
    ),
    (
        lambda: ops.cross_entropy(x(2, 3), labels(-1, 0)),
        ValueError,
        "cross_entropy: labels must lie in 0..2; got -1",
    ),
    (
        lambda: ops.cross_entropy(x(2, 3), labels(-100, -100)),
        ValueError,
        "cross_entropy: no label counts (ignored, or of weight 0); the mean is undefined",
    ),
    (
        lambda: ops.nll_loss(x(2, 3), np.ones((2, 3))),
        ValueError,
        "nll_loss: labels must be integer classes (2,); got (2, 3)",
    ),
    (
        lambda: ops.nll_loss(x(2, 3), labels(0, 1), [1.0, 2.0]),
        ValueError,
        "nll_loss: weight must be (C,) for logp (2, 3); got (2,)",
    ),
    (
        lambda: ops.nll_loss(x(2, 3), labels(0, 5)),
        ValueError,
        "nll_loss: labels must lie in 0..2; got 5",
    ),
    (
        lambda: ops.kl_div(x(2, 3), x(3)),
        ValueError,
        "kl_div: prediction and target must have one shape; got (2, 3) and (3,)",
    ),
    (
        lambda: ops.multi_margin_loss(x(2, 3), labels(0)),
        ValueError,
        "multi_margin_loss: x (N, C) and integer labels (N,) are needed; got (2, 3) and int64 (1,)",
    ),
    (
        lambda: ops.multi_margin_loss(x(2, 3), labels(0, 3)),
        ValueError,
        "multi_margin_loss: labels must lie in 0..2; got 3",
    ),
]


@pytest.mark.parametrize(("call", "kind", "words"), ERRORS, ids=[e[2][:60] for e in ERRORS])
def test_an_error_speaks_in_shapes(call, kind, words):
    with pytest.raises(kind) as caught:
        call()
    assert caught.type is kind and words in str(caught.value)


def test_every_error_of_every_op_is_tested():
    """Each `raise` in the files of ops is where one of the calls above ends."""
    raised = set()
    for call, kind, _ in ERRORS:
        with pytest.raises(kind) as caught:
            call()
        raised |= {(Path(entry.path).name, entry.lineno + 1) for entry in caught.traceback}
    untested = []
    for path in sorted(OPS.glob("*.py")):
        if path.name in ELSEWHERE:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise):
                lines = range(node.lineno, node.end_lineno + 1)
                if not any((path.name, line) in raised for line in lines):
                    untested.append(f"{path.name}:{node.lineno}: {ast.unparse(node)[:90]}")
    assert not untested, "\n".join(["no call in ERRORS ends in", *untested])
