"""What the project proves of itself, in figures: writes benchmarks/results/proof.md.

    python benchmarks/proof.py                              # every section, as `make proof` does
    python benchmarks/proof.py --only gradients --quick     # fewer cases, printed and not written

A section is a function `f(quick) -> (title, lines of Markdown)` in the SECTIONS of one of the files
below; it raises where what it proves does not hold. A section that fails keeps its old figures in the
file, and the script ends with 1.
"""

import argparse
import datetime
import os
import re
import sys
import time
import traceback
from pathlib import Path

import proof_files
import proof_gradients
import proof_runs
from record import machine

SECTIONS = {**proof_gradients.SECTIONS, **proof_files.SECTIONS, **proof_runs.SECTIONS}
RESULTS = Path(__file__).resolve().parent / "results" / "proof.md"
HEAD = """\
# Proof

Figures of `make proof`, one section after the other; each says when and where it was measured.
"""
MARK = "<!-- section {} -->"


def measure(name, quick):
    """A section as Markdown, with the day, the machine and the time it took."""
    start = time.perf_counter()
    title, lines = SECTIONS[name](quick)
    seconds = time.perf_counter() - start
    taken = f"{datetime.date.today()}; {machine(os.cpu_count())}; {seconds:,.0f} s"
    return "\n".join([f"## {title}", "", f"*{taken}*", "", *lines])


def read(path):
    """{name: Markdown} of the sections in a file of figures."""
    if not path.exists():
        return {}
    _, *parts = re.split(MARK.format(r"(\w+)"), path.read_text(encoding="utf-8"))
    return {n: text.strip() for n, text in zip(parts[::2], parts[1::2], strict=True)}


def write(path, sections):
    """The sections in the order of SECTIONS; those that no file of sections has any more go."""
    blocks = [f"{MARK.format(n)}\n\n{sections[n]}\n" for n in SECTIONS if n in sections]
    path.write_text("\n".join([HEAD, *blocks]), encoding="utf-8")


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, metavar="SECTION", help=", ".join(SECTIONS)
    )
    parser.add_argument("--quick", action="store_true", help="fewer cases; nothing is written")
    parser.add_argument("--to", type=Path, help=f"the file to write; {RESULTS.name} by default")
    args = parser.parse_args(argv)
    path = args.to or (None if args.quick else RESULTS)
    failed = []
    for name in args.only or SECTIONS:
        try:
            block = measure(name, args.quick)
        except Exception:
            traceback.print_exc()
            failed.append(name)
            continue
        print(block, end="\n\n", flush=True)
        if path is not None:  # at once: a later section may take an hour
            write(path, read(path) | {name: block})
    if failed:
        print(f"FAILED: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
