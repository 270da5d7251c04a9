"""The recipes' networks in PyTorch: from the same weights, on the same batches, with the same optimizer.

Each function of PEERS takes a recipe and its arguments, and returns the figure that the recipe reports
and the seconds that the epochs took, with their validation.
"""

import math
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from tinygrad_zen import data, nn
from tinygrad_zen.recipes import cifar10

F = torch.nn.functional


WITH_BIAS = ("Linear", "Conv2d", "ConvTranspose2d")


def twin(net):
    """An nn.Sequential of ours as one of PyTorch's, with the same weights: the layers' names agree."""
    layers = []
    for layer in net:
        kind = type(layer).__name__
        arguments = {
            "Linear": lambda x: (x.in_features, x.out_features),
            "Conv2d": lambda x: (x.in_channels, x.out_channels, x.kernel_size, x.stride, x.padding),
            "ConvTranspose2d": lambda x: (
                x.in_channels,
                x.out_channels,
                x.kernel_size,
                x.stride,
                x.padding,
            ),
            "BatchNorm1d": lambda x: (x.num_features,),
            "LayerNorm": lambda x: (x.normalized_shape,),
            "LeakyReLU": lambda x: (x.negative_slope,),
            "BatchNorm2d": lambda x: (x.num_features,),
            "MaxPool2d": lambda x: (x.kernel_size,),
            "Dropout": lambda x: (x.p,),
        }.get(kind, lambda x: ())(layer)
        options = {"bias": layer.bias is not None} if kind in WITH_BIAS else {}
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


def gan(recipe, args):
    """Without the gradient penalty: for the kinds of loss that have none."""
    (x, y), _ = mnist_samples(args)
    with tempfile.TemporaryDirectory() as folder:
        args.out = Path(folder)
        judge = recipe.teach_judge(args, x, y)
    start = recipe.Trainer(args)
    g = torch.nn.Sequential(
        *twin(start.g.begin), torch.nn.Unflatten(1, (64, 7, 7)), *twin(start.g.enlarge)
    )
    d = twin(start.d)
    opt_g, opt_d = (
        torch.optim.Adam(net.parameters(), lr=args.lr, betas=(0.5, 0.999)) for net in (g, d)
    )
    discriminator_loss, generator_loss = {
        "non-saturating": (
            lambda real, fake: F.softplus(-real).mean() + F.softplus(fake).mean(),
            lambda fake: F.softplus(-fake).mean(),
        ),
        "least-squares": (
            lambda real, fake: ((real - 1) ** 2).mean() / 2 + (fake**2).mean() / 2,
            lambda fake: ((fake - 1) ** 2).mean() / 2,
        ),
        "hinge": (
            lambda real, fake: F.relu(1 - real).mean() + F.relu(1 + fake).mean(),
            lambda fake: -fake.mean(),
        ),
    }[args.loss]

    def images(n, seed):
        z = np.random.default_rng(seed).standard_normal((n, recipe.NOISE)).astype(np.float32)
        g.eval()
        with torch.no_grad():
            parts = [g(torch.from_numpy(z[i : i + 256])) for i in range(0, n, 256)]
        g.train()
        return (torch.cat(parts).numpy() + 1) / 2

    def noise(n):
        return torch.from_numpy(start.noise(n).numpy())

    size = min(args.batch_size, 32) if args.quick else args.batch_size
    batches = data.DataLoader(2 * x - 1, batch_size=size, drop_last=True, seed=args.seed)
    started = time.perf_counter()
    for _ in range(args.epochs):
        for real in batches:
            opt_d.zero_grad()
            with torch.no_grad():
                fake = g(noise(len(real)))
            discriminator_loss(d(torch.from_numpy(real)), d(fake)).backward()
            opt_d.step()
            opt_g.zero_grad()
            generator_loss(d(g(noise(len(real))))).backward()
            opt_g.step()
        recipe.quality(judge, images(1000, args.seed))
    seconds = time.perf_counter() - started
    made = images(2000 if args.quick else 10_000, args.seed + 1)
    return recipe.quality(judge, made)["score"], seconds


class Bert(torch.nn.Module):
    """A BERT of ours with its head, from its weights: as much of it as the recipe uses."""

    def __init__(self, start, config):
        super().__init__()
        self.config = config
        self.weights = torch.nn.ParameterDict(
            {
                name.removeprefix("lm.").replace(".", "/"): torch.from_numpy(v)
                for name, v in start.state_dict().items()
            }
        )

    def weight(self, name):
        return self.weights[name.replace(".", "/")]

    def dense(self, name, x):
        return F.linear(x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias"))

    def norm(self, name, x):
        w, b = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return F.layer_norm(x, x.shape[-1:], w, b, self.config.layer_norm_eps)

    def drop(self, x, p=None):
        return F.dropout(x, self.config.hidden_dropout_prob if p is None else p, self.training)

    def heads(self, name, x):
        n, t, size = x.shape
        heads = self.config.num_attention_heads
        return self.dense(name, x).reshape(n, t, heads, size // heads).transpose(1, 2)

    def encode(self, ids, mask):
        ids, seen = torch.from_numpy(ids), torch.from_numpy(mask != 0)[:, None, None]
        e = "bert.embeddings"
        x = F.embedding(ids, self.weight(f"{e}.word_embeddings.weight"), padding_idx=0)
        x = x + self.weight(f"{e}.position_embeddings.weight")[: ids.shape[1]]
        x = x + self.weight(f"{e}.token_type_embeddings.weight")[0]
        x = self.drop(self.norm(f"{e}.LayerNorm", x))
        p = self.config.attention_probs_dropout_prob if self.training else 0.0
        for i in range(self.config.num_hidden_layers):
            layer = f"bert.encoder.layer.{i}"
            q, k, v = (
                self.heads(f"{layer}.attention.self.{name}", x)
                for name in ("query", "key", "value")
            )
            y = F.scaled_dot_product_attention(q, k, v, seen, p).transpose(1, 2).reshape(x.shape)
            y = self.drop(self.dense(f"{layer}.attention.output.dense", y))
            x = self.norm(f"{layer}.attention.output.LayerNorm", x + y)
            y = F.gelu(self.dense(f"{layer}.intermediate.dense", x))
            y = self.drop(self.dense(f"{layer}.output.dense", y))
            x = self.norm(f"{layer}.output.LayerNorm", x + y)
        return x

    def mean(self, states, mask):
        share = torch.from_numpy(mask / mask.sum(axis=1, keepdims=True)).float()
        return (states * share[:, :, None]).sum(dim=1)

    def predict(self, name, x):
        transform = f"{name}.predictions.transform"
        x = self.norm(f"{transform}.LayerNorm", F.gelu(self.dense(f"{transform}.dense", x)))
        table = self.weight("bert.embeddings.word_embeddings.weight")
        return F.linear(x, table, self.weight(f"{name}.predictions.bias"))

    def guess(self, ids, mask, places):
        x = self.encode(ids, mask)
        return self.predict("cls", x[torch.from_numpy(places)]), self.predict(
            "whole", self.mean(x, mask)
        )

    def forward(self, ids, mask):
        return self.dense("classifier", self.drop(self.mean(self.encode(ids, mask), mask), 0.3))


def sentiment_bert(recipe, args):
    (train, y), (dev, y_dev), (test, y_test) = recipe.samples(args)
    tokenizer = data.WordPiece.train(train, args.pieces)
    x, x_dev, x_test = (recipe.encode(tokenizer, t, args.length) for t in (train, dev, test))
    sizes = recipe.config(len(tokenizer), args.length)
    # drawn in the recipe's order, so that the weights are the same
    net = Bert(recipe.Net(nn.BertModel(sizes, pooler=False)), sizes)
    guesser = None if args.scratch else Bert(recipe.Guesser(sizes), sizes)

    def steps(net, batches, epochs, lr, loss_of, dropout=True):
        """Train with the recipe's schedule; a value after each epoch."""
        optimizer = torch.optim.AdamW(net.parameters(), lr=lr)
        total = epochs * len(batches)
        up = max(1, round(0.1 * total))
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda i: min((1 + i * (1 - 1 / up)) / up, 1, (total - i) / (total - up))
        )
        for _ in range(epochs):
            net.train(dropout)
            for batch in batches:
                optimizer.zero_grad()
                loss_of(*batch).backward()
                torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
                optimizer.step()
                schedule.step()
            yield net.eval()

    def accuracy(x, y):
        with torch.no_grad():
            parts = [net(*(a[i : i + 256] for a in x)) for i in range(0, len(y), 256)]
        return float((torch.cat(parts).numpy().argmax(axis=1) == y).mean())

    started = time.perf_counter()
    if guesser:
        rare = recipe.rarity(tokenizer, x[0])

        def guess_loss(ids, mask):
            read, places, shares = recipe.hide(tokenizer, ids, rare)
            scores, whole = guesser.guess(read, mask, places)
            words = F.cross_entropy(whole, torch.from_numpy(shares), reduction="sum")
            return F.cross_entropy(scores, torch.from_numpy(ids[places])) + words

        batches = data.DataLoader(*x, batch_size=args.batch_size, seed=args.seed)
        epochs = recipe.pretraining_epochs(args)
        for _ in steps(
            guesser, batches, epochs, recipe.PRETRAINING_RATE, guess_loss, dropout=False
        ):
            pass
        net.load_state_dict(guesser.state_dict(), strict=False)

    def label_loss(ids, mask, labels):
        return F.cross_entropy(net(ids, mask), torch.from_numpy(labels))

    best, kept = 0, None
    batches = recipe.label_batches(args, tokenizer, *x, y)
    for _ in steps(net, batches, args.epochs, args.lr, label_loss):
        value = accuracy(x_dev, y_dev)
        if value > best:
            best, kept = value, {k: v.clone() for k, v in net.state_dict().items()}
    seconds = time.perf_counter() - started
    net.load_state_dict(kept)
    return accuracy(x_test, y_test), seconds


PEERS = {
    "binary": lambda recipe, args: dense(recipe, args, 0.8),
    "mlp": lambda recipe, args: dense(recipe, args, 1),
    "mnist": lambda recipe, args: plain(recipe, args, mnist_samples),
    "mnist-best": mnist_best,
    "cifar10": lambda recipe, args: plain(recipe, args, lambda a: cifar10.images(a.quick)),
    "cifar10-best": cifar10_best,
    "text-lstm": text_lstm,
    "char-lm": char_lm,
    "gan": gan,
    "sentiment-bert": sentiment_bert,
}
