"""The graph under a Tensor, and what the engine did on its way back through it."""

from dataclasses import dataclass, field

import numpy as np

from ..autograd import Watcher, no_grad, propagate, unbroadcast, watching
from ..tensor import Tensor
from .source import rule_of


@dataclass(eq=False)
class Value:
    """One value of a graph: a leaf, a constant (of a Tensor or not), or the result of an op.

    made_of: (argument, index of a Value) of what it was made from. grad: the whole gradient, None for
    constants. shares: what its gradient was added up from: (index of the Value it came from, array).
    rules: for each of made_of the source of the vjp, None where no gradient goes.
    """

    index: int
    name: str
    data: np.ndarray
    tensor: Tensor | None = None
    made_of: list = field(default_factory=list)
    grad: np.ndarray | None = None
    shares: list = field(default_factory=list)
    rules: list = field(default_factory=list)
    doc: str = ""

    @property
    def node(self):
        return self.tensor.node if self.tensor is not None else None

    @property
    def op(self):
        return self.node.name if self.node is not None else None

    @property
    def learned(self):
        """Whether it is a leaf that gets a gradient."""
        return self.tensor is not None and self.node is None and self.tensor.requires_grad


class _Recorder(Watcher):
    """Keeps what passes through each vjp: the whole gradient of the node, and the shares it makes."""

    def __init__(self):
        self.visits = {}  # node -> (gradient, {argument: share}), in the engine's order

    def vjp(self, node, i, vjp, g):
        result = vjp(g)
        shares = self.visits.setdefault(node, (g, {}))[1]
        shares.update(enumerate(result) if i is None else [(i, result)])
        return result


def trace(loss, names):
    """All values under a Tensor, oldest first, with the gradients that one backward pass gives them.

    names: {Tensor: name}. `.grad` of the leaves is left alone and the graph stays whole; hooks run.
    Raises ValueError where nothing was recorded, RuntimeError where backward() let go of the graph.
    """
    if loss.node is None:
        raise ValueError(
            "backprop: no op was recorded for this Tensor: nothing that it was made from has "
            "requires_grad=True, or it was made under no_grad()"
        )
    nodes = _nodes(loss)
    recorder = _Recorder()
    seed = loss.backend.xp.ones_like(loss.data)
    with no_grad(), watching(recorder):
        leaves = propagate([loss], [seed], retain_graph=True)
    values, places = _values(loss, nodes, names)
    for leaf, g in leaves.items():
        values[places[leaf]].grad = _numpy(g, leaf.backend)
    for node, (g, shares) in recorder.visits.items():  # in the order of the engine's visits
        value = values[places[node]]
        value.grad = _numpy(g, loss.backend)
        for i, place in value.made_of:
            target = values[place]
            if shares.get(i) is not None and (target.learned or target.node is not None):
                share = _numpy(shares[i], loss.backend)
                if share.shape != target.data.shape:
                    share = unbroadcast(share, target.data.shape)
                target.shares.append((value.index, np.array(share)))
    return values


def _values(loss, nodes, names):
    """The Values of a graph, without gradients, and their places: {node or leaf: index}."""
    values, places = [], {}

    def add(key, what):
        place = places[key] = len(values)
        tensor = what if isinstance(what, Tensor) else None
        array = np.array(what if tensor is None else tensor.numpy())
        values.append(Value(place, names.get(tensor, ""), array, tensor))
        return values[place]

    results = {p.node: p for node in nodes for p in node.parents if isinstance(p, Tensor)}
    results[loss.node] = loss
    for node in nodes:
        arguments = node.fn.__code__.co_varnames[1 : node.fn.__code__.co_argcount]
        keys = [(i, _key(parent, node, i)) for i, parent in enumerate(node.parents)]
        keys = [(i, key) for i, key in keys if key is not None]
        for i, key in keys:
            if key not in places:
                leaf = add(key, node.parents[i])
                if leaf.data.size > 1 and not leaf.name and i < len(arguments):
                    leaf.name = f"{node.name} {arguments[i]}"  # what the op calls it
        value = add(node, results[node])
        rules = _rules(node)
        value.made_of = [(i, places[key]) for i, key in keys]
        value.rules = [rules.get(i) for i, _ in keys]
        value.doc = (node.fn.__doc__ or "").partition("\n")[0]
    return values, places


def _numpy(g, backend):
    """A gradient as an array of NumPy's; its arithmetic on single numbers gives scalars."""
    return np.asarray(g) if isinstance(g, np.generic | float) else backend.numpy(g)


def _nodes(loss):
    """The nodes under a Tensor, oldest first; RuntimeError where backward() let go of them."""
    nodes, stack = set(), [loss.node]
    while stack:
        node = stack.pop()
        if node in nodes:
            continue
        if node.parents is None:
            raise RuntimeError(
                f"backprop: the graph through {node.name} was let go by backward(); look at it before, "
                "or pass retain_graph=True"
            )
        nodes.add(node)
        stack += [p.node for p in node.parents if isinstance(p, Tensor) and p.node is not None]
    return sorted(nodes, key=lambda n: n.serial)


def _rules(node):
    """{argument: source of its vjp} of a node."""
    if callable(node.vjps):
        shared = rule_of(node.vjps)
        wanted = [i for i, p in enumerate(node.parents) if isinstance(p, Tensor)]
        return {i: shared for i in wanted if node.parents[i].requires_grad}
    return {
        i: rule_of(vjp)
        for i, (vjp, parent) in enumerate(zip(node.vjps, node.parents, strict=True))
        if vjp is not None and isinstance(parent, Tensor) and parent.requires_grad
    }


def _key(parent, node, i):
    """What tells values apart: a node, a leaf, or the place of a constant; None for no argument."""
    if isinstance(parent, Tensor):
        return parent.node or parent
    return None if parent is None else (node, i)
