"""Python expressions of NumPy as LaTeX, so that a formula is written once and shown as mathematics."""

import ast

GREEK = {"alpha", "beta", "gamma", "delta", "phi"}
NAMES = {"eps": r"\varepsilon", "inf": r"\infty", "pi": r"\pi", "l": r"\ell"}
# how tightly an expression holds together: what is looser than its surroundings gets brackets
LOOSE, SUM, FOLD, PRODUCT, POWER, ATOM = range(6)
OPERATORS = {
    ast.Gt: ">",
    ast.Lt: "<",
    ast.GtE: r"\ge",
    ast.LtE: r"\le",
    ast.Eq: "=",
    ast.NotEq: r"\ne",
}
# functions over axes, and what they are called
FOLDS = {
    "sum": r"\sum",
    "max": r"\max",
    "min": r"\min",
    "prod": r"\prod",
    "mean": r"\operatorname{mean}",
}
# what changes the shape alone: their first argument is shown
SHAPES = {"reshape", "astype", "spread", "per_channel", "broadcast_to", "asarray"}
PLAIN = {
    "log",
    "sin",
    "cos",
    "tan",
    "arcsin",
    "arccos",
    "arctan",
    "sinh",
    "cosh",
    "tanh",
    "max",
    "min",
}


def latex(expression):
    """An expression, as source or as a syntax tree, in LaTeX."""
    if isinstance(expression, str):
        expression = ast.parse(expression, mode="eval").body
    return _show(expression)[0]


def _show(node):
    """(LaTeX, how tightly it holds together)."""
    method = globals().get(f"_show_{type(node).__name__.lower()}")
    return method(node) if method else _code(node)


def _code(node):
    """What has no form in mathematics: as it stands."""
    text = ast.unparse(node).replace("np.", "").replace("\\", r"\backslash ")
    for sign in "_{}%&#$":
        text = text.replace(sign, "\\" + sign)
    return rf"\texttt{{{text}}}", ATOM


def _inside(node, tightness):
    """LaTeX with brackets if it is looser than that."""
    text, own = _show(node)
    return text if own >= tightness else rf"\left({text}\right)"


def _show_name(node):
    name = node.id
    head, _, tail = name.partition("_")
    if tail and len(head) == 1:
        return rf"{head}_{{{tail}}}", ATOM
    if name in NAMES:
        return NAMES[name], ATOM
    if name in GREEK:
        return rf"\{name}", ATOM
    return name if len(name) == 1 else rf"\mathrm{{{_words(name)}}}", ATOM


def _show_constant(node):
    value = node.value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool | int | float):
        return str(value), ATOM
    return _code(node)


def _show_tuple(node):
    return ", ".join(_show(n)[0] for n in node.elts), LOOSE


def _show_unaryop(node):
    if isinstance(node.op, ast.USub):
        return f"-{_inside(node.operand, FOLD)}", SUM
    return _code(node)


def _show_binop(node):
    left, right, op = node.left, node.right, type(node.op)
    if op in (ast.Add, ast.Sub):
        sign = "+" if op is ast.Add else "-"
        return f"{_inside(left, SUM)} {sign} {_inside(right, FOLD)}", SUM
    if op is ast.Div:
        return rf"\frac{{{_show(left)[0]}}}{{{_show(right)[0]}}}", POWER
    if op in (ast.Mult, ast.MatMult):
        first = _show(left)[0] if _negative(left) else _inside(left, PRODUCT)
        return rf"{first}\,{_inside(right, FOLD)}", SUM if _negative(left) else PRODUCT
    if op is ast.Pow:
        return f"{_inside(left, ATOM)}^{{{_show(right)[0]}}}", POWER
    return _code(node)


def _negative(node):
    """Whether it is a product that begins with a minus, which needs no brackets to go on."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.MatMult):
        return _negative(node.left)
    return isinstance(node, ast.UnaryOp) and not isinstance(node.operand, ast.BinOp | ast.Call)


def _show_boolop(node):
    word = r"\text{ or }" if isinstance(node.op, ast.Or) else r"\text{ and }"
    return word.join(_show(v)[0] for v in node.values), LOOSE


def _show_slice(node):
    return rf"\text{{{ast.unparse(node)}}}", ATOM


def _show_compare(node):
    if len(node.ops) == 1 and type(node.ops[0]) in OPERATORS:
        sign = OPERATORS[type(node.ops[0])]
        return rf"[{_show(node.left)[0]} {sign} {_show(node.comparators[0])[0]}]", ATOM
    return _code(node)


def _show_ifexp(node):
    test = node.test
    if isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.Is):
        return _show(node.orelse)  # an argument that is left out: the whole is shown
    return _cases(_show(node.body)[0], ast.unparse(test), _show(node.orelse)[0])


def _cases(first, condition, second):
    return (
        rf"\begin{{cases}} {first} & {condition} \\ {second} & \text{{else}} \end{{cases}}",
        PRODUCT,
    )


def _show_subscript(node):
    key = node.slice
    parts = key.elts if isinstance(key, ast.Tuple) else [key]
    if all(isinstance(p, ast.Constant) and p.value in (None, ...) for p in parts):
        return _show(node.value)  # new axes
    if isinstance(node.value, ast.Call | ast.Lambda):
        return _code(node)
    return rf"{_inside(node.value, ATOM)}_{{{_show(key)[0]}}}", ATOM


def _show_attribute(node):
    if node.attr == "T":
        return _transposed(node.value)
    if node.attr == "size":
        return rf"\left|{_show(node.value)[0]}\right|", ATOM
    if node.attr in ("shape", "ndim"):
        return rf"\operatorname{{{node.attr}}}{_inside(node.value, ATOM)}", ATOM
    if isinstance(node.value, ast.Name) and node.value.id in ("np", "math"):
        return _show_name(ast.Name(node.attr))
    return _code(node)


def _transposed(node):
    return f"{_inside(node, ATOM)}^T", POWER


def _show_call(node):
    function, args = node.func, node.args
    if any(k.arg not in ("axis", "keepdims") for k in node.keywords):
        return _code(node)
    if isinstance(function, ast.Attribute):
        of_library = isinstance(function.value, ast.Name) and function.value.id in ("np", "math")
        name = function.attr
        if not of_library:
            if name in SHAPES:  # x.reshape(...)
                return _show(function.value)
            return _code(node)
    elif isinstance(function, ast.Name):
        name = function.id
    else:
        return _code(node)
    if name in SHAPES:
        return _show(args[0])
    if name in FOLDS and (len(args) > 1 or node.keywords) or name in ("sum", "mean"):
        return _fold(name, args)
    if name == "exp":
        return f"e^{{{_show(args[0])[0]}}}", POWER
    if name == "sqrt":
        return rf"\sqrt{{{_show(args[0])[0]}}}", ATOM
    if name == "abs":
        return rf"\left|{_show(args[0])[0]}\right|", ATOM
    if name == "transposed":
        return _transposed(args[0])
    if name == "where":
        condition, first, second = args
        return _cases(_show(first)[0], _show(condition)[0].strip("[]"), _show(second)[0])
    if name == "einsum" and isinstance(args[0], ast.Constant):
        return _einsum(args[0].value, args[1:])
    if name == "folded":  # losses, reduced: "mean" is what they are by default
        return _fold("mean", args[:1])
    name = {"maximum": "max", "minimum": "min"}.get(name, name)
    inside = ", ".join(_show(a)[0] for a in args)
    named = rf"\{name}" if name in PLAIN else rf"\operatorname{{{_words(name)}}}"
    return rf"{named}\left({inside}\right)", POWER


def _words(name):
    return name.replace("_", r"\_")


def _fold(name, args):
    under = f"_{{{_axes(args[1])}}}" if len(args) > 1 else ""
    return rf"{FOLDS[name]}{under} {_inside(args[0], FOLD)}", FOLD


def _axes(node):
    if isinstance(node, ast.Name):
        return rf"\text{{{node.id}}}"
    return ast.unparse(node).strip("()")


def _einsum(subscripts, operands):
    names, _, out = subscripts.partition("->")
    names = names.split(",")
    summed = "".join(dict.fromkeys(c for c in "".join(names) if c not in out))
    factors = r"\,".join(
        rf"{_inside(x, ATOM)}_{{{n}}}" for x, n in zip(operands, names, strict=True)
    )
    return (rf"\sum_{{{summed}}} {factors}", FOLD) if summed else (factors, PRODUCT)
