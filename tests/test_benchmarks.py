"""The benchmark scripts run from end to end, at tiny sizes; their counts and comparisons are right."""

import argparse
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tinygrad_zen as tz
from tinygrad_zen import data, nn, recipes

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


def run(script, *options):
    command = [sys.executable, BENCHMARKS / script, *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True)


def load(name, monkeypatch):
    """A script as a module of its own name, for the length of a test: its neighbours import it so."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def kernels(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return load("kernels", monkeypatch)


@pytest.fixture
def crossover(kernels, monkeypatch):
    return load("crossover", monkeypatch)


@pytest.fixture
def train(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return load("train", monkeypatch)


TINY = "--quick", "--rounds", 1, "--seconds", 0.0005


def kept(folder, name):
    """The results of the one run that was kept: its JSON and its Markdown."""
    (file,) = folder.glob(f"{name}-*.json")
    assert file.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    return json.loads(file.read_text()), file.with_suffix(".md").read_text()


# kernels.py and crossover.py


def test_kernels_from_end_to_end(tmp_path):
    pytest.importorskip("matplotlib")
    usable = [b for b in ("numpy", "numba") if tz.backends()[b] == "usable"]
    options = "--ops", "matmul", "--backends", *usable, "--threads", 1
    done = run("kernels.py", *TINY, *options, "--keep", "--to", tmp_path)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "measured peaks" in done.stdout and "GFLOP/s" in done.stdout and done.stdout.isascii()
    results, text = kept(tmp_path, "kernels")
    assert results["threads"] == 1 and ", 1 thread," in results["machine"]
    assert results["versions"]["numpy"] == np.__version__
    assert all(rate > 0 for rate in results["peaks"]["CPU"].values())
    for row in [row for rows in results["ops"].values() for row in rows]:
        assert row["seconds"] > 0 and row["error"] < 1e-4 and row["device"] == "CPU"
        assert row["gflops"] == pytest.approx(row["flops"] / row["seconds"] / 1e9)
        assert row["share"] > 0 and row["roof"] in ("arithmetic", "memory")
    names = {
        r["kernel"] for rows in results["ops"].values() for r in rows if r["backend"] == "numba"
    }
    if "numba" in usable:
        assert {"matmul_loops", "matmul_blas"} <= names
    assert "## matmul" in text and "| 32x32x32 | numpy | **reference** |" in text
    done = run("kernels.py", *TINY, "--threads", 1, "--ops", "gelu", "--backends", "numpy", "--keep",
               "--to", tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(kept(tmp_path, "kernels")[0]["ops"]) == ["matmul", "gelu"]


OWN = """
import numpy as np

def right(x, y):
    return np.einsum("ij,jk->ik", x, y)

def wrong(x, y):
    return 1.01 * (x @ y)
"""


def test_a_kernel_of_ones_own(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    options = *TINY, "--ops", "matmul", "--backends", "numpy", "--own"
    done = run("kernels.py", *options, f"matmul={tmp_path}/own.py:right")
    assert done.returncode == 0 and "numpy[matmul=right] right" in done.stdout, done.stderr
    done = run("kernels.py", *options, f"matmul={tmp_path}/own.py:wrong")
    assert done.returncode == 1 and "wrong on numpy[matmul=wrong] is wrong by" in done.stderr
    assert "us" not in done.stdout.partition("\nmatmul")[2]  # not timed
    done = run("kernels.py", *options, "matmul=nowhere.py:f")
    assert done.returncode == 2 and "is not OP=FILE.py:FUNCTION" in done.stderr


def test_crossover_from_end_to_end(tmp_path):
    pytest.importorskip("matplotlib")
    contenders = ["numpy"]
    if tz.backends()["numba"] == "usable":
        contenders += ["numba", "numba:matmul_rows"]
    options = "--ops", "matmul", "--between", *contenders, "--keep", "--to", tmp_path
    done = run("crossover.py", *TINY, *options)
    assert done.returncode == 0 and not done.stderr, done.stderr
    results, text = kept(tmp_path, "crossover")
    assert results["ops"]["matmul"]["sizes"] == [4, 8, 16]
    assert list(results["ops"]["matmul"]["seconds"]) == contenders
    assert f"| n | {' | '.join(contenders)} |" in text
    done = run("crossover.py", *TINY, "--ops", "matmul", "--between", "numpy:none")
    assert done.returncode == 1 and "no rung 'none': choose from reference" in done.stderr


def test_pytorchs_kernels_compute_the_same(kernels):
    """Every op at its small sizes, as its row is checked before it is timed."""
    pytest.importorskip("torch")
    for name, op in kernels.OPS.items():
        (c,) = kernels.contenders(name, "torch")
        for size in op.sizes["quick"]:
            right = sys.modules["contenders"].expected(name, size)
            assert sys.modules["contenders"].error(c, name, size, right) < 1e-4, (name, size)


def test_what_a_call_needs(kernels):
    """By formula: each array read once and written once; Adam reads four and writes three."""
    work = sys.modules["contenders"].work
    # (2, 3, 5, 5) with 4 filters: 2 * 4 * 3 * 3 results of 27 products and sums each
    numbers = 2 * 3 * 5 * 5 + 4 * 27 + 2 * 4 * 3 * 3
    assert work("conv2d", (2, 3, 5, 4)) == (2 * (2 * 4 * 3 * 3) * 27, 4 * numbers)
    assert work("matmul", (2, 3, 5)) == (2 * 2 * 3 * 5, 4 * (6 + 15 + 10))
    assert work("adam_", (10,)) == (120, 4 * 70)
    assert work("max_pool2d", (1, 2, 4)) == (3 * 8, 4 * 32 + (4 + 1) * 8)


def test_sizes_grow_and_fit_every_backend(kernels, crossover):
    assert set(crossover.SWEEPS) == set(kernels.OPS)
    for op in kernels.OPS.values():
        assert set(op.sizes) == {"cpu", "gpu", "quick", "sim"}
        for sizes in op.sizes.values():
            numbers = [np.prod(size) for size in sizes]
            assert numbers == sorted(numbers)


def test_a_slow_kernel_is_left_out_of_large_sizes(kernels, capsys, monkeypatch):
    be = tz.backend("numpy")
    contender = sys.modules["contenders"].Contender
    slow, fast = contender(be, "slow", np.matmul, False), contender(be, "fast", np.matmul, True)
    seconds = {slow: 1.0, fast: 1e-6}
    monkeypatch.setattr(
        kernels, "measure", lambda name, size, group, *rest: {c: (seconds[c], 0.0) for c in group}
    )
    options = kernels.parse(["--quick"])
    peak = {"CPU": {"flops": 1e9, "bytes": 1e9}}
    rows = kernels.compare("matmul", [slow, fast], options, peak)
    assert [row["kernel"] for row in rows] == ["slow", "fast", "fast"]
    assert "slow                       left out: about 64 s a call" in capsys.readouterr().out


def test_what_overtakes_what(crossover):
    sizes = [1, 2, 4, 8]
    times = {"plain": [1.0, 2.0, 4.0, None], "clever": [3.0, 3.0, 3.0, 3.0]}
    assert list(crossover.overtakings(sizes, times)) == [("clever", "plain", 4, 2)]
    assert crossover.crossover(sizes, [1, 5, 1, 5], [2, 2, 2, 2]) == 8  # the last time counts
    assert crossover.crossover(sizes, [1, 1, 1, 1], [2, 2, 2, 2]) is None
    assert list(crossover.overtakings(sizes, {"a": [1, 1, 1, 1], "b": [2, 2, 2, 2]})) == []


# train.py and scaling.py


def test_train_keeps_what_it_measured_and_joins_the_runs_of_a_day(tmp_path):
    pytest.importorskip("matplotlib")
    peers = [p for p in ("torch",) if importlib.util.find_spec(p)]
    options = "--quick", "--rounds", 1, "--seconds", 0.001, "--keep", "--to", tmp_path
    done = run("train.py", *options, "--nets", "wide@8", "--engines", "numpy", *peers)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "784-512-1, batch 8" in done.stdout and "best peer / it" in done.stdout
    done = run("train.py", *options, "--nets", "tabular", "--engines", "numpy")
    assert done.returncode == 0 and not done.stderr, done.stderr
    results, text = kept(tmp_path, "train")
    assert list(results["nets"]) == ["tabular", "wide@8"] and results["threads"] == 1
    found = results["nets"]["wide@8"]["engines"]
    assert list(found) == ["numpy", *peers]
    for f in found.values():
        assert f["error"] < 1e-5 and f["start"] > 0 and f["memory"] > 2**20
        assert f["min"] <= f["median"] and len(f["rounds"]) == 1
    assert (
        "| 784-512-1, batch 8 |" in text and "| 10-64-1 sigmoid network, batch 32 | numpy |" in text
    )


def test_train_says_what_it_cannot_do(train, capsys):
    for options, words in {
        ("--engines", "cupy"): "cannot run here on cpu: cupy; these can: numpy",
        ("--nets", "alexnet"): "no network 'alexnet': choose from tabular",
    }.items():
        with pytest.raises(SystemExit):
            train.parse(options)
        assert words in capsys.readouterr().err
    engines = sys.modules["engines"]
    with pytest.raises(engines.EngineFailed, match="(?s)numpy: its process ended.*nowhere.npz"):
        engines.Running("numpy", train.networks.find("tabular"), "nowhere.npz", 1)


@pytest.mark.parametrize(
    "name", ("tabular", "wide", "mnist@4", "cifar@4", "lstm@4", "transformer@2")
)
def test_the_networks_are_the_same_in_pytorch(train, name):
    """Losses of the first steps, with the weights that every engine is given."""
    torch = pytest.importorskip("torch")
    engine_torch = importlib.import_module("engine_torch")
    threads = torch.get_num_threads()
    network = train.networks.find(name)
    start = train.networks.weights(network)
    expected = train.networks.reference_losses(network, start)
    program = engine_torch.Program(network, start, 1, "cpu", {"fused"})
    torch.set_num_threads(threads)
    assert [program.step() for _ in expected] == pytest.approx(expected, rel=train.TOLERANCE)
    assert expected[-1] < expected[0]


@pytest.mark.parametrize("peer, nets", {"jax": ["cifar@2", "lstm@2"], "keras": ["lstm@2"]}.items())
def test_the_networks_are_the_same_in_jax_and_keras(train, peer, nets):
    """train.py stops if they are not; Keras' LSTM has one bias, and so has what it is compared with."""
    pytest.importorskip("jax")
    pytest.importorskip(peer)
    options = "--quick", "--rounds", 1, "--seconds", 0.001, "--engines", peer, "--nets", *nets
    done = run("train.py", *options)
    assert done.returncode == 0 and f"\n  {peer}  " in done.stdout, done.stderr


def test_wrong_losses_and_failing_peers(train, monkeypatch, capsys):
    class Process:
        def __init__(self, name, *rest):
            if name == "jax":
                raise sys.modules["engines"].EngineFailed("jax: no memory")
            self.name, self.version, self.device = name, "1", "CPU"
            self.losses, self.start, self.memory = expected[:], 0.5, 1 << 20
            self.losses[-1] *= 1 + wrong

        def block(self, steps):
            return {"numpy": 2.0, "torch": 3.0}[self.name]

        def close(self):
            pass

        stop = resume = close

    network, wrong = train.networks.find("tabular"), 0.0
    expected = train.networks.reference_losses(network, train.networks.weights(network))
    monkeypatch.setattr(train, "Running", Process)
    options = train.parse(["--quick", "--engines", "numpy"])
    found = train.measure(network, ["numpy", "torch", "torch-channels-last", "jax"], options)
    assert list(found) == ["numpy", "torch"]  # no images, so no channels; and JAX failed
    assert "left out: jax: no memory" in capsys.readouterr().out
    assert train.best_peer(found) == "torch" and train.ratio(found, "numpy") == 1.5
    wrong = 1e-4
    with pytest.raises(SystemExit, match="numpy: its losses .* are not .* to 5e-05 relative"):
        train.measure(network, ["numpy"], options)


def test_results_of_another_machine_are_not_joined(train, tmp_path):
    record = train.record
    results = record.begin(1) | {"nets": {"a": 1}}
    assert record.joined("train", results, "nets", tmp_path) == results
    file = tmp_path / f"{record.stem('train', results)}.json"
    record.write_json(file, results | {"nets": {"b": 2}})
    assert record.joined("train", results, "nets", tmp_path)["nets"] == {"b": 2, "a": 1}
    record.write_json(file, results | {"machine": "an abacus"})
    with pytest.raises(SystemExit, match="measured on another machine: an abacus"):
        record.joined("train", results, "nets", tmp_path)
    assert record.stem("train", results | {"device": "NVIDIA H200"}).endswith("-NVIDIA-H200")
    milliseconds = [record.milliseconds(s) for s in (4.56e-5, 1.234e-3, 0.0123, 0.1234, 1.2)]
    assert milliseconds == ["0.046 ms", "1.23 ms", "12.3 ms", "123 ms", "1200 ms"]


def test_scaling_from_end_to_end(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    options = "--sweeps", "depth", "--engines", "numpy", "--keep", "--to", tmp_path
    done = run("scaling.py", *TINY, *options)
    assert done.returncode == 0 and not done.stderr, done.stderr
    results, text = kept(tmp_path, "scaling")
    assert results["sweeps"]["depth"]["sizes"] == [1, 2] and "| depth | 1 | 2 | growth |" in text
    monkeypatch.syspath_prepend(BENCHMARKS)
    scaling = load("scaling", monkeypatch)
    assert scaling.exponent([1, 2, 4], [9.0, 3.0, 12.0]) == pytest.approx(2)
    assert scaling.exponent([1, 2], [1.0, None]) is None
    net = scaling.network(depth=2, channels=8)
    assert (net.batch, [l[1:3] for l in net.layers if l[0] == "Conv2d"]) == (16, [(3, 8), (8, 8)])


# accuracy.py


def test_accuracy_from_end_to_end(tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("numba")
    options = (
        "--nets",
        "tabular",
        "--recipes",
        "binary",
        "--seeds",
        0,
        1,
        "--keep",
        "--to",
        tmp_path,
    )
    done = run("accuracy.py", "--quick", *options)
    assert done.returncode == 0 and not done.stderr, done.stderr
    results, text = kept(tmp_path, "accuracy")
    found = results["nets"]["tabular"]
    assert {"numpy", "numba"} <= set(found) and "| 10-64-1 sigmoid network | numba |" in text
    assert all(1e-9 < e < 2e-6 for errors in found.values() for e in errors["whole"])
    reached = results["recipes"]["binary"]["accuracy"]
    assert min(min(seeds) for seeds in reached.values()) > 0.8
    assert [len(seeds) for seeds in reached.values()] == [2, 2]


def test_errors_of_gradients(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    accuracy = load("accuracy", monkeypatch)
    exact = {"w": np.array([3.0, 4.0]), "b": np.array([1e-15])}  # b is nothing but rounding
    found = {"w": np.float32([3.0, 4.5]), "b": np.float32([0.0])}
    assert accuracy.errors(found, exact) == (pytest.approx(0.1), pytest.approx(0.125))
    if accuracy.has_torch():  # and wrong gradients are not shown as rounding
        net = accuracy.networks.find("tabular")
        right = accuracy.ours
        monkeypatch.setattr(
            accuracy, "ours", lambda *a: {n: 1.001 * g for n, g in right(*a).items()}
        )
        with pytest.raises(
            SystemExit, match="tabular: PyTorch's float64 differs from ours by 1.0e-03"
        ):
            accuracy.measure(net, 1)


# profiles.py


def test_profiles_from_end_to_end(tmp_path):
    pytest.importorskip("matplotlib")
    options = "--nets", "tabular", "stack-1-8", "--steps", 2, "--keep", "--to", tmp_path
    done = run("profiles.py", *options)
    assert done.returncode == 0 and not done.stderr, done.stderr
    results, text = kept(tmp_path, "profiles")
    for found in results["nets"].values():
        assert 0 < sum(found["ops"].values()) <= found["seconds"]
        assert found["table"] in text and "Adam.step" in found["ops"]
    assert [n for n, f in results["nets"].items() if any("conv2d" in o for o in f["ops"])] == [
        "stack-1-8"
    ]


# overhead.py


def test_overhead_from_end_to_end(tmp_path):
    pytest.importorskip("matplotlib")
    done = run("overhead.py", "--rounds", 3, "--keep", "--to", tmp_path)
    assert done.returncode == 0 and not done.stderr, done.stderr
    results, text = kept(tmp_path, "overhead")
    assert len(results["ops"]) == 8 and results["threads"] == 1
    for found in results["ops"].values():
        for tensors, arrays in found.values():
            assert tensors > 0 and arrays > 0
    assert all(f"| {name} |" in text for name in (*results["ops"], "median"))


def test_overhead_compares_the_same_computations(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    overhead = load("overhead", monkeypatch)
    assert overhead.own({"forward": (3.0, 1.0), "backward": (2.5, 1.0)}) == (2.0, 1.5)
    wrong = overhead.OPS["mul"]._replace(gradients=lambda g, x, y, z: (g * x,))
    with tz.using("numpy"), pytest.raises(SystemExit, match="the gradients on Tensors and on arr"):
        overhead.measure({"mul": wrong}, 1)


# proof.py


@pytest.fixture
def proof(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return load("proof", monkeypatch)


def test_the_proof_replaces_a_section_and_keeps_those_that_fail(proof, tmp_path, capsys):
    file, figures = tmp_path / "proof.md", {"a": 1, "b": 2}

    def section(name):
        def figure(quick):
            assert figures[name] > 0, f"{name} does not hold"
            return f"Title of {name}", [f"figure {figures[name]}, quick {quick}"]

        return figure

    proof.SECTIONS = {name: section(name) for name in figures}
    assert proof.main(["--to", str(file)]) == 0
    figures.update(a=3, b=4)
    assert proof.main(["--only", "a", "--to", str(file)]) == 0
    assert list(proof.read(file)) == ["a", "b"]
    assert "figure 3, quick False" in proof.read(file)["a"]
    assert "figure 2" in proof.read(file)["b"] and "## Title of b\n" in file.read_text()
    figures["a"] = -1
    assert proof.main(["--to", str(file)]) == 1
    assert "a does not hold" in (err := capsys.readouterr().err) and "FAILED: a" in err
    assert "figure 3" in proof.read(file)["a"] and "figure 4" in proof.read(file)["b"]


def test_a_quick_proof_is_printed_and_not_written():
    results = BENCHMARKS / "results" / "proof.md"
    before = results.read_bytes() if results.exists() else None
    done = run("proof.py", "--quick", "--only", "gradients")
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "## Gradients against differences" in done.stdout and "| numpy | " in done.stdout
    assert (results.read_bytes() if results.exists() else None) == before


# systems.py


def pictures(channels, size):
    """Handwritten digits of 8 x 8 blown up to the size of the real pictures; 600 and 200 of them."""
    (x, y), _ = data.digits()
    side = size // 8
    rest = (size - 8 * side) // 2
    x = np.kron(x[:800], np.ones((1, 1, side, side), np.float32))
    x = np.pad(x, ((0, 0), (0, 0), (rest, rest), (rest, rest))).repeat(channels, axis=1)
    return (x[:600], y[:600]), (x[600:], y[600:800])


@pytest.mark.parametrize("name", ["binary", "mlp", "mnist", "mnist-best", "cifar10"])
def test_recipes_and_their_twins_in_pytorch_end_alike(name, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    load("systems_torch", monkeypatch)
    systems = load("systems", monkeypatch)
    monkeypatch.setattr(data, "mnist", lambda: pictures(1, 28))
    monkeypatch.setattr(data, "cifar10", lambda: pictures(3, 32))
    more = ["--quick", "--epochs", "2"]
    theirs, _ = systems.peer(name, 0, "1", more)
    recipe = recipes.find(name)
    parser = argparse.ArgumentParser()
    recipe.add_arguments(parser)
    recipes.run(recipe, parser.parse_args([*more, "--out", str(tmp_path)]))
    ours = json.loads((tmp_path / "figures.json").read_text())["accuracy"]
    # dropout draws its own numbers on either side
    assert ours == pytest.approx(theirs, abs=0.2 if name == "mnist-best" else 0.02)
    assert ours > 0.25


def test_the_gan_in_pytorch_takes_the_same_steps(tmp_path, monkeypatch):
    load("systems_torch", monkeypatch)
    systems = load("systems", monkeypatch)
    (x, y), test = pictures(1, 28)
    monkeypatch.setattr(data, "mnist", lambda: ((x[:160], y[:160]), test))
    more = ["--quick", "--epochs", "1", "--batch-size", "16"]
    theirs, _ = systems.peer("gan", 0, "1", more)
    recipe = recipes.find("gan")
    parser = argparse.ArgumentParser()
    recipe.add_arguments(parser)
    recipes.run(recipe, parser.parse_args([*more, "--out", str(tmp_path)]))
    ours = json.loads((tmp_path / "figures.json").read_text())["score"]
    assert ours == pytest.approx(theirs, rel=0.02) and ours > 1


def test_the_bert_in_pytorch_is_ours(monkeypatch):
    pytest.importorskip("torch")
    peers = load("systems_torch", monkeypatch)
    recipe = recipes.find("sentiment-bert")
    rng = np.random.default_rng(0)
    ids, mask = rng.integers(5, 50, (3, 8)), np.arange(8) < np.array([[8], [5], [2]])
    config = recipe.config(50, 8)
    labels = recipe.Net(nn.BertModel(config, pooler=False)).eval()
    theirs = peers.Bert(labels, config).eval()(ids, mask)
    ours = labels(tz.tensor(ids), tz.tensor(mask.astype(int)))
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), atol=1e-6)
    words = recipe.Guesser(config).eval()
    theirs = peers.Bert(words, config).eval().guess(ids, mask, mask)
    for a, b in zip(words(ids, mask, mask), theirs, strict=True):
        np.testing.assert_allclose(a.numpy(), b.detach().numpy(), atol=1e-5)


def test_systems_agree_with_pytorch_and_fill_their_line(tmp_path, monkeypatch):
    """On the shortest of trainings both ways end at one figure, and only their line changes."""
    pytest.importorskip("torch")
    load("systems_torch", monkeypatch)
    systems = load("systems", monkeypatch)
    text = "to be or not to be\n" * 400
    monkeypatch.setattr(data, "tinyshakespeare", lambda: (text, text[:500]))
    more = ["--quick", "--hidden", "16", "--epochs", "2"]
    theirs, _ = systems.peer("char-lm", 0, "1", more)
    recipe = recipes.find("char-lm")
    parser = argparse.ArgumentParser()
    recipe.add_arguments(parser)
    recipes.run(recipe, parser.parse_args([*more, "--out", str(tmp_path / "run")]))
    ours = json.loads((tmp_path / "run" / "figures.json").read_text())["bits"]
    assert 1 < ours < 3.3 and theirs == pytest.approx(ours, rel=1e-3)

    table = tmp_path / "systems.md"
    table.write_text(systems.TABLE.read_text())
    monkeypatch.setattr(systems, "TABLE", table)
    new = systems.line(
        "char-lm", [0, 1], [[(2.1, 9.0), (2.2, 8.0)], [(2.15, 7.0), (2.2, 6.0)]], "x"
    )
    before = table.read_text().splitlines()
    systems.save([new])
    after = table.read_text().splitlines()
    assert [b for a, b in zip(before, after, strict=True) if a != b] in ([new], [])
    assert (
        new
        == "| 8 `char-lm` | bits per letter | 0, 1 | 2.1000, 2.2000 | 9 s | 2.1500, 2.2000 | 7 s | x |"
    )
