"""Recurrent layers: RNN, LSTM and GRU over whole sequences."""

import math

from .. import ops
from ..tensor import Tensor
from . import functional as F
from . import init
from .linear import check_sizes
from .module import Module, new_parameter


class _Recurrent(Module):
    """Layers and directions around one cell, whose op a subclass names.

    forward(x, hx=None, lengths=None) -> (y, last state). x (L, N, input_size), or (N, L, input_size) if
    batch_first. lengths: integers (N,), for padded sequences: sequence n is over after lengths[n]
    steps; what lies behind has no influence, y is 0 there, and the last state is that after the last
    step that counts. PyTorch packs sequences for this.
    """

    gates = 1
    states = ("h",)

    def __init__(
        self,
        input_size,
        hidden_size,
        num_layers=1,
        bias=True,
        batch_first=False,
        dropout=0.0,
        bidirectional=False,
    ):
        name = type(self).__name__
        check_sizes(name, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        if not 0 <= dropout < 1:
            raise ValueError(f"{name}: dropout must lie in [0, 1); got {dropout}")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, dropout
        self.bidirectional = bidirectional
        rows = self.gates * hidden_size
        for layer in range(num_layers):
            features = input_size if layer == 0 else hidden_size * len(self._directions())
            for end in self._directions():
                setattr(self, f"weight_ih_l{layer}{end}", new_parameter(rows, features))
                setattr(self, f"weight_hh_l{layer}{end}", new_parameter(rows, hidden_size))
                if bias:
                    setattr(self, f"bias_ih_l{layer}{end}", new_parameter(rows))
                    setattr(self, f"bias_hh_l{layer}{end}", new_parameter(rows))
        self.reset_parameters()

    def reset_parameters(self):
        """Draw new weights, evenly in +-1 / sqrt(hidden_size)."""
        bound = 1 / math.sqrt(self.hidden_size)
        for p in self.parameters():
            init.uniform_(p, -bound, bound)

    def forward(self, x, hx=None, lengths=None):
        name = type(self).__name__
        if x.ndim != 3 or x.shape[2] != self.input_size:
            order = "(N, L, I)" if self.batch_first else "(L, N, I)"
            raise ValueError(f"{name}: x must be {order} with I = {self.input_size}; got {x.shape}")
        x = ops.swapaxes(x, 0, 1) if self.batch_first else x
        before = self._initial(x, hx)
        after = []
        for layer in range(self.num_layers):
            if layer > 0:
                x = F.dropout(x, self.dropout, self.training)
            outputs = []
            for end in self._directions():
                start = [h[len(after)] for h in before]
                y = self.cell(x, start, self._weights(layer, end), lengths, end != "")
                outputs.append(y[: x.shape[0]])
                after.append([y[x.shape[0] + i] for i in range(len(self.states))])
            x = outputs[0] if len(outputs) == 1 else ops.concat(outputs, axis=2)
        last = tuple(ops.stack(hs) for hs in zip(*after, strict=True))
        return ops.swapaxes(x, 0, 1) if self.batch_first else x, self._as_given(last)

    def _directions(self):
        """What the names of the weights end in."""
        return ("", "_reverse") if self.bidirectional else ("",)

    def _weights(self, layer, end):
        kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")[: 4 if self.bias else 2]
        return [getattr(self, f"{kind}_l{layer}{end}") for kind in kinds] + [None] * (
            0 if self.bias else 2
        )

    def _initial(self, x, hx):
        """The states to start with: zeros, or what is given, checked."""
        shape = self.num_layers * len(self._directions()), x.shape[1], self.hidden_size
        if hx is None:
            zeros = Tensor(x.backend.xp.zeros(shape, x.dtype), x.backend)
            return (zeros,) * len(self.states)
        given = hx if isinstance(hx, tuple | list) else (hx,)
        name = type(self).__name__
        if len(given) != len(self.states):
            raise ValueError(
                f"{name}: hx must be ({', '.join(f'{s}_0' for s in self.states)}); got {len(given)} Tensors"
            )
        for word, state in zip(self.states, given, strict=True):
            if state.shape != shape:
                raise ValueError(
                    f"{name}: {word}_0 must be (layers * directions, N, hidden_size) = {shape}; "
                    f"got {state.shape}"
                )
        return given

    def _as_given(self, last):
        return last[0]

    def extra_repr(self):
        s = f"{self.input_size}, {self.hidden_size}"
        plain = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0}
        for word, default in (plain | {"bidirectional": False}).items():
            value = getattr(self, word)
            s += "" if value == default else f", {word}={value}"
        return s


class RNN(_Recurrent):
    """A plain recurrent layer, h = tanh(W_ih x + b_ih + W_hh h + b_hh): (L, N, I) -> (L, N, H), h_n.

    nonlinearity: "tanh" or "relu". h_n (num_layers * directions, N, H). dropout: between the layers.
    bidirectional: a second direction from the end, its states beside those of the first. Weights are
    weight_ih_l0 (H, I), weight_hh_l0 (H, H), bias_ih_l0, bias_hh_l0 (H,), then _l1, ..., with _reverse
    for the other direction. Padded sequences: lengths. Elman 1990.

        layer = nn.RNN(32, 64, batch_first=True)
        y, h_n = layer(x, lengths=lengths)      # (N, L, 64), (1, N, 64) for x (N, L, 32)
    """

    def __init__(
        self,
        input_size,
        hidden_size,
        num_layers=1,
        nonlinearity="tanh",
        bias=True,
        batch_first=False,
        dropout=0.0,
        bidirectional=False,
    ):
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"RNN: nonlinearity must be 'tanh' or 'relu'; got {nonlinearity!r}")
        self.nonlinearity = nonlinearity
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        )

    def cell(self, x, start, weights, lengths, reverse):
        """One layer in one direction: the states after each step, and the last one."""
        relu = self.nonlinearity == "relu"
        return ops.rnn(x, *start, *weights, lengths, relu=relu, reverse=reverse)


class LSTM(_Recurrent):
    """Long short-term memory: (L, N, I) -> (L, N, H), (h_n, c_n).

    c = f c + i u, h = o tanh(c) with i, f, o = sigmoid and u = tanh of W_ih x + b_ih + W_hh h + b_hh. hx:
    (h_0, c_0). Weights are weight_ih_l0 (4 H, I), weight_hh_l0 (4 H, H), bias_ih_l0, bias_hh_l0 (4 H,),
    the gates in the order i, f, u, o. Options, names and lengths as for RNN. Hochreiter & Schmidhuber
    1997, Gers et al. 2000.

        layer = nn.LSTM(32, 64, num_layers=2, batch_first=True, bidirectional=True)
        y, (h_n, c_n) = layer(x)                # (N, L, 128), (4, N, 64) twice
    """

    gates = 4
    states = ("h", "c")

    def cell(self, x, start, weights, lengths, reverse):
        """One layer in one direction: h after each step, then the last h and c."""
        return ops.lstm(x, *start, *weights, lengths, reverse=reverse)

    def _as_given(self, last):
        return last


class GRU(_Recurrent):
    """Gated recurrent unit: (L, N, I) -> (L, N, H), h_n.

    h = (1 - z) u + z h with r, z = sigmoid(W_ih x + b_ih + W_hh h + b_hh) and u = tanh(W_iu x + b_iu +
    r (W_hu h + b_hu)). Weights are weight_ih_l0 (3 H, I), weight_hh_l0 (3 H, H), bias_ih_l0, bias_hh_l0
    (3 H,), in the order r, z, u. Options, names and lengths as for RNN. Cho et al. 2014.

        layer = nn.GRU(32, 64)
    """

    gates = 3

    def cell(self, x, start, weights, lengths, reverse):
        """One layer in one direction: the states after each step, and the last one."""
        return ops.gru(x, *start, *weights, lengths, reverse=reverse)
