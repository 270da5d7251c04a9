"""numba.cuda kernels: on CuPy arrays on a card, on NumPy arrays in Numba's simulator.

This list is the dispatch table of the backends `cuda` and `cudasim`. What comes from reference is one
library call there, or is not worth a kernel yet.
"""

from ..reference import (
    adagrad_,
    attention,
    attention_grad,
    erf,
    feed_forward,
    feed_forward_grad,
    gather_grad,
    getitem_grad,
    gru,
    gru_grad,
    linear_activation,
    lstm,
    lstm_grad,
    relu,
    rmsprop_,
    rnn,
    rnn_grad,
    tanh,
)
from .activation import SOFTMAXES as _SOFTMAXES
from .activation import (
    elu,
    elu_grad,
    gelu,
    gelu_grad,
    gelu_tanh,
    gelu_tanh_grad,
    leaky_relu,
    leaky_relu_grad,
    log_softmax,
    log_softmax_grad,
    relu_grad,
    sigmoid,
    sigmoid_grad,
    silu,
    silu_grad,
    softmax,
    softmax_grad,
    softplus,
    tanh_grad,
)
from .conv import CONV_GRAD_WS as _CONV_GRAD_WS
from .conv import CONV_GRAD_XS as _CONV_GRAD_XS
from .conv import CONVS as _CONVS
from .conv import conv2d, conv2d_grad_w, conv2d_grad_x
from .embedding import embedding_grad
from .linear import MATMULS as _MATMULS
from .linear import linear, linear_grad, matmul
from .loss import (
    bce_with_logits,
    bce_with_logits_grad,
    bce_with_logits_mean,
    bce_with_logits_mean_grad,
    binary_cross_entropy,
    binary_cross_entropy_grad,
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
from .pool import MAX_POOLS as _MAX_POOLS
from .pool import (
    avg_pool2d,
    avg_pool2d_grad,
    max_pool2d,
    max_pool2d_grad,
    max_pool2d_pick,
    relu_max_pool2d,
    relu_max_pool2d_grad,
)

# Kernels that exist as ladders, slowest rung first.
LADDERS = {
    "matmul": _MATMULS,
    "conv2d": _CONVS,
    "conv2d_grad_x": _CONV_GRAD_XS,
    "conv2d_grad_w": _CONV_GRAD_WS,
    "max_pool2d": _MAX_POOLS,
    "softmax": _SOFTMAXES,
    "adam_": _ADAMS,
}
