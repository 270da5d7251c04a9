"""Complete programs, each a small file to read: `python -m tinygrad_zen train NAME` runs them.

A recipe has `add_arguments(parser)` and `main(args)`, which trains, prints the test figures, and writes
curves, model and record to the folder args.out.
"""

import importlib

RECIPES = {
    "digits": "convolutional net on 8x8 digits, embedded: 0.99 in seconds",
    "binary": "two classes of tumours from ten measures, embedded: seconds",
    "mlp": "the training loop written out, checkpoints, resuming and fine-tuning: seconds",
    "mnist": "convolutional net on 28x28 digits: 0.99",
    "mnist-best": "batch norm, augmentation and a schedule on the same digits: 0.995",
}


def find(name):
    """The module of a recipe."""
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")


def run(recipe, args):
    """Run a recipe on the backend of its --backend."""
    from ..backend import default_backend, using

    with using(args.backend or default_backend()):
        recipe.main(args)
