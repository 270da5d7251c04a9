"""Section of proof.md: every reader of files, given 20,000 damaged ones.

python benchmarks/proof_files.py "model, signed anew" 731     # one of them again, with what it says
"""

import collections
import faulthandler
import functools
import multiprocessing
import resource
import sys
import tempfile
import time
import traceback
import tracemalloc
import zlib
from pathlib import Path

import damage
import numpy as np
from file_readers import READERS

from tinygrad_zen.io import FileError

FILES = 20_000
ROOM = 64 << 20  # bytes that a reader may take beyond the size of the file
SECONDS = 2  # of processor time that a file may take
HANGS = 1800  # seconds without an end of a file after which its process is ended
BOMB = 100 << 20  # zeros that a small packed file unpacks to


class Trial:
    """Damaged files for one reader, by number: the same number is the same file again.

    folder: for the files. counts, memory (bytes beyond the file's size) and seconds: what became of them.
    """

    def __init__(self, reader, folder, seed=0):
        self.reader, self.seed = reader, seed
        self.path = Path(folder, reader.file)
        reader.write(self.path, 1)
        self.other = self.path.read_bytes()
        reader.write(self.path, 0)
        self.content = self.path.read_bytes()
        self.whole = reader.read(self.path)
        self.counts = collections.Counter()
        self.memory, self.seconds = -sys.maxsize, 0.0

    def file(self, number):
        """(bytes, what was done to them) of a damaged file."""
        reader = self.reader
        rng = np.random.default_rng([self.seed, zlib.crc32(reader.name.encode()), number])
        kind = rng.random()
        if reader.suffix and kind < 0.005:
            return bomb(reader.suffix), "bomb"
        if reader.suffix and kind < 0.5:
            inside, other = (damage.unpack(c, reader.suffix) for c in (self.content, self.other))
            inside, names = damage.damaged(inside, rng, other)
            return damage.pack(inside, reader.suffix), f"{names}, packed again"
        if reader.sign and kind < 0.8:  # a liar edits: to most other damage no checksum can be made
            content, names = reader.edit(self.content, rng), "edit of the JSON"
        else:
            content, names = damage.damaged(self.content, rng, self.other, reader.edit)
        return reader.sign(content) if reader.sign else content, names

    def run(self, number):
        """Read a damaged file; AssertionError unless it is read right or refused, in time and room."""
        content, names = self.file(number)
        self.path.write_bytes(content)
        value = error = None
        start, before = time.process_time(), tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        try:
            value = self.reader.read(self.path)
        except FileError as e:
            error = e
        except Exception as e:
            raise AssertionError(f"{self.case(number, names)}: {type(e).__name__}: {e}") from e
        seconds = time.process_time() - start
        memory = tracemalloc.get_traced_memory()[1] - before - len(content)
        self.seconds, self.memory = max(self.seconds, seconds), max(self.memory, memory)
        assert seconds < SECONDS, f"{self.case(number, names)}: took {seconds:.1f} s"
        assert memory < ROOM, f"{self.case(number, names)}: took {memory:,} bytes"
        if error is not None:
            assert str(error), f"{self.case(number, names)}: refused without a word"
            self.counts["refused"] += 1
        elif self.reader.same(value, self.whole):
            self.counts["whole"] += 1
        else:
            self._judge(number, names, value, content)
            self.counts["judged"] += 1
        return error

    def _judge(self, number, names, value, content):
        try:
            if self.reader.suffix:
                content = damage.unpack(content, self.reader.suffix)
            judged = self.reader.judge(content)
        except Exception as e:
            raise AssertionError(
                f"{self.case(number, names)}: was read, but the judge says {type(e).__name__}: {e}"
            ) from e
        assert self.reader.same(value, judged), f"{self.case(number, names)}: was read wrongly"

    def case(self, number, names):
        return f"{self.reader.name}, file {number} ({names})"


@functools.cache
def bomb(suffix):
    return damage.pack(bytes(BOMB), suffix)


def in_a_process(reader, count):
    """What became of `count` files, read in a process of its own: (counts, memory, seconds, resident)."""
    parent, child = multiprocessing.get_context("fork").Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_work, args=(child, reader, count))
    process.start()
    child.close()
    number = -1
    try:
        while True:
            if not parent.poll(HANGS):
                process.kill()
                raise AssertionError(f"{reader.name}: hangs after file {number}")
            kind, answer = parent.recv()
            if kind == "done":
                return answer
            assert kind == "at", answer
            number = answer
    except EOFError:
        process.join()
        raise AssertionError(
            f"{reader.name}: the process died after file {number}, exit code {process.exitcode}"
        ) from None
    finally:
        process.join()


def _work(pipe, reader, count):
    faulthandler.enable()
    try:
        with tempfile.TemporaryDirectory() as folder:
            trial = Trial(reader, folder)
            if reader.suffix:
                bomb(reader.suffix)
            tracemalloc.start()
            trial.run(0)  # what is imported and compiled on first use is no part of a file
            limit = (
                _status("VmSize") + ROOM + (256 << 20)
            )  # the rest for the judges and the bookkeeping
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            trial.memory, resident = -sys.maxsize, _status("VmRSS")
            trial.counts.clear()
            for number in range(count):
                trial.run(number)
                if number % 100 == 0:
                    pipe.send(("at", number))
            grown = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident
        pipe.send(("done", (trial.counts, trial.memory, trial.seconds, grown)))
    except BaseException:
        pipe.send(("failed", traceback.format_exc()))


def _status(name):
    """A size from Linux's account of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"{name}:")]
    return 1024 * int(line.split()[1])


def damaged_files(quick):
    """Every reader on mutated and truncated files: read right, or refused."""
    total = len(READERS) * 20 if quick else FILES
    rows, sums, most, slowest = [], collections.Counter(), 0, 0
    for i, reader in enumerate(READERS):
        count = total // len(READERS) + (i < total % len(READERS))
        counts, memory, seconds, resident = in_a_process(reader, count)
        sums += counts
        most, slowest = max(most, memory), max(slowest, seconds)
        cells = f"{count:,} | {counts['whole']:,} | {counts['judged']:,} | {counts['refused']:,}"
        mib = f"{max(memory, 0) / 2**20:.1f} | {max(resident, 0) / 2**20:.0f}"
        rows.append(f"| {reader.name} | {cells} | {mib} | {1000 * seconds:.0f} ms |")
    lines = [
        f"**{total:,} damaged files: {sums['whole']:,} read as the whole file is, {sums['judged']:,} read as "
        f"an independent reader reads them, {sums['refused']:,} refused with `tz.io.FileError`.** No other "
        f"error, no crash, no hang; at most {most / 2**20:.1f} MiB of memory beyond the file's size, and "
        f"{1000 * slowest:.0f} ms.",
        "",
        "A file gets one to three faults: "
        + ", ".join(damage.FAULTS)
        + ", and, where there is JSON in it,",
        "edits that leave it JSON. Of packed files either the packed bytes or the content are damaged; some",
        f"unpack to {BOMB >> 20} MiB. *Signed anew*: the checksum is made right after the damage, as a liar",
        "would. The independent readers are the library `safetensors` and Python's own modules.",
        "Memory: what `tracemalloc` counts at most while a file is read, less the file's size (allowed: "
        f"{ROOM >> 20} MiB); and how far the resident memory of the process, judges and all, grew from first",
        f"to last. Time: of the slowest file (allowed: {SECONDS} s of a core).",
        "",
        "| reader | files | as the whole | as judged | refused | MiB | resident MiB | slowest |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
        *rows,
    ]
    return "Damaged files", lines


SECTIONS = {"files": damaged_files}


if __name__ == "__main__":
    (chosen,) = [reader for reader in READERS if reader.name == sys.argv[1]]
    with tempfile.TemporaryDirectory() as made:
        tracemalloc.start()
        trial = Trial(chosen, made)
        print(trial.case(int(sys.argv[2]), trial.file(int(sys.argv[2]))[1]))
        print(trial.run(int(sys.argv[2])) or dict(trial.counts))
