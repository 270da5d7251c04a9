"""Word pieces: BERT's tokenizer, and the building of its vocabulary from texts.

Source: Wu and others 2016, arXiv:1609.08144; Devlin and others 2018, arXiv:1810.04805.
"""

import functools
import heapq
import re
import unicodedata
from collections import Counter, defaultdict

import numpy as np

from ..io import FileError, decode, read_file, write_whole

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LONGEST_WORD = 100  # characters; a longer word is [UNK]
# of a vocabulary in a file, so that its pieces take at most 64 MiB of memory; BERT's largest has 119,547
MOST_PIECES, MOST_BYTES = 250_000, 4 << 20


class WordPiece:
    """Texts as pieces of words, which a list names: "unaffable" -> un ##aff ##able.

        tokenizer = WordPiece.train(texts, vocab_size=8000)     # or WordPiece.from_file("vocab.txt")
        tokenizer.tokenize("a stirring film")                   # ['a', 'stir', '##ring', 'film']
        batch = tokenizer(texts, max_length=64)                 # arrays for a BERT

    vocab: the pieces by number; pieces inside words begin with "##". lower: ignore case and accents,
    as the uncased BERTs do. The longest piece that a word begins with is cut off, again and again;
    a word for which that fails is [UNK]. The names in SPECIAL stand for themselves where a text has
    them. Gives the same pieces as BertTokenizer of Hugging Face's transformers.
    Raises ValueError for a vocabulary that lacks one of SPECIAL or has a piece twice.
    """

    def __init__(self, vocab, lower=True):
        self.vocab = list(vocab)
        self.lower = lower
        self.ids = {piece: i for i, piece in enumerate(self.vocab)}
        missing = [name for name in SPECIAL if name not in self.ids]
        if missing:
            raise ValueError(f"WordPiece: the vocabulary lacks {', '.join(missing)}")
        if len(self.ids) < len(self.vocab):
            twice = next(p for p, count in Counter(self.vocab).items() if count > 1)
            raise ValueError(f"WordPiece: the vocabulary has {twice!r} more than once")
        self.pad, self.unk, self.cls, self.sep, self.mask = (self.ids[name] for name in SPECIAL)
        self._pieces = {}  # of the words met so far: texts repeat their words

    @classmethod
    def train(cls, texts, vocab_size=8000, *, lower=True, min_count=2):
        """Build the vocabulary from texts: SPECIAL, the characters, then what stands together most.

        vocab_size: how many pieces at most. min_count: how often a new piece must occur, at least.
        The same texts give the same vocabulary. Raises ValueError if not even the characters fit.
        """
        if isinstance(texts, str):
            raise TypeError("WordPiece.train: give a list of texts; got one text")
        words = Counter(word for text in texts for word in split_words(text, lower))
        return cls([*SPECIAL, *learn_pieces(words, vocab_size - len(SPECIAL), min_count)], lower)

    @classmethod
    def from_file(cls, path, lower=True):
        """Read a vocab.txt as BERT has it: one piece a line, in UTF-8, numbered from 0.

        Raises io.FileError, a ValueError, for a file that is none: other text, or MOST_PIECES and more.
        """
        content = read_file(path, MOST_BYTES)
        if content.count(b"\n") > MOST_PIECES:
            raise FileError(f"{path}: a vocabulary has at most {MOST_PIECES:,} pieces; got more")
        lines = decode(path, content).replace("\r\n", "\n").removesuffix("\n")
        try:
            return cls(lines.split("\n"), lower)
        except ValueError as error:
            raise FileError(f"{path}: {error}") from None

    def save(self, path):
        """Write the vocabulary to a vocab.txt, whole or not at all."""
        write_whole(path, "".join(f"{piece}\n" for piece in self.vocab).encode())

    def __len__(self):
        return len(self.vocab)

    def tokenize(self, text):
        """The pieces of a text: a list of strings."""
        pieces = []
        for part in re.split(_SPECIAL, text):
            if part in SPECIAL:
                pieces.append(part)
            else:
                for word in split_words(part, self.lower):
                    pieces += self._split_word(word)
        return pieces

    def _split_word(self, word):
        if word in self._pieces:
            return self._pieces[word]
        pieces, start = [], 0
        while start < len(word) <= LONGEST_WORD:
            prefix = "##" if start else ""
            for end in range(len(word), start, -1):
                if prefix + word[start:end] in self.ids:
                    break
            else:
                break
            pieces.append(prefix + word[start:end])
            start = end
        self._pieces[word] = pieces if start == len(word) else ["[UNK]"]
        return self._pieces[word]

    def encode(self, text, pair=None, max_length=None):
        """Numbers of [CLS] text [SEP], or [CLS] text [SEP] pair [SEP] -> (ids, segments), two lists.

        segments: 0 up to the first [SEP], 1 for the pair. max_length: of the ids with [CLS] and
        [SEP]; pieces at the end of the longer text go first. Raises ValueError if it leaves no room.
        """
        parts = [self.tokenize(each) for each in (text, pair) if each is not None]
        if max_length is not None:
            room = max_length - 1 - len(parts)
            if room < 0:
                raise ValueError(
                    f"WordPiece: max_length must be at least {1 + len(parts)}; got {max_length}"
                )
            while sum(map(len, parts)) > room:
                max(parts, key=len).pop()
        ids, segments = [self.cls], [0]
        for number, pieces in enumerate(parts):
            ids += [*(self.ids[piece] for piece in pieces), self.sep]
            segments += [number] * (len(pieces) + 1)
        return ids, segments

    def __call__(self, texts, pairs=None, max_length=None):
        """Encode texts (and pairs) and pad them at the end to one length T.

        Returns {"input_ids", "attention_mask", "token_type_ids"}, int64 (N, T) each; the mask is 1
        where there is text. max_length as for `encode`.
        """
        if isinstance(texts, str):
            raise TypeError("WordPiece: give a list of texts; got one text")
        pairs = [None] * len(texts) if pairs is None else pairs
        if len(pairs) != len(texts):
            raise ValueError(f"WordPiece: {len(texts)} texts need as many pairs; got {len(pairs)}")
        rows = [
            self.encode(text, pair, max_length) for text, pair in zip(texts, pairs, strict=True)
        ]
        length = max((len(ids) for ids, _ in rows), default=0)
        batch = {
            name: np.full((len(rows), length), fill, np.int64)
            for name, fill in (
                ("input_ids", self.pad),
                ("attention_mask", 0),
                ("token_type_ids", 0),
            )
        }
        for i, (ids, segments) in enumerate(rows):
            batch["input_ids"][i, : len(ids)] = ids
            batch["attention_mask"][i, : len(ids)] = 1
            batch["token_type_ids"][i, : len(ids)] = segments
        return batch

    def mask_pieces(self, ids, rng, share=0.15, whole_words=False):
        """Hide pieces for a network to guess: integers (..., T) -> (what it reads, bools: what to guess).

        Each piece but those in SPECIAL is to be guessed with probability `share`, a number or an array like
        ids. Of those eight in ten read [MASK], one in ten any piece, and one in ten itself. whole_words: the
        pieces of a word are guessed together, with the share of its first; else the end of a word often
        gives its beginning away. rng: a NumPy generator. Devlin et al. 2019, and their later code.
        """
        words = np.ones(len(self), bool)
        words[[self.ids[name] for name in SPECIAL]] = False
        draw = rng.random(ids.shape)
        if whole_words:
            first = self._first_pieces(ids)
            draw = np.take_along_axis(draw, first, -1)
            share = np.take_along_axis(np.broadcast_to(share, ids.shape), first, -1)
        guess = words[ids] & (draw < share)
        fate = rng.random(ids.shape)
        any_piece = rng.choice(np.flatnonzero(words), ids.shape)
        read = np.where(guess & (fate < 0.8), self.mask, ids)
        return np.where(guess & (fate >= 0.9), any_piece, read), guess

    def _first_pieces(self, ids):
        """Where along the last axis the word of each piece begins, (..., T)."""
        begins = np.array([not piece.startswith("##") for piece in self.vocab])
        places = np.where(begins[ids], np.arange(ids.shape[-1]), 0)
        return np.maximum.accumulate(places, axis=-1)

    def decode(self, ids, skip_special=True):
        """The text of some numbers, with the pieces of a word joined and spaces between words."""
        pieces = [self.vocab[i] for i in ids]
        if skip_special:
            pieces = [piece for piece in pieces if piece not in SPECIAL or piece == "[UNK]"]
        return " ".join(pieces).replace(" ##", "")


_SPECIAL = re.compile(f"({'|'.join(map(re.escape, SPECIAL))})")


def split_words(text, lower=True):
    """Words, each punctuation mark and each Chinese character by itself; see `WordPiece` for lower."""
    if lower:
        text = unicodedata.normalize("NFD", text)
        text = "".join(c.lower() for c in text if unicodedata.category(c) != "Mn")
    return "".join(map(_with_spaces, text)).split()


@functools.cache  # there are as many entries as characters
def _with_spaces(char):
    """The character, with spaces around it if it is a word of its own, a space, or nothing."""
    category = unicodedata.category(char)
    if category.startswith("C") and char not in "\t\n\r" or char == "\N{REPLACEMENT CHARACTER}":
        return ""
    if char.isspace():
        return " "
    in_ascii_marks = (
        char.isascii() and not char.isalnum()
    )  # +, $ and ~ are no punctuation elsewhere
    is_mark = in_ascii_marks or category.startswith("P")
    is_chinese = any(first <= ord(char) <= last for first, last in _CHINESE)
    return f" {char} " if is_mark or is_chinese else char


_CHINESE = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


def learn_pieces(words, count, min_count=2):
    """At most `count` pieces from {word: how often}: the characters, then merged neighbours.

    Every word begins as its characters. The two neighbours that stand together most often become one
    piece everywhere, over and over; of equally frequent ones the first in Unicode's order.
    Raises ValueError if `count` is less than the number of characters.
    """
    spelt = [[word[0], *(f"##{c}" for c in word[1:])] for word in words]
    times = list(words.values())
    pieces = sorted({symbol for word in spelt for symbol in word})
    if len(pieces) > count:
        raise ValueError(
            f"WordPiece: the texts have {len(pieces)} characters (counted apart inside words), which "
            f"a vocabulary with room for {count} cannot hold"
        )

    together, found_in = Counter(), defaultdict(set)
    for i, word in enumerate(spelt):
        for pair in zip(word, word[1:], strict=False):
            together[pair] += times[i]
            found_in[pair].add(i)
    # Counts in the heap may be out of date; a pair whose count changed is pushed again.
    heap = [(-n, pair) for pair, n in together.items()]
    heapq.heapify(heap)
    known = set(pieces)
    while heap and len(pieces) < count:
        n, pair = heapq.heappop(heap)
        if -n != together[pair]:
            continue
        if -n < min_count:
            break
        merged = pair[0] + pair[1].removeprefix("##")
        if merged not in known:  # two ways of cutting it may lead to one piece
            known.add(merged)
            pieces.append(merged)
        changed = set()
        for i in found_in.pop(pair):
            word = spelt[i]
            for old in zip(word, word[1:], strict=False):
                together[old] -= times[i]
                changed.add(old)
            spelt[i] = word = _merge(word, pair, merged)
            for new in zip(word, word[1:], strict=False):
                together[new] += times[i]
                found_in[new].add(i)
                changed.add(new)
        for each in changed:
            if together[each] > 0:
                heapq.heappush(heap, (-together[each], each))
    return pieces


def _merge(word, pair, merged):
    """The word's pieces with each occurrence of the pair replaced, from the left."""
    out, i = [], 0
    while i < len(word):
        if tuple(word[i : i + 2]) == pair:
            out.append(merged)
            i += 2
        else:
            out.append(word[i])
            i += 1
    return out
