"""BERTs as folders of files, in Hugging Face's layout: config.json, vocab.txt, model.safetensors."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from . import functional as F
from .linear import check_sizes
from .module import Module, at_most

ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, "tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, "tanh"),
    "relu": F.relu,
    "silu": F.silu,
}


@dataclass
class BertConfig:
    """The sizes of a BERT, under Hugging Face's names; as they stand those of bert-base-uncased.

    hidden_act: gelu, gelu_new or gelu_pytorch_tanh (both by tanh), relu, silu. classifier_dropout: in front
    of the classifier; hidden_dropout_prob if None. num_labels: classes of the classifier. pad_token_id:
    a piece whose vector is not learned by what reads it, or None.
    Raises ValueError for sizes that do not fit each other, TypeError for sizes that are not ints.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    classifier_dropout: float | None = None
    num_labels: int = 2
    pad_token_id: int | None = 0

    def __post_init__(self):
        whole = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.type is int}
        check_sizes("BertConfig", **whole)
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if f.type is float and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise TypeError(f"BertConfig: {f.name} must be a number; got {value!r:.80}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"BertConfig: num_attention_heads ({self.num_attention_heads}) must divide hidden_size "
                f"({self.hidden_size})"
            )
        if self.hidden_act not in ACTIVATIONS:
            raise ValueError(
                f"BertConfig: unknown hidden_act {self.hidden_act!r}: choose from "
                f"{', '.join(ACTIVATIONS)}"
            )

    @classmethod
    def from_file(cls, path, **changes):
        """Read a config.json; what stands there besides is left alone. changes: take its place.

        Raises FileNotFoundError; io.FileError, a ValueError, for what is not JSON, or the config of another
        kind of model.
        """
        from ..io import FileError

        read = _read_json(path)
        # what the network below does otherwise; a config that does not say takes BERT's way
        for key, needed in NEEDED.items():
            if read.get(key, needed) != needed:
                raise FileError(
                    f"{path}: {key} must be {needed!r} for a BERT encoder; got {read[key]!r:.80}"
                )
        if "id2label" in read:
            if not isinstance(read["id2label"], dict):
                raise FileError(f"{path}: id2label must name labels; got {read['id2label']!r:.80}")
            read["num_labels"] = len(read["id2label"])
        own = {f.name for f in dataclasses.fields(cls)}
        try:
            return cls(**{name: v for name, v in read.items() if name in own} | changes)
        except (ValueError, TypeError) as error:
            raise FileError(f"{path}: {error}") from None


NEEDED = {"model_type": "bert", "position_embedding_type": "absolute", "is_decoder": False}

# what the weights are called by those who converted the first BERTs from TensorFlow
OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
ENCODER = ("embeddings.", "encoder.", "pooler.")
# heads, which a network that lacks them leaves in the file
HEADS = ("bert.pooler.", "cls.", "classifier.", "qa_outputs.")
COUNTED = "embeddings.position_ids"  # 0, 1, 2, ..., in old files


class Pretrained(Module):
    """The base of the BERTs: read from a folder of files, and written to one.

    config: its BertConfig. tokenizer: the data.WordPiece of the folder's vocab.txt, or None. inside: what
    the names of the encoder's weights begin with. new: what those weights begin with that a file may lack.
    """

    inside, new, tokenizer = "bert.", (), None

    @classmethod
    def from_pretrained(cls, folder, **changes):
        """A network from the files of a folder, in evaluation mode.

        config.json says the sizes, model.safetensors holds the weights, under names with or without
        "bert." in front; vocab.txt, if it is there, becomes the `tokenizer`. changes: of the config, such
        as num_labels=5. A head that the file has no weights for starts anew, but a BertModel does without
        the pooler then; weights of other heads stay in the file.
        Raises FileNotFoundError for a missing folder or file; io.FileError, a ValueError, for a file that is
        not what its name says, a model of another kind, and weights that are missing, unknown or of
        another shape.
        """
        from ..io import FileError, load_state

        folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder")
        config = BertConfig.from_file(folder / "config.json", **changes)
        path = _weights_file(folder)
        read = {cls._own_name(name): value for name, value in load_state(path)[0].items()}
        # a head may be new; but sizes in the config cannot ask for more memory than the weights do
        elements = sum(value.size for value in read.values())
        try:
            with at_most(2 * len(read) + 16, 2 * elements + (1 << 20)):
                net = cls._for(config, read)
        except ValueError as error:
            raise FileError(f"{folder / 'config.json'}: {error}") from None
        own = set(net.state_dict())
        read = {
            name: value
            for name, value in read.items()
            if name in own or not (name.startswith(HEADS) or name.endswith(COUNTED))
        }
        lacking = tuple(p for p in cls.new if not any(name.startswith(p) for name in read))
        try:
            net.load_state_dict(read, names=lambda name: not name.startswith(lacking))
        except ValueError as error:
            raise FileError(f"{path}: {error}") from None
        net.tokenizer = _read_tokenizer(folder, config)
        return net.eval()

    @classmethod
    def _for(cls, config, read):
        """The network for the weights that a file has."""
        return cls(config)

    @classmethod
    def _own_name(cls, name):
        """What the network calls the weights that a file has under a name."""
        for old, new in OLD_NAMES.items():
            name = name.replace(old, new)
        bare = name.removeprefix("bert.")
        return cls.inside + bare if bare.startswith(ENCODER) else bare

    def save_pretrained(self, folder):
        """Write config.json, model.safetensors and, with a tokenizer, vocab.txt to a folder."""
        from ..io import save_state, write_whole

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        about = {"architectures": [type(self).__name__], "model_type": "bert"}
        about |= dataclasses.asdict(self.config)
        del about["num_labels"]  # which Hugging Face's configs say as a list of names
        about["id2label"] = {str(i): f"LABEL_{i}" for i in range(self.config.num_labels)}
        write_whole(folder / "config.json", (json.dumps(about, indent=2) + "\n").encode())
        save_state(folder / "model.safetensors", self.state_dict(), {"format": "pt"})
        if self.tokenizer is not None:
            self.tokenizer.save(folder / "vocab.txt")


def _read_json(path):
    """The object {...} in a JSON file of settings."""
    from ..io import FileError, parse_json, read_file

    read = parse_json(path, read_file(path, 1 << 20))
    if not isinstance(read, dict):
        raise FileError(f"{path}: an object {{...}} is needed; got {type(read).__name__}")
    return read


def _existing(path):
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    return path


def _weights_file(folder):
    """The safetensors file of a folder, or words about what is there in its place."""
    path = folder / "model.safetensors"
    others = [n for n in ("pytorch_model.bin", f"{path.name}.index.json") if (folder / n).exists()]
    if others and not path.exists():
        raise FileNotFoundError(
            f"{path}: no such file; there is {others[0]}: load that with Hugging Face's transformers, and "
            "save it again as one safetensors file"
        )
    return _existing(path)


def _read_tokenizer(folder, config):
    """The WordPiece of a folder's vocab.txt, or None if there is none."""
    from ..data import WordPiece
    from ..io import FileError

    path, options = folder / "vocab.txt", folder / "tokenizer_config.json"
    if not path.exists():
        return None
    lower = _read_json(options).get("do_lower_case", True) if options.exists() else True
    tokenizer = WordPiece.from_file(path, lower)
    if len(tokenizer) > config.vocab_size:
        raise FileError(
            f"{path}: {len(tokenizer)} pieces, but the config's vocab_size is {config.vocab_size}"
        )
    return tokenizer
