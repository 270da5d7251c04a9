"""A network as a table: layers, output shapes, parameters."""

import numpy as np


def summary(net, samples, run):
    """The table as text.

    samples: (shape, dtype) of one sample of each input, or None, which leaves the output shapes open.
    run: what gives the network's output for a list of arrays; it runs once, on a batch of zeros.
    """
    shapes = {} if samples is None else _output_shapes(net, samples, run)
    rows = [("layer", "output", "parameters")]
    rows += [
        (
            f"{name} ({type(layer).__name__})".lstrip(),
            shapes.get(id(layer), "?"),
            f"{_own_parameters(layer):,}",
        )
        for name, layer in net.named_modules()
        if not any(layer.children()) or _own_parameters(layer)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    first, second, third = widths
    lines = [f"{a:{first}}   {b:{second}}   {c:>{third}}".rstrip() for a, b, c in rows]
    lines.insert(1, "-" * (sum(widths) + 6))

    counts = [(p.size, p.data.nbytes, p.requires_grad) for p in net.parameters()]
    total = sum(size for size, _, _ in counts)
    trained = sum(size for size, _, requires_grad in counts if requires_grad)
    size = _bytes(sum(n for _, n, _ in counts))
    frozen = f", {total - trained:,} of them frozen" if trained < total else ""
    return "\n".join([*lines, lines[1], f"{total:,} parameters{frozen}, {size}"])


def _output_shapes(net, samples, run):
    """id of a layer -> the shape of its output with N for the batch, in text."""
    shapes = {}

    def note(layer, _, output):
        if hasattr(output, "shape"):
            shapes.setdefault(id(layer), f"({', '.join(['N', *map(str, output.shape[1:])])})")

    removers = [layer.register_forward_hook(note) for layer in net.modules()]
    try:
        run([np.zeros((1, *shape), dtype) for shape, dtype in samples])
    finally:
        for remove in removers:
            remove()
    return shapes


def _own_parameters(layer):
    """How many numbers a layer learns itself, not through layers in it."""
    inside = {id(p) for child in layer.children() for p in child.parameters()}
    return sum(p.size for p in layer.parameters() if id(p) not in inside)


def _bytes(n):
    for unit in ("B", "kB", "MB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} GB"
