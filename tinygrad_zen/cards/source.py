"""The code behind an op: its formula taken apart, its kernels, and the rungs of their ladders."""

import ast
import functools
import importlib
import inspect
import textwrap
from types import FunctionType
from typing import NamedTuple

from ..check.ladders import first_line, kernel_names, ladders, origin, style
from ..view.source import body_of, code_of, kernels_in

STYLES = {"reference": "numpy", "cpu": "numba", "cuda": "cuda"}  # by a backend that takes them


class Formula(NamedTuple):
    """A formula that is made of expressions alone. steps: (name, expression) before the value.

    value: an expression. gradients: (argument, expression or None). All are syntax trees.
    """

    steps: list
    value: ast.expr
    gradients: list


def taken_apart(function):
    """A function of the formulas as a Formula; None where it has loops or functions of its own."""
    definition = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    *before, last = definition.body
    steps = []
    for statement in before:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            steps.append((statement.targets[0], statement.value))
        elif not isinstance(statement, ast.Expr):  # only(...) says where it holds
            return None
    if not (isinstance(last, ast.Return) and isinstance(last.value, ast.Tuple)):
        return None
    value, gradients = last.value.elts
    if not isinstance(gradients, ast.Tuple):
        return None
    bodies = [getattr(g, "body", None) for g in gradients.elts]
    known = [isinstance(g, ast.Lambda | ast.Constant) for g in gradients.elts]
    names = list(inspect.signature(function).parameters)
    return Formula(steps, value, list(zip(names, bodies, strict=False))) if all(known) else None


def conditions(function):
    """What a formula holds for, in words."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
    named = [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "only"]
    return [c.args[1].value for c in named]


def tools(function):
    """{name: first line} of the tools that a formula is written with and that have a docstring."""
    found = {n: function.__globals__.get(n) for n in _names_in(function.__code__)}
    return {
        name: first_line(tool)
        for name, tool in found.items()
        if isinstance(tool, FunctionType) and tool.__module__.endswith("._tools") and tool.__doc__
        if name != "only"
    }


def _names_in(code):
    """All global names of a piece of code and of the functions inside it, in their order."""
    inner = [c for c in code.co_consts if hasattr(c, "co_names")]
    return dict.fromkeys([*code.co_names, *(n for c in inner for n in _names_in(c))])


def kernels_of(op):
    """The names of the kernels that an op calls, forward and back, in their order."""
    seen, found = set(), []

    def look(function):
        function = body_of(function)
        if not isinstance(function, FunctionType) or function in seen:
            return
        seen.add(function)
        found.extend(kernels_in(code_of(function)))
        for name in function.__code__.co_names:
            look(function.__globals__.get(name))

    look(op)
    known = kernel_names(style("numpy"))
    return [name for name in dict.fromkeys(found) if name in known]


class Rung(NamedTuple):
    """A kernel, or one rung of its ladder. style: the folder of kernels; file: where it stands in it."""

    kernel: str
    style: str
    file: str
    name: str
    words: str
    code: str


@functools.cache
def rungs(kernel):
    """All code of a kernel: the reference, and each rung of its ladders or the kernel itself.

    A style that needs a library which is not installed is left out.
    """
    found = []
    for folder, backend in STYLES.items():
        try:
            module = style(backend)
        except ImportError:
            continue
        if folder != "reference" and origin(module, kernel) == "reference":
            continue
        for function in ladders(module).get(kernel, (getattr(module, kernel),)):
            file = function.__module__.rpartition(".")[2]
            found.append(
                Rung(
                    kernel,
                    folder,
                    f"kernels/{folder}/{file}.py",
                    function.__name__,
                    first_line(function),
                    _with_helpers(function),
                )
            )
    return found


def _with_helpers(function):
    """The source of a function and of those of its own file that it uses, as they stand there."""
    text, parts = _definitions(function.__module__)
    wanted, queue = [], [function.__name__]
    while queue:
        name = queue.pop(0)
        if name in wanted or name not in parts:
            continue
        wanted.append(name)
        queue += [n.id for n in ast.walk(parts[name]) if isinstance(n, ast.Name)]
    lines = text.splitlines()
    return "\n\n\n".join(
        "\n".join(lines[_first(p) - 1 : p.end_lineno]) for p in (parts[n] for n in wanted)
    )


@functools.cache
def _definitions(module):
    """(text, {name: syntax tree}) of the functions of a module."""
    text = inspect.getsource(importlib.import_module(module))
    return text, {n.name: n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef)}


def _first(definition):
    return min([definition.lineno, *(d.lineno for d in definition.decorator_list)])
