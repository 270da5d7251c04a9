"""Keras on JAX: a compiled model, its blocks of steps through fit, which is its fastest way."""

import time

import keras
import networks
import numpy as np
from engine_jax import turned
from keras import layers, losses


class Program:
    """See engine_ours.Program. Images lie channels-last; the LSTM has one bias."""

    def __init__(self, network, weights, threads, device, variant):
        self.version = f"Keras {keras.__version__} on {keras.backend.backend()}"
        self.device = "CPU"
        self.x, self.y = networks.batch(network)
        if network.image:
            self.x = np.moveaxis(self.x, 1, -1)
        self.model = MODELS.get(network.kind, row)(network, weights)
        self.model.compile(
            keras.optimizers.Adam(networks.LEARNING_RATE, epsilon=1e-8), LOSSES[network.loss]()
        )

    def step(self):
        self.model.reset_metrics()
        return float(self.model.train_on_batch(self.x, self.y))

    def seconds(self, steps):
        x = np.tile(self.x, (steps, *[1] * (self.x.ndim - 1)))
        y = np.tile(self.y, (steps, *[1] * (self.y.ndim - 1)))
        begin = time.perf_counter()
        self.model.fit(x, y, batch_size=len(self.x), shuffle=False, verbose=0)
        return time.perf_counter() - begin


LOSSES = {
    networks.BINARY: lambda: losses.BinaryCrossentropy(from_logits=True),
    networks.CLASSES: lambda: losses.SparseCategoricalCrossentropy(from_logits=True),
    "mse_loss": losses.MeanSquaredError,
}


def row(network, weights):
    """Layers in a row."""
    made, start = (
        [layers.Input((*network.sample[1:], network.sample[0])[-len(network.sample) :])],
        [],
    )
    if not network.image:
        made = [layers.Input(network.sample)]
    start = turned(network, weights)
    values = []
    for i, (name, *a) in enumerate(network.layers):
        if name == "Conv2d":
            padding = "same" if len(a) > 4 else "valid"  # a stack's filters keep the size
            made.append(layers.Conv2D(a[1], a[2], padding=padding))
        elif name == "MaxPool2d":
            made.append(layers.MaxPooling2D(a[0]))
        elif name == "Flatten":
            made.append(layers.Flatten())
        elif name == "Linear":
            made.append(layers.Dense(a[1]))
        else:
            made.append(layers.Activation(name.lower()))
        if name in ("Conv2d", "Linear"):
            values += [start[f"{i}.weight"], start[f"{i}.bias"]]
    model = keras.Sequential(made)
    model.set_weights(values)
    return model


def lstm(network, weights):
    """Its gates stand in PyTorch's order; its one bias is the sum of PyTorch's two."""
    w = weights
    model = keras.Sequential(
        [
            layers.Input(network.sample, dtype="int32"),
            layers.Embedding(networks.WORDS, networks.WIDTH),
            layers.LSTM(networks.HIDDEN),
            layers.Dense(1),
        ]
    )
    model.set_weights(
        [
            w["embedding.weight"],
            w["lstm.weight_ih_l0"].T,
            w["lstm.weight_hh_l0"].T,
            w["lstm.bias_ih_l0"] + w["lstm.bias_hh_l0"],
            w["out.weight"].T,
            w["out.bias"],
        ]
    )
    return model


def encoder_layer(network, weights):
    """MultiHeadAttention and a dense network of two layers, each with its residual and norm."""
    heads, d = networks.HEADS, networks.MODEL
    x = layers.Input(network.sample)
    attention = layers.MultiHeadAttention(heads, d // heads)
    linear1, linear2 = layers.Dense(networks.FEED), layers.Dense(d)
    norm1, norm2 = (layers.LayerNormalization(epsilon=1e-5) for _ in range(2))
    y = norm1(x + attention(x, x))
    z = layers.Activation(lambda v: keras.activations.gelu(v, approximate=False))(linear1(y))
    model = keras.Model(x, norm2(y + linear2(z)))
    projections = []
    w, b = weights["self_attn.in_proj_weight"], weights["self_attn.in_proj_bias"]
    for part in range(3):  # query, key, value
        rows = slice(part * d, (part + 1) * d)
        projections += [w[rows].T.reshape(d, heads, -1), b[rows].reshape(heads, -1)]
    out = weights["self_attn.out_proj.weight"].T.reshape(heads, -1, d)
    attention.set_weights([*projections, out, weights["self_attn.out_proj.bias"]])
    for layer, name in ((linear1, "linear1"), (linear2, "linear2")):
        layer.set_weights([weights[f"{name}.weight"].T, weights[f"{name}.bias"]])
    for layer, name in ((norm1, "norm1"), (norm2, "norm2")):
        layer.set_weights([weights[f"{name}.weight"], weights[f"{name}.bias"]])
    return model


MODELS = {"lstm": lstm, "transformer": encoder_layer}
