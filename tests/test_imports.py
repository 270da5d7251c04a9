"""Imports point one way, as the list below says; importing the package needs NumPy alone and is quick."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "tinygrad_zen"

# part of the package <- the parts that it may import, while it is loaded
ARROWS = {
    "kernels": set(),
    "backend": set(),  # it finds kernels by name, on first use
    "autograd": {"backend", "tensor"},
    "tensor": {"autograd", "backend", "ops"},
    "ops": {"autograd", "backend", "tensor"},
    "derivatives": {"autograd", "tensor", "ops"},
    "nn": {"autograd", "backend", "tensor", "ops"},
    "optim": {"autograd", "backend", "tensor"},
    "data": {"backend", "tensor", "io"},
    "io": {"backend", "tensor", "nn", "optim"},
    "view": {"autograd", "backend", "tensor"},
    "train": {"autograd", "backend", "tensor", "ops", "nn", "optim", "data", "io"},
    "check": {"autograd", "backend", "tensor", "ops", "derivatives", "nn"},
    "cards": {"backend", "tensor", "ops", "check", "view"},
    "sklearn": {"backend", "nn", "train"},
    "replay": {"autograd", "backend", "tensor", "nn", "optim"},
}
# and the parts that it may import later, inside a function
LATE = {
    "autograd": {"ops"},
    "nn": {"io", "data"},  # a BERT reads its files
    "view": {"train"},
    "train": {"view", "check"},
    "check": {"train"},
}
EVERYTHING = {"__init__", "__main__", "recipes"}  # public names, command line, whole programs
THIRD_PARTY = {"numpy"}  # what may be imported while the package is loaded


def parse_package():
    """Each file as (path, part of the package, dotted name of its folder, syntax tree)."""
    for folder, dotted in ((ROOT / PACKAGE, PACKAGE), (ROOT / "kernels", f"{PACKAGE}.kernels")):
        for path in sorted(folder.rglob("*.py")):
            inside = path.relative_to(folder).with_suffix("").parts
            parent = ".".join((dotted, *inside[:-1]))
            part = "kernels" if dotted.endswith("kernels") else inside[0]
            yield path, part, parent, ast.parse(path.read_text())


def imports(tree, parent):
    """(line, dotted module, whether inside a function) of everything that a file imports."""
    late = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name, id(node) in late
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                folders = parent.split(".")
                base = ".".join([*folders[: len(folders) - node.level + 1], base]).rstrip(".")
            # `from . import ops` names a module, `from .tensor import Tensor` a thing in one
            names = [f"{base}.{n.name}" for n in node.names] if base == PACKAGE else [base]
            for name in names:
                yield node.lineno, name, id(node) in late


def test_imports_point_one_way():
    wrong = []
    for path, part, parent, tree in parse_package():
        if part in EVERYTHING:
            continue
        assert part in ARROWS, f"{part} has no line in tests/test_imports.py"
        for line, name, late in imports(tree, parent):
            if name.split(".")[0] != PACKAGE:
                continue
            target = name.split(".")[1] if "." in name else "__init__"
            if path.name == "tensors.py" and part == "ops" and target == "kernels":
                continue  # the backend made of Tensors takes the kernels that are plain expressions
            allowed = ARROWS[part] | {part} | (LATE.get(part, set()) if late else set())
            if target not in allowed:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {part} imports {target}")
    assert not wrong, "\n".join(wrong)


def test_arrows_make_no_cycles():
    """But for the engine's three files, whose methods are ops and whose ops are made of methods."""
    engine = {"autograd", "tensor", "ops"}
    done = {"backend", "kernels"} | engine
    assert set().union(*(ARROWS[part] for part in engine)) <= done
    rest = set(ARROWS) - done
    while rest:
        ready = {part for part in rest if ARROWS[part] <= done}
        assert ready, f"a cycle among {sorted(rest)}"
        done |= ready
        rest -= ready


def test_ops_name_kernels_through_the_backend_alone():
    """A gradient is written once: no op imports the kernels of one style."""
    for path, part, parent, tree in parse_package():
        if part == "ops" and path.name != "tensors.py":
            assert not [n for _, n, _ in imports(tree, parent) if "kernels" in n], path


def test_the_package_needs_numpy_alone_to_load():
    for path, part, parent, tree in parse_package():
        if part == "kernels" and path.parent.name in ("cpu", "cuda"):
            continue  # loaded with their backend
        if part == "sklearn":
            continue  # made of scikit-learn's classes, and loaded when it is named
        for line, name, late in imports(tree, parent):
            top = name.split(".")[0]
            known = top in sys.stdlib_module_names or top == PACKAGE or top in THIRD_PARTY
            assert known or late, f"{path.relative_to(ROOT)}:{line}: {name} is imported on loading"


def run(program, **options):
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, **options
    )


def test_import_leaves_the_heavy_libraries_alone():
    heavy = "numba cupy matplotlib scipy torch tqdm".split()
    out = run(f"import sys, tinygrad_zen; print([m for m in {heavy!r} if m in sys.modules])")
    assert out.stdout == "[]\n", out.stderr


def test_import_is_quick():
    """What we add to NumPy's own time: less than a quarter of a second, best of several."""
    program = (
        "import time, numpy; start = time.perf_counter(); import tinygrad_zen;"
        "print(time.perf_counter() - start)"
    )
    assert min(float(run(program).stdout) for _ in range(3)) < 0.25


def test_nothing_happens_at_import():
    """No backend is chosen, no random number drawn, no thread started, nothing printed."""
    out = run(
        "import threading, numpy as np, tinygrad_zen as tz\n"
        "from tinygrad_zen import backend\n"
        "import sys; backend = sys.modules['tinygrad_zen.backend']\n"
        "assert backend._process_default is None and threading.active_count() == 1\n"
        "assert tz.default_generator().random() == np.random.default_rng(0).random()\n"
    )
    assert (out.returncode, out.stdout, out.stderr) == (0, "", "")


def test_plain_kernels_is_refused():
    out = run("import kernels", cwd=ROOT)
    assert "ImportError: kernels: import it as tinygrad_zen.kernels" in out.stderr


@pytest.mark.parametrize(
    "part", ["nn", "optim", "data", "train", "io", "check", "view", "cards", "replay"]
)
def test_every_part_can_be_imported_first(part):
    """Whatever is imported first, no import runs in a circle."""
    out = run(f"import tinygrad_zen.{part}")
    assert out.returncode == 0, out.stderr
