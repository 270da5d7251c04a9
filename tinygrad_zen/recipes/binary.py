"""Malignant or benign: a small dense net on ten measures of cell nuclei.

Data: the means of the Wisconsin diagnostic breast-cancer table, 569 rows, which the package carries.
"""

import tinygrad_zen as tz
from tinygrad_zen import data, nn
from tinygrad_zen.train import Model

from .common import add_options, fit, report, write_confusion, write_record


def add_arguments(parser):
    add_options(parser, "binary", epochs=10, batch_size=32, quick_epochs=7)


def network(features=10):
    """Measures (N, features) -> the probability of benign (N, 1)."""
    return nn.Sequential(
        nn.Linear(features, 64),
        nn.Sigmoid(),
        nn.Linear(64, 1),
        nn.Sigmoid(),
    )


def main(args):
    tz.seed(args.seed)
    (x, y), (x_test, y_test) = data.breast_cancer()
    x, x_test = data.standardize(x, x_test)

    model = Model(network())
    model.compile(optimizer="adam", loss="binary_cross_entropy", metrics=["accuracy", "auc"])
    fit(
        args,
        model,
        x,
        y,
        batch_size=args.batch_size,
        validation_split=0.2,
        seed=args.seed,
    )

    write_record(args, model)
    write_confusion(args, y_test, (model.predict(x_test)[:, 0] > 0.5).astype(int))
    report(args, model.evaluate(x_test, y_test))
