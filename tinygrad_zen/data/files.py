"""Find, download and read the files of a dataset; a doubtful file is a FileError, never data."""

import os
from pathlib import Path

import numpy as np

from ..io import FileError, decode, read_file

FOLDER_VARIABLE = "TINYGRAD_ZEN_DATA"
CIFAR_RECORD = 1 + 3 * 32 * 32  # one label byte, then 1,024 red, 1,024 green and 1,024 blue bytes
PIECE = 1 << 20  # bytes that are unpacked at a time
XZ_MEMORY = (
    34 << 20
)  # bytes that unpacking may take: enough for what `xz -8` packs, half of what -9 asks
TAR_EXTRA = 1 << 20  # bytes that an archive may have beside the files that are looked for


def local_folder(dataset):
    """Subfolder `dataset` of the folder that TINYGRAD_ZEN_DATA names, or None: then download.

    Raises FileNotFoundError if the variable names a folder that does not exist; a folder that lacks
    this one dataset is fine.
    """
    root = os.environ.get(FOLDER_VARIABLE)
    if not root:
        return None
    if not os.path.isdir(root):
        raise FileNotFoundError(f"{FOLDER_VARIABLE} names a folder that does not exist: {root}")
    folder = Path(root, dataset)
    return folder if folder.is_dir() else None


def local_file(folder, name, suffix):
    """Path of `name` in a folder, compressed (with `suffix`) or plain.

    Raises FileNotFoundError if neither is there.
    """
    for candidate in (folder / (name + suffix), folder / name):
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(f"{folder} has neither {name}{suffix} nor {name}")


def download(dataset, name, md5, mirrors, local_names):
    """Path of `name` in the user's cache folder, downloaded and checked unless it is there already.

    md5: of the file as it is downloaded. mirrors: addresses of folders, tried in this order.
    local_names: the files that would do instead, for the message.
    Raises ImportError without pooch, ConnectionError if no mirror gives a file with that checksum.
    """
    instead = f"or set {FOLDER_VARIABLE} to a folder that holds {dataset}/ with {local_names}"
    try:
        import pooch
    except ImportError as error:
        raise ImportError(
            f'{dataset}: downloads need pooch: pip install "tinygrad-zen[data]", {instead}'
        ) from error
    from importlib.util import find_spec

    failures, last = [], None
    for mirror in mirrors:
        try:
            # pooch writes to a temporary file and renames it once the checksum agrees.
            path = pooch.retrieve(
                mirror + name,
                known_hash=f"md5:{md5}",
                fname=name,
                path=Path(pooch.os_cache("tinygrad_zen"), dataset),
                progressbar=find_spec("tqdm") is not None,
            )
            return Path(path)
        except ValueError as error:  # so pooch says that the checksum differs
            failures.append(f"{mirror}{name}: wrong checksum")
            last = error
        except OSError as error:  # no network, no such file, no room; requests' errors are OSErrors
            failures.append(f"{mirror}{name}: {type(error).__name__}")
            last = error
    raise ConnectionError(
        f"{dataset}: no download (tried {'; '.join(failures)}); try again later, {instead}"
    ) from last


def read_at_most(path, limit):
    """Content of a file (unpacked if its name ends in .gz or .xz), `limit` bytes of it at most.

    The limit keeps a small file that unpacks to a huge one from filling the memory.
    Raises FileError if the file is damaged.
    """
    import gzip
    import lzma
    import zlib

    content = bytearray()
    try:
        with open(path, "rb") as file:
            if path.suffix == ".xz":
                pieces = _xz_pieces(file)
            else:
                stream = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
                pieces = iter(lambda: stream.read(PIECE), b"")
            for piece in pieces:
                content += piece[: limit - len(content)]
                if len(content) == limit:
                    break
    except (gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        raise FileError(f"{path}: damaged {path.suffix} file: {error}") from error
    return content


def _xz_pieces(file):
    """The content of an .xz file, piece by piece. Raises LZMAError or EOFError if it is damaged."""
    import lzma

    unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
    while not unpacker.eof:
        packed = file.read(PIECE) if unpacker.needs_input else b""
        if unpacker.needs_input and not packed:
            raise EOFError("it ends before its end mark")
        yield unpacker.decompress(packed, PIECE)
    if unpacker.unused_data or file.read(1):
        raise lzma.LZMAError("something follows its end mark")


def read_idx(path, shape, sha256=None):
    """Array uint8 of the given shape from an idx file, the format of MNIST.

    An idx file of unsigned bytes starts with the big-endian words 2048 + ndim and the shape; the
    values follow. sha256: of the unpacked content, checked where it is known.
    Raises FileError if header, length or checksum differ from what they should be.
    """
    header = 4 * (1 + len(shape))
    size = header + int(np.prod(shape))
    content = read_at_most(path, size + 1)
    if len(content) < header:
        raise FileError(f"{path}: an idx header takes {header} bytes; got {len(content)}")
    magic, *found = np.frombuffer(content, ">u4", 1 + len(shape)).tolist()
    if magic != 2048 + len(shape):
        raise FileError(f"{path}: magic number must be {2048 + len(shape)}; got {magic}")
    if tuple(found) != shape:
        raise FileError(f"{path}: shape in the header must be {shape}; got {tuple(found)}")
    check_length(path, len(content), size)
    if sha256 is not None:
        check_sha256(path, content, sha256)
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def read_text(path, size, sha256):
    """Text of a UTF-8 file of `size` bytes, with its line ends as they are.

    Raises FileError if the length or the checksum differ from what they should be.
    """
    content = read_at_most(path, size + 1)
    check_length(path, len(content), size)
    check_sha256(path, content, sha256)
    return decode(path, content)


def read_table(path, sha256):
    """A mapping of arrays from an .npz file of this package.

    Raises FileError if it is not the file with that SHA-256, which is looked at before it is unpacked.
    """
    import io

    content = read_file(path, 1 << 20)
    check_sha256(path, content, sha256)
    return np.load(io.BytesIO(content), allow_pickle=False)


def read_cifar_batch(path, count=10_000):
    """Records uint8 (count, 3073) of one file of CIFAR-10's binary version; column 0 is the label.

    Raises FileError if the length or a label is wrong.
    """
    return cifar_records(path, read_at_most(path, count * CIFAR_RECORD + 1), count)


def read_cifar_archive(path, names, count=10_000):
    """Records uint8 (len(names) * count, 3073) of the named files in a cifar-10-binary.tar.gz.

    Raises FileError if the archive is damaged, lacks a file, or a file is wrong.
    """
    import gzip
    import tarfile
    import zlib

    size, records, found = count * CIFAR_RECORD, None, set()
    try:
        with gzip.open(path, "rb") as archive:
            for name, length in _tar_members(path, archive, len(names) * size + TAR_EXTRA):
                if name not in names:
                    continue
                where = f"{path}/{name}"
                check_length(where, length, size)
                batch = cifar_records(where, archive.read(size), count)
                if records is None:  # only now: a file must show that it has one batch at least
                    records = np.empty((len(names), count, CIFAR_RECORD), np.uint8)
                records[names.index(name)] = batch
                found.add(name)
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise FileError(f"{path}: damaged .tar.gz file: {error}") from error
    missing = [name for name in names if name not in found]
    if missing:
        raise FileError(f"{path}: must contain {', '.join(names)}; lacks {', '.join(missing)}")
    return records.reshape(-1, CIFAR_RECORD)


def _tar_members(path, archive, most):
    """(name without folders, length) of each plain file in an open tar, which then stands at its content.

    In one pass to the end, since a packed file can only be read on. Raises FileError for more than
    `most` bytes, TarError for a damaged header.
    """
    import tarfile

    block, place = tarfile.BLOCKSIZE, 0
    while any(header := archive.read(block)):
        member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        place += block + -(-member.size // block) * block
        if member.size < 0 or place > most:
            raise FileError(f"{path}: at most {most:,} bytes are unpacked; there are more")
        if member.isreg():
            yield member.name.rpartition("/")[2], member.size
        if archive.seek(place) < place:
            raise tarfile.ReadError("it ends within a file")
    while archive.read(PIECE):  # zeros up to the end, where the checksum of the packed file stands
        if archive.tell() > most:
            raise FileError(f"{path}: at most {most:,} bytes are unpacked; there are more")


def cifar_records(path, content, count):
    """View bytes as (count, 3073) records after checking their length and labels."""
    check_length(path, len(content), count * CIFAR_RECORD)
    records = np.frombuffer(content, np.uint8).reshape(count, CIFAR_RECORD)
    if records[:, 0].max() > 9:
        raise FileError(f"{path}: labels must be 0 to 9; got {records[:, 0].max()}")
    return records


def check_length(path, length, size):
    """Raise FileError unless a content, read up to one byte past `size`, has `size` bytes."""
    if length != size:
        got = f"more than {size}" if length > size else length
        raise FileError(f"{path}: content must be {size} bytes long; got {got}")


def check_sha256(path, content, sha256):
    """Raise FileError unless the content has that SHA-256."""
    import hashlib

    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise FileError(
            f"{path}: not the official file: SHA-256 of its content must be {sha256}; got {digest}"
        )
