"""tz.profile(): every call is counted once, timed, and set against formulas and the machine."""

import inspect
import json
import time
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import tinygrad_zen as tz
import tinygrad_zen.nn as nn
import tinygrad_zen.nn.functional as F
import tinygrad_zen.optim as optim
from tinygrad_zen import ops
from tinygrad_zen.autograd import recording
from tinygrad_zen.backend import WHOLES
from tinygrad_zen.check import peaks as measured
from tinygrad_zen.check import work
from tinygrad_zen.check.samples import SAMPLES
from tinygrad_zen.kernels import reference

PAUSE = 0.02  # seconds that a kernel made slow takes at least


def network(backend="numpy", activation=nn.Tanh):
    with tz.using(backend):
        layers = nn.Linear(3, 5), activation(), nn.Linear(5, 4), activation(), nn.Linear(4, 2)
        net = nn.Sequential(*layers)
        optimizer = optim.Adam(net.parameters())
        x = tz.tensor(np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3))

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), np.array([0, 1, 1, 0]))
        loss.backward()
        optimizer.step()
        return loss

    return step


@pytest.fixture(autouse=True)
def quick_peaks(monkeypatch):
    """A machine of round numbers, so that no test has to measure one."""
    module = inspect.getmodule(tz.check.Profile)
    monkeypatch.setattr(module, "peaks", lambda xp: measured.Peaks(1e9, 1e9))


def test_every_call_is_counted(backend):
    step = network(backend)
    with tz.profile() as p:
        step()
        step()
    rows = {row.name: row for row in p.rows()}
    assert set(rows) == {"linear_activation", "feed_forward", "label_cross_entropy", "Adam.step"}
    assert {name: row.calls for name, row in rows.items()} == dict.fromkeys(rows, 2)
    kernels = {k.kernel: k.calls for k in rows["linear_activation"].kernels}
    assert kernels == {
        "linear_activation": 2,
        "tanh_grad": 2,
        "linear_grad": 2,
    }  # x needs no gradient
    assert {k.kernel: k.calls for k in rows["feed_forward"].kernels} == {
        "feed_forward": 2,
        "feed_forward_grad": 2,
    }
    assert all(row.forward > 0 and row.backward > 0 for n, row in rows.items() if n != "Adam.step")
    assert rows["Adam.step"].forward == rows["Adam.step"].backward == 0 < rows["Adam.step"].seconds


def test_the_parts_make_the_whole():
    step = network()
    with tz.profile() as p:
        step()
    calls = [s for s in p.spans if s.what != "kernel"]
    assert 0 < sum(s.seconds for s in calls) < p.seconds
    for s in p.spans:
        assert 0 <= s.kernels <= s.seconds <= s.length
        assert 0 <= s.start and s.start + s.seconds <= p.seconds + 1


def test_operations_bytes_and_shares():
    x, w = tz.tensor(np.ones((6, 4), np.float32)), tz.tensor(np.ones((4, 5), np.float32))
    with tz.profile() as p:
        x @ w
    (kernel,) = (s for s in p.spans if s.what == "kernel")
    assert (kernel.flops, kernel.bytes, kernel.made) == (2 * 6 * 4 * 5, 4 * (24 + 20 + 30), 120)
    (row,) = p.rows()
    (k,) = row.kernels
    assert row.made == 120  # the op returns the kernel's array: it is not counted again
    assert k.gflops == pytest.approx(240 / k.seconds / 1e9)
    assert k.gbytes == pytest.approx(296 / k.seconds / 1e9)
    assert k.share == pytest.approx(296e-9 / k.seconds)  # at 1e9 a second memory is the lower roof


def test_a_slow_kernel_and_a_slow_op_are_told_apart():
    def slow(x, y):
        time.sleep(PAUSE)
        return x @ y

    @tz.op
    def dawdle(be, x):
        time.sleep(PAUSE)
        return x + 1.0, (lambda g: g,)

    x = tz.tensor(np.ones((2, 2)), backend=tz.backend("numpy").replace(matmul=slow))
    with tz.profile() as p:
        dawdle(x @ x)
        time.sleep(PAUSE)
    rows = {row.name: row for row in p.rows()}
    assert rows["matmul"].kernels[0].seconds >= PAUSE > rows["matmul"].outside
    assert rows["dawdle"].outside >= PAUSE and not rows["dawdle"].kernels
    assert rows["dawdle"].gbytes == pytest.approx(2 * 32 / rows["dawdle"].seconds / 1e9)
    assert p.seconds >= 3 * PAUSE
    words = p.table().splitlines()[0]
    assert float(words.partition("between the ops ")[2].split(";")[0]) >= PAUSE * 1e3


def test_results_are_the_same_and_nothing_stays_behind(backend):
    tz.seed(0)
    plain = [network(backend)().item() for _ in range(2)]
    tz.seed(0)
    with tz.profile() as p:
        watched = [network(backend)().item() for _ in range(2)]
    assert watched == plain
    assert recording.watcher is None
    with tz.profile() as p:
        loss = (tz.tensor([[1.0]], requires_grad=True) @ tz.tensor([[2.0]])).sum()
    count = len(p.spans)
    loss.backward()  # its vjps hold timed kernels; they only compute now
    assert len(p.spans) == count


def test_a_device_is_waited_for():
    """After each kernel, before the clock stops: a device that takes its time when it is asked."""
    device = SimpleNamespace(synchronize=lambda: time.sleep(PAUSE))
    xp = ModuleType("device")
    vars(xp).update(vars(np) | {"cuda": SimpleNamespace(Device=lambda: device)})
    x = tz.tensor(np.ones((2, 2)), backend=tz.Backend("far", xp, reference))
    with tz.profile() as p:
        x @ x
    assert [s.seconds >= PAUSE for s in p.spans if s.what == "kernel"] == [True]


def test_gradients_of_gradients_are_counted_once():
    x = tz.tensor(np.ones((40, 40)), requires_grad=True, dtype="float64", backend="numpy")
    with tz.profile() as p:
        (first,) = tz.grad((ops.tanh(x) @ x).sum(), [x], create_graph=True)
        (first * first).sum().backward()
    assert sum(s.seconds for s in p.spans if s.what != "kernel") <= p.seconds
    assert "matmul" in {row.name for row in p.rows()}


def test_an_error_inside_an_op():
    x = tz.tensor(np.ones((2, 3), np.float32))
    with tz.profile() as p:
        with pytest.raises(ValueError, match="matmul"):
            x @ x
        x + x
    assert [s.op for s in p.spans] == ["matmul", "add"]


def test_layers(backend):
    step = network(backend, nn.SiLU)  # with which no layer is fused
    with tz.profile() as p:
        step()
    rows = {row.name: row for row in p.rows(by="layer")}
    assert {k.kernel for k in rows["2 (Linear)"].kernels} == {"linear", "linear_grad", "matmul"}
    assert rows["2 (Linear)"].backward > 0
    assert {k.kernel for k in rows[""].kernels} >= {"adam_"}
    assert "(no layer)" in p.table("layer") and "2 (Linear)" in p.table("layer")
    with pytest.raises(ValueError, match='by must be "op" or "layer"; got \'line\''):
        p.rows(by="line")


def test_the_table(backend):
    step = network(backend)
    with tz.profile() as p:
        step()
    head, peaks, _, columns, *rows = str(p).splitlines()
    assert head.startswith(f"{p.seconds * 1e3:.3f} ms: forward ")
    assert peaks == "peaks of this machine, float32: 1 GFLOP/s, 1.0 GB/s"
    assert columns.split() == (
        "op calls ms forward backward outside GFLOP/s GB/s of peak made".split()
    )
    assert [row.split()[0] for row in rows if not row.startswith(" ")] == [r.name for r in p.rows()]


def test_the_trace(tmp_path):
    step = network()
    with tz.profile() as p:
        step()
    p.save(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert len(events) == len(p.spans)
    starts = [e["ts"] for e in events]
    assert starts == sorted(starts) and all(e["ph"] == "X" and e["dur"] >= 0 for e in events)
    for kernel in (e for e in events if e["cat"] == "kernel"):
        around = [
            e
            for e in events
            if e["cat"] != "kernel"
            and e["ts"] <= kernel["ts"]
            and kernel["ts"] + kernel["dur"] <= e["ts"] + e["dur"] + 1e-3
        ]
        assert [e["name"] for e in around] == [kernel["args"]["op"]]


@pytest.mark.parametrize("name", sorted(work.FLOPS))
def test_formulas_are_of_kernels(name):
    assert name in WHOLES or callable(getattr(reference, name))


def test_formulas_take_what_kernels_take():
    """Every op of the table, forward and backward; each kernel with a formula gets a number."""
    seen = set()
    for sample in SAMPLES:
        with tz.profile() as p:
            out = sample(*sample.tensors(backend="numpy"))
            for y in out if isinstance(out, list | tuple) else [out]:
                if y.requires_grad:
                    y.backward(np.ones(y.shape, y.dtype))
        for span in p.spans:
            if span.what == "kernel" and span.kernel in work.FLOPS:
                assert span.flops >= 0 and span.bytes > 0, span
                seen.add(span.kernel)
    assert len(seen) > 30


def test_convolution_is_counted_as_its_loops_count():
    x, w = np.ones((2, 4, 5, 6)), np.ones((6, 2, 3, 2))  # two groups
    y = reference.conv2d(x, w, None, (1, 1), (0, 0), (1, 1), 2)
    once = 0
    for _, k, _, _ in np.ndindex(2, 6, 3, 5):
        once += w[k].size
    args = (x, w, None, (1, 1), (0, 0), (1, 1), 2)
    assert work.flops("conv2d", y, args) == 2 * once
    assert work.flops("conv2d_grad_x", x, (y, w, x.shape, *args[3:])) == 2 * once
    assert work.flops("conv2d_grad_w", w, (y, x, w.shape, *args[3:])) == 2 * once
    pooled = reference.relu_max_pool2d(y, (2, 2), (2, 2), (0, 0), (1, 1), False)
    whole = work.flops("conv2d_relu_max_pool2d", pooled, (*args, (2, 2), (2, 2)))
    assert whole == 2 * once + 4 * pooled[0].size
    back = (None, *pooled, y.shape, x, w.shape, *args[3:], (2, 2), (2, 2))
    assert work.flops("conv2d_grad_w_of_winners", (w, w), back) == 2 * once
    assert work.flops("no_such_kernel", y, args) is None


def test_an_update_in_place_reads_and_writes():
    w, g, m, v = (np.ones(10, np.float32) for _ in range(4))
    args = (w, g, m, v, None, 1, 1e-3, 0.9, 0.999, 1e-8, 0.0, False)
    assert work.moved(None, args, in_place=True) == 7 * 40


def test_the_peaks_of_this_machine():
    peak = measured.peaks()
    assert peak is measured.peaks()  # measured once
    assert peak.flops > 1e8 and peak.bytes > 1e8
    assert peak.roof(None, peak.bytes) == pytest.approx(1)
    assert peak.roof(3 * peak.flops, peak.bytes) == pytest.approx(3)
