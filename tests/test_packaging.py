"""What is installed: the wheel and the sdist carry kernels/ and the tables, and both work."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """A folder with the wheel and the sdist, built from a copy of the source."""
    copy = tmp_path_factory.mktemp("source")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist", "runs")
    for name in ("tinygrad_zen", "kernels", "tests", "benchmarks"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignore)
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, copy)
    build = "from setuptools import build_meta as b; b.build_wheel('dist'); b.build_sdist('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=copy, check=True, capture_output=True)
    return copy / "dist"


def test_the_wheel_carries_kernels_and_tables(dist):
    names = zipfile.ZipFile(next(dist.glob("*.whl"))).namelist()
    assert "tinygrad_zen/kernels/reference/conv.py" in names
    assert any(n.startswith("tinygrad_zen/data/tables/") for n in names)
    assert "tinygrad_zen/view/viewer.html" in names
    assert not any(n.startswith(("kernels/", "tests/", "benchmarks/")) for n in names)


def test_the_sdist_carries_kernels_and_tests(dist):
    names = [n.partition("/")[2] for n in tarfile.open(next(dist.glob("*.tar.gz"))).getnames()]
    assert {"kernels/reference/conv.py", "tests/samples.py", "LICENSE", "setup.py"} <= set(names)


def test_the_wheel_works_outside_the_source(dist, tmp_path):
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, "--target", tmp_path, next(dist.glob("*.whl"))], check=True)
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import tinygrad_zen as tz;"
        "from tinygrad_zen.kernels import reference;"
        "assert reference.__file__.startswith(sys.argv[1]), reference.__file__;"
        "(x_train, y_train), _ = tz.data.digits(); print(x_train.shape)"
    )
    run = [sys.executable, "-S", "-c"]  # -S: without the editable install of this environment
    site = f"import sys; sys.path += {[p for p in sys.path if p.endswith('site-packages')]!r};"
    out = subprocess.run(
        [*run, site + program, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True
    )
    assert "(1437, 1, 8, 8)" in out.stdout, out.stderr
