"""Sections of proof.md: trainings that are killed and resumed, 100,000 steps, the same bits again.

Everything runs in processes of its own: `python proof_runs.py WORKER ARGUMENTS` is one of them, and
prints what it found as JSON.
"""

import csv
import gc
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from array import array
from collections import Counter
from pathlib import Path

import networks
import numpy as np
from engine_ours import Program

import tinygrad_zen as tz
from tinygrad_zen import nn, optim, train
from tinygrad_zen.nn import functional as F

THREADS = "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"
CHECKPOINT, BEST, HISTORY = "checkpoint.safetensors", "best.safetensors", "history.csv"
SAMPLES, BATCH = 320, 32
FIRST, EVERY = 1_000, 500  # steps after which memory is settled, and between two looks at it
MOST = 6  # kills of one training
GROWTH = 2 * 2**20  # bytes that memory may grow by after the first steps


def start(*command, backend="numpy", threads=1):
    """A worker as a process of its own."""
    return subprocess.Popen(
        [sys.executable, __file__, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TINYGRAD_ZEN_BACKEND": backend} | dict.fromkeys(THREADS, str(threads)),
    )


def answer(process):
    """What a worker printed, once it has ended."""
    out, err = process.communicate()
    assert process.returncode == 0, f"a worker ended with {process.returncode}:\n{err}"
    return json.loads(out)


def usable():
    return [name for name in ("numpy", "numba") if tz.backends()[name] == "usable"]


def digest(*things):
    """A checksum of arrays, numbers and words in dicts and lists, bit for bit."""
    whole = hashlib.sha256()
    stack = list(things)
    while stack:
        thing = stack.pop()
        if isinstance(thing, dict):
            stack += [*thing, *thing.values()]
        elif isinstance(thing, list | tuple):
            stack += thing
        elif hasattr(thing, "shape"):
            whole.update(f"{thing.dtype}{thing.shape}".encode() + np.asarray(thing).tobytes())
        else:
            whole.update(repr(thing).encode())
    return whole.hexdigest()


# killed and resumed


def kills(quick):
    """Trainings killed at random moments, and resumed until they are done."""
    wanted, interrupts, epochs = (5, 2, 5) if quick else (200, 20, 20)
    rng = random.Random()
    with tempfile.TemporaryDirectory() as root:
        seconds = float("inf")  # of the quicker one: a busy machine may stop the other for long
        ends = []
        for _ in range(2):
            begin = time.perf_counter()
            ends.append(answer(start("train", fresh(root), epochs)))
            seconds = min(seconds, time.perf_counter() - begin)
        straight = ends[0]
        assert ends[1] == straight, "two trainings end differently"
        moments = Counter()
        ended = 0
        while (before := moments.total()) < wanted:
            folder, end = fresh(root), None
            for _ in range(MOST):
                process, end = killed(folder, epochs, rng.uniform(0, seconds))
                if end is not None:
                    break
                moments[moment(folder, process.pid)] += 1
            if end is None:
                end = answer(start("train", folder, epochs))
            assert end == straight, "killed, resumed, and different"
            assert not read_all(folder), "temporary files outlived the training"
            ended += moments.total() > before
        for _ in range(interrupts):
            words, longest = None, seconds / 4
            while words is None:
                words = interrupted(folder := fresh(root), epochs, rng.uniform(0, longest))
                longest /= 2
            assert "resume from it to go on" in words, words
            assert not read_all(folder), "Ctrl-C left temporary files"
            assert answer(start("train", folder, epochs)) == straight, (
                "interrupted, resumed, and different"
            )
    steps = epochs * SAMPLES // BATCH
    lines = [
        f"A network with batch normalisation and dropout, Adam and a schedule learn digits in {steps}",
        f"steps, with a checkpoint after each; {seconds:.1f} s from the start of Python. `kill -9` at",
        "moments drawn evenly from that time; resumed, and killed again, until the training is done.",
        "",
        f"**{moments.total()} kills of {ended} trainings, which all ended with the same bits as the one",
        "that nobody stopped**: weights, optimizer, random generator, history. After each kill",
        "every checkpoint, model and history was read and was whole; no temporary file outlived the",
        "next start.",
        "",
        "| the kill came | times |",
        "|---|---:|",
        *(f"| {when} | {n} |" for when, n in moments.most_common()),
        "",
        f"Ctrl-C at {interrupts} random moments: each time the last checkpoint was kept, the message",
        "said what it holds and how to go on, no temporary file was left, and the resumed training",
        "ended with the same bits.",
    ]
    return "Killed and resumed", lines


def fresh(root):
    return Path(tempfile.mkdtemp(dir=root))


def training(folder, epochs):
    """A worker: learn digits, from the checkpoint if there is one; -> a digest of all that was learnt."""
    epochs = int(epochs)
    tz.seed(0)
    (x, y), _ = tz.data.digits()
    net = nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Dropout(0.25), nn.Linear(36, 10)),
    )
    model = tz.Model(net)
    model.compile("adam", loss="cross_entropy", metrics=["accuracy"])
    steps = epochs * SAMPLES // BATCH
    schedule = optim.OneCycleLR(model.optimizer, max_lr=0.01, total_steps=steps)
    path = Path(folder, CHECKPOINT)
    model.fit(
        x[:SAMPLES],
        y[:SAMPLES],
        epochs=epochs,
        batch_size=BATCH,
        validation_data=(x[-BATCH:], y[-BATCH:]),
        callbacks=[
            train.LearningRate(schedule, every="batch"),
            train.ModelCheckpoint(Path(folder, BEST)),
            train.CSVLogger(Path(folder, HISTORY)),
            train.Checkpoint(path, every=1),
        ],
        resume=path if path.exists() else None,
        verbose=0,
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C came too late
    history = {name: values for name, values in model.history.history.items() if name != "time"}
    generator = tz.default_generator().bit_generator.state
    return digest(net.state_dict(), model.optimizer.state_dict(), generator, history)


def killed(folder, epochs, seconds):
    """Train, and kill the process after so many seconds; -> it, and how it ended if it came to that."""
    process = start("train", folder, epochs)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        if process.wait():
            process.communicate()
            return process, None
    return process, answer(process)


def interrupted(folder, epochs, seconds):
    """Train, and send Ctrl-C so long after the first checkpoint; -> the last line that was said.

    None where the training was done before.
    """
    process = start("train", folder, epochs)
    while process.poll() is None and not (folder / CHECKPOINT).exists():
        time.sleep(0.005)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    words = process.communicate()[1]
    return words.strip().rpartition("\n")[2] if process.returncode else None


def read_all(folder):
    """Read every file that a training left; -> the names of temporary files.

    Raises what the readers raise for a file that is not whole.
    """
    names = {path.name for path in folder.iterdir()}
    temporary = {name for name in names if name.endswith(".part")}
    assert names - temporary <= {CHECKPOINT, BEST, HISTORY}, names
    if CHECKPOINT in names:
        _, metadata = tz.io.load_state(folder / CHECKPOINT)
        assert all(map(json.loads, metadata.values()))
    if BEST in names:
        tz.load(folder / BEST)
    if HISTORY in names:
        with open(folder / HISTORY, newline="") as file:
            rows = list(csv.reader(file))
        assert len({len(row) for row in rows}) == 1, "a row of the history is not whole"
    return temporary


def moment(folder, pid):
    """When the process was killed, in words, by the files that it left; they are read."""
    temporary = read_all(folder)
    assert len(temporary) < 2, (
        f"the temporary file of an earlier process is still there: {temporary}"
    )
    if any(f".{pid}." in name for name in temporary):
        return "while a file was being written"
    if (folder / CHECKPOINT).exists():
        return "between two writes, or when starting to resume"
    return "before the first checkpoint"


# 100,000 steps


def soak(quick):
    """Many steps of a small network: memory, with the garbage collector and without."""
    steps = 2_000 if quick else 100_000
    lines = [
        f"{steps:,} training steps of the 10-64-1 network of `benchmarks/train.py` (batch 32, Adam).",
        f"Resident memory after {FIRST:,} steps, and by how much it was ever more later, looked at every",
        f"{EVERY} steps. Garbage: objects that the collector found at the end, which counting references",
        "had not freed since. The losses of all steps must have the same bits with the collector as",
        "without.",
        "",
        "| backend | garbage collector | memory, MiB | growth, MiB | garbage | same losses | seconds |",
        "|---|---|---:|---:|---:|---|---:|",
    ]
    for backend in usable()[-1:] if quick else usable():
        found = {}
        for collector in ("on", "off"):
            begin = time.perf_counter()
            found[collector] = end = answer(start("soak", backend, steps, collector))
            seconds = time.perf_counter() - begin
            assert end["growth"] < GROWTH, (
                f"{backend}, gc {collector}: {end['growth']:,} bytes more"
            )
            assert end["garbage"] == 0, f"{backend}: {end['garbage']} objects of garbage"
            same = end["losses"] == found["on"]["losses"]
            assert same, f"{backend}: the losses depend on the garbage collector"
            lines.append(
                f"| {backend} | {collector} | {end['memory'] / 2**20:.1f} | {end['growth'] / 2**20:.2f} | "
                f"{end['garbage']} | {'yes' if collector == 'off' else ''} | {seconds:.0f} |"
            )
    return f"{steps:,} steps", lines


def soaking(backend, steps, collector):
    """A worker: so many steps; -> memory after the first, its growth, garbage, digest of all losses."""
    network = networks.find("tabular")
    program = Program(network, networks.weights(network), 1, "cpu", {backend})
    losses = array("d", bytes(8 * int(steps)))
    if collector == "off":
        gc.disable()
    memory = []
    for i in range(len(losses)):
        losses[i] = program.step()
        if i == FIRST:
            gc.collect()  # what importing and compiling left
        if i >= FIRST and i % EVERY == 0:
            memory.append(resident())
    return {
        "memory": memory[0],
        "growth": max(memory) - memory[0],
        "garbage": gc.collect(),
        "losses": digest(np.asarray(losses)),
    }


def resident():
    """Bytes of memory that this process occupies. Linux alone tells."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# the same bits


def determinism(quick):
    """Trainings with dropout, twice in a row and in two processes, on one thread and on two."""
    steps = 2 if quick else 10
    lines = [
        f"{steps} steps of Adam from `tz.seed(0)`: twice in one process, and twice in another. All four",
        "digests of losses, weights and optimizer must be equal, with 1 thread (of NumPy's BLAS and of",
        "Numba) and with 2. Whether 1 and 2 threads agree with each other is not asked for, and shown.",
        "",
        "| backend | network | 1 thread | 2 threads | 1 and 2 agree |",
        "|---|---|---|---|---|",
    ]
    for backend in usable()[: 1 if quick else None]:
        ends = {}
        for threads in (1, 2):
            first, second = (
                answer(start("bits", steps, backend=backend, threads=threads)) for _ in range(2)
            )
            for name in NETWORKS:
                different = {*first[name], *second[name]}
                assert len(different) == 1, f"{name} on {backend}, {threads} threads: other bits"
                ends[name, threads] = first[name][0]
        for name in NETWORKS:
            agree = "yes" if ends[name, 1] == ends[name, 2] else "no"
            lines.append(f"| {backend} | {name} | same bits | same bits | {agree} |")
    return "The same seed, the same bits", lines


class Sentences(nn.Module):
    """A class for each sequence (N, T, 16): two layers of an LSTM, and what the last step says."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(16, 32, num_layers=2, dropout=0.3, batch_first=True)
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


def images():
    *first, last = networks.build(nn, networks.find("mnist"))
    return nn.Sequential(*first, nn.Dropout(0.5), last), (32, 1, 28, 28)


def sequences():
    return Sentences(), (32, 20, 16)


def attention():
    layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.1, batch_first=True)
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(20 * 64, 10)), (32, 20, 64)


NETWORKS = {
    "MNIST network, dropout": images,
    "LSTM of 2 layers, dropout": sequences,
    "Transformer encoder layer, dropout": attention,
}


def bits(steps):
    """A worker: each network trained twice; -> {its name: two digests}."""
    return {name: [trained(make, int(steps)) for _ in range(2)] for name, make in NETWORKS.items()}


def trained(make, steps):
    """A few steps of a network from a seed; -> a digest of losses, weights and optimizer."""
    tz.seed(0)
    net, shape = make()
    rng = np.random.default_rng(0)
    x = tz.tensor(rng.standard_normal(shape, dtype=np.float32))
    y = rng.integers(0, 10, shape[0])
    optimizer = optim.Adam(net.parameters(), lr=1e-3)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return digest(losses, net.state_dict(), optimizer.state_dict())


SECTIONS = {"kills": kills, "soak": soak, "determinism": determinism}
WORKERS = {"train": training, "soak": soaking, "bits": bits}

if __name__ == "__main__":
    print(json.dumps(WORKERS[sys.argv[1]](*sys.argv[2:])))
