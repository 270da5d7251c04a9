"""A generator that learns to write digits, because a discriminator learns to tell its digits from real ones.

Data: MNIST. Each epoch leaves a sheet of samples, from the same noise each time. How good they are says
a net that was taught the digits beforehand: how sure it is of each sample, and how evenly the samples are
spread over the ten digits. --loss wasserstein bounds the discriminator's slope by a penalty, whose
gradient takes second derivatives through all of its layers.
"""

import time

import numpy as np

import tinygrad_zen as tz
import tinygrad_zen.nn.functional as F
from tinygrad_zen import data, io, nn, optim, view
from tinygrad_zen.nn import adversarial
from tinygrad_zen.train import Model
from tinygrad_zen.train.history import History
from tinygrad_zen.train.progress import progress

from . import mnist
from .common import Keeper, Means, add_options, positive, report

NOISE = 64  # numbers that a digit is made from


def add_arguments(parser):
    add_options(parser, "gan", epochs=10, batch_size=64, quick_epochs=8)
    parser.add_argument(
        "--loss", choices=list(adversarial.KINDS), default="non-saturating", help="(%(default)s)"
    )
    parser.add_argument(
        "--critic-steps",
        type=positive,
        help="steps of the discriminator to one of the generator: 5 for wasserstein, else 1",
    )
    parser.add_argument(
        "--penalty", type=float, default=10, help="its weight, for wasserstein (%(default)s)"
    )
    parser.add_argument("--lr", type=float, default=5e-4, help="learning rate (%(default)s)")


class Generator(nn.Module):
    """Noise (N, NOISE) -> images (N, 1, 28, 28) from -1 to 1."""

    def __init__(self):
        self.begin = nn.Sequential(
            nn.Linear(NOISE, 64 * 7 * 7, bias=False), nn.BatchNorm1d(64 * 7 * 7), nn.ReLU()
        )
        self.enlarge = nn.Sequential(
            nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 1, 4, stride=2, padding=1),
            nn.Tanh(),
        )

    def forward(self, z):
        return self.enlarge(self.begin(z).reshape((z.shape[0], 64, 7, 7)))


def discriminator():
    """Images (N, 1, 28, 28) -> a score each (N, 1), high for a real one.

    Layer norm treats each image by itself, as the penalty on the slope needs; batch norm would not.
    """
    return nn.Sequential(
        nn.Conv2d(1, 32, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(32, 64, 4, stride=2, padding=1),
        nn.LayerNorm((64, 7, 7)),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(64 * 7 * 7, 1),
    )


class Trainer:
    """Both nets with their optimizers, and the steps that each takes against the other."""

    def __init__(self, args):
        self.kind, self.penalty = args.loss, args.penalty
        self.g, self.d = Generator(), discriminator()
        betas = (0.5, 0.9) if self.kind == "wasserstein" else (0.5, 0.999)
        self.opt_g, self.opt_d = (
            optim.Adam(net.parameters(), lr=args.lr, betas=betas) for net in (self.g, self.d)
        )

    def noise(self, n):
        return tz.tensor(tz.default_generator().standard_normal((n, NOISE)), dtype="float32")

    def discriminate(self, real):
        """A step of the discriminator on real images; -> its loss."""
        self.opt_d.zero_grad()
        with tz.no_grad():
            fake = self.g(self.noise(real.shape[0]))
        loss = adversarial.discriminator_loss(self.d(real), self.d(fake), self.kind)
        if self.kind == "wasserstein":
            loss = loss + self.penalty * adversarial.gradient_penalty(self.d, real, fake)
        loss.backward()
        self.opt_d.step()
        return loss.item()

    def generate(self, n):
        """A step of the generator by n samples; -> its loss."""
        self.opt_g.zero_grad()
        loss = adversarial.generator_loss(self.d(self.g(self.noise(n))), self.kind)
        loss.backward()
        self.opt_g.step()
        return loss.item()

    def samples(self, n, rng, batch_size=256):
        """n images (n, 1, 28, 28) from 0 to 1, in evaluation mode, from noise of a NumPy generator."""
        z = rng.standard_normal((n, NOISE)).astype(np.float32)
        images = Model(self.g).predict(z, batch_size=batch_size)
        return (images + 1) / 2


def teach_judge(args, x, y):
    """A net that knows the digits, trained as in the recipe mnist; read again when resuming."""
    net, path = mnist.network(), args.out / "judge.safetensors"
    if args.resume and path.exists():
        net.load_state_dict(io.load_state(path)[0])
        return Model(net)
    print("the judge learns the digits")
    model = Model(net)
    model.compile("adam", "cross_entropy")
    model.fit(x, y, epochs=2 if args.quick else 1, batch_size=64, seed=args.seed)
    io.save_state(path, net.state_dict())
    return model


def quality(judge, images):
    """What a judge of digits says of images (N, 1, 28, 28): name -> number.

    confidence: the mean probability of the likeliest digit. digits: how many of the ten are seen in at
    least 2 % of the images. entropy: of the digits seen, in bits; 3.32 if all were as frequent. score: e
    to the mean divergence of an image's probabilities from those of all, from 1 to 10: high if
    each image is clearly one digit and all digits are as frequent. Salimans et al. 2016.
    """
    p = F.softmax(tz.tensor(judge.predict(images, batch_size=256))).numpy().astype(np.float64)
    share = np.bincount(p.argmax(axis=1), minlength=10) / len(p)
    seen, mean = share[share > 0], p.mean(axis=0)
    divergence = np.where(p > 0, p * np.log(np.maximum(p, 1e-300) / mean), 0).sum(axis=1)
    return {
        "score": float(np.exp(divergence.mean())),
        "confidence": float(p.max(axis=1).mean()),
        "digits": int((share >= 0.02).sum()),
        "entropy": float((seen * np.log2(1 / seen)).sum()),
    }


def main(args):
    tz.seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    (x, y), (x_test, y_test) = data.mnist()
    if args.quick:
        x, y, x_test, y_test = x[:2000], y[:2000], x_test[:1000], y_test[:1000]
    judge = teach_judge(args, x, y)

    t = Trainer(args)
    # of few images small batches, for more steps
    batch_size = min(args.batch_size, 32) if args.quick else args.batch_size
    loader = data.DataLoader(2 * x - 1, batch_size=batch_size, drop_last=True, seed=args.seed)
    critic_steps = args.critic_steps or (5 if args.loss == "wasserstein" else 1)
    history, means = History(), Means()
    parts = {"g": t.g, "d": t.d, "opt_g": t.opt_g, "opt_d": t.opt_d}
    keeper = Keeper(args, **parts, loader=loader, history=history, means=means)
    bar = progress(args.epochs, verbose=1)
    try:
        while loader.epoch < args.epochs:
            epoch, started = loader.epoch, time.perf_counter()
            bar.start_epoch(epoch, len(loader), loader.position)
            for real in loader:
                losses = {"d_loss": t.discriminate(tz.tensor(real))}
                # counted from the beginning, so that a resumed training keeps the beat
                if (loader.epoch * len(loader) + loader.position) % critic_steps == 0:
                    losses["g_loss"] = t.generate(len(real))
                means.add(len(real), **losses)
                bar.batch(means.values)
                keeper.step()
            images = t.samples(1000, np.random.default_rng(args.seed))
            view.tiles(images[:64]).savefig(args.out / f"samples-{epoch + 1:02}.png")
            values = means.take() | quality(judge, images)
            values["time"] = time.perf_counter() - started
            history.append(epoch, values)
            bar.end_epoch(epoch, values)
            keeper.save()
    finally:
        bar.close()

    history.save(args.out / "history.csv")
    history.plot().savefig(args.out / "curves.png")
    io.save_state(args.out / "model.safetensors", t.g.state_dict())
    images = t.samples(2000 if args.quick else 10_000, np.random.default_rng(args.seed + 1))
    report(args, quality(judge, images) | {"real_score": quality(judge, x_test)["score"]})
