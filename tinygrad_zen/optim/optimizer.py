"""Optimizer: parameter groups, their state, and the step that every rule shares.

A rule says two things: which arrays it keeps for a parameter, and which kernel moves the weights.
"""

import functools
import math
from collections import Counter
from operator import is_not

import numpy as np

from ..autograd import recording
from ..tensor import Tensor

# A parameter of at most this many elements is packed with others: copying it costs less than a
# kernel call of its own.
PACKED_SIZE = 4096


class Optimizer:
    """The base of all optimizers.

    params: Tensors that require a gradient, or groups of them with options of their own,
    `[{"params": [...], "lr": 0.1}, {"params": [...]}]`. A rule derives from this class and defines
    `check`, `initial_state` and `update`.

    param_groups: one dict a group, with its options; change them between steps as you like. state:
    one dict a parameter, in the order of the groups; empty until its first step.
    """

    def __init__(self, params, **defaults):
        self.defaults = defaults
        self.param_groups = []
        self.state = []
        self._plans = []
        if isinstance(params, Tensor) or not hasattr(params, "__iter__"):
            raise TypeError(
                f"{self.name}: params must be a sequence of Tensors or of groups, such as "
                f"net.parameters(); got {type(params).__name__}"
            )
        groups = list(params)
        if not groups:
            raise ValueError(f"{self.name}: no parameters were given")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    # what a rule defines

    def check(self, group):
        """Raise ValueError for options that make no sense."""
        raise NotImplementedError

    def initial_state(self, group):
        """The arrays kept for each parameter, {name: the number that fills it at first}."""
        raise NotImplementedError

    def update(self, kernels, w, g, state, t, group):
        """Move the weights w in place, given the gradient g; state: {name: array}, t: the step, from 1."""
        raise NotImplementedError

    # what they share

    @property
    def name(self):
        return type(self).__name__

    def add_param_group(self, group):
        """One more group, `{"params": [...], option: value}`; options not given take the defaults."""
        if not isinstance(group, dict) or "params" not in group:
            raise TypeError(f'{self.name}: a group must be a dict with "params"; got {group!r:.80}')
        params = group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        options = {k: v for k, v in group.items() if k != "params"}
        self._check_names(options)
        first = len(self.state)
        known = {id(p) for p in self._params()}
        for i, p in enumerate(params, first):
            if not isinstance(p, Tensor):
                raise TypeError(
                    f"{self.name}: parameter {i} must be a Tensor; got {type(p).__name__}"
                )
            if p.node is not None:
                raise ValueError(
                    f"{self.name}: parameter {i} was computed by {p.node.name}; give the leaf"
                )
            if id(p) in known:
                raise ValueError(f"{self.name}: parameter {i} of shape {p.shape} was given twice")
            known.add(id(p))
        options = {**self.defaults, **options}
        self.check(options)
        self.param_groups.append({"params": params, **options})
        self.state += [{} for _ in params]
        self._plans.append((None, []))

    def zero_grad(self):
        """Forget the gradients: set them to None."""
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    def step(self):
        """Update every parameter that has a gradient."""
        first = 0
        for k, group in enumerate(self.param_groups):
            params = group["params"]
            fills = self.initial_state(group)
            live = [
                (i, p.backend, p.data.dtype, p.grad.data.shape)
                for i, p in enumerate(params, first)
                if p.grad is not None
            ]
            made_for, buckets = self._plans[k]
            if made_for != (fills, live):  # buckets last as long as what they were made for
                buckets = self._buckets(group, first, fills)
                self._plans[k] = (fills, live), buckets
            for bucket in buckets:
                if recording.watcher is None:
                    bucket.step(self.update, group)
                else:
                    recording.watcher.optimize(bucket, self.update, group)
            first += len(params)

    def state_dict(self):
        """Groups and state as plain numbers and NumPy arrays (copies); parameters by position."""
        groups, first = [], 0
        for group in self.param_groups:
            positions = list(range(first, first + len(group["params"])))
            groups.append({**group, "params": positions})
            first += len(positions)
        state = {
            i: {
                name: np.array(p.backend.numpy(v)) if name != "step" else v
                for name, v in kept.items()
            }
            for i, (p, kept) in enumerate(zip(self._params(), self.state, strict=True))
            if kept
        }
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict):
        """Take over what state_dict() gave; everything is checked before anything is changed."""
        if set(state_dict) != {"state", "param_groups"}:
            raise ValueError(
                f"{self.name}: load_state_dict needs state and param_groups; got {', '.join(state_dict)}"
            )
        groups, state = state_dict["param_groups"], state_dict["state"]
        sizes = [len(g["params"]) for g in groups]
        own_sizes = [len(g["params"]) for g in self.param_groups]
        if sizes != own_sizes:
            raise ValueError(
                f"{self.name}: load_state_dict needs groups of {own_sizes} parameters; got {sizes}"
            )
        new_groups = []
        for own, loaded in zip(self.param_groups, groups, strict=True):
            options = {k: _as_option(v) for k, v in loaded.items() if k != "params"}
            self._check_names(options)
            options = {**own, **options}
            self.check(options)
            new_groups.append(options)
        new_state = [{} for _ in self.state]
        owners = [g for g in new_groups for _ in g["params"]]
        params = list(self._params())
        for i, kept in state.items():
            i = int(i)
            if not 0 <= i < len(params):
                raise ValueError(
                    f"{self.name}: load_state_dict has state for parameter {i} of {len(params)}"
                )
            names = {"step", *self.initial_state(owners[i])}
            if set(kept) != names:
                raise ValueError(
                    f"{self.name}: the state of parameter {i} must hold {', '.join(sorted(names))}; "
                    f"got {', '.join(sorted(kept))}"
                )
            for name, value in kept.items():
                if name == "step":
                    new_state[i]["step"] = int(value)
                    continue
                if np.shape(value) != params[i].shape:
                    raise ValueError(
                        f"{self.name}: {name} of parameter {i} must have shape {params[i].shape}; "
                        f"got {np.shape(value)}"
                    )
                new_state[i][name] = np.array(value)
        for own, options in zip(self.param_groups, new_groups, strict=True):
            own.update(options)
        self.state = new_state
        self._plans = [(None, []) for _ in self.param_groups]

    def __getstate__(self):
        # the buckets share memory with the state; a copy makes its own at its first step
        return {**self.__dict__, "_plans": [(None, []) for _ in self.param_groups]}

    def __repr__(self):
        lines = [f"{self.name} ("]
        for group in self.param_groups:
            options = ", ".join(f"{k}={v!r}" for k, v in group.items() if k != "params")
            lines.append(f"  {len(group['params'])} parameters: {options}")
        return "\n".join([*lines, ")"])

    def _params(self):
        return (p for group in self.param_groups for p in group["params"])

    def _check_names(self, options):
        unknown = [k for k in options if k not in self.defaults and k != "initial_lr"]
        if unknown:
            raise TypeError(
                f"{self.name}: unknown option {unknown[0]!r}; choose from {', '.join(self.defaults)}"
            )

    def _buckets(self, group, first, fills):
        """The parameters of a group that have a gradient, in buckets: one kernel call each."""
        together = {}
        owners = Counter(_owner(p.data) for p in group["params"])
        for i, p in enumerate(group["params"], first):
            if p.grad is None:
                continue
            if p.grad.shape != p.shape:
                raise ValueError(
                    f"{self.name}: parameter {i} has shape {p.shape} and its gradient {p.grad.shape}"
                )
            kept = self.state[i]
            for name, value in fills.items():
                if name not in kept:
                    kept[name] = p.backend.xp.full_like(p.data, value)
                elif kept[name].shape != p.shape:
                    raise ValueError(
                        f"{self.name}: parameter {i} now has shape {p.shape}; its {name} has "
                        f"{kept[name].shape}"
                    )
            t = kept.setdefault("step", 0)
            # two parameters on one array must see each other's update
            alone = p.size > PACKED_SIZE or owners[_owner(p.data)] > 1
            alike = i if alone else (p.backend, p.dtype, t)
            together.setdefault(alike, []).append((p, kept))
        return [_Bucket(members, list(fills)) for members in together.values()]


class _Bucket:
    """Parameters that one kernel call updates: a large one, or small ones together.

    The parameters keep their own arrays, so whatever else looks at those sees every step. Gradients are
    copied into one array, and the state lies in one: what Optimizer.state holds are views of it.
    """

    def __init__(self, members, names):
        self.params = [p for p, _ in members]
        self.states = [kept for _, kept in members]
        backend, dtype = self.params[0].backend, self.params[0].dtype
        self.backend = backend
        for kept in self.states:
            for name in names:
                kept[name] = _as_array(kept[name], backend, dtype)
        self.pieces = None
        if len(members) == 1:
            self.arrays = {name: self.states[0][name] for name in names}
            return
        self.pieces = _Pieces(p.data for p in self.params)
        self.gradients = [None] * len(members)
        self.g = backend.xp.empty(sum(p.size for p in self.params), dtype)
        self.arrays = {}
        for name in names:
            flat = backend.xp.concatenate([kept[name] for kept in self.states], axis=None)
            first = 0
            for p, kept in zip(self.params, self.states, strict=True):
                kept[name] = flat[first : first + p.size].reshape(p.shape)
                first += p.size
            self.arrays[name] = flat

    def count(self):
        """One step more; which one it is, from 1."""
        t = self.states[0]["step"] + 1
        for kept in self.states:
            kept["step"] = t
        return t

    def step(self, update, group):
        t = self.count()
        kernels = self.backend.kernels
        if recording.watcher is not None:
            update = functools.partial(recording.watcher.step, update)
        if self.pieces is None:
            (p,) = self.params
            update(kernels, p.data, p.grad.data, self.arrays, t, group)
            return
        weights, gradients = [], []
        for p in self.params:
            weights.append(p.data)
            gradients.append(p.grad.data)
        if any(map(is_not, weights, self.pieces)):  # as after net.to("float64")
            self.pieces = _Pieces(weights)
        if any(map(is_not, gradients, self.gradients)):
            self.gradients = gradients
            self.backend.xp.concatenate(gradients, axis=None, out=self.g)
            gradients = self.g
        else:  # the very arrays of the last step, as in a captured one: they are taken where they lie
            gradients = self.gradients
        update(kernels, self.pieces, gradients, self.arrays, t, group)


class _Pieces(list):
    """The arrays of a bucket's weights; a kernel may keep in `places` where they lie."""

    places = None


def _as_array(array, backend, dtype):
    """An array of state, wherever it was, on a backend."""
    return backend.array(backend.numpy(array) if backend.xp is np else array, dtype)


def _owner(array):
    """Which memory an array lies in: the same number for an array and its views."""
    return id(array if array.base is None else array.base)


def _as_option(value):
    """An option as it was before a file format turned its tuple into a list."""
    return tuple(value) if isinstance(value, list) else value


def check_options(name, options, **limits):
    """Raise ValueError unless each option lies in its [low, high)."""
    for key, (low, high) in limits.items():
        value = options[key]
        if not low <= value < high:
            where = f"be at least {low}" if high == math.inf else f"lie in [{low}, {high})"
            raise ValueError(f"{name}: {key} must {where}; got {value}")
