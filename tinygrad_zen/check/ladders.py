"""python -m tinygrad_zen kernels: which kernel each backend runs, and the ladders of the hot ones."""

import argparse
import ast
import importlib
import inspect
import textwrap
from types import FunctionType

from ..backend import LOADERS, backends

# which folder of kernels a backend takes its functions from
STYLES = {
    "numpy": "reference",
    "numba": "cpu",
    "cupy": "reference",
    "cuda": "cuda",
    "cudasim": "cuda",
}


def main(argv=None):
    """Print the tables; -> the exit code: 0, or 2 for wrong usage."""
    parser = argparse.ArgumentParser(
        prog="python -m tinygrad_zen kernels",
        description="Which kernel each backend runs, and the ladders: from slow and plain to fast.",
    )
    parser.add_argument(
        "--op", action="append", metavar="NAME", help="only this kernel (may be repeated)"
    )
    parser.add_argument(
        "--backend", action="append", choices=LOADERS, help="only this backend (may be repeated)"
    )
    args = parser.parse_args(argv)
    names = kernel_names(style("numpy"))
    unknown = set(args.op or ()) - set(names)
    if unknown:
        parser.error(f"unknown kernel {', '.join(sorted(unknown))}: choose from {', '.join(names)}")
    chosen = [name for name in names if not args.op or name in args.op]
    report(chosen, args.backend or list(LOADERS))
    return 0


def report(names, wanted):
    """Print which of these backends run, whose kernels they take, and the ladders among them."""
    modules = {}  # style -> its namespace, where that can be imported
    print("backends")
    for name, state in backends().items():
        if name not in wanted:
            continue
        folder, why = STYLES[name], ""
        try:
            modules[folder] = style(name)
        except ImportError as e:
            why = f"; its kernels cannot be shown ({e})"
        print(f"  {name:8} kernels/{folder:10} {state}{why}")
    print("\nkernels: from which file of kernels/ each backend takes them")
    table = [
        [kernel, *(origin(modules.get(STYLES[name]), kernel) for name in wanted)]
        for kernel in names
    ]
    widths = [max(map(len, column)) for column in zip(["", *wanted], *table, strict=True)]
    for row in (["", *wanted], *table):
        cells = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        print(("  " + "  ".join(cells)).rstrip())
    for folder, module in modules.items():
        for op, rungs in ladders(module).items():
            if op in names:
                users = [b for b in wanted if STYLES[b] == folder]
                print(f"\nladder of {op}, kernels/{folder} ({', '.join(users)})")
                print_ladder(op, rungs, module)


def print_ladder(op, rungs, module):
    """A line for each rung, slowest first; the ones that the kernel runs by default are marked."""
    default, why = choice(op, module)
    width = max(len(rung.__name__) for rung in rungs)
    for rung in rungs:
        mark = "*" if rung in default else " "
        print(f"  {mark} {rung.__name__:{width}}   {first_line(rung)}")
    print(f"  * runs by default: {why}")


def style(name):
    """The namespace of kernels behind a backend, also of one that cannot run here.

    Raises ImportError where it needs a library that is not installed.
    """
    return importlib.import_module(f"tinygrad_zen.kernels.{STYLES[name]}")


def kernel_names(module):
    """The names of a style's kernels, in the order of its list."""
    return [
        name
        for name, value in vars(module).items()
        if isinstance(value, FunctionType) and not name.startswith("_")
    ]


def origin(module, kernel):
    """Which file a style takes a kernel from: "cpu/linear", "reference"; "?" for no module."""
    if module is None:
        return "?"
    folder, file = getattr(module, kernel).__module__.split(".")[-2:]
    return "reference" if folder == "reference" else f"{folder}/{file}"


def ladders(module):
    """{kernel: its rungs, slowest first} of a style; the reference has none."""
    return getattr(module, "LADDERS", {})


def choice(op, module):
    """Which rungs of a ladder the public kernel runs, and why: ([rung, ...], words).

    The kernel is a rung itself, or a function that names the rungs it chooses from, perhaps in a
    helper of the same file. What is told is read from that function, so it cannot grow stale.
    """
    kernel, rungs = getattr(module, op), ladders(module)[op]
    if kernel in rungs:
        return [kernel], "at every size"
    kernel = inspect.unwrap(kernel)
    chooser, named = _chooser(kernel, rungs)
    if len(named) == 1:
        # what its docstring says beyond that of the reference is about the choice
        own = first_line(chooser) != first_line(getattr(style("numpy"), op))
        remark = first_line(chooser).partition(". ")[2] if own else ""
        return named, remark.rstrip(".") or "at every size"
    rule = _rule(chooser, {rung.__name__ for rung in named})
    helpers = [first_line(chooser)] if chooser is not kernel else []
    helpers += [
        f"{helper.__name__}: {first_line(helper)}"
        for helper in _helpers(chooser)
        if rule and helper.__name__ in rule and first_line(helper)
    ]
    return named, ". ".join(filter(None, [rule, *(line.rstrip(".") for line in helpers)]))


def _chooser(kernel, rungs):
    """The function that names rungs, the kernel or the first of its helpers; and those rungs."""
    for function in (kernel, *_helpers(kernel)):
        named = [rung for rung in rungs if rung.__name__ in function.__code__.co_names]
        if named:
            return function, named
    return kernel, []


def _helpers(function):
    """The private functions of the same file that a function calls."""
    found = (function.__globals__.get(name) for name in function.__code__.co_names)
    return [
        f
        for f in found
        if isinstance(f, FunctionType)
        and f.__name__.startswith("_")
        and f.__module__ == function.__module__
    ]


def _rule(function, names):
    """How a function chooses among names: its `a if condition else b`, local names written out.

    Where that does not name them all, the statements that do.
    """
    body = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0].body
    nodes = [node for statement in body for node in ast.walk(statement)]
    local = {
        node.targets[0].id: node.value
        for node in nodes
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    for node in nodes:
        if isinstance(node, ast.IfExp) and names <= _named(node):
            if isinstance(node.test, ast.Name):
                node.test = local.get(node.test.id, node.test)
            return ast.unparse(node)
    lines = [ast.unparse(statement) for statement in body if names & _named(statement)]
    return "; ".join(" ".join(line.split()) for line in lines)


def _named(node):
    """All names in a piece of a program."""
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def first_line(function):
    """The first line of a function's docstring."""
    return (inspect.getdoc(function) or "").partition("\n")[0]
