"""Files of data that are refused: packed ones, vocabularies and records, each in its own words."""

import gzip
import io as io_module
import json
import lzma
import tarfile

import numpy as np
import pytest
from test_files import MIB, memory_of, refuses

from tinygrad_zen import data, io
from tinygrad_zen.data import files as data_files
from tinygrad_zen.train.history import History


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a"


# datasets


def test_xz_that_asks_for_much_memory(tmp_path):
    path = tmp_path / "a.xz"
    for preset in (8, 9):
        path.write_bytes(lzma.compress(b"abc", preset=preset))
        if preset == 8:
            assert data_files.read_at_most(path, 4) == b"abc"
            assert memory_of(lambda: data_files.read_at_most(path, 4)) < 40 * MIB
        else:
            with refuses(f"{path}: damaged .xz file: Memory usage limit exceeded"):
                data_files.read_at_most(path, 4)


def test_xz_that_does_not_end_where_it_says(tmp_path):
    path, whole = tmp_path / "a.xz", lzma.compress(b"abc")
    for content, words in (
        (whole + b"x", "something follows its end mark"),
        (whole[:-1], "it ends before its end mark"),
    ):
        path.write_bytes(content)
        with refuses(f"{path}: damaged .xz file: {words}"):
            data_files.read_at_most(path, 4)


@pytest.mark.parametrize("suffix, pack", [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_bombs(tmp_path, suffix, pack):
    path = tmp_path / f"images{suffix}"
    path.write_bytes(pack(bytes(80 * MIB)))
    assert memory_of(lambda: data_files.read_idx(path, (10, 4, 4)), io.FileError) < 12 * MIB
    if suffix == ".gz":
        words = "at most 1,054,722 bytes are unpacked; there are more"
        with refuses(f"{path}: {words}"):
            data_files.read_cifar_archive(path, ("one.bin", "two.bin"), count=1)


def test_an_archive_that_ends_within_a_file_that_nobody_asked_for(tmp_path):
    path, content = tmp_path / "cifar.tar.gz", io_module.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, size in (("one.bin", data_files.CIFAR_RECORD), ("more.txt", 5000)):
            member = tarfile.TarInfo(name)
            member.size = size
            archive.addfile(member, io_module.BytesIO(bytes(size)))
    whole = content.getvalue()
    path.write_bytes(gzip.compress(whole))
    assert data_files.read_cifar_archive(path, ("one.bin",), count=1).shape == (1, 3073)
    path.write_bytes(gzip.compress(whole[: 3 * 512 + 3072 + 4000]))
    with refuses(f"{path}: damaged .tar.gz file: it ends within a file"):
        data_files.read_cifar_archive(path, ("one.bin",), count=1)


def test_embedded_tables_are_checked(tmp_path):
    path = tmp_path / "t.npz"
    path.write_bytes(b"x")
    with refuses(f"{path}: not the official file: SHA-256 of its content must be 00; got *"):
        data_files.read_table(path, "00")
    path.write_bytes(bytes(MIB + 1))
    with refuses(f"{path}: at most 1,048,576 bytes are read; the file has 1,048,577"):
        data_files.read_table(path, "00")


# vocabularies and records


def test_vocabularies(path):
    path.write_bytes(b"[PAD]\n\xff")
    with refuses(f"{path}: the text is not UTF-8: byte 6 is 0xff"):
        data.WordPiece.from_file(path)
    path.write_bytes(b"a\n" * 250_001)
    with refuses(f"{path}: a vocabulary has at most 250,000 pieces; got more"):
        data.WordPiece.from_file(path)
    path.write_bytes(b"a" * (4 * MIB + 1))
    with refuses(f"{path}: at most 4,194,304 bytes are read; the file has 4,194,305"):
        data.WordPiece.from_file(path)
    with refuses(f"{path.parent}: a file is needed; this is a folder or a device"):
        data.WordPiece.from_file(path.parent)
    with pytest.raises(FileNotFoundError, match=r"no: no such file\Z"):
        data.WordPiece.from_file(path.with_name("no"))


def test_a_vocabulary_of_all_that_is_allowed_takes_64_mib(path):
    pieces = (f"\U0001f600{i:x}" for i in range(249_990))
    path.write_text("\n".join([*data.wordpiece.SPECIAL, *pieces]))
    assert path.stat().st_size < 4 * MIB
    assert memory_of(lambda: data.WordPiece.from_file(path)) < path.stat().st_size + 64 * MIB


def test_characters(path):
    chars = data.Characters("to be,\né\U0001f600")
    chars.save(path)
    assert data.Characters.from_file(path).symbols == chars.symbols
    for text in ("", "ba", "aab"):
        path.write_text(text)
        with refuses(f"{path}: characters must stand there once each, in Unicode's order"):
            data.Characters.from_file(path)


TOKENIZER = json.loads(data.Tokenizer().to_json())


@pytest.mark.parametrize(
    "change, words",
    [
        ({"lower": 1}, "damaged: lower is 1"),
        ({"num_words": "3"}, "damaged: num_words is '3'"),
        ({"num_words": 0}, "Tokenizer: num_words must be at least 1; got 0"),
        ({"word_counts": []}, "damaged: word_counts is []"),
        ({"word_counts": {"a": "b"}}, "damaged: the count of 'a' is 'b'"),
        ({"word_counts": {"a": 0}}, "damaged: the count of 'a' is 0"),
        ({"more": 1}, "a Tokenizer needs num_words, *"),
    ],
    ids=str,
)
def test_tokenizers(path, change, words):
    text = json.dumps(TOKENIZER | change)
    with refuses(f"Tokenizer.from_json: {words}"):
        data.Tokenizer.from_json(text)
    path.write_text(text)
    with refuses(f"{path}: {words}"):
        data.Tokenizer.from_file(path)


def test_tokenizers_come_back(path):
    tokenizer = data.Tokenizer(oov_token="?")
    tokenizer.fit_on_texts(["a b a", "Ü"])
    tokenizer.save(path)
    assert vars(data.Tokenizer.from_file(path)) == vars(tokenizer)


def history():
    made = History()
    for epoch in range(3):
        made.append(epoch, {"loss": 1 / (1 + epoch), "n": epoch, "matrix": np.eye(2) * epoch})
    return made


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_histories_come_back(tmp_path, suffix):
    path = tmp_path / f"h{suffix}"
    history().save(path)
    back = History.load(path)
    expected = dict(history().history)
    if suffix == ".csv":
        del expected["matrix"]
    assert back.epoch == [0, 1, 2] and list(back.history) == list(expected)
    np.testing.assert_equal(back.history, expected)


@pytest.mark.parametrize(
    "name, text, words",
    [
        ("h.txt", "", "a history is a .csv or .json; got '.txt'"),
        ("h.csv", "", "the first row must name the columns, epoch first, once each"),
        ("h.csv", "a,b\n", "the first row must name the columns, epoch first, once each"),
        ("h.csv", "epoch,a,a\n", "the first row must name the columns, epoch first, once each"),
        ("h.csv", "epoch,a\n1,2\n3\n", "line 3 must hold 2 numbers; got 3"),
        ("h.csv", "epoch,a\n1,2,3\n", "line 2 must hold 2 numbers; got 1,2,3"),
        ("h.csv", "epoch,a\n1.5,2\n", "line 2 must hold 2 numbers; got 1.5,2"),
        ("h.csv", "epoch,a\n1,1_0\n", "line 2 must hold 2 numbers; got 1,1_0"),
        ("h.csv", 'epoch,a\n1,"2\n', "damaged .csv file: unexpected end of data"),
        ("h.csv", "epoch,a\n" + "1,2\n" * 999_999, "a history of 4,000,004 characters is too *"),
        ("h.json", "[]", "a history has epoch and history"),
        ("h.json", '{"epoch": [1.5], "history": {}}', "epochs must be whole numbers"),
        ("h.json", '{"epoch": [], "history": []}', "a history has columns of values"),
        (
            "h.json",
            '{"epoch": [1], "history": {"a": []}}',
            "'a' must have a value for each epoch, 1",
        ),
        (
            "h.json",
            '{"epoch": [1], "history": {"a": ["x"]}}',
            "'a' must hold numbers or arrays; got 'x'",
        ),
        (
            "h.json",
            '{"epoch": [1], "history": {"a": [[[1], 2]]}}',
            "'a' must hold numbers or arrays; got [[1], 2]",
        ),
        ("h.json", '{"epoch": 1', "damaged JSON text: *"),
    ],
)
def test_histories(tmp_path, name, text, words):
    path = tmp_path / name
    path.write_text(text)
    with refuses(f"{path}: {words}"):
        History.load(path)
