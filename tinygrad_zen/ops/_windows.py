"""What convolution and pooling share: checks of windows, and one dimension by way of two."""

IMAGES = {1: "(N, C, L)", 2: "(N, C, H, W)"}


def per_axis(name, option, value, axes, least):
    """An option as one int for each axis, none below `least`: 3 -> (3, 3) where axes is 2."""
    if isinstance(value, int):
        values = (value,) * axes
    elif isinstance(value, tuple | list) and [type(v) for v in value] == [int] * axes:
        values = tuple(value)
    else:
        expected = "an int" if axes == 1 else "an int or a pair of ints"
        raise TypeError(f"{name}: {option} must be {expected}; got {value!r}")
    if min(values) < least:
        raise ValueError(f"{name}: {option} must be at least {least}; got {value}")
    return values


def check_images(name, x, axes):
    """x holds floating-point numbers under the axes (N, C, H, W), or (N, C, L) where axes is 1."""
    if x.ndim != axes + 2:
        raise ValueError(f"{name}: x must be {IMAGES[axes]}; got shape {x.shape}")
    if x.dtype.kind != "f":
        raise TypeError(f"{name}: x must hold floating-point numbers; got {x.dtype}")


def check_fits(name, size, kernel, padding, dilation):
    """At least one window fits into the padded images."""
    for n, k, p, d in zip(size, kernel, padding, dilation, strict=True):
        if d * (k - 1) + 1 > n + 2 * p:
            padded = tuple(n + 2 * p for n, p in zip(size, padding, strict=True))
            window = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
            raise ValueError(
                f"{name}: the window must fit into the padded input; got {window} for {padded}"
            )


def window_counts(size, kernel, stride, padding, dilation):
    """How many windows fit into padded images of a size (H, W), down and across: -> (OH, OW)."""
    axes = zip(size, kernel, stride, padding, dilation, strict=True)
    return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes)


def as_rows(x):
    """Sequences as images of one row: (N, C, L) -> (N, C, 1, L)."""
    return x[:, :, None]


def from_rows(x):
    """The inverse of as_rows: (N, C, 1, L) -> (N, C, L)."""
    return x[:, :, 0]


def on_rows(vjp):
    """A vjp of images as a vjp of sequences."""
    return lambda g: from_rows(vjp(as_rows(g)))


def two(values, fill):
    """An option of sequences as an option of images of one row: (v,) -> (fill, v)."""
    return (fill, *values)
