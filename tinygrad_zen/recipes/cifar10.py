"""A convolutional net on CIFAR-10, 32x32 photographs of ten classes: three convolutions, two dense layers.

Reaches a test accuracy of 0.67 to 0.71 in ten epochs, as the same net does in PyTorch. The saved model is
loaded again at the end, judged, and asked about single images; --predict FILE does that alone, with the
model of an earlier run.
"""

from pathlib import Path

import tinygrad_zen as tz
from tinygrad_zen import data, nn, view
from tinygrad_zen.train import Model

from .common import add_options, fit, report, write_confusion, write_record


def add_arguments(parser):
    add_options(parser, "cifar10", epochs=10, batch_size=32, quick_epochs=3)
    parser.add_argument("--predict", type=Path, metavar="FILE", help="judge this model, train none")


def network():
    """Images (N, 3, 32, 32) -> scores of ten classes (N, 10)."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * 4 * 4, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def images(quick):
    """CIFAR-10 from 0 to 1; for a quick trial a tenth of it."""
    (x, y), (x_test, y_test) = data.cifar10()
    if quick:
        x, y, x_test, y_test = x[:5000], y[:5000], x_test[:1000], y_test[:1000]
    return (x, y), (x_test, y_test)


def main(args):
    tz.seed(args.seed)
    (x, y), (x_test, y_test) = images(args.quick)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.predict is None:
        model = Model(network())
        model.compile(optimizer="adam", loss="cross_entropy", metrics=["accuracy"])
        fit(
            args,
            model,
            x,
            y,
            batch_size=args.batch_size,
            validation_data=(x_test, y_test),
            seed=args.seed,
        )
        write_record(args, model)

    model = tz.load(args.predict or args.out / "model.safetensors")
    judge(args, model, x_test, y_test)


def judge(args, model, x_test, y_test):
    """Print the test figures of a model; draw what it saw, what it took for what, and its filters."""
    scores = model.predict(x_test, batch_size=256)
    predicted = scores.argmax(axis=1)
    names = data.CIFAR10_CLASSES
    write_confusion(args, y_test, predicted, names)
    pictures = {
        "predictions": view.images(x_test, predicted, y_test, classes=names, limit=20),
        "filters": view.filters(model.net[0]),
        "saliency": view.saliency(model.net, x_test[:8], y_test[:8]),
    }
    for name, figure in pictures.items():
        figure.savefig(args.out / f"{name}.png")
    report(args, model.evaluate(x_test, y_test, batch_size=256))
