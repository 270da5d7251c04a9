"""As much as a small net learns of CIFAR-10 in minutes: batch norm, augmentation, one cycle of the rate.

Reaches a test accuracy above 0.85. The first convolution takes steps of two pixels, as in mnist-best, so
that no layer works on full-sized images: an epoch costs half of one of the plain net's. Nesterov's
momentum, weight decay and softened labels do the rest.
"""

import tinygrad_zen as tz
from tinygrad_zen import data, nn, optim
from tinygrad_zen.data.augment import Compose, RandomCrop, RandomHorizontalFlip
from tinygrad_zen.train import LearningRate, Model

from .cifar10 import images, judge
from .common import add_options, fit, write_record


def add_arguments(parser):
    add_options(parser, "cifar10-best", epochs=15, batch_size=128, quick_epochs=4)


def network():
    """Images (N, 3, 32, 32) -> scores of ten classes (N, 10)."""
    return nn.Sequential(
        *block(3, 32, 4, stride=2, padding=1),
        *block(32, 64, 3, padding=1),
        nn.MaxPool2d(2),
        *block(64, 128, 3, padding=1),
        *block(128, 128, 3, padding=1),
        nn.MaxPool2d(2),
        *block(128, 128, 3, padding=1),
        nn.MaxPool2d(4),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


def block(channels, filters, size, **options):
    """Convolution, batch norm and ReLU; the norm makes a bias needless."""
    return (
        nn.Conv2d(channels, filters, size, bias=False, **options),
        nn.BatchNorm2d(filters),
        nn.ReLU(),
    )


def main(args):
    tz.seed(args.seed)
    (x, y), (x_test, y_test) = images(args.quick)
    mean, scale = x.mean((0, 2, 3), keepdims=True), x.std((0, 2, 3), keepdims=True)
    x, x_test = (x - mean) / scale, (x_test - mean) / scale
    vary = Compose(RandomCrop(3), RandomHorizontalFlip())
    batch_size = (
        min(args.batch_size, 32) if args.quick else args.batch_size
    )  # few images, more steps
    batches = data.DataLoader(
        x, y, batch_size=batch_size, transform=vary, drop_last=True, seed=args.seed
    )

    net = network()
    model = Model(net)
    max_lr = 0.2 * batch_size / 128  # small batches are noisy, and take small steps
    optimizer = optim.SGD(
        net.parameters(), lr=max_lr, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    model.compile(optimizer, nn.CrossEntropyLoss(label_smoothing=0.1), metrics=["accuracy"])
    schedule = optim.OneCycleLR(
        optimizer, max_lr=max_lr, total_steps=args.epochs * len(batches), pct_start=0.25
    )
    fit(
        args,
        model,
        batches,
        validation_data=(x_test, y_test),
        callbacks=[LearningRate(schedule, every="batch")],
    )

    write_record(args, model)
    judge(args, model, x_test, y_test)
