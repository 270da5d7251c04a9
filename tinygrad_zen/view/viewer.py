"""The backprop viewer: a graph as a page on which the engine's steps are walked through, there and back."""

import html
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..backend import backend
from .layout import layers
from .source import code_of, kernels_in
from .trace import trace

LIMIT = 300  # boxes that a page can show legibly
PICTURE = 14  # rows and columns of a picture of an array, at most
LINE, LETTER, GAP, RISE = (
    17,
    7.2,
    64,
    26,
)  # pixels: a line, a letter, between columns, between boxes
SYMBOLS = {"add": "+", "sub": "-", "mul": "×", "div": "÷", "pow": "^", "matmul": "@"}
INK, GRADIENT = "#222", "#b84a00"
FILLS = {"leaf": "#e3f1e3", "constant": "#eee", "op": "#e8eefb"}


def backprop(loss, net=None, /, **names):
    """A page that walks through the graph under a Tensor, forward and back: -> Backprop.

    loss: what `.backward()` would be called on (a gradient of ones starts it). net: a Module, to fold
    the graph by its layers; names: Tensors under the names to show, `backprop(y, a=a, b=b)`. A
    notebook shows the result; `.save("page.html")` writes it as one file that needs no server.
    Gradients are the engine's own, taken from one backward pass that leaves `.grad` and the graph as
    they were. Raises ValueError for a Tensor without a graph and for graphs of more than 300 boxes,
    RuntimeError where backward() has let go of the graph.
    """
    wrong = [n for n, t in names.items() if not hasattr(t, "requires_grad")]
    if wrong:
        raise TypeError(
            f"backprop: {wrong[0]} must be a Tensor; got {type(names[wrong[0]]).__name__}"
        )
    owners = {} if net is None else _owners(net)
    own = {p: name for p, (name, _) in owners.items()}
    values = trace(loss, own | {t: name for name, t in names.items()})
    boxes = _boxes(values, {p: layer for p, (_, layer) in owners.items()})
    if len(boxes) > LIMIT:
        fold = "take a smaller one" if owners else "fold it by layer with backprop(loss, net)"
        raise ValueError(
            f"backprop: the graph has {len(boxes)} boxes; at most {LIMIT} can be shown: {fold}"
        )
    return Backprop(values, boxes)


def _owners(net):
    """{parameter: (its name, the title of the layer that holds it)}."""
    kinds = {name: type(m).__name__ for name, m in net.named_modules()}
    owners = {}
    for name, p in net.named_parameters():
        layer, _, own = name.rpartition(".")
        owners[p] = (own, f"{layer} {kinds[layer]}".strip() if layer in kinds else layer)
    return owners


@dataclass(eq=False)
class _Box:
    """What is drawn as one: a value, or a layer. inside: its parameters; values: all of its results."""

    title: str
    kind: str
    values: list
    inside: list = field(default_factory=list)
    x: float = 0.0
    y: float = 0.0

    @property
    def shown(self):
        """The value that the box stands for: its result."""
        return self.values[-1]


def _boxes(values, titles):
    """The boxes of a graph, in an order in which each comes after what it is made from.

    titles: {parameter: its layer}. Parameters and what is made of them alone go into the box of the
    op that uses them, and so do ops of the same layer that feed nothing else.
    """
    uses = {v.index: [w for w in values for _, i in w.made_of if i == v.index] for v in values}
    box_of, boxes = {}, []
    layer_of = {}  # of values that are made of a layer's parameters alone
    for value in values:
        if value.node is None:
            if value.tensor in titles:
                layer_of[value.index] = titles[value.tensor]
            alone = len(uses[value.index]) == 1
            if not (titles and alone and (value.tensor in titles or not _is_data(value))):
                kind = "leaf" if value.learned else "constant"
                boxes.append(_Box(value.name or _plain(value), kind, [value]))
                box_of[value.index] = boxes[-1]
            continue
        made_of = [values[i] for _, i in value.made_of]
        layers = [layer_of.get(v.index) for v in made_of]
        layer = next(filter(None, layers), None)
        if layer and all(layers):
            layer_of[value.index] = layer
        box = _Box(layer or _op_title(value), "op", [])
        for b in [box_of[v.index] for v in made_of if v.index in box_of]:
            joins = layer and b.title == layer and len(uses[b.shown.index]) == 1
            if joins and b in boxes:  # another op of the same layer: one box
                boxes.remove(b)
                box.values += b.values
                box.inside += b.inside
        box.values.append(value)
        box.inside += [v for v in made_of if v.index not in box_of and v not in box.inside]
        box_of |= {v.index: box for v in box.values}
        boxes.append(box)
    return boxes


def _is_data(value):
    """Whether a constant is worth a box of its own among layers: a Tensor that is no single number."""
    return value.tensor is not None and value.data.size > 1


def _plain(value):
    return "constant" if not value.learned else "leaf"


def _op_title(value):
    symbol = SYMBOLS.get(value.op, value.op)
    return f"{value.name} = {symbol}" if value.name else symbol


def number(x):
    """A number as it stands on the page."""
    return f"{float(x):.4g}"


def amount(array):
    """An array in a few letters: the number itself, or its root mean square."""
    array = np.asarray(array)
    if array.size == 1:
        return number(array.reshape(())[()])
    if array.size == 0:
        return "empty"
    return f"rms {number(math.sqrt(np.mean(np.square(array, dtype=np.float64))))}"


def picture(array):
    """The last two axes of the first item as whole numbers -100..100, thinned out; None for a number."""
    array = np.asarray(array, dtype=np.float64)
    if array.size < 2 or array.ndim == 0:
        return None
    array = array.reshape(1, -1) if array.ndim == 1 else array[(0,) * (array.ndim - 2)]
    rows, columns = (-(-n // PICTURE) for n in array.shape)
    thin = array[::rows, ::columns]
    largest = np.abs(thin).max()
    return np.rint(100 * thin / (largest or 1)).astype(int).tolist()


class Backprop:
    """A graph, its values and its gradients, as a page: `.save(path)`, or shown in a notebook."""

    def __init__(self, values, boxes):
        self.values = values
        self._boxes = boxes
        self._place = {v.index: i for i, b in enumerate(boxes) for v in (*b.values, *b.inside)}
        self._edges = self._find_edges()
        self._size = self._arrange()

    def __repr__(self):
        ops = sum(v.node is not None for v in self.values)
        return f"<backprop of {ops} ops in {len(self._boxes)} boxes>"

    def save(self, path):
        """Write the page: one HTML file, complete in itself."""
        Path(path).write_text(self.page(), encoding="utf-8")

    def _repr_html_(self):
        height = min(self._size[1], 520) + 250
        page = html.escape(self.page(), quote=True)
        style = f"width:100%;height:{height:.0f}px;border:1px solid #ddd"
        return f'<iframe srcdoc="{page}" style="{style}"></iframe>'

    def _repr_svg_(self):
        return self.svg()

    def page(self):
        """The page as HTML."""
        template = (Path(__file__).parent / "viewer.html").read_text(encoding="utf-8")
        data = json.dumps({"steps": self._steps(), "values": self._facts()}).replace("</", "<\\/")
        return template.replace("<!--GRAPH-->", self.svg()).replace("/*DATA*/", data)

    def svg(self):
        """The whole graph with all values and gradients, as it stands at the end: an SVG picture."""
        width, height = self._size
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="sans-serif" font-size="12">'
        ]
        parts += [self._edge_svg(i) for i in range(len(self._edges))]
        parts += [self._box_svg(i) for i in range(len(self._boxes))]
        return "".join([*parts, "</svg>"])

    # where things stand

    def _find_edges(self):
        """(from box, to box, [(value, index of the Value made from it)]) for each pair that is joined."""
        joined = {}
        for value in self.values:
            for _, source in value.made_of:
                ends = self._place[source], self._place[value.index]
                if ends[0] != ends[1]:
                    joined.setdefault(ends, []).append((source, value.index))
        return [(*ends, pairs) for ends, pairs in joined.items()]

    def _lines(self, box):
        """The lines of a box: (text, kind, index of the value that it tells of)."""
        value = box.shown
        lines = [(box.title, "title", value.index)]
        if value.data.ndim:
            lines.append((_by(value.data.shape), "shape", value.index))
        lines.append((amount(value.data), "data", value.index))
        if value.grad is not None:
            lines.append((amount(value.grad), "grad", value.index))
        for inner in box.inside:
            if inner.learned:
                lines.append((f"{inner.name} {_by(inner.data.shape)}", "shape", inner.index))
                lines.append((amount(inner.grad), "grad", inner.index))
        return lines

    def _arrange(self):
        """Give each box its place and each edge its way; -> (width, height) of the drawing."""
        boxes = self._boxes
        lines = [self._lines(b) for b in boxes]
        widths = [max(64, 18 + LETTER * max(_length(line) for line in ls)) for ls in lines]
        heights = [10 + LINE * len(ls) for ls in lines]
        self._sizes = list(zip(widths, heights, strict=True))
        columns, ways = layers(len(boxes), [(a, b) for a, b, _ in self._edges])
        tall = [
            sum((heights[p] if p < len(boxes) else 4) + RISE for p in column) for column in columns
        ]
        x, spots = 16.0, {}
        for column, height in zip(columns, tall, strict=True):
            wide = max((widths[p] for p in column if p < len(boxes)), default=20)
            y = 14 + (max(tall) - height) / 2
            for p in column:
                h = heights[p] if p < len(boxes) else 4
                if p < len(boxes):
                    boxes[p].x, boxes[p].y = x + (wide - widths[p]) / 2, y
                spots[p] = (x, x + wide, y + h / 2)
                y += h + RISE
            x += wide + GAP
        self._ways = [self._way(way, spots) for way in ways]
        return x - GAP + 16, max(tall) + 14

    def _way(self, way, spots):
        """The points that an edge passes."""
        a, b = self._boxes[way[0]], self._boxes[way[-1]]
        (wa, ha), (_, hb) = self._sizes[way[0]], self._sizes[way[-1]]
        between = [(x, spots[p][2]) for p in way[1:-1] for x in spots[p][:2]]
        return [(a.x + wa, a.y + ha / 2), *between, (b.x, b.y + hb / 2)]

    def _edge_svg(self, i):
        points = self._ways[i]
        path = f"M{points[0][0]:.0f} {points[0][1]:.0f}"
        for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
            bend = (x1 - x0) / 2
            path += f" C{x0 + bend:.0f} {y0:.0f} {x1 - bend:.0f} {y1:.0f} {x1:.0f} {y1:.0f}"
        (x0, y0), (x1, y1) = points[:2]
        share = " + ".join(amount(s).removeprefix("rms ") for s in self._edge_shares(i))
        return (
            f'<path class="edge" id="edge{i}" d="{path}" fill="none" stroke="#99a" stroke-width="1.3"/>'
            f'<text class="share" id="share{i}" x="{(x0 + x1) / 2:.0f}" y="{(y0 + y1) / 2 - 5:.0f}" '
            f'text-anchor="middle" font-size="11" fill="{GRADIENT}">{share}</text>'
        )

    def _edge_shares(self, i):
        """The shares of gradients that come back along an edge."""
        pairs = list(dict.fromkeys(self._edges[i][2]))
        return [g for source, to in pairs for w, g in self.values[source].shares if w == to]

    def _box_svg(self, i):
        box, (width, height) = self._boxes[i], self._sizes[i]
        parts = [
            f'<g class="box" id="box{i}" data-value="{box.shown.index}" '
            f'transform="translate({box.x:.0f} {box.y:.0f})">'
            f'<rect width="{width:.0f}" height="{height:.0f}" rx="6" fill="{FILLS[box.kind]}" '
            'stroke="#889"/>'
        ]
        for n, (text, kind, index) in enumerate(self._lines(box)):
            weight = ' font-weight="bold"' if kind == "title" else ""
            label = "grad " if kind == "grad" else ""
            parts.append(
                f'<text x="9" y="{(n + 1) * LINE:.0f}" fill="{GRADIENT if label else INK}"{weight}>{label}'
                f'<tspan class="{kind}" data-value="{index}">{html.escape(text)}</tspan></text>'
            )
        return "".join([*parts, "</g>"])

    # what happens, step by step

    def _steps(self):
        """The steps in order: the start, each op forward, the seed, each op back."""
        steps = [{"phase": "start", "value": None, "edges": []}]
        for value in self.values:
            if value.node is not None:
                edges = self._edges_of(value, [i for _, i in value.made_of])
                steps.append({"phase": "forward", "value": value.index, "edges": edges})
        end = self.values[-1]
        steps.append(
            {
                "phase": "seed",
                "value": end.index,
                "edges": [],
                "sums": {end.index: amount(end.grad)},
            }
        )
        gathered = {}
        for value in sorted(self.values, key=lambda v: -v.index):
            if value.node is None or value.grad is None:
                continue
            shares = []
            for target in dict.fromkeys(i for _, i in value.made_of):
                parts = [g for source, g in self.values[target].shares if source == value.index]
                for part in parts:
                    before = gathered.get(target)
                    gathered[target] = part if before is None else before + part
                    shares.append(
                        {
                            "to": target,
                            "share": amount(part),
                            "before": None if before is None else amount(before),
                            "sum": amount(gathered[target]),
                        }
                    )
            steps.append(
                {
                    "phase": "backward",
                    "value": value.index,
                    "edges": self._edges_of(value, {s["to"] for s in shares}),
                    "shares": shares,
                    "sums": {s["to"]: s["sum"] for s in shares},
                }
            )
        return steps

    def _edges_of(self, value, sources):
        """The edges by which a value was made from sources."""
        wanted = {(i, value.index) for i in sources}
        return [i for i, (_, _, pairs) in enumerate(self._edges) if wanted & set(pairs)]

    def _facts(self):
        """What the panel tells of each value."""
        return [
            {
                "name": value.name or value.op or _plain(value),
                "box": self._place[value.index],
                "op": value.op,
                "doc": value.doc,
                "shape": _by(value.data.shape),
                "dtype": str(value.data.dtype),
                "data": amount(value.data),
                "grad": None if value.grad is None else amount(value.grad),
                "made_of": [i for _, i in value.made_of],
                "rules": value.rules,
                "kernels": self._kernels(value),
                "picture": picture(value.data),
                "slopes": None if value.grad is None else picture(value.grad),
            }
            for value in self.values
        ]

    @staticmethod
    def _kernels(value):
        """The source of the kernels that a value's rules call: as the specification has them."""
        names = kernels_in("\n".join(filter(None, value.rules)))
        kernels = {n: getattr(backend("numpy").kernels, n, None) for n in names}
        return {n: code_of(k) for n, k in kernels.items() if k is not None}


def _by(shape):
    return " × ".join(map(str, shape)) or "one number"


def _length(line):
    return len(line[0]) + (5 if line[1] == "grad" else 0)
