"""What the engine itself costs, per op: recording on the way forward, a node on the way back.

    python benchmarks/overhead.py                     # on arrays so small that little else counts
    python benchmarks/overhead.py --ops mul linear --keep

A chain of DEPTH ops on Tensors is timed against the same computations on arrays, and so is its
backward(); what is left of the differences, divided by DEPTH, is the engine's own. All on one core, on
the numpy backend: where an op has a kernel, both sides call it. --keep writes
results/overhead-DATE-1core.json, .md and .png.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import record
from threads import confine

import tinygrad_zen as tz
from tinygrad_zen import ops

DEPTH = (
    50  # ops in a row, as the layers of a network: so that backward() starts once for many nodes
)
N = 4  # all arrays are N x N, or N
KERNELS = tz.backend("numpy").kernels


class Op(NamedTuple):
    """An op in a chain x -> op(x, *others) -> ..., and the same on arrays.

    others: what each call gets beside x; learned: whether those carry gradients. gradients(g, x, y,
    *others) -> of x, and of the others if they are learned; y is what `arrays` made of x.
    """

    tensors: Callable
    arrays: Callable
    gradients: Callable
    others: tuple = ()
    learned: bool = False


def linear_gradients(g, x, y, w, b):
    return KERNELS.matmul(g, w), *KERNELS.linear_grad(g, x)


MATRIX, ROW = (N, N), (N,)
OPS = {
    "add": Op(ops.add, np.add, lambda g, x, y, z: (g,), (MATRIX,)),
    "mul": Op(ops.mul, np.multiply, lambda g, x, y, z: (g * z,), (MATRIX,)),
    "mul, both learned": Op(
        ops.mul, np.multiply, lambda g, x, y, z: (g * z, g * x), (MATRIX,), learned=True
    ),
    "tanh": Op(ops.tanh, KERNELS.tanh, lambda g, x, y: (KERNELS.tanh_grad(g, y),)),
    "relu": Op(ops.relu, KERNELS.relu, lambda g, x, y: (KERNELS.relu_grad(g, y),)),
    "sum": Op(
        lambda x: ops.sum(x, axis=0, keepdims=True),
        lambda x: x.sum(axis=0, keepdims=True),
        lambda g, x, y: (np.broadcast_to(g.reshape(1, N), x.shape),),
    ),
    "matmul": Op(
        ops.matmul, KERNELS.matmul, lambda g, x, y, w: (KERNELS.matmul(g, w.swapaxes(-1, -2)),),
        (MATRIX,),
    ),
    "linear": Op(ops.linear, KERNELS.linear, linear_gradients, (MATRIX, ROW), learned=True),
}  # fmt: skip


class Chains:
    """Both sides of an op: each method is one chain, and returns its seconds."""

    def __init__(self, op):
        rng = np.random.default_rng(0)
        self.op = op
        self.x = rng.standard_normal(MATRIX, np.float32)
        half = np.array(
            [-0.5, 0.5], np.float32
        )  # keeps the size of what is multiplied, row by column
        self.others = [[rng.choice(half, shape) for shape in op.others] for _ in range(DEPTH)]
        self.x_tensor = tz.tensor(self.x, requires_grad=True)
        self.other_tensors = [
            [tz.tensor(a, requires_grad=op.learned) for a in some] for some in self.others
        ]

    def tensors(self):
        """Seconds forward and seconds backward, on Tensors."""
        op, y = self.op.tensors, self.x_tensor
        for t in (self.x_tensor, *(t for some in self.other_tensors for t in some)):
            t.grad = None
        begin = time.perf_counter()
        for others in self.other_tensors:
            y = op(y, *others)
        forward = time.perf_counter() - begin
        gradient = np.ones(y.shape, np.float32)
        begin = time.perf_counter()
        y.backward(gradient)
        return forward, time.perf_counter() - begin

    def arrays(self):
        """The same on arrays. Inputs, outputs and gradients are held, as a graph and leaves hold them."""
        op, y, made = self.op.arrays, self.x, [self.x]
        begin = time.perf_counter()
        for others in self.others:
            y = op(y, *others)
            made.append(y)
        forward = time.perf_counter() - begin
        gradients, kept, g = self.op.gradients, [], np.ones(y.shape, np.float32)
        begin = time.perf_counter()
        for i in range(DEPTH - 1, -1, -1):
            g, *rest = gradients(g, made[i], made[i + 1], *self.others[i])
            kept.append(rest)
        backward = time.perf_counter() - begin
        self.found = g, kept[::-1]
        return forward, backward

    def check(self):
        """SystemExit unless both sides compute the same gradients."""
        self.tensors()
        self.arrays()
        g, kept = self.found
        pairs = [(self.x_tensor, np.broadcast_to(g, MATRIX))]
        for tensors, arrays in zip(self.other_tensors, kept, strict=True):
            pairs += zip(tensors, arrays, strict=False)
        if not all(np.allclose(t.grad.data, a, 1e-4, 1e-4 * np.abs(a).max()) for t, a in pairs):
            raise SystemExit("the gradients on Tensors and on arrays differ")


def measure(chosen, rounds):
    """{op: {"forward": [on Tensors, on arrays], "backward": the same}}: microseconds an op, the fastest.

    Rounds go over all ops in turn, so that what else the machine does meets all of them alike.
    """
    chains, times = {name: Chains(op) for name, op in chosen.items()}, {name: [] for name in chosen}
    for each in chains.values():
        each.check()
    for _ in range(rounds):
        for name, each in chains.items():
            times[name].append((each.tensors(), each.arrays()))
    return {
        name: {
            way: [min(pair[side][i] for pair in pairs) / DEPTH * 1e6 for side in (0, 1)]
            for i, way in enumerate(("forward", "backward"))
        }
        for name, pairs in times.items()
    }


def own(found):
    """What the engine takes itself, in microseconds an op: forward, backward."""
    return tuple(tensors - arrays for tensors, arrays in found.values())


def table(results):
    """Lines of Markdown."""
    head = [
        "op",
        "on arrays",
        "on Tensors",
        "engine",
        "back on arrays",
        "back on Tensors",
        "engine",
    ]
    rows = []
    for name, found in results["ops"].items():
        cells = [name]
        for (tensors, arrays), mine in zip(found.values(), own(found), strict=True):
            cells += [f"{arrays:.2f}", f"{tensors:.2f}", f"{mine:.2f}"]
        rows.append(cells)
    middle = [
        statistics.median(each) for each in zip(*map(own, results["ops"].values()), strict=True)
    ]
    rows.append(["median", "", "", f"{middle[0]:.2f}", "", "", f"{middle[1]:.2f}"])
    return [
        f"# What the engine costs, {results['date']}",
        f"{results['machine']}; NumPy {np.__version__}, arrays of {N} x {N} in float32. Microseconds an op: "
        f"the fastest of {results['rounds']} chains of {DEPTH} ops; the engine's own is the difference.",
        "",
        *record.markdown(head, rows),
    ]


def draw(figure, results):
    """Two bars an op: the engine's microseconds forward and backward."""
    names = list(results["ops"])
    figure.set_size_inches(7, 0.35 * len(names) + 1.2)
    chart, left = figure.subplots(), [0.0] * len(names)
    for i, way in enumerate(("forward", "backward")):
        widths = [max(0.0, own(results["ops"][name])[i]) for name in names]
        chart.barh(names, widths, left=left, label=way)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    chart.invert_yaxis()
    chart.set(xlabel="the engine's own microseconds an op")
    chart.legend()
    figure.suptitle(f"{results['machine']}; {results['date']}; shorter is better", fontsize=8)


def parse(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ops", nargs="+", choices=OPS, default=list(OPS), metavar="OP",
                        help=", ".join(OPS))  # fmt: skip
    parser.add_argument("--rounds", type=int, default=400, help="chains an op (%(default)s)")
    parser.add_argument("--keep", action="store_true", help="write into benchmarks/results/")
    parser.add_argument("--to", type=Path, default=record.RESULTS, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    confine(1)
    return options


def main(argv=None):
    options = parse(argv)
    results = record.begin(1) | {"rounds": options.rounds}
    with tz.using("numpy"):
        results["ops"] = measure({name: OPS[name] for name in options.ops}, options.rounds)
    print("\n".join(table(results)))
    if options.keep:
        record.keep("overhead", results, table(results), draw, options.to)


if __name__ == "__main__":
    main()
