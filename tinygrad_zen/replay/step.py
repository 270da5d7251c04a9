"""capture(): a training step, recorded once and replayed without the engine."""

import functools
import hashlib
import sys

import numpy as np

from ..autograd import recording
from ..backend import default_backend, default_generator
from ..tensor import Tensor
from .recorder import Recorder, fresh_memory
from .surroundings import PACKAGE, Surroundings
from .trace import Diverged, arrays_in, observed
from .traced import plain, root


def capture(function, check=2):
    """A function that does what `function` does, from the third call on without the engine.

        @tz.capture
        def step(x, y):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            return loss

    The first call runs as usual: it compiles kernels and makes the optimizer's state. The second is
    recorded: a flat list of calls of NumPy and of compiled kernels, on arrays that stay where they are.
    From then on arguments are copied into place and the list is replayed. check: how many replays are
    compared with the engine, bit for bit: they are undone, and the engine's step stays (RuntimeError if
    they differ); it takes new arguments to find out that something depends on them.

    Arguments: Tensors and arrays, whose shapes and dtypes must stay, and Python values, which must
    stay (ValueError otherwise; `step.function` is the function itself, for an odd batch). So must
    Python values and arrays that the function reaches from outside: closures, attributes of layers.
    Numbers inside arrays may change: weights, running statistics, learning rates of the optimizer's
    groups. Where Python asks for the truth of a value (`if loss > 1`), the answer is compared in each
    replay; another answer makes that call run as usual. Random numbers are drawn anew, in the same
    order. A number of the step's own (`loss.item()`, `float(...)`) is refused inside: return the Tensor.

    Returned Tensors are copies. Parameters' `.grad` are overwritten by the next replay. What else
    Python does in the step (prints, counts, lists) happens when it is recorded, and not in replays.
    Only for backends whose arrays are NumPy's: numpy and numba. Debuggers and profiles
    (`tz.debug`, `tz.profile`) see steps as usual: inside them nothing is replayed.
    """
    return Captured(function, check)


class Captured:
    """What `capture` makes. function: the step itself; calls: how many a replay makes, None so far."""

    def __init__(self, function, check):
        if not callable(function):
            raise TypeError(f"capture: a function is needed; got {type(function).__name__}")
        self.function = function
        self._warm = False
        self._check, self._checked = check, 0
        self._replay = None
        functools.update_wrapper(self, function, updated=())

    def __get__(self, owner, kind=None):
        """Decorated methods: each object has a step of its own."""
        if owner is None:
            return self
        bound = Captured(self.function.__get__(owner, kind), self._check)
        vars(owner)[self._name] = bound
        return bound

    def __set_name__(self, kind, name):
        self._name = name

    @property
    def calls(self):
        return None if self._replay is None else len(self._replay.calls)

    def reset(self):
        """Forget the recording: the next call is recorded anew."""
        self._replay, self._checked = None, 0

    def __call__(self, *args, **options):
        if recording.watcher is not None:
            return self.function(*args, **options)
        if self._replay is None:
            if not self._warm:
                result = self.function(*args, **options)
                self._warm = True
                return result
            replay = Replay(self.function, args, options)
            self._replay = replay
            return replay.first
        replay = self._replay
        replay.take(args, options)
        if self._checked < self._check:
            self._checked += 1
            try:
                return replay.compared(args, options)
            except BaseException:
                self.reset()
                raise
        try:
            return replay.run()
        except Diverged:
            replay.undo()
            return replay.by_the_engine(args, options)


class Replay:
    """A recorded step. calls: [(function, arguments)]; first: what the recorded step returned."""

    def __init__(self, function, args, options):
        self._function = function
        others = [v for v in (*args, *options.values()) if not isinstance(v, Tensor | np.ndarray)]
        self.surroundings = Surroundings(function, others)
        self._inputs = []  # (name, memory, kind, backend), or (name, None, Python value, None)
        self._keys = len(args), tuple(options)
        args = tuple(self._input(a, f"argument {i}") for i, a in enumerate(args))
        options = {k: self._input(a, f"argument {k}") for k, a in options.items()}
        self._recording, self._backend = recording.on, default_backend()
        recorder = Recorder(self.surroundings)
        trace = recorder.trace
        originals = {id(b): _digest(b) for _, b, _, _ in self._inputs if b is not None}
        trace.inputs = {id(b): b for _, b, _, _ in self._inputs if b is not None}
        trace.made |= trace.inputs
        before = self._python_state()
        generator = default_generator().bit_generator.state
        gradients = [(t, t.grad) for t in self.surroundings.tensors.values()]
        start = trace.saved, recorder.steps, generator, gradients
        try:
            result = recorder.record(function, args, options)
        except BaseException:
            self._restore(start)
            raise
        self._result = self._plan(result)
        self._gradients = [
            (t, recorder.gradient(t)) for t in self.surroundings.tensors.values() if t.requires_grad
        ]
        for tensor, gradient in self._gradients:
            tensor.grad = gradient
        owners = recorder.owners()
        self._plans = [_plan_of(bucket, optimizer) for bucket, optimizer in owners]
        self._groups = {optimizer: len(optimizer._plans) for _, optimizer in owners}
        self._steps, self._looked_at = recorder.steps, recorder.looked_at
        self.first = self._results()
        try:
            self._refuse(trace, before, originals)
        except BaseException:
            self._restore(start)
            raise
        self.calls = trace.calls_to_replay()
        self._memory = [array for array, _ in trace.saved.values()]  # that the step writes
        self._plan_undo(trace)
        self._check_itself(trace, start)

    # before a replay

    def _input(self, value, name):
        """An argument as the recorded step gets it: arrays and Tensors on memory of their own."""
        array = value.data if isinstance(value, Tensor) else value
        if isinstance(array, np.ndarray):
            if isinstance(value, Tensor) and value.requires_grad:
                raise ValueError(f"capture: {name} requires a gradient; detach() it")
            buffer = np.array(plain(array))
            self._inputs.append((name, buffer, type(value), getattr(value, "backend", None)))
            return (
                Tensor(observed(buffer), value.backend)
                if isinstance(value, Tensor)
                else observed(buffer)
            )
        if isinstance(value, tuple | list | dict) and any(_holds_arrays(value)):
            raise TypeError(
                f"capture: {name} is a {type(value).__name__} of arrays; pass them one by one"
            )
        self._inputs.append((name, None, value, None))
        return value

    def take(self, args, options):
        """Copy arguments into place; raise ValueError where anything is not as it was recorded."""
        changed = self.surroundings.changed() or self._engine_changed()
        if changed:
            raise ValueError(f"capture: {changed}; step.reset() has the next call recorded anew")
        if (len(args), tuple(options)) != self._keys:
            raise ValueError(
                f"capture: the step was recorded with {self._keys[0]} arguments and {self._keys[1]}; got "
                f"{len(args)} and {tuple(options)}"
            )
        values = (*args, *options.values()) if options else args
        for value, (name, buffer, kind, backend) in zip(values, self._inputs, strict=True):
            if buffer is None:
                if value is not kind and not (type(value) is type(kind) and value == kind):
                    raise ValueError(
                        f"capture: {name} was {kind!r:.60} at recording and is {value!r:.60}; the step runs "
                        "as it is with step.function(...), or capture one for each value"
                    )
                continue
            array = value.data if isinstance(value, Tensor) else value
            if (
                not isinstance(value, kind)
                or getattr(value, "backend", None) is not backend
                or array.shape != buffer.shape
                or array.dtype != buffer.dtype
            ):
                raise ValueError(
                    f"capture: {name} was {kind.__name__} {buffer.dtype} {buffer.shape} at recording and is "
                    f"{_describe(value)}; run this one with step.function(...), or capture a step for "
                    "this shape as well"
                )
            buffer[...] = array
        for leaf, before in self._looked_at:
            if (leaf.grad is None) is not (before is None):
                words = "there was none" if before is None else "there was one"
                raise ValueError(
                    f"capture: the step adds to the gradient of a parameter {leaf.shape}; at recording "
                    f"{words} at the beginning, now it is otherwise: call zero_grad() in the step, or "
                    "always before it"
                )
            if before is not None:
                np.copyto(before, leaf.grad.data)

    def _engine_changed(self):
        """In words, what of the engine and the optimizers is no longer as it was."""
        if recording.on is not self._recording:
            return f"gradients were {_switch(self._recording)} at recording"
        if default_backend() is not self._backend:
            return f"the default backend was {self._backend.name} at recording"
        for optimizer, number, plan in self._plans:
            plans = optimizer._plans
            if plans[number][1] is not plan or len(plans) != self._groups[optimizer]:
                return f"{optimizer.name} has got other state or groups since the recording"
        return None

    # replays

    def run(self):
        """Replay; returns what the step returns."""
        for copy, array in self._undo:
            copy[...] = array
        if self._draws_first:
            self._generator_state = default_generator().bit_generator.state
        for function, args in self.calls:
            function(*args)
        for tensor, gradient in self._gradients:
            tensor.grad = gradient
        return self._results()

    def undo(self):
        """What a replay that diverged has done is as if it had not been."""
        if self._late:
            raise RuntimeError(
                "capture: a value that Python looks at after the weights were updated came out otherwise "
                "than at recording (a NaN?); this step cannot be undone"
            )
        for copy, array in self._undo:
            np.copyto(array, copy)
        if self._draws_first:
            default_generator().bit_generator.state = self._generator_state
        self._gradients_back()

    def _gradients_back(self):
        """What the step adds to is as `take` found it: the same memory may have held it and the sum."""
        for leaf, before in self._looked_at:
            if before is not None:
                leaf.grad = Tensor(before.copy(), leaf.backend)

    def _plan_undo(self, trace):
        """What must be kept before a replay in case that a guard stops it."""
        last = max(trace.guards, default=-1)
        written = {id(root(a)) for some in trace.writes[:last] for a in some}
        roots = [root for key, (root, _) in trace.saved.items() if key in written]
        self._undo = [(array.copy(), array) for array in roots]
        self._draws_first = any(i < last for i in trace.draws)
        self._late = any(i < last for i in trace.updates)

    # comparisons

    def by_the_engine(self, args, options):
        """The step as it is; what it put in the place of arrays is copied into them."""
        result = self._function(*args, **options)
        for tensor, array in self.surroundings.places():
            if tensor.data is not array:
                np.copyto(array, tensor.data)
                tensor.data = array
        return result

    def compared(self, args, options):
        """A replay, which is undone, and the same step by the engine."""
        before, replayed = self._state(), None
        try:
            replayed = self.run()
            found = self._outcome(replayed)
        except Diverged:
            found = None
        finally:
            self._restore(before)
            self._gradients_back()
        del before  # and no block stays for later, which a step on top of its recording needs once
        with fresh_memory():
            result = self.by_the_engine(args, options)
        if found is None:
            return result
        self._compare(self._outcome(result), found, "the engine's step")
        return replayed

    def _check_itself(self, trace, before):
        """The recorded step once more, from where it began and on spoiled arrays: the same must come out."""
        expected = self._outcome(self.first)
        self._restore(before)
        trace.poison()
        try:
            self._compare(expected, self._outcome(self.run()), "what was recorded")
        except BaseException:
            self._restore(before)
            raise

    def _state(self):
        """All that a step may change: memory, counts of steps, the random generator, gradients."""
        return (
            {key: (r, r.copy()) for key, r in self._roots().items()},
            [(kept, kept["step"]) for kept, _ in self._steps],
            default_generator().bit_generator.state,
            [(t, t.grad) for t in self.surroundings.tensors.values()],
        )

    def _roots(self):
        """{id: array} of the memory that a step may change."""
        tensors = self.surroundings.tensors.values()
        return {id(r): r for r in [*self._memory, *(root(t.data) for t in tensors)]}

    @staticmethod
    def _restore(state):
        arrays, steps, generator, gradients = state
        for array, copy in arrays.values():
            np.copyto(array, copy)
        for kept, number in steps:
            kept["step"] = number
        default_generator().bit_generator.state = generator
        for tensor, gradient in gradients:
            tensor.grad = gradient

    def _outcome(self, result):
        """{what it is: its digest} of all that a step leaves."""
        names = {id(root(t.data)): name for name, t in self.surroundings.tensors.items()}
        found = {
            names.get(key, "an array outside of it"): _digest(array)
            for key, array in self._roots().items()
        }
        found |= {
            f"the count of steps {i}": kept["step"] for i, (kept, _) in enumerate(self._steps)
        }
        found["the state of the random generator"] = default_generator().bit_generator.state
        found["the result"] = _digest(result)
        for name, tensor in self.surroundings.tensors.items():
            if tensor.grad is not None:
                found[f"the gradient of {name}"] = _digest(tensor.grad)
        return found

    @staticmethod
    def _compare(expected, found, what):
        wrong = [k for k in expected | found if expected.get(k, 0) != found.get(k, 0)]
        if wrong:
            raise RuntimeError(
                f"capture: the replay differs from {what} in {', '.join(sorted(wrong)[:5])}: the step does "
                "something that cannot be recorded, such as numbers drawn or computed without Tensors"
            )

    # results

    def _plan(self, value):
        """A result as something that can be made again: arrays and Tensors are copied each time."""
        if isinstance(value, Tensor):
            return Tensor, (plain(value.data), value.backend)
        if isinstance(value, np.ndarray):
            return np.ndarray, plain(value)
        if isinstance(value, tuple | list):
            return type(value), [self._plan(v) for v in value]
        if isinstance(value, dict):
            return dict, {k: self._plan(v) for k, v in value.items()}
        return None, value

    def _results(self):
        return _again(*self._result)

    # what is refused

    def _python_state(self):
        """What Python alone keeps: options of optimizers, epochs of schedules."""
        state = {
            name: [{k: v for k, v in group.items() if k != "params"} for group in o.param_groups]
            for name, o in self.surroundings.optimizers.items()
        }
        return state | {name: s.last_epoch for name, s in self.surroundings.schedules.items()}

    def _refuse(self, trace, before, originals):
        for name, after in self._python_state().items():
            if after != before[name]:
                raise RuntimeError(
                    f"capture: the step changes options of {name}, such as a learning rate; a replay would "
                    "not: call schedules after the captured step"
                )
        held = [*self.surroundings.arrays.values(), *_arrays_of_the_package()]
        held += [t.data for t in self.surroundings.tensors.values()]
        known = {id(root(array)) for array in held}
        for array in trace.found():
            if id(array) not in known:
                raise RuntimeError(
                    f"capture: the step uses an array {array.dtype} {array.shape} that is neither an "
                    "argument nor held by what the function names, such as one that it makes of random or "
                    "Python numbers: its values would be the same in every replay; pass it as an argument"
                )
        for name, buffer, _, _ in self._inputs:
            if buffer is not None and _digest(buffer) != originals[id(buffer)]:
                raise RuntimeError(f"capture: the step writes into {name}; write into a copy")


def _switch(on):
    return "on" if on else "off"


def _arrays_of_the_package():
    """Tables that modules of this package hold."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == PACKAGE:
            yield from arrays_in([v for v in vars(module).values() if not isinstance(v, list)])


def _again(kind, value):
    if kind is Tensor:
        return Tensor(value[0].copy(), value[1])
    if kind is np.ndarray:
        return value.copy()
    if kind is dict:
        return {k: _again(*v) for k, v in value.items()}
    if kind is None:
        return value
    return kind(_again(*v) for v in value)


def _digest(result):
    """What is compared of a result: of arrays not the bytes, which would take as much memory again."""
    if isinstance(result, Tensor):
        result = plain(result.data)
    if isinstance(result, np.ndarray):
        numbers = np.ascontiguousarray(result).reshape(-1).view(np.uint8)
        return result.dtype.str, result.shape, hashlib.blake2b(numbers).digest()
    if isinstance(result, tuple | list):
        return [_digest(r) for r in result]
    if isinstance(result, dict):
        return {k: _digest(v) for k, v in result.items()}
    return result


def _plan_of(bucket, optimizer):
    """(optimizer, number of the group, its buckets), which must be the same in a replay."""
    for number, (_, buckets) in enumerate(optimizer._plans):
        if any(b is bucket for b in buckets):
            return optimizer, number, buckets
    raise AssertionError("a bucket belongs to no plan")


def _holds_arrays(value):
    values = value.values() if isinstance(value, dict) else value
    for item in values:
        if isinstance(item, tuple | list | dict):
            yield from _holds_arrays(item)
        else:
            yield isinstance(item, Tensor | np.ndarray)


def _describe(value):
    if isinstance(value, Tensor | np.ndarray):
        where = f" on {value.backend.name}" if isinstance(value, Tensor) else ""
        return f"{type(value).__name__} {value.dtype} {value.shape}{where}"
    return f"{value!r:.60}"
