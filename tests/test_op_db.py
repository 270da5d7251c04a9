"""PyTorch's database of operators as the judge: its own sample inputs, values and gradients."""

import numpy as np
import pytest

import tinygrad_zen as tz
from tinygrad_zen import ops
from tinygrad_zen.check import op_db

pytest.importorskip("torch")
pytest.importorskip("expecttest")

pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch's own about its own options

NEVER_RUN = {"nn.functional.softplus", "movedim"}  # every sample has an option that we lack


@pytest.mark.parametrize("name", op_db.TABLE)
def test_samples_of_pytorch(name):
    verdict = op_db.judge(name, most=12)
    assert verdict.value <= op_db.TOLERANCE and verdict.gradient <= op_db.TOLERANCE
    assert all(verdict.skipped), "a skip without a reason"
    assert (verdict.ran == 0) == (name in NEVER_RUN), dict(verdict.skipped)


def test_a_wrong_value_and_a_wrong_gradient_are_found(monkeypatch):
    monkeypatch.setitem(op_db.TABLE, "sin", lambda x: ops.sin(x) * (1 + 1e-9))
    with pytest.raises(op_db.Disagreement, match=r"sin\(float64\[\d.*\): result 0 is .* at \(.*\)"):
        op_db.judge("sin")

    @tz.op
    def sin(be, x):
        return be.xp.sin(x), (lambda g: g * be.xp.cos(x) * (1 + 1e-9),)

    monkeypatch.setitem(op_db.TABLE, "sin", sin)
    with pytest.raises(op_db.Disagreement, match="the gradient of input 0 is"):
        op_db.judge("sin")
    monkeypatch.setitem(op_db.TABLE, "sin", lambda x: ops.sin(x).reshape(-1))
    with pytest.raises(op_db.Disagreement, match=r"float64 \(.*\); PyTorch's is float64 \("):
        op_db.judge("sin")
    monkeypatch.setitem(op_db.TABLE, "sin", lambda x: x.nothing())
    with pytest.raises(op_db.Disagreement, match="AttributeError"):
        op_db.judge("sin")


def test_what_is_skipped_is_counted_with_its_reason():
    verdict = op_db.judge("cumsum")
    assert verdict.ran == 3 and verdict.skipped == {"an axis of a 0-d array": 1}
    assert 0 < op_db.judge("matmul").gradient < 1e-12


def test_nothing_has_a_softmax_of_nothing(backend):
    for f in (ops.softmax, ops.log_softmax):
        x = tz.tensor(np.zeros((2, 0)), requires_grad=True)
        y = f(x, axis=1)
        y.sum().backward()
        assert y.shape == x.grad.shape == (2, 0)
