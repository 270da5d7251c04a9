"""Whole programs beside PyTorch: the recipe, and the same network trained the same way there.

    python benchmarks/systems.py text-lstm char-lm --seeds 0 1 --save

The network in PyTorch starts from the same weights and sees the same batches in the same order, with the
same optimizer and schedule, so what is left between the two figures is rounding, which training makes
larger. Times are those of the epochs, with their validation. --save writes the lines into
results/systems.md.
"""

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TABLE = Path(__file__).parent / "results" / "systems.md"
# program -> (its row in the table, its figure in figures.json, what that is)
SYSTEMS = {
    "binary": (1, "accuracy", "test accuracy"),
    "mlp": (3, "accuracy", "test accuracy"),
    "mnist": (4, "accuracy", "test accuracy"),
    "mnist-best": (4, "accuracy", "test accuracy"),
    "cifar10": (5, "accuracy", "test accuracy"),
    "cifar10-best": (5, "accuracy", "test accuracy"),
    "text-lstm": (2, "accuracy", "test accuracy"),
    "sentiment-bert": (6, "accuracy", "test accuracy"),
    "sentiment-bert --scratch": (6, "accuracy", "test accuracy"),
    "gan": (7, "score", "score of samples, 1 to 10"),
    "char-lm": (8, "bits", "bits per letter"),
}


def ours(name, seed, threads, more):
    """Run the recipe in a process of its own; -> (figure, seconds)."""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tinygrad_zen", "train", *name.split(), *more]
        command += ["--seed", str(seed), "--out", folder]
        started = time.perf_counter()
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        figures = json.loads(Path(folder, "figures.json").read_text())
        seconds = time.perf_counter() - started
        rows = []
        for file in ("history.csv", "pretraining.csv"):
            if Path(folder, file).exists():
                rows += csv.DictReader(Path(folder, file).read_text().splitlines())
        if "time" in rows[0]:  # mlp's record has no times: there it is the whole program's
            seconds = sum(float(row["time"]) for row in rows)
        return figures[SYSTEMS[name][1]], seconds


def peer(name, seed, threads, more):
    """Train the same network in PyTorch; -> (figure, seconds)."""
    import torch
    from systems_torch import PEERS

    import tinygrad_zen as tz
    from tinygrad_zen import recipes

    torch.set_num_threads(int(threads))
    name, *options = name.split()
    recipe = recipes.find(name)
    parser = argparse.ArgumentParser()
    recipe.add_arguments(parser)
    args = parser.parse_args(["--seed", str(seed), *options, *more])
    args.epochs = args.epochs or (args.quick_epochs if args.quick else args.full_epochs)
    tz.seed(seed)
    return PEERS[name](recipe, args)


def line(name, seeds, results, machine):
    """A line of the table: figures in the order of the seeds, medians of the seconds."""
    row, _, what = SYSTEMS[name]
    cells = [f"{row} `{name}`", what, ", ".join(map(str, seeds))]
    for runs in results:
        seconds = sorted(seconds for _, seconds in runs)[len(runs) // 2]
        cells += [", ".join(f"{figure:.4f}" for figure, _ in runs), f"{seconds:.0f} s"]
    return f"| {' | '.join([*cells, machine])} |"


def save(lines):
    """Put lines in the place of those of the same programs in the table."""
    kept = TABLE.read_text().splitlines()
    for new in lines:
        begin = new.split(" | ")[0]
        (place,) = (i for i, old in enumerate(kept) if old.split(" | ")[0] == begin)
        kept[place] = new
    TABLE.write_text("\n".join(kept) + "\n")


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", choices=SYSTEMS, metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="(%(default)s)")
    parser.add_argument("--threads", default="2", help="of both (%(default)s)")
    parser.add_argument("--note", help="of the circumstances, for the table")
    parser.add_argument("--quick", action="store_true", help="the short form of the recipes")
    parser.add_argument("--save", action="store_true", help="write into results/systems.md")
    args = parser.parse_args(argv)
    machine = f"{platform.machine()}, {args.threads} threads, {time.strftime('%d %B %Y')}"
    machine += f", {args.note}" if args.note else ""
    more = ["--quick"] if args.quick else []
    lines = []
    for name in args.names:
        results = []
        for run in (ours, peer):
            results.append([])
            for seed in args.seeds:
                results[-1].append(run(name, seed, args.threads, more))
                figure, seconds = results[-1][-1]
                print(
                    f"{name}, seed {seed}, {run.__name__}: {figure:.4f}, {seconds:.0f} s",
                    flush=True,
                )
        lines.append(line(name, args.seeds, results, machine))
        print(lines[-1], flush=True)
    if args.save and not args.quick:
        save(lines)


if __name__ == "__main__":
    main()
