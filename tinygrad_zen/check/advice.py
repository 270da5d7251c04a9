"""What to write instead: stable forms of expressions, and why an op gave NaN or infinity."""

import re

import numpy as np

# pattern of an expression as `write` spells it, and the form to use; the first that fits is told
FORMS = [
    (
        r"log\(softmax\(",
        "log_softmax(x) is log(softmax(x)) without underflow; as a loss, cross_entropy takes the raw "
        "scores",
    ),
    (
        r"log\(sigmoid\(",
        "logsigmoid(x) is log(sigmoid(x)) without underflow; as a loss, "
        "binary_cross_entropy_with_logits takes the raw scores",
    ),
    (
        r"log\(sub\(1, sigmoid\(",
        "logsigmoid(-x) is log(1 - sigmoid(x)) without underflow; as a loss, "
        "binary_cross_entropy_with_logits takes the raw scores",
    ),
    (
        r"log\(div\(exp\(.*sum\(exp\(",
        "log_softmax(x) is log(exp(x) / exp(x).sum()) without underflow",
    ),
    (r"log\(sum\(exp\(", "logsumexp(x, axis=...) is log(exp(x).sum()) without overflow"),
    (
        r"log\(add\((1, exp\(|exp\(.*, 1\))|log1p\(exp\(",
        "softplus(x) is log(1 + exp(x)) without overflow",
    ),
    (r"div\(exp\(.*sum\(exp\(", "softmax(x, axis=...) is exp(x) / exp(x).sum() without overflow"),
    (
        r"(div\(1, |reciprocal\()add\((1, exp\(|exp\(.*, 1\))",
        "sigmoid(x) is 1 / (1 + exp(-x)) without overflow",
    ),
    (
        r"binary_cross_entropy\(sigmoid\(",
        "binary_cross_entropy_with_logits takes the raw scores and stays finite",
    ),
    (
        r"exp\(",
        "exp overflows above 88.7 in float32 (709 in float64); softmax(x) is exp(x) / exp(x).sum(), "
        "logsumexp(x) is log(exp(x).sum()) and softplus(x) is log(1 + exp(x)) without overflow",
    ),
]

# why an op's value is not finite, where its form does not say
REASONS = {
    "log": "log needs x > 0; keep it away from 0: log(x.clip(min=1e-12))",
    "log2": "log2 needs x > 0; keep it away from 0: x.clip(min=1e-12)",
    "log10": "log10 needs x > 0; keep it away from 0: x.clip(min=1e-12)",
    "log1p": "log1p needs x > -1",
    "sqrt": "sqrt needs x >= 0",
    "pow": "a negative base with a fractional exponent is NaN, 0 to a negative one infinite",
    "arcsin": "arcsin needs |x| <= 1: clip(x, -1, 1)",
    "arccos": "arccos needs |x| <= 1: clip(x, -1, 1)",
    "div": "y holds 0; divide by y + 1e-12, or by where(y == 0, 1, y)",
    "reciprocal": "x holds 0; take 1 / (x + 1e-12)",
    "softmax": "a row that is -inf from end to end has no softmax: a mask leaves nothing there",
    "log_softmax": "a row that is -inf from end to end has no softmax: a mask leaves nothing there",
}

# why a gradient is not finite although the value was
SLOPES = {
    "sqrt": "the slope of sqrt at 0 is infinite; take sqrt(x + 1e-12)",
    "pow": "the slope of a power below 1 is infinite at 0; take (x + 1e-12) ** y",
    "log": "the slope of log at 0 is infinite; take log(x.clip(min=1e-12))",
    "div": "the slope of x / y grows as 1 / y**2; keep y away from 0",
    "reciprocal": "the slope of 1 / x grows as 1 / x**2; keep x away from 0",
    "arcsin": "the slope of arcsin at -1 and 1 is infinite; clip(x, -1 + 1e-6, 1 - 1e-6)",
    "arccos": "the slope of arccos at -1 and 1 is infinite; clip(x, -1 + 1e-6, 1 - 1e-6)",
    "binary_cross_entropy": "binary_cross_entropy_with_logits takes the raw scores and stays finite",
}
DEPTH = 4  # of an expression that is kept: enough for every form above


def write(expression, depth=DEPTH):
    """A nested tuple (op, argument, ...) as text; a number as itself, anything else as "_"."""
    if isinstance(expression, tuple):
        if not depth:
            return "_"
        name, *args = expression
        return f"{name}({', '.join(write(a, depth - 1) for a in args)})"
    return f"{expression:g}" if isinstance(expression, int | float) else "_"


def of_value(expression, arrays, bad):
    """What to do about a forward result; arrays: the op's data, bad: one of its values."""
    name, text = expression[0], write(expression)
    form = next((form for pattern, form in FORMS if re.match(pattern, text)), None)
    if form is not None:
        return form
    if name in ("div", "reciprocal"):
        reason = REASONS[name] if (np.asarray(arrays[-1]) == 0).any() else None
    else:
        reason = REASONS.get(name)
    if reason is not None:
        return reason
    infinite = any(np.isinf(np.asarray(a, float)).any() for a in arrays if a is not None)
    if np.isnan(bad):
        if infinite:
            return "0 * inf, inf - inf and inf / inf are NaN; mask with where() instead of products"
        return None
    largest = np.finfo(np.result_type(bad)).max
    return (
        f"the result is above the largest {np.result_type(bad)}, {largest:.2g}; scale the inputs to "
        "about -1..1, lower the learning rate or the first weights"
    )


def of_gradient(name, g):
    """What to do about a gradient; g: the one that came in there, or None where shapes differ."""
    if g == 0:
        return (
            "the gradient that comes in there is 0 (a where() or a mask further on), and 0 times an "
            "infinite slope is NaN; where() computes both branches: make its input safe before the op, "
            "as in sqrt(where(x > 0, x, 1))"
        )
    return SLOPES.get(name)
