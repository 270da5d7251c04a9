"""Run the notebooks of the course, hold them to their findings, and store what they show.

python notebooks/run.py                   all, stored
python notebooks/run.py --only 01 --check one, checked but not stored
python notebooks/run.py --only 01 --exercises   its exercises alone, in seconds

A cell that fails fails the run, unless it is tagged `check`: the check of an exercise must fail, with a
line that helps, while the exercise is unsolved. README.md says how a notebook is made.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SECONDS = 120  # a notebook, on 2 cores
BYTES = 2**20  # a stored notebook
HELPFUL = 20  # characters of a line that helps, at least


def main(argv=None):
    """Run what is asked for; -> the exit code: 0, or 1 if a notebook is wrong."""
    parser = argparse.ArgumentParser(description="Run the notebooks of the course.")
    parser.add_argument("--only", nargs="+", metavar="NN", help="only these, by number")
    parser.add_argument("--check", action="store_true", help="do not store what was shown")
    parser.add_argument(
        "--exercises",
        action="store_true",
        help="only show that exercises fail unsolved and pass solved",
    )
    parser.add_argument(
        "--turn", type=int, metavar="N", help="only one in N: each commit runs the next ones"
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help="limit a notebook")
    args = parser.parse_args(argv)
    paths = find(args.only)
    if args.turn:
        paths = turn(paths, args.turn)
    print(f"notebooks: {', '.join(p.stem for p in paths)}", flush=True)
    if args.exercises:
        for path in paths:
            for exercise, line in prove_exercises(read(path)):
                print(f"{path.stem}: {exercise}: {line}")
        return 0
    wrong = 0
    for path in paths:
        start = time.perf_counter()
        faults = run(path, store=not args.check, limit=args.seconds)
        seconds = time.perf_counter() - start
        print(f"{path.stem:24}{seconds:6.1f} s  {'FAIL' if faults else 'ok'}", flush=True)
        for fault in faults:
            print(f"  {fault}")
        wrong += bool(faults)
    return 1 if wrong else 0


def find(only=None):
    """The notebooks, or those whose names begin with one of `only`, in order."""
    paths = sorted(HERE.glob("[0-9][0-9]-*.ipynb"))
    unknown = [n for n in only or () if not any(p.name.startswith(n) for p in paths)]
    if unknown:
        sys.exit(
            f"run.py: no notebook {', '.join(unknown)} among {', '.join(p.stem for p in paths)}"
        )
    return [p for p in paths if not only or p.name.startswith(tuple(only))]


def turn(paths, parts):
    """Every parts-th notebook, from where the number of commits says."""
    count = subprocess.run(
        ["git", "rev-list", "--count", "HEAD"], cwd=HERE, capture_output=True, text=True
    ).stdout
    first = int(count or 0) % parts
    return paths[first::parts]


def run(path, store=True, limit=SECONDS):
    """Execute a notebook in a fresh kernel, and store it if nothing is wrong; -> what is wrong."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = nbformat.reads(json.dumps(prepared(read(path))), as_version=4)
    client = NotebookClient(
        notebook, timeout=3 * limit, kernel_name="python3", resources={"metadata": {"path": HERE}}
    )
    start = time.perf_counter()
    try:
        client.execute()
    except CellExecutionError as e:
        return [str(e)]
    seconds = time.perf_counter() - start
    done = stored(json.loads(nbformat.writes(notebook)))
    text = json.dumps(done, indent=1, ensure_ascii=False) + "\n"
    faults = structure_faults(done)
    if seconds > limit:
        faults.append(f"took {seconds:.0f} s; at most {limit:g} are allowed")
    if len(text.encode()) > BYTES:
        faults.append(f"is {len(text.encode()) / BYTES:.2f} MiB; at most 1 is allowed")
    if store and not faults:
        path.write_text(text, encoding="utf-8")
    return faults


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def source(cell):
    return "".join(cell["source"])


def tags(cell):
    return cell["metadata"].get("tags", [])


def code_cells(notebook):
    return [c for c in notebook["cells"] if c["cell_type"] == "code"]


def fingerprint(notebook):
    """A hash of all code: stored outputs carry that of the code that made them."""
    text = "\0".join(source(c) for c in code_cells(notebook))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def prepared(notebook):
    """Before a run: tags in the form that Jupyter acts on."""
    for cell in code_cells(notebook):
        marks = tags(cell)
        cell["metadata"] = {"tags": marks} if marks else {}
        if "check" in marks and "raises-exception" not in marks:
            marks.append("raises-exception")  # Run All goes on behind it
        if "solution" in marks:
            cell["metadata"]["jupyter"] = {"source_hidden": True}
    return notebook


def stored(notebook):
    """After a run: without what changes from run to run, failed checks as their one line."""
    for cell in notebook["cells"]:
        cell.pop("id", None)
        cell["metadata"].pop("execution", None)
        cell["source"] = source(cell).splitlines(keepends=True)
        for out in cell.get("outputs", ()):
            data = out.get("data", {})
            if "image/svg+xml" in data:  # the picture says it where pages are not let through
                data.pop("text/html", None)
            if out["output_type"] == "error":
                line = f"{out['ename']}: {out['evalue']}"
                out["traceback"] = [f"\x1b[31m{line}\x1b[0m"]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook["metadata"] = {
        "kernelspec": kernel,
        "language_info": {"name": "python"},
        "made_by_code": fingerprint(notebook),
    }
    notebook["nbformat_minor"] = 4  # cells without ids, which would differ from run to run
    return notebook


def exercises(notebook):
    """(exercise, check, solution) sources, in order; ValueError where the three do not follow."""
    found, waiting = [], []
    order = ["exercise", "check", "solution"]
    for cell in code_cells(notebook):
        kind = [t for t in tags(cell) if t in order]
        if not kind:
            if waiting:
                raise ValueError(f"code between {order[len(waiting) - 1]} and its next part")
            continue
        if kind != [order[len(waiting)]]:
            raise ValueError(f"a cell tagged {kind} where {order[len(waiting)]} was due")
        waiting.append(source(cell))
        if len(waiting) == 3:
            found.append(tuple(waiting))
            waiting = []
    if waiting:
        raise ValueError(f"an exercise without {order[len(waiting)]}")
    return found


def structure_faults(notebook):
    """What is wrong with a stored notebook, as lines."""
    faults = []
    try:
        if not exercises(notebook):
            faults.append("has no exercise")
    except ValueError as e:
        faults.append(f"exercises: {e}")
    if notebook["metadata"].get("made_by_code") != fingerprint(notebook):
        faults.append("its outputs come from other code: run it again")
    for cell in code_cells(notebook):
        errors = [o for o in cell["outputs"] if o["output_type"] == "error"]
        first = source(cell).partition("\n")[0]
        if "check" in tags(cell):
            if not errors:
                faults.append(f"a check passes while its exercise is unsolved: {first}")
            faults += [f"a check {w}: {first}" for o in errors if (w := unhelpful(o))]
        elif errors:
            faults.append(f"fails: {first}")
    return faults


def unhelpful(error):
    """Why an error output is not the line that helps a learner on; None if it is."""
    if error["ename"] != "AssertionError":
        return f"must fail with an AssertionError; got {error['ename']}: {error['evalue']}"
    if len(error["evalue"]) < HELPFUL:
        return f"must say what is wrong; got {error['evalue']!r}"
    return None


def prove_exercises(notebook):
    """Show that each unsolved form fails its check with a line that helps, and each solution passes.

    Only cells tagged `setup` and earlier solutions run before an exercise, so this takes seconds. They
    run in this process, whose settings they may change.
    Returns [(exercise, the line)]; AssertionError names what does not hold.
    """
    namespace, lines = {"__name__": "notebook"}, []
    for cell in code_cells(notebook):
        if "setup" in tags(cell):
            exec(source(cell), namespace)
    for exercise, check, solution in exercises(notebook):
        first = exercise.partition("\n")[0]
        exec(exercise, namespace)
        try:
            exec(check, namespace)
        except AssertionError as e:
            line = str(e)
        else:
            raise AssertionError(f"the check passes while the exercise is unsolved: {first}")
        assert len(line) >= HELPFUL, f"the check must say what is wrong; got {line!r}: {first}"
        exec(solution, namespace)
        exec(check, namespace)
        lines.append((first, line))
    return lines


if __name__ == "__main__":
    sys.exit(main())
