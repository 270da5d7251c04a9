"""python -m tinygrad_zen gradcheck: every op's gradients against differences, as a table."""

import argparse
import time

import numpy as np

from ..backend import BackendUnavailable, backend
from .gradcheck import GradientError, derivative_errors, float32_error
from .samples import SAMPLES


def main(argv=None):
    """Print a line for each op; -> the exit code: 0 all are right, 1 some are wrong, 2 wrong usage."""
    parser = argparse.ArgumentParser(
        prog="python -m tinygrad_zen gradcheck",
        description="Compare the first and second derivatives of every op with finite differences.",
    )
    parser.add_argument(
        "--op", action="append", metavar="NAME", help="only this op (may be repeated)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the inputs and directions")
    parser.add_argument(
        "--backend", default="numpy", help="numpy (default), numba, cupy, cuda, ..."
    )
    parser.add_argument(
        "--mutants",
        action="store_true",
        help="make every gradient wrong in many ways instead, and count how many are found",
    )
    args = parser.parse_args(argv)
    try:
        backend(args.backend)
    except (ValueError, BackendUnavailable) as e:
        parser.error(str(e))
    table = by_op(SAMPLES)
    unknown = set(args.op or ()) - set(table)
    if unknown:
        parser.error(f"unknown op {', '.join(sorted(unknown))}: choose from {', '.join(table)}")
    if args.op:
        table = {op: table[op] for op in table if op in args.op}
    if args.mutants:
        from .mutants import report as report_mutants

        return report_mutants(list(table), args.seed, args.backend)
    return report(table, args.seed, args.backend)


def by_op(samples):
    """{op: its samples}, in their order."""
    table = {}
    for sample in samples:
        table.setdefault(sample.op, []).append(sample)
    return table


def report(table, seed, where):
    """Check {op: samples} and print the largest relative errors; -> 1 if any op failed, else 0."""
    start = time.perf_counter()
    print(
        "largest relative error of derivatives: first and second order against differences in float64,"
    )
    print("and the gradient in float32 against that in float64")
    print(f"{'op':34}{'samples':>8}{'first':>10}{'second':>10}{'float32':>10}")
    worst, failures = [0.0, 0.0, 0.0], []
    for op, samples in table.items():
        errors, wrong = check_op(samples, seed, where)
        failures += wrong
        worst = [w if np.isnan(e) else max(w, e) for w, e in zip(worst, errors, strict=True)]
        cells = "".join(f"{'-' if np.isnan(e) else format(e, '.1e'):>10}" for e in errors)
        print(f"{op:34}{len(samples):8}{cells}  {'FAIL' if wrong else 'ok'}")
    seconds = time.perf_counter() - start
    for failure in failures:
        print(f"FAIL {failure}")
    count = sum(map(len, table.values()))
    print(
        f"{len(table)} ops, {count} samples on {where}: "
        f"{'all ok' if not failures else f'{len(failures)} FAILED'}; "
        f"worst {worst[0]:.1e} first, {worst[1]:.1e} second order, "
        f"{worst[2]:.1e} float32; {seconds:.1f} s"
    )
    return 1 if failures else 0


def check_op(samples, seed, where):
    """The largest [first, second order, float32] errors over the samples of an op, and what failed in
    words.

    An error is NaN where nothing was measured: no sample has that derivative.
    """
    worst, failures = [np.nan, np.nan, np.nan], []
    for sample in samples:
        order = 1 if sample.once else 2
        try:
            inputs = sample.tensors(seed, backend=where)
            errors = derivative_errors(sample, inputs, order, seed=seed)
            errors = [
                *errors,
                *[np.nan] * (2 - order),
                float32_error(sample, inputs, sample.float32),
            ]
        except Exception as e:  # whatever an op does wrong is a line of the report, not its end
            told = isinstance(e, GradientError)
            failures.append(str(e) if told else f"{sample}: {type(e).__name__}: {e}")
            errors = [np.inf] * 3
        worst = np.fmax(worst, errors).tolist()
    return worst, failures
