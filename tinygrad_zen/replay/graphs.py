"""Replays of a step on a card: CUDA graphs, each started at once, and optimizers between them."""

import gc

import numpy as np

from ..backend import default_generator
from ..tensor import Tensor
from .graph_recorder import GraphRecorder, check_backend, recordable
from .recorded import Recorded, on_host, plan_of
from .trace import Diverged
from .traced import plain


class GraphReplay(Recorded):
    """A step on a card, recorded. count: the nodes of its graphs and the steps of optimizers.

    The call that records first runs the step as usual, but in memory that is the graphs' own: then all
    kernels are compiled, and that memory suffices while the graphs are recorded, when none can be taken.
    """

    tolerance = 1e-3

    def __init__(self, function, args, options, surroundings, backend):
        self._cupy = backend.xp
        self._device = self._cupy.cuda.Device().id
        super().__init__(function, args, options, surroundings)
        for name, tensor in surroundings.tensors.items():
            check_backend(tensor.backend, name)
        for name, _, _, backend in self._inputs:
            if backend is not None:
                check_backend(backend, name)
        given = [memory for _, memory, _, _ in self._inputs if memory is not None]
        options_before, inputs, start = self._python_state(), _contents(given), self._state()
        try:
            expected = self._usual(given)
            gradients = start[-1]  # what the recorded step finds is what this one found
            for tensor, gradient, _ in gradients:
                tensor.grad = gradient
            self._record()
            self._refuse_options(options_before)
            self._refuse_unknown(self._recorder.trace.found())
            self._recorder.refuse_strangers()
            self._check_itself(expected, start)
            if _contents(given) != inputs:
                raise RuntimeError("capture: the step writes into an argument; write into a copy")
            before = {id(array): copy for array, copy in start[0]}
            if any((before.get(id(a), a) != a).any() for a, _ in self._watched):
                raise RuntimeError("capture: the step changes indices that it uses; use copies")
        except BaseException:
            self._restore(start)
            raise

    def memory(self, array):
        return self._cupy.array(plain(array) if isinstance(array, np.ndarray) else array)

    def _usual(self, given):
        """The step as it is, in the memory of the graphs; returns what it leaves."""
        self._recorder = GraphRecorder(self._cupy, self.surroundings, given)
        with self._recorder.beside():
            result = self.by_the_engine(self._args, self._options)
        return self._outcome(result)

    def _record(self):
        gc.collect()  # what is free is taken again
        recorder = self._recorder
        result = recorder.record(self._function, self._args, self._options)
        self._result = self._plan(result)
        tensors = self.surroundings.tensors.values()
        self._gradients = [(t, t.grad) for t in tensors if t.requires_grad]
        self._looked_at, self._parts = recorder.looked_at, recorder.parts
        self._host = recorder.trace.calls_to_replay()
        self._watched = list(recorder.watched.values())
        self._plans = [plan_of(bucket, optimizer) for bucket, optimizer in recorder.owners]
        self._groups = {optimizer: len(optimizer._plans) for _, optimizer in recorder.owners}
        self.count = recorder.count

    def _check_itself(self, expected, start):
        """A replay from where the recorded step began and on spoiled memory: the same must come out."""
        self._restore(start)
        for leaf, memory in self._looked_at:
            if memory is not None:
                memory[...] = leaf.grad.data
        self._recorder.poison()
        self.first = self.run()
        found, args = self._outcome(self.first), (self._args, self._options)
        self._compare(expected, found, "the engine's step", start, *args)

    # replays

    def run(self):
        self._generator_state = default_generator().bit_generator.state if self._host else None
        for array, looks in self._watched:
            ends = int(array.min()), int(array.max())
            if any(
                compare(ends[end], other) is not answer for end, compare, other, answer in looks
            ):
                raise Diverged
        for function, args in self._host:
            function(*args)
        stream = self._cupy.cuda.get_current_stream().ptr
        for part in self._parts:
            part(stream)
        for tensor, gradient in self._gradients:
            tensor.grad = gradient
        return self._results()

    def undo(self):
        """A replay diverges before anything is computed on the card."""
        if self._generator_state is not None:
            default_generator().bit_generator.state = self._generator_state
        self._gradients_back()

    def by_the_engine(self, args, options):
        with recordable(self._cupy):
            return super().by_the_engine(args, options)

    def _engine_changed(self):
        if self._cupy.cuda.Device().id != self._device:
            return f"the current card was number {self._device} at recording"
        return super()._engine_changed()

    # comparisons

    def _state(self):
        """All that a step may change: arrays, state of optimizers, the random generator, gradients."""
        surroundings = self.surroundings
        arrays = [t.data for t in surroundings.tensors.values()]
        arrays += [a for a in surroundings.arrays.values() if not isinstance(a, np.ndarray)]
        return (
            [(array, array.copy()) for array in arrays],
            [(kept, _copied(kept)) for o in surroundings.optimizers.values() for kept in o.state],
            default_generator().bit_generator.state,
            [
                (t, t.grad, None if t.grad is None else t.grad.data.copy())
                for t in surroundings.tensors.values()
            ],
        )

    def _restore(self, state):
        arrays, states, generator, gradients = state
        for tensor, array in self.surroundings.places():
            tensor.data = array
        for array, copy in arrays:
            array[...] = copy
        for kept, values in states:
            for name in kept:
                if name == "step":
                    kept[name] = values.get(name, 0)
                elif name in values:
                    kept[name][...] = values[name]
                else:  # made since, by a first step
                    self._begin_again(kept, name)
        default_generator().bit_generator.state = generator
        for tensor, gradient, copy in gradients:
            tensor.grad = gradient
            if gradient is not None:
                gradient.data[...] = copy

    def _begin_again(self, kept, name):
        """State of an optimizer as it is at first."""
        for optimizer in self.surroundings.optimizers.values():
            states = iter(optimizer.state)
            for group in optimizer.param_groups:
                if any(next(states) is kept for _ in group["params"]):
                    kept[name].fill(optimizer.initial_state(group)[name])
                    return

    def _outcome(self, result):
        """{what it is: its numbers} of all that a step leaves."""
        arrays, states, generator, gradients = self._state()
        named = [
            *self.surroundings.tensors,
            *(
                name
                for name, a in self.surroundings.arrays.items()
                if not isinstance(a, np.ndarray)
            ),
        ]
        found = {n: on_host(copy) for n, (_, copy) in zip(named, arrays, strict=True)}
        for i, (_, values) in enumerate(states):
            for name, value in values.items():
                found[f"{name} of the optimizer's parameter {i}"] = (
                    value if name == "step" else on_host(value)
                )
        found["the state of the random generator"] = generator
        found |= {f"the result {i}": v for i, v in enumerate(_flat(result))}
        for name, (_, _, copy) in zip(self.surroundings.tensors, gradients, strict=True):
            if copy is not None:
                found[f"the gradient of {name}"] = on_host(copy)
        return found


def _contents(arrays):
    return [on_host(array).tobytes() for array in arrays]


def _copied(kept):
    return {name: v if name == "step" else v.copy() for name, v in kept.items()}


def _flat(result):
    """The values in a result, arrays on the host."""
    if isinstance(result, dict):
        result = list(result.values())
    if isinstance(result, tuple | list):
        for value in result:
            yield from _flat(value)
    elif isinstance(result, Tensor):
        yield on_host(result.data)
    else:
        yield on_host(result) if hasattr(result, "get") else result
