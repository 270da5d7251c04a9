"""The recipes' networks in PyTorch: from the same weights, on the same batches, with the same optimizer.

Each function of PEERS takes a recipe and its arguments, and returns the figure that the recipe reports
and the seconds that the epochs took, with their validation.
"""

import math
import time

import numpy as np
import torch

from tinygrad_zen import data
from tinygrad_zen.recipes import cifar10

F = torch.nn.functional


def twin(net):
    """An nn.Sequential of ours as one of PyTorch's, with the same weights: the layers' names agree."""
    layers = []
    for layer in net:
        kind = type(layer).__name__
        arguments = {
            "Linear": lambda x: (x.in_features, x.out_features),
            "Conv2d": lambda x: (x.in_channels, x.out_channels, x.kernel_size, x.stride, x.padding),
            "BatchNorm2d": lambda x: (x.num_features,),
            "MaxPool2d": lambda x: (x.kernel_size,),
            "Dropout": lambda x: (x.p,),
        }.get(kind, lambda x: ())(layer)
        options = {"bias": layer.bias is not None} if kind in ("Linear", "Conv2d") else {}
        layers.append(getattr(torch.nn, kind)(*arguments, **options))
    peer = torch.nn.Sequential(*layers)
    load(peer, net)
    return peer


def load(net, start):
    """Give a network in PyTorch the weights that the recipe's starts with, name by name."""
    net.load_state_dict({k: torch.from_numpy(v) for k, v in start.state_dict().items()})


def classifier(net, batches, test, epochs, optimizer, loss_of, every_batch=None):
    """Train net on batches, judging it on the test samples after each epoch -> (accuracy, seconds)."""
    x_test, y_test = test
    started = time.perf_counter()
    for _ in range(epochs):
        net.train()
        for x, y in batches:
            optimizer.zero_grad()
            loss_of(net(torch.from_numpy(x)), torch.from_numpy(y)).backward()
            optimizer.step()
            if every_batch is not None:
                every_batch()
        net.eval()
        with torch.no_grad():
            parts = [net(torch.from_numpy(x_test[i : i + 256])) for i in range(0, len(x_test), 256)]
            scores = torch.cat(parts)
            loss_of(scores, torch.from_numpy(y_test))
    seconds = time.perf_counter() - started
    scores = scores.numpy()
    chosen = scores.argmax(axis=1) if scores.shape[1] > 1 else scores > 0.5
    return float((chosen == y_test).mean()), seconds


def dense(recipe, args, part):
    """binary, which trains on a part of the samples, and mlp."""
    (x, y), (x_test, y_test) = data.breast_cancer()
    x, x_test = data.standardize(x, x_test)
    y, y_test = (a.reshape(-1, 1).astype(np.float32) for a in (y, y_test))
    cut = int(len(x) * part)
    batches = data.DataLoader(x[:cut], y[:cut], batch_size=args.batch_size, seed=args.seed)
    net = twin(recipe.network())
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    test = x_test, y_test
    return classifier(net, batches, test, args.epochs, optimizer, F.binary_cross_entropy)


def mnist_samples(args):
    (x, y), (x_test, y_test) = data.mnist()
    n, n_test = (2000, 1000) if args.quick else (None, None)
    return (x[:n], y[:n]), (x_test[:n_test], y_test[:n_test])


def plain(recipe, args, samples):
    """mnist and cifar10: Adam, as the data are."""
    train, test = samples(args)
    batches = data.DataLoader(*train, batch_size=args.batch_size, seed=args.seed)
    net = twin(recipe.network())
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    return classifier(net, batches, test, args.epochs, optimizer, F.cross_entropy)


def mnist_best(recipe, args):
    train, test = mnist_samples(args)
    vary = data.augment.RandomAffine(degrees=10, shift=2, scale=(0.9, 1.1))
    batches = data.DataLoader(*train, batch_size=args.batch_size, transform=vary, seed=args.seed)
    net = twin(recipe.network())
    optimizer = torch.optim.AdamW(net.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.01, total_steps=args.epochs * len(batches)
    )
    return classifier(net, batches, test, args.epochs, optimizer, F.cross_entropy, schedule.step)


def cifar10_best(recipe, args):
    (x, y), (x_test, y_test) = cifar10.images(args.quick)
    mean, scale = x.mean((0, 2, 3), keepdims=True), x.std((0, 2, 3), keepdims=True)
    x, x_test = (x - mean) / scale, (x_test - mean) / scale
    vary = data.augment.Compose(data.augment.RandomCrop(3), data.augment.RandomHorizontalFlip())
    size = min(args.batch_size, 32) if args.quick else args.batch_size
    batches = data.DataLoader(x, y, batch_size=size, transform=vary, drop_last=True, seed=args.seed)
    net = twin(recipe.network())
    max_lr = 0.2 * size / 128
    optimizer = torch.optim.SGD(
        net.parameters(), lr=max_lr, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=max_lr, total_steps=args.epochs * len(batches), pct_start=0.25
    )
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    test = x_test, y_test
    return classifier(net, batches, test, args.epochs, optimizer, loss_of, schedule.step)


def text_lstm(recipe, args):
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
    load(net, recipe.Net(args.words))

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


def char_lm(recipe, args):
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
    load(net, recipe.Net(len(chars), hidden=args.hidden))

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


PEERS = {
    "binary": lambda recipe, args: dense(recipe, args, 0.8),
    "mlp": lambda recipe, args: dense(recipe, args, 1),
    "mnist": lambda recipe, args: plain(recipe, args, mnist_samples),
    "mnist-best": mnist_best,
    "cifar10": lambda recipe, args: plain(recipe, args, lambda a: cifar10.images(a.quick)),
    "cifar10-best": cifar10_best,
    "text-lstm": text_lstm,
    "char-lm": char_lm,
}
