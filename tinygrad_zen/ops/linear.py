"""Matrix products: matmul, linear (a dense layer), einsum."""

from ..autograd import once, op, together
from .shape import expand


@op
def matmul(be, x, y):
    """Matrix product, as x @ y: (..., M, K), (..., K, N) -> (..., M, N); leading axes broadcast.

    A vector on the left is a row, on the right a column, and its axis is dropped from the result.
    """
    k = be.kernels
    left, right = getattr(x, "shape", ()), getattr(y, "shape", ())
    if not left or not right or left[-1] != right[-2 if len(right) > 1 else 0]:
        raise ValueError(
            "matmul: the last axis of x (..., M, K) and the last but one of y (..., K, N) must agree; "
            f"got {left} and {right}"
        )
    if x.ndim > 1 and y.ndim > 1:
        return k.matmul(x, y), (
            lambda g: k.matmul(g, y.swapaxes(-1, -2)),
            lambda g: k.matmul(x.swapaxes(-1, -2), g),
        )
    # vectors: give them their missing axis, and take it away again
    rows = x if x.ndim > 1 else x.reshape((1, -1))
    columns = y if y.ndim > 1 else y.reshape((-1, 1))
    full = k.matmul(rows, columns)
    shape = full.shape
    drop = tuple(
        n
        for i, n in enumerate(shape)
        if not (i == full.ndim - 2 and x.ndim == 1) and not (i == full.ndim - 1 and y.ndim == 1)
    )

    def grad_x(g):
        gx = k.matmul(g.reshape(shape), columns.swapaxes(-1, -2))
        return gx if x.ndim > 1 else gx.reshape((-1, x.size)).sum(axis=0)

    def grad_y(g):
        gy = k.matmul(rows.swapaxes(-1, -2), g.reshape(shape))
        return gy if y.ndim > 1 else gy.reshape((-1, y.size)).sum(axis=0)

    return full.reshape(drop), (grad_x, grad_y)


@op
def linear(be, x, w, b=None):
    """A dense layer, x @ w.T + b: (..., I), (O, I), (O,) -> (..., O)."""
    check_linear("linear", x, w, b)
    k = be.kernels
    grad_w, grad_b = together(lambda g: k.linear_grad(g, x))
    return k.linear(x, w, b), (lambda g: k.matmul(g, w), grad_w, grad_b)


@op
def linear_activation(be, x, w, b=None, *, activation):
    """relu, sigmoid or tanh of linear(x, w, b): (..., I), (O, I), (O,) -> (..., O)."""
    check_linear("linear_activation", x, w, b)
    if activation not in ("relu", "sigmoid", "tanh"):
        raise ValueError(
            f"linear_activation: activation must be relu, sigmoid or tanh; got {activation!r}"
        )
    k = be.kernels
    y = k.linear_activation(x, w, b, activation)
    activation_grad = getattr(k, f"{activation}_grad")
    inside = once(lambda g: activation_grad(g, y))
    grad_w, grad_b = together(lambda g: k.linear_grad(inside(g), x))
    return y, (lambda g: k.matmul(inside(g), w), grad_w, grad_b)


def check_linear(name, x, w, b):
    """Raise ValueError unless x, weights and bias fit each other."""
    shape = w.shape
    if len(shape) != 2 or x.shape[-1:] != shape[1:]:
        raise ValueError(
            f"{name}: x (..., I) and w (O, I) must share I; got {x.shape} and {w.shape}"
        )
    if b is not None and b.shape != shape[:1]:
        raise ValueError(f"{name}: w (O, I) and b (O,) must share O; got {w.shape} and {b.shape}")


def einsum(subscripts, *operands):
    """Einstein summation, `einsum("bij,bjk->bik", x, y)`; np.einsum's rules, ellipsis included."""
    inputs, output, sizes = _parse(subscripts, operands)
    shapes = [tuple(sizes[c] for c in labels) for labels in inputs]
    operands = [
        x if x.shape == s else expand(x, shape=s) for x, s in zip(operands, shapes, strict=True)
    ]
    reduced = [_diagonals(x, labels) for x, labels in zip(operands, inputs, strict=True)]
    return _einsum(*(x for x, _ in reduced), inputs=tuple(s for _, s in reduced), output=output)


@op
def _einsum(be, *xs, inputs, output):
    """einsum of operands that carry each label once."""
    sizes = {c: n for s, x in zip(inputs, xs, strict=True) for c, n in zip(s, x.shape, strict=True)}

    def grad(i):
        others = inputs[:i] + inputs[i + 1 :]
        rest = xs[:i] + xs[i + 1 :]
        reachable = "".join(c for c in inputs[i] if c in output or any(c in s for s in others))
        shape = tuple(sizes[c] for c in inputs[i])
        # labels that stand in this operand alone were summed away: every place gets the same
        ones = tuple(sizes[c] if c in reachable else 1 for c in inputs[i])

        def vjp(g):
            spec = ",".join((output, *others)) + "->" + reachable
            return be.xp.broadcast_to(be.xp.einsum(spec, g, *rest).reshape(ones), shape)

        return vjp

    out = be.xp.einsum(",".join(inputs) + "->" + output, *xs, optimize=len(xs) > 2)
    return out, tuple(grad(i) for i in range(len(xs)))


def _parse(subscripts, operands):
    """Labels of each operand and of the result, ellipses and '->' made explicit; the size of each label."""
    spec = subscripts.replace(" ", "")
    left, arrow, output = spec.partition("->")
    inputs = left.split(",")
    if len(inputs) != len(operands):
        raise ValueError(
            f"einsum: {subscripts!r} names {len(inputs)} operands; got {len(operands)}"
        )
    free = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in spec]
    broadcast = ""
    for i, (labels, x) in enumerate(zip(inputs, operands, strict=True)):
        if "..." in labels:
            hidden = x.ndim - len(labels) + 3
            names = "".join(free[:hidden][::-1])  # aligned at the right, as broadcasting is
            inputs[i] = labels.replace("...", names)
            broadcast = names if len(names) > len(broadcast) else broadcast
        if len(inputs[i]) != x.ndim or not inputs[i].isalpha() and inputs[i]:
            raise ValueError(f"einsum: {labels!r} in {subscripts!r} does not fit shape {x.shape}")
    if arrow:
        output = output.replace("...", broadcast)
    else:
        joined = "".join(inputs)
        output = broadcast + "".join(
            c for c in sorted(set(joined)) if joined.count(c) == 1 and c not in broadcast
        )
    for c in output:
        if not any(c in labels for labels in inputs) or output.count(c) > 1:
            raise ValueError(
                f"einsum: the result of {subscripts!r} names {c!r} twice or from nowhere"
            )
    sizes = {}
    for labels, x in zip(inputs, operands, strict=True):
        for c, n in zip(labels, x.shape, strict=True):
            if c in broadcast and sizes.get(c) == 1:
                sizes[c] = n  # axes under an ellipsis stretch
            elif sizes.setdefault(c, n) != n and not (c in broadcast and n == 1):
                raise ValueError(
                    f"einsum: label {c!r} of {subscripts!r} has sizes {sizes[c]} and {n}; shapes "
                    f"{[tuple(x.shape) for x in operands]}"
                )
    return inputs, output, sizes


def _diagonals(x, labels):
    """x with every label once: a repeated one ('ii') takes the diagonal first."""
    for c in labels:
        if labels.count(c) > 1:
            i, j = labels.index(c), labels.index(c, labels.index(c) + 1)
            n = x.shape[i]
            order = [a for a in range(x.ndim) if a not in (i, j)]
            x = x.transpose((i, j, *order))
            x = x.reshape((n * n, *x.shape[2:]))[:: n + 1]
            return _diagonals(x, c + "".join(labels[a] for a in order))
    return x, labels
