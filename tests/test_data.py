"""tinygrad_zen.data: embedded and fetched datasets, batches, preparation, augmentation."""

import gzip
import hashlib
import io
import json
import lzma
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_zen.data as data
from tinygrad_zen.data import augment, datasets, files

LOCAL = os.environ.get("TINYGRAD_ZEN_DATA", "")


def needs_local(dataset):
    return pytest.mark.skipif(
        not (LOCAL and Path(LOCAL, dataset).is_dir()),
        reason=f"TINYGRAD_ZEN_DATA names no folder with {dataset}/",
    )


def raises(kind, message):
    """Expect an error whose whole message, on one line, matches the pattern."""
    return pytest.raises(kind, match=rf"\A{message}\Z")


def sha256(*arrays):
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


# Embedded tables


def test_digits():
    (x_train, y_train), (x_test, y_test) = data.digits()
    assert x_train.shape == (1437, 1, 8, 8) and x_test.shape == (360, 1, 8, 8)
    assert x_train.dtype == x_test.dtype == np.float32
    assert y_train.dtype == y_test.dtype == np.int64
    assert x_train.min() == 0 and x_train.max() == 1
    counts = np.bincount(y_train), np.bincount(y_test)
    np.testing.assert_allclose(counts[1] / (counts[0] + counts[1]), 0.2, atol=0.005)


def test_breast_cancer():
    (x_train, y_train), (x_test, y_test) = data.breast_cancer()
    assert x_train.shape == (455, 10) and x_test.shape == (114, 10)
    assert x_train.dtype == np.float32 and y_train.dtype == np.int64
    assert np.bincount(y_train).tolist() == [169, 286] and np.bincount(y_test).tolist() == [43, 71]
    (x_all, y_all), _ = data.breast_cancer(features="all")
    assert x_all.shape == (455, 30)
    np.testing.assert_array_equal(x_all[:, :10], x_train)
    np.testing.assert_array_equal(y_all, y_train)
    assert len(data.BREAST_CANCER_FEATURES) == 30
    with raises(ValueError, "breast_cancer: features must be 'mean' or 'all'; got 'worst'"):
        data.breast_cancer("worst")


@pytest.mark.parametrize(
    "load, expected",
    [
        (data.digits, "34b3b9abf15eeb93426e15f1f9081ce6220c9d754a1fde514370e4dc1efdba32"),
        (data.breast_cancer, "d0125b37704d258cd4f1e979cd1b1084ff91d8362d7581583d910dda71bad208"),
        (
            lambda: data.breast_cancer("all"),
            "c99dddc038541f3695e4211b5523647f290039ba21caef1cd566671a1b9bccae",
        ),
    ],
    ids=["digits", "breast_cancer", "breast_cancer_all"],
)
def test_splits_never_change(load, expected):
    (x_train, y_train), (x_test, y_test) = load()
    assert sha256(x_train, y_train, x_test, y_test) == expected


@pytest.mark.parametrize("load", [data.digits, data.breast_cancer])
def test_every_stretch_has_the_classes_in_proportion(load):
    (_, y), _ = load()
    tail = np.bincount(y[-len(y) // 5 :]) / (len(y) / 5)
    np.testing.assert_allclose(tail, np.bincount(y) / len(y), atol=0.01)


def test_embedded_tables_equal_scikit_learns():
    sklearn = pytest.importorskip("sklearn.datasets")

    def rows(x, y):
        table = np.column_stack([x.reshape(len(x), -1), y])
        return table[np.lexsort(table.T)]

    for load, theirs, scale in [
        (data.digits, sklearn.load_digits(), 16),
        (lambda: data.breast_cancer("all"), sklearn.load_breast_cancer(), 1),
    ]:
        (x_train, y_train), (x_test, y_test) = load()
        x, y = np.concatenate([x_train, x_test]), np.concatenate([y_train, y_test])
        their_x = theirs.data.astype(np.float32) / np.float32(scale)
        np.testing.assert_array_equal(rows(x, y), rows(their_x, theirs.target))
    assert data.BREAST_CANCER_FEATURES == tuple(theirs.feature_names)
    assert data.BREAST_CANCER_CLASSES == tuple(theirs.target_names)


# The real files, where they are at hand


@needs_local("mnist")
def test_mnist_from_local_folder():
    (x_train, y_train), (x_test, y_test) = data.mnist("uint8")
    assert x_train.shape == (60_000, 1, 28, 28) and x_test.shape == (10_000, 1, 28, 28)
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(y_train).tolist() == counts
    assert x_train.mean() / 255 == pytest.approx(0.13066, abs=1e-5)
    assert y_test[:5].tolist() == [7, 2, 1, 0, 4]


@needs_local("cifar-10")
def test_cifar_batch_from_local_folder():
    path = files.local_file(Path(LOCAL, "cifar-10"), "test_batch.bin", ".xz")
    records = files.read_cifar_batch(path)
    assert records.shape == (10_000, 3073)
    assert np.bincount(records[:, 0]).tolist() == [1000] * 10


# Folders with made-up files


def idx_bytes(array, magic=None, shape=None):
    """Return an idx file of uint8 values, its magic number or shape wrong on request."""
    words = [magic or 2048 + array.ndim, *(shape or array.shape)]
    return np.array(words, ">u4").tobytes() + array.astype(np.uint8).tobytes()


@pytest.fixture
def data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYGRAD_ZEN_DATA", str(tmp_path))
    return tmp_path


def write_fashion_mnist(root, highest_label=9):
    """Write Fashion-MNIST's four files with made-up content: labels compressed, images plain."""
    folder = root / "fashion-mnist"
    folder.mkdir()
    for part, n in [("train", 60_000), ("t10k", 10_000)]:
        images = np.resize(np.arange(256, dtype=np.uint8), (n, 28, 28))
        labels = np.arange(n) % (highest_label + 1)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        packed = gzip.compress(idx_bytes(labels), compresslevel=1)
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(packed)


def test_fashion_mnist_from_local_folder(data_folder):
    write_fashion_mnist(data_folder)
    (x_train, y_train), (x_test, y_test) = data.fashion_mnist()
    assert x_train.shape == (60_000, 1, 28, 28) and x_test.shape == (10_000, 1, 28, 28)
    assert x_train.dtype == np.float32 and y_train.dtype == np.int64
    expected = np.arange(256, dtype=np.float32) / np.float32(255)
    np.testing.assert_array_equal(x_train.reshape(-1)[:256], expected)
    assert y_test[:11].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    (raw, _), _ = data.fashion_mnist(dtype=np.uint8)
    assert raw.dtype == np.uint8 and raw.max() == 255 and raw.flags.writeable
    assert len(data.FASHION_MNIST_CLASSES) == 10


def test_fashion_mnist_refuses_other_labels(data_folder):
    write_fashion_mnist(data_folder, highest_label=10)
    with raises(ValueError, ".*train-labels-idx1-ubyte.gz: labels must be 0 to 9; got 10"):
        data.fashion_mnist("uint8")


def test_mnist_refuses_files_that_are_not_the_official_ones(data_folder):
    write_fashion_mnist(data_folder)
    (data_folder / "fashion-mnist").rename(data_folder / "mnist")
    message = (
        ".*train-images-idx3-ubyte: not the official file: SHA-256 of its content must be "
        "ba891046e65[0-9a-f]*; got [0-9a-f]{64}"
    )
    with raises(ValueError, message):
        data.mnist()


def test_folder_that_lacks_a_file(data_folder):
    (data_folder / "mnist").mkdir()
    message = ".*mnist has neither train-images-idx3-ubyte.gz nor train-images-idx3-ubyte"
    with raises(FileNotFoundError, message):
        data.mnist()


def test_variable_that_names_no_folder(monkeypatch):
    monkeypatch.setenv("TINYGRAD_ZEN_DATA", "/no/such/folder")
    message = "TINYGRAD_ZEN_DATA names a folder that does not exist: /no/such/folder"
    with raises(FileNotFoundError, message):
        data.mnist()


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
@pytest.mark.parametrize("dtype", ["int8", "float16", "no such type"])
def test_dtypes(name, dtype):
    message = f"{name}: dtype must be 'float32', 'float64' or 'uint8'; got '{dtype}'"
    with raises(ValueError, message):
        getattr(data, name)(dtype=dtype)


def cifar_bytes(count, seed=0):
    rng = np.random.default_rng(seed)
    records = rng.integers(0, 256, (count, 3073), np.uint8)
    records[:, 0] %= 10
    return records


def test_cifar10_from_local_folder(data_folder):
    folder = data_folder / "cifar-10"
    folder.mkdir()
    records = cifar_bytes(10_000)
    for i in range(1, 6):
        (folder / f"data_batch_{i}.bin").write_bytes(records.tobytes())
    (folder / "test_batch.bin").write_bytes(records[::-1].tobytes())
    (x_train, y_train), (x_test, y_test) = data.cifar10("uint8")
    assert x_train.shape == (50_000, 3, 32, 32) and x_test.shape == (10_000, 3, 32, 32)
    np.testing.assert_array_equal(y_train, np.tile(records[:, 0], 5))
    np.testing.assert_array_equal(y_test, records[::-1, 0])
    np.testing.assert_array_equal(x_train[10_007].reshape(-1), records[7, 1:])
    assert x_train[0, 1, 0, 5] == records[0, 1 + 1024 + 5]  # green, first row
    assert len(data.CIFAR10_CLASSES) == 10


# Files that are not what they should be


@pytest.mark.parametrize(
    "content, message",
    [
        (b"\0\0\x08\x03\0\0", "an idx header takes 16 bytes; got 6"),
        (idx_bytes(np.zeros((3, 4, 5)), magic=2049), "magic number must be 2051; got 2049"),
        (
            idx_bytes(np.zeros((3, 4, 5)), shape=(4_000_000_000, 4, 5)),
            r"shape in the header must be \(3, 4, 5\); got \(4000000000, 4, 5\)",
        ),
        (idx_bytes(np.zeros((3, 4, 5)))[:-1], "content must be 76 bytes long; got 75"),
        (idx_bytes(np.zeros((3, 4, 5))) + b"!", "content must be 76 bytes long; got more than 76"),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gz"])
def test_idx_errors(tmp_path, pack, content, message):
    path = tmp_path / ("images.gz" if pack is gzip.compress else "images")
    path.write_bytes(pack(content))
    with raises(ValueError, f"{re.escape(str(path))}: {message}"):
        files.read_idx(path, (3, 4, 5))


def test_idx_reads_and_checks_the_checksum(tmp_path):
    array = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(idx_bytes(array)))
    digest = hashlib.sha256(idx_bytes(array)).hexdigest()
    np.testing.assert_array_equal(files.read_idx(path, (3, 4, 5), digest), array)
    message = f".*not the official file: SHA-256 of its content must be {'0' * 64}; got {digest}"
    with raises(ValueError, message):
        files.read_idx(path, (3, 4, 5), "0" * 64)


@pytest.mark.parametrize("suffix, module", [(".gz", gzip), (".xz", lzma)])
def test_damaged_compressed_files(tmp_path, suffix, module):
    whole = module.compress(np.random.default_rng(0).bytes(10_000))
    path = tmp_path / f"file{suffix}"
    flipped = bytearray(whole)
    flipped[5000] ^= 0xFF
    for damaged in (whole[:-2000], b"not compressed at all", bytes(flipped)):
        path.write_bytes(damaged)
        with raises(ValueError, f"{re.escape(str(path))}: damaged {suffix} file: .*"):
            files.read_at_most(path, 10_001)


def test_a_small_file_cannot_unpack_to_a_huge_array(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros((3, 4, 5))) + bytes(50_000_000)))
    assert len(files.read_at_most(path, 77)) == 77


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda r: r.tobytes()[:-1], "content must be 9219 bytes long; got 9218"),
        (lambda r: r.tobytes() + b"!", "content must be 9219 bytes long; got more than 9219"),
        (lambda r: b"\x0a" + r.tobytes()[1:], "labels must be 0 to 9; got 10"),
    ],
)
def test_cifar_errors(tmp_path, change, message):
    path = tmp_path / "data_batch_1.bin.xz"
    path.write_bytes(lzma.compress(change(cifar_bytes(3))))
    with raises(ValueError, f"{re.escape(str(path))}: {message}"):
        files.read_cifar_batch(path, count=3)


def write_archive(path, contents):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in contents.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def test_cifar_archive(tmp_path):
    path = tmp_path / "cifar.tar.gz"
    one, two = cifar_bytes(3, seed=1), cifar_bytes(3, seed=2)
    contents = {"readme.html": b"hello", "two.bin": two.tobytes(), "one.bin": one.tobytes()}
    write_archive(path, contents)
    records = files.read_cifar_archive(path, ("one.bin", "two.bin"), count=3)
    np.testing.assert_array_equal(records, np.concatenate([one, two]))

    with raises(ValueError, ".*cifar.tar.gz: must contain one.bin, three.bin; lacks three.bin"):
        files.read_cifar_archive(path, ("one.bin", "three.bin"), count=3)
    message = ".*cifar.tar.gz/two.bin: content must be 6146 bytes long; got more than 6146"
    with raises(ValueError, message):
        files.read_cifar_archive(path, ("one.bin", "two.bin"), count=2)
    path.write_bytes(path.read_bytes()[:5000])
    with raises(ValueError, ".*cifar.tar.gz: damaged .tar.gz file: .*"):
        files.read_cifar_archive(path, ("one.bin", "two.bin"), count=3)


# Downloads, without a network


@pytest.fixture
def retrieve(tmp_path, monkeypatch):
    """Let the test stand in for pooch.retrieve: it sets `answer`; `calls` holds what was asked."""
    pooch = pytest.importorskip("pooch")

    class Retrieve:
        calls = []

        def __call__(self, url, **options):
            self.calls.append((url, options))
            return self.answer(url)

    fake = Retrieve()
    monkeypatch.setattr(pooch, "retrieve", fake)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / project)
    monkeypatch.delenv("TINYGRAD_ZEN_DATA", raising=False)
    fake.calls.clear()
    return fake


def test_download_tries_the_mirrors_in_order(retrieve, tmp_path):
    def answer(url):
        if "first" in url:
            raise ConnectionResetError
        return str(tmp_path / "file")

    retrieve.answer = answer
    mirrors = ("https://first/", "https://second/")
    path = files.download("mnist", "a.gz", "0123", mirrors, "a.gz")
    assert path == tmp_path / "file"
    assert [url for url, _ in retrieve.calls] == ["https://first/a.gz", "https://second/a.gz"]
    for _, options in retrieve.calls:
        assert options["known_hash"] == "md5:0123" and options["fname"] == "a.gz"
        assert options["path"] == tmp_path / "tinygrad_zen" / "mnist"


def test_download_that_fails_everywhere(retrieve):
    def answer(url):
        if "ossci" in url:
            raise ValueError("MD5 hash of downloaded file does not match")
        raise TimeoutError

    retrieve.answer = answer
    name = "train-images-idx3-ubyte.gz"
    message = re.escape(
        f"mnist: no download (tried "
        f"https://ossci-datasets.s3.amazonaws.com/mnist/{name}: wrong checksum; "
        f"https://storage.googleapis.com/cvdf-datasets/mnist/{name}: TimeoutError); "
        "try again later, or set TINYGRAD_ZEN_DATA to a folder that holds mnist/ with "
        "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz, "
        "t10k-labels-idx1-ubyte.gz"
    )
    with raises(ConnectionError, message):
        data.mnist()
    with raises(ConnectionError, "fashion-mnist: no download .*"):
        data.fashion_mnist()
    message = ".* holds cifar-10/ with data_batch_1.bin to data_batch_5.bin and test_batch.bin, .*"
    with raises(ConnectionError, message):
        data.cifar10()


def test_a_folder_without_the_dataset_means_download(retrieve, monkeypatch, tmp_path):
    monkeypatch.setenv("TINYGRAD_ZEN_DATA", str(tmp_path))
    retrieve.answer = lambda url: str(tmp_path / url.rpartition("/")[2])
    with pytest.raises(FileNotFoundError):  # the stand-in wrote no file
        data.fashion_mnist()
    assert len(retrieve.calls) == 1


def test_download_without_pooch(monkeypatch):
    monkeypatch.delenv("TINYGRAD_ZEN_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "pooch", None)
    message = (
        r'mnist: downloads need pooch: pip install "tinygrad-zen\[data\]", or set '
        "TINYGRAD_ZEN_DATA to a folder that holds mnist/ with train-images-idx3-ubyte.gz, .*"
    )
    with raises(ImportError, message):
        data.mnist()


def test_downloaded_cifar10(retrieve, monkeypatch, tmp_path):
    records = np.concatenate([cifar_bytes(10_000, seed) for seed in range(6)])
    retrieve.answer = lambda url: str(tmp_path / "cifar-10-binary.tar.gz")
    monkeypatch.setattr(datasets, "read_cifar_archive", lambda path, names: records)
    (x_train, y_train), (x_test, y_test) = data.cifar10("uint8")
    url, options = retrieve.calls[0]
    assert url == "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    assert options["known_hash"] == "md5:c32a1d4ab5d03f1284b67883e8d87530"
    np.testing.assert_array_equal(np.concatenate([y_train, y_test]), records[:, 0])
    np.testing.assert_array_equal(x_test[-1].reshape(-1), records[-1, 1:])


# DataLoader


def epochs(loader, n):
    return [[np.array(batch) for batch in loader] for _ in range(n)]


def assert_same_batches(ours, expected):
    assert len(ours) == len(expected)
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@settings(deadline=None)
@given(n=st.integers(1, 40), batch_size=st.integers(1, 50), shuffle=st.booleans())
def test_an_epoch_has_every_sample_once(n, batch_size, shuffle):
    x = np.arange(n)
    loader = data.DataLoader(x, x * 10, batch_size=batch_size, shuffle=shuffle, seed=0)
    batches = list(loader)
    assert len(batches) == len(loader)
    assert all(len(a) == batch_size for a, _ in batches[:-1])
    a, b = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    np.testing.assert_array_equal(b, a * 10)
    np.testing.assert_array_equal(np.sort(a) if shuffle else a, x)


def test_drop_last():
    loader = data.DataLoader(np.arange(10), batch_size=4, drop_last=True, seed=0)
    assert [len(batch) for batch in loader] == [4, 4] and len(loader) == 2


def test_order_depends_on_seed_and_epoch_alone():
    x = np.arange(100)
    first, second = epochs(data.DataLoader(x, batch_size=30, seed=5), 2)
    again = epochs(data.DataLoader(x, batch_size=30, seed=5), 2)
    assert_same_batches(first + second, again[0] + again[1])
    assert not np.array_equal(first[0], second[0])
    other = epochs(data.DataLoader(x, batch_size=30, seed=6), 1)[0]
    assert not np.array_equal(first[0], other[0])


def test_kinds_of_seeds():
    x = np.arange(100)

    def from_generator():
        return data.DataLoader(x, seed=np.random.default_rng(3))

    assert_same_batches(list(from_generator()), list(from_generator()))
    assert data.DataLoader(x, seed=np.int32(7)).seed == 7
    with raises(TypeError, "DataLoader: seed must be an int, a NumPy generator or None; got str"):
        data.DataLoader(x, seed="7")
    with raises(ValueError, "DataLoader: seed must not be negative; got -1"):
        data.DataLoader(x, seed=-1)


def test_without_a_seed_the_engines_generator_decides():
    import tinygrad_zen as tz

    def loader_and_split():
        tz.seed(11)
        loader = data.DataLoader(np.arange(50))
        return [*loader, data.split(np.arange(50), np.arange(50))[1][0]], loader.seed

    first, seed = loader_and_split()
    again, _ = loader_and_split()
    assert_same_batches(first, again)
    assert data.DataLoader(np.arange(50)).seed != seed  # the generator went on


@settings(deadline=None)
@given(stop=st.integers(0, 12), shuffle=st.booleans())
def test_resume_in_the_middle_of_an_epoch(stop, shuffle):
    x = np.arange(20.0).reshape(20, 1, 1, 1)

    def noise(batch, rng):
        return batch + rng.random(batch.shape)

    def new_loader(seed):
        return data.DataLoader(x, batch_size=6, shuffle=shuffle, seed=seed, transform=noise)

    whole = [batch for epoch in epochs(new_loader(1), 4) for batch in epoch]
    loader, seen = new_loader(1), []
    state = loader.state_dict()
    while len(seen) < stop:
        for batch in loader:
            seen.append(batch)
            state = json.loads(json.dumps(loader.state_dict()))
            if len(seen) == stop:
                break
    resumed = new_loader(99)
    resumed.load_state_dict(state)
    while len(seen) < len(whole):
        seen.extend(resumed)
    assert_same_batches(seen, whole)


def test_an_iteration_left_early_is_not_continued():
    loader = data.DataLoader(np.arange(20), batch_size=6, seed=0)
    next(iter(loader))
    assert len(list(loader)) == 4
    assert loader.epoch == 2 and loader.position == 0


def test_a_state_of_another_loader():
    state = data.DataLoader(np.arange(20), batch_size=6).state_dict()
    message = "DataLoader: the state is of a loader with samples 20; this one has 21"
    with raises(ValueError, message):
        data.DataLoader(np.arange(21), batch_size=6).load_state_dict(state)
    message = "DataLoader: the state is of a loader with batch_size 6; this one has 5"
    with raises(ValueError, message):
        data.DataLoader(np.arange(20), batch_size=5).load_state_dict(state)


def test_transform_changes_the_first_array_only():
    x, y = np.zeros((10, 1, 2, 2)), np.arange(10)
    loader = data.DataLoader(x, y, shuffle=False, seed=0, transform=lambda x, rng: x + 1)
    (batch_x, batch_y), *_ = loader
    assert batch_x.min() == 1 and x.max() == 0
    np.testing.assert_array_equal(batch_y, y)


def test_transform_and_order_draw_different_numbers():
    x, drawn = np.arange(50), []

    def spy(batch, rng):
        drawn.append(rng.permutation(50))
        return batch

    order = np.concatenate(list(data.DataLoader(x, batch_size=10, seed=0, transform=spy)))
    assert len({permutation.tobytes() for permutation in [order, *drawn]}) == 6


def test_batches_in_order_are_views():
    x = np.arange(10)
    assert all(np.shares_memory(batch, x) for batch in data.DataLoader(x, shuffle=False, seed=0))


@pytest.mark.parametrize(
    "arrays, options, message",
    [
        ((), {}, r"DataLoader: give one or more arrays \(N, ...\); got shapes \[\]"),
        ((3,), {}, r"DataLoader: give one or more arrays \(N, ...\); got shapes \[\(\)\]"),
        (
            ([1, 2], [1, 2, 3]),
            {},
            r"DataLoader: arrays must be equally long; got shapes \[\(2,\), \(3,\)\]",
        ),
        (([],), {}, r"DataLoader: arrays must not be empty; got shapes \[\(0,\)\]"),
        (([1],), {"batch_size": 0}, "DataLoader: batch_size must be at least 1; got 0"),
        (
            ([1, 2],),
            {"batch_size": 3, "drop_last": True},
            "DataLoader: drop_last leaves no batch: 2 samples, batch_size 3",
        ),
    ],
)
def test_loader_errors(arrays, options, message):
    with raises(ValueError, message):
        data.DataLoader(*arrays, **options)


# split, one_hot, standardize


@settings(deadline=None)
@given(
    counts=st.lists(st.integers(2, 30), min_size=1, max_size=6),
    fraction=st.floats(0.1, 0.9),
    stratify=st.booleans(),
)
def test_split(counts, fraction, stratify):
    y = np.repeat(np.arange(len(counts)), counts)
    x = np.arange(len(y))
    n_test = round(fraction * len(y))
    if not 0 < n_test < len(y):
        return
    (x_train, y_train), (x_test, y_test) = data.split(x, y, fraction, seed=0, stratify=stratify)
    assert len(x_test) == len(y_test) == n_test
    np.testing.assert_array_equal(np.sort(np.concatenate([x_train, x_test])), x)
    np.testing.assert_array_equal(y[x_train], y_train)
    np.testing.assert_array_equal(y[x_test], y_test)
    if stratify:
        ideal = np.array(counts) * n_test / len(y)
        assert np.all(np.abs(np.bincount(y_test, minlength=len(counts)) - ideal) < 1)


def test_split_is_shuffled_and_repeatable():
    x = np.arange(100)
    (a, _), (b, _) = data.split(x, x, 0.3, seed=1)
    (c, _), (d, _) = data.split(x, x, 0.3, seed=1)
    assert_same_batches([a, b], [c, d])
    (c, _), (d, _) = data.split(x, x, 0.3, seed=2)
    assert not np.array_equal(b, d)
    assert not np.array_equal(a, np.sort(a)) and not np.array_equal(b, np.sort(b))


def test_split_errors():
    x = np.arange(10)
    with raises(ValueError, r"split: x and y must be equally long; got \(10,\) and \(9,\)"):
        data.split(x, x[1:])
    for fraction in (0, 0.01, 1, 1.5, -1):
        message = f"split: both parts need a sample; got fraction {fraction} of 10 samples"
        with raises(ValueError, message):
            data.split(x, x, fraction, seed=0)
    message = "split: stratify needs two samples of each class; class 7 has 1"
    with raises(ValueError, message):
        data.split(x, [5] * 9 + [7], seed=0, stratify=True)
    with raises(TypeError, r"split: stratify needs integer labels \(N,\); got float64 \(10,\)"):
        data.split(x, x / 2, seed=0, stratify=True)
    with raises(TypeError, "split: seed must be an int, a NumPy generator or None; got float"):
        data.split(x, x, seed=0.5)


def test_one_hot():
    rows = data.one_hot([2, 0])
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, [[0, 0, 1], [1, 0, 0]])
    assert data.one_hot(np.array(1), 4).tolist() == [0, 1, 0, 0]
    assert data.one_hot(np.zeros((2, 3), int), 5, dtype="float64").shape == (2, 3, 5)
    assert data.one_hot(np.zeros(0, int), 5).shape == (0, 5)
    with raises(ValueError, "one_hot: labels must be 0 to 2; got 0 to 3"):
        data.one_hot([0, 3], 3)
    with raises(ValueError, "one_hot: labels must be 0 to 1; got -1 to 1"):
        data.one_hot([1, -1])
    with raises(ValueError, "one_hot: empty labels need num_classes"):
        data.one_hot(np.zeros(0, int))
    with raises(TypeError, "one_hot: labels must be integers; got float64"):
        data.one_hot([0.0, 1.0])


def test_standardize():
    rng = np.random.default_rng(0)
    x = rng.normal(5, 3, (200, 4)).astype(np.float32)
    x[:, 2] = 0.1  # constant, and not exact in binary
    x_test = rng.normal(5, 3, (50, 4)).astype(np.float32)
    train, test = data.standardize(x, x_test)
    assert train.dtype == test.dtype == np.float32
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(train.std(0), [1, 1, 0, 1], atol=1e-6)
    assert np.all(train[:, 2] == 0)
    mean, std = x.mean(0, dtype=float), x.std(0, dtype=float)
    np.testing.assert_allclose(test[:, 3], (x_test[:, 3] - mean[3]) / std[3], rtol=1e-5)
    np.testing.assert_allclose(test[:, 2], x_test[:, 2] - np.float32(0.1), rtol=1e-6)


def test_standardize_makes_a_constant_exactly_0():
    constant = np.full((1001, 1), 0.1)
    assert constant.mean() != 0.1  # rounding, which must not show
    assert np.all(data.standardize(constant) == 0)


def test_standardize_kinds_and_axes():
    assert data.standardize(np.array([[1], [2]])).dtype == np.float32
    assert data.standardize(np.array([[1.0], [2.0]])).dtype == np.float64
    images = np.random.default_rng(0).random((10, 3, 4, 4))
    np.testing.assert_allclose(data.standardize(images, axis=(0, 2, 3)).std((0, 2, 3)), 1)
    message = r"standardize: x_train must not be empty; got shape \(0, 3\)"
    with raises(ValueError, message):
        data.standardize(np.zeros((0, 3)))
    message = r"standardize: samples must have equal shapes; got \[\(5, 3\), \(5, 4\)\]"
    with raises(ValueError, message):
        data.standardize(np.zeros((5, 3)), np.zeros((5, 4)))


# augment

TRANSFORMS = {
    "crop": augment.RandomCrop(2),
    "flip": augment.RandomHorizontalFlip(),
    "affine": augment.RandomAffine(degrees=10, shift=2, scale=(0.9, 1.1)),
    "erase": augment.RandomErasing(),
    "compose": augment.Compose(augment.RandomCrop(2), augment.RandomHorizontalFlip()),
}
IDENTITIES = {
    "crop": augment.RandomCrop(0),
    "flip": augment.RandomHorizontalFlip(p=0),
    "affine": augment.RandomAffine(),
    "erase": augment.RandomErasing(p=0),
    "compose": augment.Compose(),
}


def blobs(n=64, channels=1, size=28, dtype="float32"):
    """Return images with a bright blob in the middle, so that no transform pushes it out."""
    place = np.arange(size) - (size - 1) / 2
    blob = np.exp(-(place[:, None] ** 2 + place**2) / (size / 3) ** 2 * 8)
    strength = np.random.default_rng(0).uniform(0.5, 1, (n, channels, 1, 1))
    return (strength * blob).astype(dtype)


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("shape", [(8, 1, 28, 28), (5, 3, 9, 14), (1, 2, 1, 1)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_transforms_keep_shape_dtype_and_input(name, shape, dtype):
    x = np.random.default_rng(0).random(shape).astype(dtype)
    before = x.copy()
    first = TRANSFORMS[name](x, np.random.default_rng(1))
    assert first.shape == shape and first.dtype == dtype
    assert not np.shares_memory(first, x)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(first, TRANSFORMS[name](x, np.random.default_rng(1)))
    if shape[-1] > 1:
        assert not np.array_equal(first, TRANSFORMS[name](x, np.random.default_rng(2)))


@pytest.mark.parametrize("name", IDENTITIES)
def test_identities(name):
    x = np.random.default_rng(0).random((6, 3, 11, 8), dtype=np.float32)
    np.testing.assert_array_equal(IDENTITIES[name](x, np.random.default_rng(1)), x)


@pytest.mark.parametrize("name", ["crop", "flip", "affine", "compose"])
def test_transforms_roughly_keep_the_mean(name):
    x = blobs()
    changed = TRANSFORMS[name](x, np.random.default_rng(1))
    assert changed.mean() == pytest.approx(x.mean(), rel=0.03)
    assert changed.min() >= 0 and changed.max() <= 1


@pytest.mark.parametrize("name", ["crop", "flip", "erase"])
def test_bytes_stay_bytes(name):
    x = np.random.default_rng(0).integers(0, 256, (8, 3, 6, 6), np.uint8)
    assert TRANSFORMS[name](x, np.random.default_rng(1)).dtype == np.uint8


def test_flip_twice_is_the_identity():
    x = np.random.default_rng(0).random((6, 3, 11, 8))
    flip = augment.RandomHorizontalFlip(p=1)
    np.testing.assert_array_equal(flip(x, np.random.default_rng(0)), x[..., ::-1])
    np.testing.assert_array_equal(
        flip(flip(x, np.random.default_rng(0)), np.random.default_rng(0)), x
    )


def test_crop_shifts_by_whole_pixels():
    x = np.zeros((500, 2, 7, 7))
    x[:, :, 3, 3] = 1
    n, c, row, column = np.nonzero(augment.RandomCrop(2)(x, np.random.default_rng(0)))
    assert len(n) == 1000  # nothing lost, nothing doubled
    assert set(row - 3) == set(column - 3) == {-2, -1, 0, 1, 2}
    assert len({(r, c) for r, c in zip(row, column, strict=True)}) == 25
    np.testing.assert_array_equal(row[c == 0], row[c == 1])  # channels move together


def affine_loops(x, degrees, scale, dy, dx):
    """Warp one (H, W) image by the definition, pixel by pixel."""
    h, w = x.shape
    out = np.zeros_like(x)
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    for i in range(h):
        for j in range(w):
            v, u = i - (h - 1) / 2 - dy, j - (w - 1) / 2 - dx
            y = (cos * v + sin * u) / scale + (h - 1) / 2
            z = (cos * u - sin * v) / scale + (w - 1) / 2
            for a in (int(np.floor(y)), int(np.floor(y)) + 1):
                for b in (int(np.floor(z)), int(np.floor(z)) + 1):
                    if 0 <= a < h and 0 <= b < w:
                        out[i, j] += x[a, b] * (1 - abs(y - a)) * (1 - abs(z - b))
    return out


def test_affine_equals_the_definition():
    rng = np.random.default_rng(0)
    x = rng.random((6, 2, 9, 12))
    degrees, scale = rng.uniform(-180, 180, 6), rng.uniform(0.3, 2, 6)
    dy, dx = rng.uniform(-15, 15, (2, 6))
    degrees[-1], dy[-1], dx[-1] = 0, -100, -100  # looks past the last pixel of the last image
    expected = np.array(
        [
            [affine_loops(plane, *how) for plane in image]
            for image, *how in zip(x, degrees, scale, dy, dx, strict=True)
        ]
    )
    np.testing.assert_allclose(augment.affine(x, degrees, scale, dy, dx), expected, atol=1e-12)
    single = augment.affine(x.astype(np.float32), degrees, scale, dy, dx)
    np.testing.assert_allclose(single, expected, atol=1e-4)


def test_affine_turns_counter_clockwise_and_shifts_down_and_right():
    x = np.random.default_rng(0).random((1, 1, 6, 6))
    one, zero = np.ones(1), np.zeros(1)
    turned = augment.affine(x, 90 * one, one, zero, zero)
    np.testing.assert_allclose(turned, np.rot90(x, axes=(2, 3)), atol=1e-12)
    shifted = augment.affine(x, zero, one, 2 * one, one)
    np.testing.assert_allclose(shifted[:, :, 2:, 1:], x[:, :, :-2, :-1])
    assert np.all(shifted[:, :, :2] == 0) and np.all(shifted[:, :, :, 0] == 0)


def test_erasing():
    x = np.ones((2000, 2, 20, 20))
    erased = augment.RandomErasing(p=0.5, area=(0.1, 0.3))(x, np.random.default_rng(0)) == 0
    hit = erased.any((1, 2, 3))
    assert hit.mean() == pytest.approx(0.5, abs=0.05)
    assert erased[hit].mean() == pytest.approx(0.2, abs=0.02)
    np.testing.assert_array_equal(erased[:, 0], erased[:, 1])
    rows, columns = erased[hit, 0].any(2).sum(1), erased[hit, 0].any(1).sum(1)
    np.testing.assert_array_equal(rows * columns, erased[hit, 0].sum((1, 2)))  # full rectangles
    everything = augment.RandomErasing(p=1, area=(1, 1), ratio=(1, 1), value=0.25)
    assert np.all(everything(x, np.random.default_rng(0)) == 0.25)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: augment.RandomCrop(-1), "RandomCrop: padding must be 0 or more; got -1"),
        (lambda: augment.RandomHorizontalFlip(2), "RandomHorizontalFlip: p must be 0 to 1; got 2"),
        (
            lambda: augment.RandomAffine(degrees=-1),
            "RandomAffine: degrees and shift must be 0 or more; got -1 and 0",
        ),
        (
            lambda: augment.RandomAffine(scale=(0, 1)),
            r"RandomAffine: scale must be 0 < low <= high; got \(0, 1\)",
        ),
        (lambda: augment.RandomErasing(-1), "RandomErasing: p must be 0 to 1; got -1"),
        (
            lambda: augment.RandomErasing(area=(0.5, 2)),
            r"RandomErasing: area must be 0 <= low <= high <= 1; got \(0.5, 2\)",
        ),
        (
            lambda: augment.RandomErasing(ratio=(0, 1)),
            r"RandomErasing: ratio must be 0 < low <= high; got \(0, 1\)",
        ),
    ],
)
def test_augment_options(make, message):
    with raises(ValueError, message):
        make()


@pytest.mark.parametrize("name", ["crop", "flip", "affine", "erase"])
def test_augment_wants_image_batches(name):
    caller = type(TRANSFORMS[name]).__name__
    message = rf"{caller}: images must be \(N, C, H, W\); got \(28, 28\)"
    with raises(ValueError, message):
        TRANSFORMS[name](np.zeros((28, 28)), np.random.default_rng(0))


def test_affine_wants_floats():
    with raises(TypeError, "affine: images must be float32 or float64; got uint8"):
        TRANSFORMS["affine"](np.zeros((1, 1, 5, 5), np.uint8), np.random.default_rng(0))


# Imports


def test_import_is_light():
    """Compression, archives and downloads are imported on use."""
    code = (
        "import sys, numpy; before = set(sys.modules); import tinygrad_zen.data; "
        "heavy = {'pooch', 'requests', 'tarfile', 'lzma', 'concurrent.futures', 'tqdm'}; "
        "print(sorted(heavy & (set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
