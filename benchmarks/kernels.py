"""Kernels one by one: every rung of every ladder, on every backend, at several sizes.

    python benchmarks/kernels.py                                        # all of them, some minutes
    python benchmarks/kernels.py --quick --ops matmul --backends numba
    python benchmarks/kernels.py --threads 1 --keep                     # into benchmarks/results/
    python benchmarks/kernels.py --own matmul=my_kernels.py:my_matmul   # a kernel of yours beside ours

Each kernel, and PyTorch's where installed, is first compared with the reference in float64, and only
then timed: it is warmed up, then rounds alternate (a block of calls of one kernel, a block of the
next), and the median over rounds is shown. Floating-point operations and bytes are counted by formula,
per call, as the least that the op needs (tinygrad_zen/check/work.py); a kernel that does more is not
credited for it. `share` is what was reached of this machine's roof: the lower of its measured peak of
arithmetic (a large float32 matrix product by the library) and its measured peak of memory (large arrays
copied or scaled) times operations per byte. Data that fit into a cache can be faster than memory. On a
GPU the clock stops after the device is done.
"""

import argparse
import importlib.util
import os
import sys
from pathlib import Path

import record
from contenders import KINDS, contenders, device, kind, label, measure, place, places, work
from operations import OPS
from roofline import draw
from threads import confine
from torch_kernels import NAMES

import tinygrad_zen as tz
from tinygrad_zen.check.peaks import peaks

TOO_SLOW = 3.0  # seconds a call, beyond which a kernel is not timed


def row(name, size, contender, seconds, wrong, peak):
    """A result as it goes into the JSON file."""
    flops, size_in_bytes = work(name, size)
    result = {
        "op": name,
        "backend": contender.backend.name,
        "device": device(contender.backend),
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
    sizes = sorted({s for sizes in lists.values() for s in sizes}, key=lambda s: work(name, s))
    for size in sizes:
        needed, ready = work(name, size)[0], []
        print(f"\n{name} {label(size)}   ({OPS[name].axes})")
        for c in group:
            if size not in lists[c]:
                continue
            predicted = last[c] * needed if c in last else 0
            if predicted > options.limit:
                print(
                    f"    {c.backend.name:10} {c.name:26} left out: about {predicted:.0f} s a call"
                )
            else:
                ready.append(c)
        for c, (seconds, wrong) in measure(
            name, size, ready, options.rounds, options.seconds
        ).items():
            last[c] = seconds / needed
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


def table(results):
    """Lines of Markdown: a table for each op."""
    roofs = [
        f"{name} {peak['flops'] / 1e9:.1f} GFLOP/s, {peak['bytes'] / 1e9:.1f} GB/s"
        for name, peak in results["peaks"].items()
        if peak
    ]
    lines = [
        f"# Kernels, {results['date']}",
        f"{results['machine']}; float32; {', '.join(map(' '.join, results['versions'].items()))}.",
        f"Measured peaks: {'; '.join(roofs) or 'none'}. Bold: runs by default.",
    ]
    head = ["size", "backend", "kernel", "us a call", "GFLOP/s", "GB/s", "share of the roof"]
    for op, rows in results["ops"].items():
        cells = [
            [
                *(label(r["size"]), r["backend"]),
                f"**{r['kernel']}**" if r["default"] else r["kernel"],
                *(f"{r['seconds'] * 1e6:,.1f}", f"{r['gflops']:.2f}", f"{r['gbytes']:.2f}"),
                f"{r['share']:.0%} of {r['roof']}" if "share" in r else "",
            ]
            for r in rows
        ]
        lines += ["", f"## {op}", "", f"Size: {OPS[op].axes}.", "", *record.markdown(head, cells)]
    return lines


def parse(argv):
    usable = places()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ops", nargs="+", choices=OPS, default=list(OPS))
    parser.add_argument(
        "--backends", nargs="+", choices=KINDS, default=usable, help="and PyTorch's: %(choices)s"
    )
    parser.add_argument("--threads", type=int, help="and cores; all by default")
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds: a trial")
    parser.add_argument("--rounds", type=int, help="blocks of calls a kernel (7; 3 if quick)")
    parser.add_argument("--seconds", type=float, help="length of a block (0.1; 0.005 if quick)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the roofline")
    parser.add_argument("--keep", action="store_true", help="write into benchmarks/results/")
    parser.add_argument("--to", type=Path, default=record.RESULTS, help=argparse.SUPPRESS)
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
    if options.threads:
        confine(options.threads)
    options.threads = options.threads or os.cpu_count()
    return options


def main(argv=None):
    options = parse(argv)
    try:
        where = [place(name) for name in options.backends]
    except tz.BackendUnavailable as e:
        raise SystemExit(str(e)) from e
    if options.own:
        where = [be.replace(**dict(options.own)) for be in where if be.name not in NAMES]
    results = record.begin(options.threads) | {"peaks": {}, "ops": {}}
    print(results["machine"])
    for be in where:
        results["device"] = device(be)  # the last one, a card where there is one, names the files
        if device(be) in results["peaks"]:
            continue
        peak = None
        if kind(be) != "sim":
            peak = peaks(tz.backend("numpy" if kind(be) == "cpu" else "cupy").xp)._asdict()
        results["peaks"][device(be)] = peak
        if peak:
            print(
                f"{device(be)}: measured peaks {peak['flops'] / 1e9:.1f} GFLOP/s, "
                f"{peak['bytes'] / 1e9:.1f} GB/s"
            )
    print("float32; every kernel agrees with the reference in float64; * runs by default")
    for op in options.ops:
        group = [c for be in where for c in contenders(op, be)]
        results["ops"][op] = compare(op, group, options, results["peaks"])
    results["versions"] = record.versions()
    if options.json:
        record.write_json(options.json, results)
    if options.plot:
        record.save_chart(options.plot, draw, results)
    if options.keep:
        results = record.joined("kernels", results, "ops", options.to)
        record.keep("kernels", results, table(results), draw, options.to)


if __name__ == "__main__":
    main()
