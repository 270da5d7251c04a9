"""The networks that are timed, told so that every library can build the same one.

A network is a name: one of NETWORKS ("mnist"), or "stack-DEPTH-CHANNELS", DEPTH convolutions of as many
channels; "@N" behind it sets the batch ("mnist@512"). Weights and batches come from fixed seeds. The
names of layers are those that torch.nn and tinygrad_zen.nn share, so `build` makes either's network,
and the names of weights are those of its state dict.
"""

import re
from typing import NamedTuple

import numpy as np

LEARNING_RATE = 1e-3
STEPS = 5  # whose losses are compared before anything is timed


class Network(NamedTuple):
    """layers: (name, *arguments) in a row, or none for a network with a shape of its own in `build`.

    sample: the shape of one input; loss: the name of a function in nn.functional.
    """

    name: str
    title: str
    batch: int
    sample: tuple
    loss: str
    layers: tuple = ()

    @property
    def kind(self):
        """The name without the batch."""
        return self.name.partition("@")[0]

    @property
    def image(self):
        return len(self.sample) == 3


WORDS, WIDTH, HIDDEN = 10_000, 32, 64  # of the recurrent network
MODEL, HEADS, FEED = 128, 4, 512  # of the encoder layer

BINARY, CLASSES = "binary_cross_entropy_with_logits", "cross_entropy"
POOL = ("MaxPool2d", 2)
NETWORKS = {
    n.name: n
    for n in (
        Network(
            *("tabular", "10-64-1 sigmoid network", 32, (10,), BINARY),
            (("Linear", 10, 64), ("Sigmoid",), ("Linear", 64, 1)),
        ),
        Network(
            *("wide", "784-512-1", 128, (784,), BINARY),
            (("Linear", 784, 512), ("ReLU",), ("Linear", 512, 1)),
        ),
        Network(
            *("mnist", "MNIST network (conv 32, conv 64, dense 64)", 64, (1, 28, 28), CLASSES),
            (
                *(("Conv2d", 1, 32, 3), ("ReLU",), POOL),
                *(("Conv2d", 32, 64, 3), ("ReLU",), POOL),
                *(("Flatten",), ("Linear", 1600, 64), ("ReLU",), ("Linear", 64, 10)),
            ),
        ),
        Network(
            *("cifar", "CIFAR network (conv 32, 64, 64, dense 64)", 32, (3, 32, 32), CLASSES),
            (
                *(("Conv2d", 3, 32, 3), ("ReLU",), POOL),
                *(("Conv2d", 32, 64, 3), ("ReLU",), POOL),
                *(("Conv2d", 64, 64, 3), ("ReLU",)),
                *(("Flatten",), ("Linear", 1024, 64), ("ReLU",), ("Linear", 64, 10)),
            ),
        ),
        Network("lstm", "Embedding 32, LSTM 64, length 100", 32, (100,), BINARY),
        Network(
            *("transformer", "Transformer encoder layer, d 128, 4 heads, ff 512, length 128"),
            *(16, (128, MODEL), "mse_loss"),
        ),
    )
}
STACK = re.compile(r"stack-(\d+)-(\d+)")
SIDE = 16  # of the images of a stack


def find(text):
    """The network of a name, with its batch; ValueError for a name that there is not."""
    name, _, batch = text.partition("@")
    known = STACK.fullmatch(name)
    if not (name in NETWORKS or known) or (batch and not batch.isdigit()):
        raise ValueError(
            f"no network {text!r}: choose from {', '.join(NETWORKS)}, stack-DEPTH-CHANNELS, each with "
            "@BATCH if you like"
        )
    network = stack(name, *map(int, known.groups())) if known else NETWORKS[name]
    return network._replace(name=text, batch=int(batch)) if batch else network


def stack(name, depth, channels):
    """Convolutions of equal channels that keep the size of the image, then a dense layer."""
    layers, c = [], 3
    for _ in range(depth):
        layers += [("Conv2d", c, channels, 3, 1, 1), ("ReLU",)]
        c = channels
    layers += [POOL, ("Flatten",), ("Linear", c * (SIDE // 2) ** 2, 10)]
    title = f"{depth} convolutions of {channels} channels"
    return Network(name, title, 16, (3, SIDE, SIDE), CLASSES, tuple(layers))


def build(nn, network):
    """The network as a module: nn is torch.nn or tinygrad_zen.nn."""
    if network.layers:
        return nn.Sequential(*(getattr(nn, name)(*a) for name, *a in network.layers))
    if network.kind == "transformer":
        return nn.TransformerEncoderLayer(
            MODEL, HEADS, FEED, dropout=0.0, activation="gelu", batch_first=True
        )

    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(WORDS, WIDTH)
            self.lstm = nn.LSTM(WIDTH, HIDDEN, batch_first=True)
            self.out = nn.Linear(HIDDEN, 1)

        def forward(self, x):
            _, (h, _) = self.lstm(self.embedding(x))
            return self.out(h[0])

    return Recurrent()


def batch(network, seed=0):
    """A batch: (inputs, targets), float32, and int64 for classes and words."""
    rng = np.random.default_rng(seed)
    shape = (network.batch, *network.sample)
    if network.kind == "lstm":
        x = rng.integers(0, WORDS, shape)
    else:
        x = rng.standard_normal(shape, dtype=np.float32)
    if network.loss == CLASSES:
        return x, rng.integers(0, 10, network.batch)
    if network.loss == BINARY:
        return x, (rng.random((network.batch, 1)) < 0.5).astype(np.float32)
    return x, rng.standard_normal(shape, dtype=np.float32)


def weights(network):
    """The weights that every engine starts from: {name: float32 array} of the state dict."""
    import tinygrad_zen as tz
    from tinygrad_zen import nn

    tz.seed(1)
    with tz.using("numpy"):
        return {n: np.array(w) for n, w in build(nn, network).state_dict().items()}


def train_step(network, start, dtype="float32", one_bias=False):
    """The engine's own training step on its default backend: -> step(x, y), the loss as a Tensor.

    one_bias: a recurrent layer learns only one of its two biases, for libraries that have only one.
    """
    from tinygrad_zen import nn, optim
    from tinygrad_zen.nn import functional as F

    net = build(nn, network)
    net.load_state_dict(start)
    net.to(dtype)
    learned = [p for n, p in net.named_parameters() if not (one_bias and "bias_hh" in n)]
    optimizer, loss_of = optim.Adam(learned, lr=LEARNING_RATE), getattr(F, network.loss)

    def step(x, y):
        optimizer.zero_grad()
        loss = loss_of(net(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def reference_losses(network, start, one_bias=False):
    """The losses of the first steps, by the numpy backend in float64."""
    import tinygrad_zen as tz

    with tz.using("numpy"):
        wide = {"f": "float64", "i": "int64"}
        x, y = (tz.tensor(a, dtype=wide[a.dtype.kind]) for a in batch(network))
        step = train_step(network, start, "float64", one_bias)
        return [float(step(x, y)) for _ in range(STEPS)]
