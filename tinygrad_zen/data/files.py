"""Find, download and read the files of a dataset; a doubtful file is a ValueError, never data."""

import os
from pathlib import Path

import numpy as np

FOLDER_VARIABLE = "TINYGRAD_ZEN_DATA"
CIFAR_RECORD = 1 + 3 * 32 * 32  # one label byte, then 1,024 red, 1,024 green and 1,024 blue bytes


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
    Raises ValueError if the file is damaged.
    """
    import gzip
    import lzma
    import zlib

    opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    try:
        with opener(path, "rb") as file:
            return file.read(limit)
    except (gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        raise ValueError(f"{path}: damaged {path.suffix} file: {error}") from error


def read_idx(path, shape, sha256=None):
    """Array uint8 of the given shape from an idx file, the format of MNIST.

    An idx file of unsigned bytes starts with the big-endian words 2048 + ndim and the shape; the
    values follow. sha256: of the unpacked content, checked where it is known.
    Raises ValueError if header, length or checksum differ from what they should be.
    """
    header = 4 * (1 + len(shape))
    size = header + int(np.prod(shape))
    content = read_at_most(path, size + 1)
    if len(content) < header:
        raise ValueError(f"{path}: an idx header takes {header} bytes; got {len(content)}")
    magic, *found = np.frombuffer(content, ">u4", 1 + len(shape)).tolist()
    if magic != 2048 + len(shape):
        raise ValueError(f"{path}: magic number must be {2048 + len(shape)}; got {magic}")
    if tuple(found) != shape:
        raise ValueError(f"{path}: shape in the header must be {shape}; got {tuple(found)}")
    check_length(path, content, size)
    if sha256 is not None:
        check_sha256(path, content, sha256)
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def read_text(path, size, sha256):
    """Text of a UTF-8 file of `size` bytes, with its line ends as they are.

    Raises ValueError if the length or the checksum differ from what they should be.
    """
    content = read_at_most(path, size + 1)
    check_length(path, content, size)
    check_sha256(path, content, sha256)
    return content.decode()


def read_cifar_batch(path, count=10_000):
    """Records uint8 (count, 3073) of one file of CIFAR-10's binary version; column 0 is the label.

    Raises ValueError if the length or a label is wrong.
    """
    return cifar_records(path, read_at_most(path, count * CIFAR_RECORD + 1), count)


def read_cifar_archive(path, names, count=10_000):
    """Records uint8 (len(names) * count, 3073) of the named files in a cifar-10-binary.tar.gz.

    Raises ValueError if the archive is damaged, lacks a file, or a file is wrong.
    """
    import tarfile

    batches = {}
    try:
        with tarfile.open(path, "r|gz") as archive:  # in one pass: a seek would unpack again
            for member in archive:
                name = member.name.rpartition("/")[2]
                if name in names and member.isfile():
                    content = archive.extractfile(member).read(count * CIFAR_RECORD + 1)
                    batches[name] = cifar_records(f"{path}/{name}", content, count)
    except tarfile.TarError as error:
        raise ValueError(f"{path}: damaged .tar.gz file: {error}") from error
    missing = [name for name in names if name not in batches]
    if missing:
        raise ValueError(f"{path}: must contain {', '.join(names)}; lacks {', '.join(missing)}")
    return np.concatenate([batches[name] for name in names])


def cifar_records(path, content, count):
    """View bytes as (count, 3073) records after checking their length and labels."""
    check_length(path, content, count * CIFAR_RECORD)
    records = np.frombuffer(content, np.uint8).reshape(count, CIFAR_RECORD)
    if records[:, 0].max() > 9:
        raise ValueError(f"{path}: labels must be 0 to 9; got {records[:, 0].max()}")
    return records


def check_length(path, content, size):
    """Raise ValueError unless the content, read up to one byte past `size`, has `size` bytes."""
    if len(content) != size:
        got = f"more than {size}" if len(content) > size else len(content)
        raise ValueError(f"{path}: content must be {size} bytes long; got {got}")


def check_sha256(path, content, sha256):
    """Raise ValueError unless the content has that SHA-256."""
    import hashlib

    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise ValueError(
            f"{path}: not the official file: SHA-256 of its content must be {sha256}; got {digest}"
        )
