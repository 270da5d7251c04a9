"""Checkpoints: everything that a training run needs to go on bit for bit, in one safetensors file."""

import json

import numpy as np

from ..backend import default_generator
from .files import FileError, parse_json
from .states import PREFIX, load_state, save_state

KEY = PREFIX + "checkpoint"
LONG = 16  # a list of so many numbers of one kind goes to the arrays: JSON would take ten times the room
NUMBERS = {"floats": (float, np.float64), "ints": (int, np.int64)}


def save_checkpoint(path, **parts):
    """Save the states of parts, and of the engine's random generator, in one file.

        save_checkpoint("run.safetensors", net=net, optimizer=optimizer, loader=loader)

    parts: objects with a `state_dict()` of arrays, numbers, strings, dicts and lists, and NumPy
    generators. The weights of `net` stand in the file as net.NAME, the rest likewise.
    Raises TypeError for a state that holds something else.
    """
    arrays = {}
    parts = _with_generator("save_checkpoint", parts)
    states = {name: _state_of(part) for name, part in parts.items()}
    tree = {name: _pack(state, name, arrays) for name, state in states.items()}
    save_state(path, arrays, {KEY: json.dumps(tree)})


def load_checkpoint(path, **parts):
    """Give parts, under the names that they were saved with, and the generator their states back.

    Raises FileError, a ValueError, for a file that is not a checkpoint, is damaged, holds other parts,
    or a state that does not fit its part; see also load_state.
    """
    states = read_checkpoint(path)
    saved = set(states) - {"generator"}
    if saved != set(parts):
        raise FileError(f"{path}: the checkpoint is of {sorted(saved)}; got {sorted(parts)}")
    for name, part in _with_generator("load_checkpoint", parts).items():
        try:
            if isinstance(part, np.random.Generator):
                part.bit_generator.state = states[name]
            else:
                part.load_state_dict(states[name])
        except Exception as e:  # a part looks for what it wrote, and may stumble over anything else
            raise FileError(f"{path}: the state of {name} does not fit: {_in_words(e)}") from e


def read_checkpoint(path):
    """The states in a checkpoint, {name of the part: its state_dict}, for a look at them.

    Raises FileError as `load_checkpoint`.
    """
    arrays, metadata = load_state(path)
    if KEY not in metadata:
        raise FileError(f"{path}: this is not a checkpoint, but a state dict or a model")
    tree = parse_json(f"{path}: the checkpoint's metadata", metadata[KEY])
    try:
        return {name: _unpack(state, arrays) for name, state in tree.items()}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as e:
        raise FileError(f"{path}: the checkpoint is damaged: {_in_words(e)}") from e


def _in_words(error):
    """An error's text; with its kind where the text alone, as a KeyError's, says too little."""
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def _with_generator(caller, parts):
    if "generator" in parts:
        raise ValueError(
            f"{caller}: the name 'generator' is that of the engine's own; choose another"
        )
    return parts | {"generator": default_generator()}


def _state_of(part):
    return part.bit_generator.state if isinstance(part, np.random.Generator) else part.state_dict()


def _pack(value, name, arrays):
    """value as JSON can hold it; arrays in it go to `arrays` and leave their name."""
    if hasattr(value, "shape") and not isinstance(value, np.generic):
        return {"array": _keep(name, value, arrays)}
    if isinstance(value, dict):  # as pairs: JSON would turn keys that are numbers into strings
        return {"dict": [[key, _pack(v, f"{name}.{key}", arrays)] for key, v in value.items()]}
    if isinstance(value, list | tuple):
        if len(value) >= LONG and type(value) is list:
            for key, (kind, dtype) in NUMBERS.items():
                if all(type(item) is kind for item in value) and _fit(value, dtype):
                    return {key: _keep(name, np.array(value, dtype), arrays)}
        items = [_pack(v, f"{name}.{i}", arrays) for i, v in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(
        f"checkpoint: {name} must be made of arrays and numbers; got {type(value).__name__}"
    )


def _keep(name, array, arrays):
    """Put an array under its name, or another where a key with a dot in it took that; -> the name."""
    while name in arrays:
        name += "'"
    arrays[name] = array
    return name


def _fit(values, dtype):
    return dtype is np.float64 or -(2**63) <= min(values) and max(values) < 2**63


def _unpack(value, arrays):
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "array":
        return arrays[content]
    if kind in NUMBERS:
        return arrays.pop(content).tolist()  # each belongs to one list
    if kind == "dict":
        return {key: _unpack(v, arrays) for key, v in content}
    return {"list": list, "tuple": tuple}[kind](_unpack(v, arrays) for v in content)
