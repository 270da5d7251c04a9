"""Files that are refused: state dicts, models, checkpoints, in words and before anything large is made."""

import hashlib
import json
import re
import tracemalloc

import numpy as np
import pytest

import tinygrad_zen as tz
from tinygrad_zen import io, nn

MIB = 1 << 20


def refuses(words):
    """io.FileError with these words, in which * stands for anything."""
    pattern = ".*".join(map(re.escape, words.split("*")))
    return pytest.raises(io.FileError, match=rf"(?s)\A{pattern}\Z")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a"


def write(path, header, numbers=b""):
    """A safetensors file by hand; header: a dict, or the text itself."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + numbers)


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def change(path, old, new):
    """Other bytes in a file, as many."""
    content = path.read_bytes()
    assert content.count(old) == 1 and len(old) == len(new)
    path.write_bytes(content.replace(old, new))


# safetensors files: the header

DAMAGED = "the safetensors file is cut short or damaged: "


@pytest.mark.parametrize(
    "header, words",
    [
        ({"w": {"dtype": "F32"}}, DAMAGED + "'w' must have dtype, shape, data_offsets"),
        ({"w": [1]}, DAMAGED + "'w' must have dtype, shape, data_offsets"),
        ({"w": entry("F3")}, "'w' holds numbers of kind F3, which NumPy lacks"),
        ({"w": entry(["F32"])}, "'w' holds numbers of kind ['F32'], which NumPy lacks"),
        ({"w": entry(shape=[-2])}, DAMAGED + "'w' has the shape [-2]"),
        ({"w": entry(shape=[2.0])}, DAMAGED + "'w' has the shape [2.0]"),
        ({"w": entry(shape=[True, 2])}, DAMAGED + "'w' has the shape [True, 2]"),
        ({"w": entry(shape=[1] * 33)}, DAMAGED + "'w' has the shape [1, 1, *"),
        ({"w": entry(shape=[2**64])}, DAMAGED + "'w' has the shape [18446744073709551616]"),
        (
            {"w": entry(shape=[0, 2**62], offsets=[0, 0])},
            DAMAGED + "'w' has the shape [0, 4611686018427387904]",
        ),
        (
            {"w": entry(shape=[2**40, 2**20])},
            DAMAGED
            + "'w' of shape (1099511627776, 1048576) takes 4,611,686,018,427,387,904 bytes; "
            "got 8",
        ),
        ({"w": entry(offsets=[0, 8, 8])}, DAMAGED + "'w' has the offsets [0, 8, 8]"),
        ({"w": entry(offsets=[8, 0])}, DAMAGED + "'w' of shape (2,) takes 8 bytes; got -8"),
        ({"w": entry(offsets=[4, 12])}, DAMAGED + "'w' must begin at byte 0 of the numbers; got 4"),
        (
            {"v": entry(), "w": entry(offsets=[4, 12])},
            DAMAGED + "'w' must begin at byte 8 of the numbers; got 4",
        ),
        ({"w": entry(shape=[1], offsets=[0, 4])}, DAMAGED + "the arrays take 4 bytes; there are 8"),
        ({"__metadata__": {"a": 1}}, DAMAGED + "its metadata must be text"),
        ({"__metadata__": ["a"]}, DAMAGED + "its metadata must be text"),
        (b'{"w": }', DAMAGED + "damaged JSON text: Expecting value: *"),
        (b'{"w": 1, "w": 2}', DAMAGED + "damaged JSON text: 'w' stands there twice"),
        (b'{"w\xff": 1}', DAMAGED + "the text is not UTF-8: byte 3 is 0xff"),
        (b'{"w": ' + b"[" * 99_999, DAMAGED + "damaged JSON text: *"),
        (b'{"\\ud800": ' + json.dumps(entry()).encode() + b"}", "names and metadata must be *"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(value)[:40],
)
def test_headers(path, header, words):
    write(path, header, bytes(8))
    with refuses(f"{path}: {words}"):
        io.load_state(path)


def test_lengths(path):
    write(path, {"w": entry()}, bytes(8))
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    for wrong in (length + 100, 99_999_999):
        path.write_bytes(wrong.to_bytes(8, "little") + whole[8:])
        words = f"its header should take {wrong:,} bytes, the file has {len(whole)}"
        with refuses(f"{path}: {DAMAGED}{words}"):
            io.load_state(path)
    path.write_bytes((2**63).to_bytes(8, "little") + whole[8:])
    with refuses(f"{path}: not a safetensors file"):
        io.load_state(path)


def test_booleans_are_0_and_1(path):
    write(path, {"w": entry("BOOL", offsets=(0, 2))}, b"\1\2")
    with refuses(f"{path}: 'w' must hold 0 and 1 alone; got 2"):
        io.load_state(path)


def test_brain_floats_longer_than_a_piece(path):
    halves = np.arange(600_000, dtype=np.uint16)
    write(path, {"w": entry("BF16", [600_000], [0, 1_200_000])}, halves.tobytes())
    (array,) = io.load_state(path)[0].values()
    np.testing.assert_array_equal(array.view(np.uint32), halves.astype(np.uint32) << 16)


# checksum and version


def test_every_byte_is_checked(path):
    """But for the order of names and spaces in the header, which change nothing."""
    arrays = {"w": np.arange(3.0), "n": np.arange(4)}
    io.save_state(path, arrays, {"note": "x"})
    whole = path.read_bytes()
    for i in range(len(whole)):
        content = bytearray(whole)
        content[i] ^= 1 << i % 8
        path.write_bytes(content)
        with pytest.raises(io.FileError):
            io.load_state(path)


def test_a_wrong_checksum(path):
    io.save_state(path, {"w": np.frombuffer(b"numbers.", "<f8")})
    change(path, b"numbers.", b"numbers!")
    with refuses(f"{path}: the file is damaged: its SHA-256 must be *; got *"):
        io.load_state(path)


def test_the_checksum_is_of_what_the_page_says(path):
    io.save_state(path, {"b": np.arange(2, dtype=np.int16), "a": np.ones((1, 2))}, {"k": "é"})
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    about = '[{"k":"é","tinygrad_zen.format":"1"},[["a","F64",[1,2]],["b","I16",[2]]]]'
    numbers = np.ones(2).tobytes() + np.arange(2, dtype=np.int16).tobytes()
    expected = hashlib.sha256(about.encode() + numbers).hexdigest()
    assert header["__metadata__"]["tinygrad_zen.sha256"] == expected


def test_another_program_may_order_the_file_anew(path):
    """The checksum is of the content: order and place of the arrays and spaces do not count."""
    half, w = np.ones(5, np.float16), np.arange(3.0)
    io.save_state(path, {"w": w, "half": half}, {"note": "x"})
    content = path.read_bytes()
    metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    header = {"half": entry("F16", [5], [0, 10]), "w": entry("F64", [3], [10, 34])}
    header["__metadata__"] = metadata
    write(path, json.dumps(header, indent=3).encode(), half.tobytes() + w.tobytes())
    arrays, metadata = io.load_state(path)
    assert metadata == {"note": "x"} and arrays["w"].tolist() == [0, 1, 2]
    write(path, header, half.tobytes() + (w + 1).tobytes())
    with refuses(f"{path}: the file is damaged: its SHA-256 *"):
        io.load_state(path)


def test_the_library_of_the_format_writes_the_same_file(path):
    from safetensors.numpy import save

    arrays = {"w": np.arange(3.0), "a": np.ones((2, 5), np.float16), "0": np.array(True)}
    io.save_state(path, arrays)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    ours = json.loads(content[8 : 8 + length])
    theirs = save(arrays, ours["__metadata__"])
    assert len(theirs) == len(content) and theirs[8 + length :] == content[8 + length :]
    assert json.loads(theirs[8 : 8 + length]) == ours


def test_versions(path, monkeypatch):
    monkeypatch.setattr(io.states, "FORMAT", 12)
    io.save_state(path, {})
    monkeypatch.undo()
    words = "the file has format 12, this version reads up to 1; update tinygrad_zen"
    with refuses(f"{path}: {words}"):
        io.load_state(path)
    change(path, b'"12"', b'"-1"')
    with refuses(f"{path}: the file is damaged: its format is '-1'"):
        io.load_state(path)
    for key in ("tinygrad_zen.format", "tinygrad_zen.sha256"):
        io.save_state(path, {})
        change(path, key.encode(), key[:-1].encode() + b"x")
        words = f"the file is damaged, or an early version wrote it: its metadata lack {key}"
        with refuses(f"{path}: {words}"):
            io.load_state(path)


def test_what_is_not_written(path):
    with pytest.raises(TypeError, match=r"a: metadata must be text; got 'n': 3\Z"):
        io.save_state(path, {}, {"n": 3})
    for name in ("__metadata__", 3):
        with pytest.raises(TypeError, match=rf"a: an array cannot have the name {name!r}\Z"):
            io.save_state(path, {name: np.ones(2)})
    message = r"a: names and metadata of [\d,]+ bytes are too much for arrays of 0\Z"
    with pytest.raises(ValueError, match=message):
        io.save_state(path, {}, {"long": "[1, " * 200_000})
    assert not path.exists()


# memory


def memory_of(read, *errors):
    """Bytes that a call takes at most."""
    tracemalloc.start()
    try:
        read()
    except errors:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


@pytest.mark.parametrize(
    "text",
    [b"[],", b"{},", b"[[]],", b'{"":0},', b"1000,", b'"ab",', b"0.1,", b'[{"a":[]}],'],
    ids=bytes.decode,
)
def test_json_texts_cannot_fill_the_memory(text):
    """The largest text of its kind that is read takes no more than allowed; a larger one is refused."""
    room = 4 * MIB

    def texts(count):
        return b"[" + text * count + b"0]"

    count = 1
    while io.files.json_cost(texts(count + count // 8 + 1)) <= room:
        count += count // 8 + 1
    assert memory_of(lambda: io.parse_json("here", texts(count), room)) < room
    with refuses("here: the JSON text could take * MiB of memory; allowed are 4"):
        io.parse_json("here", texts(2 * count), room)


def test_json_objects_with_many_names():
    text = "{" + ",".join(f'"{i}":{i}' for i in range(9_000)) + "}"
    assert memory_of(lambda: io.parse_json("here", text)) < io.files.json_cost(text)


@pytest.mark.parametrize("dtype", ["F32", "BF16", "BOOL"])
def test_reading_takes_the_size_of_the_arrays(path, dtype):
    size = {"F32": 4, "BF16": 2, "BOOL": 1}[dtype]
    count = 8 * MIB // size
    write(path, {"w": entry(dtype, [count], [0, 8 * MIB])}, bytes(8 * MIB))
    arrays = 4 * count if dtype == "BF16" else 8 * MIB
    assert memory_of(lambda: io.load_state(path)) < arrays + 4 * MIB


def test_arrays_that_are_not_there_take_no_memory(path):
    write(path, {"w": entry(shape=[2**28], offsets=[0, 2**30])}, bytes(8))
    assert memory_of(lambda: io.load_state(path), io.FileError) < MIB


def model_file(path, network, arrays=None, settings=None):
    about = {"network": network, "compile": settings}
    io.save_state(path, arrays or {}, {tz.train.model.KEY: json.dumps(about)})


def layer(kind, **arguments):
    return {"layer": kind, "arguments": arguments}


@pytest.mark.parametrize(
    "network, words",
    [
        (layer("Linear", in_features=10**9, out_features=10**9), "(1000000000, 1000000000)"),
        (layer("BatchNorm1d", num_features=10**12, affine=False), "(1000000000000,)"),
        (layer("PositionalEncoding", num_positions=10**9, embedding_dim=64), "(1000000000, 64)"),
        (layer("LSTM", input_size=1, hidden_size=1, num_layers=10**9), "(4, 1)"),
        (
            layer(
                "TransformerEncoder",
                layer=layer("TransformerEncoderLayer", d_model=2, nhead=1, dim_feedforward=2),
                num_layers=10**9,
            ),
            "(*)",
        ),
    ],
    ids=lambda value: value["layer"] if isinstance(value, dict) else "",
)
def test_networks_larger_than_their_weights_are_not_begun(path, network, words):
    model_file(path, network, {f"w{i}": np.ones((6, 6), np.float32) for i in range(20)})
    told = "the description of the network is damaged or newer than this version: an array of shape"
    with refuses(f"{path}: {told} {words} is more than there are weights for"):
        tz.load(path)
    assert memory_of(lambda: tz.load(path), io.FileError) < 4 * MIB


def test_a_metric_of_many_classes_takes_no_memory_yet(path):
    model = tz.Model(nn.Linear(2, 2))
    model.compile("sgd", "cross_entropy", metrics=[tz.train.ConfusionMatrix(10**6)])
    model.save(path)
    assert memory_of(lambda: tz.load(path)) < 4 * MIB


# models and checkpoints that lie


@pytest.mark.parametrize(
    "network",
    [
        [3],
        "Linear",
        layer("Linear", in_features=[3]),
        layer("Linear", in_features={"list": [1], "tuple": [1]}),
        layer("Linear", in_features={"set": [1]}),
        layer("Linear", in_features={"function": "system"}),
        layer("Linear", in_features=-1, out_features=2),
        {"layer": "Sequential", "arguments": {}, "layers": [1]},
    ],
    ids=str,
)
def test_descriptions(path, network):
    model_file(path, network)
    with refuses(f"{path}: the description of the network is damaged or newer than *"):
        tz.load(path)


def test_metadata_of_a_model(path):
    for text, words in [
        ("[1]", "the model's metadata are damaged: [1]"),
        ("{", "the model's metadata: damaged JSON text: *"),
    ]:
        io.save_state(path, {}, {tz.train.model.KEY: text})
        with refuses(f"{path}: {words}"):
            tz.load(path)
    model_file(
        path, layer("Linear", in_features=2, out_features=2), nn.Linear(2, 2).state_dict(), 3
    )
    with refuses(
        f"{path}: the optimizer, loss or metrics are damaged or newer than this version: *"
    ):
        tz.load(path)


@pytest.mark.parametrize(
    "tree, words",
    [
        ("[]", "the checkpoint is damaged: AttributeError: *"),
        ('{"net": {"array": "no"}}', "the checkpoint is damaged: KeyError: 'no'"),
        ('{"net": {"set": []}}', "the checkpoint is damaged: KeyError: 'set'"),
        ('{"net": {"dict": [[[], 1]]}}', "the checkpoint is damaged: TypeError: unhashable *"),
        ('{"net": {}}', "the checkpoint is damaged: not enough values to unpack *"),
        ('{"net": {"list": [{"ints": "x"}, {"ints": "x"}]}}', "the checkpoint is damaged: *'x'"),
        ('{"net": ', "the checkpoint's metadata: damaged JSON text: *"),
        ('{"net": 3}', "the state of net does not fit: *"),
    ],
)
def test_checkpoints(path, tree, words):
    io.save_state(path, {"x": np.arange(3)}, {io.checkpoint.KEY: tree})
    with refuses(f"{path}: {words}"):
        io.load_checkpoint(path, net=nn.Linear(2, 2))


def test_long_lists_of_numbers_lie_among_the_arrays(path):
    class Part:
        state = {
            "floats": [0.1 * i for i in range(40)],
            "nan": [float("nan")] * 20,
            "ints": list(range(40)),
            "large": [2**70] * 20,
            "mixed": [1, 2.0] * 20,
            "a.b": np.ones(2),
            "a": {"b": np.zeros(3)},
        }

        def state_dict(self):
            return self.state

        def load_state_dict(self, state):
            self.loaded = state

    part = Part()
    io.save_checkpoint(path, part=part)
    assert {"part.floats", "part.ints", "part.nan"} <= set(io.load_state(path)[0])
    io.load_checkpoint(path, part=part)
    np.testing.assert_equal(part.loaded, Part.state)
    assert [type(x) for x in part.loaded["ints"]] == [int] * 40
    assert io.read_checkpoint(path)["part"]["floats"] == Part.state["floats"]


# writing


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").write_bytes(b"before")
    (tmp_path / "link").symlink_to("real")
    io.write_whole(tmp_path / "link", b"af", b"ter")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_bytes() == b"after"
