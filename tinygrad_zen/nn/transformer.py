"""Transformer encoders and decoders. Vaswani et al. 2017."""

import copy

from . import functional as F
from . import fusion
from .attention import MultiheadAttention
from .containers import ModuleList
from .dropout import Dropout
from .linear import Linear
from .module import Module, reserve
from .normalize import LayerNorm


class _Layer(Module):
    """What encoder and decoder layers share: residuals around attention and a dense network."""

    def __init__(
        self,
        d_model,
        nhead,
        dim_feedforward=2048,
        dropout=0.1,
        activation="relu",
        layer_norm_eps=1e-5,
        batch_first=False,
        norm_first=False,
        bias=True,
    ):
        name = type(self).__name__
        if activation not in ("relu", "gelu") and not callable(activation):
            raise ValueError(
                f"{name}: activation must be 'relu', 'gelu' or a function; got {activation!r}"
            )
        self.activation = getattr(F, activation) if isinstance(activation, str) else activation
        self.norm_first = norm_first
        self._build_attention((d_model, nhead, dropout, bias, batch_first))
        self.linear1 = Linear(d_model, dim_feedforward, bias)
        self.linear2 = Linear(dim_feedforward, d_model, bias)
        for i in range(1, self.residuals + 1):
            setattr(self, f"norm{i}", LayerNorm(d_model, layer_norm_eps, bias=bias))
        self.dropout = Dropout(dropout)

    def residual(self, norm, x, change):
        """x + change(x), normalised behind the sum, or with norm_first in front of the change."""
        if self.norm_first:
            return x + self.dropout(change(norm(x)))
        return norm(x + self.dropout(change(x)))

    def dense(self, x):
        """The dense network of two layers, for each position by itself."""
        drops = self.training and self.dropout.p > 0
        if not drops and not self.dropout._forward_hooks:
            y = fusion.feed_forward(self.linear1, self.activation, self.linear2, x)
            if y is not None:
                return y
        return self.linear2(self.dropout(self.activation(self.linear1(x))))

    def attend(self, attention, x, memory, mask, padding, causal):
        """x after looking into memory, or into itself if that is None."""
        memory = x if memory is None else memory
        return attention(x, memory, memory, padding, False, mask, is_causal=causal)[0]

    def extra_repr(self):
        return "norm_first=True" if self.norm_first else ""


class TransformerEncoderLayer(_Layer):
    """Self-attention and a dense network of two layers: (L, N, d_model), the shape stays.

    x = norm1(x + self_attn(x)), then norm2(x + linear2(activation(linear1(x)))); with norm_first each
    norm comes before what it is added around. activation: "relu", "gelu" or a function of Tensors.
    batch_first: (N, L, d_model). Masks as for MultiheadAttention: True is left out. Vaswani et al. 2017;
    norm_first: Xiong et al. 2020.

        layer = nn.TransformerEncoderLayer(128, 4, 512, activation="gelu", batch_first=True)
        layer(x, src_key_padding_mask=padding)
    """

    residuals = 2

    def _build_attention(self, options):
        self.self_attn = MultiheadAttention(*options)

    def forward(self, src, src_mask=None, src_key_padding_mask=None, is_causal=False):
        def look(x):
            return self.attend(self.self_attn, x, None, src_mask, src_key_padding_mask, is_causal)

        return self.residual(self.norm2, self.residual(self.norm1, src, look), self.dense)


class TransformerDecoderLayer(_Layer):
    """An encoder layer that also looks into a memory: (L, N, d_model), (S, N, d_model) -> (L, N, d_model).

    Between self_attn and the dense network comes multihead_attn, from x into the memory (an encoder's
    result). Options as for TransformerEncoderLayer. Vaswani et al. 2017.

        layer = nn.TransformerDecoderLayer(128, 4, 512, batch_first=True)
        layer(x, memory, tgt_is_causal=True)
    """

    residuals = 3

    def _build_attention(self, options):
        self.self_attn = MultiheadAttention(*options)
        self.multihead_attn = MultiheadAttention(*options)

    def forward(
        self,
        tgt,
        memory,
        tgt_mask=None,
        memory_mask=None,
        tgt_key_padding_mask=None,
        memory_key_padding_mask=None,
        tgt_is_causal=False,
        memory_is_causal=False,
    ):
        def look(x):
            options = tgt_mask, tgt_key_padding_mask, tgt_is_causal
            return self.attend(self.self_attn, x, None, *options)

        def look_into_memory(x):
            options = memory_mask, memory_key_padding_mask, memory_is_causal
            return self.attend(self.multihead_attn, x, memory, *options)

        x = self.residual(self.norm1, tgt, look)
        x = self.residual(self.norm2, x, look_into_memory)
        return self.residual(self.norm3, x, self.dense)


def _copy(layer):
    for p in layer.parameters():
        reserve(*p.shape)
    return copy.deepcopy(layer)


class _Stack(Module):
    """num_layers copies of a layer, each with weights of its own, and a norm behind the last."""

    def __init__(self, layer, num_layers, norm=None):
        if num_layers < 1:
            raise ValueError(
                f"{type(self).__name__}: num_layers must be at least 1; got {num_layers}"
            )
        self.layers = ModuleList(_copy(layer) for _ in range(num_layers))
        self.norm = norm

    def forward(self, x, *args, **options):
        for layer in self.layers:
            x = layer(x, *args, **options)
        return x if self.norm is None else self.norm(x)


class TransformerEncoder(_Stack):
    """num_layers encoder layers one after the other, then norm (a module, or None).

    They are copies of one layer and start, as in PyTorch, from equal weights: draw new ones with
    `encoder.apply(...)` if they should not. Arguments of the call are those of the layer.

        layer = nn.TransformerEncoderLayer(128, 4, 512, batch_first=True)
        encoder = nn.TransformerEncoder(layer, 6)
    """


class TransformerDecoder(_Stack):
    """num_layers decoder layers one after the other, then norm (a module, or None).

    Called with (tgt, memory, ...), as the layer is. As for TransformerEncoder.

        decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(128, 4, 512, batch_first=True), 6)
    """
