"""What a kernel's call needs at least: floating-point operations and bytes, by formula.

An exponential, logarithm, root, quotient or error function counts as one operation, a comparison too.
What a kernel does beyond its formula (a window computed twice, a number read again) is not counted, so
that rates can be compared between kernels of one name.
"""

import math

from ..ops._windows import window_counts


def flops(kernel, result, args):
    """Operations of a call of the kernel of that name; None where no formula is known.

    result: what it returned (for several results the first counts); args: its arguments.
    """
    formula = FLOPS.get(kernel)
    if formula is None:
        return None
    return formula(result[0] if isinstance(result, tuple) else result, *args)


def moved(result, args, in_place):
    """Bytes of a call: each array that goes in is read once, each that comes out is written once.

    in_place: the results are among the arguments; all but the second, the gradient, are written too.
    """
    taken = sum(a.nbytes for a in arrays(args))
    if in_place:
        return 2 * taken - sum(a.nbytes for a in arrays(args[1:2]))
    return taken + sum(a.nbytes for a in arrays(result))


def arrays(value):
    """The arrays in what a kernel takes or returns, through tuples and lists."""
    if hasattr(value, "nbytes") and hasattr(value, "strides"):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from arrays(item)


def each(count):
    """So many operations for each number of the first argument: elementwise kernels."""
    return lambda result, x, *options: count * x.size


def convolution(images, filters):
    """Each pixel of the output meets each weight of its filter once."""
    return 2 * images.size * math.prod(filters[1:])


def queries_and_keys(q, k):
    """How many scores there are."""
    return math.prod(q.shape[:-1]) * k.shape[-2]


def recurrent(steps_of, gates, around):
    """Two products for each step and gate, and some operations on each gate's numbers."""

    def formula(result, *args):
        x, w_ih, w_hh = steps_of(args)
        numbers = math.prod(x.shape[:-1]) * w_hh.shape[0]  # of all gates, over the sequence
        return numbers * (2 * (w_ih.shape[1] + w_hh.shape[1]) * gates + around)

    return formula


# operations for each number of an activation, and of its gradient
ACTIVATIONS = {"relu": (1, 1), "sigmoid": (3, 3), "tanh": (1, 3), "gelu": (5, 10)}

# kernel -> f(result, *arguments), the arguments as kernels/reference has them (kernels/cpu: backend.WHOLES)
FLOPS = {
    "matmul": lambda y, a, b: 2 * y.size * a.shape[-1],
    "linear": lambda y, x, w, b: 2 * y.size * x.shape[-1] + (0 if b is None else y.size),
    "linear_activation": lambda y, x, w, b, activation: y.size * (2 * x.shape[-1] + 2),
    # forward two products and the activation, backward three or four products and its slope
    "feed_forward": lambda y, x, w1, b1, w2, b2, activation: (
        len(x) * (2 * (w1.size + w2.size) + len(w2) + len(w1) * (1 + ACTIVATIONS[activation][0]))
    ),
    "feed_forward_grad": lambda gx, g, x, w1, w2, activation, saved, of_x: (
        len(x)
        * ((4 if of_x else 2) * w1.size + 4 * w2.size + len(w1) * (1 + ACTIVATIONS[activation][1]))
    ),
    "linear_grad": lambda gw, g, x: 2 * g.size * x.shape[-1] + g.size,
    "conv2d": lambda y, x, w, *options: convolution(y, w.shape),
    "conv2d_grad_x": lambda gx, g, w, *options: convolution(g, w.shape),
    "conv2d_grad_w": lambda gw, g, x, shape, *options: convolution(g, shape),
    "conv2d_relu_max_pool2d": lambda y, x, w, b, stride, padding, dilation, groups, window, *options: (
        2
        * len(x)
        * w.size
        * math.prod(window_counts(x.shape[2:], w.shape[2:], stride, padding, dilation))
        + y.size * math.prod(window)
    ),
    "conv2d_grad_x_of_winners": lambda gx, sent, g, argmax, z_shape, w, *options: (
        2 * math.prod(z_shape) * w[0].size
    ),
    "conv2d_grad_w_of_winners": lambda grads, sent, g, argmax, z_shape, x, shape, *options: (
        2 * math.prod(z_shape) * math.prod(shape[1:])
    ),
    # a comparison for each tap of a window but the first
    "max_pool2d": lambda y, x, kernel, *options: y.size * (math.prod(kernel) - 1),
    "relu_max_pool2d": lambda y, x, kernel, *options: y.size * math.prod(kernel),
    "max_pool2d_grad": each(1),
    "relu_max_pool2d_grad": lambda grads, g, *options: 2 * g.size,
    **{name: each(forward) for name, (forward, _) in ACTIVATIONS.items()},
    **{f"{name}_grad": each(backward) for name, (_, backward) in ACTIVATIONS.items()},
    "silu": each(4),
    "silu_grad": each(8),
    # largest, difference, exponential, sum, quotient
    "softmax": each(5),
    "softmax_grad": each(4),
    "log_softmax": each(5),
    "log_softmax_grad": each(4),
    "cross_entropy": each(5),
    "cross_entropy_grad": lambda gx, g, logp, *options: 3 * logp.size,
    "bce_with_logits": each(7),
    "bce_with_logits_grad": each(5),
    "bce_with_logits_mean": lambda y, x, t: 8 * x.size,
    "bce_with_logits_mean_grad": lambda gx, g, x, t: 5 * x.size,
    # mean 1, centring 1, variance 2, scaling 1, weight and bias 2
    "layer_norm": each(7),
    "layer_norm_grad": each(12),
    "batch_norm": each(7),
    "batch_norm_grad": each(12),
    "batch_norm_relu": each(8),
    "batch_norm_relu_grad": each(15),
    # forward two products and a softmax, backward four products and its gradient
    "attention": lambda y, q, k, v, *options: (
        queries_and_keys(q, k) * (2 * (q.shape[-1] + v.shape[-1]) + 5)
    ),
    "attention_grad": lambda gq, g, q, k, v, *options: (
        queries_and_keys(q, k) * (4 * (q.shape[-1] + v.shape[-1]) + 5)
    ),
    # forward two products for each step, backward four; the cell's own work is small beside them
    "rnn": recurrent(lambda a: (a[0], a[2], a[3]), 1, 3),
    "rnn_grad": recurrent(lambda a: (a[1], a[2], a[3]), 2, 4),
    "lstm": recurrent(lambda a: (a[0], a[3], a[4]), 1, 5),
    "lstm_grad": recurrent(lambda a: (a[1], a[2], a[3]), 2, 6),
    "gru": recurrent(lambda a: (a[0], a[2], a[3]), 1, 5),
    "gru_grad": recurrent(lambda a: (a[1], a[2], a[3]), 2, 7),
    # 3 for the mean, 4 for the mean of squares, 5 for the weight
    "adam_": lambda _, w, g, *options: 12 * g.size,
    "sgd_": lambda _, w, g, buffer, *options: g.size * (2 if buffer is None else 4),
    "rmsprop_": each(8),
    "adagrad_": each(6),
}
