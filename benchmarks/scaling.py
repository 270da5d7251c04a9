"""How the time of a training step grows with batch, channels and depth, engine beside engine.

    python benchmarks/scaling.py --engines numba torch-fused jax
    python benchmarks/scaling.py --sweeps depth --threads 2 --keep

A stack of 3 x 3 convolutions on images of 16 x 16, checked and timed as in train.py. Shown is the time
of a step and, behind it, how it grows: the exponent between the two largest sizes, 1 where double the
size takes double the time. The multiplications double with batch and depth; with channels they
quadruple, once the first convolution, from three channels, counts for little.
"""

import argparse
import math
from pathlib import Path

import networks
import record
from engines import ENGINES, available
from train import measure, print_network

SWEEPS = {
    "batch": (8, 16, 32, 64),
    "channels": (8, 16, 32, 64),
    "depth": (1, 2, 4, 8),
}
USUAL = {"batch": 16, "channels": 16, "depth": 2}
# one engine of each library: their best for convolutions
DEFAULT = "numba", "numba-captured", "cuda", "torch-channels-last", "jax"


def network(**sizes):
    """A stack with the usual sizes but for those given."""
    s = USUAL | sizes
    return networks.find(f"stack-{s['depth']}-{s['channels']}@{s['batch']}")


def sweep(what, options):
    """Step times of every engine at each size, {engine: [...]}, and what they ran on."""
    sizes = SWEEPS[what][:2] if options.quick else SWEEPS[what]
    seconds = {name: [] for name in options.engines}
    for size in sizes:
        net = network(**{what: size})
        found = measure(net, options.engines, options)
        print_network(net, found)
        for name, times in seconds.items():
            times.append(found[name]["median"] if name in found else None)
    return {
        "sizes": sizes,
        "seconds": seconds,
        "versions": [f["version"] for f in found.values()],
        "device": next(iter(found.values()))["device"],
    }


def exponent(sizes, seconds):
    """p of time ~ size ** p between the two largest sizes; None if one of them was not timed."""
    (a, s), (b, t) = list(zip(sizes, seconds, strict=True))[-2:]
    return math.log(t / s) / math.log(b / a) if s and t else None


def words(value):
    return "" if value is None else f"{value:.2f}"


def table(results):
    """Lines of Markdown: a table for each sweep."""
    versions = dict.fromkeys(v for r in results["sweeps"].values() for v in r["versions"])
    lines = [
        f"# Growth of a training step, {results['date']}",
        f"{results['machine']}; {results['device']}; float32; {'; '.join(versions)}.",
        f"A stack of 3 x 3 convolutions on 16 x 16 images; usual sizes: {USUAL}. The last column is p of",
        "time ~ size ** p between the two largest sizes.",
    ]
    for what, r in results["sweeps"].items():
        rows = [
            [name, *(record.milliseconds(t) if t else "" for t in seconds)]
            + [words(exponent(r["sizes"], seconds))]
            for name, seconds in r["seconds"].items()
        ]
        lines += ["", *record.markdown([what, *r["sizes"], "growth"], rows)]
    return lines


def draw(figure, results):
    """A chart for each sweep: time by size, both logarithmic."""
    sweeps = results["sweeps"]
    figure.set_size_inches(4 * len(sweeps), 3.4)
    for chart, (what, r) in zip(
        figure.subplots(1, len(sweeps), squeeze=False)[0], sweeps.items(), strict=True
    ):
        for name, seconds in r["seconds"].items():
            known = [(n, t * 1e3) for n, t in zip(r["sizes"], seconds, strict=True) if t]
            chart.loglog(*zip(*known, strict=True), "o-", markersize=3, label=name)
        chart.set_xticks(r["sizes"], r["sizes"], minor=False)
        chart.minorticks_off()
        chart.set(xlabel=what, ylabel="ms a step")
        chart.grid(True, alpha=0.2)
        chart.legend(fontsize=7)
    figure.suptitle(f"{results['machine']}; {results['device']}; {results['date']}", fontsize=8)


def parse(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sweeps", nargs="+", choices=SWEEPS, default=list(SWEEPS))
    parser.add_argument("--engines", nargs="+", choices=ENGINES, metavar="ENGINE")
    parser.add_argument("--threads", type=int, default=1, help="and cores (%(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, help="blocks of steps an engine (5; 1 if quick)")
    parser.add_argument("--seconds", type=float, help="length of a block (0.2; 0.01 if quick)")
    parser.add_argument("--quick", action="store_true", help="a trial, whose times say nothing")
    parser.add_argument("--keep", action="store_true", help="write into benchmarks/results/")
    parser.add_argument("--to", type=Path, default=record.RESULTS, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.seconds = options.seconds or (0.01 if options.quick else 0.2)
    options.starts = 1  # its start is not asked for
    usable = available(options.device)
    options.engines = options.engines or [name for name in DEFAULT if name in usable]
    cannot = [name for name in options.engines if name not in usable]
    if cannot:
        parser.error(f"cannot run here: {', '.join(cannot)}; these can: {', '.join(usable)}")
    return options


def main(argv=None):
    options = parse(argv)
    results = record.begin(options.threads) | {"sweeps": {}}
    print(results["machine"])
    for what in options.sweeps:
        print(f"\n{what}")
        results["sweeps"][what] = r = sweep(what, options)
        for name, seconds in r["seconds"].items():
            print(f"  {name:20} grows with {what} ** {words(exponent(r['sizes'], seconds))}")
        results["device"] = r["device"]
    if options.keep:
        results = record.joined("scaling", results, "sweeps", options.to)
        record.keep("scaling", results, table(results), draw, options.to)


if __name__ == "__main__":
    main()
