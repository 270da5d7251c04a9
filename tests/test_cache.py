"""tinygrad_zen.data.cache: what takes long to unpack is unpacked once."""

import sys

import numpy as np
import pytest

from tinygrad_zen.data.cache import unpacked


@pytest.fixture
def cache(monkeypatch, tmp_path):
    pooch = pytest.importorskip("pooch")
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / name)
    return tmp_path / "tinygrad_zen"


def test_unpacked_data_come_from_the_cache_until_something_changes(cache, tmp_path):
    source, calls = tmp_path / "source.xz", []
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)

    def unpack():
        calls.append(1)
        return array

    def result():
        got = unpacked("numbers", [source], unpack)
        assert got.dtype == np.uint8
        np.testing.assert_array_equal(got, array)
        return len(calls)

    source.write_bytes(b"one")
    assert [result(), result()] == [1, 1]
    file = cache / "numbers"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert [result(), result()] == [2, 2]  # a flipped bit is seen
    file.write_bytes(content[:20])
    assert [result(), result()] == [3, 3]
    source.write_bytes(b"three")
    assert [result(), result()] == [4, 4]  # and so is another source


def test_without_a_place_for_the_cache_data_are_unpacked_anew(cache, tmp_path, monkeypatch):
    source = tmp_path / "source.xz"
    source.write_bytes(b"one")
    cache.write_bytes(b"a file where the folder should be")
    for _ in range(2):
        assert unpacked("numbers", [source], lambda: np.ones((1, 2), np.uint8)).sum() == 2
    monkeypatch.setitem(sys.modules, "pooch", None)
    assert unpacked("numbers", [source], lambda: np.ones((1, 2), np.uint8)).sum() == 2


def test_plain_sources_are_not_kept_twice(cache, tmp_path):
    source = tmp_path / "source.bin"
    source.write_bytes(b"one")
    unpacked("numbers", [source], lambda: np.ones((1, 2), np.uint8))
    assert not cache.exists()
