"""Figures made with matplotlib, but without pyplot: no windows, no global state, nothing to close.

A Figure shows itself in a notebook, and `figure.savefig("curves.png")` writes it to a file.
"""

import functools
import io
import math

import numpy as np

CELL = 1.1  # inches a picture in a grid


@functools.cache
def figure_class():
    """matplotlib's Figure, as a notebook shows it; ImportError says what to install."""
    try:
        from matplotlib.figure import Figure
    except ImportError as e:
        raise ImportError(
            'view: matplotlib is not installed; `pip install "tinygrad-zen[plots]"`'
        ) from e

    class Picture(Figure):
        """A Figure that a notebook shows without pyplot."""

        def _repr_png_(self):
            png = io.BytesIO()
            self.savefig(png, format="png")
            return png.getvalue()

    return Picture


def figure(width, height):
    """An empty Figure of that many inches."""
    return figure_class()(figsize=(width, height), layout="constrained")


def grid(count, title):
    """A Figure and `count` empty cells, in rows about as wide as the grid is high."""
    columns = min(count, max(1, math.ceil(math.sqrt(count) * 1.2)))
    rows = -(-count // columns)
    whole = figure(max(2.0, CELL * columns), max(1.6, (CELL + 0.25 * title) * rows))
    cells = whole.subplots(rows, columns, squeeze=False).reshape(-1)
    for ax in cells:
        ax.axis("off")
    return whole, cells[:count]


def show(ax, image):
    """An image (C, H, W) with 1 or 3 channels in a cell."""
    image = np.moveaxis(image, 0, -1)
    if image.dtype != np.uint8:
        low, high = min(float(image.min()), 0.0), max(float(image.max()), 1.0)
        image = (image - low) / (high - low)
    if image.shape[-1] == 1:
        ax.imshow(image[..., 0], cmap="gray", vmin=0, vmax=255 if image.dtype == np.uint8 else 1)
    else:
        ax.imshow(image)
