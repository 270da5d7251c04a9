"""Small wrong edits of source code: what a mistake in a gradient looks like.

`edits(function, region)` makes one after the other: a factor left out, a sign lost, + for -, an axis
off by one, a transpose that only reshapes, arguments in the wrong order, a mask turned round.
`changed(root, function, code)` is a copy of a function in which another that it calls is edited.
"""

import ast
import functools
import inspect
import textwrap
from types import CodeType, FunctionType

SWAPPED = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.Lt: ast.Gt,
    ast.Gt: ast.Lt,
    ast.LtE: ast.GtE,
    ast.GtE: ast.LtE,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}
MISTAKEN = {
    "cos": "sin",
    "sin": "cos",
    "cosh": "sinh",
    "sinh": "cosh",
    "exp": "expm1",
    "sqrt": "square",
    "sign": "abs",
    "sum": "mean",
    "mean": "sum",
    "maximum": "minimum",
    "minimum": "maximum",
    "tril": "triu",
    "triu": "tril",
    "log": "log1p",
    "log1p": "log",
}
# what shapes, dtypes and memory are made of: an edit there gives an error or the same numbers
LEFT_ALONE = {"astype", "errstate", "ascontiguousarray", "hasattr", "namespace", "tuple", "zip"}
OPTIONS_LEFT_ALONE = {"strict", "dtype", "order"}
COMMUTATIVE = {"swapaxes", "maximum", "minimum", "max", "min"}
LIBRARIES = {"be", "xp", "k", "np", "math"}  # be.xp.exp(x) loses its exp, x.sum() its sum


def tree_of(function):
    """The syntax tree of a function, without its decorators."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    tree.decorator_list = []
    return tree


def gradient_code(tree):
    """Where a function says what its gradients are: inner functions, what it returns for vjps, and
    what only those use."""
    region = [n for n in ast.walk(tree) if isinstance(n, ast.Lambda | ast.FunctionDef)][1:]
    if not region:
        return []
    for statement in ast.walk(tree):
        match statement:
            case ast.Return(ast.Tuple([_, vjps])):
                region.append(vjps)
    closed = {id(n) for top in region for n in ast.walk(top)}
    for statement in reversed(tree.body):
        if isinstance(statement, ast.Assign) and id(statement) not in closed:
            names = {
                n.id for t in statement.targets for n in ast.walk(t) if isinstance(n, ast.Name)
            }
            if not names & loaded([tree], closed):
                region.append(statement.value)
                closed |= {id(n) for n in ast.walk(statement)}
    return region


def loaded(nodes, but=()):
    """The names that code reads, but for nodes whose id is listed."""
    return {
        n.id
        for node in nodes
        for n in ast.walk(node)
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load) and id(n) not in but
    }


def edits(tree, region, data=()):
    """Each edit of the code under the nodes of a region, as (words, function that compiles it).

    data: names of arguments that may be mistaken for each other.
    """
    seen = {}
    for parent, field, index, node in list(_places(tree, region)):
        for new in _wrong(node, data):
            words = " ".join(f"{ast.unparse(node)} -> {ast.unparse(new)}".split())
            seen[words] = seen.get(words, 0) + 1
            if seen[words] > 1:
                words += f" (place {seen[words]})"
            yield words, functools.partial(_compiled, tree, parent, field, index, node, new)


def _compiled(tree, parent, field, index, node, new):
    """The code of a function with a new node in the place of one of its own."""
    _put(parent, field, index, new)
    try:
        module = compile(ast.fix_missing_locations(ast.Module([tree], [])), tree.name, "exec")
    finally:
        _put(parent, field, index, node)
    return next(c for c in module.co_consts if isinstance(c, CodeType))


def _put(parent, field, index, node):
    if index is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[index] = node


def _places(tree, region):
    """(parent, field, index, node) of every expression and step of the region."""
    wanted = {id(n) for top in region for n in ast.walk(top) if not isinstance(n, ast.arguments)}
    for parent in ast.walk(tree):
        match parent:
            case ast.Raise() | ast.JoinedStr() | ast.FormattedValue() | ast.arguments():
                continue
            case ast.keyword(name) if name in OPTIONS_LEFT_ALONE:
                continue
            case ast.UnaryOp(ast.USub(), ast.Constant()):  # -1 is one number
                continue
        for field, value in ast.iter_fields(parent):
            several = value if isinstance(value, list) else [value]
            for i, node in enumerate(several):
                if id(node) in wanted and isinstance(node, ast.expr | ast.AugAssign):
                    yield parent, field, i if isinstance(value, list) else None, node


def _wrong(node, data):
    """What could stand in the place of a piece of code by mistake."""
    match node:
        case ast.BinOp(left, op, right):
            if type(op) in SWAPPED:
                yield ast.BinOp(left, SWAPPED[type(op)](), right)
            yield left
            yield right
        case ast.AugAssign(target, op, value) if type(op) in SWAPPED:
            yield ast.AugAssign(target, SWAPPED[type(op)](), value)
            yield ast.Assign([target], value, lineno=node.lineno)
        case ast.UnaryOp(ast.USub(), ast.Constant(value)):
            yield ast.Constant(value)
            yield ast.Constant(1 - value)
        case ast.UnaryOp(_, operand):
            yield operand
        case ast.Constant(value) if isinstance(value, bool):
            yield ast.Constant(not value)
        case ast.Constant(value) if isinstance(value, int | float):
            yield ast.Constant(value + 1)
        case ast.Compare(left, [op], [right]) if type(op) in SWAPPED:
            yield ast.Compare(left, [SWAPPED[type(op)]()], [right])
        case ast.IfExp(_, body, orelse):
            yield body
            yield orelse
        case ast.Attribute(value, "T"):
            yield value
            yield _reshaped(value, node)
        case ast.Subscript(value, at, ast.Load()) if not isinstance(at, ast.Name):
            yield value  # not items[t]: a list that would hold itself keeps NumPy busy for ever
        case ast.Name(name, ast.Load()) if name in data and len(data) > 1:
            yield ast.Name(data[(data.index(name) + 1) % len(data)], ast.Load())
        case ast.Call():
            yield from _wrong_calls(node)


def _wrong_calls(call):
    """A call left out, of the wrong function, with arguments swapped or options forgotten."""
    function, args, options = call.func, call.args, call.keywords
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if name in LEFT_ALONE:
        return
    if isinstance(function, ast.Attribute):
        if not _is_library(function.value):
            yield function.value
            if name in ("transpose", "swapaxes"):
                yield _reshaped(function.value, call)
        elif args:
            yield args[0]
        if name in MISTAKEN:
            other = ast.Attribute(function.value, MISTAKEN[name], ast.Load())
            yield ast.Call(other, args, options)
    elif args:
        yield args[0]
    for i in range(len(args) - 1 if name not in COMMUTATIVE else 0):
        if not any(isinstance(a, ast.Starred) for a in args[i : i + 2]):
            swapped = [*args[:i], args[i + 1], args[i], *args[i + 2 :]]
            yield ast.Call(function, swapped, options)
    for i, option in enumerate(options):
        if option.arg in OPTIONS_LEFT_ALONE:
            continue
        yield ast.Call(function, args, options[:i] + options[i + 1 :])


def _is_library(value):
    """Whether `value.f(x)` calls a function of a library, rather than a method of an array."""
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id == "namespace"
    return isinstance(value, ast.Attribute) or isinstance(value, ast.Name) and value.id in LIBRARIES


def _reshaped(value, transposed):
    """value in the shape of its transpose, its elements where they were."""
    shape = ast.Attribute(transposed, "shape", ast.Load())
    return ast.Call(ast.Attribute(value, "reshape", ast.Load()), [shape], [])


def referred(function, nodes, but=()):
    """The functions that code of a function refers to by a global name."""
    own = {*function.__code__.co_varnames, *function.__code__.co_cellvars}
    named = (function.__globals__.get(name) for name in loaded(nodes, but) - own)
    return {f for f in named if isinstance(f, FunctionType)}


def called(function, package):
    """The functions of a package that a function calls, itself and theirs included."""
    found, waiting = [], [function]
    while waiting:
        f = waiting.pop()
        if f not in found:
            found.append(f)
            waiting += _callees(f, package).values()
    return found


def _callees(function, package):
    """{name: function} of the plain functions (no ops) of a package that a function's code names."""
    names, codes = set(), [function.__code__]
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        codes += [c for c in code.co_consts if isinstance(c, CodeType)]
    named = {n: function.__globals__.get(n) for n in sorted(names)}
    return {
        n: f
        for n, f in named.items()
        if isinstance(f, FunctionType)
        and f.__module__.startswith(package)
        and not hasattr(f, "body")
    }


def changed(root, function, code, package):
    """A copy of root, and of what it calls in the package, in which function has other code."""
    copies = {}

    def copied(f):
        if f not in copies:
            new = FunctionType(code if f is function else f.__code__, dict(f.__globals__))
            new.__defaults__, new.__kwdefaults__ = f.__defaults__, f.__kwdefaults__
            copies[f] = new
            new.__globals__.update({n: copied(c) for n, c in _callees(f, package).items()})
        return copies[f]

    return copied(root)
