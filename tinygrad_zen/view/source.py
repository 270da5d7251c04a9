"""Source code as it is shown: the body of an op, the rule of a gradient, the kernel behind it."""

import ast
import functools
import inspect
import re
import textwrap


def body_of(op):
    """The function under an op's decorator, or the function itself."""
    return getattr(op, "body", op)


def code_of(function):
    """The source of a function, not indented; compiled ones show what they were compiled from."""
    function = getattr(function, "py_func", function)
    try:
        return textwrap.dedent(inspect.getsource(function)).rstrip()
    except (OSError, TypeError):
        return f"# no source: {getattr(function, '__name__', function)!s}"


def rule_of(vjp):
    """How a vjp is written: the expression of a lambda, the lines of a function."""
    try:
        lines, _ = inspect.findsource(vjp)
    except (OSError, TypeError):
        return "no source"
    code = vjp.__code__
    if code.co_name != "<lambda>":
        return code_of(vjp)
    found = [
        node
        for node in _lambdas("".join(lines))
        if node.lineno == code.co_firstlineno and _covers(node, code)
    ]
    # two lambdas of one line that cannot be told apart: the line
    return ast.unparse(found[0].body) if len(found) == 1 else lines[code.co_firstlineno - 1].strip()


@functools.lru_cache(maxsize=64)
def _lambdas(text):
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Lambda)]


def _covers(node, code):
    """Whether code was compiled from this lambda; Python 3.10 does not say, and all of a line do."""
    if not hasattr(code, "co_positions"):
        return True
    start, end = (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)
    body = node.body
    places = {
        (line, column)
        for line, _, column, _ in code.co_positions()
        if line is not None and column is not None and (line, column) != (node.lineno, 0)
    }
    return any((body.lineno, body.col_offset) == place for place in places) and all(
        start <= place <= end for place in places
    )


def kernels_in(text):
    """The names of the kernels that a piece of an op calls: k.conv2d, be.kernels.relu."""
    return list(dict.fromkeys(re.findall(r"\b(?:be\.kernels|k)\.(\w+)", text)))
