"""A small dense net with the training loop written out: no Model, no fit.

--fine-tune FILE starts from the weights of an earlier run, with a tenth of the learning rate.
"""

from pathlib import Path

import tinygrad_zen as tz
import tinygrad_zen.nn.functional as F
from tinygrad_zen import data, io, nn, optim
from tinygrad_zen.train.history import History
from tinygrad_zen.train.progress import as_text

from .common import Keeper, Means, add_options, report


def add_arguments(parser):
    add_options(parser, "mlp", epochs=20, batch_size=32, quick_epochs=4)
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate (%(default)s)")
    parser.add_argument("--fine-tune", type=Path, metavar="FILE", help="start from these weights")


def network(features=10):
    """Measures (N, features) -> a probability (N, 1)."""
    return nn.Sequential(nn.Linear(features, 64), nn.ReLU(), nn.Linear(64, 1), nn.Sigmoid())


def evaluate(net, x, y):
    """Mean loss and accuracy over samples x (N, features), y (N, 1)."""
    net.eval()
    with tz.no_grad():
        probability = net(tz.tensor(x))
        loss = F.binary_cross_entropy(probability, tz.tensor(y))
        correct = (probability > 0.5) == (tz.tensor(y) > 0.5)
    return {"loss": loss.item(), "accuracy": float(correct.numpy().mean())}


def main(args):
    tz.seed(args.seed)
    (x, y), (x_test, y_test) = data.breast_cancer()
    x, x_test = data.standardize(x, x_test)
    y, y_test = y.reshape(-1, 1).astype(x.dtype), y_test.reshape(-1, 1).astype(x.dtype)

    net = network()
    loader = data.DataLoader(x, y, batch_size=args.batch_size, seed=args.seed)
    lr = args.lr
    if args.fine_tune:
        net.load_state_dict(io.load_state(args.fine_tune)[0])
        lr = args.lr / 10
    optimizer = optim.Adam(net.parameters(), lr=lr)
    history, means = History(), Means()
    keeper = Keeper(args, net=net, optimizer=optimizer, loader=loader, history=history, means=means)

    while loader.epoch < args.epochs:
        net.train()
        for inputs, target in loader:
            optimizer.zero_grad()
            probability = net(tz.tensor(inputs))
            loss = F.binary_cross_entropy(probability, tz.tensor(target))
            loss.backward()
            optimizer.step()
            means.add(len(inputs), loss=loss.item())
            keeper.step()
        test = evaluate(net, x_test, y_test)
        values = means.take() | {f"val_{name}": value for name, value in test.items()}
        print(f"epoch {loader.epoch}/{args.epochs}: {as_text(values)}")
        history.append(loader.epoch - 1, values)
        keeper.save()

    history.save(args.out / "history.csv")
    history.plot().savefig(args.out / "curves.png")
    io.save_state(args.out / "model.safetensors", net.state_dict())
    report(args, evaluate(net, x_test, y_test))
