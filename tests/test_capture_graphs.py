"""Steps captured as graphs, on a stand-in for the card; on a card itself: tests/gpu/test_graphs.py."""

import contextlib
import ctypes
import types

import card_stand_in as card
import numpy as np
import pytest
from graph_cases import CASES, batches, both, small, step_of

import tinygrad_zen as tz
from tinygrad_zen import nn, optim
from tinygrad_zen.kernels import reference
from tinygrad_zen.replay import contents, graph_recorder


@pytest.fixture(autouse=True)
def backend(monkeypatch):
    kernels = types.SimpleNamespace(matmul=lambda x, y: card.start(np.matmul, x, y))
    monkeypatch.setattr(
        graph_recorder, "backend", lambda name: types.SimpleNamespace(kernels=kernels)
    )
    monkeypatch.setattr(graph_recorder, "Contents", card.CardContents)
    monkeypatch.setattr(graph_recorder, "unsafe_calls", contextlib.nullcontext)
    monkeypatch.setattr(graph_recorder, "allocation", card.allocation)
    tz.seed(0)
    backend = tz.Backend("cupy", card.cupy, reference)
    with tz.using(backend):
        yield backend


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_case(backend, case):
    case(backend)


@pytest.mark.parametrize(
    "optimizer", [optim.SGD, optim.Adam, optim.RMSprop], ids=lambda o: o.__name__
)
def test_every_step_is_the_engines(optimizer):
    assert both(small(optimizer=optimizer), batches(7)).step.calls > 20


def test_replays_start_graphs_and_nothing_else():
    net = nn.Sequential(nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 5))
    step = step_of(net, optim.SGD(net.parameters(), lr=0.1))
    run, data = tz.capture(step), batches(6)
    for b in data[:4]:
        run(*b)
    for captured in (True, False):
        card.state.launches = 0
        (run if captured else step)(*data[4])
        if captured:
            few = card.state.launches
    assert 3 * few < card.state.launches


@pytest.mark.parametrize(
    ("look", "words"),
    [
        (lambda loss: loss.item(), "item"),
        (lambda loss: float(loss), "float"),
        (lambda loss: loss > 1 and 1, "truth"),
        (lambda loss: loss.data.set(np.ones((), "float32")), "from the host"),
    ],
)
def test_looks_and_copies_are_refused_and_leave_nothing(look, words):
    step, net = small()()

    def looking(x, y):
        loss = step(x, y)
        look(loss)
        return loss

    run, data = tz.capture(looking), batches(3)
    run(*data[0])
    before = {n: np.array(w) for n, w in net.state_dict().items()}
    for _ in range(2):
        with pytest.raises(RuntimeError, match=words):
            run(*data[1])
        assert all((np.array(w) == before[n]).all() for n, w in net.state_dict().items())
        assert card.state.graph is None and card.cupy.matmul is card.matmul
    step(*data[2])


def test_a_graph_whose_memory_is_used_by_others_would_be_noticed(monkeypatch):
    """The first replay runs on spoiled memory: what a graph does not compute itself comes out as NaN."""
    step, _ = small()()
    run, data = tz.capture(step), batches(2)
    run(*data[0])
    monkeypatch.setattr(card.runtime, "graphLaunch", lambda graph, stream: None)
    with pytest.raises(RuntimeError, match="differs from the engine's step in"):
        run(*data[1])


def test_optimizers_that_the_function_does_not_name_are_refused():
    net = nn.Linear(12, 5)
    hidden = {"optimizer": optim.SGD(net.parameters(), lr=0.1)}

    class Hiding:
        def __getattr__(self, name):
            return getattr(eval("hidden['optimizer']", {"hidden": held}), name)

    held = hidden
    step = step_of(net, Hiding())
    del hidden
    run, data = tz.capture(step), batches(2)
    run(*data[0])
    with pytest.raises(RuntimeError, match="an optimizer that the function does not name"):
        run(*data[1])


def test_tensors_of_other_backends_are_refused(backend):
    with tz.using("numpy"):
        other = tz.tensor([1.0])
    step = tz.capture(lambda x: x * other.numpy())
    x = tz.tensor([1.0])
    step(x)
    with pytest.raises(ValueError, match="other is on numpy; a graph needs all on cupy or cuda"):
        step(x)


# what the driver tells of a graph


class Driver:
    """Of a graph with one node of each kind: the calls that Contents makes."""

    KINDS = 0, 1, 2, 10, 11

    def __init__(self, kernel=(), source=(2, 5000000), kinds=KINDS):
        self.words = (ctypes.c_uint64 * max(len(kernel), 1))(*kernel)
        self.count, self.source, self.kinds = len(kernel), source, kinds
        self.pointer = (ctypes.c_void_p * 1)(ctypes.addressof(self.words))

    def cuGraphGetNodes(self, graph, nodes, count):
        count._obj.value = len(self.kinds)
        for i in range(len(self.kinds) if nodes else 0):
            nodes[i] = i + 1
        return 0

    def cuGraphNodeGetType(self, node, kind):
        kind._obj.value = self.kinds[node.value - 1]
        return 0

    def cuGraphKernelNodeGetParams_v2(self, node, kernel):
        kernel._obj.function = 77
        kernel._obj.parameters = ctypes.cast(self.pointer, ctypes.POINTER(ctypes.c_void_p))
        return 0

    def cuFuncGetName(self, name, function):
        name._obj.value = b"a_kernel"
        return 0

    def cuFuncGetParamInfo(self, function, i, offset, size):
        size._obj.value = 8 * self.count
        return 1 if i.value else 0

    def cuGraphMemcpyNodeGetParams(self, node, copy):
        kind, address = self.source
        copy = copy._obj
        copy.source.kind, copy.target.kind, copy.target.device = kind, 2, 6000000
        copy.source.host = copy.source.device = address
        copy.width, copy.height, copy.depth = 32, 1, 1
        return 0

    def cuGraphMemsetNodeGetParams(self, node, fill):
        fill._obj.target = 7000000
        return 0

    def cuGraphMemAllocNodeGetParams(self, node, found):
        found._obj.address, found._obj.size = 8000000, 512
        return 0

    def cuMemGetAddressRange_v2(self, start, size, address):
        if not 5000000 <= address.value < 9000000:
            return 1
        start._obj.value, size._obj.value = address.value // 1000000 * 1000000, 1000
        return 0


def test_contents_of_a_graph():
    found = contents.Contents(1, Driver(kernel=(3, 5000008, 8000256)))
    assert found.count == 5 and not found.host
    assert found.addresses == {
        5000000: "a copy", 5000008: "a_kernel", 6000000: "a copy", 7000000: "a fill",
        8000256: "a_kernel",
    }  # fmt: skip
    known = [(5000000, 5001000), (6000000, 6000500)]
    assert found.strangers(known) == {7000000: "a fill"}
    assert not found.strangers([*known, (6999000, 7000000)])
    assert contents.allocation(5000500, Driver()) == (5000000, 5001000)
    assert contents.allocation(500, Driver()) is None


@pytest.mark.parametrize("source", [(1, 5000000), (4, 12)])
def test_copies_from_the_host_are_told(source):
    assert contents.Contents(1, Driver(source=source)).host == ["a copy of 32 bytes from the host"]


def test_calls_of_the_host_are_told():
    assert contents.Contents(1, Driver(kinds=(3,))).host == ["a node of kind call of the host"]


def test_an_error_of_the_driver():
    driver = Driver()
    driver.cuGraphGetNodes = lambda *args: 700
    with pytest.raises(RuntimeError, match="cuGraphGetNodes: the CUDA driver reports error 700"):
        contents.Contents(1, driver)
