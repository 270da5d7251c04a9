"""The chart of kernels under the roof of a machine: operations a second by operations a byte."""

import numpy as np


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
