"""Checkpoints: everything that a training run needs to go on bit for bit, in one safetensors file."""

import json

import numpy as np

from ..backend import default_generator
from .states import load_state, save_state

KEY = "tinygrad_zen.checkpoint"


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

    Raises ValueError for a file that is not a checkpoint or holds other parts; see also load_state.
    """
    arrays, metadata = load_state(path)
    if KEY not in metadata:
        raise ValueError(f"{path}: this is not a checkpoint, but a state dict or a model")
    tree = json.loads(metadata[KEY])
    saved = set(tree) - {"generator"}
    if saved != set(parts):
        raise ValueError(f"{path}: the checkpoint is of {sorted(saved)}; got {sorted(parts)}")
    states = {name: _unpack(state, arrays) for name, state in tree.items()}
    for name, part in _with_generator("load_checkpoint", parts).items():
        if isinstance(part, np.random.Generator):
            part.bit_generator.state = states[name]
        else:
            part.load_state_dict(states[name])


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
        arrays[name] = value
        return {"array": name}
    if isinstance(value, dict):  # as pairs: JSON would turn keys that are numbers into strings
        return {"dict": [[key, _pack(v, f"{name}.{key}", arrays)] for key, v in value.items()]}
    if isinstance(value, list | tuple):
        items = [_pack(v, f"{name}.{i}", arrays) for i, v in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(
        f"checkpoint: {name} must be made of arrays and numbers; got {type(value).__name__}"
    )


def _unpack(value, arrays):
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "array":
        return arrays[content]
    if kind == "dict":
        return {key: _unpack(v, arrays) for key, v in content}
    items = [_unpack(v, arrays) for v in content]
    return tuple(items) if kind == "tuple" else items
