"""The course: its exercises, what it imports, and that what is stored was made by what stands there.

That every cell runs and every stated finding holds is shown by `make notebooks`.
"""

import ast
import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tinygrad_zen as tz

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
PUBLIC = ["nn", "optim", "data", "train", "io", "check", "view", "kernels"]
DEEPER = ["nn.functional", "nn.init", "kernels.reference", "kernels.cpu", "kernels.cuda"]
MODULES = {"tinygrad_zen", *(f"tinygrad_zen.{name}" for name in PUBLIC + DEEPER)}

spec = importlib.util.spec_from_file_location("run_notebooks", NOTEBOOKS / "run.py")
course = importlib.util.module_from_spec(spec)
spec.loader.exec_module(course)

each = pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)


@each
def test_exercises_fail_unsolved_and_pass_solved(path):
    """Setup cells, exercises, checks and solutions alone; without a kernel, in seconds.

    In a process of its own, as in Jupyter: a lesson may choose Numba's simulator, or a backend.
    """
    pytest.importorskip("matplotlib")
    pytest.importorskip("numba")
    command = [sys.executable, NOTEBOOKS / "run.py", "--exercises", "--only", path.stem]
    env = os.environ | {"MPLBACKEND": "agg"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{path.stem}: " in done.stdout


@each
def test_what_is_stored(path):
    notebook = course.read(path)
    assert path.stat().st_size <= course.BYTES
    assert course.structure_faults(notebook) == []
    assert any(c["outputs"] for c in course.code_cells(notebook))
    assert not [c for c in notebook["cells"] if "id" in c or "execution" in c["metadata"]]
    for cell in course.code_cells(notebook):
        hidden = cell["metadata"].get("jupyter", {}).get("source_hidden", False)
        assert hidden == ("solution" in course.tags(cell))


@each
def test_only_public_names_are_used(path):
    for cell in course.code_cells(course.read(path)):
        text = course.source(cell)
        assert private_names(ast.parse(text)) == [], text


def private_names(tree):
    """What a piece of a program takes of tinygrad_zen that is not public."""
    wrong, aliases = [], {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            ours = [n for n in node.names if n.name.split(".")[0] == "tinygrad_zen"]
            wrong += [n.name for n in ours if n.name not in MODULES]
            aliases.update({n.asname: n.name for n in ours})
        elif isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "tinygrad_zen":
            public = node.module in MODULES and dir(importlib.import_module(node.module))
            wrong += [
                f"{node.module}.{n.name}"
                for n in node.names
                if f"{node.module}.{n.name}" not in MODULES
                and (not public or n.name.startswith("_") or n.name not in public)
            ]
    for node in ast.walk(tree):  # tz._private, tz.autograd.propagate
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "tz" and (
                node.attr.startswith("_") or node.attr not in public_names()
            ):
                wrong.append(f"tz.{node.attr}")
    return wrong


def public_names():
    inner = {"autograd", "backend", "derivatives", "ops", "tensor", "importlib"}
    functions = {n for n in inner if callable(getattr(tz, n, None))}
    return set(dir(tz)) - inner | functions


def test_private_names_are_found():
    for text, found in (
        ("import tinygrad_zen.autograd", ["tinygrad_zen.autograd"]),
        ("from tinygrad_zen.ops import conv2d", ["tinygrad_zen.ops.conv2d"]),
        ("from tinygrad_zen.nn import Linear, _x", ["tinygrad_zen.nn._x"]),
        ("tz._NAMES, tz.autograd, tz.backend", ["tz._NAMES", "tz.autograd"]),
        ("import tinygrad_zen as tz, tinygrad_zen.nn.functional as F; tz.no_grad()", []),
        ("from tinygrad_zen.kernels import cuda, _x", ["tinygrad_zen.kernels._x"]),
    ):
        assert private_names(ast.parse(text)) == found


def cell(text, *marks, outputs=()):
    metadata = {"tags": list(marks)}
    return {"cell_type": "code", "source": text, "metadata": metadata, "outputs": list(outputs)}


def notebook(*cells):
    made = {"cells": list(cells), "metadata": {}}
    made["metadata"]["made_by_code"] = course.fingerprint(made)
    return made


FAILS = {"output_type": "error", "ename": "AssertionError", "evalue": "x should be 2; yours is 1"}
GOOD = (
    cell("x = 1", "exercise"),
    cell("assert x == 2, f'x should be 2; yours is {x}'", "check", outputs=[FAILS]),
    cell("x = 2", "solution"),
)


def test_a_good_exercise():
    made = notebook(cell("import math", "setup"), *GOOD)
    assert course.structure_faults(made) == []
    assert course.prove_exercises(made) == [("x = 1", "x should be 2; yours is 1")]


@pytest.mark.parametrize(
    ("cells", "fault"),
    [
        ([cell("1")], "has no exercise"),
        (GOOD[:2], "exercises: an exercise without solution"),
        (
            [GOOD[0], cell("y = 1"), *GOOD[1:]],
            "exercises: code between exercise and its next part",
        ),
        (GOOD[1:], "exercises: a cell tagged ['check'] where exercise was due"),
        (
            [GOOD[0], cell("x", "check"), GOOD[2]],
            "a check passes while its exercise is unsolved: x",
        ),
        ([*GOOD, cell("x", outputs=[FAILS])], "fails: x"),
        (
            [GOOD[0], cell("x", "check", outputs=[FAILS | {"evalue": "no"}]), GOOD[2]],
            "a check must say what is wrong; got 'no': x",
        ),
        (
            [GOOD[0], cell("x", "check", outputs=[FAILS | {"ename": "TypeError"}]), GOOD[2]],
            "a check must fail with an AssertionError; got TypeError: x should be 2; yours is 1: x",
        ),
    ],
)
def test_faults_are_found(cells, fault):
    assert course.structure_faults(notebook(*cells)) == [fault]


def test_outputs_of_other_code_are_found():
    made = notebook(*GOOD)
    made["cells"][2]["source"] = "x = 3"
    (fault,) = course.structure_faults(made)
    assert fault == "its outputs come from other code: run it again"


def test_exercises_are_proved_by_running_them():
    solved = (cell("x = 2", "exercise"), *GOOD[1:])
    with pytest.raises(AssertionError, match="the check passes while the exercise is unsolved"):
        course.prove_exercises(notebook(*solved))
    with pytest.raises(AssertionError, match="x should be 2; yours is 3"):
        course.prove_exercises(notebook(*GOOD[:2], cell("x = 3", "solution")))
    bare = cell("assert x == 2", "check")
    with pytest.raises(AssertionError, match="the check must say what is wrong; got ''"):
        course.prove_exercises(notebook(GOOD[0], bare, GOOD[2]))


def test_turns_run_all_in_turn(monkeypatch):
    """As commits are added, each notebook gets its turn, and the turns share the work."""
    seen = []
    for count in range(3):
        result = type("Result", (), {"stdout": f"{count + 7}\n"})
        monkeypatch.setattr(course.subprocess, "run", lambda *a, **k: result)
        seen += course.turn(list(range(8)), 3)
    assert sorted(seen) == list(range(8))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of one small notebook that run.py takes for the course."""
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setattr(course, "HERE", tmp_path)

    def write(*cells):
        code = [c | {"execution_count": None} for c in cells]
        made = {"cells": code, "metadata": {}, "nbformat": 4, "nbformat_minor": 4}
        (tmp_path / "01-small.ipynb").write_text(json.dumps(made))
        return tmp_path / "01-small.ipynb"

    return write


@pytest.mark.filterwarnings("ignore")  # of Jupyter's own event loop
def test_a_notebook_is_run_and_stored(folder, capsys):
    plain = [c | {"outputs": []} for c in GOOD]
    path = folder(cell("import math; print(math.pi)", "setup"), *plain)
    before = path.read_text()
    assert course.main(["--check"]) == 0 and path.read_text() == before
    assert course.main(["--only", "01"]) == 0
    done = course.read(path)
    assert course.structure_faults(done) == []
    assert done["cells"][0]["outputs"][0]["text"] == ["3.141592653589793\n"]
    assert done["cells"][3]["metadata"]["jupyter"] == {"source_hidden": True}
    (error,) = done["cells"][2]["outputs"]
    assert error["traceback"] == ["\x1b[31mAssertionError: x should be 2; yours is 1\x1b[0m"]
    stored = path.read_text()
    assert course.main([]) == 0 and path.read_text() == stored  # the same, run after run

    path = folder(*plain, cell("assert math.pi > 4, 'a finding that does not hold'"))
    before = path.read_text()
    assert course.main([]) == 1 and path.read_text() == before
    assert "FAIL" in (out := capsys.readouterr().out) and "NameError" in out


def test_an_unknown_number(capsys):
    with pytest.raises(SystemExit, match=r"run.py: no notebook 99 among 01-one-number"):
        course.main(["--only", "99"])


def test_the_readme_lists_every_notebook():
    text = (NOTEBOOKS / "README.md").read_text(encoding="utf-8")
    assert [p.name for p in PATHS if f"]({p.name})" not in text] == []


def test_each_notebook_says_what_comes_next():
    by_number = {int(path.name[:2]): path.name for path in PATHS}
    for number, name in by_number.items():
        words = "".join(course.read(NOTEBOOKS / name)["cells"][-1]["source"])
        following = by_number.get(number + 1, f"{number + 1:02}-")
        assert number == 12 or following in words, f"{name} does not end with `{following}`"
