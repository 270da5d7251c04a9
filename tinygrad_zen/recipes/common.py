"""What the recipes share: options, checkpoints, and the files that a training leaves behind.

A recipe on `fit` below, or on Keeper where its loop is written out, can be stopped anywhere and goes on
with --resume, to the same bits as if it had never been stopped.
"""

import json
from pathlib import Path

from ..backend import LOADERS

CHECKPOINT = "checkpoint.safetensors"
PRETRAINING = "pretraining.safetensors"  # that of a training before the training


def add_options(parser, name, *, epochs, batch_size, quick_epochs=1):
    """The options of every recipe, with its own defaults.

    Without --epochs, recipes.run sets args.epochs to `epochs`, or with --quick to `quick_epochs`.
    """
    parser.set_defaults(full_epochs=epochs, quick_epochs=quick_epochs)
    parser.add_argument(
        "--epochs", type=positive, help=f"default: {epochs}, with --quick {quick_epochs}"
    )
    parser.add_argument(
        "--batch-size", type=positive, default=batch_size, help="default: %(default)s"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of weights, order and noise (%(default)s)"
    )
    parser.add_argument(
        "--backend", choices=list(LOADERS), help="default: TINYGRAD_ZEN_BACKEND or numba"
    )
    parser.add_argument("--out", type=Path, default=Path("runs", name), help="folder (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="a short trial on few samples")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument(
        "--checkpoint-every",
        type=positive,
        metavar="STEPS",
        help="write the checkpoint after so many steps too, not only after each epoch",
    )


def positive(text):
    """A whole number of at least 1, for argparse."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def fit(args, model, *samples, callbacks=(), **options):
    """model.fit, with a checkpoint in the folder args.out; under --resume it goes on from there.

    samples, callbacks, options: as for Model.fit.
    """
    from ..train import Checkpoint

    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / CHECKPOINT
    return model.fit(
        *samples,
        epochs=args.epochs,
        callbacks=[*callbacks, Checkpoint(path, every=args.checkpoint_every)],
        resume=path if args.resume else None,
        **options,
    )


class Keeper:
    """The checkpoint of a loop that is written out; under --resume it gives the parts their states back.

        keeper = Keeper(args, net=net, optimizer=optimizer, loader=loader, history=history)
        while loader.epoch < args.epochs:
            for x, y in loader:
                ...
                keeper.step()
            keeper.save()

    parts: what io.save_checkpoint takes, the DataLoader as `loader`. file: its name in args.out.
    """

    def __init__(self, args, file=CHECKPOINT, **parts):
        from .. import io

        args.out.mkdir(parents=True, exist_ok=True)
        self.path, self.every, self.parts = args.out / file, args.checkpoint_every, parts
        self.steps = 0
        if args.resume:
            io.load_checkpoint(self.path, **parts)

    def step(self):
        """After a step of the optimizer: save if --checkpoint-every says so.

        Not after the last of an epoch: what the loop does at its end would then be left out.
        """
        self.steps += 1
        due = self.every is not None and self.steps % self.every == 0
        if due and self.parts["loader"].position:
            self.save()

    def save(self):
        """Save all parts; the file changes in one move."""
        from .. import io

        io.save_checkpoint(self.path, **self.parts)


class Means:
    """Means over the samples of an epoch that a loop has seen so far; a checkpoint can keep them."""

    def __init__(self):
        self.counts, self.sums = {}, {}

    def add(self, count, **values):
        """A batch of `count` samples, with the mean of each value over them."""
        for name, value in values.items():
            self.counts[name] = self.counts.get(name, 0) + count
            self.sums[name] = self.sums.get(name, 0.0) + value * count

    def values(self):
        """The means so far, name -> number."""
        return {name: total / self.counts[name] for name, total in self.sums.items()}

    def take(self):
        """The means, name -> number; and begin anew."""
        means = self.values()
        self.counts, self.sums = {}, {}
        return means

    def state_dict(self):
        return {"counts": self.counts, "sums": self.sums}

    def load_state_dict(self, state):
        self.counts, self.sums = state["counts"], state["sums"]


def write_record(args, model):
    """Write history, curves and model to the folder args.out."""
    model.history.save(args.out / "history.csv")
    model.history.plot().savefig(args.out / "curves.png")
    model.save(args.out / "model.safetensors")


def write_confusion(args, true, predicted, classes=None):
    """Draw the confusion matrix of labels (N,) and predicted labels (N,) in the folder args.out."""
    from ..view import confusion_matrix

    confusion_matrix(true, predicted, classes).savefig(args.out / "confusion.png")


def report(args, figures):
    """Print the test figures, name -> number, keep them in figures.json, and say where the files are."""
    numbers = {name: float(value) for name, value in figures.items()}
    (args.out / "figures.json").write_text(json.dumps({"seed": args.seed, **numbers}) + "\n")
    print("test: " + ", ".join(f"{name} {value:.4f}" for name, value in numbers.items()))
    print(f"written: {', '.join(sorted(path.name for path in args.out.iterdir()))} in {args.out}")
