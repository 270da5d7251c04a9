"""What is kept of a run: the machine in words, and results as JSON, a table in Markdown and a chart."""

import datetime
import json
import math
import os
import platform
import sys
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"


def processor():
    """The name of the CPU."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (names or [platform.processor()])[0] or "unknown"


def machine(threads):
    """The machine and what a program got of it, in words."""
    cores = f"{os.cpu_count()} cores, {threads} thread{'s' if threads != 1 else ''}"
    return f"{processor()}, {cores}, Python {platform.python_version()}"


def begin(threads):
    """What every file of results starts with."""
    today = datetime.date.today().isoformat()
    return {"date": today, "machine": machine(threads), "threads": threads}


def versions():
    """Of what this process computes with."""
    names = "tinygrad_zen", "numpy", "numba", "numba_cuda", "cupy", "torch"
    return {n: getattr(sys.modules[n], "__version__", "?") for n in names if n in sys.modules}


def stem(script, results):
    """The name of a run's files: what ran, on which day, on how many cores or which card."""
    threads, device = results["threads"], results.get("device", "CPU")
    place = f"{threads}core{'s' if threads > 1 else ''}"
    return f"{script}-{results['date']}-{place if device == 'CPU' else device.replace(' ', '-')}"


def joined(script, results, part, where=RESULTS):
    """The results, and in results[part], a dict, also what was kept earlier that day.

    SystemExit where that was measured on another machine.
    """
    path = where / f"{stem(script, results)}.json"
    if not path.exists():
        return results
    old = json.loads(path.read_text(encoding="utf-8"))
    if old["machine"] != results["machine"]:
        raise SystemExit(f"{path.name} was measured on another machine: {old['machine']}")
    return results | {part: old[part] | results[part]}


def keep(script, results, lines, draw, where=RESULTS):
    """Write the results as JSON, lines as Markdown under a chart, and draw(figure, results) as that."""
    name = stem(script, results)
    where.mkdir(exist_ok=True)
    write_json(where / f"{name}.json", results)
    save_chart(where / f"{name}.png", draw, results)
    text = "\n".join([*lines[:1], "", f"![{name}]({name}.png)", "", *lines[1:], ""])
    (where / f"{name}.md").write_text(text, encoding="utf-8")
    print(f"\nkept: {where / name}.json, .md, .png")


def write_json(path, results):
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def save_chart(path, draw, results):
    """draw(figure, results) on an empty figure, as a PNG."""
    try:
        from matplotlib.figure import Figure
    except ImportError as e:
        raise SystemExit('a chart needs matplotlib: pip install "tinygrad-zen[plots]"') from e
    figure = Figure(layout="constrained")
    draw(figure, results)
    figure.savefig(path, dpi=100)


def markdown(head, rows):
    """A table as lines of Markdown; all columns but the first are numbers."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(map(str, cells))} |" for cells in (head, rule, *rows)]


def milliseconds(seconds):
    """Three significant digits: 0.123 ms, 45.6 ms."""
    ms = seconds * 1e3
    places = 2 - math.floor(math.log10(ms)) if ms >= 1 else 3
    return f"{ms:.{max(0, places)}f} ms"
