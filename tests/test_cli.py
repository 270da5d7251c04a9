"""python -m tinygrad_zen, and the recipes that it runs."""

import argparse
import os
import subprocess
import sys

import numpy as np
import pytest

import tinygrad_zen as tz
from tinygrad_zen import __main__ as cli
from tinygrad_zen import data, io, recipes
from tinygrad_zen.recipes import binary, mnist


def run(capsys, *argv):
    """Run the command line; -> exit code, standard output, standard error."""
    try:
        code = cli.main([str(a) for a in argv])
    except SystemExit as stop:  # argparse
        code = stop.code
    return code, *capsys.readouterr()


def images(n, seed=0):
    """Digits of a kind, 28x28: a bright spot whose place says the label."""
    y = np.arange(n) % 10
    x = np.random.default_rng(seed).random((n, 1, 28, 28), dtype=np.float32) / 4
    for i, label in enumerate(y):
        x[
            i,
            0,
            5 * (label // 5) + 8 : 5 * (label // 5) + 12,
            5 * (label % 5) + 2 : 5 * (label % 5) + 6,
        ] = 1
    return x, y


@pytest.fixture
def small_mnist(monkeypatch):
    monkeypatch.setattr(data, "mnist", lambda: (images(200), images(50, seed=1)))


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


# the recipes


def test_digits(tmp_path):
    """The first thing that people try: `train` alone, in a process of its own, as they do."""
    command = [sys.executable, "-W", "error", "-m", "tinygrad_zen", "train", "--out", str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert not done.stderr and done.stdout.isascii()
    test = next(line for line in done.stdout.splitlines() if line.startswith("test: "))
    assert float(test.rsplit(" ", 1)[1]) >= 0.98
    names = {"confusion.png", "curves.png", "history.csv", "model.safetensors"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 11
    model = tz.load(tmp_path / "model.safetensors")
    _, (x_test, y_test) = data.digits()
    assert f"{model.evaluate(x_test, y_test)['accuracy']:.4f}" in test


@pytest.mark.parametrize("seed", [0, 1])
def test_binary_matches_pytorch(capsys, tmp_path, monkeypatch, seed):
    """The recipe's network, weights, batches and optimizer in PyTorch: the same accuracy."""
    torch = pytest.importorskip("torch")
    tz.seed(seed)
    net = binary.network()
    theirs = torch.nn.Sequential(
        torch.nn.Linear(10, 64), torch.nn.Sigmoid(), torch.nn.Linear(64, 1), torch.nn.Sigmoid()
    )
    theirs.load_state_dict({name: torch.tensor(v) for name, v in net.state_dict().items()})
    (x, y), (x_test, y_test) = data.breast_cancer()
    x, x_test = data.standardize(x, x_test)
    optimizer = torch.optim.Adam(theirs.parameters())
    loader = data.DataLoader(x[:364], y[:364], batch_size=32, seed=seed)
    for _ in range(10):
        for inputs, target in loader:
            optimizer.zero_grad()
            output = theirs(torch.tensor(inputs))
            target = torch.tensor(target, dtype=torch.float32).reshape(-1, 1)
            torch.nn.functional.binary_cross_entropy(output, target).backward()
            optimizer.step()
    expected = theirs(torch.tensor(x_test)).detach().numpy()

    code, out, err = run(capsys, "train", "binary", "--seed", seed, "--out", tmp_path)
    assert code == 0 and not err and "val_accuracy" in out
    model = tz.load(tmp_path / "model.safetensors")
    np.testing.assert_allclose(model.predict(x_test), expected, atol=1e-4)
    accuracy = model.evaluate(x_test, y_test)["accuracy"]
    assert accuracy == ((expected[:, 0] > 0.5) == y_test).mean() and accuracy > 0.9
    assert f"accuracy {accuracy:.4f}" in out


def test_mlp_resumed_is_uninterrupted_bit_for_bit(capsys, tmp_path):
    straight, parts = tmp_path / "straight", tmp_path / "parts"
    assert run(capsys, "train", "mlp", "--epochs", 5, "--out", straight)[0] == 0
    assert run(capsys, "train", "mlp", "--epochs", 2, "--out", parts)[0] == 0
    code, out, _ = run(capsys, "train", "mlp", "--epochs", 5, "--resume", "--out", parts)
    assert code == 0 and out.startswith("epoch 3/5")
    for name in ("weights.safetensors", "checkpoint.safetensors"):
        assert (straight / name).read_bytes() == (parts / name).read_bytes()


def test_mlp_fine_tunes_loaded_weights(capsys, tmp_path):
    first = tmp_path / "first"
    run(capsys, "train", "mlp", "--quick", "--out", first)
    before, _ = io.load_state(first / "weights.safetensors")
    options = [
        "--quick",
        "--fine-tune",
        first / "weights.safetensors",
        "--out",
        tmp_path / "second",
    ]
    assert run(capsys, "train", "mlp", *options)[0] == 0
    after, _ = io.load_state(tmp_path / "second" / "weights.safetensors")
    moved = max(np.abs(after[name] - before[name]).max() for name in before)
    assert 0 < moved < 24 * 1e-4 * 1.5  # 24 steps of Adam at a tenth of the learning rate
    code, _, err = run(capsys, "train", "mlp", "--resume", "--out", tmp_path / "none")
    assert code == 1 and err.endswith("checkpoint.safetensors: no such file\n")


def test_mnist_on_labels_and_on_one_hot_rows(capsys, tmp_path, small_mnist):
    results = []
    for options in ([], ["--one-hot"]):
        code, out, err = run(capsys, "train", "mnist", "--epochs", 2, "--out", tmp_path, *options)
        assert code == 0 and not err
        results.append(out.splitlines()[-2])
    assert results[0] == results[1]
    assert (tmp_path / "confusion.png").exists()


def test_mnist_is_the_network_of_the_book():
    net = mnist.network()
    sizes = [(name, p.shape) for name, p in net.named_parameters() if name.endswith("weight")]
    assert [shape for _, shape in sizes] == [(32, 1, 3, 3), (64, 32, 3, 3), (64, 1600), (10, 64)]
    for name, p in net.named_parameters():
        if name.endswith("bias"):
            assert not p.numpy().any()


def test_mnist_best(capsys, tmp_path, small_mnist):
    code, out, err = run(capsys, "train", "mnist-best", "--epochs", 1, "--out", tmp_path)
    assert code == 0 and not err and "test: " in out


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_recipe_has_a_quick_form(name):
    recipe = recipes.find(name)
    parser = argparse.ArgumentParser()
    recipe.add_arguments(parser)
    args = parser.parse_args(["--quick"])
    assert args.quick and args.seed == 0 and args.backend is None
    assert str(args.out) == os.path.join("runs", name)
    assert recipe.__doc__ and recipes.RECIPES[name]
