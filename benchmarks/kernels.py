"""Kernels one by one: every rung of every ladder, on every backend, at several sizes.

    python benchmarks/kernels.py                                        # all of them, some minutes
    python benchmarks/kernels.py --quick --ops matmul --backends numba
    python benchmarks/kernels.py --json kernels.json --plot roofline.png
    python benchmarks/kernels.py --own matmul=my_kernels.py:my_matmul   # a kernel of yours beside ours

Each kernel is first compared with the reference in float64, and only then timed: it is warmed up, then
rounds alternate (a block of calls of one kernel, a block of the next), and the median over rounds is
shown. Floating-point operations and bytes are counted by formula, per call, as the least that the op
needs; a kernel that does more is not credited for it. `share` is what was reached of this machine's
roof: the lower of its measured peak of arithmetic (a large float32 matrix product by the library) and
its measured peak of memory (a large copy) times operations per byte. Data that fit into a cache can
be faster than memory. On a GPU the clock stops after the device is done.
"""

import argparse
import functools
import importlib.util
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from train import machine

import tinygrad_zen as tz
from tinygrad_zen.check.ladders import STYLES, choice, ladders, origin, style

ONE, TWO, ZERO = (1, 1), (2, 2), (0, 0)
FLOAT = 4  # bytes of a float32
TOLERANCE = 1e-4  # of the largest number of a result: float32 against float64
TOO_SLOW = 3.0  # seconds a call, beyond which a kernel is not timed


class Op(NamedTuple):
    """How to run an op at a size, what a call needs, and the sizes to run.

    arguments(normal, *size) -> the kernel's arguments, where normal(*shape) makes an array;
    work(*size) -> (floating-point operations, bytes); axes: what the numbers of a size are; sizes:
    {"cpu": [...], "gpu", "quick", "sim"}.
    """

    arguments: Callable
    work: Callable
    axes: str
    sizes: dict


def matmul(normal, m, k, n):
    return normal(m, k), normal(k, n)


def matmul_work(m, k, n):
    return 2 * m * k * n, FLOAT * (m * k + k * n + m * n)


def convolution(normal, n, c, side, k):
    """3 x 3 filters on square images (n, c, side, side), k filters, as the networks use them."""
    out = side - 2
    return normal(n, c, side, side), normal(k, c, 3, 3), normal(n, k, out, out)


def conv2d(normal, *size):
    x, w, _ = convolution(normal, *size)
    return x, w, None, ONE, ZERO, ONE, 1


def conv2d_grad_x(normal, *size):
    x, w, g = convolution(normal, *size)
    return g, w, x.shape, ONE, ZERO, ONE, 1


def conv2d_grad_w(normal, *size):
    x, w, g = convolution(normal, *size)
    return g, x, w.shape, ONE, ZERO, ONE, 1


def convolution_work(n, c, side, k):
    """The same for all three: each output pixel meets each weight of its filter once."""
    out = (side - 2) ** 2
    return 2 * n * k * out * c * 9, FLOAT * (n * c * side**2 + k * c * 9 + n * k * out)


def max_pool2d(normal, n, c, side):
    return normal(n, c, side, side), TWO, TWO, ZERO, ONE, False


def max_pool2d_work(n, c, side):
    """Three comparisons a window of four; x is read, y and one byte an index are written."""
    windows = n * c * (side // 2) ** 2
    return 3 * windows, FLOAT * n * c * side**2 + (FLOAT + 1) * windows


def softmax(normal, rows, columns):
    return normal(rows, columns), 1


def softmax_work(rows, columns):
    """A comparison, a difference, an exp (counted as one), a sum and a quotient for each number."""
    return 5 * rows * columns, 2 * FLOAT * rows * columns


def layer_norm(normal, rows, columns):
    return normal(rows, columns), normal(columns), normal(columns), 1e-5


def layer_norm_work(rows, columns):
    """Mean 1, centring 1, variance 2, scaling 1, weight and bias 2."""
    return 7 * rows * columns, 2 * FLOAT * (rows * columns + rows + columns)


def gelu(normal, n):
    return (normal(n),)


def gelu_work(n):
    """erf is counted as one, with a sum and three products around it."""
    return 5 * n, 2 * FLOAT * n


def adam(normal, n):
    w, g, m = normal(n), normal(n), normal(n)
    return w, g, m, m * m, None, 3, 1e-3, 0.9, 0.999, 1e-8, 0.0, False


def adam_work(n):
    """3 for m, 4 for v, 5 for w; four arrays are read and three written."""
    return 12 * n, 7 * FLOAT * n


def squares(*sides):
    return [(n, n, n) for n in sides]


FILTERS = "N x C x side x K, filters 3 x 3"
IMAGES = {
    "cpu": [(64, 1, 28, 32), (32, 64, 6, 64), (64, 32, 13, 64)],  # the layers of our networks
    "gpu": [(64, 32, 13, 64), (256, 64, 34, 64)],
    "quick": [(2, 3, 10, 8), (4, 16, 10, 16)],
    "sim": [(1, 2, 5, 3)],
}
ROWS = {
    "cpu": [(64, 10), (4096, 128), (4096, 2048)],
    "gpu": [(4096, 128), (16384, 4096)],
    "quick": [(32, 10), (256, 128)],
    "sim": [(3, 9)],
}
NUMBERS = {
    "cpu": [(1000,), (100_000,), (4_000_000,)],
    "gpu": [(100_000,), (50_000_000,)],
    "quick": [(1000,), (50_000,)],
    "sim": [(50,)],
}
OPS = {
    "matmul": Op(
        matmul,
        matmul_work,
        "M x K x N",
        {
            "cpu": squares(64, 256, 1024),
            "gpu": squares(256, 1024, 4096),
            "quick": squares(32, 128),
            "sim": squares(9),
        },
    ),
    "conv2d": Op(conv2d, convolution_work, FILTERS, IMAGES),
    "conv2d_grad_x": Op(conv2d_grad_x, convolution_work, FILTERS, IMAGES),
    "conv2d_grad_w": Op(conv2d_grad_w, convolution_work, FILTERS, IMAGES),
    "max_pool2d": Op(
        max_pool2d,
        max_pool2d_work,
        "N x C x side, windows 2 x 2",
        {
            "cpu": [(64, 32, 26), (64, 64, 64)],
            "gpu": [(64, 32, 26), (64, 64, 112)],
            "quick": [(2, 8, 10), (4, 16, 20)],
            "sim": [(1, 2, 6)],
        },
    ),
    "softmax": Op(softmax, softmax_work, "rows x columns", ROWS),
    "layer_norm": Op(layer_norm, layer_norm_work, "rows x columns", ROWS),
    "gelu": Op(gelu, gelu_work, "numbers", NUMBERS),
    "adam_": Op(adam, adam_work, "weights", NUMBERS),
}


class Contender(NamedTuple):
    """A kernel on a backend: a rung of a ladder, or the one kernel that there is."""

    backend: object
    name: str
    kernel: Callable
    default: bool


def contenders(op, where):
    """The kernels of a backend (a name or a Backend) for an op, slowest rung first."""
    be = tz.backend(where)
    base = be.name.partition("[")[0]
    kernel, module = getattr(be.kernels, op), style(base)
    rungs, found = ladders(module).get(op, ()), []
    default = choice(op, module)[0] if rungs else []
    if kernel is not getattr(module, op):  # somebody's own, in place of ours
        found = [Contender(be, rung.__name__, as_kernel(op, rung), False) for rung in rungs]
        return [*found, Contender(be, getattr(kernel, "__name__", "custom"), kernel, True)]
    for rung in rungs:
        alone = default == [rung]
        found.append(Contender(be, rung.__name__, as_kernel(op, rung), alone))
    if len(default) != 1:  # no ladder, or a choice by size: that is timed as well
        name = "reference" if origin(module, op) == "reference" else op
        found.append(Contender(be, name, kernel, True))
    return found


def as_kernel(op, rung):
    """A rung with the arguments of its kernel. Softmax on CUDA has rungs that take rows alone."""
    if op == "softmax" and "log" in rung.__code__.co_varnames[: rung.__code__.co_argcount]:
        return lambda x, axis: rung(x)
    return rung


def kind(be):
    """Which list of sizes a backend gets."""
    if be.name.startswith("cudasim"):
        return "sim"
    return "cpu" if be.xp is np else "gpu"


def inputs(op, size, be, seed=0):
    """The arguments of a call on a backend: float32, the same numbers everywhere."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.standard_normal(shape, dtype=np.float32)

    return [be.array(a) if isinstance(a, np.ndarray) else a for a in op.arguments(normal, *size)]


def wait(be):
    """Until the device has done what was asked of it."""
    if be.xp is not np:
        be.xp.cuda.Device().synchronize()


def outcome(kernel, arguments, be):
    """What a call leaves: its results, or for an update in place the arrays that it was given."""
    result = kernel(*arguments)
    if result is None:
        result = tuple(a for a in arguments if hasattr(a, "dtype"))
    return [be.numpy(a) for a in (result if isinstance(result, tuple) else (result,))]


def expected(name, size):
    """The reference's results in float64 of the same float32 numbers."""
    be = tz.backend("numpy")
    arguments = [
        a.astype(np.float64) if isinstance(a, np.ndarray) else a
        for a in inputs(OPS[name], size, be)
    ]
    return outcome(getattr(be.kernels, name), arguments, be)


def error(contender, name, size, right):
    """The largest difference from the right results, over the largest number of each."""
    got = outcome(contender.kernel, inputs(OPS[name], size, contender.backend), contender.backend)
    worst = 0.0
    for a, b in zip(got, right, strict=True):
        scale = max(1.0, float(np.abs(b).max())) if b.dtype.kind == "f" else 1.0
        difference = np.abs(a.astype(np.float64) - b).max() / scale
        worst = max(worst, float(np.nan_to_num(difference, nan=math.inf)))
    return worst


def alternate(calls, rounds, seconds):
    """Seconds a call of {key: (call, wait)}: the median over rounds, blocks of about `seconds`."""
    blocks, times = {}, {key: [] for key in calls}
    for key, (call, finish) in calls.items():
        block(call, finish, 1)  # warm, since its check; this settles caches and clocks
        blocks[key] = max(1, min(10_000, int(seconds / block(call, finish, 1))))
    for _ in range(rounds):
        for key, (call, finish) in calls.items():
            times[key].append(block(call, finish, blocks[key]))
    return {key: statistics.median(t) for key, t in times.items()}


def block(call, finish, count):
    finish()
    start = time.perf_counter()
    for _ in range(count):
        call()
    finish()
    return (time.perf_counter() - start) / count


def measure(name, size, group, rounds, seconds):
    """Check and time contenders at one size; -> {contender: (seconds a call, error)}.

    Raises SystemExit if one is wrong: nothing is timed that is not right.
    """
    right, calls, errors = expected(name, size), {}, {}
    for c in group:
        errors[c] = error(c, name, size, right)
        if not errors[c] <= TOLERANCE:
            raise SystemExit(
                f"{name} {label(size)}: {c.name} on {c.backend.name} is wrong by {errors[c]:.1e} "
                f"of the largest number (allowed: {TOLERANCE:.0e})"
            )
        arguments = inputs(OPS[name], size, c.backend)
        calls[c] = functools.partial(c.kernel, *arguments), functools.partial(wait, c.backend)
    times = alternate(calls, rounds, seconds)
    return {c: (times[c], errors[c]) for c in group}


def label(size):
    return "x".join(map(str, size))


# the machine's peaks


def device(be):
    """What a backend computes on, in words."""
    if kind(be) == "gpu":
        properties = be.xp.cuda.runtime.getDeviceProperties(be.xp.cuda.Device().id)
        return properties["name"].decode()
    return "simulator" if kind(be) == "sim" else "CPU"


def peaks(be, quick):
    """The machine's measured peaks: {"flops": a second, "bytes": a second}.

    The best of several: a peak is what can be reached, not what usually is.
    """
    n = 512 if quick else 2048
    ones = functools.partial(be.xp.ones, dtype=be.xp.float32)
    x, y = ones((n, n)), ones((n, n))
    finish, count = functools.partial(wait, be), os.cpu_count() or 1
    rounds = 20 if quick else 5
    product = best(lambda: x @ y, finish, rounds)
    numbers = (1 << 22) if quick else (1 << 28 if kind(be) == "gpu" else 1 << 26)
    source, target = ones(numbers), ones(numbers)
    copies = [best(lambda: be.xp.copyto(target, source), finish, rounds)]
    if be.xp is np:  # one core alone may not fill the memory's bandwidth
        parts = np.array_split(target, count), np.array_split(source, count)
        with ThreadPoolExecutor(count) as pool:
            copy = functools.partial(pool.map, np.copyto, *parts)
            copies.append(best(lambda: list(copy()), finish, rounds))
    return {"flops": 2 * n**3 / product, "bytes": 2 * FLOAT * numbers / min(copies)}


def best(call, finish, rounds):
    block(call, finish, 1)
    return min(block(call, finish, 1) for _ in range(rounds))


# the report


def row(name, size, contender, seconds, wrong, peak):
    """A result as it goes into the JSON file."""
    flops, size_in_bytes = OPS[name].work(*size)
    result = {
        "op": name,
        "backend": contender.backend.name,
        "kernel": contender.name,
        "default": contender.default,
        "size": list(size),
        "seconds": seconds,
        "error": wrong,
        "flops": flops,
        "bytes": size_in_bytes,
        "gflops": flops / seconds / 1e9,
        "gbytes": size_in_bytes / seconds / 1e9,
    }
    if peak:
        roofs = {"arithmetic": flops / peak["flops"], "memory": size_in_bytes / peak["bytes"]}
        result["roof"] = max(roofs, key=roofs.get)  # the one that takes longer
        result["share"] = roofs[result["roof"]] / seconds
    return result


def print_row(r):
    share = f"{r['share']:6.1%} of {r['roof']}" if "share" in r else f"{'-':>6}"
    mark = "*" if r["default"] else " "
    print(
        f"  {mark} {r['backend']:10} {r['kernel']:26} {r['seconds'] * 1e6:12.1f} us"
        f"{r['gflops']:10.2f} GFLOP/s{r['gbytes']:9.2f} GB/s  {share}",
        flush=True,
    )


def compare(name, group, options, peak_of):
    """Time an op's contenders at every size and print a table for each; -> rows."""
    rows, last = [], {}
    lists = {c: OPS[name].sizes[size_list(c.backend, options.quick)] for c in group}
    sizes = sorted({s for sizes in lists.values() for s in sizes}, key=lambda s: OPS[name].work(*s))
    for size in sizes:
        work, ready = OPS[name].work(*size)[0], []
        print(f"\n{name} {label(size)}   ({OPS[name].axes})")
        for c in group:
            if size not in lists[c]:
                continue
            predicted = last[c] * work if c in last else 0
            if predicted > options.limit:
                print(
                    f"    {c.backend.name:10} {c.name:26} left out: about {predicted:.0f} s a call"
                )
            else:
                ready.append(c)
        for c, (seconds, wrong) in measure(
            name, size, ready, options.rounds, options.seconds
        ).items():
            last[c] = seconds / work
            rows.append(row(name, size, c, seconds, wrong, peak_of[device(c.backend)]))
            print_row(rows[-1])
    return rows


def size_list(be, quick):
    return "quick" if quick and kind(be) != "sim" else kind(be)


def own_kernel(text):
    """OP=FILE.py:FUNCTION -> (op, function)."""
    op, _, place = text.partition("=")
    path, _, name = place.rpartition(":")
    if op not in OPS or not name or not Path(path).is_file():
        raise argparse.ArgumentTypeError(
            f"{text!r} is not OP=FILE.py:FUNCTION with an op of {', '.join(OPS)} and a file"
        )
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return op, getattr(module, name)


def versions():
    """Of what computes."""
    found = {"tinygrad_zen": tz.__version__, "numpy": np.__version__}
    for name in ("numba", "numba_cuda", "cupy"):
        module = sys.modules.get(name)
        if module is not None:
            found[name] = getattr(module, "__version__", "?")
    return found


def plot(results, path):
    """The roofline of each device: a dot for each kernel at its largest size."""
    try:
        from matplotlib.figure import Figure
    except ImportError as e:
        raise SystemExit('--plot needs matplotlib: pip install "tinygrad-zen[plots]"') from e
    measured = {name: peak for name, peak in results["peaks"].items() if peak}
    if not measured:
        raise SystemExit("--plot: the simulator alone has no roofline")
    figure = Figure(figsize=(9, 6 * len(measured)), layout="constrained")
    charts = figure.subplots(len(measured), 1, squeeze=False)[:, 0]
    for chart, (name, peak) in zip(charts, measured.items(), strict=True):
        rows = [r for r in results["results"] if r["device"] == name]
        draw_roofline(chart, rows, peak, f"{name}: {results['machine']}")
    figure.savefig(path, dpi=150)


def draw_roofline(chart, rows, peak, title):
    largest = {}
    for r in rows:
        key = r["op"], r["backend"], r["kernel"]
        if key not in largest or r["flops"] > largest[key]["flops"]:
            largest[key] = r
    ops = sorted({op for op, _, _ in largest})
    intensities = [r["flops"] / r["bytes"] for r in largest.values()] or [1]
    ridge = peak["flops"] / peak["bytes"]  # where the roof bends
    reach = np.array([min(*intensities, ridge) / 2, ridge, max(*intensities, ridge) * 4])
    roof = np.minimum(peak["flops"], reach * peak["bytes"]) / 1e9
    chart.loglog(reach, roof, color="black", label="measured roof")
    for i, op in enumerate(ops):
        for default in (True, False):
            dots = [r for k, r in largest.items() if k[0] == op and r["default"] is default]
            chart.loglog(
                [r["flops"] / r["bytes"] for r in dots],
                [r["gflops"] for r in dots],
                "o",
                color=f"C{i}",
                markerfacecolor=None if default else "none",
                label=op if default else None,
            )
    for r in largest.values():
        text = f" {r['kernel']} ({r['backend']})"
        chart.annotate(text, (r["flops"] / r["bytes"], r["gflops"]), fontsize=5, va="center")
    chart.set(xlabel="floating-point operations a byte", ylabel="GFLOP/s", title=title)
    chart.title.set_fontsize(9)
    chart.grid(True, which="both", alpha=0.2)
    chart.legend(title="filled: runs by default", fontsize=7, title_fontsize=7)


def parse(argv):
    usable = [name for name, state in tz.backends().items() if state == "usable"]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ops", nargs="+", choices=OPS, default=list(OPS))
    parser.add_argument("--backends", nargs="+", choices=STYLES, default=usable)
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds: a trial")
    parser.add_argument("--rounds", type=int, help="blocks of calls a kernel (7; 3 if quick)")
    parser.add_argument("--seconds", type=float, help="length of a block (0.1; 0.005 if quick)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here as well")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the roofline")
    parser.add_argument(
        "--own",
        type=own_kernel,
        action="append",
        default=[],
        metavar="OP=FILE.py:FUNCTION",
        help="a kernel of yours, in place of ours on every chosen backend (may be repeated)",
    )
    options = parser.parse_args(argv)
    options.rounds = options.rounds or (3 if options.quick else 7)
    options.seconds = options.seconds or (0.005 if options.quick else 0.1)
    options.limit = TOO_SLOW / 10 if options.quick else TOO_SLOW
    return options


def main(argv=None):
    options = parse(argv)
    try:
        places = [tz.backend(name) for name in options.backends]
    except tz.BackendUnavailable as e:
        raise SystemExit(str(e)) from e
    if options.own:
        places = [be.replace(**dict(options.own)) for be in places]
    name, peak_of = machine(os.cpu_count()), {}
    print(name)
    for be in places:
        if device(be) not in peak_of:
            peak_of[device(be)] = peak = peaks(be, options.quick) if kind(be) != "sim" else None
            if peak:
                print(
                    f"{device(be)}: measured peaks {peak['flops'] / 1e9:.1f} GFLOP/s, "
                    f"{peak['bytes'] / 1e9:.1f} GB/s"
                )
    print("float32; every kernel agrees with the reference in float64; * runs by default")
    rows = []
    for op in options.ops:
        group = [c for be in places for c in contenders(op, be)]
        rows += compare(op, group, options, peak_of)
    where = {be.name: device(be) for be in places}
    results = {
        "machine": name,
        "versions": versions(),
        "peaks": peak_of,
        "results": [r | {"device": where[r["backend"]]} for r in rows],
    }
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    if options.plot:
        plot(results, options.plot)


if __name__ == "__main__":
    main()
