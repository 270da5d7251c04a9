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
import math
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
    "text-lstm": (2, "accuracy", "test accuracy"),
    "char-lm": (8, "bits", "bits per letter"),
}


def ours(name, seed, threads, more):
    """Run the recipe in a process of its own; -> (figure, seconds)."""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tinygrad_zen", "train", name, *more]
        command += ["--seed", str(seed), "--out", folder]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        figures = json.loads(Path(folder, "figures.json").read_text())
        rows = csv.DictReader(Path(folder, "history.csv").read_text().splitlines())
        return figures[SYSTEMS[name][1]], sum(float(row["time"]) for row in rows)


def peer(name, seed, threads, more):
    """Train the same network in PyTorch; -> (figure, seconds)."""
    import torch

    import tinygrad_zen as tz
    from tinygrad_zen import recipes

    torch.set_num_threads(int(threads))
    recipe = recipes.find(name)
    parser = argparse.ArgumentParser()
    recipe.add_arguments(parser)
    args = parser.parse_args(["--seed", str(seed), *more])
    args.epochs = args.epochs or (args.quick_epochs if args.quick else args.full_epochs)
    tz.seed(seed)
    return PEERS[name](torch, recipe, args)


def text_lstm(torch, recipe, args):
    from tinygrad_zen import data

    F = torch.nn.functional
    parts, _, _ = recipe.samples(args)
    (x, y), (x_dev, y_dev), (x_test, y_test) = parts
    net = torch.nn.ModuleDict(
        {
            "embedding": torch.nn.Embedding(args.words, 32),
            "lstm": torch.nn.LSTM(32, 64, batch_first=True),
            "out": torch.nn.Linear(64, 1),
        }
    )
    load(torch, net, recipe.Net(args.words))

    def forward(x):
        _, (h, _) = net["lstm"](net["embedding"](torch.from_numpy(x).long()))
        return torch.sigmoid(net["out"](h[-1]))[:, 0]

    def loss_of(p, y):
        return F.binary_cross_entropy(p, torch.from_numpy(y).float())

    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    batches = data.DataLoader(x, y, batch_size=args.batch_size, seed=args.seed)
    best, kept, started = math.inf, None, time.perf_counter()
    for _ in range(args.epochs):
        for inputs, target in batches:
            optimizer.zero_grad()
            loss_of(forward(inputs), target).backward()
            optimizer.step()
        with torch.no_grad():
            loss = loss_of(forward(x_dev), y_dev).item()
        if loss < best:
            best, kept = loss, {k: v.clone() for k, v in net.state_dict().items()}
    seconds = time.perf_counter() - started
    net.load_state_dict(kept)
    with torch.no_grad():
        return float(((forward(x_test).numpy() > 0.5) == y_test).mean()), seconds


def char_lm(torch, recipe, args):
    from tinygrad_zen import data

    F = torch.nn.functional
    chars, train, test = recipe.samples(args)
    x, y = recipe.windows(train, args.length)
    net = torch.nn.ModuleDict(
        {
            "embedding": torch.nn.Embedding(len(chars), 64),
            "gru": torch.nn.GRU(64, args.hidden, batch_first=True),
            "out": torch.nn.Linear(args.hidden, len(chars)),
        }
    )
    load(torch, net, recipe.Net(len(chars), hidden=args.hidden))

    def read(x, state=None):
        y, state = net["gru"](net["embedding"](torch.from_numpy(x)), state)
        return net["out"](y).swapaxes(1, 2), state

    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    batches = data.DataLoader(x, y, batch_size=args.batch_size, seed=args.seed)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=5e-3, total_steps=args.epochs * len(batches)
    )
    x_val, y_val = recipe.windows(test, args.length)
    started = time.perf_counter()
    for _ in range(args.epochs):
        for inputs, target in batches:
            optimizer.zero_grad()
            F.cross_entropy(read(inputs)[0], torch.from_numpy(target)).backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            F.cross_entropy(read(x_val)[0], torch.from_numpy(y_val))
    seconds = time.perf_counter() - started

    x, y = recipe.windows(test, (len(test) - 1) // 20)
    loss, state = 0.0, None
    with torch.no_grad():
        for i in range(0, x.shape[1], 200):
            scores, state = read(x[:, i : i + 200], state)
            target = torch.from_numpy(y[:, i : i + 200])
            loss += F.cross_entropy(scores, target, reduction="sum").item()
    return loss / y.size / math.log(2), seconds


PEERS = {"text-lstm": text_lstm, "char-lm": char_lm}


def load(torch, net, start):
    """Give a network in PyTorch the weights that the recipe's starts with, name by name."""
    net.load_state_dict({k: torch.from_numpy(v) for k, v in start.state_dict().items()})


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
        results = [[run(name, s, args.threads, more) for s in args.seeds] for run in (ours, peer)]
        lines.append(line(name, args.seeds, results, machine))
        print(lines[-1], flush=True)
    if args.save and not args.quick:
        save(lines)


if __name__ == "__main__":
    main()
