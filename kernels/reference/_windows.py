"""Sliding windows over images: the geometry that convolution and pooling share.

A window has KH x KW taps. Tap (i, j) of the window at output position (r, s) reads the padded image
at row r * stride + i * dilation and column s * stride + j * dilation.
"""

from ._arrays import namespace


def channels_last(x):
    """Whether the channels of a pixel lie closer together in memory than the pixels of a row."""
    return x.strides[1] < x.strides[3]


def new_images(like, shape, dtype, value=0):
    """Images filled with a value, in the memory order of other images: shape (N, C, H, W)."""
    n, c, h, w = shape
    xp = namespace(like)
    if channels_last(like):
        return xp.full((n, h, w, c), value, dtype=dtype).transpose(0, 3, 1, 2)
    return xp.full((n, c, h, w), value, dtype=dtype)


def ordered_as(like, x):
    """Images x in the memory order of others; a copy only where the two differ."""
    if channels_last(x) == channels_last(like):
        return x
    ordered = new_images(like, x.shape, x.dtype)
    ordered[...] = x
    return ordered


def pad(x, before, after, value=0):
    """Put a border around images: (N, C, H, W) -> (N, C, H + border, W + border).

    before: (rows above, columns left); after: (rows below, columns right).
    """
    if before == after == (0, 0):
        return x
    n, c, h, w = x.shape
    top, left = before
    bottom, right = after
    padded = new_images(x, (n, c, top + h + bottom, left + w + right), x.dtype, value)
    padded[:, :, top : top + h, left : left + w] = x
    return padded


def window_counts(size, kernel, stride, padding, dilation, ceil_mode=False):
    """How many windows fit into padded images of a size (H, W), down and across: -> (OH, OW).

    ceil_mode also counts a last window that hangs over, unless it starts beyond the images.
    """

    def along(n, k, s, p, d):
        room = n + 2 * p - d * (k - 1) - 1  # for the first element of the last window
        count = room // s + 1
        if ceil_mode and room % s and count * s < n + p:
            count += 1
        return count

    return tuple(map(along, size, kernel, stride, padding, dilation))


def taps(kernel, out, stride, dilation):
    """For each tap, row by row, the slices of the padded image that it reads in all windows.

    out: the (OH, OW) windows. Yields the index (:, :, rows, columns), which picks (N, C, OH, OW).
    """
    (oh, ow), (sh, sw), (dh, dw) = out, stride, dilation
    for i in range(kernel[0]):
        rows = slice(i * dh, i * dh + (oh - 1) * sh + 1, sh)
        for j in range(kernel[1]):
            columns = slice(j * dw, j * dw + (ow - 1) * sw + 1, sw)
            yield slice(None), slice(None), rows, columns
