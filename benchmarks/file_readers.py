"""Every reader of files, each with a file that it can read and with an independent judge.

A judge reads the same bytes by the plainest means, other libraries where there are any, and knows no
limits: what a reader of ours makes of a damaged file must be what the judge makes of it.
"""

import csv
import dataclasses
import hashlib
import io
import json
import re
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import damage
import numpy as np

import tinygrad_zen as tz
from tinygrad_zen import data, nn, optim
from tinygrad_zen import io as files
from tinygrad_zen.data import datasets
from tinygrad_zen.data import files as data_files
from tinygrad_zen.data.cache import unpacked
from tinygrad_zen.train.history import History


@dataclasses.dataclass
class Reader:
    """A reader and what is needed to try it.

    name: what it reads. file: the name of the file. write(path, seed) makes a whole one. read(path) is
    ours; judge(content) the other; both give dicts, lists, arrays and numbers. edit: an edit of its
    JSON. sign: makes a checksum right again after the damage. suffix: how it is packed, if it is;
    damage then goes to the packed bytes or to the content. agree: whether two readings are the same.
    """

    name: str
    file: str
    write: Callable
    read: Callable
    judge: Callable
    edit: Callable | None = None
    sign: Callable | None = None
    suffix: str = ""
    agree: Callable = None

    def same(self, a, b):
        return (self.agree or equal)(a, b)


def equal(a, b):
    """Whether two readings have the same dicts, lists, arrays and numbers, bit for bit."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        alike = isinstance(a, np.ndarray) and isinstance(b, np.ndarray)
        return alike and (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b or (a != a and b != b)


# safetensors: the judge is the library of that name

STATE = {
    "w": np.arange(60, dtype=np.float32).reshape(4, 15) / 7,
    "b": np.array([True, False, True]),
    "n": np.int64(7),
    "half": np.linspace(-2, 2, 9, dtype=np.float16),
    "none": np.zeros((0, 3)),
    "bytes": np.arange(256, dtype=np.uint8),
}


def write_state(path, seed):
    arrays = {f"{name}{seed or ''}": array * (1 + seed) for name, array in STATE.items()}
    files.save_state(path, arrays, {"note": f"Grüße {seed}"})


def write_foreign(path, seed):
    """By the library itself, and with PyTorch's bfloat16, which NumPy lacks, in place of whole numbers."""
    import safetensors.numpy

    arrays = {f"{name}{seed or ''}": np.asarray(array) for name, array in STATE.items()}
    arrays["brain"] = np.arange(16, dtype=np.uint16).reshape(2, 8) * 4001
    header, start = damage.read_header(content := safetensors.numpy.save(arrays, {"format": "pt"}))
    header["brain"]["dtype"] = "BF16"
    path.write_bytes(damage.with_header(header, content[start:]))


def read_state(path):
    arrays, metadata = files.load_state(path)
    return {"arrays": arrays, "metadata": dict(sorted(metadata.items()))}


def judge_state(content):
    import safetensors

    arrays = {}
    for name, entry in sorted(safetensors.deserialize(content)):
        kind, size = re.fullmatch(r"([A-Z]+)(\d*)", entry["dtype"]).groups()
        if kind == "BF":
            words = np.frombuffer(entry["data"], "<u2").astype("<u4") << 16
            arrays[name] = words.view("<f4").reshape(entry["shape"])
        else:
            dtype = "?" if kind == "BOOL" else f"<{kind.lower()}{int(size) // 8}"
            arrays[name] = np.frombuffer(entry["data"], dtype).reshape(entry["shape"])
    metadata = damage.read_header(content)[0].get(damage.METADATA) or {}
    own = (damage.SHA256_KEY, "tinygrad_zen.format")
    return {
        "arrays": arrays,
        "metadata": {k: v for k, v in sorted(metadata.items()) if k not in own},
    }


def network():
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1),
        nn.BatchNorm2d(2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 10, bias=False),
    )


def write_model(path, seed):
    tz.seed(seed)
    model = tz.Model(network())
    model.compile("adam", "cross_entropy", metrics=["accuracy"], learning_rate=0.01)
    model.save(path)


def read_model(path):
    from tinygrad_zen.train.settings import tell

    model = tz.load(path)
    arrays = dict(sorted(model.net.state_dict().items()))
    about = {"network": files.describe(model.net), "compile": model.loss and tell(model)}
    return {"arrays": arrays, "about": about}


def judge_model(content):
    state = judge_state(content)
    about = json.loads(state["metadata"]["tinygrad_zen.model"])
    return {"arrays": state["arrays"], "about": {k: about.get(k) for k in ("network", "compile")}}


def agree_on_models(ours, judged):
    """Equal weights (of the network's width); and whatever the file says of the network stands in it."""
    a, b = ours["arrays"], judged["arrays"]
    weights = list(a) == list(b) and all(
        np.array_equal(a[name], b[name].astype(a[name].dtype), equal_nan=True) for name in a
    )
    return weights and _says(ours["about"], judged["about"])


def _says(ours, said):
    if isinstance(said, dict):
        return isinstance(ours, dict) and all(k in ours and _says(ours[k], said[k]) for k in said)
    if isinstance(said, list):
        return (
            isinstance(ours, list | tuple)
            and len(ours) == len(said)
            and all(map(_says, ours, said))
        )
    if isinstance(ours, dict) and list(ours) == ["tuple"]:  # a size for both axes
        return all(_says(item, said) for item in ours["tuple"])
    return not said if ours is None else ours == said or (ours != ours and said != said)


def parts():
    """What the checkpoint is of, at its beginning."""
    tz.seed(0)
    net = network()
    optimizer = optim.Adam(net.parameters(), lr=0.01)
    loader = data.DataLoader(np.arange(40, dtype=np.float32), batch_size=8, seed=3)
    return {"net": net, "optimizer": optimizer, "loader": loader, "history": History()}


def write_checkpoint(path, seed):
    made = parts()
    for _ in range(1 + seed):
        made["net"](tz.tensor(np.ones((2, 1, 8, 8), np.float32))).sum().backward()
        made["optimizer"].step()
    for epoch in range(20):
        made["history"].append(epoch, {"loss": 1 / (1 + epoch), "time": 0.5})
    files.save_checkpoint(path, **made)


def read_checkpoint(path):
    """What the file says; and the parts must take it, or the file is refused."""
    files.load_checkpoint(path, **parts())
    return files.read_checkpoint(path)


def judge_checkpoint(content):
    state = judge_state(content)
    kinds = {
        "array": lambda name: state["arrays"][name],
        "floats": lambda name: [x.item() for x in state["arrays"][name]],
        "ints": lambda name: [x.item() for x in state["arrays"][name]],
        "dict": lambda pairs: {pair[0]: plain(pair[1]) for pair in pairs},
        "list": lambda items: [plain(item) for item in items],
        "tuple": lambda items: [plain(item) for item in items],
    }

    def plain(value):
        if not isinstance(value, dict):
            return value
        (kind,) = value
        return kinds[kind](value[kind])

    tree = json.loads(state["metadata"]["tinygrad_zen.checkpoint"])
    return {name: plain(value) for name, value in tree.items()}


# datasets

SHAPE = (20, 9, 9)


def write_idx(path, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, SHAPE).astype(np.uint8)
    pixels[:, :3] = 0  # something to pack
    content = np.array([2051, *SHAPE], ">u4").tobytes() + pixels.tobytes()
    path.write_bytes(packed(path, content))


def judge_idx(content):
    words = [int.from_bytes(content[i : i + 4], "big") for i in range(0, 16, 4)]
    assert words == [2051, *SHAPE]
    return np.array(list(content[16:]), np.uint8).reshape(SHAPE)


COUNT, NAMES = 2, ("one.bin", "two.bin")


def cifar_content(seed):
    records = np.random.default_rng(seed).integers(
        0, 256, (COUNT, data_files.CIFAR_RECORD), np.uint8
    )
    records[:, 0] %= 10
    records[:, 1000:] //= 64
    return records.tobytes()


def write_batch(path, seed):
    path.write_bytes(packed(path, cifar_content(seed)))


def judge_batch(content):
    records = np.array(list(content), np.uint8).reshape(COUNT, -1)
    assert records.shape[1] == 3073 and set(records[:, 0].tolist()) <= set(range(10))
    return records


def write_archive(path, seed):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for i, name in enumerate(("readme.html", *NAMES)):
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            inside = cifar_content(seed + i) if i else b"hello"
            member.size = len(inside)
            archive.addfile(member, io.BytesIO(inside))
    path.write_bytes(packed(path, content.getvalue()))


def judge_archive(content):
    batches = {}
    with tarfile.open(fileobj=io.BytesIO(content), ignore_zeros=False) as archive:
        for member in archive.getmembers():
            if member.isfile():
                name = member.name.rpartition("/")[2]
                batches[name] = archive.extractfile(member).read()
    return np.concatenate([judge_batch(batches[name]) for name in NAMES])


SENTENCES = "".join(f"{i % 2} a film of {i} minutes , and no more\n" for i in range(80)).encode()


def judge_sentences(content):
    assert content == SENTENCES
    return content.decode()


TABLE = Path(datasets.__file__).with_name("tables") / "digits.npz"


def read_table(path):
    return dict(data_files.read_table(path, datasets._TABLES["digits"]))


def judge_table(content):
    return dict(np.load(io.BytesIO(content)))


def write_cache(path, seed):
    """A source, and beside it what is unpacked from it."""
    source(path).write_bytes(b"a source")
    read_cache(path)


def source(path):
    return path.with_name("source.xz")


def read_cache(path):
    import pooch

    pooch.os_cache = lambda name: path.parent
    return unpacked(
        path.name, [source(path)], lambda: np.arange(600, dtype=np.uint8).reshape(20, 30)
    )


# vocabularies and records


def texts(seed):
    rng = np.random.default_rng(seed)
    words = [bytes(rng.integers(97, 105, 4).tolist()).decode() for _ in range(60)] + ["é", "一"]
    return [" ".join(rng.choice(words, 12)) for _ in range(30)]


def judge_vocabulary(content):
    lines = [line.decode() for line in re.split(b"\r?\n", content)]
    if lines[-1] == "":
        lines.pop()
    assert set(data.wordpiece.SPECIAL) <= set(lines) and len(set(lines)) == len(lines)
    return lines


def write_tokenizer(path, seed):
    tokenizer = data.Tokenizer(num_words=40, oov_token="<oov>")
    tokenizer.fit_on_texts(texts(seed))
    tokenizer.save(path)


def judge_tokenizer(content):
    saved = json.loads(content)
    ranked = sorted(saved["word_counts"], key=lambda word: -saved["word_counts"][word])
    ranked = ([] if saved["oov_token"] is None else [saved["oov_token"]]) + ranked
    saved["word_index"] = dict(zip(ranked, range(1, len(ranked) + 1), strict=True))
    saved["index_word"] = {i: word for word, i in saved["word_index"].items()}
    return dict(sorted(saved.items()))


def read_tokenizer(path):
    return dict(sorted(vars(data.Tokenizer.from_file(path)).items()))


def write_config(path, seed):
    config = dataclasses.asdict(nn.BertConfig(vocab_size=40 + seed, classifier_dropout=0.5))
    del config["num_labels"]
    config |= {"model_type": "bert", "id2label": {"0": "no", "1": "yes", "2": "perhaps"}}
    path.write_text(json.dumps(config, indent=2))


def judge_config(content):
    saved = json.loads(content)
    names = [field.name for field in dataclasses.fields(nn.BertConfig)]
    if "id2label" in saved:
        saved["num_labels"] = len(saved["id2label"])
    standard = dataclasses.asdict(nn.BertConfig())
    return {name: saved.get(name, standard[name]) for name in names}


def write_characters(path, seed):
    data.Characters("".join(texts(seed)) + "\nÜß’東\U0001f600").save(path)


def judge_characters(content):
    symbols = content.decode()
    assert symbols and list(symbols) == sorted(Counter(symbols))
    return symbols


def write_history(path, seed):
    history = History()
    for epoch in range(30):
        values = {"loss": 2.0 ** -(epoch + seed), "count": 64 * epoch, "bad": float("nan")}
        history.append(epoch, values | {"matrix": np.eye(2) * epoch})
    history.save(path)


def read_history(path):
    history = History.load(path)
    columns = {
        name: [v.tolist() if isinstance(v, np.ndarray) else v for v in values]
        for name, values in history.history.items()
    }
    return {"epoch": history.epoch, "history": columns}


def judge_csv(content):
    first, *rows = csv.reader(io.StringIO(content.decode()), strict=True)
    assert first[0] == "epoch" and all(len(row) == len(first) for row in rows)
    columns = {name: [float(row[i]) for row in rows] for i, name in enumerate(first)}
    epoch = columns.pop("epoch")
    return {"epoch": [number - 1 for number in epoch], "history": columns}


def packed(path, content):
    suffix = path.suffix
    return damage.pack(content, suffix) if suffix in (".gz", ".xz") else content


def write_bytes(content):
    return lambda path, seed: path.write_bytes(packed(path, content))


def packings(name, file, suffixes, *functions):
    """A Reader for the plain file, and one for each way of packing it."""
    yield Reader(name, file, *functions)
    for suffix in suffixes:
        yield Reader(f"{name}, {suffix}", file + suffix, *functions, suffix=suffix)


def read_sentences(path):
    return data_files.read_text(path, len(SENTENCES), hashlib.sha256(SENTENCES).hexdigest())


SAFE = {"edit": damage.edit_header}
LIAR = {"edit": damage.edit_header, "sign": damage.signed}
STATES = write_state, read_state, judge_state
MODELS = write_model, read_model, judge_model
CHECKPOINTS = write_checkpoint, read_checkpoint, judge_checkpoint
READERS = [
    Reader("state dict", "s.safetensors", *STATES, **SAFE),
    Reader("state dict, signed anew", "s.safetensors", *STATES, **LIAR),
    Reader("state dict of PyTorch", "p.safetensors", write_foreign, *STATES[1:], **SAFE),
    Reader("model", "m.safetensors", *MODELS, **SAFE, agree=agree_on_models),
    Reader("model, signed anew", "m.safetensors", *MODELS, **LIAR, agree=agree_on_models),
    Reader("checkpoint", "c.safetensors", *CHECKPOINTS, **SAFE),
    Reader("checkpoint, signed anew", "c.safetensors", *CHECKPOINTS, **LIAR),
    *packings(
        "idx", "idx3-ubyte", [".gz"], write_idx, lambda p: data_files.read_idx(p, SHAPE), judge_idx
    ),
    *packings(
        "CIFAR-10 batch",
        "one.bin",
        [".xz"],
        write_batch,
        lambda p: data_files.read_cifar_batch(p, COUNT),
        judge_batch,
    ),
    Reader(
        "CIFAR-10 archive, .tar.gz",
        "cifar.tar.gz",
        write_archive,
        lambda p: data_files.read_cifar_archive(p, NAMES, COUNT),
        judge_archive,
        suffix=".gz",
    ),
    *packings(
        "sentences", "stsa.train", [".gz"], write_bytes(SENTENCES), read_sentences, judge_sentences
    ),
    Reader("embedded table", "t.npz", write_bytes(TABLE.read_bytes()), read_table, judge_table),
    Reader("cache of unpacked data", "records", write_cache, read_cache, judge=None),
    Reader(
        "vocab.txt",
        "vocab.txt",
        lambda path, seed: data.WordPiece.train(texts(seed), 120).save(path),
        lambda path: data.WordPiece.from_file(path).vocab,
        judge_vocabulary,
    ),
    Reader(
        "Tokenizer",
        "tokenizer.json",
        write_tokenizer,
        read_tokenizer,
        judge_tokenizer,
        edit=damage.edit_text,
    ),
    Reader(
        "BERT's config.json",
        "config.json",
        write_config,
        lambda path: dataclasses.asdict(nn.BertConfig.from_file(path)),
        judge_config,
        edit=damage.edit_text,
    ),
    Reader(
        "Characters",
        "characters.txt",
        write_characters,
        lambda path: data.Characters.from_file(path).symbols,
        judge_characters,
    ),
    Reader("history, .csv", "h.csv", write_history, read_history, judge_csv),
    Reader(
        "history, .json", "h.json", write_history, read_history, json.loads, edit=damage.edit_text
    ),
]
