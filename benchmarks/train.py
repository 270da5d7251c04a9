"""One training step (forward, backward, Adam) of whole networks, engine beside engine.

    python benchmarks/train.py                                  # every network, every engine found
    python benchmarks/train.py --nets tabular --engines numpy torch --rounds 9 --threads 1

Each engine runs in a process of its own. All start from the same weights, and their losses over the
first steps must agree before anything is timed. Then rounds alternate: a block of steps of one
engine, a block of the next. Shown: the median time of a step over rounds, the fastest, and the ratio
to PyTorch's. PyTorch eager, its default Adam; install it with `pip install -e ".[judges]"`.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

NETS = {
    "tabular": "10-64-1 sigmoid network, batch 32",
    "wide": "784-512-1, batch 128",
    "mnist": "MNIST network (conv 32, conv 64, dense 64), batch 64",
    "cifar10": "CIFAR network (conv 32, 64, 64, dense 64), batch 32",
}
SHAPES = {
    "tabular": (32, 10),
    "wide": (128, 784),
    "mnist": (64, 1, 28, 28),
    "cifar10": (32, 3, 32, 32),
}


def layers(nn, net):
    """The layers of a network: nn is torch.nn or tinygrad_zen.nn, whose names agree."""
    if net == "tabular":
        return [nn.Linear(10, 64), nn.Sigmoid(), nn.Linear(64, 1)]
    if net == "wide":
        return [nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 1)]
    if net == "mnist":
        return [
            *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(1600, 64), nn.ReLU(), nn.Linear(64, 10)),
        ]
    return [
        *(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(64, 64, 3), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(1024, 64), nn.ReLU(), nn.Linear(64, 10)),
    ]


def batch(net):
    rng = np.random.default_rng(0)
    shape = SHAPES[net]
    x = rng.standard_normal(shape, dtype=np.float32)
    if net in ("tabular", "wide"):
        return x, (rng.random((shape[0], 1)) < 0.5).astype(np.float32)
    return x, rng.integers(0, 10, shape[0])


def weights(shapes):
    """The same starting weights for every engine, of about He's size."""
    rng = np.random.default_rng(1)
    scale = {name: np.sqrt(1 / max(np.prod(s[1:]), 1)) for name, s in shapes.items()}
    return {n: (rng.standard_normal(s) * scale[n]).astype(np.float32) for n, s in shapes.items()}


def torch_step(net, threads):
    import torch
    from torch.nn import functional as F

    torch.set_num_threads(threads)
    model = torch.nn.Sequential(*layers(torch.nn, net))
    start = weights({n: tuple(p.shape) for n, p in model.state_dict().items()})
    model.load_state_dict({n: torch.from_numpy(w) for n, w in start.items()})
    x, y = (torch.from_numpy(a) for a in batch(net))
    loss_of = F.cross_entropy if x.ndim == 4 else F.binary_cross_entropy_with_logits
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step():
        optimizer.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step, f"PyTorch {torch.__version__}"


def zen_step(net, backend):
    import tinygrad_zen as tz
    from tinygrad_zen import nn, optim
    from tinygrad_zen.nn import functional as F

    tz.set_backend(backend)
    model = nn.Sequential(*layers(nn, net))
    model.load_state_dict(weights({n: p.shape for n, p in model.state_dict().items()}))
    x, y = (tz.tensor(a) for a in batch(net))
    loss_of = F.cross_entropy if x.ndim == 4 else F.binary_cross_entropy_with_logits
    optimizer = optim.Adam(model.parameters(), lr=1e-3)

    def step():
        optimizer.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step, f"tinygrad_zen {tz.__version__}, NumPy {np.__version__}"


def worker(engine, net, threads):
    """Answers on stdout what stdin asks: the first losses, then blocks of timed steps."""
    step, version = torch_step(net, threads) if engine == "torch" else zen_step(net, engine)
    losses = [float(step()) for _ in range(5)]
    print(json.dumps({"losses": losses, "version": version}), flush=True)
    for line in sys.stdin:
        steps = int(line)
        begin = time.perf_counter()
        for _ in range(steps):
            step()
        print(json.dumps((time.perf_counter() - begin) / steps), flush=True)


def start(engine, net, threads):
    variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    process = subprocess.Popen(
        [sys.executable, __file__, "--worker", engine, net, str(threads)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | dict.fromkeys(variables, str(threads)),
    )
    hello = process.stdout.readline()
    if not hello:
        raise SystemExit(f"{engine} on {net}: the process ended before its first steps")
    return process, json.loads(hello)


def block(process, steps):
    process.stdin.write(f"{steps}\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def measure(net, engines, rounds, seconds, threads):
    """Seconds a step for each engine: one number a round, blocks in turn."""
    running = {e: start(e, net, threads) for e in engines}
    first = next(iter(running.values()))[1]["losses"]
    for engine, (_, hello) in running.items():
        if not np.allclose(hello["losses"], first, rtol=1e-3):
            raise SystemExit(
                f"{net}: losses part: {engine} {hello['losses']}, {engines[0]} {first}"
            )
    steps = {
        e: max(3, int(seconds / block(p, 3))) for e, (p, _) in running.items()
    }  # also warms up
    times = {e: [] for e in engines}
    for _ in range(rounds):
        for engine, (process, _) in running.items():
            times[engine].append(block(process, steps[engine]))
    for process, _ in running.values():
        process.stdin.close()
        process.wait()
    return times, {e: hello["version"] for e, (_, hello) in running.items()}


def usable():
    import importlib.util

    import tinygrad_zen as tz

    engines = [name for name, state in tz.backends().items() if state == "usable"]
    return engines + (["torch"] if importlib.util.find_spec("torch") else [])


def machine(threads):
    name = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        )
        if Path("/proc/cpuinfo").exists()
        else iter([platform.processor()]),
        "unknown",
    )
    return f"{name}, {os.cpu_count()} cores, {threads} threads, Python {platform.python_version()}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--engines", nargs="+", help="backends, and torch; all usable by default")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="length of one timed block")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, help="write the results here as well")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        engine, net, threads = options.worker
        return worker(engine, net, int(threads))
    engines = options.engines or usable()
    results = {"machine": machine(options.threads), "nets": {}}
    print(results["machine"])
    for net in options.nets:
        times, versions = measure(net, engines, options.rounds, options.seconds, options.threads)
        peer = statistics.median(times["torch"]) if "torch" in times else None
        print(f"\n{NETS[net]}; float32; losses of the first 5 steps agree to 1e-3")
        for engine, seconds in times.items():
            median = statistics.median(seconds)
            ratio = f"  {median / peer:5.2f} of PyTorch's time" if peer else ""
            print(
                f"  {engine:8s} median {median * 1e3:8.3f} ms  min {min(seconds) * 1e3:8.3f} ms{ratio}"
            )
        results["nets"][net] = {"versions": versions, "seconds": times}
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
