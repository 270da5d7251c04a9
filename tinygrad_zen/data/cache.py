"""What takes long to unpack, kept unpacked in the user's cache folder, under a checksum."""

import contextlib
import hashlib
from pathlib import Path

import numpy as np

from ..io import read_file, write_whole

MOST = 1 << 30  # bytes of a file in the cache


def unpacked(name, sources, unpack):
    """The array uint8 (rows, columns) that unpack() makes of the files `sources`; from the cache next time.

    name: of the file in the cache folder. Its first 32 bytes are the SHA-256 of everything after them
    and of the names, sizes and times of the sources, so a file that is damaged, or of other sources,
    is made anew. Nothing is kept of sources that are not compressed, without pooch, which knows the
    folder, or where that cannot be written.
    """
    path = _place(name)
    if path is None or not any(source.suffix in (".xz", ".gz") for source in sources):
        return unpack()
    key = repr([(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in sources])
    with contextlib.suppress(OSError, ValueError):
        return _read(path, key.encode())
    array = unpack()
    with contextlib.suppress(OSError):
        _write(path, key.encode(), array)
    return array


def _place(name):
    try:
        import pooch
    except ImportError:
        return None
    return Path(pooch.os_cache("tinygrad_zen"), name)


def _read(path, key):
    """The array of a cache file; OSError or ValueError if there is none that fits."""
    content = read_file(path, MOST)
    if _digest(key, memoryview(content)[32:]) != content[:32]:
        raise ValueError(f"{path}: damaged, or of other files")
    return np.frombuffer(content, np.uint8, offset=48).reshape(np.frombuffer(content, "<i8", 2, 32))


def _write(path, key, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape, array = np.array(array.shape, "<i8"), np.ascontiguousarray(array)
    write_whole(path, _digest(key, shape, array), shape, array)


def _digest(key, *pieces):
    digest = hashlib.sha256(key)
    for piece in pieces:
        digest.update(piece)
    return digest.digest()
