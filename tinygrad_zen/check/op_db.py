"""PyTorch's own database of operators as a judge: its sample inputs for every op that we have.

`torch.testing._internal.common_methods_invocations.op_db` holds, for each operator of PyTorch, the
calls that PyTorch tests itself with: odd shapes, strides, axes, options. `op_calls.TABLE` says how a
call of theirs is one of ours; `judge(name)` runs them on both sides in float64 and compares values and
gradients for a random gradient of the result. What we do not offer is skipped with its reason.
"""

import functools
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from ..autograd import grad
from ..backend import backend as find_backend
from ..tensor import Tensor
from .op_calls import TABLE, Unsupported

TOLERANCE = 1e-10  # of values and gradients, relative to the largest element and to 1


class Disagreement(AssertionError):
    """A value or gradient that is not PyTorch's."""


@dataclass
class Verdict:
    """What came of an operator's samples: how many ran, the largest errors, what was skipped and why."""

    name: str
    ran: int = 0
    value: float = 0.0
    gradient: float = 0.0
    skipped: Counter = field(default_factory=Counter)


def judge(name, backend="numpy", most=None, tolerance=TOLERANCE, seed=0):
    """Run the samples of an operator (a name of TABLE) on PyTorch and on us; -> Verdict.

    most: run about so many of the samples, spread evenly; all if None. Raises Disagreement where a
    shape, value or gradient differs by more than tolerance, and ImportError without PyTorch or
    expecttest, which the extra `judges` installs.
    """
    import torch

    ours, info = TABLE[name], _database()[name]
    where = find_backend(backend)
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    verdict = Verdict(name)
    samples = list(info.sample_inputs("cpu", torch.float64, requires_grad=info.supports_autograd))
    step = 1 if most is None else -(-len(samples) // most) | 1  # odd: options come in pairs
    for sample in samples[::step]:
        case = _Case(sample, where)
        try:
            values = _several(ours(*case.args, **case.kwargs))
        except Unsupported as e:
            verdict.skipped[str(e)] += 1
            continue
        except Exception as e:
            raise Disagreement(f"{name}: {case}: {type(e).__name__}: {e}") from e
        expected = _several(info.op(*case.their_args, **case.their_kwargs))
        value, gradient = case.compare(name, values, expected, tolerance, rng)
        verdict.ran += 1
        verdict.value = max(verdict.value, value)
        verdict.gradient = max(verdict.gradient, gradient)
    return verdict


@functools.cache
def _database():
    """{operator, or operator:variant: OpInfo}."""
    try:
        from torch.testing._internal.common_methods_invocations import op_db
    except ImportError as e:
        raise ImportError(f'op_db: {e}; `pip install "tinygrad-zen[judges]"`') from e
    return {":".join(filter(None, (o.name, o.variant_test_name))): o for o in op_db}


class _Case:
    """One sample: the arguments as PyTorch takes them, leaves all, and as we do, on shared memory."""

    def __init__(self, sample, where):
        self.where, self.pairs = where, []
        self.their_args, self.args = self._both([sample.input, *sample.args])
        self.their_kwargs, self.kwargs = self._both(dict(sample.kwargs))

    def _both(self, value):
        import torch

        if isinstance(value, torch.Tensor):
            theirs = value.detach()
            data = theirs.resolve_conj().resolve_neg().numpy()
            ours = Tensor(self.where.array(data), self.where)
            if value.requires_grad:
                theirs, ours.requires_grad = theirs.requires_grad_(), True
                self.pairs.append((ours, theirs))
            return theirs, ours
        if isinstance(value, dict):
            both = {k: self._both(v) for k, v in value.items()}
            return {k: t for k, (t, _) in both.items()}, {k: o for k, (_, o) in both.items()}
        if isinstance(value, list | tuple) and not isinstance(value, torch.Size):
            both = [self._both(v) for v in value]
            return type(value)(t for t, _ in both), type(value)(o for _, o in both)
        if isinstance(value, torch.dtype):
            return value, str(value).rpartition(".")[2]
        return value, tuple(value) if isinstance(value, torch.Size) else value

    def __str__(self):
        words = [_words(a) for a in self.args] + [
            f"{k}={_words(v)}" for k, v in self.kwargs.items()
        ]
        return f"({', '.join(words)})"

    def compare(self, name, values, expected, tolerance, rng):
        """The errors of values and of gradients; raises Disagreement where one is too large."""
        import torch

        if len(values) != len(expected):
            raise Disagreement(
                f"{name}{self}: {len(values)} results; PyTorch gives {len(expected)}"
            )
        worst = [0.0, 0.0]
        for i, (y, t) in enumerate(zip(values, expected, strict=True)):
            worst[0] = max(worst[0], self._error(f"{name}{self}: result {i}", y, t, tolerance))
        ends = [(y, t) for y, t in zip(values, expected, strict=True) if t.requires_grad]
        if ends and self.pairs:
            vs = [rng.standard_normal(y.shape) for y, _ in ends]
            theirs = torch.autograd.grad(
                [t for _, t in ends],
                [t for _, t in self.pairs],
                [torch.from_numpy(np.asarray(v)) for v in vs],
                allow_unused=True,
            )
            live = [(y, v) for (y, _), v in zip(ends, vs, strict=True) if y.requires_grad]
            ys, vs = zip(*live, strict=True) if live else ((), ())
            ours = grad(ys, [x for x, _ in self.pairs], vs, allow_unused=True)
            for i, ((x, _), g, t) in enumerate(zip(self.pairs, ours, theirs, strict=True)):
                g = Tensor(np.zeros(x.shape), x.backend) if g is None else g
                t = torch.zeros(x.shape, dtype=torch.float64) if t is None else t
                what = f"{name}{self}: the gradient of input {i}"
                worst[1] = max(worst[1], self._error(what, g, t, tolerance))
        return worst

    @staticmethod
    def _error(what, ours, theirs, tolerance):
        a, b = ours.numpy(), theirs.detach().resolve_conj().numpy()
        if a.shape != b.shape or a.dtype.kind != b.dtype.kind:
            raise Disagreement(f"{what} is {a.dtype} {a.shape}; PyTorch's is {b.dtype} {b.shape}")
        if a.dtype.kind == "b":
            a, b = a.astype(int), b.astype(int)
        same = (a == b) | ((a != a) & (b != b))  # infinities and NaN, too
        gap = np.where(same, 0, np.abs(np.where(same, 0, a) - np.where(same, 0, b)))
        finite = np.abs(b[np.isfinite(b)]).max(initial=1.0)
        error = float(gap.max(initial=0) / finite)
        if not error <= tolerance:
            at = np.unravel_index(np.nan_to_num(gap, nan=np.inf).argmax(), gap.shape)
            raise Disagreement(
                f"{what} is {a[at]} at {tuple(map(int, at))}; PyTorch's is {b[at]} (error {error:.2g})"
            )
        return error


def _several(outputs):
    return list(outputs) if isinstance(outputs, tuple | list) else [outputs]


def _words(a):
    if isinstance(a, Tensor):
        return f"{a.dtype}{list(a.shape)}"
    if isinstance(a, list | tuple):
        return f"[{', '.join(map(_words, a))}]"
    return repr(a)
