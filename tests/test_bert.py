"""BERT: the same numbers as Hugging Face's transformers from the same files, and what is refused."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import tinygrad_zen as tz
import tinygrad_zen.nn.functional as F
from tinygrad_zen import data, io, nn, optim

ROOT = Path(__file__).resolve().parent.parent
SIZES = {
    "vocab_size": 29,
    "hidden_size": 12,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 20,
    "max_position_embeddings": 16,
}
PIECES = [*"[PAD] [UNK] [CLS] [SEP] [MASK] a film great dull ##er the".split(), *"bcdefghij"]


@pytest.fixture
def transformers(monkeypatch):
    """The library, and PyTorch. It would take this project's folder `kernels` for a package of that name."""
    pytest.importorskip("torch")
    monkeypatch.setattr(sys, "path", [p for p in sys.path if Path(p).resolve() != ROOT])
    return pytest.importorskip("transformers.models.bert")


def their_folder(transformers, folder, kind="BertModel", **changes):
    """A small random model of theirs, not as new, in a folder as they save it; -> the model."""
    import torch

    torch.manual_seed(0)
    net = getattr(transformers, kind)(transformers.BertConfig(**SIZES | changes)).eval()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.2 * torch.randn_like(p))  # biases and norms would start at 0 and 1
    net.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    return net


def a_batch():
    """Pieces (3, 7), the mask of texts of unequal length, and segments."""
    rng = np.random.default_rng(0)
    mask = np.arange(7) < np.array([[7], [4], [1]])
    return {
        "input_ids": rng.integers(5, 29, (3, 7)) * mask,
        "attention_mask": mask.astype(np.int64),
        "token_type_ids": rng.integers(0, 2, (3, 7)),
    }


def close(ours, theirs):
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=0, atol=1e-5)


# against transformers


@pytest.mark.parametrize("act", ["gelu", "gelu_new", "relu", "silu"])
def test_hidden_states_are_those_of_transformers(transformers, tmp_path, backend, act):
    import torch

    theirs = their_folder(transformers, tmp_path, hidden_act=act, attn_implementation="eager")
    ours = nn.BertModel.from_pretrained(tmp_path)
    assert not ours.training and ours.config.hidden_act == act
    batch = a_batch()
    tensors = {name: torch.tensor(x) for name, x in batch.items()}
    for names in (["input_ids"], ["input_ids", "attention_mask"], list(batch)):
        expected = theirs(
            **{n: tensors[n] for n in names}, output_hidden_states=True, output_attentions=True
        )
        for look in (False, True):
            got = ours(**{n: batch[n] for n in names}, output_attentions=look)
            close(got.last_hidden_state, expected.last_hidden_state)
            close(got.pooler_output, expected.pooler_output)
            assert len(got.hidden_states) == len(expected.hidden_states) == 4
            for a, b in zip(got.hidden_states, expected.hidden_states, strict=True):
                close(a, b)
        for a, b in zip(got.attentions, expected.attentions, strict=True):
            close(a, b)


@pytest.mark.parametrize("kind", ["BertForMaskedLM", "BertForSequenceClassification"])
def test_scores_and_gradients_are_those_of_transformers(transformers, tmp_path, backend, kind):
    import torch

    theirs = their_folder(transformers, tmp_path, kind, num_labels=3).double()
    ours = getattr(nn, kind).from_pretrained(tmp_path).to("float64")
    assert ours.config.num_labels == 3
    batch = a_batch()
    expected = theirs(**{name: torch.tensor(x) for name, x in batch.items()}).logits
    got = ours(**batch)
    close(got, expected)
    seed = np.random.default_rng(1).standard_normal(got.shape)
    (got * seed).sum().backward()
    (expected * torch.tensor(seed)).sum().backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, p in ours.named_parameters():
        np.testing.assert_allclose(p.grad.numpy(), gradients[name].numpy(), rtol=1e-6, atol=1e-6)


def test_transformers_reads_what_we_write(transformers, tmp_path):
    import torch

    ours = nn.BertForSequenceClassification(nn.BertConfig(**SIZES, num_labels=3)).eval()
    ours.save_pretrained(tmp_path)
    theirs = transformers.BertForSequenceClassification.from_pretrained(tmp_path).eval()
    batch = a_batch()
    close(ours(**batch), theirs(**{n: torch.tensor(x) for n, x in batch.items()}).logits)


def test_a_head_is_left_in_the_file_or_starts_anew(transformers, tmp_path):
    """From the file of the first BERTs, with both heads of their pre-training."""
    theirs = their_folder(transformers, tmp_path, "BertForPreTraining")
    ids = a_batch()["input_ids"]
    import torch

    expected = theirs(torch.tensor(ids))
    bert = nn.BertModel.from_pretrained(tmp_path)
    close(bert(ids).pooler_output, theirs.bert(torch.tensor(ids)).pooler_output)
    close(nn.BertForMaskedLM.from_pretrained(tmp_path)(ids), expected.prediction_logits)
    tz.seed(1)
    net = nn.BertForSequenceClassification.from_pretrained(tmp_path, num_labels=5)
    np.testing.assert_array_equal(
        net.bert(ids).pooler_output.numpy(), bert(ids).pooler_output.numpy()
    )
    assert net(ids).shape == (3, 5) and not net.classifier.bias.numpy().any()


# files, without transformers


@pytest.fixture
def folder(tmp_path):
    """A BertModel of ours, with a vocabulary, as saved."""
    net = nn.BertModel(nn.BertConfig(**SIZES))
    net.tokenizer = data.WordPiece(PIECES)
    net.save_pretrained(tmp_path)
    return tmp_path


def change(folder, f):
    """Replace the weights {name: array} of a folder by f of them."""
    path = folder / "model.safetensors"
    io.save_state(path, f(io.load_state(path)[0]))


def refused(message, folder, kind=nn.BertModel, error=ValueError):
    with pytest.raises(error) as caught:
        kind.from_pretrained(folder)
    assert message in str(caught.value), str(caught.value)


def test_saved_and_read_again(folder):
    first, second = (nn.BertModel.from_pretrained(folder) for _ in range(2))
    ids = a_batch()["input_ids"]
    np.testing.assert_array_equal(first(ids)[0].numpy(), second(ids)[0].numpy())
    assert first.tokenizer.tokenize("A duller film") == ["a", "dull", "##er", "film"]
    batch = first.tokenizer(["a film", "the great dull film"])
    assert first(**batch).last_hidden_state.shape == (2, 6, 12)
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert nn.BertModel.from_pretrained(folder).tokenizer.tokenize("A film") == ["[UNK]", "film"]
    (folder / "vocab.txt").unlink()
    assert nn.BertModel.from_pretrained(folder).tokenizer is None


def test_old_names_and_counted_places(folder):
    """With gamma and beta for the norms, "bert." in front, and the places saved as numbers."""
    ids = a_batch()["input_ids"]
    expected = nn.BertModel.from_pretrained(folder)(ids)[0].numpy()

    def old(arrays):
        named = {
            "bert."
            + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            ): value
            for name, value in arrays.items()
        }
        return named | {"bert.embeddings.position_ids": np.arange(16)[None]}

    change(folder, old)
    np.testing.assert_array_equal(nn.BertModel.from_pretrained(folder)(ids)[0].numpy(), expected)


def test_without_a_pooler(folder):
    change(folder, lambda arrays: {n: v for n, v in arrays.items() if "pooler" not in n})
    ids = a_batch()["input_ids"]
    assert nn.BertModel.from_pretrained(folder)(ids).pooler_output is None
    assert nn.BertForSequenceClassification.from_pretrained(folder)(ids).shape == (3, 2)


def test_files_that_are_missing(tmp_path, folder):
    refused("none: no such folder", tmp_path / "none", error=FileNotFoundError)
    path = folder / "model.safetensors"
    path.rename(folder / "pytorch_model.bin")
    words = f"{path}: no such file; there is pytorch_model.bin: load that with Hugging Face's"
    refused(words, folder, error=FileNotFoundError)
    (folder / "pytorch_model.bin").unlink()
    refused(f"{path}: no such file", folder, error=FileNotFoundError)
    (folder / "config.json").unlink()
    refused("config.json: no such file", folder, error=FileNotFoundError)


def test_weights_that_do_not_fit(folder):
    path = folder / "model.safetensors"
    kept = path.read_bytes()
    name = "encoder.layer.1.output.dense.weight"
    change(folder, lambda arrays: {n: v for n, v in arrays.items() if n != name})
    refused(f"{path}: load_state_dict: BertModel\n  missing: {name}", folder)
    path.write_bytes(kept)
    change(folder, lambda arrays: arrays | {"encoder.layer.3.output.dense.weight": arrays[name]})
    refused("unexpected: encoder.layer.3.output.dense.weight", folder)
    path.write_bytes(kept)
    change(folder, lambda arrays: arrays | {"decoder.weight": arrays[name]})
    refused("unexpected: decoder.weight", folder, nn.BertForSequenceClassification)
    path.write_bytes(kept)
    change(folder, lambda arrays: arrays | {name: arrays[name][:, 1:]})
    refused(f"mismatched: {name} must be float32 (12, 20); got float32 (12, 19)", folder)
    path.write_bytes(kept[:100])
    refused("the safetensors file is cut short or damaged", folder)


def test_configs_that_do_not_fit(folder):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for changed, words in (
        ({"model_type": "roberta"}, "model_type must be 'bert' for a BERT encoder; got 'roberta'"),
        ({"position_embedding_type": "relative_key"}, "must be 'absolute' for a BERT encoder"),
        ({"num_attention_heads": 5}, "num_attention_heads (5) must divide hidden_size (12)"),
        ({"hidden_act": "swish"}, "unknown hidden_act 'swish': choose from gelu, gelu_new"),
        ({"vocab_size": 5.5}, "vocab_size must be an int; got 5.5"),
        ({"vocab_size": 12}, "20 pieces, but the config's vocab_size is 12"),
    ):
        path.write_text(json.dumps(config | changed))
        if changed == {"vocab_size": 12}:
            key = "embeddings.word_embeddings.weight"
            change(folder, lambda arrays: arrays | {key: arrays[key][:12]})
        refused(words, folder)
    for text, words in (
        ("{", "damaged JSON text: Expecting"),
        ("[1]", "an object {...} is needed; got list"),
        (json.dumps(config | {"id2label": 3}), "id2label must name labels; got 3"),
        (json.dumps(config | {"layer_norm_eps": "x"}), "layer_norm_eps must be a number; got 'x'"),
        (json.dumps(config | {"hidden_dropout_prob": 3}), "p must"),
        (json.dumps(config | {"intermediate_size": 10**9}), "is more than there are weights for"),
        (json.dumps(config | {"num_hidden_layers": 10**9}), "is more than there are weights for"),
    ):
        path.write_text(text)
        refused(f"{path}: ", folder, error=tz.io.FileError)
        refused(words, folder)


# the network


def test_padding_changes_nothing():
    """A short text alone, and the same with padding: one result; what stands in the padding is not seen."""
    net = nn.BertModel(nn.BertConfig(**SIZES)).eval()
    ids = np.array([[5, 6, 7]])
    alone = net(ids)
    for padding in (0, 9):
        padded = net(
            np.array([[5, 6, 7, padding, padding]]), attention_mask=np.array([[1, 1, 1, 0, 0]])
        )
        close(padded.last_hidden_state[:, :3], alone.last_hidden_state.detach())
    unseen = net(np.array([[5, 6, 7, 9, 9]])).last_hidden_state[:, :3].numpy()
    assert np.abs(unseen - alone.last_hidden_state.numpy()).max() > 1e-3


def test_scores_of_some_places(backend):
    net = nn.BertForMaskedLM(nn.BertConfig(**SIZES)).eval()
    ids = a_batch()["input_ids"]
    places = np.zeros((3, 7), bool)
    places[[0, 2, 2], [6, 1, 3]] = True
    close(net(ids, positions=places), tz.tensor(net(ids).numpy()[places]))


def test_what_a_bert_cannot_read():
    net = nn.BertModel(nn.BertConfig(**SIZES))
    for ids in (np.zeros(3, int), np.zeros((2, 17), int)):
        with pytest.raises(
            ValueError, match=r"input_ids must be \(N, T\) with T from 1 to 16; got"
        ):
            net(ids)
    ids = np.zeros((2, 3), int)
    with pytest.raises(ValueError, match=r"attention_mask must be \(2, 3\), as input_ids; got"):
        net(ids, np.ones((2, 4), int))
    with pytest.raises(ValueError, match=r"token_type_ids must be \(2, 3\), as input_ids; got"):
        net(ids, None, np.ones((1, 3), int))
    with pytest.raises(ValueError, match="indices must lie in 0..28; got 0..29"):
        net(ids + np.array([0, 0, 29]))


def test_new_weights_are_those_of_the_paper():
    net = nn.BertForMaskedLM(nn.BertConfig(vocab_size=500, num_hidden_layers=1, hidden_size=48))
    for name, p in net.named_parameters():
        if "LayerNorm" not in name and name.endswith("weight"):
            assert p.numpy().std() == pytest.approx(0.02, rel=0.25), name
        elif name.endswith("bias"):
            assert not p.numpy().any(), name


def test_a_bert_learns_to_guess_hidden_pieces():
    """Texts of one piece, over and over: whoever looks at the others knows it."""
    tokenizer = data.WordPiece(PIECES)
    rng = np.random.default_rng(0)
    ids = rng.integers(5, 20, (64, 1)).repeat(6, axis=1)
    net = nn.BertForMaskedLM(
        nn.BertConfig(**SIZES, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    )
    optimizer = optim.AdamW(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(120):
        read, guess = tokenizer.mask_pieces(ids, rng)
        optimizer.zero_grad()
        loss = F.cross_entropy(net(read, positions=guess), tz.tensor(ids[guess]))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 3 and np.mean(losses[-10:]) < 0.7


def test_pieces_are_hidden_in_the_shares_of_the_paper():
    tokenizer = data.WordPiece(PIECES)
    ids = np.full((400, 100), 7)
    ids[:, 0], ids[:, 50:] = tokenizer.cls, tokenizer.pad
    read, guess = tokenizer.mask_pieces(ids, np.random.default_rng(0))
    assert not guess[:, 0].any() and not guess[:, 50:].any()
    assert guess[:, 1:50].mean() == pytest.approx(0.15, abs=0.01)
    np.testing.assert_array_equal(read[~guess], ids[~guess])
    shares = [(read[guess] == piece).mean() for piece in (tokenizer.mask, 7)]
    assert shares[0] == pytest.approx(0.8, abs=0.02)
    assert shares[1] == pytest.approx(0.1 + 0.1 / 15, abs=0.02)  # one of fifteen pieces is itself
    assert set(np.unique(read[guess])) == {tokenizer.mask, *range(5, 20)}


def test_each_piece_can_be_hidden_with_its_own_share():
    tokenizer = data.WordPiece(PIECES)
    ids = np.tile([7, 8, 9, tokenizer.sep], (2000, 1))
    shares = np.tile([0.0, 0.3, 1.0, 1.0], (2000, 1))
    guess = tokenizer.mask_pieces(ids, np.random.default_rng(0), shares)[1]
    np.testing.assert_allclose(guess.mean(axis=0), [0, 0.3, 1, 0], atol=0.03)


def test_pieces_of_a_word_are_hidden_together():
    tokenizer = data.WordPiece([*data.wordpiece.SPECIAL, "play", "##ing", "##s", "a"])
    rows = ["[CLS]", "play", "##ing", "##s", "a", "play", "##s", "[SEP]"]
    ids = np.tile([tokenizer.ids[piece] for piece in rows], (3000, 1))
    guess = tokenizer.mask_pieces(ids, np.random.default_rng(0), 0.3, whole_words=True)[1]
    np.testing.assert_array_equal(guess[:, 1], guess[:, 2])
    np.testing.assert_array_equal(guess[:, 1], guess[:, 3])
    np.testing.assert_array_equal(guess[:, 5], guess[:, 6])
    assert not guess[:, [0, 7]].any()
    np.testing.assert_allclose(guess[:, [1, 4, 5]].mean(axis=0), 0.3, atol=0.03)
    assert np.corrcoef(guess[:, 1], guess[:, 5])[0, 1] < 0.1  # one word says nothing of another
    shares = np.where(ids == tokenizer.ids["a"], 1.0, np.where(ids == ids[0, 1], 0.0, 0.7))
    guess = tokenizer.mask_pieces(ids, np.random.default_rng(0), shares, whole_words=True)[1]
    np.testing.assert_array_equal(guess.any(axis=0), np.array(rows) == "a")
