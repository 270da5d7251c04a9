"""Text: Keras' Tokenizer and padding, characters, word pieces, and the datasets made of text."""

import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_zen import data
from tinygrad_zen.data import wordpiece

LOCAL = os.environ.get("TINYGRAD_ZEN_DATA", "")
TEXTS = [
    "The cat sat on the mat, and the dog did not.",
    "A dog!  A DOG -- a cat?",
    "",
    "cat\tcat\ncat",
]


def raises(kind, message):
    """Expect an error whose whole message matches, word for word."""
    return pytest.raises(kind, match=rf"\A{re.escape(message)}\Z")


def needs_local(folder):
    return pytest.mark.skipif(
        not (LOCAL and Path(LOCAL, folder).is_dir()),
        reason=f"TINYGRAD_ZEN_DATA names no folder with {folder}/",
    )


def keras(module):
    """A module of Keras, which wants one of its frameworks and gets JAX unless told otherwise."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    return pytest.importorskip(f"keras.src.{module}", exc_type=ImportError)


# Tokenizer


def test_words_are_numbered_by_rank():
    tokenizer = data.Tokenizer()
    tokenizer.fit_on_texts(["b a b", "c b a"])
    assert tokenizer.word_index == {"b": 1, "a": 2, "c": 3}
    assert tokenizer.index_word == {1: "b", 2: "a", 3: "c"}
    assert tokenizer.word_counts == {"b": 3, "a": 2, "c": 1} and tokenizer.document_count == 2
    assert tokenizer.texts_to_sequences(["c, d; B"]) == [[3, 1]]
    assert tokenizer.sequences_to_texts([[3, 0, 1, 99]]) == ["c b"]


def test_num_words_and_unknown_words():
    tokenizer = data.Tokenizer(num_words=3, oov_token="?")
    tokenizer.fit_on_texts(["b a b", "c b a"])
    assert tokenizer.word_index == {"?": 1, "b": 2, "a": 3, "c": 4}
    assert tokenizer.texts_to_sequences(["b a x"]) == [[2, 1, 1]]
    assert tokenizer.sequences_to_texts([[2, 3, 0]]) == ["b ?"]


OPTIONS = [
    {},
    {"num_words": 4},
    {"num_words": 5, "oov_token": "<oov>"},
    {"lower": False, "filters": "!,"},
    {"char_level": True, "num_words": 9},
    {"split": "t"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_tokenizer_equals_keras(options):
    text = keras("legacy.preprocessing.text")
    ours, theirs = data.Tokenizer(**options), text.Tokenizer(**options)
    for part in (TEXTS, [["A", "list", "of", "cat"]]):  # fitting twice adds up
        ours.fit_on_texts(part)
        theirs.fit_on_texts(part)
    assert ours.word_index == theirs.word_index
    assert ours.word_counts == theirs.word_counts
    assert ours.document_count == theirs.document_count
    unseen = [*TEXTS, "an unseen cat"]
    sequences = ours.texts_to_sequences(unseen)
    assert sequences == theirs.texts_to_sequences(unseen)
    assert ours.sequences_to_texts(sequences) == theirs.sequences_to_texts(sequences)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_tokenizer_as_json(options):
    tokenizer = data.Tokenizer(**options)
    tokenizer.fit_on_texts(TEXTS)
    again = data.Tokenizer.from_json(tokenizer.to_json())
    assert vars(again) == vars(tokenizer)
    assert again.texts_to_sequences(TEXTS) == tokenizer.texts_to_sequences(TEXTS)


def test_tokenizer_errors():
    with raises(ValueError, "Tokenizer: num_words must be at least 1; got 0"):
        data.Tokenizer(num_words=0)
    with raises(TypeError, "fit_on_texts: give a list of texts; got one text"):
        data.Tokenizer().fit_on_texts("one text")
    message = "texts_to_sequences: the Tokenizer knows no words; call fit_on_texts first"
    with raises(RuntimeError, message):
        data.Tokenizer().texts_to_sequences(["a"])


# Padding


def test_pad_sequences():
    x = [[1], [2, 3], [4, 5, 6], []]
    padded = data.pad_sequences(x)
    np.testing.assert_array_equal(padded, [[0, 0, 1], [0, 2, 3], [4, 5, 6], [0, 0, 0]])
    assert padded.dtype == np.int32
    np.testing.assert_array_equal(
        data.pad_sequences(x, 2, padding="post", truncating="post", value=-1),
        [[1, -1], [2, 3], [4, 5], [-1, -1]],
    )
    frames = data.pad_sequences([np.ones((1, 2)), np.ones((3, 2))], dtype="float32")
    assert frames.shape == (2, 3, 2) and frames.sum() == 8


@given(
    st.lists(st.lists(st.integers(0, 99), max_size=6), min_size=1, max_size=5),
    st.none() | st.integers(1, 7),
    st.sampled_from(["pre", "post"]),
    st.sampled_from(["pre", "post"]),
)
def test_padding_equals_keras(sequences, maxlen, padding, truncating):
    theirs = keras("utils.sequence_utils")
    options = {"maxlen": maxlen, "padding": padding, "truncating": truncating, "value": 7}
    padded = data.pad_sequences(sequences, **options)
    assert padded.dtype == np.int32
    np.testing.assert_array_equal(padded, theirs.pad_sequences(sequences, **options))


@pytest.mark.parametrize(
    "sequences, options, message",
    [
        ([[1]], {"padding": "left"}, "padding must be 'pre' or 'post'; got 'left'"),
        ([[1]], {"truncating": None}, "truncating must be 'pre' or 'post'; got None"),
        ([[1]], {"maxlen": 0}, "maxlen must be at least 1; got 0"),
        ([], {}, "give a list of sequences, each a list of numbers"),
        ([1, 2], {}, "give a list of sequences, each a list of numbers"),
        ([[[1]], [2]], {}, "elements must have one shape; got [(), (1,)]"),
    ],
)
def test_padding_errors(sequences, options, message):
    with raises(ValueError, f"pad_sequences: {message}"):
        data.pad_sequences(sequences, **options)


# Characters


def test_characters():
    chars = data.Characters("to be, or not")
    assert chars.symbols == " ,benort" and len(chars) == 8
    ids = chars.encode("bet")
    assert ids.dtype == np.int64 and ids.tolist() == [2, 3, 7]
    assert chars.decode(ids) == "bet" and chars.decode([]) == ""
    assert data.Characters(chars.symbols).symbols == chars.symbols
    with raises(ValueError, "Characters: 'x' is not among the 8 characters"):
        chars.encode("box")
    with raises(ValueError, "Characters: numbers must be 0 to 7; got -1 to 8"):
        chars.decode([0, -1, 8])
    with raises(ValueError, "Characters: the text must not be empty"):
        data.Characters("")


# Word pieces

VOCAB = [*wordpiece.SPECIAL, *"the un ##aff ##able film ##s , . ' ! a 一 resume ##a b".split()]


@pytest.fixture
def pieces():
    return data.WordPiece(VOCAB)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("The unaffable films.", "the un ##aff ##able film ##s ."),
        ("film's,film!", "film ' [UNK] , film !"),  # "##s" is no word of its own
        ("unaffably", "[UNK]"),  # no half word before an unknown rest
        ("Résumé", "resume"),
        ("a一a", "a 一 a"),
        ("the[MASK]film [mask]", "the [MASK] film [UNK] [UNK] [UNK]"),
        ("the\u00a0fi\u200blm\x00\tthe", "the film the"),
        ("a" * 101, "[UNK]"),
        ("a" * 100, " ".join(["a"] + ["##a"] * 99)),
        (" \n", ""),
    ],
)
def test_pieces(pieces, text, expected):
    assert pieces.tokenize(text) == expected.split()


def test_case_and_accents_can_stay():
    cased = data.WordPiece([*VOCAB, "The", "Résumé"], lower=False)
    assert cased.tokenize("The Résumé the resumé") == ["The", "Résumé", "the", "[UNK]"]


def test_batches_for_bert(pieces):
    batch = pieces(["unaffable film", "the film"], ["a", "the films"])
    assert [list(row) for row in batch["input_ids"]] == [
        pieces_ids(pieces, "[CLS] un ##aff ##able film [SEP] a [SEP]"),
        pieces_ids(pieces, "[CLS] the film [SEP] the film ##s [SEP]"),
    ]
    np.testing.assert_array_equal(
        batch["token_type_ids"], [[0, 0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 1, 1, 1, 1]]
    )
    batch = pieces(["unaffable films", "a"], max_length=5)
    np.testing.assert_array_equal(batch["attention_mask"], [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    assert all(array.dtype == np.int64 for array in batch.values())
    assert pieces.decode(batch["input_ids"][0]) == "unaffable"
    assert pieces.decode(batch["input_ids"][1], skip_special=False) == "[CLS] a [SEP] [PAD] [PAD]"
    assert pieces([])["input_ids"].shape == (0, 0)


def pieces_ids(pieces, text):
    return [pieces.ids[piece] for piece in text.split()]


def test_the_longer_of_a_pair_is_cut(pieces):
    ids, segments = pieces.encode("a a a a a", "b b", max_length=8)
    assert pieces.decode(ids, skip_special=False) == "[CLS] a a a [SEP] b b [SEP]"
    assert segments == [0] * 5 + [1] * 3


def test_vocabulary_files(pieces, tmp_path):
    path = tmp_path / "vocab.txt"
    pieces.save(path)
    assert path.read_bytes().decode().split("\n")[:-1] == VOCAB
    assert data.WordPiece.from_file(path).vocab == VOCAB
    path.write_bytes("\r\n".join(VOCAB).encode())  # of another system, without a last line end
    assert data.WordPiece.from_file(path).vocab == VOCAB
    path.write_text("\n".join(VOCAB[2:]))
    with raises(ValueError, f"{path}: WordPiece: the vocabulary lacks [PAD], [UNK]"):
        data.WordPiece.from_file(path)


def test_word_piece_errors(pieces):
    with raises(ValueError, "WordPiece: the vocabulary has 'a' more than once"):
        data.WordPiece([*VOCAB, "a"])
    with raises(TypeError, "WordPiece: give a list of texts; got one text"):
        pieces("one text")
    with raises(ValueError, "WordPiece: 2 texts need as many pairs; got 1"):
        pieces(["a", "b"], ["a"])
    with raises(ValueError, "WordPiece: max_length must be at least 2; got 1"):
        pieces.encode("a", max_length=1)
    with raises(TypeError, "WordPiece.train: give a list of texts; got one text"):
        data.WordPiece.train("one text")
    message = (
        "WordPiece: the texts have 3 characters (counted apart inside words), which a vocabulary "
        "with room for 2 cannot hold"
    )
    with raises(ValueError, message):
        data.WordPiece.train(["aab"], vocab_size=7)


def merges_by_definition(words, count, min_count):
    """learn_pieces, counting everything again before each merge."""
    spelt = {word: [word[0], *(f"##{c}" for c in word[1:])] for word in words}
    pieces = sorted({symbol for word in spelt.values() for symbol in word})
    while len(pieces) < count:
        pairs = Counter()
        for word, times in words.items():
            for pair in zip(spelt[word], spelt[word][1:], strict=False):
                pairs[pair] += times
        if not pairs or max(pairs.values()) < min_count:
            break
        pair = min(pairs, key=lambda p: (-pairs[p], p))
        merged = pair[0] + pair[1][2:]
        if merged not in pieces:
            pieces.append(merged)
        spelt = {word: wordpiece._merge(symbols, pair, merged) for word, symbols in spelt.items()}
    return pieces


@settings(deadline=None)
@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=8), st.integers(1, 5), min_size=1),
    st.integers(6, 40),
    st.integers(1, 4),
)
def test_the_vocabulary_equals_the_definition(words, count, min_count):
    expected = merges_by_definition(words, count, min_count)
    assert wordpiece.learn_pieces(words, count, min_count) == expected


def test_a_vocabulary_from_texts():
    tokenizer = data.WordPiece.train(["low lower lowest Low"] * 3 + ["new newer"], vocab_size=30)
    assert tokenizer.vocab[:5] == list(wordpiece.SPECIAL)
    assert tokenizer.tokenize("lower") == ["lower"] and "newest" not in tokenizer.ids
    text = "lowest newer"
    assert tokenizer.decode(tokenizer.encode(text)[0]) == text
    assert len(tokenizer) <= 30


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Our tokenizer and transformers', cased or not, on one vocabulary."""
    transformers = pytest.importorskip("transformers")
    texts = [*TEXTS, "naïve Ünïcode — “quotes”, 3.14 $5 a_b c+d 東京 ΑΣ", "l'été à l'hôtel"]
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    pairs = []
    for lower in (True, False):
        ours = data.WordPiece.train(texts, 200, lower=lower, min_count=1)
        ours.save(path)
        theirs = transformers.BertTokenizer(str(path), do_lower_case=lower)
        pairs.append((ours, theirs))
    return pairs


# without what is unassigned, which differs from one version of Unicode to the next
ALPHABET = st.sampled_from(
    "aAbB éÜß一東’“—.,!$+_~^\t\n\u00a0\u200b\u2028\x1c\x85İΣ가\u0301｡💥\ufffd"
) | st.characters(exclude_categories=["Cn", "Cs"])


@settings(deadline=None, max_examples=300)
@given(st.lists(st.text(ALPHABET, max_size=12) | st.sampled_from(wordpiece.SPECIAL), max_size=6))
def test_pieces_equal_transformers(both, parts):
    text = "".join(parts)
    for ours, theirs in both:
        assert ours.tokenize(text) == theirs.tokenize(text)


def test_batches_equal_transformers(both):
    for ours, theirs in both:
        for pairs, limit in ((None, None), (None, 7), (TEXTS[::-1], 12)):
            batch = ours(TEXTS, pairs, limit)
            expected = theirs(
                TEXTS,
                pairs,
                padding=True,
                truncation=limit is not None,
                max_length=limit,
                return_tensors="np",
            )
            for name, array in batch.items():
                np.testing.assert_array_equal(array, expected[name])


# Datasets


@needs_local("sentiment")
def test_sst2():
    parts = data.sst2()
    assert [len(texts) for texts, _ in parts] == [6920, 872, 1821]
    assert [int(y.sum()) for _, y in parts] == [3610, 444, 909]
    (texts, y), _, _ = parts
    assert (
        texts[0].startswith("a stirring , funny and finally transporting") and y.dtype == np.int64
    )
    assert not any(text != text.strip() for texts, _ in parts for text in texts)


@needs_local("tinyshakespeare")
def test_tinyshakespeare():
    train, test = data.tinyshakespeare()
    assert (len(train), len(test)) == (1_003_854, 111_540)
    assert train.startswith("First Citizen:\nBefore we proceed any further")
    assert len(data.Characters(train + test)) == 65


def test_text_files_are_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYGRAD_ZEN_DATA", str(tmp_path))
    path = tmp_path / "tinyshakespeare" / "input.txt"
    path.parent.mkdir()
    path.write_bytes(b"x")
    with raises(ValueError, f"{path}: content must be 1115394 bytes long; got 1"):
        data.tinyshakespeare()
    path.write_bytes(b"x" * 1_115_394)
    with pytest.raises(ValueError, match="not the official file: SHA-256 of its content must be"):
        data.tinyshakespeare()
    path = tmp_path / "sentiment" / "stsa.binary.train"
    path.parent.mkdir()
    with raises(FileNotFoundError, f"{path.parent} has neither {path.name}.gz nor {path.name}"):
        data.sst2()
