"""python -m tinygrad_zen doctor: what this machine offers the engine, what is wrong, and the repair."""

import argparse
import contextlib
import ctypes
import functools
import os
import platform
import re
import statistics
import sys
import tempfile
import time
import warnings
from importlib import import_module, metadata, util
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..backend import LOADERS, BackendUnavailable, backend, backends, default_backend, using
from ..ops import softmax
from ..tensor import tensor

THREAD_VARIABLES = "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"
EVERYTHING = tuple(LOADERS)  # the backends, where a problem breaks all of them
ON_GPU = "cupy", "cuda"


class Finding(NamedTuple):
    """A line of the report.

    A problem brings the line that repairs it; `breaks` are the backends that cannot run before.
    """

    text: str
    repair: str = ""
    breaks: tuple = ()


def main(argv=None):
    """Print the report; -> the exit code: 0, or 1 if a problem breaks the default backend."""
    argparse.ArgumentParser(
        prog="python -m tinygrad_zen doctor",
        description="What this machine offers the engine, and the line that repairs each problem. "
        "The exit code is 1 if a problem breaks the default backend.",
    ).parse_args(argv)
    return report(PROBES)


def report(probes):
    """Run probes {heading: function that yields Findings} and print them; -> the exit code."""
    name, findings = default_name(), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries, about kernels as small as a probe's
        for heading, probe in probes.items():
            for i, finding in enumerate(examine(probe)):
                findings.append(finding)
                print(f"{'' if i else heading:14}{finding.text}", flush=True)
                if finding.repair:
                    print(f"{'':14}  -> {finding.repair}", flush=True)
    problems = [f for f in findings if f.repair]
    broken = [f for f in problems if name in f.breaks]
    verdict = f"broken by {len(broken)} of them" if broken else "works"
    count = (
        f"{len(problems)} problem{'' if len(problems) == 1 else 's'}" if problems else "all well"
    )
    print(f"\n{count}; the default backend, {name}, {verdict}")
    return 1 if broken else 0


def examine(probe):
    """What a probe finds. If it fails, that is its last finding: a probe never ends the report."""
    try:
        yield from probe()
    except Exception as e:
        told = f"{type(e).__name__}: {e}".partition("\n")[0]
        yield Finding(f"could not be examined ({told[:160]})")


def default_name():
    """The name of the backend that new Tensors go to, also where it cannot be loaded."""
    try:
        return default_backend().name.partition("[")[0]
    except Exception:  # whatever keeps it from loading is what the report is about
        return os.environ.get("TINYGRAD_ZEN_BACKEND") or "numpy"


# the machine and its libraries


def machine():
    """Processor, cores, system, Python."""
    cores = usable_cores()
    yield Finding(f"{processor()}, {os.cpu_count()} cores, {cores:g} usable")
    yield Finding(f"{platform.system()} {platform.release()}, Python {platform.python_version()}")


def processor():
    """The processor's name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def usable_cores():
    """How many cores this process may use: fewer than there are under taskset or in a container."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # "max 100000" where there is no limit
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, int(quota) / int(period))
    return cores


def thread_settings():
    """The variables that set numbers of threads, against the cores."""
    settings = {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ}
    cores = max(1, int(usable_cores()))
    told = ", ".join(f"{name}={value}" for name, value in settings.items())
    yield Finding(told or "no variable sets them: each library takes all cores")
    for name, value in settings.items():
        if not value.isdecimal() or int(value) < 1:
            # Numba refuses to be imported with such a value
            breaks = ("numba", "cuda", "cudasim") if name == "NUMBA_NUM_THREADS" else ()
            yield Finding(f"{name}={value} is not a number of threads", f"unset {name}", breaks)
        elif int(value) > cores:
            yield Finding(f"{name}={value}, but {cores} cores", f"export {name}={cores}")
    if not settings and (os.cpu_count() or 1) > cores:
        yield Finding(
            f"libraries start {os.cpu_count()} threads on {cores} usable cores",
            f"export OMP_NUM_THREADS={cores} OPENBLAS_NUM_THREADS={cores} NUMBA_NUM_THREADS={cores}",
        )


def libraries():
    """What the package itself needs."""
    versions = []
    for module, package in (
        ("scipy", "scipy"),
        ("tqdm", "tqdm"),
        ("tinygrad_zen.kernels.reference", "tinygrad-zen"),
    ):
        try:
            import_module(module)
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            yield Finding(f"{package} runs, but is not installed", "pip install -e .")
        except ImportError as e:
            line = (
                "pip install -e ."
                if module.startswith("tinygrad_zen")
                else f"pip install {package}"
            )
            yield Finding(f"{module} cannot be imported ({e})", line, EVERYTHING)
    yield Finding(", ".join(versions))


def blas():
    """NumPy and the library that multiplies its matrices."""
    name = blas_library()
    yield Finding(f"NumPy {np.__version__}, BLAS: {name or 'none'}")
    n = 512
    x = np.ones((n, n), np.float32)
    seconds = time_of(lambda: x @ x, calls=3)
    yield Finding(f"float32 product of {n} x {n} matrices: {2e-9 * n**3 / seconds:.0f} GFLOP/s")
    if not name:
        yield Finding(
            "matrix products without BLAS are slow",
            "pip install --force-reinstall --only-binary :all: numpy",
        )


def blas_library():
    """Name, version and threads of NumPy's BLAS; empty if it was built without one."""
    if util.find_spec("threadpoolctl"):
        from threadpoolctl import threadpool_info

        for pool in threadpool_info():
            if pool["user_api"] == "blas":
                kind = pool.get("architecture")
                return (
                    f"{pool['internal_api']} {pool['version']}{f' for {kind}' if kind else ''}, "
                    f"{pool['num_threads']} threads"
                )
    told = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return f"{told['name']} {told.get('version', '')}".strip() if told.get("found") else ""


# Numba


def numba_on_cpu():
    """Numba, its threads, and the folder of compiled code."""
    if not util.find_spec("numba"):
        yield Finding("not installed", 'pip install "tinygrad-zen[numba]"', ("numba", "cudasim"))
        return
    try:
        import numba
    except Exception as e:  # ImportError for a NumPy too new, others for settings it cannot read
        yield Finding(
            f"cannot be imported ({e})".partition("\n")[0],
            'pip install --upgrade "tinygrad-zen[numba]"',
            ("numba", "cuda", "cudasim"),
        )
        return
    prange_kernel()(np.zeros(2))  # the threading layer is known once threads have run
    layer = numba.threading_layer()
    yield Finding(f"Numba {numba.__version__}, {numba.get_num_threads()} threads, layer {layer}")
    if layer == "workqueue":
        yield Finding(
            "the layer workqueue ends the process if two Python threads run kernels at once",
            "pip install tbb",
        )


def cache_folder():
    """Where Numba keeps compiled code from one process to the next."""
    if not util.find_spec("numba"):
        return
    from numba import config

    spec = util.find_spec("tinygrad_zen.kernels")
    beside = Path(next(iter(spec.submodule_search_locations)), "cpu", "__pycache__")
    folder = Path(config.CACHE_DIR or beside)
    if writable(folder):
        yield Finding(f"compiled kernels are kept in {folder}")
    else:
        yield Finding(
            f"{folder} cannot be written: kernels may be compiled anew in every process",
            f"export NUMBA_CACHE_DIR={Path.home() / '.cache' / 'numba'}",
        )


def writable(folder):
    """Whether files can be made in a folder, or in the one that it would be made in."""
    folder = Path(folder).absolute()
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


# CUDA


def cuda_driver():
    """The driver, against what Numba's compiler writes for it."""
    driver = driver_version()
    if driver is None:
        if Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidia0").exists():
            yield Finding(
                "a GPU is there, but its library libcuda.so.1 cannot be loaded",
                "sudo ldconfig   # or, in a container: docker run --gpus all -e "
                "NVIDIA_DRIVER_CAPABILITIES=compute,utility ...",
                ON_GPU,
            )
        else:
            yield Finding("no driver: cupy and cuda cannot run here, cudasim can (in a simulator)")
    else:
        yield Finding(f"driver for CUDA {dotted(driver)}")
    if not util.find_spec("numba_cuda"):
        if driver:
            line = f'pip install "tinygrad-zen[cuda{extra_for(driver)}]"'
            yield Finding("numba-cuda is not installed", line, ("cuda",))
        return
    toolkit = toolkit_version()
    yield Finding(
        f"numba-cuda {metadata.version('numba-cuda')}, "
        + (f"compiler of CUDA {dotted(toolkit)}" if toolkit else "its compiler is not from pip")
    )
    if simulated():
        yield Finding("NUMBA_ENABLE_CUDASIM=1: CUDA kernels run in the simulator, in Python")
        return
    try:
        ptx = ptx_version()
    except Exception as e:  # the compiler's libraries are missing, or refuse
        extra = extra_for(driver or (13, 0))
        yield Finding(
            f"a kernel does not compile ({type(e).__name__}: {e})".partition("\n")[0],
            f'pip install "tinygrad-zen[cuda{extra}]"',
            ("cuda",),
        )
        return
    known = driver and newest_ptx(driver)
    yield Finding(
        f"compiled kernels are PTX {dotted(ptx)}"
        + (f"; driver reads {dotted(known)}" if known else "")
    )
    if known and ptx > known:
        extra = extra_for(driver)
        yield Finding(
            f"the driver cannot read PTX {dotted(ptx)}; update it, or take the compiler of its CUDA",
            f'pip install "numba-cuda[cu{extra}]" "cuda-toolkit=={dotted(driver)}.*"',
            ("cuda",),
        )


def simulated():
    """Whether Numba runs CUDA kernels in its simulator in this process."""
    return os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"


def driver_version():
    """The newest CUDA that the driver knows, as (major, minor); None without a driver."""
    for name in ("libcuda.so.1", "nvcuda.dll"):
        with contextlib.suppress(OSError):
            number = ctypes.c_int()
            ctypes.CDLL(name).cuDriverGetVersion(ctypes.byref(number))
            if number.value:  # 13020 is CUDA 13.2
                return number.value // 1000, number.value % 1000 // 10
    return None


def toolkit_version():
    """The CUDA whose compiler Numba uses, as installed by pip: (major, minor), or None."""
    for package in ("nvidia-nvvm", "nvidia-cuda-nvcc-cu12", "nvidia-cuda-nvcc"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return tuple(map(int, metadata.version(package).split(".")[:2]))
    return None


def ptx_version():
    """The version of the PTX that Numba writes, as (major, minor). Compiles a kernel; needs no GPU."""
    from numba import cuda, float32

    def double(x):
        x[0] = x[0] + x[0]

    ptx, _ = cuda.compile_ptx(double, (float32[::1],), cc=(8, 0))
    return tuple(map(int, re.search(r"\.version (\d+)\.(\d+)", ptx).groups()))


def newest_ptx(cuda):
    """The newest PTX version that came with a CUDA version; a driver reads that and older ones.

    Source: the release notes of the PTX ISA. From CUDA 13 on the two have gone in step.
    """
    major, minor = cuda
    if major >= 13:
        return major - 4, minor
    if major == 12:
        return 8, (0, 1, 2, 3, 4, 5, 5, 6, 7, 8)[min(minor, 9)]
    return 7, min(minor, 8)


def dotted(version):
    return ".".join(map(str, version))


def extra_for(cuda):
    """The number of the extra that goes with a driver: cuda12 or cuda13."""
    return 13 if cuda[0] >= 13 else 12


def cupy_arrays():
    """CuPy, its device, and whether Numba sees the same memory."""
    driver = driver_version()
    packages = sorted(
        {
            name
            for d in metadata.distributions()
            if re.fullmatch(r"cupy(-cuda\d+x?)?", name := (d.metadata["Name"] or "").lower())
        }
    )
    if not packages:
        if driver:
            line = f'pip install "tinygrad-zen[cuda{extra_for(driver)}]"'
            yield Finding("not installed", line, ON_GPU)
        else:
            yield Finding("not installed, and without a driver not needed")
        return
    if len(packages) > 1:  # they write over each other's files
        keep = f"cupy-cuda{extra_for(driver or (13, 0))}x"
        yield Finding(
            f"installed more than once: {', '.join(packages)}",
            f"pip uninstall -y {' '.join(packages)} && pip install {keep}",
            ON_GPU,
        )
    if not driver:
        yield Finding(f"{packages[0]} {metadata.version(packages[0])}; no driver to run it")
        return
    try:
        cupy = backend("cupy").xp
    except BackendUnavailable as e:
        line = f'pip install --force-reinstall "cupy-cuda{extra_for(driver)}x"'
        yield Finding(str(e), line, ON_GPU)
        return
    device = cupy.cuda.Device()
    properties = cupy.cuda.runtime.getDeviceProperties(device.id)
    free, total = device.mem_info
    yield Finding(
        f"CuPy {cupy.__version__} on {properties['name'].decode()}, compute capability "
        f"{properties['major']}.{properties['minor']}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    )
    if util.find_spec("numba_cuda") and not simulated():
        yield from shared_array(cupy)


def shared_array(cupy):
    """Whether a kernel of Numba writes into an array of CuPy, without a copy."""
    from numba import cuda

    x = cupy.zeros(3, np.float32)
    try:
        seen = cuda.as_cuda_array(x)
        same = seen.__cuda_array_interface__["data"][0] == x.data.ptr
        add_one()[1, 3](x)
        right = bool((x.get() == 1).all())
    except Exception as e:  # typing, linking and driver errors alike
        same, right, why = False, False, f"{type(e).__name__}: {e}".partition("\n")[0]
    else:
        why = "another address" if not same else "other numbers"
    if same and right:
        yield Finding("CuPy and Numba share an array: same address, same numbers")
    else:
        yield Finding(
            f"CuPy and Numba do not share an array ({why})",
            f'pip install --upgrade "tinygrad-zen[cuda{extra_for(driver_version())}]"',
            ("cuda",),
        )


# folders


def folders():
    """Where datasets are looked for and kept."""
    chosen = os.environ.get("TINYGRAD_ZEN_DATA")
    if chosen:
        there = Path(chosen).is_dir()
        yield Finding(
            f"data: {chosen} (TINYGRAD_ZEN_DATA){'' if there else ', which is not there'}",
            "" if there else f"mkdir -p {chosen}   # or: unset TINYGRAD_ZEN_DATA",
        )
    if not util.find_spec("pooch"):
        yield Finding("pooch is missing: no downloads", 'pip install "tinygrad-zen[data]"')
        return
    import pooch

    cache = Path(pooch.os_cache("tinygrad_zen"))
    if writable(cache):
        yield Finding(f"downloads: {cache}{'' if cache.exists() else ' (made when needed)'}")
    else:
        yield Finding(f"downloads: {cache} cannot be written", "export XDG_CACHE_HOME=$HOME/.cache")


# backends, and what a call costs


def usable_backends():
    """Each backend; on each that is usable, softmax of a product of matrices."""
    for name, state in backends().items():
        if state != "usable":
            yield Finding(f"{name:8} {state}")
            continue
        try:
            with using(name):
                y = softmax(tensor([[1.0, 2.0]]) @ tensor([[3.0, 3.0], [4.0, 4.0]]))
                right = np.allclose(y.numpy(), 0.5)
            why = "gives wrong numbers" if not right else ""
        except Exception as e:  # a kernel that does not compile, a library that does not fit
            why = f"fails ({type(e).__name__}: {e})".partition("\n")[0]
        if why:
            line = "pip install --force-reinstall " + (
                'numpy "tinygrad-zen[numba]"' if name not in ON_GPU else '"tinygrad-zen[cuda13]"'
            )
            yield Finding(f"{name:8} {why}", line, (name,))
        else:
            yield Finding(f"{name:8} works")
    try:
        default_backend()
    except (ValueError, BackendUnavailable) as e:
        yield Finding(f"the default: {e}", "unset TINYGRAD_ZEN_BACKEND", (default_name(),))


def call_costs():
    """What calls cost before any work is done, in microseconds."""
    x = np.zeros(2)
    if util.find_spec("numba"):
        empty, parallel = empty_kernel(), prange_kernel()
        yield Finding(f"{micro(time_of(lambda: empty(x)))} to call a compiled CPU kernel")
        seconds = time_of(lambda: parallel(x))
        yield Finding(f"{micro(seconds)} to run a prange region on all threads")
        if seconds > SLOW_REGION:
            cores = max(1, int(usable_cores()) - 1)
            yield Finding(
                "threads wait for each other: other programs hold the cores",
                f"export NUMBA_NUM_THREADS={cores}",
            )
    if backends()["cuda"] == "usable" and not simulated():
        yield from cuda_call_costs()
    try:
        place = default_backend()
    except (ValueError, BackendUnavailable):  # told above
        place = backend("numpy")
    yield Finding(
        f"{micro(op_overhead(place))} an op of the engine on {place.name}, beyond the array's"
    )


SLOW_REGION = 500e-6  # seconds; quiet machines take a few microseconds


def op_overhead(place):
    """Seconds that an op with its part of the backward pass takes, beyond its work on the arrays."""
    array = place.array([1.0])
    x, n = tensor(array, requires_grad=True, backend=place), 200

    def chain():
        y = x
        for _ in range(n):
            y = y + x
        y.backward()

    def bare():
        y = g = array
        for _ in range(n):
            y = y + array
            g = g + array

    return (time_of(chain, calls=1) - time_of(bare, calls=1)) / n


def cuda_call_costs():
    cupy = backend("cuda").xp
    x, kernel, wait = cupy.zeros(3, np.float32), add_one(), cupy.cuda.Device().synchronize
    for what, call in (
        ("launch a kernel of Numba on the GPU", lambda: kernel[1, 3](x)),
        ("launch an operation of CuPy", lambda: cupy.add(x, x, out=x)),
    ):
        call()

        def launches(call=call):
            for _ in range(100):
                call()
            wait()

        yield Finding(f"{micro(time_of(launches, calls=1) / 100)} to {what}")


@functools.cache
def empty_kernel():
    from numba import njit

    @njit
    def nothing(x):
        return None

    return nothing


@functools.cache
def prange_kernel():
    from numba import njit, prange

    @njit(parallel=True)
    def count(x):
        for i in prange(x.size):
            x[i] = i

    return count


@functools.cache
def add_one():
    from numba import cuda

    @cuda.jit
    def add(x):
        x[cuda.grid(1)] += 1

    return add


def time_of(call, calls=100, rounds=7):
    """Seconds of a call: the median of rounds, after one to warm up."""
    call()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        seconds.append((time.perf_counter() - start) / calls)
    return statistics.median(seconds)


def micro(seconds):
    return f"{seconds * 1e6:8.1f} us"


PROBES = {
    "machine": machine,
    "threads": thread_settings,
    "libraries": libraries,
    "BLAS": blas,
    "Numba": numba_on_cpu,
    "Numba's cache": cache_folder,
    "CUDA": cuda_driver,
    "CuPy": cupy_arrays,
    "folders": folders,
    "backends": usable_backends,
    "calls": call_costs,
}

if __name__ == "__main__":
    sys.exit(main())
