"""Elementwise arithmetic, powers, logarithms, trigonometry, comparisons and choices.

All broadcast as NumPy does; the engine sums the gradients back over stretched axes.
"""

import math

from ..autograd import op


@op
def add(be, x, y):
    """x + y."""
    return x + y, (lambda g: g, lambda g: g)


@op
def sub(be, x, y):
    """x - y."""
    return x - y, (lambda g: g, lambda g: -g)


@op
def mul(be, x, y):
    """x * y."""
    return x * y, (lambda g: g * y, lambda g: g * x)


@op
def div(be, x, y):
    """x / y."""
    return x / y, (lambda g: g / y, lambda g: -g * x / (y * y))


@op
def pow(be, x, y):
    """x to the power y; the gradient of y needs x > 0 and is 0 where x is 0."""

    def grad_x(g):
        # at x = 0, y = 0 the power is the constant 1; y - 1 = -1 would give 0 * inf
        return g * y * x ** be.xp.where(y == 0, 1.0, y - 1)

    def grad_y(g):
        return g * out * be.xp.log(be.xp.where(x > 0, x, 1.0))

    out = x**y
    if isinstance(y, int | float):
        return out, (lambda g: g * (y * x ** (y - 1)) if y else g * 0.0, None)
    if isinstance(x, int | float):
        return out, (None, lambda g: g * out * (math.log(x) if x > 0 else 0.0))
    return out, (grad_x, grad_y)


@op
def neg(be, x):
    """-x."""
    return -x, (lambda g: -g,)


@op
def square(be, x):
    """x * x."""
    return x * x, (lambda g: g * (2 * x),)


@op
def reciprocal(be, x):
    """1 / x."""
    return 1 / x, (lambda g: -g / (x * x),)


@op
def abs(be, x):
    """|x|; the gradient at 0 is 0."""
    return be.xp.abs(x), (lambda g: g * be.xp.sign(x),)


@op
def sign(be, x):
    """-1, 0 or 1; its gradient is 0 everywhere."""
    return be.xp.sign(x), (lambda g: g * 0.0,)


@op
def exp(be, x):
    """e to the power x."""
    y = be.xp.exp(x)
    return y, (lambda g: g * y,)


@op
def expm1(be, x):
    """exp(x) - 1, exact for small x."""
    y = be.xp.expm1(x)
    return y, (lambda g: g * (y + 1),)


@op
def log(be, x):
    """Natural logarithm."""
    return be.xp.log(x), (lambda g: g / x,)


@op
def log1p(be, x):
    """log(1 + x), exact for small x."""
    return be.xp.log1p(x), (lambda g: g / (1 + x),)


@op
def log2(be, x):
    """Logarithm to base 2."""
    return be.xp.log2(x), (lambda g: g / (x * math.log(2)),)


@op
def log10(be, x):
    """Logarithm to base 10."""
    return be.xp.log10(x), (lambda g: g / (x * math.log(10)),)


@op
def sqrt(be, x):
    """Square root; the gradient at 0 is infinite."""
    y = be.xp.sqrt(x)
    return y, (lambda g: g / (2 * y),)


@op
def sin(be, x):
    """Sine of x in radians."""
    return be.xp.sin(x), (lambda g: g * be.xp.cos(x),)


@op
def cos(be, x):
    """Cosine of x in radians."""
    return be.xp.cos(x), (lambda g: -g * be.xp.sin(x),)


@op
def tan(be, x):
    """Tangent of x in radians."""
    y = be.xp.tan(x)
    return y, (lambda g: g * (1 + y * y),)


@op
def arcsin(be, x):
    """Inverse sine, in radians; |x| <= 1."""
    return be.xp.arcsin(x), (lambda g: g / be.xp.sqrt(1 - x * x),)


@op
def arccos(be, x):
    """Inverse cosine, in radians; |x| <= 1."""
    return be.xp.arccos(x), (lambda g: -g / be.xp.sqrt(1 - x * x),)


@op
def arctan(be, x):
    """Inverse tangent, in radians."""
    return be.xp.arctan(x), (lambda g: g / (1 + x * x),)


@op
def sinh(be, x):
    """Hyperbolic sine."""
    return be.xp.sinh(x), (lambda g: g * be.xp.cosh(x),)


@op
def cosh(be, x):
    """Hyperbolic cosine."""
    return be.xp.cosh(x), (lambda g: g * be.xp.sinh(x),)


@op
def erf(be, x):
    """The error function, 2/sqrt(pi) times the integral of exp(-t^2) from 0 to x."""
    return be.kernels.erf(x), (lambda g: g * (2 / math.sqrt(math.pi) * be.xp.exp(-x * x)),)


@op
def maximum(be, x, y):
    """The larger of x and y; where they are equal each takes half of the gradient."""
    share = _share(be, x > y, x == y)
    return be.xp.maximum(x, y), (lambda g: g * share(g), lambda g: g * (1 - share(g)))


@op
def minimum(be, x, y):
    """The smaller of x and y; where they are equal each takes half of the gradient."""
    share = _share(be, x < y, x == y)
    return be.xp.minimum(x, y), (lambda g: g * share(g), lambda g: g * (1 - share(g)))


def _share(be, wins, ties):
    """x's part of the gradient in the dtype of g: 1 where it wins, 1/2 at a tie, else 0."""
    return lambda g: wins.astype(g.dtype) + 0.5 * ties.astype(g.dtype)


@op
def clip(be, x, *, min=None, max=None):
    """x held between min and max (numbers; None leaves that side open); no gradient outside."""
    if min is None and max is None:
        raise ValueError("clip: at least one of min and max is needed; got None and None")
    low = -math.inf if min is None else min
    high = math.inf if max is None else max
    return be.xp.clip(x, min, max), (lambda g: g * ((x >= low) & (x <= high)),)


@op
def where(be, condition, x, y):
    """x where condition holds, else y."""
    zero = 0.0
    return be.xp.where(condition, x, y), (
        None,
        lambda g: be.xp.where(condition, g, zero),
        lambda g: be.xp.where(condition, zero, g),
    )


@op
def astype(be, x, *, dtype):
    """x converted to dtype; between floats the gradient is converted back."""
    out = x.astype(dtype)
    return out, ((lambda g: g.astype(x.dtype),) if out.dtype.kind == "f" else None)


@op
def floor(be, x):
    """The largest whole number not above x; its gradient is 0 everywhere."""
    return be.xp.floor(x), (lambda g: g * 0.0,)


@op
def ceil(be, x):
    """The smallest whole number not below x; its gradient is 0 everywhere."""
    return be.xp.ceil(x), (lambda g: g * 0.0,)


@op
def round(be, x):
    """The nearest whole number, halves to even; its gradient is 0 everywhere."""
    return be.xp.round(x), (lambda g: g * 0.0,)


@op
def equal(be, x, y):
    """x == y, elementwise; no gradient."""
    return x == y, None


@op
def not_equal(be, x, y):
    """x != y, elementwise; no gradient."""
    return x != y, None


@op
def less(be, x, y):
    """x < y, elementwise; no gradient."""
    return x < y, None


@op
def less_equal(be, x, y):
    """x <= y, elementwise; no gradient."""
    return x <= y, None


@op
def greater(be, x, y):
    """x > y, elementwise; no gradient."""
    return x > y, None


@op
def greater_equal(be, x, y):
    """x >= y, elementwise; no gradient."""
    return x >= y, None


@op
def logical_and(be, x, y):
    """Both are true, elementwise; no gradient."""
    return be.xp.logical_and(x, y), None


@op
def logical_or(be, x, y):
    """At least one is true, elementwise; no gradient."""
    return be.xp.logical_or(x, y), None


@op
def logical_not(be, x):
    """Not x, elementwise; no gradient."""
    return be.xp.logical_not(x), None


@op
def isfinite(be, x):
    """Neither infinite nor NaN, elementwise; no gradient."""
    return be.xp.isfinite(x), None


@op
def isnan(be, x):
    """Not a number, elementwise; no gradient."""
    return be.xp.isnan(x), None
