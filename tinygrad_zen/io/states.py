"""State dicts as safetensors files: arrays by name, and text about them.

The format is a length, a JSON header and raw numbers: reading one runs no code, and PyTorch, JAX and
others read and write it too. Source: https://github.com/huggingface/safetensors, "Format".

Files of this library also hold, in the header's metadata, the version of their format and a SHA-256. It
is taken of the names, dtypes, shapes and metadata (as JSON, sorted) and then of the numbers, by name.
"""

import hashlib
import json
import math
import os
from pathlib import Path

import numpy as np

from .files import ROOM, FileError, check_is_file, json_cost, parse_json, write_whole

FORMAT = 1  # what is written; files of a higher number are refused
PREFIX = "tinygrad_zen."  # of the metadata that this library gives its files
FORMAT_KEY, SHA256_KEY = PREFIX + "format", PREFIX + "sha256"
METADATA = "__metadata__"  # the one name in the header that is no array's

DTYPES = {
    "BOOL": "?",
    **{f"{kind}{8 * size}": f"<{kind.lower()}{size}" for kind in "IU" for size in (1, 2, 4, 8)},
    **{f"F{8 * size}": f"<f{size}" for size in (2, 4, 8)},
}
NAMES = {np.dtype(dtype).newbyteorder("="): name for name, dtype in DTYPES.items()}
MOST_HEADER = 100_000_000  # bytes, the limit of the format
MOST_AXES = 32  # NumPy 1 has no more


def save_state(path, arrays, metadata=None):
    """Write arrays (or Tensors) by name, with metadata (str -> str), to a safetensors file.

    The file appears whole or not at all, see `write_whole`. Raises TypeError for values that are not
    arrays of numbers, ValueError for metadata that `load_state` would refuse as too much,
    FileNotFoundError for a folder that does not exist.
    """
    plain = {name: _plain(path, name, value) for name, value in arrays.items()}
    metadata = {**(metadata or {}), FORMAT_KEY: str(FORMAT)}
    for key, value in metadata.items():
        if not (isinstance(key, str) and isinstance(value, str)):
            raise TypeError(f"{path}: metadata must be text; got {key!r}: {value!r:.80}")
    kinds = {name: (NAMES[array.dtype], list(array.shape)) for name, array in plain.items()}
    digest = _digest(path, metadata, kinds)
    for name in sorted(plain):
        digest.update(plain[name])
    header, place = {METADATA: {**metadata, SHA256_KEY: digest.hexdigest()}}, 0
    order = sorted(plain, key=lambda name: (-plain[name].itemsize, name))  # so each is aligned
    for name in order:
        dtype, shape = kinds[name]
        offsets = [place, place := place + plain[name].nbytes]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MOST_HEADER or json_cost(text) > _room(8 + len(text) + place):
        raise ValueError(
            f"{path}: names and metadata of {len(text):,} bytes are too much for arrays of {place:,}"
        )
    write_whole(path, len(text).to_bytes(8, "little"), text, *(plain[name] for name in order))


def _plain(path, name, value):
    """A value as an array that may be written as it lies in memory."""
    if not isinstance(name, str) or name == METADATA:
        raise TypeError(f"{path}: an array cannot have the name {name!r:.80}")
    array = np.asarray(value.numpy() if hasattr(value, "requires_grad") else value, order="C")
    if array.dtype.newbyteorder("=") not in NAMES:
        raise TypeError(f"{path}: {name!r:.80} must be an array of numbers; got {array.dtype}")
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def load_state(path):
    """Read a safetensors file -> (NumPy arrays by name, metadata str -> str).

    The whole header is checked before anything is read into memory: names, dtypes, shapes, and that
    the arrays take the file's size exactly. In files of this library checksum and format version are
    checked, and left out of the metadata. Half-precision brain floats (bfloat16), which NumPy lacks,
    become float32, exactly. Reading takes the size of the arrays and at most 64 MiB more.
    Raises FileNotFoundError for a missing file; FileError, a ValueError, for one that is empty, cut
    short, damaged, of another format or a newer version, or with numbers of a kind that NumPy lacks.
    """
    path = Path(path)
    check_is_file(path, "a safetensors file")
    with open(path, "rb") as file:
        entries, metadata, start = _read_header(path, file)
        digest = _digest(path, metadata, {name: e[:2] for name, e in entries.items()})
        arrays = {}
        for name, (dtype, shape, begin) in sorted(entries.items()):
            file.seek(start + begin)
            arrays[name] = _read_array(path, name, file, dtype, shape, digest)
    sha256 = metadata.pop(SHA256_KEY, None)
    if sha256 is not None and sha256 != digest.hexdigest():
        raise FileError(
            f"{path}: the file is damaged: its SHA-256 must be {sha256}; got {digest.hexdigest()}"
        )
    metadata.pop(FORMAT_KEY, None)
    return arrays, metadata


def _room(size):
    """What the objects of the header of a file of that size may take, in bytes."""
    return size + ROOM


def _read_header(path, file):
    """({name: (dtype, shape, begin)}, metadata, where the numbers begin) of an open file, checked."""
    size = os.fstat(file.fileno()).st_size
    first = file.read(9)
    length = int.from_bytes(first[:8], "little")
    if len(first) < 9 or first[8:] != b"{" or not 0 < length <= min(MOST_HEADER, size - 8):
        raise FileError(f"{path}: {_what_is_wrong(first, length, size)}")
    file.seek(8)
    damaged = f"{path}: the safetensors file is cut short or damaged"
    header = parse_json(damaged, file.read(length), _room(size))
    metadata = header.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise FileError(f"{damaged}: its metadata must be text")
    entries = {name: _check_entry(damaged, path, name, e) for name, e in header.items()}
    place = 0
    for name, (_, _, begin, end) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if begin != place:
            raise FileError(
                f"{damaged}: {name!r:.80} must begin at byte {place} of the numbers; got {begin}"
            )
        place = end
    if place != size - 8 - length:
        raise FileError(
            f"{damaged}: the arrays take {place:,} bytes; there are {size - 8 - length:,}"
        )
    _check_version(path, metadata)
    return {name: entry[:3] for name, entry in entries.items()}, metadata, 8 + length


def _check_entry(damaged, path, name, entry):
    """(dtype, shape, begin, end) of one array in the header, or FileError."""
    keys = ("dtype", "shape", "data_offsets")
    if not isinstance(entry, dict) or set(entry) != set(keys):
        raise FileError(f"{damaged}: {name!r:.80} must have {', '.join(keys)}")
    dtype, shape, offsets = (entry[key] for key in keys)
    if not isinstance(dtype, str) or (dtype not in DTYPES and dtype != "BF16"):
        raise FileError(
            f"{path}: {name!r:.80} holds numbers of kind {dtype!s:.40}, which NumPy lacks"
        )
    if not _are_sizes(shape) or len(shape) > MOST_AXES:
        raise FileError(f"{damaged}: {name!r:.80} has the shape {shape!r:.80}")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise FileError(f"{damaged}: {name!r:.80} has the offsets {offsets!r:.80}")
    begin, end = offsets
    itemsize = 2 if dtype == "BF16" else np.dtype(DTYPES[dtype]).itemsize
    needed = math.prod(shape) * itemsize
    if end - begin != needed:
        raise FileError(
            f"{damaged}: {name!r:.80} of shape {tuple(shape)} takes {needed:,} bytes; got {end - begin:,}"
        )
    # of an array without elements the other axes must still fit NumPy's count of bytes
    if math.prod(n for n in shape if n) * 8 >= 1 << 63:
        raise FileError(f"{damaged}: {name!r:.80} has the shape {shape!r:.80}")
    return dtype, shape, begin, end


def _are_sizes(value):
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 63 for n in value)


def _check_version(path, metadata):
    """Both keys of the library must be there, or nothing of the library; and the version known."""
    if not any(key.startswith(PREFIX) for key in metadata):
        return
    for key in (FORMAT_KEY, SHA256_KEY):
        if key not in metadata:
            raise FileError(
                f"{path}: the file is damaged, or an early version wrote it: its metadata lack {key}"
            )
    version = metadata[FORMAT_KEY]
    if not (version.isascii() and version.isdecimal() and len(version) < 10):
        raise FileError(f"{path}: the file is damaged: its format is {version!r:.80}")
    if int(version) > FORMAT:
        raise FileError(
            f"{path}: the file has format {version}, this version reads up to {FORMAT}; update "
            "tinygrad_zen"
        )


def _read_array(path, name, file, dtype, shape, digest):
    """The array at the file's position; its bytes go to the digest as they come."""
    if dtype == "BF16":
        array = np.empty(shape, "<f4")
        complete = _read_halves(file, array.reshape(-1).view("<u4"), digest)
    else:
        array = np.empty(shape, DTYPES[dtype])
        raw = array.reshape(-1).view(np.uint8)
        complete = file.readinto(raw) == len(raw)
        digest.update(raw)
    if not complete:
        raise FileError(f"{path}: the safetensors file was cut short while it was read")
    if dtype == "BOOL" and raw.max(initial=0) > 1:
        raise FileError(f"{path}: {name!r:.80} must hold 0 and 1 alone; got {raw.max()}")
    return array


def _read_halves(file, words, digest, count=1 << 18):
    """Fill 32-bit words whose upper halves are in the file, piece by piece; -> whether all were there."""
    for i in range(0, len(words), count):
        piece = words[i : i + count]
        halves = file.read(2 * len(piece))
        if len(halves) < 2 * len(piece):
            return False
        digest.update(halves)
        piece[...] = np.frombuffer(halves, "<u2")
        piece <<= 16
    return True


def _digest(path, metadata, kinds):
    """SHA-256 of everything but the numbers; kinds: {name: (dtype, shape)}."""
    rest = {key: value for key, value in metadata.items() if key != SHA256_KEY}
    about = [rest, sorted([name, dtype, list(shape)] for name, (dtype, shape) in kinds.items())]
    text = json.dumps(about, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    try:
        return hashlib.sha256(text.encode())
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can spell
        raise FileError(f"{path}: names and metadata must be valid Unicode") from None


def _what_is_wrong(first, length, size):
    """In words, why a file with these first bytes is not a safetensors file."""
    if not size:
        return "the file is empty"
    if first.startswith((b"PK\3\4", b"\x80")):
        return (
            "this is a zip or pickle file, as torch.save writes; a safetensors file is needed, which "
            "safetensors.torch.save_file writes"
        )
    # a header is JSON; the rest may be missing, but what is there must look like it
    if first[8:] in (b"{", b"") and length <= MOST_HEADER:
        told = f"its header should take {length:,} bytes, the file has {size:,}"
        return f"the safetensors file is cut short or damaged: {told}"
    return "not a safetensors file"
