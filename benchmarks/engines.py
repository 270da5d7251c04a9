"""Engines that train the same network from the same weights, each in a process of its own.

`Running(engine, network, weights, threads, device)` starts this file as a program that imports the one
library, builds the network, takes the first steps and answers with their losses; `block(steps)` times
steps there. The process is told how many threads it has, and sits on as many cores, before any
library is imported.
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import networks
import numpy as np
from threads import environment, sit


class Engine(NamedTuple):
    """module: the file that builds its step; variant: what its `start` makes of the library.

    needs: packages to be installed; devices: where it runs; images: networks of images only.
    """

    module: str
    variant: str = ""
    needs: tuple = ()
    devices: tuple = ("cpu",)
    images: bool = False

    @property
    def ours(self):
        return self.module == "engine_ours"


CACHES = {  # compiled programs are kept between processes, as Numba and PyTorch do by themselves
    "JAX_COMPILATION_CACHE_DIR": str(Path(tempfile.gettempdir()) / "tinygrad_zen-benchmarks-jax"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "KERAS_BACKEND": "jax",
}
BOTH = ("cpu", "cuda")
ENGINES = {
    "numpy": Engine("engine_ours", "numpy"),
    "numba": Engine("engine_ours", "numba", ("numba",)),
    "numba-captured": Engine("engine_ours", "numba captured", ("numba",)),
    "numba-winograd-4": Engine("engine_ours", "numba[winograd=4]", ("numba",), images=True),
    "cupy": Engine("engine_ours", "cupy", ("cupy",), ("cuda",)),
    "cuda": Engine("engine_ours", "cuda", ("cupy", "numba"), ("cuda",)),
    "cuda-captured": Engine("engine_ours", "cuda captured", ("cupy", "numba"), ("cuda",)),
    "torch": Engine("engine_torch", "", ("torch",), BOTH),
    "torch-fused": Engine("engine_torch", "fused", ("torch",), BOTH),
    "torch-channels-last": Engine("engine_torch", "fused channels_last", ("torch",), BOTH, True),
    "torch-compile": Engine("engine_torch", "fused compile", ("torch",), BOTH),
    "jax": Engine("engine_jax", "", ("jax",)),
    "keras": Engine("engine_keras", "", ("keras", "jax")),
}


def available(device="cpu"):
    """The engines that can run here on a device, by what is installed."""
    import tinygrad_zen as tz

    states = tz.backends()
    found = []
    for name, engine in ENGINES.items():
        usable = all(importlib.util.find_spec(package) for package in engine.needs)
        if engine.ours:
            backend, *captured = engine.variant.split()
            usable = states[backend.partition("[")[0]] == "usable"
            usable = usable and (not captured or hasattr(tz, "capture"))
        if usable and device in engine.devices:
            found.append(name)
    return found


class EngineFailed(RuntimeError):
    """The process of an engine ended before it answered; the message has its last words."""


class Running:
    """An engine in its process, past the first steps.

    version: of the library; device: what it computes on, in words; losses: of the first steps; start:
    seconds from the start of the process to the end of the first step; memory: its peak in bytes
    after the first steps.
    """

    def __init__(self, name, network, file, threads, device="cpu"):
        self.name, self.words = name, tempfile.TemporaryFile("w+")
        begin = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, __file__, name, network.name, file, str(threads), device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.words,
            text=True,
            env=os.environ | environment(threads) | CACHES,
            preexec_fn=lambda: sit(threads),
        )
        self.version, self.device = self._answer()
        self.start = time.perf_counter() - begin
        self.losses, self.memory = self._answer()

    def block(self, steps):
        """Seconds a step, over so many steps in a row."""
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return self._answer()

    def stop(self):
        """Let all of its threads stand still, those too that spin and wait for more work."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.words.seek(0)
            last = "\n".join(self.words.read().splitlines()[-15:])
            self.close()
            raise EngineFailed(f"{self.name}: its process ended before it answered:\n{last}")
        return json.loads(line)

    def close(self):
        self.resume()
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.words.close()


def peak_memory():
    """The largest size of this process in memory so far, in bytes.

    Linux: VmHWM, for ru_maxrss also holds what the parent had when it started this process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (s for s in status.read_text().splitlines() if s.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def serve(name, network, file, threads, device):
    """The program: a line of JSON for the first step, one for the others, then one a block."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer

    def answer(value):
        print(json.dumps(value), file=answers, flush=True)

    engine, network = ENGINES[name], networks.find(network)
    module = importlib.import_module(engine.module)
    with np.load(file) as arrays:
        start = dict(arrays)
    program = module.Program(network, start, int(threads), device, set(engine.variant.split()))
    losses = [program.step()]
    answer((program.version, program.device))
    losses += [program.step() for _ in range(networks.STEPS - 1)]
    answer((losses, peak_memory()))
    for line in sys.stdin:
        steps = int(line)
        answer(program.seconds(steps) / steps)


if __name__ == "__main__":
    serve(*sys.argv[1:])
