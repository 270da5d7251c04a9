"""State dicts as safetensors files: arrays by name, and text about them.

The format is a length, a JSON header and raw numbers: reading one runs no code, and PyTorch, JAX and
others read and write it too.
"""

import contextlib
import glob
import json
import os
from pathlib import Path

import numpy as np


def save_state(path, arrays, metadata=None):
    """Write arrays (or Tensors) by name, with metadata (str -> str), to a safetensors file.

    The file appears whole or not at all, see `write_whole`. Raises TypeError for values that are not
    arrays of numbers, FileNotFoundError for a folder that does not exist.
    """
    import safetensors.numpy

    plain = {}
    for name, value in arrays.items():
        # the library reads raw memory, so it must be in C order
        array = np.asarray(value.numpy() if hasattr(value, "requires_grad") else value, order="C")
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{path}: {name!r} must be an array of numbers; got {array.dtype}")
        plain[name] = array
    write_whole(path, safetensors.numpy.save(plain, metadata))


def load_state(path):
    """Read a safetensors file -> (NumPy arrays by name, metadata str -> str).

    Half-precision brain floats (bfloat16), which NumPy lacks, become float32, exactly.
    Raises FileNotFoundError for a missing file; ValueError for one that is empty, cut short, of
    another format, or with numbers of a kind that NumPy lacks.
    """
    import safetensors

    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if not path.is_file():
        raise ValueError(f"{path}: a safetensors file is needed; this is a folder or a device")
    content = path.read_bytes()
    try:
        entries = safetensors.deserialize(content)
    except safetensors.SafetensorError as e:
        raise ValueError(f"{path}: {_what_is_wrong(content)} ({e})") from None
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    arrays = {name: _to_numpy(path, name, **entry) for name, entry in sorted(entries)}
    return arrays, header.get("__metadata__", {})


def _what_is_wrong(content):
    """In words, why these bytes are not a safetensors file."""
    if not content:
        return "the file is empty"
    if content.startswith((b"PK\3\4", b"\x80")):
        return (
            "this is a zip or pickle file, as torch.save writes; a safetensors file is needed, which "
            "safetensors.torch.save_file writes"
        )
    size = int.from_bytes(content[:8], "little")
    # a header is JSON; the rest may be missing, but what is there must look like it
    if content[8:9] in (b"{", b"") and size < 100_000_000:
        return "the safetensors file is cut short or damaged"
    return "not a safetensors file"


_DTYPES = {
    "BOOL": "?",
    **{f"{kind}{8 * size}": f"<{kind.lower()}{size}" for kind in "IU" for size in (1, 2, 4, 8)},
    **{f"F{8 * size}": f"<f{size}" for size in (2, 4, 8)},
}


def _to_numpy(path, name, *, dtype, shape, data):
    if dtype == "BF16":  # the upper half of a float32
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").reshape(shape)
    if dtype not in _DTYPES:
        raise ValueError(f"{path}: {name!r} holds numbers of kind {dtype}, which NumPy lacks")
    return np.frombuffer(data, _DTYPES[dtype]).reshape(shape)


def write_whole(path, content):
    """Write bytes to a file that appears whole or not at all, even if the machine stops meanwhile.

    They go to a temporary file in the same folder, are flushed to the disk, and take the final name
    in one step; what stood there before is kept until then. Raises FileNotFoundError for a folder that
    does not exist, other OSErrors where the folder is read-only or the disk full.
    """
    with _instead_of(path) as temporary:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)


def check_writable(path):
    """Raise what `write_whole` would raise for this path: OSError, FileNotFoundError for no folder.

    Also removes what processes that were killed while they wrote this file have left beside it.
    """
    _remove_leftovers(Path(path))
    with _instead_of(path) as temporary:
        temporary.touch()
        temporary.unlink()


def _remove_leftovers(path):
    """Remove the temporary files of processes that are no more; those of others stay."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        number = part.name.split(".")[-2]
        if number.isdecimal() and not _runs(int(number)):
            with contextlib.suppress(OSError):
                part.unlink()


def _runs(number):
    """Whether there is a process of that number; on Windows nobody knows, without ending it."""
    if os.name != "posix":
        return True
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


@contextlib.contextmanager
def _instead_of(path):
    """The name of a temporary file beside path, which is gone after the block; errors name path."""
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder {path.parent} does not exist")
    if path.is_dir():
        raise IsADirectoryError(f"{path}: a file cannot be written here; this is a folder")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
    except BaseException as e:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(e, OSError):
            reason = f"{path}: cannot be written: {e.strerror or e}"
            raise OSError(e.errno, reason) from e  # of the class that belongs to the number
        raise
