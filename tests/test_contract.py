"""Kernels of every style answer to the same names and arguments: that is what makes them backends."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

from tinygrad_zen.backend import WHOLES
from tinygrad_zen.kernels import reference

KERNELS = Path(reference.__file__).parent.parent


def listed(style):
    """{name: module} that a style's __init__ imports: its dispatch table, read without running it."""
    table = {}
    for node in ast.parse((KERNELS / style / "__init__.py").read_text()).body:
        if isinstance(node, ast.ImportFrom):
            assert not any(n.name == "*" for n in node.names), f"{style} hides names behind a star"
            table |= {n.asname or n.name: (node.level, node.module) for n in node.names}
    return {name: where for name, where in table.items() if not name.startswith("_")}


STYLES = sorted(  # a folder without a table serves no backend yet
    p.parent.name
    for p in KERNELS.glob("*/__init__.py")
    if p.parent.name != "reference" and listed(p.parent.name)
)


def parameters(function):
    """Names, kinds and defaults of the arguments; of a compiled kernel those of its Python source."""
    signature = inspect.signature(getattr(function, "py_func", function))
    return [(p.name, p.kind, p.default) for p in signature.parameters.values()]


def test_the_reference_lists_every_kernel_it_defines():
    defined = set()
    for path in (KERNELS / "reference").glob("[!_]*.py"):
        module = importlib.import_module(f"tinygrad_zen.kernels.reference.{path.stem}")
        defined |= {
            name
            for name, value in vars(module).items()
            if inspect.isfunction(value)
            and value.__module__ == module.__name__
            and not name.startswith("_")
        }
    assert defined == set(listed("reference"))


def test_kernels_are_documented_and_take_no_options_by_default():
    """Ops fill in defaults; a kernel is told everything, in order."""
    for name in listed("reference"):
        for _, kind, default in parameters(getattr(reference, name)):
            assert kind is inspect.Parameter.POSITIONAL_OR_KEYWORD, name
            assert default is inspect.Parameter.empty, name


@pytest.mark.parametrize("style", STYLES)
def test_a_style_lists_the_same_names(style):
    names, expected = set(listed(style)), set(listed("reference"))
    assert not expected - names, f"{style} lacks {sorted(expected - names)}"
    more = names - expected - set(WHOLES)
    assert not more, f"{style} has {sorted(more)} that reference lacks"
    assert set().union(*WHOLES.values()) <= expected and not expected & set(WHOLES)


@pytest.mark.parametrize("style", STYLES)
def test_a_style_takes_the_same_arguments(style):
    try:
        module = importlib.import_module(f"tinygrad_zen.kernels.{style}")
    except ImportError as e:
        pytest.skip(f"{style} needs {e.name}")
    for name in listed("reference"):
        ours, theirs = parameters(getattr(module, name)), parameters(getattr(reference, name))
        assert ours == theirs, f"{style}.{name}"


@pytest.mark.parametrize("style", ["reference", *STYLES])
def test_kernels_know_nothing_of_tensors(style):
    for path in (KERNELS / style).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tinygrad_zen"):
                assert node.module.startswith("tinygrad_zen.kernels"), path
