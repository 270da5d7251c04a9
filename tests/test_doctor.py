"""python -m tinygrad_zen doctor: problems are told with their repair, and never as a traceback."""

import importlib.util
import os
import re
import subprocess
import sys
import types

import pytest

import tinygrad_zen as tz
from tinygrad_zen import __main__ as cli
from tinygrad_zen.check import doctor
from tinygrad_zen.check.doctor import Finding


def texts(probe):
    return [finding.text for finding in doctor.examine(probe)]


def repairs(probe):
    return [finding.repair for finding in doctor.examine(probe) if finding.repair]


def test_the_whole_report(tmp_path):
    """In a process of its own, as people run it."""
    command = [sys.executable, "-W", "error", "-m", "tinygrad_zen", "doctor"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0 and not run.stderr, run.stdout + run.stderr
    silent = set() if importlib.util.find_spec("numba") else {"Numba's cache"}  # it has none then
    for heading in set(doctor.PROBES) - silent:
        assert f"\n{heading}" in f"\n{run.stdout}"
    assert "could not be examined" not in run.stdout
    assert re.search(r"; the default backend, \w+, works\n$", run.stdout)


def test_a_default_backend_that_cannot_run_is_exit_code_1():
    program = (
        "import sys; from tinygrad_zen.check import doctor;"
        "sys.exit(doctor.report({'backends': doctor.usable_backends}))"
    )
    environment = os.environ | {"TINYGRAD_ZEN_BACKEND": "tpu"}
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    assert run.returncode == 1 and not run.stderr
    assert "-> unset TINYGRAD_ZEN_BACKEND" in run.stdout
    assert "the default backend, tpu, broken by 1" in run.stdout


def test_only_what_breaks_the_default_backend_counts(capsys):
    tz.set_backend("numpy")
    probes = {"a": lambda: [Finding("no GPU", "buy one", ("cuda",))]}
    assert doctor.report(probes) == 0
    assert "1 problem; the default backend, numpy, works" in capsys.readouterr().out
    probes["b"] = lambda: [Finding("no NumPy", "install it", ("numpy",)), Finding("fine")]
    assert doctor.report(probes) == 1
    out = capsys.readouterr().out
    assert "2 problems; the default backend, numpy, broken by 1 of them" in out
    assert "a             no GPU\n                -> buy one\n" in out


def test_a_probe_that_fails_is_a_line(capsys):
    def broken():
        yield Finding("so far")
        raise OSError("no such device\nand more")

    assert texts(broken) == ["so far", "could not be examined (OSError: no such device)"]
    assert doctor.report({"broken": broken, "next": lambda: [Finding("fine")]}) == 0
    assert "next          fine" in capsys.readouterr().out


@pytest.mark.parametrize("name", doctor.PROBES)
def test_every_probe_survives_a_broken_machine(name, monkeypatch):
    """Whatever it asks for fails: it says so, and goes no further."""

    def fail(*args, **kwargs):
        raise RuntimeError("broken")

    for target, attribute in (
        (doctor.util, "find_spec"),
        (doctor, "usable_cores"),
        (doctor, "import_module"),
        (doctor, "time_of"),
        (doctor, "driver_version"),
        (doctor, "backends"),
    ):
        monkeypatch.setattr(target, attribute, fail)
    assert texts(doctor.PROBES[name])[-1] == "could not be examined (RuntimeError: broken)"


def test_thread_settings(monkeypatch):
    for name in doctor.THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(doctor, "usable_cores", lambda: 2.5)
    monkeypatch.setattr(doctor.os, "cpu_count", lambda: 2)
    assert repairs(doctor.thread_settings) == []
    monkeypatch.setattr(doctor.os, "cpu_count", lambda: 64)
    assert repairs(doctor.thread_settings)[0].startswith("export OMP_NUM_THREADS=2 ")
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.setenv("NUMBA_NUM_THREADS", "many")
    assert repairs(doctor.thread_settings) == [
        "export OMP_NUM_THREADS=2",
        "unset NUMBA_NUM_THREADS",
    ]


def test_what_is_missing_has_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr(doctor.util, "find_spec", lambda name: None)
    assert repairs(doctor.numba_on_cpu) == ['pip install "tinygrad-zen[numba]"']
    assert repairs(doctor.folders)[-1] == 'pip install "tinygrad-zen[data]"'
    monkeypatch.setattr(doctor, "driver_version", lambda: (12, 4))
    assert repairs(doctor.cuda_driver) == ['pip install "tinygrad-zen[cuda12]"']


def test_libraries_that_cannot_be_imported(monkeypatch):
    def fail(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(doctor, "import_module", fail)
    assert repairs(doctor.libraries) == [
        "pip install scipy",
        "pip install tqdm",
        "pip install -e .",
    ]


@pytest.mark.parametrize(
    "driver, ptx, right",
    [
        ((13, 0), (9, 5), False),
        ((13, 5), (9, 5), True),
        ((12, 4), (8, 4), True),
        (None, (9, 5), True),
    ],
)
def test_a_driver_older_than_the_compiler(monkeypatch, driver, ptx, right):
    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)
    monkeypatch.setattr(doctor, "driver_version", lambda: driver)
    monkeypatch.setattr(doctor, "ptx_version", lambda: ptx)
    monkeypatch.setattr(doctor.util, "find_spec", lambda name: True)
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "13.5.1")
    line = 'pip install "numba-cuda[cu13]" "cuda-toolkit==13.0.*"'
    assert repairs(doctor.cuda_driver) == ([] if right else [line])


def test_ptx_versions():
    assert doctor.newest_ptx((13, 2)) == (9, 2)
    assert doctor.newest_ptx((12, 6)) == (8, 5)
    assert doctor.newest_ptx((12, 9)) == (8, 8)
    assert doctor.newest_ptx((11, 8)) == (7, 8)


def test_ptx_of_the_compiler_here(monkeypatch):
    pytest.importorskip("numba_cuda")
    if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
        pytest.skip("the simulator compiles nothing")
    major, minor = doctor.ptx_version()
    assert major >= 7 and minor >= 0


def test_cupy_twice(monkeypatch):
    packages = [types.SimpleNamespace(metadata={"Name": f"cupy-cuda{n}x"}) for n in (12, 13)]
    monkeypatch.setattr(doctor.metadata, "distributions", lambda: packages)
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "14.0")
    monkeypatch.setattr(doctor, "driver_version", lambda: None)
    assert repairs(doctor.cupy_arrays) == [
        "pip uninstall -y cupy-cuda12x cupy-cuda13x && pip install cupy-cuda13x"
    ]


def test_folders_that_cannot_be_used(monkeypatch, tmp_path):
    assert doctor.writable(tmp_path) and doctor.writable(tmp_path / "new" / "one")
    (tmp_path / "file").touch()
    assert not doctor.writable(tmp_path / "file")
    monkeypatch.setenv("TINYGRAD_ZEN_DATA", str(tmp_path / "none"))
    assert repairs(doctor.folders)[0].startswith(f"mkdir -p {tmp_path / 'none'} ")


def test_the_command(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "PROBES", {"one": lambda: [Finding("fine")]})
    tz.set_backend("numpy")
    assert cli.main(["doctor"]) == 0
    assert capsys.readouterr().out == (
        "one           fine\n\nall well; the default backend, numpy, works\n"
    )
    with pytest.raises(SystemExit) as stop:
        cli.main(["doctor", "--fast"])
    assert stop.value.code == 2
