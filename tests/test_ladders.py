"""python -m tinygrad_zen kernels: the table tells what runs."""

import types

import pytest

from tinygrad_zen import __main__ as cli
from tinygrad_zen.backend import LOADERS
from tinygrad_zen.check import ladders


@pytest.fixture(params=["numba", "cuda"])
def module(request):
    try:
        return ladders.style(request.param)
    except ImportError as e:
        pytest.skip(f"the kernels of {request.param} need {e.name}")


def test_every_backend_has_a_style():
    assert set(ladders.STYLES) == set(LOADERS)


def test_the_table_shows_every_kernel(capsys):
    assert cli.main(["kernels"]) == 0
    out = capsys.readouterr().out
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    for name in ladders.kernel_names(ladders.style("numpy")):
        assert lines[name][0] == "reference" and len(lines[name]) == len(LOADERS)
    assert all(name in lines for name in LOADERS) and out.isascii()


def test_own_kernels_are_told_from_the_reference(module):
    assert ladders.origin(module, "matmul").endswith("/linear")
    assert ladders.origin(module, "adagrad_") == "reference"
    assert ladders.origin(None, "matmul") == "?"


def test_a_style_that_cannot_be_imported_says_why(capsys, monkeypatch):
    real = ladders.style

    def style(name):
        if name in ("cuda", "cudasim"):
            raise ImportError("No module named 'numba.cuda'")
        return real(name)

    monkeypatch.setattr(ladders, "style", style)
    assert cli.main(["kernels", "--op", "matmul"]) == 0
    out = capsys.readouterr().out
    assert out.count("its kernels cannot be shown (No module named 'numba.cuda')") == 2
    assert next(line for line in out.splitlines() if line.split()[:1] == ["matmul"]).endswith("?")


def test_options_and_wrong_usage(capsys):
    assert cli.main(["kernels", "--op", "softmax", "--backend", "numpy"]) == 0
    out = capsys.readouterr().out
    assert "softmax" in out and "matmul" not in out and "cupy" not in out
    for wrong in (["--op", "sofmax"], ["--backend", "tpu"]):
        with pytest.raises(SystemExit) as stop:
            cli.main(["kernels", *wrong])
        assert stop.value.code == 2
    assert "choose from" in capsys.readouterr().err


def test_ladders_are_whole(module):
    """Each has rungs of the kernel's name, documented, and its default among them, with a reason."""
    table = ladders.ladders(module)
    assert {"matmul", "conv2d", "max_pool2d", "softmax", "adam_"} <= set(table)
    for op, rungs in table.items():
        assert len(rungs) > 1 and len(set(rungs)) == len(rungs)
        for rung in rungs:
            assert rung.__name__.startswith(op.rstrip("_")) and ladders.first_line(rung)
        default, why = ladders.choice(op, module)
        assert default and set(default) <= set(rungs) and why, op


def first(x):
    """Slow."""


def second(x):
    """Faster."""


def by_size(x):
    """A product. The second always wins."""
    return second(x)


def two_ways(x):
    """A product."""
    large = x.size > 100
    run = second if large else first
    return run(x)


def helped(x):
    """A product."""
    return _pick(x.size)(x)


def _pick(size):
    """Small ones have little to share."""
    if size < 8:
        return first
    return second


@pytest.mark.parametrize(
    "kernel, default, why",
    [
        (second, [second], "at every size"),
        (by_size, [second], "The second always wins"),
        (two_ways, [first, second], "second if x.size > 100 else first"),
        (
            helped,
            [first, second],
            "if size < 8: return first; return second. Small ones have little to share",
        ),
    ],
)
def test_the_choice_is_read_from_the_program(kernel, default, why):
    made = types.SimpleNamespace(matmul=kernel, LADDERS={"matmul": (first, second)})
    assert ladders.choice("matmul", made) == (default, why)
