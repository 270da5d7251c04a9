"""Sections of proof.md: gradients against differences, and ops against PyTorch's database."""

import time
import warnings
from collections import Counter

import tinygrad_zen as tz
from tinygrad_zen.check import mutants, op_db
from tinygrad_zen.check.samples import SAMPLES
from tinygrad_zen.check.table import by_op, check_op


def gradients(quick):
    """Every op's derivatives against differences, backend by backend."""
    where = ["numpy"] if quick else [b for b in ("numpy", "numba") if tz.backends()[b] == "usable"]
    table = by_op(SAMPLES)
    lines = [
        "The largest relative error of first and second derivatives against central differences of",
        "fourth order in float64, and of gradients in float32 against float64, over all samples of all",
        "ops (`python -m tinygrad_zen gradcheck`).",
        "",
        "| backend | ops | samples | first order | second order | float32 |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for backend in where:
        checked = [check_op(samples, 0, backend) for samples in table.values()]
        failures = [words for _, wrong in checked for words in wrong]
        assert not failures, "\n".join(failures)
        worst = [max(e[i] for e, _ in checked if e[i] == e[i]) for i in range(3)]
        cells = " | ".join(f"{w:.1e}" for w in worst)
        lines.append(f"| {backend} | {len(table)} | {len(SAMPLES)} | {cells} |")
    return "Gradients against differences", lines


def operators(quick):
    """Every op against the samples of PyTorch's own database of operators."""
    import torch

    warnings.simplefilter("ignore")  # PyTorch's, about its own options
    verdicts = [op_db.judge(name, most=3 if quick else None) for name in op_db.TABLE]
    ran, skipped = (
        sum(f(v) for v in verdicts) for f in (lambda v: v.ran, lambda v: v.skipped.total())
    )
    lines = [
        "Sample inputs of `torch.testing._internal.common_methods_invocations.op_db`, PyTorch "
        f"{torch.__version__}, values and gradients in float64: {len(verdicts)} operators, "
        f"**{ran:,} samples run, all equal within {op_db.TOLERANCE:.0e}** of the largest element or 1; "
        f"largest error {max(v.value for v in verdicts):.1e} of values, "
        f"{max(v.gradient for v in verdicts):.1e} of gradients. {skipped:,} skipped, with reason.",
        "",
        "| operator | run | value | gradient | skipped |",
        "|---|---:|---:|---:|---|",
    ]
    for v in verdicts:
        why = "; ".join(f"{n}: {reason}" for reason, n in v.skipped.items())
        lines.append(f"| {v.name} | {v.ran} | {v.value:.0e} | {v.gradient:.0e} | {why} |")
    return "PyTorch's database of operators", lines


def mutation(quick):
    """Every gradient made wrong in every way, one at a time: how many does gradcheck find?"""
    start = time.perf_counter()
    every = mutants.mutants()
    outcomes = mutants.campaign(every[::25] if quick else every)
    seconds = time.perf_counter() - start
    survivors = [str(m) for m, outcome in outcomes if outcome == "survived"]
    assert not survivors, "survived:\n" + "\n".join(survivors)
    total = Counter(outcome for _, outcome in outcomes)
    named = Counter(mutants.why_equivalent(m) for m, outcome in outcomes if outcome == "equivalent")
    killed = total["killed"] + total["refused"]
    lines = [
        f"**{killed:,} wrong gradients, {100 * mutants.rate(total):.4g} % killed**, in {seconds:.0f} s: "
        f"{total['killed']:,} by gradcheck's differences, {total['refused']:,} more because they ran into "
        "an error of shapes or names.",
        "What a vjp returns is scaled, negated, zeroed, moved, transposed, ...; what it saved is stale; each",
        "small edit of its source and of the gradient kernels of the `numpy` backend is made",
        "(`python -m tinygrad_zen gradcheck --mutants`).",
        "",
        f"{total['equivalent']} edits are equivalent, named with their reasons in "
        "`tinygrad_zen/check/equivalent.py`; "
        f"{total['idle']} more changed no number in any sample and count for nothing.",
        "",
        "| op | killed | by an error | survived | equivalent | without effect | rate |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    kinds = "killed refused survived equivalent idle".split()
    for op, counts in mutants.by_op(outcomes).items():
        cells = " | ".join(str(counts[kind]) for kind in kinds)
        lines.append(f"| {op} | {cells} | {100 * mutants.rate(counts):.4g} % |")
    lines += ["", "Why edits are equivalent:", ""]
    lines += [f"- {why} ({n})" for why, n in named.most_common()]
    return "Mutants", lines


SECTIONS = {"gradients": gradients, "mutants": mutation, "operators": operators}
