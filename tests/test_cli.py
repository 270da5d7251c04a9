"""python -m tinygrad_zen, and the recipes that it runs."""

import subprocess
import sys

import pytest

import tinygrad_zen as tz
from tinygrad_zen import __main__ as cli
from tinygrad_zen import recipes
from tinygrad_zen.recipes import binary


def run(capsys, *argv):
    """Run the command line; -> exit code, standard output, standard error."""
    try:
        code = cli.main([str(a) for a in argv])
    except SystemExit as stop:  # argparse
        code = stop.code
    return code, *capsys.readouterr()


# the command line


def test_help_and_version(capsys):
    code, out, err = run(capsys, "--help")
    assert code == 0 and not err and all(name in out for name in recipes.RECIPES)
    assert run(capsys, "train", "--help") == (0, out, "")
    assert run(capsys)[:2] == (2, out)
    assert run(capsys, "--version") == (0, f"tinygrad_zen {tz.__version__}\n", "")
    for name in recipes.RECIPES:
        code, out, err = run(capsys, "train", name, "--help")
        assert code == 0 and "--epochs" in out and out.isascii()


def test_wrong_usage_is_one_line(capsys):
    code, out, err = run(capsys, "trian")
    assert (code, out) == (2, "")
    assert (
        err
        == "tinygrad_zen: unknown command 'trian': choose from train, gradcheck, kernels, doctor\n"
    )
    code, _, err = run(capsys, "train", "digit")
    assert code == 2 and err.startswith(
        "tinygrad_zen: unknown program 'digit': choose from digits, "
    )
    assert run(capsys, "train", "binary", "--epochs", "0")[0] == 2
    assert run(capsys, "train", "binary", "--backend", "tpu")[0] == 2


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x must be good"),
        FileNotFoundError("m.safetensors: no such file"),
        FloatingPointError("fit: epoch 1, batch 2: the loss is nan"),
        ImportError("view: matplotlib is not installed"),
        tz.BackendUnavailable("cupy: CuPy is not installed"),
        tz.OutOfMemory("add: out of memory: an array of shape (9, 9), float32, takes 324 bytes"),
    ],
)
def test_errors_for_users_are_one_line(capsys, monkeypatch, error):
    def fail(args):
        raise error

    monkeypatch.setattr(binary, "main", fail)
    assert run(capsys, "train", "binary") == (1, "", f"tinygrad_zen: {error}\n")


def test_ctrl_c_and_own_mistakes(capsys, monkeypatch):
    def interrupt(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(binary, "main", interrupt)
    assert run(capsys, "train", "binary") == (130, "", "tinygrad_zen: interrupted\n")
    monkeypatch.setattr(binary, "main", lambda args: args.no_such_option)
    with pytest.raises(AttributeError):
        run(capsys, "train", "binary")


def test_a_file_that_is_missing(capsys, tmp_path):
    code, _, err = run(capsys, "train", "mlp", "--fine-tune", tmp_path / "no", "--out", tmp_path)
    assert code == 1 and err == f"tinygrad_zen: {tmp_path}/no: no such file\n"


def test_gradcheck_hands_its_options_on(monkeypatch):
    given = []
    table = type(sys)("tinygrad_zen.check.table")
    table.main = lambda argv: given.append(argv) or 7
    monkeypatch.setitem(sys.modules, "tinygrad_zen.check.table", table)
    assert cli.main(["gradcheck", "conv2d", "--seed", "1"]) == 7
    assert given == [["conv2d", "--seed", "1"]]


def test_nothing_heavy_is_imported_early():
    code = (
        "import sys, tinygrad_zen, tinygrad_zen.__main__; tinygrad_zen.Model;"
        "heavy = {'matplotlib', 'tqdm', 'safetensors', 'scipy'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
