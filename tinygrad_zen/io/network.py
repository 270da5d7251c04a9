"""Networks as descriptions: the names of layers and what they were made with, as JSON can hold it.

A description says what to build and holds no code, so building from a file that somebody else wrote
can do no more than make layers of this library.
"""

import inspect
import math

from ..tensor import Tensor
from .files import FileError


def describe(module):
    """A network of the library's own layers as dicts, lists, strings and numbers.

    A layer is described by its constructor's arguments, which it keeps as attributes of the same
    names. Raises TypeError for a layer that is not the library's, or an argument that cannot be told.
    """
    kind = type(module)
    if _library_layers().get(kind.__name__) is not kind:
        raise TypeError(f"{kind.__name__} is not a layer of tinygrad_zen.nn")
    described = {"layer": kind.__name__}
    arguments = {}
    for name, parameter in inspect.signature(kind).parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            described["layers"] = {key: describe(child) for key, child in module.named_children()}
            continue
        if not hasattr(module, name):
            raise TypeError(f"{kind.__name__} does not keep its argument {name}")
        value = getattr(module, name)
        if isinstance(parameter.default, bool) and (value is None or isinstance(value, Tensor)):
            value = (
                value is not None
            )  # bias=True leaves a Parameter under that name, False leaves None
        arguments[name] = _encode(f"{kind.__name__}.{name}", value)
    return described | {"arguments": arguments}


def build(description, arrays=None):
    """The network of a description, with new weights.

    arrays: those of the file, to fill it with; a network that would need more is not begun.
    Raises FileError, a ValueError, for what it cannot build.
    """
    from ..nn.module import at_most

    if arrays is None:
        return _build(description)
    sizes = [math.prod(array.shape) for array in arrays]
    with at_most(len(sizes), sum(sizes)):
        return _build(description)


def _build(description):
    try:
        name, arguments = description["layer"], description["arguments"]
        layers = {key: _build(layer) for key, layer in description.get("layers", {}).items()}
        options = {key: _decode(value) for key, value in arguments.items()}
        numbered = list(layers) == [str(i) for i in range(len(layers))]
        return _library_layers()[name](*(layers.values() if numbered else [layers]), **options)
    except FileError:
        raise
    except Exception as e:  # a layer may stumble in any way over arguments that it did not write
        raise FileError(
            f"the description of the network is damaged or newer than this version: {e}"
        ) from e


def _library_layers():
    from .. import nn

    return {
        name: value
        for name, value in vars(nn).items()
        if inspect.isclass(value) and issubclass(value, nn.Module) and value is not nn.Module
    }


def _functions():
    from ..nn import functional

    return {name: value for name, value in vars(functional).items() if inspect.isfunction(value)}


def _encode(name, value):
    from .. import nn

    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_encode(name, item) for item in value]}
    if isinstance(value, nn.Module):
        return describe(value)
    if _functions().get(getattr(value, "__name__", None)) is value:
        return {"function": value.__name__}
    raise TypeError(f"{name} is a {type(value).__name__}, which a file cannot say")


def _decode(value):
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if "layer" in value:
        return _build(value)
    ((kind, content),) = value.items()
    if kind == "function":
        return _functions()[content]
    return {"list": list, "tuple": tuple}[kind](_decode(item) for item in content)
