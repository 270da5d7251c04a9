"""JAX: the step as one jitted function that reuses the memory of its arguments."""

import time

import jax
import jax.numpy as jnp
import networks
import numpy as np
from jax import lax


class Program:
    """See engine_ours.Program. Images lie channels-last, which XLA's CPU convolutions want."""

    def __init__(self, network, weights, threads, device, variant):
        self.version, self.device = f"JAX {jax.__version__}", "CPU"
        x, y = networks.batch(network)
        if network.image:
            x = np.moveaxis(x, 1, -1)
        if x.dtype == np.int64:
            x = x.astype(np.int32)
        self.batch = jnp.asarray(x), jnp.asarray(y.astype(np.int32) if y.ndim == 1 else y)
        self.weights = {n: jnp.asarray(w) for n, w in turned(network, weights).items()}
        zeros = {n: jnp.zeros_like(w) for n, w in self.weights.items()}
        self.state = zeros, {n: jnp.zeros_like(w) for n, w in self.weights.items()}, jnp.zeros(())
        loss = losses[network.loss]

        def loss_of(weights, x, y):
            return loss(forward(network)(weights, x), y)

        def step(weights, state, x, y):
            value, gradient = jax.value_and_grad(loss_of)(weights, x, y)
            return *adam(weights, gradient, state), value

        self.jitted = jax.jit(step, donate_argnums=(0, 1))

    def train(self):
        self.weights, self.state, loss = self.jitted(self.weights, self.state, *self.batch)
        return loss

    def step(self):
        return float(self.train())

    def seconds(self, steps):
        begin = time.perf_counter()
        for _ in range(steps):
            self.train()
        jax.block_until_ready(self.weights)
        return time.perf_counter() - begin


def adam(weights, gradient, state):
    m, v, t = state
    t = t + 1
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, gradient)
    v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, gradient)
    rate, root = networks.LEARNING_RATE / (1 - 0.9**t), jnp.sqrt(1 - 0.999**t)
    new = jax.tree.map(lambda w, m, v: w - rate * m / (jnp.sqrt(v) / root + 1e-8), weights, m, v)
    return new, (m, v, t)


def binary(x, y):
    return jnp.mean(jnp.maximum(x, 0) - x * y + jnp.log1p(jnp.exp(-jnp.abs(x))))


def classes(x, y):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(x), y[:, None], 1))


losses = {
    networks.BINARY: binary,
    networks.CLASSES: classes,
    "mse_loss": lambda x, y: jnp.mean((x - y) ** 2),
}


def turned(network, weights):
    """The weights for channels-last images: filters (H, W, C, K), and the dense layer behind them."""
    sizes, turned = shapes(network), dict(weights)
    for i, (name, *_) in enumerate(network.layers):
        key = f"{i}.weight"
        if name == "Conv2d":
            turned[key] = weights[key].transpose(2, 3, 1, 0)
        elif name == "Linear":
            w = weights[key]
            if network.layers[i - 1][0] == "Flatten":
                w = w.reshape(len(w), *sizes[i - 1]).transpose(0, 2, 3, 1).reshape(w.shape)
            turned[key] = w.T
    return turned


def shapes(network):
    """The shape (C, H, W) that goes into each layer of a row."""
    shape, found = network.sample, []
    for name, *a in network.layers:
        found.append(shape)
        if name == "Conv2d":
            padding = a[4] if len(a) > 4 else 0
            shape = a[1], *(s + 2 * padding - a[2] + 1 for s in shape[1:])
        elif name == "MaxPool2d":
            shape = shape[0], *(s // a[0] for s in shape[1:])
    return found


def forward(network):
    return {"lstm": lstm, "transformer": encoder_layer}.get(network.kind) or (
        lambda w, x: row(network.layers, w, x)
    )


def row(layers, w, x):
    for i, (name, *a) in enumerate(layers):
        if name == "Conv2d":
            padding = a[4] if len(a) > 4 else 0
            x = lax.conv_general_dilated(
                *(x, w[f"{i}.weight"], (1, 1), [(padding, padding)] * 2),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            x = x + w[f"{i}.bias"]
        elif name == "MaxPool2d":
            window = 1, a[0], a[0], 1
            x = lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")
        elif name == "Flatten":
            x = x.reshape(len(x), -1)
        elif name == "Linear":
            x = x @ w[f"{i}.weight"] + w[f"{i}.bias"]
        else:
            x = {"ReLU": jax.nn.relu, "Sigmoid": jax.nn.sigmoid}[name](x)
    return x


def lstm(w, x):
    """Input projections of all steps as one product, then the cell in a scan."""
    x = w["embedding.weight"][x.T]  # (L, N, width)
    x = x @ w["lstm.weight_ih_l0"].T + w["lstm.bias_ih_l0"] + w["lstm.bias_hh_l0"]

    def cell(carry, x):
        h, c = carry
        i, f, g, o = jnp.split(x + h @ w["lstm.weight_hh_l0"].T, 4, axis=1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

    zeros = jnp.zeros((x.shape[1], networks.HIDDEN))
    (h, _), _ = lax.scan(cell, (zeros, zeros), x)
    return h @ w["out.weight"].T + w["out.bias"]


def encoder_layer(w, x):
    n, length, d = x.shape
    heads = n, length, 3, networks.HEADS, d // networks.HEADS
    qkv = (x @ w["self_attn.in_proj_weight"].T + w["self_attn.in_proj_bias"]).reshape(heads)
    y = jax.nn.dot_product_attention(*(qkv[:, :, i] for i in range(3))).reshape(x.shape)
    y = y @ w["self_attn.out_proj.weight"].T + w["self_attn.out_proj.bias"]
    x = norm(x + y, w["norm1.weight"], w["norm1.bias"])
    y = jax.nn.gelu(x @ w["linear1.weight"].T + w["linear1.bias"], approximate=False)
    y = y @ w["linear2.weight"].T + w["linear2.bias"]
    return norm(x + y, w["norm2.weight"], w["norm2.bias"])


def norm(x, weight, bias):
    centred = x - x.mean(-1, keepdims=True)
    return centred * lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weight + bias
