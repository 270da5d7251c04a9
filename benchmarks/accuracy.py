"""What fast kernels cost in accuracy: gradients against float64, and what whole recipes reach.

    python benchmarks/accuracy.py                            # gradients of all networks
    python benchmarks/accuracy.py --nets mnist --batches 20
    python benchmarks/accuracy.py --recipes mnist cifar10 --seeds 0 1 2 --keep

Gradients: the networks of train.py at their first weights, in float32, by our backends and by PyTorch,
against the same gradients in float64 (by our numpy backend; PyTorch's float64 must agree with it to
1e-9, or nothing is shown). The error of a batch is that of the whole gradient as one vector,
|g - g64| / |g64| in the Euclidean norm; the largest error of one weight is measured by the largest
gradient of its array. Shown are the median and the worst over batches: in a rare batch, rounding turns a
ReLU on or makes another element the largest of its window, in any library, and that is a step, not an error.

Recipes: the test accuracy that a recipe reaches from each seed with the plain kernels (numpy) and with
the fast ones (numba). Both see the same weights and batches; rounding alone tells them apart.
--keep writes results/accuracy-DATE-CORES.json, .md and .png.
"""

import argparse
import statistics
from pathlib import Path

import networks
import numpy as np
import record
import systems

import tinygrad_zen as tz
from tinygrad_zen import nn
from tinygrad_zen.nn import functional as F

AGREED = 1e-9  # between two libraries in float64
BACKENDS = "numpy", "numba"


def ours(network, start, x, y, backend, dtype="float32"):
    """{name: gradient} of the loss of a batch on a backend."""
    with tz.using(backend):
        net = networks.build(nn, network)
        net.load_state_dict(start)
        net.to(dtype)
        x, y = (tz.tensor(a if a.dtype.kind == "i" else a.astype(dtype)) for a in (x, y))
        getattr(F, network.loss)(net(x), y).backward()
        return {name: np.array(p.grad.numpy()) for name, p in net.named_parameters()}


def pytorch(network, start, x, y, dtype="float32", channels_last=False):
    """The same by PyTorch."""
    import torch

    net = networks.build(torch.nn, network)
    net.load_state_dict({n: torch.from_numpy(w) for n, w in start.items()})
    net.to(getattr(torch, dtype))
    x, y = (torch.from_numpy(a if a.dtype.kind == "i" else a.astype(dtype)) for a in (x, y))
    if channels_last:
        net.to(memory_format=torch.channels_last)
        x = x.to(memory_format=torch.channels_last)
    getattr(torch.nn.functional, network.loss)(net(x), y).backward()
    return {name: p.grad.contiguous().numpy() for name, p in net.named_parameters()}


def engines(network):
    """{name: a function of (network, weights, x, y) that gives gradients in float32} for those here."""
    names = [name for name in BACKENDS if tz.backends()[name] == "usable"]
    if network.image and "numba" in names:
        names.append("numba[winograd=4]")
    found = {name: lambda *a, name=name: ours(*a, name) for name in names}
    if has_torch():
        found["torch"] = pytorch
        if network.image:
            found["torch-channels-last"] = lambda *a: pytorch(*a, channels_last=True)
    return found


def has_torch():
    try:
        import torch  # noqa: F401
    except ImportError:
        return False
    return True


def errors(found, exact):
    """Of one batch: that of the gradient as one vector, and the largest of any weight."""
    off = {name: found[name].astype(np.float64) - g for name, g in exact.items()}
    whole = sum((o**2).sum() for o in off.values()) / sum((g**2).sum() for g in exact.values())
    # an array whose gradient is nothing but rounding (the bias before a softmax of keys) has no scale
    largest = max(abs(g).max() for g in exact.values())
    scales = {name: abs(g).max() for name, g in exact.items()}
    weight = max(abs(off[n]).max() / s for n, s in scales.items() if s > 1e-12 * largest)
    return float(whole**0.5), float(weight)


def measure(network, batches):
    """{engine: {"whole": [...], "weight": [...]}}, an error for each batch."""
    start = networks.weights(network)
    contenders = engines(network)
    found = {name: {"whole": [], "weight": []} for name in contenders}
    for seed in range(batches):
        x, y = networks.batch(network, seed)
        exact = ours(network, start, x, y, "numpy", "float64")
        if has_torch():
            off, _ = errors(pytorch(network, start, x, y, "float64"), exact)
            if off > AGREED:
                raise SystemExit(
                    f"{network.name}: PyTorch's float64 differs from ours by {off:.1e}"
                )
        for name, gradients in contenders.items():
            whole, weight = errors(gradients(network, start, x, y), exact)
            found[name]["whole"].append(whole)
            found[name]["weight"].append(weight)
    return found


def train_recipe(name, seeds, threads, more):
    """{backend: the test accuracy of each seed}."""
    return {
        b: [systems.ours(name, s, str(threads), [*more, "--backend", b])[0] for s in seeds]
        for b in BACKENDS
    }


def tables(results):
    """Lines of Markdown: what was found of gradients and of recipes."""
    versions = ", ".join(f"{n} {v}" for n, v in results["versions"].items())
    lines = [f"# Accuracy, {results['date']}", f"{results['machine']}; {versions}.", ""]
    if results["nets"]:
        lines += [
            "Gradients in float32 against float64, medians over batches (the worst in brackets): of the",
            "whole gradient as one vector, and of the worst weight.",
            "",
        ]
        rows = [
            [networks.find(net).title, name, *(spread(e[k]) for k in ("whole", "weight"))]
            for net, found in results["nets"].items()
            for name, e in found.items()
        ]
        lines += record.markdown(["network", "engine", "gradient", "worst weight"], rows)
    if results["recipes"]:
        lines += ["", "Test accuracy of whole recipes, seed by seed, and the mean.", ""]
        rows = [
            [f"`{name}`", backend, ", ".join(map(str, r["seeds"]))]
            + [", ".join(f"{a:.4f}" for a in accuracies), f"{statistics.mean(accuracies):.4f}"]
            for name, r in results["recipes"].items()
            for backend, accuracies in r["accuracy"].items()
        ]
        lines += record.markdown(["recipe", "backend", "seeds", "test accuracy", "mean"], rows)
    return lines


def spread(values):
    return f"{statistics.median(values):.1e} ({max(values):.1e})"


def draw(figure, results):
    """The error of the gradient by network, a row of points for each engine."""
    figure.set_size_inches(8, 3.4)
    chart = figure.subplots()
    names = list(dict.fromkeys(e for found in results["nets"].values() for e in found))
    for i, engine in enumerate(names):
        nets = [n for n, found in results["nets"].items() if engine in found]
        places = [list(results["nets"]).index(n) + 0.12 * (i - len(names) / 2) for n in nets]
        values = [statistics.median(results["nets"][n][engine]["whole"]) for n in nets]
        chart.semilogy(places, values, "o", label=engine)
    chart.set_xticks(range(len(results["nets"])), list(results["nets"]))
    chart.set(ylabel="|g - g64| / |g64|")
    chart.grid(True, alpha=0.2)
    chart.legend(fontsize=7)
    figure.suptitle(f"{results['machine']}; {results['date']}", fontsize=8)


def parse(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", nargs="*", default=list(networks.NETWORKS), metavar="NET")
    parser.add_argument("--batches", type=int, default=10, help="of each network (%(default)s)")
    parser.add_argument("--recipes", nargs="+", choices=("binary", "mnist", "cifar10"), default=[])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the recipes")
    parser.add_argument("--threads", type=int, default=1, help="of the recipes (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="one batch, recipes in short form")
    parser.add_argument("--keep", action="store_true", help="write into benchmarks/results/")
    parser.add_argument("--to", type=Path, default=record.RESULTS, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.batches < 1:
        parser.error(f"--batches must be at least 1, got {options.batches}")
    return options


def main(argv=None):
    options = parse(argv)
    results = record.begin(options.threads) | {"nets": {}, "recipes": {}}
    for name in options.nets:
        found = measure(networks.find(name), 1 if options.quick else options.batches)
        results["nets"][name] = found
    for name in options.recipes:
        more = ["--quick"] if options.quick else []
        accuracy = train_recipe(name, options.seeds, options.threads, more)
        results["recipes"][name] = {"seeds": options.seeds, "accuracy": accuracy}
    results["versions"] = record.versions()
    print("\n".join(tables(results)))
    if options.keep:
        for part in ("nets", "recipes"):
            results = record.joined("accuracy", results, part, options.to)
        record.keep("accuracy", results, tables(results), draw, options.to)


if __name__ == "__main__":
    main()
