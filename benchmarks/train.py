"""One training step (forward, backward, Adam) of whole networks, engine beside engine.

    python benchmarks/train.py                                   # all networks, all engines, one core
    python benchmarks/train.py --nets mnist cifar --engines numba torch-fused --threads 2
    python benchmarks/train.py --device cuda --nets mnist mnist@512 --keep

Each engine runs in a process of its own, on as many cores as --threads says. All start from the same
weights, and their losses over the first steps must be those of our engine in float64 before anything
is timed. Then rounds alternate: a block of steps of one engine, a block of the next. Shown: the median
time of a step over rounds, the fastest, the time of the best peer over ours, the peak memory of the
process, and the time from its start to the end of its first step, with warm caches. PyTorch, JAX and
Keras come with `pip install -e ".[peers]"`. --keep writes results/train-DATE-CORES.json, .md and .png.
"""

import argparse
import math
import os
import statistics
import tempfile
from pathlib import Path

import networks
import numpy as np
import record
from engines import ENGINES, EngineFailed, Running, available

TOLERANCE = 5e-5  # of a loss, relative, against float64
# Keras adds epsilon to Adam's root before its correction, which matters where gradients are tiny
TOLERANCES = {"keras": 1e-3}
LIBRARIES = {"torch": "PyTorch", "jax": "JAX", "keras": "Keras"}


def launch(name, network, file, options):
    """An engine past its first steps, its caches warm: the last of so many processes of it."""
    for left in range(options.starts - 1, -1, -1):
        running = Running(name, network, file, options.threads, options.device)
        if left:
            running.close()
    return running


def check(running, expected):
    """Stop if the losses of an engine are not the expected ones."""
    allowed = TOLERANCES.get(running.name, TOLERANCE)
    if not np.allclose(running.losses, expected, rtol=allowed, atol=0):
        raise SystemExit(
            f"{running.name}: its losses {running.losses} are not {expected} to {allowed:g} relative"
        )


def measure(network, names, options):
    """Check and time engines on a network; -> {engine: what was measured}. A peer may fail."""
    weights = networks.weights(network)
    one_bias = {e: e == "keras" for e in names}
    losses = {b: networks.reference_losses(network, weights, b) for b in {*one_bias.values()}}
    expected = {e: losses[one_bias[e]] for e in names}
    running = {}
    try:
        with tempfile.TemporaryDirectory() as folder:
            np.savez(file := f"{folder}/weights.npz", **weights)
            for name in names:
                if ENGINES[name].images and not network.image:
                    continue
                try:
                    running[name] = launch(name, network, file, options)
                except EngineFailed as e:
                    if ENGINES[name].ours:
                        raise SystemExit(str(e)) from e
                    print(f"  left out: {e}")
                    continue
                check(running[name], expected[name])
        times = alternate(running, options)
        return {name: facts(r, times[name], expected[name]) for name, r in running.items()}
    finally:
        for r in running.values():
            r.close()


def alternate(running, options):
    """Seconds a step for each engine: one number a round, blocks in turn."""
    steps, times = {}, {name: [] for name in running}
    for name, r in running.items():
        once = min(r.block(3), r.block(3))  # also settles caches
        steps[name] = max(3, math.ceil(options.seconds / once))
        r.stop()
    for _ in range(options.rounds):
        for name, r in running.items():
            r.resume()
            r.block(1)  # wakes its threads
            times[name].append(r.block(steps[name]))
            r.stop()
    return times


def facts(running, seconds, expected):
    return {
        "version": running.version,
        "device": running.device,
        "median": statistics.median(seconds),
        "min": min(seconds),
        "rounds": seconds,
        "start": running.start,
        "memory": running.memory,
        "error": max(abs(a / b - 1) for a, b in zip(running.losses, expected, strict=True)),
    }


def best_peer(found):
    """The fastest engine by median that is not ours, or None."""
    peers = {name: f["median"] for name, f in found.items() if not ENGINES[name].ours}
    return min(peers, key=peers.get) if peers else None


def ratio(found, name):
    """The time of the best peer over that of an engine; None without a peer."""
    peer = best_peer(found)
    return found[peer]["median"] / found[name]["median"] if peer else None


# the report


def print_network(network, found):
    print(f"\n{network.title}, batch {network.batch}")
    print(f"  {'':20}{'median':>11}{'fastest':>11}{'best peer / it':>16}{'memory':>10}{'start':>9}")
    for name, f in found.items():
        share = ratio(found, name)
        print(
            f"  {name:20}{record.milliseconds(f['median']):>11}{record.milliseconds(f['min']):>11}"
            f"{'-' if share is None else f'{share:.2f}':>16}"
            f"{f['memory'] / 2**20:>7.0f} MB{f['start']:>7.2f} s",
            flush=True,
        )


def table(results):
    """Lines of Markdown: one line a network, then all that was measured."""
    nets = results["nets"]
    measured = {e for net in nets.values() for e in net["engines"]}
    ours = [e for e, engine in ENGINES.items() if engine.ours and e in measured]
    modules = {e: ENGINES[e].module.removeprefix("engine_") for e in measured}
    theirs = [m for m in LIBRARIES if m in modules.values()]
    short, long = [], []
    for net in nets.values():
        found, cells = net["engines"], [f"{net['title']}, batch {net['batch']}"]
        cells += [record.milliseconds(found[e]["median"]) if e in found else "" for e in ours]
        for module in theirs:
            variants = {e: f["median"] for e, f in found.items() if modules[e] == module}
            best = min(variants, key=variants.get) if variants else None
            cells.append(record.milliseconds(variants[best]) if best else "")
            if module == "torch" and best:
                cells[-1] += f" ({best.removeprefix('torch').lstrip('-') or 'eager'})"
        if theirs:
            cells += [f"{ratio(found, e):.2f}" if e in found else "" for e in ours if e != "numpy"]
        short.append(cells)
        for name, f in found.items():
            values = f["median"], f["min"], f["memory"] / 2**20, f["start"], f["error"]
            median, fastest = map(record.milliseconds, values[:2])
            more = f"{values[2]:.0f} MB", f"{values[3]:.2f} s", f"{values[4]:.0e}"
            long.append([cells[0], name, median, fastest, *more])
    ratios = [f"best peer / {e}" for e in ours if e != "numpy"] if theirs else []
    head = ["training step (forward, backward, Adam)", *ours, *(LIBRARIES[m] for m in theirs)]
    more = ["engine", "median", "fastest", "peak memory", "start to first step", "error of losses"]
    versions = dict.fromkeys(f["version"] for n in nets.values() for f in n["engines"].values())
    return [
        f"# Training steps, {results['date']}",
        f"{results['machine']}; {results['device']}; float32; {'; '.join(versions)}.",
        "Medians over alternating rounds; the losses of the first steps are those of float64.",
        "",
        *record.markdown([*head, *ratios], short),
        "",
        *record.markdown(["network", *more], long),
    ]


def draw(figure, results):
    """Bars for each network: the median of each engine, ours in colour."""
    nets = results["nets"]
    columns = min(3, len(nets))
    rows = -(-len(nets) // columns)
    figure.set_size_inches(4 * columns, 2.4 * rows + 0.4)
    charts = figure.subplots(rows, columns, squeeze=False).ravel()
    for chart in charts[len(nets) :]:
        chart.set_visible(False)
    for chart, (name, net) in zip(charts, nets.items(), strict=False):
        found = net["engines"]
        medians = [f["median"] * 1e3 for f in found.values()]
        colours = ["tab:orange" if ENGINES[e].ours else "tab:gray" for e in found]
        bars = chart.barh(list(found), medians, color=colours)
        chart.bar_label(bars, fmt="%.3g", padding=2, fontsize=7)
        chart.invert_yaxis()
        chart.margins(x=0.15)
        chart.tick_params(labelsize=7)
        chart.set_title(f"{name}, batch {net['batch']}: ms a step", fontsize=9)
    figure.suptitle(
        f"{results['machine']}; {results['device']}; {results['date']}; shorter is better",
        fontsize=8,
    )


def keep(results, where):
    """Put the networks of this run into the file of the day, and write it anew."""
    results = record.joined("train", results, "nets", where)
    order = list(networks.NETWORKS)
    known = {n: net for n, net in results["nets"].items() if net["kind"] in order}
    place = {n: (order.index(net["kind"]), net["batch"]) for n, net in known.items()}
    others = {n: net for n, net in results["nets"].items() if n not in known}
    results["nets"] = {n: known[n] for n in sorted(place, key=place.get)} | others
    record.keep("train", results, table(results), draw, where)


def network(text):
    try:
        return networks.find(text)
    except ValueError as e:
        raise argparse.ArgumentTypeError(str(e)) from e


def parse(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    nets = ", ".join(networks.NETWORKS)
    parser.add_argument("--nets", nargs="+", type=network, metavar="NAME[@BATCH]", help=nets)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, metavar="ENGINE",
                        help=", ".join(ENGINES) + "; by default all that can run")  # fmt: skip
    parser.add_argument("--threads", type=int, help="and cores (1; on a card all)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, help="blocks of steps an engine (7; 2 if quick)")
    parser.add_argument("--seconds", type=float, help="length of a block (0.4; 0.02 if quick)")
    parser.add_argument("--starts", type=int, help="processes an engine; the last counts (2; 1)")
    parser.add_argument("--quick", action="store_true", help="a trial, whose times say nothing")
    parser.add_argument("--keep", action="store_true", help="write into benchmarks/results/")
    parser.add_argument("--to", type=Path, default=record.RESULTS, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    quick = options.quick
    options.nets = options.nets or [networks.find(name) for name in networks.NETWORKS]
    options.rounds = options.rounds or (2 if quick else 7)
    options.seconds = options.seconds or (0.02 if quick else 0.4)
    options.starts = options.starts or (1 if quick else 2)
    options.threads = options.threads or (1 if options.device == "cpu" else os.cpu_count())
    usable = available(options.device)
    options.engines = options.engines or usable
    cannot = [name for name in options.engines if name not in usable]
    if cannot or not usable:
        parser.error(
            f"cannot run here on {options.device}: {', '.join(cannot) or 'any engine'}; these can: "
            f"{', '.join(usable) or 'none'}"
        )
    return options


def main(argv=None):
    options = parse(argv)
    results = record.begin(options.threads) | {"nets": {}}
    print(results["machine"])
    for net in options.nets:
        found = measure(net, options.engines, options)
        if not found:
            raise SystemExit(f"{net.name}: none of {', '.join(options.engines)} runs it")
        results["device"] = next(iter(found.values()))["device"]
        print_network(net, found)
        results["nets"][net.name] = {
            "kind": net.kind, "title": net.title, "batch": net.batch, "engines": found,
        }  # fmt: skip
    if options.keep:
        keep(results, options.to)


if __name__ == "__main__":
    main()
