"""The card of an op, for a terminal and for a notebook."""

import ast
import difflib
import functools
import inspect

import numpy as np

from .. import ops
from ..backend import default_backend
from ..check.samples import SAMPLES
from ..check.table import by_op, check_op
from ..tensor import Tensor
from ..view.source import code_of
from . import arrays, elementwise, layers, losses
from ._tools import Outside
from .cost import Cost, counted, size
from .latex import latex
from .source import conditions, kernels_of, rungs, taken_apart, tools


@functools.cache
def formulas():
    """{op: its formula}, of all ops that have one."""
    found = {}
    for module in (elementwise, arrays, layers, losses):
        for name, value in vars(module).items():
            if inspect.isfunction(value) and value.__module__ == module.__name__:
                found[name.rstrip("_")] = value
    return found


def explain(name, *args, **options):
    """The card of an op: formula, gradients, cost, proof and kernels: -> Card.

        tz.explain("softmax")                              # in a notebook; or print(tz.explain(...))
        tz.explain("matmul", a, b)                         # the cost of this very call
        print(tz.explain("matmul").code("matmul_tiled"))   # one rung of the ladder

    name: an op of tinygrad_zen.ops. args, options: a call of it, arrays or Tensors, whose cost is
    counted; a small one if none are given. Raises ValueError for an unknown name, listing close ones,
    and for a call that the formula does not speak of.
    """
    known = formulas()
    if not isinstance(name, str):
        raise TypeError(
            f'explain: the name of an op is needed, like "softmax"; got {type(name).__name__}'
        )
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        close += [k for k in known if name and name in k and k not in close]
        if close:
            raise ValueError(f"explain: no op {name!r}; did you mean {', '.join(close)}?")
        raise ValueError(f"explain: no op {name!r}; there are {', '.join(sorted(known))}")
    return Card(name, known[name], args, options)


class Card:
    """What is known of an op; explain() makes it, print() and notebooks show it.

    name; words: what the op says of itself; formula: the function of NumPy that defines value and
    gradients, see cards/_tools.py; costs: a Cost for the value and for each gradient, counted on
    `call`; kernels: {kernel: its Rungs}.
    """

    def __init__(self, name, formula, args=(), options=None):
        self.name, self.formula = name, formula
        self.op = getattr(ops, name)
        self.words = inspect.getdoc(self.op) or ""
        self._parts = taken_apart(formula)
        self._mathematics = None if self._parts is None else _mathematics(self._parts)
        if args or options:
            self.call, self.costs = _words_of(name, args, options), self._count(args, options)
        else:
            self.call, self.costs = self._first_sample()

    @functools.cached_property
    def kernels(self):
        return {kernel: rungs(kernel) for kernel in kernels_of(self.op)}

    @functools.cached_property
    def error(self):
        """The largest relative errors of first and second derivatives, measured now.

        Over all samples of the op, against differences in float64, on the default backend; NaN for a
        derivative that it has not.
        """
        errors, wrong = check_op(by_op(SAMPLES)[self.name], 0, default_backend().name)
        if wrong:
            raise AssertionError(wrong[0])
        return tuple(float(e) for e in errors[:2])

    def code(self, name=None):
        """The source of a kernel or of a rung; of all, and of the op itself, if no name is given.

        Raises ValueError for a name that is not of this op.
        """
        every = [rung for found in self.kernels.values() for rung in found]
        chosen = [r for r in every if name in (None, r.name, r.kernel)]
        if not chosen and name is not None:
            names = ", ".join(dict.fromkeys(r.name for r in every)) or "none"
            raise ValueError(f"code: {self.name} has no kernel {name!r}; there are {names}")
        parts = [f"# {r.file}\n{r.code}" for r in chosen]
        if name is None:
            parts.insert(0, f"# {self.op.__module__}\n{code_of(getattr(self.op, 'body', self.op))}")
        return "\n\n\n".join(parts)

    # what it costs

    def _first_sample(self):
        """The first call of the table of samples that the formula speaks of: in words, and its costs."""
        for sample in by_op(SAMPLES)[self.name]:
            try:
                return str(sample), sample(*sample.arrays(), function=self._count_call)
            except Outside:
                continue
        raise Outside(f"explain: {self.name} has no sample that its formula speaks of")

    def _count_call(self, *args, **options):
        return self._count(args, options)

    def _count(self, args, options):
        args = [_array(a) for a in args]
        try:
            inspect.signature(self.formula).bind(*args, **options)
        except TypeError as e:
            raise Outside(f"explain: {self.name}: the formula takes no such call: {e}") from None
        try:
            with np.errstate(all="ignore"):
                (value, vjps), since = counted(lambda *a: self.formula(*a, **options), *args)
                costs = [Cost("value", since()[0], size(args) + size(value), 0)]
                g = [*map(np.ones_like, value)] if isinstance(value, list) else np.ones_like(value)
                since()  # what made g does not count
                for name, vjp in self._named(vjps):
                    result = vjp(g)
                    flops, touched = since()
                    saved = size(vjp, among=touched)
                    costs.append(Cost(name, flops, saved + size(g) + size(result), saved))
        except ValueError as e:  # Outside, or what NumPy says of shapes that do not fit
            raise type(e)(f"explain: {self.name}: {e}") from None
        return costs

    def _named(self, vjps):
        if callable(vjps):
            return [("gradients of all", vjps)]
        names = inspect.signature(self.formula).parameters
        return [(n, v) for n, v in zip(names, vjps, strict=False) if v is not None]

    # how it is shown

    def __repr__(self):
        return f"<Card of {self.name}: print it, or show it in a notebook>"

    def __str__(self):
        lines = [self._signature(), *_indented(self.words), "", "formula"]
        if self._parts is None:
            lines += _indented(_plain(code_of(self.formula)))
        else:
            steps, value, gradients = self._parts
            lines += [f"  {_unparsed(name)} = {_unparsed(e)}" for name, e in steps]
            lines += [
                f"  value: {_unparsed(value)}",
                "",
                "carried back, g being the gradient of the value",
            ]
            lines += [f"  {name}: {_unparsed(e)}" for name, e in gradients if e is not None]
        lines += _indented("\n".join(self._notes()))
        lines += ["", f"cost of {self.call}, in float32"]
        width = max(len(c.what) for c in self.costs)
        lines += [
            f"  {c.what:{width}}  {c.flops:,} operations, {c.bytes:,} bytes"
            + (f", {c.saved:,} of them kept from the way there" if c.saved else "")
            for c in self.costs
        ]
        lines += ["", self._proof(), "", "kernels"]
        for kernel, found in self.kernels.items():
            lines.append(f"  {kernel}")
            width = max(len(r.name) for r in found)
            lines += [f"    {r.file:32} {r.name:{width}}  {r.words}".rstrip() for r in found]
        lines += (
            ["  their code: card.code(), or card.code(name)"]
            if self.kernels
            else ["  none: array expressions"]
        )
        return "\n".join(lines)

    def _repr_markdown_(self):
        parts = [f"### {self.name}", f"`{self._signature()}`", self.words]
        if self._mathematics is None:
            parts += ["**Formula**", f"```python\n{_plain(code_of(self.formula))}\n```"]
        else:
            forward, back = self._mathematics
            words = "**Carried back**, $g$ being the gradient of the value"
            parts += ["**Formula**", forward]
            parts += [f"{words} (what was broadcast is summed up)", back]
        parts += self._notes()
        table = ["| in float32 | operations | bytes | of them kept |", "|---|---:|---:|---:|"]
        table += [f"| {c.what} | {c.flops:,} | {c.bytes:,} | {c.saved:,} |" for c in self.costs]
        parts += [f"**Cost** of `{self.call}`", "\n".join(table), f"**Proof** {self._proof()}."]
        for kernel, found in self.kernels.items():
            parts.append(f"**Kernel** `{kernel}`")
            parts += [
                f"<details><summary><code>{r.name}</code> in {r.file}: {r.words}</summary>\n\n"
                f"```python\n{r.code}\n```\n\n</details>"
                for r in found
            ]
        return "\n\n".join(parts)

    def _signature(self):
        signature = inspect.signature(getattr(self.op, "body", self.op))
        shown = [p for p in signature.parameters.values() if p.name != "be"]
        return f"{self.name}{signature.replace(parameters=shown)}"

    def _notes(self):
        """Lines on the formula: its tools, where it holds, and the arguments that it leaves out."""
        lines = [f"{name}: {words}" for name, words in tools(self.formula).items()]
        told = conditions(self.formula)
        lines += [f"Holds for {'; '.join(told)}."] if told else []
        left = _left_out(getattr(self.op, "body", self.op), self.formula)
        return lines + ([f"Leaves out {', '.join(left)}."] if left else [])

    def _proof(self):
        first, second = self.error
        count = len(by_op(SAMPLES)[self.name])
        if np.isnan(first):
            return f"no derivative to measure in {count} samples"
        more = "" if np.isnan(second) else f", of the second {second:.1e}"
        return (
            f"largest relative error of the gradient against differences {first:.1e}{more}: "
            f"{count} samples in float64 on {default_backend().name}, measured now"
        )


def _left_out(body, formula):
    """The arguments of an op that its formula does not take."""

    def split(function):
        names = [p for p in inspect.signature(function).parameters.values() if p.name != "be"]
        options = [p.name for p in names if p.kind == p.KEYWORD_ONLY]
        return [p.name for p in names if p.name not in options], options

    (data, options), (own, taken) = split(body), split(formula)
    return [n for n in data[len(own) :] + options if n not in taken]


def _array(a):
    """A Tensor as a NumPy array, in lists as well; anything else as it is."""
    if isinstance(a, list | tuple):
        return type(a)(map(_array, a))
    return a.numpy() if isinstance(a, Tensor) else a


def _words_of(name, args, options):
    def word(a):
        if isinstance(a, list):
            return f"[{', '.join(map(word, a))}]"
        return "x".join(map(str, np.shape(a))) if np.ndim(a) else repr(a)

    return f"{name}({', '.join([*map(word, args), *(f'{k}={v!r}' for k, v in options.items())])})"


def _plain(code):
    return code.replace("np.", "").replace("math.", "")


def _unparsed(node):
    return _plain(ast.unparse(node))


def _indented(text):
    return [f"  {line}".rstrip() for line in text.splitlines()]


def _mathematics(parts):
    """A Formula as (value, gradients) in LaTeX; None where something in it has no such form."""
    steps, value, gradients = parts
    rows = [(latex(name), latex(e)) for name, e in steps]
    shown = latex(value)
    if shown not in [name for name, _ in rows]:
        rows.append((r"\text{value}", shown))
    back = [(rf"\bar{{{latex(ast.Name(n))}}}", latex(e)) for n, e in gradients if e is not None]
    both = _aligned(rows), _aligned(back)
    return None if r"\texttt" in "".join(both) else both


def _aligned(rows):
    lines = r" \\ ".join(f"{left} &= {right}" for left, right in rows)
    return rf"$$\begin{{aligned}} {lines} \end{{aligned}}$$"
