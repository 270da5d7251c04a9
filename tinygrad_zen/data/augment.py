"""Random changes of image batches, for training: small callables f(x, rng) -> x.

x is a batch (N, C, H, W); rng a NumPy generator; each image gets its own draw. The result is a new
array of the same shape and dtype. `DataLoader(..., transform=...)` takes one, or a `Compose`.
All raise ValueError for a batch of another number of dimensions.
"""

import numpy as np


class Compose:
    """Apply transforms one after the other: Compose(RandomCrop(4), RandomHorizontalFlip())."""

    def __init__(self, *transforms):
        self.transforms = transforms

    def __call__(self, x, rng):
        for transform in self.transforms:
            x = transform(x, rng)
        return x


class RandomCrop:
    """Pad each side with `padding` zeros, then cut out the old size at a random place.

    That is a random shift by up to `padding` whole pixels in each direction.
    Raises ValueError for negative padding.
    """

    def __init__(self, padding):
        if padding < 0:
            raise ValueError(f"RandomCrop: padding must be 0 or more; got {padding}")
        self.padding = padding

    def __call__(self, x, rng):
        n, _, h, w = _image_shape("RandomCrop", x)
        p = self.padding
        padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (h, w), axis=(2, 3))
        top, left = rng.integers(0, 2 * p + 1, (2, n))
        return windows[np.arange(n), :, top, left]


class RandomHorizontalFlip:
    """Mirror an image left to right with probability p.

    Raises ValueError unless 0 <= p <= 1.
    """

    def __init__(self, p=0.5):
        self.p = _probability("RandomHorizontalFlip", p)

    def __call__(self, x, rng):
        n = _image_shape("RandomHorizontalFlip", x)[0]
        flip = rng.random(n) < self.p
        out = x.copy()
        out[flip] = x[flip, :, :, ::-1]
        return out


class RandomAffine:
    """Rotate, scale and shift each image by random amounts, in one bilinear warp.

    degrees: rotates by -degrees to degrees. shift: in pixels, by -shift to shift along y and along
    x. scale: (low, high), the factor by which the content grows. All are drawn evenly.
    Raises ValueError for negative degrees or shift, or unless 0 < low <= high.
    """

    def __init__(self, degrees=0, shift=0, scale=(1, 1)):
        if degrees < 0 or shift < 0:
            raise ValueError(
                f"RandomAffine: degrees and shift must be 0 or more; got {degrees} and {shift}"
            )
        low, high = scale
        if not 0 < low <= high:
            raise ValueError(f"RandomAffine: scale must be 0 < low <= high; got {scale}")
        self.degrees, self.shift, self.scale = degrees, shift, scale

    def __call__(self, x, rng):
        n = _image_shape("RandomAffine", x)[0]
        degrees = rng.uniform(-self.degrees, self.degrees, n)
        scale = rng.uniform(*self.scale, n)
        dy, dx = rng.uniform(-self.shift, self.shift, (2, n))
        return affine(x, degrees, scale, dy, dx)


class RandomErasing:
    """Overwrite a random rectangle of an image with `value`, with probability p.

    area: (low, high), the rectangle's share of the image. ratio: (low, high), height / width.
    A side that would be longer than the image's is cut to it.
    Raises ValueError unless 0 <= p <= 1, 0 <= low <= high <= 1 for the area, 0 < low <= high for
    the ratio. Source: Z. Zhong and others 2017, arXiv:1708.04896.
    """

    def __init__(self, p=0.5, area=(0.02, 0.33), ratio=(0.3, 3.3), value=0):
        if not 0 <= area[0] <= area[1] <= 1:
            raise ValueError(f"RandomErasing: area must be 0 <= low <= high <= 1; got {area}")
        if not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f"RandomErasing: ratio must be 0 < low <= high; got {ratio}")
        self.p = _probability("RandomErasing", p)
        self.area, self.ratio, self.value = area, ratio, value

    def __call__(self, x, rng):
        n, _, h, w = _image_shape("RandomErasing", x)
        area = rng.uniform(*self.area, n) * (h * w)
        ratio = np.exp(rng.uniform(*np.log(self.ratio), n))
        chosen = rng.random(n) < self.p
        rows = _random_interval(np.sqrt(area * ratio), h, rng)
        columns = _random_interval(np.sqrt(area / ratio), w, rng)
        erased = rows[:, :, None] & columns[:, None, :] & chosen[:, None, None]
        out = x.copy()
        np.copyto(out, self.value, where=erased[:, None], casting="unsafe")
        return out


def affine(x, degrees, scale, dy, dx):
    """Rotate each image counter-clockwise about its centre, scale it, then shift it down and right.

    x (N, C, H, W) float32 or float64; degrees, scale, dy and dx (pixels): N numbers each.
    Each output pixel looks up where it came from and interpolates between the four pixels there;
    what lies outside the image is 0. Raises TypeError for images that are not floats.
    """
    n, channels, h, w = _image_shape("affine", x)
    if x.dtype not in (np.float32, np.float64):
        raise TypeError(f"affine: images must be float32 or float64; got {x.dtype}")

    # Undo the shift, the scaling and the rotation. A source coordinate is a function of the output
    # row plus one of the output column, so only their sum has the size of the batch.
    angle = np.deg2rad(degrees)[:, None]
    cos, sin = np.cos(angle) / scale[:, None], np.sin(angle) / scale[:, None]
    v = np.arange(h) - (h - 1) / 2 - dy[:, None]
    u = np.arange(w) - (w - 1) / 2 - dx[:, None]
    # + 1: a border of zeros is put around the images, where lookups from outside end.
    from_y = _outer_sum(cos * v + (h + 1) / 2, sin * u, h + 1, x.dtype)
    from_x = _outer_sum(-sin * v + (w + 1) / 2, cos * u, w + 1, x.dtype)

    # Whole pixels to read at, and the weights of their neighbours below and to the right.
    row, column = np.floor(from_y), np.floor(from_x)
    from_y -= row
    from_x -= column
    wide = w + 3  # the lookup at w + 1 reads one pixel further, with weight 0
    index = row.astype(np.int32) * np.int32(wide)
    index += column.astype(np.int32)
    index = index + np.arange(n)[:, None, None] * ((h + 3) * wide)

    out = np.empty((n, channels, h, w), x.dtype)
    for channel in range(channels):
        plane = np.zeros((n, h + 3, wide), x.dtype)
        plane[:, 1 : h + 1, 1 : w + 1] = x[:, channel]
        plane = plane.reshape(-1)
        upper = _lerp(plane, index, from_x)
        lower = _lerp(plane[wide:], index, from_x)
        lower -= upper
        lower *= from_y
        np.add(upper, lower, out=out[:, channel])
    return out


def _outer_sum(of_row, of_column, limit, dtype):
    """Return (N, H, W) from (N, H) and (N, W): their sums, clipped to 0..limit."""
    total = of_row.astype(dtype)[:, :, None] + of_column.astype(dtype)[:, None, :]
    return np.clip(total, 0, limit, out=total)


def _lerp(plane, index, weight):
    """Interpolate linearly between plane[index] and plane[index + 1]."""
    left, right = plane.take(index), plane[1:].take(index)
    right -= left
    right *= weight
    right += left
    return right


def _random_interval(length, size, rng):
    """Return bool (N, size): True in an interval of `length`, rounded, at a random place."""
    length = np.minimum(np.rint(length), size)
    start = np.floor(rng.random(len(length)) * (size - length + 1))
    place = np.arange(size)
    return (start[:, None] <= place) & (place < (start + length)[:, None])


def _image_shape(caller, x):
    if x.ndim != 4:
        raise ValueError(f"{caller}: images must be (N, C, H, W); got {x.shape}")
    return x.shape


def _probability(caller, p):
    if not 0 <= p <= 1:
        raise ValueError(f"{caller}: p must be 0 to 1; got {p}")
    return p
