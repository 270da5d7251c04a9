"""Plain array expressions, for NumPy and CuPy alike: what every faster kernel must equal.

This list is the dispatch table of the backends `numpy` and `cupy`.
"""

from .activation import (
    elu,
    elu_grad,
    erf,
    gelu,
    gelu_grad,
    gelu_tanh,
    gelu_tanh_grad,
    leaky_relu,
    leaky_relu_grad,
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
from .conv import conv2d, conv2d_grad_w, conv2d_grad_x
from .embedding import embedding_grad
from .feed_forward import feed_forward, feed_forward_grad
from .index import gather_grad, getitem_grad
from .linear import linear, linear_activation, linear_grad, matmul
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
from .optim import adagrad_, adam_, rmsprop_, sgd_
from .pool import (
    avg_pool2d,
    avg_pool2d_grad,
    max_pool2d,
    max_pool2d_grad,
    max_pool2d_pick,
    relu_max_pool2d,
    relu_max_pool2d_grad,
)
from .recurrent import gru, gru_grad, lstm, lstm_grad, rnn, rnn_grad
