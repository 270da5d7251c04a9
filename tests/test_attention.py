"""Attention and Transformer layers: PyTorch's weights give PyTorch's results; what is refused."""

import copy

import numpy as np
import pytest

import tinygrad_zen as tz
from tinygrad_zen import nn, ops
from tinygrad_zen.nn import functional as F

# PyTorch's advice on a fast path of its own
pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor:UserWarning")

PADDING = np.array([[False, False, True, True], [False, False, False, False]])
PAIRS = np.triu(np.ones((4, 4), bool), 1)
MASKS = {
    "no mask": {},
    "padding": {"key_padding_mask": PADDING},
    "pairs": {"attn_mask": PAIRS},
    "both": {"key_padding_mask": PADDING, "attn_mask": PAIRS},
    "floats": {"attn_mask": np.linspace(-1, 1, 16).reshape(4, 4)},
    "floats and padding": {
        "key_padding_mask": np.where(PADDING, -np.inf, 0.0),
        "attn_mask": np.linspace(-1, 1, 16).reshape(4, 4),
    },
    "by head": {"attn_mask": np.linspace(-1, 1, 64).reshape(4, 4, 4)},
}


def torch_module():
    return pytest.importorskip("torch")


def pair(ours, theirs):
    """Both in float64, PyTorch's weights in ours, under the same names in the same order."""
    torch = torch_module()
    with torch.no_grad():
        for p in theirs.double().parameters():
            p.add_(0.1 * torch.randn_like(p))  # biases and norms would start at 0 and 1
    ours.to("float64").load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    return ours, theirs


def assert_same(ours, theirs, xs, call):
    """call(module, *xs): the outputs, and the gradients of xs and all weights."""
    torch = torch_module()
    mine = [tz.tensor(x, requires_grad=True) for x in xs]
    yours = [torch.tensor(x, requires_grad=True) for x in xs]
    y, u = call(ours, *mine), call(theirs, *yours)
    y, u = (z if isinstance(z, tuple) else (z,) for z in (y, u))
    seeds = [np.random.default_rng(i).standard_normal(a.shape) for i, a in enumerate(y)]
    sum((a * s).sum() for a, s in zip(y, seeds, strict=True)).backward()
    sum((b * torch.tensor(s)).sum() for b, s in zip(u, seeds, strict=True)).backward()
    pairs = list(zip(y, u, strict=True))
    pairs += [(a.grad, b.grad) for a, b in zip(mine, yours, strict=True)]
    weights = dict(theirs.named_parameters())
    pairs += [(p.grad, weights[n].grad) for n, p in ours.named_parameters()]
    for a, b in pairs:
        np.testing.assert_allclose(a.numpy(), b.detach().numpy(), rtol=1e-10, atol=1e-10)


def as_torch(options):
    torch = torch_module()
    return {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}


@pytest.mark.parametrize("batch_first", [False, True], ids=["", "batch first"])
@pytest.mark.parametrize("need", [False, True], ids=["", "weights"])
@pytest.mark.parametrize("masks", MASKS)
def test_multihead_attention_equals_pytorch(backend, masks, need, batch_first):
    torch = torch_module()
    options = {"batch_first": batch_first, "bias": masks != "no mask"}
    ours, theirs = pair(
        nn.MultiheadAttention(6, 2, **options), torch.nn.MultiheadAttention(6, 2, **options)
    )
    options = MASKS[masks] | {"need_weights": need}
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((2, 4, 6)) for _ in range(3))
    if not batch_first:
        q, k, v = (x.swapaxes(0, 1).copy() for x in (q, k, v))

    def call(module, *xs):
        mine = module is ours
        y, weights = module(*xs, **(options if mine else as_torch(options)))
        return (y, weights) if need else y

    assert_same(ours, theirs, [q, k, v], call)


def test_weights_of_each_head_and_causal_attention():
    torch = torch_module()
    ours, theirs = pair(
        nn.MultiheadAttention(6, 2, batch_first=True),
        torch.nn.MultiheadAttention(6, 2, batch_first=True),
    )
    x = np.random.default_rng(0).standard_normal((2, 4, 6))

    def call(module, x):
        options = {} if module is ours else {"attn_mask": torch.tensor(PAIRS)}
        return module(x, x, x, average_attn_weights=False, is_causal=True, **options)

    assert_same(ours, theirs, [x], call)
    y, _ = ours(*[tz.tensor(x)] * 3, is_causal=True, need_weights=False)
    np.testing.assert_allclose(y.numpy(), call(ours, tz.tensor(x))[0].numpy(), rtol=1e-12)


def test_a_float_mask_may_be_learned():
    """As relative positions are: then the mask receives its gradient."""
    torch = torch_module()
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s) for s in ((2, 3, 4), (2, 5, 4), (2, 5, 2), (3, 5))]
    mine = [tz.tensor(a, requires_grad=True) for a in arrays]
    yours = [torch.tensor(a, requires_grad=True) for a in arrays]
    F.scaled_dot_product_attention(*mine).sum().backward()
    torch.nn.functional.scaled_dot_product_attention(*yours).sum().backward()
    for a, b in zip(mine, yours, strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-10, atol=1e-12)


def test_a_query_without_keys_gets_zero(backend):
    q, k, v = (tz.tensor(np.ones((2, 3)), requires_grad=True) for _ in range(3))
    seen = np.array([[True, True], [False, False]])
    y = F.scaled_dot_product_attention(q, k, v, seen)
    y.sum().backward()
    np.testing.assert_array_equal(y.numpy(), [[1, 1, 1], [0, 0, 0]])
    assert all(np.isfinite(t.grad.numpy()).all() for t in (q, k, v))
    weights = F.attention_weights(q, k, seen)
    np.testing.assert_array_equal(weights.numpy(), [[0.5, 0.5], [0, 0]])


def test_dropout_of_the_weights():
    """With values of 1 the result is the sum of the weights that were kept, each doubled."""
    q, k, v = (tz.tensor(np.zeros((20, 30, 4), np.float32)) + i for i in (0, 0, 1))
    y = F.scaled_dot_product_attention(q, k, v, dropout_p=0.5).numpy()[..., 0]
    kept = y * 15
    np.testing.assert_allclose(kept, np.round(kept), atol=1e-4)
    assert abs(y.mean() - 1) < 0.02 and y.std() > 0.1
    layer = nn.MultiheadAttention(4, 2, dropout=0.5)
    x = tz.tensor(np.random.default_rng(0).standard_normal((5, 2, 4)).astype(np.float32))
    for need in (False, True):
        first, second = (layer(x, x, x, need_weights=need)[0].numpy() for _ in range(2))
        assert (first != second).any()
        layer.eval()
        first, second = (layer(x, x, x, need_weights=need)[0].numpy() for _ in range(2))
        np.testing.assert_array_equal(first, second)
        layer.train()


@pytest.mark.parametrize("norm_first", [False, True], ids=["", "norm first"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_transformer_equals_pytorch(backend, activation, norm_first):
    """An encoder of two layers and a decoder of two that looks into what it gives, with masks."""
    torch = torch_module()

    class Both:
        def __init__(self, nn, Module):
            options = {"activation": activation, "norm_first": norm_first, "batch_first": True}
            sizes = 8, 2, 16, 0.0
            encoder = nn.TransformerEncoderLayer(*sizes, **options)
            decoder = nn.TransformerDecoderLayer(*sizes, **options)
            self.module = Module()
            self.module.encoder = nn.TransformerEncoder(encoder, 2, nn.LayerNorm(8))
            self.module.decoder = nn.TransformerDecoder(decoder, 2)

    ours, theirs = pair(Both(nn, nn.Module).module, Both(torch.nn, torch.nn.Module).module)
    rng = np.random.default_rng(0)
    source, target = rng.standard_normal((2, 4, 8)), rng.standard_normal((2, 3, 8))

    def call(module, source, target):
        padding, causal = PADDING, PAIRS[:3, :3]
        if module is theirs:
            padding, causal = torch.tensor(padding), torch.tensor(causal)
        memory = module.encoder(source, src_key_padding_mask=padding)
        masks = {"tgt_mask": causal, "memory_key_padding_mask": padding}
        return module.decoder(target, memory, **masks)

    assert_same(ours, theirs, [source, target], call)


def test_transformer_layers_drop_out_in_training_alone():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, activation=F.silu)
    x = tz.tensor(np.random.default_rng(0).standard_normal((4, 2, 8)).astype(np.float32))
    assert (layer(x).numpy() != layer(x).numpy()).any()
    layer.eval()
    np.testing.assert_array_equal(layer(x).numpy(), layer(x).numpy())
    np.testing.assert_array_equal(layer(x).numpy(), copy.deepcopy(layer)(x).numpy())


def test_positions():
    table = nn.PositionalEncoding(10, 5)
    x = np.zeros((2, 4, 5), np.float32)
    y = table(tz.tensor(x)).numpy()
    t, i = np.meshgrid(np.arange(4), np.arange(5), indexing="ij")
    angle = t / 10000 ** (i // 2 * 2 / 5)
    np.testing.assert_allclose(y[1], np.where(i % 2, np.cos(angle), np.sin(angle)), atol=1e-6)
    assert list(table.parameters()) == [] and list(table.state_dict()) == ["weight"]
    learned = nn.PositionalEmbedding(10, 5)
    learned(tz.tensor(x)).sum().backward()
    expected = np.repeat([[2.0], [0.0]], [4, 6], axis=0) * np.ones(5)
    np.testing.assert_array_equal(learned.weight.grad.numpy(), expected)
    with pytest.raises(ValueError, match=r"PositionalEmbedding: x must be \(..., L, 5\) with L at"):
        learned(tz.tensor(np.zeros((2, 11, 5))))


def test_what_attention_refuses():
    q, k, v = (np.ones(s, np.float32) for s in ((2, 3, 4), (2, 5, 4), (2, 5, 6)))
    wrong = [
        ((q, k[..., :3], v), r"attention: q .* must share .*; got \(2, 3, 4\), \(2, 5, 3\)"),
        ((q, k, v[:, :4]), "attention: q .* must share"),
        ((q, k[0], v), "attention: q .* must share"),
        ((q, k[:, :0], v[:, :0]), "attention: q .* at least 1; got"),
        (
            (q, k, v, np.ones((3, 4), bool)),
            r"mask must broadcast to .* = \(2, 3, 5\); got \(3, 4\)",
        ),
        ((q, k, v, np.ones((7, 2, 3, 5))), r"mask must broadcast to .* got \(7, 2, 3, 5\)"),
    ]
    for args, words in wrong:
        with pytest.raises(ValueError, match=words):
            ops.attention(*args)
    with pytest.raises(TypeError, match="attention: mask must be bools or floats; got int64"):
        ops.attention(q, k, v, np.ones((3, 5), int))


def test_what_the_layers_refuse():
    with pytest.raises(ValueError, match=r"MultiheadAttention: num_heads \(4\) must divide embed"):
        nn.MultiheadAttention(6, 4)
    with pytest.raises(
        ValueError, match=r"MultiheadAttention: dropout must lie in \[0, 1\); got 1"
    ):
        nn.MultiheadAttention(6, 2, dropout=1)
    layer, x = nn.MultiheadAttention(6, 2, batch_first=True), tz.tensor(np.ones((2, 4, 6)))
    layer.to("float64")
    with pytest.raises(ValueError, match=r"key must be \(N, L, D\) with D = 6; got \(2, 4, 5\)"):
        layer(x, x[:, :, :5], x)
    with pytest.raises(
        ValueError, match=r"key_padding_mask must be .* = \(2, 4\); got bool \(4, 2\)"
    ):
        layer(x, x, x, key_padding_mask=PADDING.T)
    with pytest.raises(
        ValueError, match=r"attn_mask must be .* = \(4, 4\) or \(4, 4, 4\); got int64"
    ):
        layer(x, x, x, attn_mask=np.ones((4, 4), int))
    with pytest.raises(
        ValueError, match="TransformerEncoderLayer: activation must be .* got 'elu'"
    ):
        nn.TransformerEncoderLayer(6, 2, activation="elu")
    with pytest.raises(
        ValueError, match="TransformerEncoder: num_layers must be at least 1; got 0"
    ):
        nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2), 0)
    assert repr(layer).startswith("MultiheadAttention(\n  6, 2, batch_first=True\n")
