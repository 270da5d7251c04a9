"""Kernels for the CPU, compiled by Numba: the dispatch table of the backend `numba`.

What has no faster version here comes from the reference. Each file that matters for speed shows its
kernels as a ladder of rungs: MATMULS, CONV2DS, MAX_POOL2DS, SOFTMAXES, ADAMS.

Compiled code is kept in __pycache__ (or where NUMBA_CACHE_DIR says), by function. Numba notices when a
file changes, but not when a function from another file that it had compiled in does: after an edit
of a file whose name begins with _, or of activation.py, delete `kernels/cpu/__pycache__`.
"""

from ..reference import (
    adagrad_,
    avg_pool2d,
    avg_pool2d_grad,
    binary_cross_entropy,
    binary_cross_entropy_grad,
    elu,
    elu_grad,
    erf,
    leaky_relu,
    leaky_relu_grad,
    max_pool2d_pick,
    rmsprop_,
)
from .activation import SOFTMAXES as _SOFTMAXES
from .activation import (
    gelu,
    gelu_grad,
    gelu_tanh,
    gelu_tanh_grad,
    log_softmax,
    log_softmax_grad,
    relu,
    relu_grad,
    sigmoid,
    sigmoid_grad,
    silu,
    silu_grad,
    softmax,
    softmax_grad,
    softplus,
    tanh,
    tanh_grad,
)
from .attention import attention, attention_grad
from .conv import CONV2DS as _CONV2DS
from .conv import (
    conv2d,
    conv2d_grad_w,
    conv2d_grad_w_of_winners,
    conv2d_grad_x,
    conv2d_grad_x_of_winners,
    conv2d_relu_max_pool2d,
)
from .embedding import embedding_grad
from .feed_forward import feed_forward, feed_forward_grad
from .index import gather_grad, getitem_grad
from .linear import MATMULS as _MATMULS
from .linear import linear, linear_activation, linear_grad, matmul
from .loss import (
    bce_with_logits,
    bce_with_logits_grad,
    bce_with_logits_mean,
    bce_with_logits_mean_grad,
    cross_entropy,
    cross_entropy_grad,
)
from .normalize import (
    batch_norm,
    batch_norm_grad,
    batch_norm_relu,
    batch_norm_relu_grad,
    layer_norm,
    layer_norm_grad,
)
from .optim import ADAMS as _ADAMS
from .optim import adam_, sgd_
from .pool import MAX_POOL2DS as _MAX_POOL2DS
from .pool import max_pool2d, max_pool2d_grad, relu_max_pool2d, relu_max_pool2d_grad
from .recurrent import gru, gru_grad, lstm, lstm_grad, rnn, rnn_grad

# Kernels that exist as ladders, slowest rung first.
LADDERS = {
    "matmul": _MATMULS,
    "conv2d": _CONV2DS,
    "max_pool2d": _MAX_POOL2DS,
    "softmax": _SOFTMAXES,
    "adam_": _ADAMS,
}
