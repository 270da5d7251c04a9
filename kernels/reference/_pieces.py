"""Small weights are updated together: a kernel that takes arrays also takes pieces of them."""

import functools

from ._arrays import namespace


def on_pieces(kernel):
    """Decorator: w may be an array, or a list of arrays that follow each other in the flat state.

    So do those of g, which may be a list too, or flat. They are packed, and what the kernel makes of w
    is written back.
    """

    @functools.wraps(kernel)
    def run(w, g, *rest, **options):
        if not isinstance(w, list):
            return kernel(w, g, *rest, **options)
        join = namespace(w[0]).concatenate
        packed = join(w, axis=None)
        kernel(packed, join(g, axis=None) if isinstance(g, list) else g, *rest, **options)
        first = 0
        for piece in w:
            piece[...] = packed[first : first + piece.size].reshape(piece.shape)
            first += piece.size

    return takes_pieces(run)


def takes_pieces(kernel):
    """Decorator: the kernel takes lists by itself; one of a user's in its place is decorated as above."""
    kernel.adapt = on_pieces
    return kernel
