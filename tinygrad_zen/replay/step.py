"""capture(): a training step, recorded once and replayed without the engine."""

import functools

import numpy as np

from ..autograd import recording
from ..backend import default_backend, default_generator
from ..tensor import Tensor
from .graphs import GraphReplay
from .recorded import Recorded, digest, is_data, plan_of
from .recorder import Recorder
from .surroundings import Surroundings
from .trace import Diverged, observed
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
    recorded: on a CPU as a flat list of calls of NumPy and of compiled kernels, on arrays that stay where
    they are. From then on arguments are copied into place and the list is replayed. check: how many
    replays are compared with the engine, bit for bit: they are undone, and the engine's step stays
    (RuntimeError if they differ); it takes new arguments to find out that something depends on them.

    Arguments: Tensors and arrays, whose shapes and dtypes must stay, and Python values, which must
    stay (ValueError otherwise; `step.function` is the function itself, for an odd batch). So must
    Python values and arrays that the function reaches from outside: closures, attributes of layers.
    Numbers inside arrays may change: weights, running statistics, learning rates of the optimizer's
    groups. Where Python asks for the truth of a value (`if loss > 1`), the answer is compared in each
    replay; another answer makes that call run as usual. Random numbers are drawn anew, in the same
    order. A number of the step's own (`loss.item()`, `float(...)`) is refused inside: return the Tensor.

    Returned Tensors are copies. Parameters' `.grad` are overwritten by the next replay. What else
    Python does in the step (prints, counts, lists) happens when it is recorded, and not in replays.
    Debuggers and profiles (`tz.debug`, `tz.profile`) see steps as usual: inside them nothing is
    replayed. Backends: numpy, numba; and cupy, cuda, on which the step becomes CUDA graphs, each started
    at once, with the optimizers' updates between them.

    On a card Python may look at no value, and numbers come from the host as arguments, from the engine's
    generator, or as constants: all else is refused, and so is a graph that names memory which nothing
    keeps. The range of labels and indices is looked at before each replay, for which they must be
    arguments or held by the function. Products of matrices are made by this engine's kernels, since CuPy
    lets nobody record cuBLAS; so float16 and einsum are refused, and replays agree with the step by itself
    to rounding, with a step that computes its products in the same way bit for bit. Where the engine does
    not repeat its own bits (`cupy` adds the gradients of words in any order) the comparison allows 1e-3 of
    an array's largest number.
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
        return None if self._replay is None else self._replay.count

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
            replay = _record(self.function, args, options)
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


def _record(function, args, options):
    """A step recorded where it computes: on the card if anything of it lies there."""
    values = (*args, *options.values())
    surroundings = Surroundings(function, [v for v in values if not is_data(v)])
    tensors = [*(v for v in values if isinstance(v, Tensor)), *surroundings.tensors.values()]
    backends = [default_backend(), *(t.backend for t in tensors)]
    card = next((b for b in backends if b.xp is not np), None)
    if card is None:
        return Replay(function, args, options, surroundings)
    return GraphReplay(function, args, options, surroundings, card)


class Replay(Recorded):
    """A recorded step. calls: [(function, arguments)]; first: what the recorded step returned."""

    def __init__(self, function, args, options, surroundings):
        super().__init__(function, args, options, surroundings)
        recorder = Recorder(self.surroundings)
        trace = recorder.trace
        originals = {id(b): digest(b) for _, b, _, _ in self._inputs if b is not None}
        trace.inputs = {id(b): b for _, b, _, _ in self._inputs if b is not None}
        trace.made |= trace.inputs
        before = self._python_state()
        generator = default_generator().bit_generator.state
        gradients = [(t, t.grad) for t in self.surroundings.tensors.values()]
        start = trace.saved, recorder.steps, generator, gradients
        try:
            result = recorder.record(function, self._args, self._options)
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
        self._plans = [plan_of(bucket, optimizer) for bucket, optimizer in owners]
        self._groups = {optimizer: len(optimizer._plans) for _, optimizer in owners}
        self._steps, self._looked_at = recorder.steps, recorder.looked_at
        self.first = self._results()
        try:
            self._refuse(trace, before, originals)
        except BaseException:
            self._restore(start)
            raise
        self.calls = trace.calls_to_replay()
        self.count = len(self.calls)
        self._memory = [array for array, _ in trace.saved.values()]  # that the step writes
        self._plan_undo(trace)
        self._check_itself(trace, start)

    def memory(self, array):
        return np.array(plain(array))

    def seen(self, memory):
        return observed(memory)

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

    def _plan_undo(self, trace):
        """What must be kept before a replay in case that a guard stops it."""
        last = max(trace.guards, default=-1)
        written = {id(root(a)) for some in trace.writes[:last] for a in some}
        roots = [root for key, (root, _) in trace.saved.items() if key in written]
        self._undo = [(array.copy(), array) for array in roots]
        self._draws_first = any(i < last for i in trace.draws)
        self._late = any(i < last for i in trace.updates)

    # comparisons

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
            names.get(key, "an array outside of it"): digest(array)
            for key, array in self._roots().items()
        }
        found |= {
            f"the count of steps {i}": kept["step"] for i, (kept, _) in enumerate(self._steps)
        }
        found["the state of the random generator"] = default_generator().bit_generator.state
        found["the result"] = digest(result)
        for name, tensor in self.surroundings.tensors.items():
            if tensor.grad is not None:
                found[f"the gradient of {name}"] = digest(tensor.grad)
        return found

    # what is refused

    def _refuse(self, trace, before, originals):
        self._refuse_options(before)
        self._refuse_unknown(trace.found())
        for name, buffer, _, _ in self._inputs:
            if buffer is not None and digest(buffer) != originals[id(buffer)]:
                raise RuntimeError(f"capture: the step writes into {name}; write into a copy")
