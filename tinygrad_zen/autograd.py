"""Automatic differentiation: record what ops did, then walk the record backwards.

An op is a plain function `f(backend, *arrays, **options) -> (array, vjps)`: the value, and for each
positional argument a function from the gradient of the value to the gradient of that argument (a
vector-Jacobian product). `@op` lifts it to Tensors. Accumulating, ordering and undoing broadcasts
happen here, once, for every op.
"""

import contextlib
import functools
import itertools
import threading
from heapq import heappop, heappush

import numpy as np

from .backend import OutOfMemory, default_backend, out_of_memory

DOUBLE, ndarray, generic = np.dtype("float64"), np.ndarray, np.generic
_base = ndarray.base.__get__  # also of a subclass that says otherwise
next_serial = itertools.count(1).__next__


class _Recording(threading.local):
    """Whether this thread records ops, and who watches; every thread starts recording, unwatched."""

    on = True
    watcher = None


recording = _Recording()


@contextlib.contextmanager
def _record(on):
    before, recording.on = recording.on, on
    try:
        yield
    finally:
        recording.on = before


def no_grad():
    """Record nothing inside `with no_grad():` (or in a function decorated with `@no_grad()`).

    Holds for the current thread only.
    """
    return _record(False)


def enable_grad():
    """Record again inside a `no_grad()` block. Holds for the current thread only."""
    return _record(True)


class Watcher:
    """Looks on while ops run: derive, override, and run what is to be seen `with watching(w):`.

    Each method must do what it does here, between whatever it measures, checks or keeps. fuses: whether
    layers in a row may still be computed as one op; who names the layers wants each by itself.
    """

    fuses = True

    def call(self, fn, backend, arrays, options):
        """Run the body of an op on arrays; returns (array, vjps)."""
        return fn(backend, *arrays, **options)

    def made(self, result, fn, args):
        """The op fn has made the Tensor `result` of args; its node is set if it was recorded."""

    def vjp(self, node, i, vjp, g):
        """Run the vjp of a node for its argument i (None: one vjp for all); returns the gradient(s)."""
        return vjp(g)

    def optimize(self, bucket, update, group):
        """Have an optimizer's bucket of parameters make its step; it calls `step` below."""
        bucket.step(update, group)

    def step(self, update, kernels, *args):
        """Run an optimizer's update of some weights."""
        update(kernels, *args)

    def bounds(self, index):
        """The smallest and the largest of integers, at which an op looks to refuse those out of range."""
        return index.min(), index.max()

    def wrote(self, tensor):
        """The user has written into a Tensor: `x[...] = ...`."""


@contextlib.contextmanager
def watching(watcher):
    """Have a Watcher look on inside `with watching(w):`, in this thread; gives the watcher."""
    before, recording.watcher = recording.watcher, watcher
    try:
        yield watcher
    finally:
        recording.watcher = before


def bounds(index):
    """The smallest and the largest of some integers: Python looks at them, so a card is waited for."""
    watcher = recording.watcher
    return (index.min(), index.max()) if watcher is None else watcher.bounds(index)


class Node:
    """One recorded call: which op made a Tensor, from what, and how its gradient goes back.

    It points to parents only, never to its result, so a graph has no cycles and is freed as soon as
    nobody holds its end.
    """

    __slots__ = ("__weakref__", "fn", "hooks", "options", "parents", "serial", "vjps")

    def __init__(self, fn, parents, options, vjps):
        self.fn = fn
        self.parents = parents
        self.options = options
        self.vjps = vjps
        self.hooks = None
        self.serial = next_serial()  # a parent is always older than what was made from it

    @property
    def name(self):
        return self.fn.__name__.lstrip("_")


def op(fn):
    """Turn `f(backend, *arrays, **options) -> (array, vjps)` into a differentiable op on Tensors.

    vjps: a tuple with one function `g -> gradient` for each positional argument (None where there is
    no gradient), or one function `g -> (gradients...)` where they share work, or None for an op
    without derivatives. Data are positional, options keyword-only. The body may run on arrays or, for
    higher derivatives, on Tensors, so it uses `backend.xp`, `backend.kernels`, operators and methods
    that both have, and nothing in place.

        @tz.op
        def cube(be, x):
            return x * x * x, (lambda g: g * 3 * x * x,)
    """
    name = fn.__name__.lstrip("_")
    names = fn.__code__.co_varnames[1 : fn.__code__.co_argcount]  # of the data; none for *arrays
    defaults = dict(zip(names[::-1], (fn.__defaults__ or ())[::-1], strict=False))
    count = len(names)

    @functools.wraps(fn)
    def call(*args, **options):
        if len(args) < count:
            args = _complete(args, options, names, defaults)
        backend = None
        wanted = False
        arrays = []
        for a in args:
            if isinstance(a, Tensor):
                if a.backend is not backend:
                    if backend is not None:
                        raise ValueError(_mixed_backends(name, args))
                    backend = a.backend
                if a.requires_grad:
                    wanted = True
                arrays.append(a.data)
            elif type(a) in CONSTANTS or as_constant(a, args) is a:
                arrays.append(a)
            else:
                return call(*(as_constant(a, args) for a in args), **options)
        if options:
            for k, v in options.items():
                if isinstance(v, generic):
                    options[k] = v.item()
        if backend is None:
            backend = default_backend()
            arrays = [a if a is None else backend.array(a) for a in arrays]
        elif backend.xp is not np:  # constants follow the Tensors to their device
            arrays = [backend.array(a) if isinstance(a, np.ndarray) else a for a in arrays]
        watcher = recording.watcher
        try:
            if watcher is not None:
                out, vjps = watcher.call(fn, backend, arrays, options)
            elif options:
                out, vjps = fn(backend, *arrays, **options)
            else:
                out, vjps = fn(backend, *arrays)
        except ValueError as e:
            raise _in_our_words(e, name, arrays) from None
        except MemoryError as e:
            raise out_of_memory(e, name, arrays) from e
        if type(out) is not ndarray:  # NumPy's full reductions give scalars; Tensors hold arrays
            out = _array(out)
        if out.dtype is DOUBLE and "dtype" not in options and _from_integers(arrays):
            out = out.astype(np.float32)
        if wanted and vjps is not None and recording.on:
            result = Tensor(out, backend, True, Node(fn, args, options, vjps))
        else:
            result = Tensor(out, backend)
        if watcher is not None:
            watcher.made(result, fn, args)
        return result

    call.body = fn
    return call


def once(f):
    """f of an array, computed once as long as it is the same array: what several gradients share."""
    last = [None, None]

    def shared(g):
        if last[0] is not g:
            last[:] = g, f(g)
        return last[1]

    return shared


def together(f):
    """Two vjps of f, which computes both gradients at once: the first keeps what the second takes."""
    held = None

    def first(g):
        nonlocal held
        mine, others = f(g)
        held = g, others
        return mine

    def second(g):
        nonlocal held
        found, held = held, None
        return found[1] if found is not None and found[0] is g else f(g)[1]

    return first, second


CONSTANTS = {type(None), int, float, bool, np.ndarray}  # an op takes these as they are


def _in_our_words(error, name, arrays):
    """A library's error about broadcasting as one that names the op; any other as it is."""
    if not str(error).startswith("operands could not be broadcast"):
        return error
    shapes = " and ".join(str(np.shape(a)) for a in arrays)
    return ValueError(f"{name}: shapes {shapes} do not broadcast together")


def _from_integers(arrays):
    """Whether a float64 result comes of integers or bools alone, as NumPy has it: x * labels."""
    dtypes = [a.dtype for a in arrays if hasattr(a, "dtype")]
    doubles = any(d.kind == "f" and d.itemsize == 8 for d in dtypes)
    return not doubles and any(d.kind != "f" for d in dtypes)


def _complete(args, options, names, defaults):
    """Optional data in their places: those given by name, and the defaults of those left out."""
    rest = names[len(args) :]
    if all(n in options or n in defaults for n in rest):
        return (*args, *(options.pop(n) if n in options else defaults[n] for n in rest))
    return args  # the call itself says what is missing


def as_constant(a, args):
    """What stands among args as an op takes it, so that it does not widen the Tensors that it meets.

    NumPy's float64 scalars act as Python floats, floats in lists take the dtype of the Tensors.
    """
    if isinstance(a, np.generic):
        return a.item()
    if isinstance(a, list | tuple):
        a = np.asarray(a)
        if a.dtype == np.float64:
            floats = (t.dtype for t in args if isinstance(t, Tensor) and t.dtype.kind == "f")
            return a.astype(next(floats, np.float32))
    return a


def _mixed_backends(name, args):
    tensors = [(i, a) for i, a in enumerate(args) if isinstance(a, Tensor)]
    i, first = tensors[0]
    j, other = next((j, t) for j, t in tensors if t.backend is not first.backend)
    return (
        f"{name}: argument {i} is on {first.backend.name} and argument {j} on {other.backend.name}; "
        f'move one with .to("{first.backend.name}")'
    )


def _array(g):
    """A result as an array: NumPy's arithmetic on 0-d arrays gives scalars."""
    return np.asarray(g) if isinstance(g, np.generic) else g


def unbroadcast(g, shape):
    """Sum a gradient over the axes that broadcasting stretched: g -> shape. Arrays or Tensors."""
    extra = g.ndim - len(shape)
    stretched = tuple(
        i for i in range(g.ndim) if i < extra or (shape[i - extra] == 1 != g.shape[i])
    )
    return _array(g.sum(axis=stretched).reshape(shape))


def _fits(g, parent, node):
    """The gradient g in the shape and dtype of its parent."""
    shape, dtype = parent.shape, parent.dtype
    if g.shape != shape:
        try:
            stretches = np.broadcast_shapes(shape, g.shape) == g.shape
        except ValueError:
            stretches = False
        if not stretches:
            raise ValueError(
                f"{node.name}: its vjp gave a gradient of shape {g.shape} for an argument of shape {shape}"
            )
        g = unbroadcast(g, shape)
    return g if g.dtype == dtype else g.astype(dtype)


def propagate(outputs, seeds, targets=None, retain_graph=False, create_graph=False):
    """Carry gradients from outputs back to the leaves; return {leaf or target's node: gradient}.

    outputs, seeds: Tensors and the gradients that they start with (arrays; Tensors with
    create_graph). targets: the Tensors asked for; None means every leaf that requires a gradient.
    Nodes are taken newest first from a heap: by then all that was made from them has been visited, so
    their gradient is whole. A loop, never recursion: depth costs nothing.
    """
    before, recording.on = recording.on, create_graph
    try:
        return _walk(outputs, seeds, targets, retain_graph, create_graph)
    except MemoryError as e:
        raise e if isinstance(e, OutOfMemory) else out_of_memory(e, "backward") from e
    finally:
        recording.on = before


def _walk(outputs, seeds, targets, retain_graph, create_graph):
    """The body of propagate."""
    pending = {}  # Node or leaf Tensor -> the gradient gathered so far
    heap = []
    found = {}
    kept = () if targets is None else {t.node or t for t in targets}
    between = None if targets is None else _between(outputs, kept)
    needed = None if targets is None else kept | between
    watcher = recording.watcher

    for tensor, seed in zip(outputs, seeds, strict=True):
        key = tensor.node or tensor
        if key in pending:
            pending[key] = _array(pending[key] + seed)
        else:
            pending[key] = seed
            if key is not tensor:
                heappush(heap, (-key.serial, key))

    while heap:
        node = heappop(heap)[1]
        g = pending.pop(node)
        if node.hooks is not None:
            g = _run_hooks(node.hooks, g, create_graph)
        if node in kept:
            found[node] = g
        if between is not None and node not in between:
            continue  # a target: what it was made from is not asked for
        vjps, parents = node.vjps, node.parents
        if vjps is None:
            raise RuntimeError(
                f"backward: the graph through {node.name} was used before and let go; pass "
                "retain_graph=True to the first backward(), or compute the result again"
            )
        if create_graph:
            try:
                vjps = node.fn(_tensors_backend(), *parents, **node.options)[1]
            except AttributeError as e:  # a kernel that has no differentiable counterpart
                raise TypeError(f"second derivative of {node.name} is not defined: {e}") from e
        shared = type(vjps) is not tuple and callable(vjps)
        if shared:
            vjps = vjps(g) if watcher is None else watcher.vjp(node, None, vjps, g)
        if len(vjps) != len(parents):
            raise TypeError(
                f"{node.name}: an op returns one vjp for each positional argument; got {len(vjps)} "
                f"for {len(parents)} arguments"
            )
        for i, parent in enumerate(parents):
            if not isinstance(parent, Tensor) or not parent.requires_grad:
                continue
            key = parent.node or parent
            if needed is not None and key not in needed:
                continue
            gx = vjps[i]
            if gx is None:
                raise TypeError(
                    f"{node.name}: no derivative is defined for argument "
                    f"{[p is parent for p in parents].index(True)}; detach() it first"
                )
            if not shared:
                gx = gx(g) if watcher is None else watcher.vjp(node, i, gx, g)
            if create_graph:
                if not isinstance(gx, Tensor):
                    gx = Tensor(parent.backend.array(gx), parent.backend)
            elif type(gx) is not ndarray:
                gx = _array(gx)
            data = parent.data
            if gx.shape != data.shape or gx.dtype is not data.dtype:
                gx = _fits(gx, parent, node)
            if key in pending:
                pending[key] = _array(pending[key] + gx)
            else:
                pending[key] = gx
                if key is not parent:
                    heappush(heap, (-key.serial, key))
        if not retain_graph:
            node.vjps = node.parents = node.options = None  # let go of what was saved

    for leaf, g in pending.items():  # what is left has no node: leaves
        found[leaf] = g if leaf.hooks is None else _run_hooks(leaf.hooks, g, create_graph)
    return found


def _run_hooks(hooks, g, create_graph):
    for hook, backend in list(hooks.values()):
        changed = hook(g if create_graph else Tensor(g, backend))
        if changed is not None:
            if not isinstance(changed, Tensor):
                raise TypeError(
                    f"hook: a hook returns a Tensor or None; got {type(changed).__name__}"
                )
            if changed.shape != g.shape:
                raise ValueError(
                    f"hook: a gradient of shape {g.shape} came back as {changed.shape}"
                )
            changed = changed if changed.dtype == g.dtype else changed.astype(g.dtype)
            g = changed if create_graph else changed.data
    return g


def _between(outputs, targets):
    """The nodes through which gradients flow from outputs to targets (nodes and leaf Tensors)."""
    nodes, stack = set(), [t.node for t in outputs if t.node is not None]
    while stack:
        node = stack.pop()
        if node not in nodes:
            nodes.add(node)
            stack += [p.node for p in node.parents or () if isinstance(p, Tensor) and p.node]
    between = set()
    for node in sorted(nodes, key=lambda n: n.serial):  # oldest first: parents are settled
        keys = [p.node or p for p in node.parents or () if isinstance(p, Tensor)]
        if any(k in targets or k in between for k in keys):
            between.add(node)
    return between


def _seed(output, gradient, create_graph):
    """The gradient that starts at an output: ones for a single number, else what the caller gave."""
    if not output.requires_grad:
        raise ValueError(
            "backward: this Tensor requires no gradient: nothing that it was made from has "
            "requires_grad=True, or it was made under no_grad()"
        )
    if gradient is None:
        data = output.data
        if data.size != 1:
            raise ValueError(
                f"backward: a gradient to start with is needed for shape {output.shape}; only a single "
                "number starts with 1. Reduce it (.sum(), .mean()) or pass gradient="
            )
        gradient = output.backend.xp.array(1, data.dtype)  # faster than ones
        if data.shape:
            gradient = gradient.reshape(data.shape)
        if not create_graph:
            return gradient
    if not isinstance(gradient, Tensor):
        gradient = Tensor(output.backend.array(gradient, output.dtype), output.backend)
    if gradient.shape != output.shape:
        raise ValueError(
            f"backward: gradient {gradient.shape} and output {output.shape} must agree"
        )
    if gradient.backend is not output.backend:
        raise ValueError(
            f"backward: the output is on {output.backend.name} and gradient on {gradient.backend.name}; "
            f'move it with .to("{output.backend.name}")'
        )
    return gradient if create_graph else gradient.data


def backward(output, gradient=None, retain_graph=False, create_graph=False):
    """Add to `.grad` of every leaf under output the gradient of output; see Tensor.backward."""
    seed = _seed(output, gradient, create_graph)
    found = propagate((output,), (seed,), None, retain_graph or create_graph, create_graph)
    taken = {id(_owner(seed))}
    for leaf, g in found.items():
        if type(g) is ndarray and g.base is None and id(g) not in taken:  # as usual: nobody else's
            taken.add(id(g))
            g = Tensor(g, leaf.backend)
        else:
            g = _owned(g, leaf, taken)
        if leaf.grad is None:
            leaf.grad = g
        else:
            with _record(create_graph):
                leaf.grad = leaf.grad + g


def _owned(g, tensor, taken):
    """The gradient g of a Tensor as a Tensor that shares memory with nothing whose id is in taken.

    A vjp may hand on the array that it was given (x + y), or a view of it (x.reshape), of a part of it
    (x[2:]), or one that is stretched and read-only (x.sum()).
    """
    if not isinstance(g, Tensor):
        g = Tensor(g, tensor.backend)
    elif g.requires_grad and g.node is None:
        return g  # the very Tensor that the caller started with: a copy would be cut off from it
    data = owner = g.data
    alone = True
    if type(data) is not ndarray or data.base is not None:
        owner = _owner(data)
        spare = getattr(owner, "nbytes", 0) - data.nbytes
        alone = 0 <= spare <= SLACK and getattr(data.flags, "writeable", True)
    if not alone or id(owner) in taken:
        g = Tensor(data.copy(), g.backend, g.requires_grad, g.node)
        owner = g.data
    taken.add(id(owner))
    return g


SLACK = 8192  # bytes that aligned memory may have around the array for which it was taken


def _owner(array):
    """The array, or whatever else, that holds the memory of an array or a Tensor."""
    if isinstance(array, Tensor):
        array = array.data
    while (base := _base(array) if isinstance(array, ndarray) else array.base) is not None:
        if not hasattr(base, "base"):
            return base
        array = base
    return array


def grad(
    outputs, inputs, grad_outputs=None, *, retain_graph=None, create_graph=False, allow_unused=False
):
    """The gradients of outputs (summed) with respect to inputs; `.grad` is left alone.

    outputs, inputs: a Tensor or a sequence of them; grad_outputs: the gradients to start with (ones
    for single numbers). Returns a Tensor for a Tensor and a tuple for a sequence. With
    create_graph=True the result can be differentiated again. Raises ValueError where outputs do not
    depend on an input, unless allow_unused=True, which gives None there.
    """
    single = isinstance(inputs, Tensor)
    inputs = [inputs] if single else list(inputs)
    if isinstance(outputs, Tensor):
        outputs, grad_outputs = [outputs], [grad_outputs]
    outputs = list(outputs)
    grad_outputs = [None] * len(outputs) if grad_outputs is None else list(grad_outputs)
    if len(grad_outputs) != len(outputs):
        raise ValueError(
            f"grad: one gradient for each output is needed; got {len(grad_outputs)} for {len(outputs)}"
        )
    for i, x in enumerate(inputs):
        if not x.requires_grad:
            raise ValueError(f"grad: input {i} of shape {x.shape} has requires_grad=False")
    seeds = [_seed(o, g, create_graph) for o, g in zip(outputs, grad_outputs, strict=True)]
    retain_graph = create_graph if retain_graph is None else retain_graph
    found = propagate(outputs, seeds, inputs, retain_graph, create_graph)
    gradients = [found.get(x.node or x) for x in inputs]
    for i, (x, g) in enumerate(zip(inputs, gradients, strict=True)):
        if g is None and not allow_unused:
            raise ValueError(
                f"grad: the outputs do not depend on input {i} of shape {x.shape}, or an earlier "
                "backward() let go of the graph between; allow_unused=True gives None for it"
            )
    taken = {id(_owner(seed)) for seed in seeds}
    result = [
        None if g is None else _owned(g, x, taken) for x, g in zip(inputs, gradients, strict=True)
    ]
    return result[0] if single else tuple(result)


def _tensors_backend():
    from .ops.tensors import TENSORS  # late: ops are written with this module

    return TENSORS


from .tensor import Tensor  # noqa: E402  (late: a Tensor's methods are ops, and ops are made here)
