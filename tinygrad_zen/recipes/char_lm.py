"""A language model that reads Shakespeare letter by letter, and then writes.

Each letter is a number, a GRU reads them one after the other, and says how likely each letter is to come
next. Data: tinyshakespeare, a million letters. The figure is bits per letter of the text to test on: 6.02
if all 65 letters were as likely. A sample goes to sample.txt.
"""

import math

import numpy as np

import tinygrad_zen as tz
import tinygrad_zen.nn.functional as F
from tinygrad_zen import data, nn, optim
from tinygrad_zen.train import LearningRate, Model

from .common import add_options, fit, positive, report, write_record


def add_arguments(parser):
    add_options(parser, "char-lm", epochs=10, batch_size=64, quick_epochs=2)
    parser.add_argument(
        "--hidden", type=positive, default=256, help="numbers that the GRU remembers (%(default)s)"
    )
    parser.add_argument(
        "--length", type=positive, default=64, help="letters read in a row (%(default)s)"
    )
    parser.add_argument(
        "--temperature", type=float, default=0.7, help="of the sample: daring (%(default)s)"
    )


class Net(nn.Module):
    """Letters by number (N, L) -> scores of the letter after each (N, symbols, L)."""

    def __init__(self, symbols, width=64, hidden=256):
        self.embedding = nn.Embedding(symbols, width)
        self.gru = nn.GRU(width, hidden, batch_first=True)
        self.out = nn.Linear(hidden, symbols)

    def forward(self, x):
        return self.read(x)[0]

    def read(self, x, state=None):
        """Go on reading from a state; -> (scores (N, symbols, L), the state after the last letter)."""
        y, state = self.gru(self.embedding(x), state)
        return self.out(y).swapaxes(1, 2), state


def samples(args):
    """The Characters, and the numbers of those to train on and to test on."""
    train, test = data.tinyshakespeare()
    chars = data.Characters(train + test)
    if args.quick:
        train, test = train[:60_000], test[:6000]
    return chars, chars.encode(train), chars.encode(test)


def windows(ids, length):
    """The text cut into pieces (N, length), and the letters that follow each letter (N, length)."""
    n = (len(ids) - 1) // length
    return ids[: n * length].reshape(n, length), ids[1 : n * length + 1].reshape(n, length)


def judge(net, ids, streams=20, length=200):
    """Bits per letter and the share of letters foreseen, over a text read without a break.

    The text is cut into that many streams, so that they can be read side by side.
    """
    x, y = windows(ids, (len(ids) - 1) // streams)
    loss, right, state = 0.0, 0, None
    net.eval()
    with tz.no_grad():
        for i in range(0, x.shape[1], length):
            scores, state = net.read(tz.tensor(x[:, i : i + length]), state)
            target = y[:, i : i + length]
            loss += F.cross_entropy(scores, tz.tensor(target), reduction="sum").item()
            right += int((scores.numpy().argmax(axis=1) == target).sum())
    return {"bits": loss / y.size / math.log(2), "accuracy": right / y.size}


def write(net, chars, start, count, temperature, rng):
    """A text that begins with `start`; each letter is drawn as the net finds it likely."""
    ids = list(chars.encode(start))
    unread, state = ids, None
    with tz.no_grad():
        for _ in range(count):
            scores, state = net.read(tz.tensor(np.array([unread])), state)
            p = F.softmax(scores[0, :, -1] / temperature, axis=0).numpy().astype(np.float64)
            unread = [int(rng.choice(len(chars), p=p / p.sum()))]
            ids += unread
    return chars.decode(ids)


def main(args):
    tz.seed(args.seed)
    chars, train, test = samples(args)
    x, y = windows(train, args.length)
    batches = data.DataLoader(x, y, batch_size=args.batch_size, seed=args.seed)

    net = Net(len(chars), hidden=args.hidden)
    model = Model(net)
    model.compile("adam", "cross_entropy", metrics=["accuracy"], clip_norm=1.0)
    schedule = optim.OneCycleLR(
        model.optimizer, max_lr=5e-3, total_steps=args.epochs * len(batches)
    )
    fit(
        args,
        model,
        batches,
        validation_data=windows(test, args.length),
        callbacks=[LearningRate(schedule, every="batch")],
    )

    write_record(args, model)
    sample = write(net, chars, "\n", 500, args.temperature, np.random.default_rng(args.seed))
    (args.out / "sample.txt").write_text(sample)
    chars.save(args.out / "characters.txt")
    print(sample)
    report(args, judge(net, test))
