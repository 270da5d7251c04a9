"""What the recipes share: options, and the files that a training leaves behind."""

from pathlib import Path

from ..backend import LOADERS


def add_options(parser, name, *, epochs, batch_size):
    """The options of every recipe, with its own defaults."""
    parser.add_argument("--epochs", type=positive, default=epochs, help="default: %(default)s")
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


def positive(text):
    """A whole number of at least 1, for argparse."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def write_record(args, model):
    """Write history, curves and model to the folder args.out."""
    args.out.mkdir(parents=True, exist_ok=True)
    model.history.save(args.out / "history.csv")
    model.history.plot().savefig(args.out / "curves.png")
    model.save(args.out / "model.safetensors")


def write_confusion(args, true, predicted):
    """Draw the confusion matrix of labels (N,) and predicted labels (N,) in the folder args.out."""
    from ..view import confusion_matrix

    confusion_matrix(true, predicted).savefig(args.out / "confusion.png")


def report(args, figures):
    """Print the test figures, name -> number, and where the files are."""
    print("test: " + ", ".join(f"{name} {value:.4f}" for name, value in figures.items()))
    print(f"written: {', '.join(sorted(path.name for path in args.out.iterdir()))} in {args.out}")
