"""From which size on does one backend, or one rung of a ladder, overtake another?

    python benchmarks/crossover.py                                   # usable backends, every op
    python benchmarks/crossover.py --ops matmul --between numpy numba:matmul_parallel
    python benchmarks/crossover.py --threads 1 --keep                # into benchmarks/results/

A contender is a backend (its default kernel), backend:rung, or torch. Every size is a power of two, and each
contender is checked and timed as in kernels.py. The arrays lie where the backend computes: copies to a
GPU and back are not counted.
"""

import argparse
import itertools
import os
from pathlib import Path
from typing import NamedTuple

import record
from contenders import Contender, contenders, device, kind, measure, place, places, work
from threads import confine

import tinygrad_zen as tz


class Sweep(NamedTuple):
    """How an op grows: size(n) for OPS, n from 2**first to 2**last, and what n is."""

    size: object
    first: int
    last: int
    what: str


SWEEPS = {
    "matmul": Sweep(lambda n: (n, n, n), 2, 10, "side of the square matrices"),
    "conv2d": Sweep(lambda n: (n, 16, 14, 32), 0, 7, "images of 16x14x14, 32 filters 3x3"),
    "conv2d_grad_x": Sweep(lambda n: (n, 16, 14, 32), 0, 7, "images of 16x14x14, 32 filters 3x3"),
    "conv2d_grad_w": Sweep(lambda n: (n, 16, 14, 32), 0, 7, "images of 16x14x14, 32 filters 3x3"),
    "max_pool2d": Sweep(lambda n: (n, 16, 14), 0, 9, "images of 16x14x14, windows 2x2"),
    "softmax": Sweep(lambda n: (n, 64), 0, 15, "rows of 64"),
    "layer_norm": Sweep(lambda n: (n, 64), 0, 15, "rows of 64"),
    "gelu": Sweep(lambda n: (n,), 4, 22, "numbers"),
    "adam_": Sweep(lambda n: (n,), 4, 22, "weights"),
}
QUICK = 3  # sizes of a trial


def contender(op, text):
    """ "numba" or "numba:matmul_tiled" as a Contender, named as it was given."""
    where, _, rung = text.partition(":")
    be = place(where)
    if not rung:
        return Contender(be, text, getattr(be.kernels, op), True)
    known = {c.name: c for c in contenders(op, be)}
    if rung not in known:
        raise ValueError(f"{op} on {where} has no rung {rung!r}: choose from {', '.join(known)}")
    return known[rung]._replace(name=text)


def sweep(op, group, options):
    """Times of an op: {contender's name: [seconds, ...]} and the sizes; None where it is too slow."""
    how = SWEEPS[op]
    exponents = range(how.first, how.last + 1)
    if options.quick:
        exponents = exponents[:QUICK]
    sizes, times = [2**e for e in exponents], {c.name: [] for c in group}
    for n in sizes:
        running = [c for c in group if not too_slow(times[c.name], options.limit)]
        found = measure(op, how.size(n), running, options.rounds, options.seconds)
        for c in group:
            times[c.name].append(found[c][0] if c in found else None)
    return sizes, times


def too_slow(times, limit):
    """Whether the last call took so long that the next size, up to 8 times the work, is left out."""
    return bool(times) and (times[-1] is None or times[-1] > limit / 8)


def crossover(sizes, slow, fast):
    """The first measured size from which on `fast` is always faster than `slow`, or None."""
    both = [(n, a, b) for n, a, b in zip(sizes, slow, fast, strict=True) if a and b]
    begin = None
    for n, a, b in both:
        begin = (begin or n) if b < a else None
    return begin


def overtakings(sizes, times):
    """Each pair in which one is slower at the smallest size and faster from some size on.

    Yields (who, whom, size, the size before).
    """
    for a, b in itertools.permutations(times, 2):
        begin = crossover(sizes, times[b], times[a])
        if begin is not None and begin > sizes[0]:
            yield a, b, begin, sizes[sizes.index(begin) - 1]


def print_sweep(op, sizes, times):
    print(f"\n{op}: microseconds a call; n: {SWEEPS[op].what}")
    print(f"{'n':>10}" + "".join(f"{name:>26}" for name in times))
    for i, n in enumerate(sizes):
        best = min(t[i] for t in times.values() if t[i])
        cells = (
            f"{t[i] * 1e6:.1f}{'*' if t[i] == best else ' '}" if t[i] else "- "
            for t in times.values()
        )
        print(f"{n:10}" + "".join(f"{cell:>26}" for cell in cells))
    passed = list(overtakings(sizes, times))
    for a, b, begin, before in passed:
        print(f"  {a} overtakes {b} between {before} and {begin}")
    if not passed:
        print("  none overtakes another")


def table(results):
    """Lines of Markdown: who overtakes whom, then the times of each op."""
    versions = ", ".join(map(" ".join, results["versions"].items()))
    lines = [
        f"# Crossovers, {results['date']}",
        f"{results['machine']}; float32; {versions}.",
        "From which size on one is faster than the other; times in microseconds a call.",
    ]
    for op, r in results["ops"].items():
        passed = [
            f"{p['who']} overtakes {p['whom']} between {p['not_yet']:,} and {p['from']:,}"
            for p in r["overtakings"]
        ]
        rows = [
            [f"{n:,}", *(f"{t[i] * 1e6:,.1f}" if t[i] else "" for t in r["seconds"].values())]
            for i, n in enumerate(r["sizes"])
        ]
        words = "; ".join(passed) or "none overtakes another"
        lines += ["", f"## {op}", "", f"n: {SWEEPS[op].what}. {words}.", ""]
        lines += record.markdown(["n", *r["seconds"]], rows)
    return lines


def draw(figure, results):
    """A chart for each op: time by size, a dotted line at each overtaking."""
    ops = results["ops"]
    columns = min(3, len(ops))
    rows = -(-len(ops) // columns)
    figure.set_size_inches(3.6 * columns, 2.6 * rows)
    charts = figure.subplots(rows, columns, squeeze=False).ravel()
    for chart in charts[len(ops) :]:
        chart.set_visible(False)
    for chart, (op, r) in zip(charts, ops.items(), strict=False):
        for name, times in r["seconds"].items():
            known = [(n, t * 1e6) for n, t in zip(r["sizes"], times, strict=True) if t]
            chart.loglog(*zip(*known, strict=True), "o-", markersize=3, label=name)
        for passed in r["overtakings"]:
            chart.axvline(passed["from"], color="grey", linestyle=":")
        chart.set(title=op, xlabel=SWEEPS[op].what, ylabel="microseconds a call")
        chart.grid(True, alpha=0.2)
        chart.legend(fontsize=7)
    figure.suptitle(results["machine"], fontsize=9)


def parse(argv):
    usable = [name for name in places() if kind(place(name)) != "sim"]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ops", nargs="+", choices=SWEEPS, default=list(SWEEPS))
    parser.add_argument(
        "--between",
        nargs="+",
        default=usable,
        metavar="BACKEND[:RUNG]",
        help="who runs; a rung only with the --ops that has it",
    )
    parser.add_argument("--threads", type=int, help="and cores; all by default")
    parser.add_argument("--quick", action="store_true", help="the smallest sizes, few rounds")
    parser.add_argument("--rounds", type=int, help="blocks of calls a contender (7; 3 if quick)")
    parser.add_argument("--seconds", type=float, help="length of a block (0.05; 0.002 if quick)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw times by size")
    parser.add_argument("--keep", action="store_true", help="write into benchmarks/results/")
    parser.add_argument("--to", type=Path, default=record.RESULTS, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    options.rounds = options.rounds or (3 if options.quick else 7)
    options.seconds = options.seconds or (0.002 if options.quick else 0.05)
    options.limit = 2.0  # seconds a call
    if options.threads:
        confine(options.threads)
    options.threads = options.threads or os.cpu_count()
    return options


def main(argv=None):
    options = parse(argv)
    try:
        groups = {op: [contender(op, text) for text in options.between] for op in options.ops}
    except (ValueError, tz.BackendUnavailable) as e:
        raise SystemExit(str(e)) from e
    devices = {c.name: device(c.backend) for group in groups.values() for c in group}
    # the last device, a card where there is one, names the files
    results = record.begin(options.threads) | {"device": [*devices.values()][-1], "ops": {}}
    print(results["machine"])
    for name, where in devices.items():
        print(f"{name} computes on {where}")
    for op, group in groups.items():
        sizes, times = sweep(op, group, options)
        print_sweep(op, sizes, times)
        results["ops"][op] = {
            "sizes": sizes,
            "work": [work(op, SWEEPS[op].size(n)) for n in sizes],
            "seconds": times,
            "overtakings": [
                {"who": a, "whom": b, "from": begin, "not_yet": before}
                for a, b, begin, before in overtakings(sizes, times)
            ],
        }
    results["versions"] = record.versions()
    if options.json:
        record.write_json(options.json, results)
    if options.plot:
        record.save_chart(options.plot, draw, results)
    if options.keep:
        results = record.joined("crossover", results, "ops", options.to)
        record.keep("crossover", results, table(results), draw, options.to)


if __name__ == "__main__":
    main()
