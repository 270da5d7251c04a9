"""Where the time of a training step goes, by op and kernel, for the networks of train.py.

    python benchmarks/profiles.py                        # all networks on one core
    python benchmarks/profiles.py --nets wide lstm --threads 2 --keep

Each network's step runs --steps times under tz.profile() on our default backend. A table says for each
op and each kernel in it how long it took, at how many GFLOP/s and GB/s, and what share that is of what
this machine was measured to do: 100 % means that only less work, not a better kernel, would be faster.
--keep writes results/profiles-DATE-CORES.json, .md and .png.
"""

import argparse
from pathlib import Path

import networks
import record
from threads import confine

import tinygrad_zen as tz

MOST = 6  # ops with a colour of their own in the chart


def measure(network, steps):
    """The Profile of so many steps, after warming up."""
    step = networks.train_step(network, networks.weights(network))
    batch = [tz.tensor(a) for a in networks.batch(network)]
    for _ in range(3):
        step(*batch)
    with tz.profile() as profile:
        for _ in range(steps):
            step(*batch)
    return profile


def facts(network, profile, steps):
    """What is kept of a profile: {op: seconds a step}, and the rest between and outside of ops."""
    ops = {row.name: row.seconds / steps for row in profile.rows()}
    return {
        "title": f"{network.title}, batch {network.batch}",
        "steps": steps,
        "seconds": profile.seconds / steps,
        "ops": ops,
        "table": profile.table(),
    }


def lines(results):
    """Lines of Markdown: the tables, as text."""
    text = [f"# Where the time goes, {results['date']}"]
    text.append(
        f"{results['machine']}; {results['backend']}; float32. Milliseconds of all steps together."
    )
    for found in results["nets"].values():
        text += ["", f"## {found['title']}: {found['steps']} steps", "", "```"]
        text += [*found["table"].splitlines(), "```"]
    return text


def draw(figure, results):
    """A bar for each network: the shares of its longest ops."""
    nets = results["nets"]
    figure.set_size_inches(9, 0.6 * len(nets) + 1.2)
    chart = figure.subplots()
    for place, found in enumerate(nets.values()):
        left = 0.0
        parts = list(found["ops"].items())[:MOST]
        for i, (op, seconds) in enumerate(parts):
            share = seconds / found["seconds"]
            chart.barh(place, share, left=left, color=f"C{i}", edgecolor="white")
            if share > 0.08:
                label = op.replace("_", "_\n", 1) if len(op) > 12 else op
                chart.text(left + share / 2, place, label, ha="center", va="center", fontsize=6)
            left += share
        chart.barh(place, max(0.0, 1 - left), left=left, color="lightgray")
    chart.set_yticks(
        range(len(nets)), [f"{n}\n{f['seconds'] * 1e3:.3g} ms" for n, f in nets.items()]
    )
    chart.invert_yaxis()
    chart.set(xlim=(0, 1), xlabel="share of the step; grey: other ops, and what lies between them")
    figure.suptitle(f"{results['machine']}; {results['date']}", fontsize=8)


def parse(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", nargs="+", default=list(networks.NETWORKS), metavar="NET")
    parser.add_argument("--steps", type=int, default=20, help="of each (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="and cores (%(default)s)")
    parser.add_argument("--keep", action="store_true", help="write into benchmarks/results/")
    parser.add_argument("--to", type=Path, default=record.RESULTS, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.steps < 1:
        parser.error(f"--steps must be at least 1, got {options.steps}")
    try:
        options.nets = [networks.find(name) for name in options.nets]
    except ValueError as e:
        parser.error(str(e))
    confine(options.threads)
    return options


def main(argv=None):
    options = parse(argv)
    results = record.begin(options.threads) | {"backend": tz.tensor(0.0).backend.name, "nets": {}}
    print(results["machine"])
    for network in options.nets:
        profile = measure(network, options.steps)
        results["nets"][network.name] = facts(network, profile, options.steps)
        print(f"\n{network.title}\n{profile}")
    if options.keep:
        results = record.joined("profiles", results, "nets", options.to)
        record.keep("profiles", results, lines(results), draw, options.to)


if __name__ == "__main__":
    main()
