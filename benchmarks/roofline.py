"""This machine's roof: its measured peaks of arithmetic and memory, and the chart of kernels under it."""

import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from contenders import block, wait
from operations import FLOAT

import tinygrad_zen as tz


def peaks(kind, options):
    """The measured peaks of the "cpu" or "gpu": {"flops": a second, "bytes": a second}.

    The best of several: a peak is what can be reached, not what usually is.
    """
    be, quick = tz.backend("numpy" if kind == "cpu" else "cupy"), options.quick
    n = 512 if quick else 2048
    ones = functools.partial(be.xp.ones, dtype=be.xp.float32)
    x, y = ones((n, n)), ones((n, n))
    finish = functools.partial(wait, be)
    rounds = 20 if quick else 5
    product = best(lambda: x @ y, finish, rounds)
    numbers = (1 << 22) if quick else (1 << 28 if kind == "gpu" else 1 << 26)
    source, target = ones(numbers), ones(numbers)
    copies = [best(lambda: be.xp.copyto(target, source), finish, rounds)]
    if kind == "cpu":  # one core alone may not fill the memory's bandwidth
        parts = [np.array_split(a, options.threads) for a in (target, source)]
        with ThreadPoolExecutor(options.threads) as pool:
            copy = functools.partial(pool.map, np.copyto, *parts)
            copies.append(best(lambda: list(copy()), finish, rounds))
    return {"flops": 2 * n**3 / product, "bytes": 2 * FLOAT * numbers / min(copies)}


def best(call, finish, rounds):
    block(call, finish, 1)
    return min(block(call, finish, 1) for _ in range(rounds))


def draw(figure, results):
    """The roofline of each device: a dot for each kernel at its largest size."""
    measured = {name: peak for name, peak in results["peaks"].items() if peak}
    if not measured:
        raise SystemExit("the simulator alone has no roofline")
    figure.set_size_inches(9, 6 * len(measured))
    charts = figure.subplots(len(measured), 1, squeeze=False)[:, 0]
    for chart, (name, peak) in zip(charts, measured.items(), strict=True):
        rows = [r for rows in results["ops"].values() for r in rows if r["device"] == name]
        draw_roofline(chart, rows, peak, f"{name}: {results['machine']}")


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
