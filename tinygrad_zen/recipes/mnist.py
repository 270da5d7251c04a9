"""A convolutional net on MNIST, 28x28 handwritten digits: two convolutions, two dense layers.

Reaches a test accuracy of about 0.99 in five epochs.
"""

import tinygrad_zen as tz
from tinygrad_zen import data, nn
from tinygrad_zen.train import Model

from .common import add_options, fit, report, write_confusion, write_record


def add_arguments(parser):
    add_options(parser, "mnist", epochs=5, batch_size=64, quick_epochs=2)
    parser.add_argument(
        "--one-hot", action="store_true", help="train on one-hot rows, not on labels"
    )


def network():
    """Images (N, 1, 28, 28) -> scores of ten digits (N, 10)."""
    net = nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 5 * 5, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    for name, parameter in net.named_parameters():
        if name.endswith("weight"):
            nn.init.xavier_uniform_(parameter)
        else:
            nn.init.zeros_(parameter)
    return net


def main(args):
    tz.seed(args.seed)
    (x, y), (x_test, y_test) = data.mnist()
    if args.quick:
        x, y, x_test, y_test = x[:2000], y[:2000], x_test[:1000], y_test[:1000]

    model = Model(network())
    model.compile(optimizer="adam", loss="cross_entropy", metrics=["accuracy"])
    fit(
        args,
        model,
        x,
        data.one_hot(y, 10) if args.one_hot else y,
        batch_size=args.batch_size,
        validation_data=(x_test, data.one_hot(y_test, 10) if args.one_hot else y_test),
        seed=args.seed,
    )

    write_record(args, model)
    write_confusion(args, y_test, model.predict(x_test, batch_size=256).argmax(axis=1))
    report(args, model.evaluate(x_test, y_test, batch_size=256))
