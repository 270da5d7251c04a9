"""Edits of gradients that change no derivative: mutants that gradcheck cannot kill, and why.

The keys are "where: edit" as mutants.py words them. `...` stands for anything, and such a key excuses
only edits that changed no number in any sample beyond rounding; one that did must be named in full.
"""

KINK = (
    "only at a kink or a tie, where differences say nothing; tests/test_torch.py holds the values"
)
GUARD = (
    "a guard against 0, infinity or overflow, which no sample can reach: there are no differences"
)
SUMMED = "the engine sums over the axes that are left too many"
BORDER = "a border that is larger than need be is cut off again"
SAME = "the same numbers by another way, which is slower or lays them out otherwise in memory"
SIGN = "times a sign is divided by it"
SHAPE = "both arguments have the shape or kind that is asked for"
BROADCAST = "what follows broadcasts by itself"
GIVEN = "gradients always give it"
ALWAYS = "the condition spares work; without it the same comes out"

EQUIVALENT = {
    "ops.elementwise._share: ...": KINK,
    "ops.elementwise.abs: g * be.xp.sign(x) -> g / be.xp.sign(x)": SIGN,
    "ops.elementwise.astype: (lambda g: g.astype(x.dtype),) if ...": "only floats are differentiated",
    "ops.elementwise.pow: 0 -> 1...": GUARD,
    "ops.elementwise.pow: 0.0 -> 1.0...": GUARD,
    "ops.elementwise.pow: 1.0 -> 2.0...": GUARD,
    "ops.elementwise.pow: y -> x (place 2)": "asks whether the exponent is 0; no sample has that as an array",
    "ops.elementwise.pow: g * (y * x ** (y - 1)) if y else ...": GUARD,
    "ops.elementwise.pow: math.log(x) if x > 0 else 0.0 -> math.log(x)": GUARD,
    "ops.reduce._extreme: g.reshape(kept) * winners / winners.sum(...": KINK,
    "ops.reduce.std: ...": GUARD,
    "ops.reduce.logsumexp: ...": GUARD,
    "ops.reduce.prod: x == 0 -> x != 0": SAME,
    "ops.embedding.embedding: g * (index != padding_idx)...": (
        "a row padding_idx that is looked up has a gradient of 0 against its derivative, on purpose; "
        "tests/test_torch.py"
    ),
    "ops.linear.matmul: gx if x.ndim > 1 else gx.reshape((-1, x.size)).sum(axis=0) -> gx": SUMMED,
    "ops.linear.matmul: gx.reshape((-1, x.size)) -> gx": SUMMED,
    "ops.linear.matmul: gx.reshape((-1, x.size)).sum(axis=0) -> gx.reshape((-1, x.size))": SUMMED,
    "ops.linear.matmul: gy.reshape((-1, y.size)).sum(axis=0) -> gy.reshape((-1, y.size))": SUMMED,
    "ops.linear.linear_activation: once(...": SAME,
    "ops.conv.grad_b: 2 -> 3": "rows are summed first and columns then, or the other way round",
    "ops.normalize.layer_norm: w -> b...": SHAPE,
    "ops.loss.l1_loss: ...spread(g) * be.xp.sign(d) -> ...": SIGN,
    "ops.loss.huber_loss: be.xp.clip(d, -delta, delta) -> be.xp.clip(-delta, d, delta)": (
        "the middle one of three numbers, however they are ordered"
    ),
    "ops.loss.binary_cross_entropy_with_logits: gx - ... if extra else gx -> ...": ALWAYS,
    "ops.loss._label_cross_entropy: be.xp.broadcast_to(each, labels.shape) -> each": BROADCAST,
    "ops.loss._label_nll: be.xp.broadcast_to(-spread(g) * share, labels.shape) -> ...": BROADCAST,
    "ops.loss._multi_margin: be.xp.broadcast_to(spread(g), labels.shape) -> spread(g)": BROADCAST,
    "ops.loss._multi_margin: x -> labels": SHAPE,
    "kernels.getitem_grad in _may_repeat: any(...": ALWAYS,
    "kernels.elu_grad: xp.minimum(x, 0) -> x": GUARD,
    "kernels.elu_grad: 0 -> 1 (place 2)": GUARD,
    "kernels.conv2d_grad_w: gw.reshape(groups, kh, kw, ...": SAME,
    "kernels.conv2d_grad_w in _columns: pad(x, padding, padding) -> pad(x, padding, padding)": SAME,
    "kernels.conv2d_grad_w in _columns: groups > 1 -> groups < 1": SAME,
    "kernels.conv2d_grad_w in _columns: 1 -> 2": SAME,
    "kernels.conv2d_grad_w in _pixels: ...": SAME,
    "kernels.conv2d_grad_x in _pixels: ...": SAME,
    "kernels.conv2d_grad_x in _product: ...": SAME,
    "kernels.conv2d_grad_x: 2 * top -> 2": BORDER,
    "kernels.conv2d_grad_x: 2 -> 3 ...": BORDER,
    "kernels.linear_grad: g.sum(axis=0) -> g": SUMMED,
    "ops.fused.feed_forward: grads(g, 4) -> g": SUMMED,
    "kernels.feed_forward_grad: g.sum(axis=0) -> g": SUMMED,
    "kernels.feed_forward_grad: gz.sum(axis=0) -> gz": SUMMED,
    "kernels.rnn_grad in _affine_grad: g.sum(axis=(0, 1)) -> g": SUMMED,
    "kernels.rnn_grad in _step: out if new is None else new -> new": GIVEN,
    "kernels.lstm_grad in _affine_grad: g.sum(axis=(0, 1)) -> g": SUMMED,
    "kernels.gru_grad in _affine_grad: g.sum(axis=(0, 1)) -> g": SUMMED,
    "kernels.gru_grad: from_h.sum(axis=(0, 1)) -> from_h": SUMMED,
    "kernels.gru_grad in _step: out if new is None else new -> new": GIVEN,
    "kernels.gru_grad: _step(xp, t, lengths, from_x, gh, new) -> _step(xp, t, lengths, from_x, new, gh)": (
        "nobody takes the state that this call gives; the next call's is taken"
    ),
    "kernels.max_pool2d_grad: xp.multiply(g, won, out=gx[tap]) -> xp.multiply(won, g, ...": SAME,
    "kernels.max_pool2d_grad: k - 1 -> k...": ALWAYS,
    "kernels.max_pool2d_grad: _padded_shape(...": BORDER,
    "kernels.max_pool2d_grad in _padded_shape: ...": BORDER,
    "kernels.max_pool2d_grad in _overhang: ...": BORDER,
    "kernels.avg_pool2d_grad: _padded_shape(...": BORDER,
    "kernels.avg_pool2d_grad in _padded_shape: ...": BORDER,
    "kernels.avg_pool2d_grad in _overhang: ...": BORDER,
    "kernels.avg_pool2d_grad in taps: ...": "its dilation is 1",
    "kernels.max_pool2d_pick: ...": BORDER,
    "kernels.max_pool2d_pick in _pad_to_windows: ...": BORDER,
    "kernels.max_pool2d_pick in _overhang: ...": BORDER,
    "kernels.binary_cross_entropy_grad: namespace(p).maximum(p * (1 - p), 1e-12) -> p * (1 - p)": GUARD,
    "kernels.cross_entropy_grad in _target: hot * (1 - smoothing) + ... if smoothing else hot -> ...": ALWAYS,
}
