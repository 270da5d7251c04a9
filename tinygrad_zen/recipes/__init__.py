"""Complete programs, each a small file to read: `python -m tinygrad_zen train NAME` runs them.

A recipe has `add_arguments(parser)` and `main(args)`, which trains, prints the test figures, and writes
curves, model, record and checkpoint to the folder args.out. Ctrl-C keeps the last checkpoint, and
--resume goes on from it, to the same bits as a run that was never stopped.
"""

import importlib
import shlex

RECIPES = {
    "digits": "convolutional net on 8x8 digits, embedded: 0.99 in seconds",
    "binary": "two classes of tumours from ten measures, embedded: seconds",
    "mlp": "the training loop written out, checkpoints, resuming and fine-tuning: seconds",
    "mnist": "convolutional net on 28x28 digits: 0.99",
    "mnist-best": "batch norm, augmentation and a schedule on the same digits: 0.995",
    "cifar10": "convolutional net on 32x32 photographs of ten classes: 0.71",
    "cifar10-best": "batch norm, augmentation and a schedule on the same photographs",
    "text-lstm": "praise or blame in sentences of film reviews, by an LSTM: 0.81",
    "sentiment-bert": "praise or blame by a BERT that first guesses hidden words",
    "gan": "a generator learns to write digits against a discriminator",
    "char-lm": "a GRU reads Shakespeare letter by letter, then writes",
}


def find(name):
    """The module of a recipe."""
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")


def run(recipe, args):
    """Run a recipe on the backend of its --backend, for as many epochs as its options say."""
    from ..backend import default_backend, using

    if args.epochs is None:
        args.epochs = args.quick_epochs if args.quick else args.full_epochs
    with using(args.backend or default_backend()):
        recipe.main(args)


def how_to_go_on(name, argv, args, started):
    """What to say after Ctrl-C: the command that resumes, if there is a checkpoint of this training.

    argv: the options that the recipe was started with. started: when, in seconds since 1970.
    """
    from .common import CHECKPOINT, PRETRAINING

    checkpoints = [args.out / name for name in (CHECKPOINT, PRETRAINING)]
    if not any(p.exists() and (args.resume or p.stat().st_mtime >= started) for p in checkpoints):
        return ""
    options = [option for option in argv if option != "--resume"]
    command = ["python", "-m", "tinygrad_zen", "train", name, *options, "--resume"]
    return f"\ngo on with: {shlex.join(command)}"
