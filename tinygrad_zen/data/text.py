"""Text to numbers and back: words by rank, characters, and sequences padded to one length."""

import json
from collections import Counter

import numpy as np

from ..backend import tell_memory
from ..io import FileError, decode, parse_json, read_file, write_whole

FILTERS = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'
ROOM = 16 << 20  # what the words of a file may take in memory beyond the file's size
MOST_TEXT = 1 << 26  # bytes of a tokenizer's file
MOST_CHARACTERS = 4_400_000  # bytes of all characters that Unicode has


class Tokenizer:
    """Words as numbers, the most frequent first, as in Keras: fit_on_texts, texts_to_sequences.

        tokenizer = Tokenizer(num_words=1000, oov_token="<oov>")
        tokenizer.fit_on_texts(texts)
        x = pad_sequences(tokenizer.texts_to_sequences(texts), maxlen=40)

    num_words: only numbers below it are given out, so that an Embedding(num_words, ...) fits them;
    None for all. Number 0 is left for padding. oov_token: what stands for words that are unknown or
    too rare, as number 1; None leaves such words out. filters: characters that become `split`, where
    a text is cut into words. lower: ignore case. char_level: characters instead of words.
    A text may be a list of words already. word_counts, word_index, index_word and document_count are
    there to look at. Words of one count are ranked by their first appearance.
    Raises ValueError for num_words < 1.
    """

    def __init__(
        self,
        num_words=None,
        filters=FILTERS,
        lower=True,
        split=" ",
        char_level=False,
        oov_token=None,
    ):
        if num_words is not None and num_words < 1:
            raise ValueError(f"Tokenizer: num_words must be at least 1; got {num_words}")
        self.num_words = num_words
        self.filters = filters
        self.lower = lower
        self.split = split
        self.char_level = char_level
        self.oov_token = oov_token
        self.document_count = 0
        self.word_counts = Counter()  # in the order of first appearance
        self.word_index, self.index_word = {}, {}

    def fit_on_texts(self, texts):
        """Count the words of some texts, on top of those counted before, and number them anew."""
        _check_texts("fit_on_texts", texts)
        for text in texts:
            self.word_counts.update(self._words(text))
            self.document_count += 1
        first = [] if self.oov_token is None else [self.oov_token]
        ranked = [*first, *(word for word, _ in self.word_counts.most_common())]
        self.word_index = {word: i for i, word in enumerate(ranked, 1)}
        self.index_word = {i: word for word, i in self.word_index.items()}

    def texts_to_sequences(self, texts):
        """The numbers of each text's words: a list of lists.

        Raises RuntimeError before fit_on_texts.
        """
        self._must_be_fitted("texts_to_sequences")
        _check_texts("texts_to_sequences", texts)
        limit = self.num_words or len(self.word_index) + 1
        known = {word: i for word, i in self.word_index.items() if i < limit}
        unknown = self.word_index.get(self.oov_token)
        numbers = ([known.get(word, unknown) for word in self._words(text)] for text in texts)
        return [[i for i in sequence if i is not None] for sequence in numbers]

    def sequences_to_texts(self, sequences):
        """The words of each sequence, with spaces between them; padding is left out."""
        self._must_be_fitted("sequences_to_texts")
        limit = self.num_words or len(self.word_index) + 1
        known = {i: word for i, word in self.index_word.items() if i < limit}
        words = ([known.get(i, i and self.oov_token) for i in sequence] for sequence in sequences)
        return [" ".join(word for word in text if word) for text in words]

    def to_json(self):
        """Everything as a JSON string; `Tokenizer.from_json` reads it."""
        return json.dumps(vars(self) | {"index_word": None, "word_index": None})

    @classmethod
    def from_json(cls, text):
        """The tokenizer of a `to_json` string. Raises io.FileError, a ValueError, for another."""
        return cls._from_json("Tokenizer.from_json", text)

    def save(self, path):
        """Write everything to a JSON file, whole or not at all."""
        write_whole(path, self.to_json().encode())

    @classmethod
    def from_file(cls, path):
        """Read a file of `save`. Raises io.FileError for another or a damaged one."""
        return cls._from_json(path, read_file(path, MOST_TEXT))

    @classmethod
    def _from_json(cls, where, text):
        saved = parse_json(where, text, len(text) + ROOM)
        kinds = dict.fromkeys(vars(cls()), str) | {
            "num_words": int | None,
            "oov_token": str | None,
            "lower": bool,
            "char_level": bool,
            "document_count": int,
            "word_counts": dict,
            "word_index": None,
            "index_word": None,
        }
        if not isinstance(saved, dict) or set(saved) != set(kinds):
            raise FileError(f"{where}: a Tokenizer needs {', '.join(kinds)}")
        for name, kind in kinds.items():
            if kind is not None and not isinstance(saved[name], kind):
                raise FileError(f"{where}: damaged: {name} is {saved[name]!r:.80}")
        counts, documents = saved.pop("word_counts"), saved.pop("document_count")
        for word, count in counts.items():
            if type(count) is not int or count < 1:
                raise FileError(f"{where}: damaged: the count of {word!r:.80} is {count!r:.80}")
        del saved["index_word"], saved["word_index"]
        try:
            tokenizer = cls(**saved)
        except ValueError as error:
            raise FileError(f"{where}: {error}") from None
        tokenizer.word_counts, tokenizer.document_count = Counter(counts), documents
        tokenizer.fit_on_texts([])
        return tokenizer

    def _words(self, text):
        if not isinstance(text, str):
            return [word.lower() for word in text] if self.lower else text
        if self.lower:
            text = text.lower()
        if self.char_level:
            return text
        text = text.translate(str.maketrans(dict.fromkeys(self.filters, self.split)))
        return [word for word in text.split(self.split) if word]

    def _must_be_fitted(self, caller):
        if not self.word_index:
            raise RuntimeError(f"{caller}: the Tokenizer knows no words; call fit_on_texts first")


class Characters:
    """The characters of a text, numbered from 0 in Unicode's order.

        chars = Characters(text)
        ids = chars.encode("to be")         # int64 (5,)
        chars.decode(ids)                   # "to be"

    symbols: all of them, a string; Characters(symbols) is the same vocabulary again.
    Raises ValueError for an empty text.
    """

    def __init__(self, text):
        self.symbols = "".join(sorted(set(text)))
        if not self.symbols:
            raise ValueError("Characters: the text must not be empty")
        self._numbers = {symbol: i for i, symbol in enumerate(self.symbols)}

    @classmethod
    def from_file(cls, path):
        """Read a file of `save`. Raises io.FileError for another or a damaged one."""
        text = decode(path, read_file(path, MOST_CHARACTERS))
        if not text or "".join(sorted(set(text))) != text:
            raise FileError(f"{path}: characters must stand there once each, in Unicode's order")
        return cls(text)

    def save(self, path):
        """Write the characters, one after the other in UTF-8, to a file."""
        write_whole(path, self.symbols.encode())

    def __len__(self):
        return len(self.symbols)

    def encode(self, text):
        """The numbers of a text's characters: int64 (N,). Raises ValueError for an unknown one."""
        try:
            return np.array([self._numbers[symbol] for symbol in text], np.int64)
        except KeyError as error:
            raise ValueError(
                f"Characters: {error.args[0]!r} is not among the {len(self)} characters"
            ) from None

    def decode(self, ids):
        """The text of some numbers. Raises ValueError for one out of range."""
        ids = np.asarray(ids)
        if ids.size and not (0 <= ids.min() and ids.max() < len(self)):
            raise ValueError(
                f"Characters: numbers must be 0 to {len(self) - 1}; got {ids.min()} to {ids.max()}"
            )
        return "".join(self.symbols[i] for i in ids)


def pad_sequences(
    sequences, maxlen=None, dtype="int32", padding="pre", truncating="pre", value=0.0
):
    """Sequences of different lengths as one array (N, maxlen, ...), as in Keras.

    maxlen: the longest one's length if None. padding, truncating: "pre" or "post", the end at which
    a short sequence gets `value` and a long one is cut. Elements may be arrays of one shape.
    Raises ValueError for other words, maxlen < 1, a sequence that is a number, no sequences, or
    elements of unequal shapes.
    """
    for name, given in (("padding", padding), ("truncating", truncating)):
        if given not in ("pre", "post"):
            raise ValueError(f"pad_sequences: {name} must be 'pre' or 'post'; got {given!r}")
    if maxlen is not None and maxlen < 1:
        raise ValueError(f"pad_sequences: maxlen must be at least 1; got {maxlen}")
    sequences = [np.asarray(sequence) for sequence in sequences]
    if not sequences or any(sequence.ndim == 0 for sequence in sequences):
        raise ValueError("pad_sequences: give a list of sequences, each a list of numbers")
    shapes = {sequence.shape[1:] for sequence in sequences if len(sequence)} or {()}
    if len(shapes) > 1:
        raise ValueError(f"pad_sequences: elements must have one shape; got {sorted(shapes)}")
    if maxlen is None:
        maxlen = max(map(len, sequences))
    with tell_memory("pad_sequences"):
        padded = np.full((len(sequences), maxlen, *shapes.pop()), value, dtype)
    for row, sequence in zip(padded, sequences, strict=True):
        if not len(sequence):
            continue
        kept = sequence[-maxlen:] if truncating == "pre" else sequence[:maxlen]
        where = slice(-len(kept), None) if padding == "pre" else slice(len(kept))
        row[where] = kept
    return padded


def _check_texts(caller, texts):
    if isinstance(texts, str):
        raise TypeError(f"{caller}: give a list of texts; got one text")
