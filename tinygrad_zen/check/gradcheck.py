"""Gradients proved by differences.

For a function with Jacobian J, differences give J u along a direction u, and the engine gives J^T v
for a gradient v of the output. Both numbers <J u, v> and <u, J^T v> must be one. With random u and v a
wrong vjp cannot hide behind a sum: a softmax whose gradient is zero, a transpose that only reshapes
and a factor that a row of ones would cancel are all found. Where the sizes are small the Jacobian is
compared entry by entry as well.
"""

import numpy as np

from ..autograd import enable_grad, grad, no_grad
from ..backend import backend as find_backend
from ..backend import default_backend
from ..tensor import Tensor
from .domains import Draw

STEPS = (
    1e-3,
    1e-4,
    1e-5,
)  # a kink close by needs the smaller ones; smooth functions never get there
COMPLEX_STEP = 1e-20  # nothing is subtracted: it may be as small as one likes
DIRECTIONS = 2  # random pairs (u, v) for each argument
JACOBIAN = 600  # the largest Jacobian that is compared entry by entry unless full says otherwise
LOOKED_AT = 4096  # the largest argument that is looked at element by element to say what is wrong


class GradientError(AssertionError):
    """A derivative that differences contradict.

    function, argument, index: where; analytic, numeric: what the engine and what differences give
    there; error: how far apart they are; slip: what the mistake looks like.
    """

    def __init__(
        self,
        function,
        argument,
        index,
        analytic,
        numeric,
        error,
        slip,
        order=1,
        judge="differences give",
    ):
        self.function, self.argument, self.index = function, argument, index
        self.analytic, self.numeric, self.error, self.slip = analytic, numeric, error, slip
        which = {1: "gradient", 2: "second derivative"}.get(order, f"derivative of order {order}")
        super().__init__(
            f"{function}: the {which} of argument {argument} is wrong at index {index}: the engine gives "
            f"{analytic:.10g}, {judge} {numeric:.10g} (relative error {error:.2g}); "
            f"likely: {slip}"
        )


def gradcheck(
    f,
    *inputs,
    order=1,
    eps=None,
    tolerance=1e-6,
    seed=0,
    full=None,
    method="differences",
    float32=None,
    backend=None,
):
    """Compare the gradients of f with differences; return the largest relative error.

    f: from Tensors to a Tensor or several. inputs: its arguments; those float64 Tensors that require a
    gradient are checked, anything else is held fixed. A domain (`tz.check.domains`: normal(3, 4),
    away(3, 4) from the kink at 0, ...) is drawn from, onto a backend (a name or a Backend).
    order=2 checks the gradient of the gradient too. float32: a budget; the gradient in float32 must
    then be that in float64 within it, relative to the largest element or 1.
    eps: the step of the (fourth-order, central) differences, chosen if None. full: whether to compare
    whole Jacobians; where they are small if None. seed: of the domains and the random directions.
    method="complex" takes Im f(x + ih) / h in place of differences: exact to the last digits even
    where f is large and its slope small, for f that is made of smooth ops and of NumPy kernels.

    Raises GradientError where a gradient is wrong: with the argument, the index, both values and the
    likely slip. TypeError for float32 inputs, whose rounding drowns differences; ValueError where
    there is nothing to check, or f is random or not finite here.
    """
    inputs = _drawn(inputs, seed, backend)
    error = max(derivative_errors(f, inputs, order, eps, tolerance, seed, full, method))
    if float32 is not None:
        float32_error(f, inputs, float32, seed)
    return error


def _drawn(inputs, seed, backend):
    """The inputs with a Tensor in the place of each domain."""
    where = default_backend() if backend is None else find_backend(backend)
    rng = np.random.default_rng(seed)
    return [
        _tensor(np.asarray(x.draw(rng)), where, x.differentiable) if isinstance(x, Draw) else x
        for x in inputs
    ]


def derivative_errors(
    f, inputs, order=1, eps=None, tolerance=1e-6, seed=0, full=None, method="differences"
):
    """As gradcheck, but the largest relative error of each order: [first, second, ...]."""
    if method not in ("differences", "complex"):
        raise ValueError(f"gradcheck: method must be 'differences' or 'complex'; got {method!r}")
    if method == "complex" and (order > 1 or eps is not None):
        raise ValueError(
            "gradcheck: a complex step is of first order and has no eps; "
            f"got order={order}, eps={eps}"
        )
    name = getattr(f, "__name__", type(f).__name__)
    checked = _checked(name, inputs)
    # a stream of its own: callers draw their inputs from default_rng(0), too, and with v = x a layer
    # that normalises has a gradient of 0
    rng = np.random.default_rng((seed, 0x67726164))
    errors = []
    for level in range(1, order + 1):
        if level > 1:
            f, inputs, checked = _gradient(f, inputs, checked, rng)
        point = _Point(name, f, inputs, checked, level, method == "complex")
        errors.append(point.check(eps, tolerance, rng, full))
    return errors


def float32_error(f, inputs, budget, seed=0):
    """How far the gradients of f in float32 are from those in float64, both at inputs that float32 can
    hold, relative to the largest element or 1. Raises GradientError beyond the budget."""
    name = getattr(f, "__name__", type(f).__name__)
    checked = _checked(name, inputs)
    single = _in_dtype(inputs, np.float32)
    double = _in_dtype(single, np.float64)
    rng = np.random.default_rng((seed, 0x33326266))
    ends = [[o for o in _floats(f(*xs)) if o.requires_grad] for xs in (single, double)]
    vs = [rng.standard_normal(o.shape).astype(np.float32) for o in ends[0]]
    pairs = [
        grad(outputs, [xs[i] for i in checked], vs, allow_unused=True) if outputs else ()
        for outputs, xs in zip(ends, (single, double), strict=True)
    ]
    worst = 0.0
    for i, low, high in zip(checked, *pairs, strict=False):  # no pairs: no gradient at all
        if low is None and high is None:
            continue
        low, high = low.numpy().astype(np.float64), high.numpy()
        gap = np.abs(low - high) / max(np.abs(high).max(initial=0.0), 1.0)
        error = float(np.max(gap, initial=0.0))
        if not error <= budget:
            index = tuple(
                map(int, np.unravel_index(np.nan_to_num(gap, nan=np.inf).argmax(), gap.shape))
            )
            raise GradientError(
                *(name, i, index, float(low[index]), float(high[index]), error),
                f"rounding in float32 beyond the budget of {budget:g}: small differences of large "
                "numbers, or sums of many in one variable",
                judge="float64 gives",
            )
        worst = max(worst, error)
    return worst


def _in_dtype(inputs, dtype):
    """The inputs with their floating-point Tensors in a dtype, as leaves."""
    return [
        Tensor(x.data.astype(dtype), x.backend, x.requires_grad)
        if isinstance(x, Tensor) and x.dtype.kind == "f"
        else x
        for x in inputs
    ]


def _checked(name, inputs):
    """The positions of the arguments that require a gradient."""
    checked = [i for i, x in enumerate(inputs) if isinstance(x, Tensor) and x.requires_grad]
    if not checked:
        raise ValueError(
            f"gradcheck: {name}: no input requires a gradient; there is nothing to check"
        )
    for i in checked:
        if inputs[i].dtype != np.float64:
            raise TypeError(
                f"gradcheck: {name}: argument {i} is {inputs[i].dtype}, whose rounding drowns "
                'differences; make it with dtype="float64"'
            )
    return checked


def _gradient(f, inputs, checked, rng):
    """The gradient of f as a function in its own right, of the inputs and of what backward starts with.

    Returns that function, its inputs and which of them are checked: all that were, and the seeds.
    """
    with no_grad():
        outputs = _floats(f(*inputs))
    seeds = [_tensor(rng.standard_normal(o.shape), o.backend, True) for o in outputs]
    n = len(inputs)

    def gradient(*args):
        xs, vs = list(args[:n]), args[n:]
        # differences come with constants: then the gradient itself need not be differentiated again
        again = any(isinstance(a, Tensor) and a.requires_grad for a in args)
        with enable_grad():
            for i in checked:
                if not xs[i].requires_grad:
                    xs[i] = xs[i].detach().requires_grad_()
            pairs = [(o, v) for o, v in zip(_floats(f(*xs)), vs, strict=True) if o.requires_grad]
            wanted = [xs[i] for i in checked]
            found = [None] * len(wanted)
            if pairs:
                found = grad(*_transposed(pairs, wanted), create_graph=again, allow_unused=True)
        return [_zeros(x) if g is None else g for x, g in zip(wanted, found, strict=True)]

    return gradient, (*inputs, *seeds), [*checked, *range(n, n + len(seeds))]


def _transposed(pairs, wanted):
    """The arguments of grad for (output, seed) pairs: outputs, inputs, seeds."""
    outputs, seeds = zip(*pairs, strict=True)
    return outputs, wanted, seeds


class _Point:
    """A function at a point: its value nearby, its vjp, and the comparison of the two."""

    def __init__(self, name, f, inputs, checked, order, complex_step=False):
        self.name, self.f, self.inputs, self.checked, self.order = name, f, inputs, checked, order
        self.complex_step = complex_step
        self.at = [inputs[i].numpy() for i in checked]
        self.outputs = _floats(f(*inputs))
        self.here = self.value(self.at)
        recorded = [o.numpy() for o in self.outputs]
        for a, b in zip(self.here, recorded, strict=True):
            if not np.isfinite(a).all():
                raise ValueError(f"gradcheck: {name} is not finite at this point: {a}")
            if not np.allclose(a, b, rtol=1e-10, atol=1e-12):
                raise ValueError(
                    f"gradcheck: {name} gives different values for the same inputs; fix its random numbers"
                    if order == 1
                    else f"gradcheck: {name}: create_graph=True gives {b}, create_graph=False {a}"
                )

    def value(self, xs):
        """All outputs at the checked inputs xs, as arrays; nothing is recorded."""
        args = list(self.inputs)
        for i, x in zip(self.checked, xs, strict=True):
            args[i] = _tensor(x, self.inputs[i].backend)
        with no_grad():
            return [o.numpy() for o in _floats(self.f(*args))]

    def pull(self, k, vs):
        """J^T v for the k-th checked input: the engine's gradient, zeros where nothing comes back."""
        x = self.inputs[self.checked[k]]
        pairs = [
            (o, _tensor(v, o.backend))
            for o, v in zip(self.outputs, vs, strict=True)
            if o.requires_grad
        ]
        g = None
        if pairs:
            (g,) = grad(*_transposed(pairs, [x]), retain_graph=True, allow_unused=True)
        return np.zeros(x.shape) if g is None else g.numpy()

    def push(self, k, u, step):
        """J u for a direction u of the k-th checked input: differences of fourth order, or Im f / step."""

        def moved(by):
            xs = list(self.at)
            xs[k] = xs[k] + by * step * u
            return self.value(xs)

        if self.complex_step:
            return [np.imag(o) / step for o in moved(1j)]
        return [
            (8 * (b - c) - (a - d)) / (12 * step)
            for a, b, c, d in zip(moved(2), moved(1), moved(-1), moved(-2), strict=True)
        ]

    def check(self, eps, tolerance, rng, full):
        """Directions first, then whole Jacobians; returns the largest relative error."""
        steps = (COMPLEX_STEP,) if self.complex_step else STEPS if eps is None else (eps,)
        worst = 0.0
        for k in range(len(self.checked)):
            if self.at[k].size == 0:
                continue
            for _ in range(DIRECTIONS):
                vs = [rng.standard_normal(o.shape) for o in self.here]
                u = rng.standard_normal(self.at[k].shape)
                pulled = self.pull(k, vs)
                if not np.isfinite(pulled).all():
                    raise self._blame_infinite(k, vs, pulled, steps[-1])
                error = self._settle(
                    steps, tolerance, lambda h: self._along(k, u, vs, pulled, h, tolerance)
                )
                if not error <= tolerance:
                    raise self._blame(k, vs, pulled, steps[-1], error)
                worst = max(worst, error)
            entries = self.at[k].size * sum(o.size for o in self.here)
            if entries <= JACOBIAN if full is None else full:
                worst = max(worst, self._jacobian(k, steps, tolerance))
        return worst

    @staticmethod
    def _settle(steps, tolerance, error_at):
        """The smallest error; smaller steps are taken only while it is not clearly within tolerance."""
        error = np.inf
        for step in steps:
            error = min(error, error_at(step))
            if error <= tolerance / 1000:
                break
        return error

    def _along(self, k, u, vs, pulled, step, tolerance):
        """How far <J u, v> and <u, J^T v> are apart, relative to the larger."""
        pushed = self.push(k, u, step)
        numeric = sum(np.vdot(p, v) for p, v in zip(pushed, vs, strict=True))
        analytic = np.vdot(u, pulled)
        # a product of random vectors may come out near 0 by chance: the length of J^T v is its size
        return self._error(analytic, numeric, np.linalg.norm(pulled), vs, step, tolerance)

    def _error(self, analytic, numeric, size, vs, step, tolerance):
        """|analytic - numeric| relative to the largest of both, of size and of what is visible at all."""
        rounding = np.finfo(np.float64).eps / (1 if self.complex_step else step)
        noise = rounding * max(
            (np.abs(o * v).max(initial=0.0) for o, v in zip(self.here, vs, strict=True)),
            default=0.0,
        )
        scale = np.maximum(
            np.maximum(np.abs(analytic), np.abs(numeric)), max(size, noise / tolerance)
        )
        gap = np.abs(analytic - numeric)
        return float(
            np.max(np.divide(gap, scale, out=np.zeros_like(gap), where=gap != 0), initial=0.0)
        )

    def _jacobian(self, k, steps, tolerance):
        """Compare the Jacobian entry by entry: a row for each output element, a column for each input."""
        n = self.at[k].size
        units = []
        for which, out in enumerate(self.here):
            for j in range(out.size):
                units.append([np.zeros(o.shape) for o in self.here])
                units[-1][which] = _unit(out, j)
        analytic = np.array([self.pull(k, vs).reshape(-1) for vs in units]).reshape(-1, n)
        ones = [np.ones(o.shape) for o in self.here]
        # an entry that is smaller still is judged as if it were a thousandth of the largest
        small = 1e-3 * np.abs(analytic).max(initial=0.0)

        def error_at(step):
            columns = [
                np.concatenate([p.reshape(-1) for p in self.push(k, _unit(self.at[k], j), step)])
                for j in range(n)
            ]
            return self._error(analytic, np.array(columns).T, small, ones, step, tolerance)

        error = self._settle(steps, tolerance, error_at)
        if not error <= tolerance:
            worst = max(units, key=lambda vs: self._mismatch(k, vs, steps[-1]))
            raise self._blame(k, worst, self.pull(k, worst), steps[-1], error)
        return error

    def _mismatch(self, k, vs, step):
        return np.abs(self.pull(k, vs) - self._numeric(k, vs, step)).max()

    def _numeric(self, k, vs, step):
        """J^T v for the k-th checked input by differences, element by element."""
        x = self.at[k]
        return np.array([self._slope(k, vs, _unit(x, j), step) for j in range(x.size)]).reshape(
            x.shape
        )

    def _slope(self, k, vs, u, step):
        """<J u, v> by differences."""
        return sum(np.vdot(p, v) for p, v in zip(self.push(k, u, step), vs, strict=True))

    def _blame(self, k, vs, analytic, step, error):
        """Where the gradient J^T v of the k-th checked input is wrong, and what it looks like."""
        if analytic.size <= LOOKED_AT:
            numeric = self._numeric(k, vs, step)
            index = np.unravel_index(np.abs(analytic - numeric).argmax(), analytic.shape)
            there, slip = numeric[index], self._slip(k, vs, analytic, numeric, step, index)
        else:
            at = self._search(k, vs, analytic, step)
            index = np.unravel_index(at, analytic.shape)
            there, slip = self._slope(k, vs, _unit(analytic, at), step), NO_SLIP
        index = tuple(int(i) for i in index)
        values = float(analytic[index]), float(there)
        return GradientError(self.name, self.checked[k], index, *values, error, slip, self.order)

    def _blame_infinite(self, k, vs, analytic, step):
        """Where the gradient J^T v is no finite number, though the function is smooth there."""
        index = tuple(map(int, np.argwhere(~np.isfinite(analytic))[0]))
        unit = _unit(analytic, np.ravel_multi_index(index, analytic.shape) if index else 0)
        values = float(analytic[index]), float(self._slope(k, vs, unit, step))
        slip = "a division by 0, or a logarithm or root outside of its domain, in the vjp"
        return GradientError(self.name, self.checked[k], index, *values, np.inf, slip, self.order)

    def _search(self, k, vs, analytic, step):
        """A wrong element of a large gradient: always the half that differs more, down to one."""
        u = np.random.default_rng(0).standard_normal(analytic.size)

        def gap(part):
            direction = np.zeros(analytic.size)
            direction[part] = u[part]
            direction = direction.reshape(analytic.shape)
            return abs(self._slope(k, vs, direction, step) - np.vdot(direction, analytic))

        part = np.arange(analytic.size)
        while part.size > 1:
            part = max(np.array_split(part, 2), key=gap)
        return int(part[0])

    def _slip(self, k, vs, analytic, numeric, step, index):
        """The commonest mistakes in gradients, each recognised by what it leaves behind."""
        if not analytic.any():
            return "it is zero: a vjp that gives zeros, or a detach() on the way"
        if _close(analytic, -numeric):
            return "the sign is wrong"
        if numeric.any():
            factor = np.vdot(analytic, numeric) / np.vdot(numeric, numeric)
            if _close(analytic, factor * numeric):
                return f"a scale factor: it is {factor:.6g} times what it should be"
        if analytic.ndim > 1 and analytic.T.shape == analytic.shape and _close(analytic, numeric.T):
            return "it is transposed"
        if _close(np.sort(analytic, axis=None), np.sort(numeric, axis=None)):
            return "the right values in the wrong places: a transpose, reshape or flip is missing or too many"
        if self._kink(k, vs, step, index):
            return "no slip: the function has a kink here, where the slopes on both sides differ"
        axis = self._unsummed_axis(k, vs, analytic, step)
        if axis is not None:
            return f"a missing sum over axis {axis} of the output, along which the argument was broadcast"
        same = np.isclose(analytic, numeric, rtol=1e-4, atol=1e-7)
        for odd, words in (
            (~same & (analytic == 0), "zero where it should not be"),
            (~same & (np.abs(numeric) < 1e-7), "not zero where it should be"),
        ):
            if odd.any() and (same | odd).all():
                return (
                    f"a mask that is off: it is {words}, at {int(odd.sum())} of {odd.size} elements"
                )
        return NO_SLIP

    def _kink(self, k, vs, step, index):
        """Whether the slopes just before and just behind this point differ."""
        u = np.zeros(self.at[k].shape)
        u[index] = 1.0

        def at(by):
            xs = list(self.at)
            xs[k] = xs[k] + by * u
            return sum(np.vdot(o, v) for o, v in zip(self.value(xs), vs, strict=True))

        ahead, behind = (at(step) - at(0)) / step, (at(0) - at(-step)) / step
        return abs(ahead - behind) > 1e-2 * max(abs(ahead), abs(behind))

    def _unsummed_axis(self, k, vs, analytic, step):
        """The axis of the output of which only the first or the last slice came back, if there is one."""
        for which, v in enumerate(vs):
            for axis in range(v.ndim):
                for place in {0, v.shape[axis] - 1} if v.shape[axis] > 1 else ():
                    part = [np.zeros_like(o) for o in vs]
                    only = tuple(place if a == axis else slice(None) for a in range(v.ndim))
                    part[which][only] = v[only]
                    if _close(analytic, self._numeric(k, part, step)):
                        return axis
        return None


NO_SLIP = "none of the common slips"


def _close(a, b):
    return np.allclose(a, b, rtol=1e-4, atol=1e-6 * max(np.abs(b).max(initial=0.0), 1e-30))


def _unit(x, j):
    """A direction along one element of x."""
    return np.eye(1, x.size, j).reshape(x.shape)


def _tensor(array, backend, requires_grad=False):
    return Tensor(backend.array(array), backend, requires_grad)


def _zeros(x):
    return _tensor(np.zeros(x.shape), x.backend)


def _floats(outputs):
    """The Tensors of real (or complex) numbers among what a function returned."""
    outputs = outputs if isinstance(outputs, tuple | list) else [outputs]
    return [o for o in outputs if o.dtype.kind in "fc"]  # complex: under a complex step
