"""Every op, by family. An op's file says what it computes and what its gradient is."""

from .activation import (
    elu,
    gelu,
    leaky_relu,
    log_softmax,
    logsigmoid,
    relu,
    sigmoid,
    silu,
    softmax,
    softplus,
    tanh,
)
from .attention import attention, check_attention
from .conv import conv1d, conv2d, conv_transpose1d, conv_transpose2d
from .elementwise import (
    abs,
    add,
    arccos,
    arcsin,
    arctan,
    astype,
    ceil,
    clip,
    cos,
    cosh,
    div,
    equal,
    erf,
    exp,
    expm1,
    floor,
    greater,
    greater_equal,
    isfinite,
    isnan,
    less,
    less_equal,
    log,
    log1p,
    log2,
    log10,
    logical_and,
    logical_not,
    logical_or,
    maximum,
    minimum,
    mul,
    neg,
    not_equal,
    pow,
    reciprocal,
    round,
    sign,
    sin,
    sinh,
    sqrt,
    square,
    sub,
    tan,
    where,
)
from .embedding import embedding
from .fused import batch_norm_relu, conv2d_relu_max_pool2d, feed_forward
from .index import gather, getitem, plain_key, scatter_add
from .linear import einsum, linear, linear_activation, matmul
from .loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    hinge_loss,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    multi_margin_loss,
    nll_loss,
)
from .normalize import batch_norm, batch_norm_eval, group_norm, layer_norm
from .pool import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    avg_pool1d,
    avg_pool2d,
    max_pool1d,
    max_pool2d,
)
from .random import dropout, dropout_channels, dropout_mask
from .recurrent import gru, lstm, rnn
from .reduce import all, any, argmax, argmin, cumsum, logsumexp, max, mean, min, prod, std, sum, var
from .shape import (
    concat,
    expand,
    expand_dims,
    flatten,
    flip,
    moveaxis,
    pad,
    repeat,
    reshape,
    roll,
    split,
    squeeze,
    stack,
    swapaxes,
    tile,
    transpose,
    tril,
    triu,
)
