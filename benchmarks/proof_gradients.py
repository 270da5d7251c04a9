"""Sections of proof.md: gradients against differences."""

import tinygrad_zen as tz
from tinygrad_zen.check.samples import SAMPLES
from tinygrad_zen.check.table import by_op, check_op


def gradients(quick):
    """Every op's derivatives against differences, backend by backend."""
    where = ["numpy"] if quick else [b for b in ("numpy", "numba") if tz.backends()[b] == "usable"]
    table = by_op(SAMPLES)
    lines = [
        "The largest relative error of first and second derivatives against central differences of",
        "fourth order in float64, over all samples of all ops (`python -m tinygrad_zen gradcheck`).",
        "",
        "| backend | ops | samples | first order | second order |",
        "|---|---:|---:|---:|---:|",
    ]
    for backend in where:
        checked = [check_op(samples, 0, backend) for samples in table.values()]
        failures = [words for _, wrong in checked for words in wrong]
        assert not failures, "\n".join(failures)
        first, second = (max(e[i] for e, _ in checked if e[i] == e[i]) for i in range(2))
        lines.append(f"| {backend} | {len(table)} | {len(SAMPLES)} | {first:.1e} | {second:.1e} |")
    return "Gradients against differences", lines


SECTIONS = {"gradients": gradients}
