"""Damage to files, at random: what wear, broken transfers and liars do to them.

`damaged(content, rng, ...)` gives the bytes of a file with one or a few faults. The same generator
gives the same faults.
"""

import gzip
import hashlib
import json
import lzma
import zlib

METADATA, SHA256_KEY = "__metadata__", "tinygrad_zen.sha256"
NUMBERS = (0, 1, -1, 2, 255, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**30, 0.5, 1e308)
OTHERS = ("", "x", "F64", "BOOL", None, True, [], {}, [[]], {"": 0}, [1, 2, 3], float("nan"))


def damaged(content, rng, other=b"", edit_json=None):
    """The bytes with one to three faults, and the names of them.

    other: the bytes of another file, for splices. edit_json: for files with a JSON text, a function
    (content, rng) -> content that edits it.
    """
    faults = list(FAULTS) + ["edit of the JSON"] * (6 if edit_json else 0)
    names = [str(name) for name in rng.choice(faults, rng.choice([1, 1, 1, 2, 3]))]
    for name in names:
        if name == "edit of the JSON":
            content = edit_json(content, rng)
        else:
            content = FAULTS[name](content, rng, other)
    return content, " + ".join(names)


def _place(content, rng):
    """A place in the content; every other time near its beginning, where the formats keep their lengths."""
    return int(rng.integers(min(len(content), 64 if rng.random() < 0.5 else len(content)) + 1))


def _slice(content, rng):
    start = _place(content, rng)
    return start, min(
        len(content), start + int(rng.choice([1, 2, 4, 8, 100, 1 + len(content) // 3]))
    )


def _flip_bits(content, rng, other):
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8])):
        place = _place(content, rng)
        if place < len(content):
            content[place] ^= 1 << rng.integers(8)
    return bytes(content)


def _set_bytes(content, rng, other):
    start, end = _slice(content, rng)
    kind = rng.integers(3)
    new = rng.bytes(end - start) if kind == 0 else (b"\0" if kind == 1 else b"\xff") * (end - start)
    return content[:start] + new + content[end:]


def _cut_short(content, rng, other):
    return content[: _place(content, rng)]


def _cut_out(content, rng, other):
    start, end = _slice(content, rng)
    return content[:start] + content[end:]


def _double(content, rng, other):
    start, end = _slice(content, rng)
    return content[:end] + content[start:end] * int(rng.choice([1, 1, 3])) + content[end:]


def _swap(content, rng, other):
    (a, b), c = _slice(content, rng), _place(content, rng)
    d = min(len(content), c + b - a)
    if a > c:
        a, b, c, d = c, d, a, b
    if b > c:
        return content
    return content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]


def _splice(content, rng, other):
    if rng.random() < 0.5:  # the head of one, the tail of the other
        return content[: _place(content, rng)] + other[_place(other, rng) :]
    start, end = _slice(other, rng)
    place = _place(content, rng)
    return content[:place] + other[start:end] + content[place + end - start :]


def _append(content, rng, other):
    return content + (rng.bytes(int(rng.integers(1, 600))) if rng.random() < 0.5 else other)


def _set_length(content, rng, other):
    """A whole number of 4 or 8 bytes, of either order, near the beginning."""
    width = int(rng.choice([4, 8]))
    values = [*NUMBERS[:11], len(content), len(content) + 1, len(content) - width]
    value = int(rng.choice(len(values)))
    new = (values[value] % (1 << 8 * width)).to_bytes(width, rng.choice(["little", "big"]))
    start = 4 * int(rng.integers(0, 5))
    return content[:start] + new + content[start + width :]


def _other_digits(content, rng, other):
    """Other digits in place of some, as many."""
    places = [i for i, byte in enumerate(content) if 48 <= byte <= 57]
    content = bytearray(content)
    if places:
        first = int(rng.integers(len(places)))
        for place in places[first : first + int(rng.choice([1, 3, 12]))]:
            content[place] = 48 + int(rng.integers(10))
    return bytes(content)


FAULTS = {
    "flipped bits": _flip_bits,
    "other bytes": _set_bytes,
    "cut short": _cut_short,
    "cut out": _cut_out,
    "doubled": _double,
    "swapped": _swap,
    "spliced": _splice,
    "appended": _append,
    "other length": _set_length,
    "other digits": _other_digits,
}


# JSON that stays JSON


def edit_text(content, rng):
    """A JSON text with an edit that leaves it one, where it is one."""
    try:
        return json.dumps(_edited(json.loads(content), rng)).encode()
    except (ValueError, TypeError):  # it is none any more, or the edits put it into itself
        return content


def edit_header(content, rng):
    """A safetensors file with an edit of its header, whose length is set right.

    More often than not in the JSON texts among its metadata, the network or the state of a training.
    """
    try:
        header, start = read_header(content)
        strings = [(h, key) for h, key in _places(header) if isinstance(h[key], str)]
        texts = [(h, key) for h, key in strings if h[key].startswith(('{"', "[{"))]
        if texts and rng.random() < 0.7:
            holder, key = texts[rng.integers(len(texts))]
            holder[key] = json.dumps(_edited(json.loads(holder[key]), rng))
        else:
            header = _edited(header, rng)
        return with_header(header, content[start:])
    except (ValueError, TypeError):
        return content


def _edited(value, rng):
    holder = [value]
    places = list(_places(holder))
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        container, key = places[rng.integers(len(places))]
        try:
            _edit(container, key, rng, places)
        except (KeyError, IndexError, TypeError, ValueError):
            pass  # an earlier edit took the place away
    return holder[0] if holder else {}


def _edit(container, key, rng, places):
    old = container[key]
    kind = rng.integers(7)
    if kind == 0:
        container[key] = NUMBERS[rng.integers(len(NUMBERS))]
    elif kind == 1:
        container[key] = OTHERS[rng.integers(len(OTHERS))]
    elif kind == 2:
        del container[key]
    elif kind == 3 and isinstance(container, dict):
        container[f"{key}x"] = container.pop(key)
    elif kind == 3:
        container.insert(key, old)
    elif kind == 4:
        there, name = places[rng.integers(len(places))]
        there[name], container[key] = container[key], there[name]
    elif type(old) in (int, float):
        container[key] = [old + 1, old - 1, old * 2, -old][rng.integers(4)]
    else:
        container[key] = [old]


def _places(container):
    """(container, key) of each value in nested dicts and lists."""
    for key, value in container.items() if isinstance(container, dict) else enumerate(container):
        yield container, key
        if isinstance(value, dict | list):
            yield from _places(value)


# safetensors files, as their format says


def read_header(content):
    """(header, where the numbers begin) of a safetensors file."""
    start = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:start]), start


def with_header(header, numbers):
    text = json.dumps(header, ensure_ascii=False).encode(errors="surrogatepass")
    return len(text).to_bytes(8, "little") + text + numbers


def signed(content):
    """A safetensors file of tinygrad_zen whose checksum is right again, if it has a place for one."""
    try:
        header, start = read_header(content)
        metadata = header[METADATA]
        rest = {key: value for key, value in metadata.items() if key != SHA256_KEY}
        arrays = sorted((name, entry) for name, entry in header.items() if name != METADATA)
        about = [rest, [[name, entry["dtype"], entry["shape"]] for name, entry in arrays]]
        text = json.dumps(about, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(text.encode())
        for _, entry in arrays:
            begin, end = entry["data_offsets"]
            digest.update(content[start + begin : start + end])
    except (ValueError, KeyError, TypeError, AttributeError):
        return content
    return with_header(
        {**header, METADATA: {**metadata, SHA256_KEY: digest.hexdigest()}}, content[start:]
    )


# packed files


def unpack(content, suffix):
    """The content of a .gz or .xz, by Python's own modules."""
    return gzip.decompress(content) if suffix == ".gz" else lzma.decompress(content)


def pack(content, suffix):
    return gzip.compress(content, 1) if suffix == ".gz" else lzma.compress(content, preset=0)


UNPACKING = (OSError, EOFError, zlib.error, lzma.LZMAError)
