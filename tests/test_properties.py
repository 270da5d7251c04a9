"""Laws that hold for any shapes and numbers, searched for exceptions by hypothesis.

NumPy is the judge of values; gradients are held against their definition.
"""

import math
import string

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygrad_zen as tz
from tinygrad_zen import ops

some = settings(max_examples=60)
many = settings(max_examples=150)
seeds = st.integers(0, 99)
usable = [n for n, why in tz.backends().items() if why == "usable" and n != "cudasim"]
on_each_backend = pytest.mark.parametrize("where", usable)
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=4)
empty_or_not = hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)


def numbers(shape, seed=0, low=-2.0, high=2.0):
    return np.random.default_rng(seed).uniform(low, high, shape)


def leaf(array):
    return tz.tensor(array, requires_grad=True)


def assert_same(ours, numpys, tolerance=1e-12):
    assert ours.shape == np.shape(numpys)
    np.testing.assert_allclose(ours.numpy(), numpys, rtol=tolerance, atol=tolerance)


@st.composite
def axes_of(draw, shape):
    """None, an axis or several, counted from either end."""
    if not shape or draw(st.booleans()):
        return None
    axes = draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True))
    signed = tuple(a - len(shape) if draw(st.booleans()) else a for a in axes)
    return signed[0] if len(signed) == 1 and draw(st.booleans()) else signed


# arithmetic


@many
@given(
    hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, min_side=0, max_side=3),
    st.sampled_from(["add", "sub", "mul", "div", "maximum", "minimum"]),
    st.integers(0, 1000),
)
def test_arithmetic_broadcasts_as_numpys(broadcast, name, seed):
    a, b = (numbers(s, seed + i, 0.5) for i, s in enumerate(broadcast.input_shapes))
    numpy_name = {"sub": "subtract", "mul": "multiply", "div": "divide"}.get(name, name)
    x, y = leaf(a), leaf(b)
    z = getattr(ops, name)(x, y)
    assert z.shape == broadcast.result_shape
    assert_same(z, getattr(np, numpy_name)(a, b))
    z.sum().backward()
    assert x.grad.shape == a.shape and y.grad.shape == b.shape


@some
@given(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3), st.integers(0, 99))
def test_the_gradient_of_a_broadcast_is_the_sum_over_its_copies(broadcast, seed):
    a, b = (numbers(s, seed + i) for i, s in enumerate(broadcast.input_shapes))
    g = numbers(broadcast.result_shape, seed + 2)
    x = leaf(a)
    (x * b).backward(g)
    copies = np.broadcast_to(np.arange(a.size).reshape(a.shape), g.shape)
    expected = np.bincount(copies.ravel(), (g * b).ravel(), minlength=a.size).reshape(a.shape)
    assert_same(x.grad, expected)


# reductions


@many
@given(st.data(), shapes, st.booleans(), st.integers(0, 99))
@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "prod", "var", "std"])
def test_reductions_are_numpys(name, data, shape, keepdims, seed):
    a, axis = numbers(shape, seed), data.draw(axes_of(shape))
    x = leaf(a)
    y = getattr(x, name)(axis=axis, keepdims=keepdims)
    assert_same(y, getattr(a, name)(axis=axis, keepdims=keepdims))
    y.sum().backward()
    assert x.grad.shape == shape
    if name in ("sum", "mean"):  # every element counts the same
        assert_same(x.grad, np.full(shape, y.size / a.size if name == "mean" else 1.0))
    if name in ("max", "min"):  # each result comes from one element
        assert x.grad.numpy().sum() == pytest.approx(y.size)
    if name == "var":  # a shift of everything changes nothing
        assert abs(x.grad.numpy().sum()) < 1e-9


@some
@given(st.data(), shapes, st.booleans())
def test_logsumexp_is_the_log_of_the_sum_of_exp(data, shape, keepdims):
    a, axis = numbers(shape), data.draw(axes_of(shape))
    y = ops.logsumexp(leaf(a), axis=axis, keepdims=keepdims)
    assert_same(y, np.log(np.exp(a).sum(axis=axis, keepdims=keepdims)))
    shifted = ops.logsumexp(leaf(a + 1000), axis=axis, keepdims=keepdims)
    assert_same(shifted, y.numpy() + 1000, 1e-11)


@some
@given(st.data(), empty_or_not)
def test_running_sums_are_numpys_and_their_gradient_runs_backwards(data, shape):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    a, g = numbers(shape), numbers(shape, 1)
    x = leaf(a)
    y = x.cumsum(axis=axis)
    assert_same(y, a.cumsum(axis=axis))
    y.backward(g)
    assert_same(x.grad, np.flip(np.flip(g, axis).cumsum(axis), axis))


@some
@given(hnp.array_shapes(max_dims=2, max_side=4), st.integers(0, 99))
def test_products_with_zeros_have_the_gradient_of_the_definition(shape, seed):
    rng = np.random.default_rng(seed)
    a = rng.uniform(0.5, 2, shape) * (rng.random(shape) < 0.7)
    x = leaf(a)
    x.prod().backward()
    flat = a.ravel()
    expected = [np.prod(np.delete(flat, i)) for i in range(flat.size)]
    assert_same(x.grad, np.reshape(expected, shape))


# indices


@many
@given(st.data(), shapes, st.integers(0, 99))
def test_indexing_is_numpys_and_its_gradient_is_add_at(data, shape, seed):
    a = numbers(shape, seed)
    key = data.draw(
        st.one_of(
            hnp.basic_indices(shape, allow_ellipsis=True, allow_newaxis=True),
            hnp.integer_array_indices(shape) if shape else st.just(()),
            hnp.arrays(bool, shape),
        )
    )
    expected = a[key]
    x = leaf(a)
    y = x[key]
    assert_same(y, expected)
    g = numbers(np.shape(expected), seed + 1)
    y.backward(g)
    added = np.zeros(shape)
    np.add.at(added, key, g)
    assert_same(x.grad, added)
    # the gradient of the gradient reads where the index read
    v = leaf(g)
    h = tz.grad(x[key], x, v, create_graph=True)
    w = numbers(shape, seed + 2)
    assert_same(tz.grad((h * w).sum(), v), w[key])


@some
@given(st.data(), hnp.array_shapes(min_dims=1, max_dims=3, max_side=4))
def test_gather_and_scatter_are_numpys(data, shape):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    picked = list(shape)
    picked[axis] = data.draw(st.integers(0, 5))
    index = data.draw(hnp.arrays(np.int64, tuple(picked), elements=st.integers(0, shape[axis] - 1)))
    a, g = numbers(shape), numbers(picked, 1)
    x = leaf(a)
    y = ops.gather(x, index, axis=axis)
    assert_same(y, np.take_along_axis(a, index, axis))
    y.backward(g)
    places = list(np.indices(index.shape))
    places[axis] = index
    added = np.zeros(shape)
    np.add.at(added, tuple(places), g)
    assert_same(x.grad, added)
    assert_same(ops.scatter_add(x, index, tz.tensor(g), axis=axis), a + added)


# shapes


@some
@given(st.data(), empty_or_not)
def test_transposing_back_is_nothing(data, shape):
    axes = data.draw(st.permutations(range(len(shape))))
    a = numbers(shape)
    x = leaf(a)
    y = x.transpose(axes)
    assert_same(y, a.transpose(axes))
    assert_same(y.transpose(tuple(np.argsort(axes))), a)
    y.backward(numbers(y.shape, 1))
    assert_same(x.grad, numbers(y.shape, 1).transpose(np.argsort(axes)))


@st.composite
def refactored(draw):
    """Two shapes with one number of elements."""
    factors = draw(st.lists(st.integers(1, 4), max_size=4))

    def grouped():
        left, out = draw(st.permutations(factors)), []
        while left:
            n = draw(st.integers(1, len(left)))
            out.append(math.prod(left[:n]))
            left = left[n:]
        return tuple(out)

    return grouped(), grouped()


@some
@given(st.data(), refactored())
def test_reshaping_keeps_the_logical_order(data, two_shapes):
    before, after = two_shapes
    axes = data.draw(st.permutations(range(len(before))))  # any memory order
    a = numbers(before).transpose(axes)
    x = leaf(a)
    y = x.reshape(after)
    assert_same(y, a.reshape(after))
    assert_same(y.reshape(a.shape), a)
    if after:
        free = data.draw(st.integers(0, len(after) - 1))
        assert x.reshape(*after[:free], -1, *after[free + 1 :]).shape == after
    y.backward(numbers(after, 1))
    assert_same(x.grad, numbers(after, 1).reshape(a.shape))


@some
@given(st.data(), hnp.array_shapes(min_dims=1, max_dims=3, max_side=5))
def test_split_and_concat_undo_each_other(data, shape):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    size = data.draw(st.integers(1, 5))
    a = numbers(shape)
    x = leaf(a)
    pieces = x.split(size, axis=axis)
    assert all(p.shape[axis] == size for p in pieces[:-1])
    whole = ops.concat(pieces, axis=axis)
    assert_same(whole, a)
    whole.backward(numbers(shape, 1))
    assert_same(x.grad, numbers(shape, 1))


# linear maps: <A x, y> = <x, A^T y>, and A (x + c z) = A x + c A z


@st.composite
def linear_maps(draw):
    """A linear op of one argument, and the shape that it takes."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=4))
    axis = draw(st.integers(0, len(shape) - 1))
    n = shape[axis]
    widths = draw(
        st.lists(st.tuples(*[st.integers(0, 2)] * 2), min_size=len(shape), max_size=len(shape))
    )
    last = shape[-1]
    maps = {
        "sum": lambda x: x.sum(axis=axis),
        "mean": lambda x: x.mean(axis=axis, keepdims=True),
        "cumsum": lambda x: x.cumsum(axis=axis),
        "flip": lambda x: x.flip(axis=axis),
        "roll": lambda x: ops.roll(x, shift=2, axis=axis),
        "repeat": lambda x: x.repeat(2, axis=axis),
        "pad": lambda x: ops.pad(x, widths=widths),
        "expand": lambda x: x.expand((2, *shape)),
        "swapaxes": lambda x: x.swapaxes(0, axis),
        "slice": lambda x: x[(slice(None),) * axis + (slice(None, None, -2),)],
        "gather": lambda x: x[(slice(None),) * axis + ([0, n - 1, 0],)],
        "matmul": lambda x: x @ numbers((last, 3), 7),
        "linear": lambda x: ops.linear(x, numbers((2, last), 7)),
        "tril": lambda x: ops.tril(x.reshape(-1, last)),
        "tile": lambda x: ops.tile(x, (2,) * len(shape)),
    }
    if len(shape) == 4:
        filters = numbers((2, shape[1], 2, 2), 7)
        maps = {
            "conv2d": lambda x: ops.conv2d(x, filters, padding=1, stride=2),
            "conv_transpose2d": lambda x: ops.conv_transpose2d(
                x, filters.swapaxes(0, 1), stride=2, padding=0
            ),
            "avg_pool2d": lambda x: ops.avg_pool2d(x, kernel_size=2, stride=1, padding=1),
            "adaptive_avg_pool2d": lambda x: ops.adaptive_avg_pool2d(x, output_size=2),
        }
    return draw(st.sampled_from(sorted(maps.items()))), shape


@many
@given(linear_maps(), st.integers(0, 99))
def test_linear_maps_are_linear_and_their_vjp_is_the_adjoint(named, seed):
    (_, f), shape = named
    a, b = numbers(shape, seed), numbers(shape, seed + 1)
    x = leaf(a)
    y = f(x)
    assert_same(f(tz.tensor(a + 3 * b)), y.numpy() + 3 * f(tz.tensor(b)).numpy(), 1e-11)
    v = numbers(y.shape, seed + 2)
    (g,) = tz.grad(y, [x], v)
    direction = numbers(shape, seed + 3)
    pushed = f(tz.tensor(direction)).numpy()
    assert np.vdot(pushed, v) == pytest.approx(np.vdot(direction, g.numpy()), rel=1e-10, abs=1e-10)


# einsum


@st.composite
def specifications(draw):
    """Subscripts, and arrays that they fit."""
    sizes = {c: draw(st.integers(1, 3)) for c in string.ascii_lowercase[:4]}
    terms = draw(
        st.lists(
            st.lists(st.sampled_from("abcd"), max_size=3, unique=True).map("".join),
            min_size=1,
            max_size=3,
        )
    )
    used = sorted(set("".join(terms)))
    output = "".join(draw(st.lists(st.sampled_from(used), unique=True) if used else st.just([])))
    implicit = draw(st.booleans())
    spec = ",".join(terms) + ("" if implicit else "->" + output)
    return spec, [numbers([sizes[c] for c in t], i) for i, t in enumerate(terms)]


@many
@given(specifications())
def test_einsum_is_numpys_and_its_gradient_is_the_adjoint(given_spec):
    spec, arrays = given_spec
    xs = [leaf(a) for a in arrays]
    y = ops.einsum(spec, *xs)
    assert_same(y, np.einsum(spec, *arrays))
    v = numbers(y.shape, 9)
    for i, g in enumerate(tz.grad(y, xs, v)):
        # linear in each operand: along a direction u it is einsum with u in its place
        u = numbers(arrays[i].shape, 20 + i)
        along = np.einsum(spec, *arrays[:i], u, *arrays[i + 1 :])
        assert np.vdot(along, v) == pytest.approx(np.vdot(u, g.numpy()), rel=1e-9, abs=1e-9)


# probabilities


@some
@given(st.data(), hnp.array_shapes(max_dims=3, max_side=5), st.floats(-1000, 1000))
def test_softmax_sums_to_1_and_ignores_shifts(data, shape, shift):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    a = numbers(shape, high=5.0)
    x = leaf(a)
    y = ops.softmax(x, axis=axis)
    assert_same(y.sum(axis=axis), np.ones(y.sum(axis=axis).shape))
    assert_same(ops.softmax(x + shift, axis=axis), y.numpy(), 1e-10)
    assert_same(ops.log_softmax(x, axis=axis).exp(), y.numpy())
    # nothing changes along the shift, so the gradient adds up to 0 there
    (g,) = tz.grad(y, [x], numbers(shape, 1))
    assert_same(g.sum(axis=axis), np.zeros(g.sum(axis=axis).shape))


@some
@given(st.integers(1, 5), st.integers(2, 5), st.integers(0, 99))
def test_cross_entropy_of_labels_is_that_of_one_hot_rows(n, classes, seed):
    rng = np.random.default_rng(seed)
    a, labels = rng.standard_normal((n, classes)), rng.integers(0, classes, n)
    for options in ({}, {"label_smoothing": 0.2}, {"reduction": "none"}):
        x, z = leaf(a), leaf(a)
        hard = ops.cross_entropy(x, labels, **options)
        soft = ops.cross_entropy(z, np.eye(classes)[labels], **options)
        assert_same(hard, soft.numpy())
        hard.sum().backward()
        soft.sum().backward()
        assert_same(x.grad, z.grad.numpy())
        assert_same(x.grad.sum(axis=1), np.zeros(n))


@some
@given(hnp.array_shapes(min_dims=2, max_dims=3, min_side=2, max_side=4), st.floats(0.5, 100))
def test_normalised_layers_ignore_scale_and_shift(shape, scale):
    a = numbers(shape)
    assume(a.reshape(len(a), -1).std(axis=1).min() > 0.1)
    w, b = np.ones(shape[1:]), np.zeros(shape[1:])
    y = ops.layer_norm(tz.tensor(a), w, b, eps=0.0)
    assert_same(ops.layer_norm(tz.tensor(scale * a + 3), w, b, eps=0.0), y.numpy(), 1e-9)
    assert_same(y.mean(axis=tuple(range(1, y.ndim))), np.zeros(len(a)), 1e-9)


# choices, borders and repeats; products; memory


@some
@given(st.data(), shapes, seeds)
def test_choices_are_numpys_and_share_out_the_gradient(data, shape, seed):
    a, b, g = (numbers(shape, seed + i) for i in range(3))
    low, high = sorted(data.draw(st.tuples(*[st.floats(-2, 2)] * 2)))
    condition = data.draw(hnp.arrays(bool, shape))
    x, y = leaf(a), leaf(b)
    assert_same(x.clip(low, high), np.clip(a, low, high))
    picked = ops.where(condition, x, y)
    assert_same(picked, np.where(condition, a, b))
    for op, numpys in ((ops.maximum, np.maximum), (ops.minimum, np.minimum)):
        assert_same(op(x, y), numpys(a, b))
    # whatever one side loses the other gets
    for out in (picked, ops.maximum(x, y), ops.minimum(x, y)):
        gx, gy = tz.grad(out, [x, y], g)
        assert_same(gx + gy, g)


@some
@given(st.data(), hnp.array_shapes(min_dims=1, max_dims=3, max_side=4), seeds)
def test_borders_rolls_and_copies_are_numpys(data, shape, seed):
    a = numbers(shape, seed)
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    n, k = data.draw(st.integers(1, 3)), data.draw(st.integers(-3, 3))
    widths = [data.draw(st.tuples(*[st.integers(0, 2)] * 2)) for _ in shape]
    reps = tuple(data.draw(st.integers(1, 3)) for _ in shape)
    x = leaf(a)
    for ours, numpys, times in (
        (ops.pad(x, widths=widths, value=1.5), np.pad(a, widths, constant_values=1.5), 1),
        (ops.roll(x, shift=k, axis=axis), np.roll(a, k, axis), 1),
        (x.flip(axis=axis), np.flip(a, axis), 1),
        (x.repeat(n, axis=axis), np.repeat(a, n, axis), n),
        (ops.tile(x, reps), np.tile(a, reps), math.prod(reps)),
        (ops.stack([x, x], axis=axis), np.stack([a, a], axis), 2),
    ):
        assert_same(ours, numpys)
        (g,) = tz.grad(ours, [x], np.ones(ours.shape))  # how often each element came out
        assert_same(g, np.full(shape, float(times)))


@st.composite
def factors(draw):
    """Two shapes that matmul takes: vectors, matrices, stacks that broadcast."""
    m, k, n = (draw(st.integers(1, 4)) for _ in range(3))
    stacks = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=2, max_side=3))
    left = (k,) if draw(st.booleans()) and not stacks.input_shapes[0] else (m, k)
    right = (k,) if draw(st.booleans()) and not stacks.input_shapes[1] else (k, n)
    a, b = stacks.input_shapes
    return (*a, *left), (*b, *right)


@many
@given(factors(), seeds)
def test_products_are_numpys_and_bilinear(two_shapes, seed):
    a, b = (numbers(s, seed + i) for i, s in enumerate(two_shapes))
    x, y = leaf(a), leaf(b)
    z = x @ y
    assert_same(z, a @ b)
    v = numbers(z.shape, seed + 2)
    gx, gy = tz.grad(z, [x, y], v)
    # <u b, v> = <u, gx>, <a w, v> = <w, gy>
    u, w = numbers(a.shape, seed + 3), numbers(b.shape, seed + 4)
    assert np.vdot(u @ b, v) == pytest.approx(np.vdot(u, gx.numpy()), rel=1e-9, abs=1e-9)
    assert np.vdot(a @ w, v) == pytest.approx(np.vdot(w, gy.numpy()), rel=1e-9, abs=1e-9)


@st.composite
def strided(draw):
    """An array with these numbers in any memory: every second element, backwards, transposed."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4))
    steps = [draw(st.sampled_from([1, 2, 3, -1, -2])) for _ in shape]
    order = draw(st.permutations(range(len(shape))))
    base = numbers([shape[i] * abs(steps[i]) for i in order], draw(seeds)).transpose(
        np.argsort(order)
    )
    return base[tuple(slice(None, None, s) for s in steps)]


ANYWHERE = {
    "exp": lambda x: x.exp(),
    "sum": lambda x: x.sum(axis=0),
    "max": lambda x: x.max(axis=-1),
    "cumsum": lambda x: x.cumsum(axis=0),
    "reshape": lambda x: x.reshape(-1),
    "softmax": lambda x: ops.softmax(x, axis=0),
    "linear": lambda x: ops.linear(x, numbers((2, x.shape[-1]))),
    "slice": lambda x: x[::-2],
    "relu": lambda x: x.relu(),
    "gelu": lambda x: ops.gelu(x),
    "layer_norm": lambda x: ops.layer_norm(x, *np.ones((2, x.shape[-1]))),
}


@on_each_backend
@pytest.mark.parametrize("name", ANYWHERE)
@settings(max_examples=20)
@given(strided())
def test_strides_change_nothing(where, name, a):
    with tz.using(where):
        x, plain = leaf(a), leaf(a.copy(order="C"))
        y, same = ANYWHERE[name](x), ANYWHERE[name](plain)
        assert_same(y, same.numpy(), 1e-11)
        v = numbers(y.shape, 3)
        assert_same(tz.grad(y, [x], v)[0], tz.grad(same, [plain], v)[0].numpy(), 1e-11)
