"""Files in general: read within bounds, refused with words, and written whole or not at all."""

import contextlib
import glob
import json
import os
import threading
from pathlib import Path

# What a reader may take beyond the size of the file, for the objects that it makes of a text.
ROOM = 32 << 20


class FileError(ValueError):
    """The content of a file is damaged, of another kind or version, or larger than it may be.

    Every reader of the library raises it, with the path and what is wrong, and gives nothing of such a
    file. A file that is not there is a FileNotFoundError.
    """


def read_file(path, most):
    """The bytes of a file.

    Raises FileNotFoundError for a missing file, FileError for a folder, a device, or more than `most`
    bytes.
    """
    path = Path(path)
    check_is_file(path, "a file")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise FileError(f"{path}: at most {most:,} bytes are read; the file has {size:,}")
        return file.read(size)


def check_is_file(path, what):
    """Raise FileNotFoundError for a missing file, FileError for a folder, a pipe or a device."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if not path.is_file():  # to read from a pipe would be to wait
        raise FileError(f"{path}: {what} is needed; this is a folder or a device")


def decode(where, content):
    """The text of bytes in UTF-8; FileError for others."""
    try:
        return content.decode()
    except UnicodeDecodeError as e:
        raise FileError(
            f"{where}: the text is not UTF-8: byte {e.start:,} is {content[e.start]:#04x}"
        ) from None


def json_cost(text):
    """How many bytes the objects of a JSON text (str or bytes) take at most, about.

    A string takes up to 4 bytes a character, and twice that while it is put together. Each object
    follows on one of four signs: an empty list takes 100 bytes, a pair in a dict up to 300.
    """
    signs = "{[,:" if isinstance(text, str) else (b"{", b"[", b",", b":")
    return 8 * len(text) + 150 * sum(text.count(sign) for sign in signs)


def parse_json(where, text, room=ROOM):
    """The value of a JSON text, a str or bytes in UTF-8.

    where: its place, for messages. Raises FileError for a text that is no JSON, that has a name twice
    in one object, or whose objects might take more than `room` bytes: that is seen before they exist.
    """
    cost = json_cost(text)
    if cost > room:
        raise FileError(
            f"{where}: the JSON text could take {cost >> 20} MiB of memory; allowed are {room >> 20}"
        )
    if not isinstance(text, str):
        text = decode(where, text)
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _as_dict(where, pairs))
    except FileError:
        raise
    except ValueError as e:
        raise FileError(f"{where}: damaged JSON text: {e}") from None
    except RecursionError:
        raise FileError(f"{where}: damaged JSON text: it is nested too deeply") from None


def _as_dict(where, pairs):
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise FileError(f"{where}: damaged JSON text: {twice!r} stands there twice")
    return result


def write_whole(path, *pieces):
    """Write bytes or arrays, one after the other, to a file that appears whole or not at all.

    They go to a temporary file in the same folder, are flushed to the disk, and take the final name
    in one step, so this holds even if the machine stops meanwhile; what stood there before is kept until
    then. Raises FileNotFoundError for a folder that does not exist, other OSErrors where the folder is
    read-only or the disk full.
    """
    with _instead_of(path) as (temporary, final):
        with open(temporary, "wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, final)


def check_writable(path):
    """Raise what `write_whole` would raise for this path: OSError, FileNotFoundError for no folder.

    Also removes what processes that were killed while they wrote this file have left beside it.
    """
    _remove_leftovers(Path(path))
    with _instead_of(path) as (temporary, _):
        temporary.touch()
        temporary.unlink()


def _remove_leftovers(path):
    """Remove the temporary files of processes that are no more; those of others stay."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        number = part.name.split(".")[-2].partition("-")[0]
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
    """(the name of a temporary file, which is gone after the block; its final name); errors name path."""
    final = Path(path)
    if final.is_symlink():  # the file that it points to is written, and the link stays
        final = final.resolve()
    if not final.parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder {final.parent} does not exist")
    if final.is_dir():
        raise IsADirectoryError(f"{path}: a file cannot be written here; this is a folder")
    # two processes or threads that write one file must not write to one temporary file
    temporary = final.with_name(f".{final.name}.{os.getpid()}-{threading.get_ident():x}.part")
    try:
        yield temporary, final
    except BaseException as e:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(e, OSError):
            reason = f"{path}: cannot be written: {e.strerror or e}"
            raise OSError(e.errno, reason) from e  # of the class that belongs to the number
        raise
