"""Figures of images: with their classes, as tiles, what a convolution looks for, sees, and goes by."""

import math

import numpy as np

from ..autograd import grad
from ..tensor import Tensor
from .figure import CELL, grid, show
from .figure import figure as new_figure


def images(x, predicted=None, true=None, *, classes=None, limit=64):
    """Draw a grid of images with their classes, wrong predictions in red: -> a Figure.

    x: (N, 1, H, W) grey or (N, 3, H, W) colour; floats 0..1 or bytes, others are stretched to their
    range. predicted, true: labels (N,), either may be missing. classes: names. At most `limit` images.
    Raises ValueError for other shapes or no images.
    """
    x = np.asarray(x)
    if x.ndim != 4 or x.shape[1] not in (1, 3) or not len(x):
        raise ValueError(f"images: images (N, 1, H, W) or (N, 3, H, W) are needed; got {x.shape}")
    labels = {"predicted": predicted, "true": true}
    for name, given in labels.items():
        if given is not None and np.shape(given) != x.shape[:1]:
            raise ValueError(f"images: {name} must hold {len(x)} labels; got {np.shape(given)}")
    x = x[:limit]

    def word(label):
        return str(label) if classes is None else str(classes[int(label)])

    figure, cells = grid(len(x), title=predicted is not None or true is not None)
    for i, (ax, image) in enumerate(zip(cells, x, strict=True)):
        show(ax, image)
        if predicted is None and true is None:
            continue
        if predicted is None or true is None:
            ax.set_title(word((true if predicted is None else predicted)[i]), fontsize=8)
        elif predicted[i] == true[i]:
            ax.set_title(word(true[i]), fontsize=8)
        else:
            ax.set_title(f"{word(predicted[i])}, not {word(true[i])}", fontsize=8, color="red")
    return figure


def filters(layer, limit=64):
    """Draw the filters of a convolution, each stretched to its own range: -> a Figure.

    layer: a Conv2d, or its weight (K, C, H, W). Filters over 3 channels are shown in colour, others
    by their first channel. At most `limit`. Raises ValueError for another shape.
    """
    weight = getattr(layer, "weight", layer)
    weight = weight.numpy() if hasattr(weight, "requires_grad") else np.asarray(weight)
    if weight.ndim != 4 or not len(weight):
        raise ValueError(f"filters: a weight (K, C, H, W) is needed; got {weight.shape}")
    weight = weight[:limit]
    figure, cells = grid(len(weight), title=False)
    for ax, image in zip(cells, weight, strict=True):
        low, high = image.min(), image.max()
        image = (image - low) / (high - low if high > low else 1)
        show(ax, image if len(image) == 3 else image[:1])
    return figure


def feature_maps(net, image, layer, limit=64):
    """Draw what the channels of a layer answer to an image, each over its own range: -> a Figure.

    net: a Module. image (C, H, W). layer: a module of the net or its name, as named_modules gives it,
    whose output for one image is (1, K, H, W). At most `limit` maps.
    Raises ValueError for another shape of image or output, or a layer that the net has not or did not use.
    """
    from ..train import Model

    image = np.asarray(image)
    if image.ndim != 3:
        raise ValueError(f"feature_maps: an image (C, H, W) is needed; got {image.shape}")
    modules = dict(net.named_modules())
    if isinstance(layer, str):
        if layer not in modules:
            raise ValueError(
                f"feature_maps: no layer {layer!r}: choose from {', '.join(filter(None, modules))}"
            )
        layer = modules[layer]
    seen = []
    remove = layer.register_forward_hook(lambda module, args, output: seen.append(output))
    try:
        Model(net).predict(image[None])
    finally:
        remove()
    if not seen:
        raise ValueError(f"feature_maps: the net did not use this {type(layer).__name__}")
    maps = seen[0].numpy()
    if maps.ndim != 4:
        raise ValueError(f"feature_maps: the layer's output must be (1, K, H, W); got {maps.shape}")
    figure, cells = grid(min(limit, maps.shape[1]), title=False)
    for ax, each in zip(cells, maps[0], strict=False):
        ax.imshow(each, cmap="viridis")
    return figure


def saliency(net, x, labels=None, *, classes=None, limit=16):
    """Draw images, and under each how much every pixel moves the score of its class: -> a Figure.

    net: maps images (N, C, H, W) to scores (N, K); x: such images; labels (N,): whose score, the
    highest of each image if None. classes: K names. Shown is |d score / d pixel|, the largest over the
    channels; at most `limit` images. The net is in evaluation mode meanwhile.
    Source: K. Simonyan and others 2013, arXiv:1312.6034. Raises ValueError for other shapes.
    """
    x = np.asarray(x)
    if x.ndim != 4 or x.shape[1] not in (1, 3) or not len(x):
        raise ValueError(f"saliency: images (N, 1, H, W) or (N, 3, H, W) are needed; got {x.shape}")
    if labels is not None and np.shape(labels) != x.shape[:1]:
        raise ValueError(f"saliency: labels must hold {len(x)} labels; got {np.shape(labels)}")
    x = x[:limit]
    slope, labels = _slope_of_scores(net, x, None if labels is None else np.asarray(labels)[:limit])
    figure = new_figure(max(2.0, CELL * len(x)), 2.2 * CELL + 0.3)
    for image, each, label, column in zip(
        x, slope, labels, figure.subplots(2, len(x), squeeze=False).T, strict=True
    ):
        show(column[0], image)
        column[0].set_title(str(label) if classes is None else str(classes[label]), fontsize=8)
        column[1].imshow(np.abs(each).max(axis=0), cmap="hot")
        for ax in column:
            ax.axis("off")
    return figure


def _slope_of_scores(net, x, labels):
    """The gradient of each image's score for its label, shaped like x; and the labels."""
    from ..train.model import mode

    like = next(iter(net.parameters()))
    images = Tensor(like.backend.array(x, like.dtype), like.backend, requires_grad=True)
    with mode(net, training=False):
        scores = net(images)
        if scores.ndim != 2:
            raise ValueError(f"saliency: the net must give scores (N, K); got {scores.shape}")
        if labels is None:
            labels = scores.numpy().argmax(axis=1)
        # an image's scores depend on itself alone, so one backward pass serves all
        (slope,) = grad(scores[np.arange(len(x)), labels].sum(), [images])
    return slope.numpy(), labels


def tiles(x, columns=None):
    """Draw images edge to edge, as samples of a generator are shown: -> a Figure.

    x (N, 1, H, W) or (N, 3, H, W), as for `images`. columns: how many in a row; about as many as rows if
    None. Raises ValueError for other shapes or columns < 1.
    """
    x = np.asarray(x)
    if x.ndim != 4 or x.shape[1] not in (1, 3) or not len(x):
        raise ValueError(f"tiles: images (N, 1, H, W) or (N, 3, H, W) are needed; got {x.shape}")
    if columns is None:
        columns = math.ceil(math.sqrt(len(x)))
    if columns < 1:
        raise ValueError(f"tiles: columns must be at least 1; got {columns}")
    n, channels, h, w = x.shape
    rows = -(-n // columns)
    sheet = np.zeros((rows * columns, channels, h, w), x.dtype)
    sheet[:n] = x
    sheet = sheet.reshape(rows, columns, channels, h, w).transpose(2, 0, 3, 1, 4)
    figure = new_figure(max(2.0, 0.6 * columns), max(2.0, 0.6 * rows))
    ax = figure.subplots()
    show(ax, sheet.reshape(channels, rows * h, columns * w))
    ax.axis("off")
    return figure
