"""Metadata, extras and packages. `kernels/` lies beside `tinygrad_zen/`, to be read on its own, and is
installed as `tinygrad_zen.kernels`.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (ROOT / "tinygrad_zen/__init__.py").read_text())[1]

kernels = ["kernels", *(f"kernels.{name}" for name in find_packages("kernels"))]

EXTRAS = {
    "numba": ["numba>=0.61"],
    # numba-cuda up to 0.30.4 uses np.row_stack, which is gone from NumPy 2.5
    "cuda12": ["cupy-cuda12x>=13.4", "numba>=0.61", "numba-cuda[cu12]>=0.20", "numpy<2.5"],
    "cuda13": ["cupy-cuda13x>=13.6", "numba>=0.61", "numba-cuda[cu13]>=0.20", "numpy<2.5"],
    "data": ["pooch>=1.7"],
    "plots": ["matplotlib>=3.7"],
    "sklearn": ["scikit-learn>=1.6"],
    "tensorboard": ["tensorboard>=2.11"],
    "notebooks": [
        *("jupyterlab", "ipywidgets", "nbclient>=0.10", "matplotlib>=3.7", "numba>=0.61"),
        "pooch>=1.7",  # fetches what lessons 5 and 7 train on
    ],
    # PyTorch as an outside judge of results, its database of ops needs expecttest; transformers judges
    # BERT; tests skip without
    "judges": ["torch==2.13.0", "expecttest>=0.2", "transformers>=5.0"],
}
# PyTorch, JAX and Keras, which the benchmarks set beside this engine
EXTRAS["peers"] = ["torch==2.13.0", "jax>=0.6", "keras>=3.9"]
EXTRAS["test"] = [
    "pytest>=8",
    "safetensors>=0.4",  # judges our own reader and writer of its format
    "selenium>=4.20",  # walks through the viewer's page where there is a Chromium
    "setuptools>=77",
    "hypothesis>=6.100",
    *EXTRAS["sklearn"],
    *EXTRAS["tensorboard"],
    *EXTRAS["numba"],
    "numpy<2.5",  # as above
    "numba-cuda[cu13]>=0.20",  # compiles CUDA kernels to PTX and simulates them; needs no GPU
    *EXTRAS["data"],
    *EXTRAS["plots"],
]
EXTRAS["proof"] = [*EXTRAS["judges"], *EXTRAS["numba"], *EXTRAS["data"], "safetensors>=0.4"]
EXTRAS["dev"] = ["ruff==0.17.6", "build", *EXTRAS["test"]]

setup(
    name="tinygrad-zen",
    version=VERSION,
    description="A neural-net engine to read whole: proved gradients, kernels in Python, fast small networks",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE", "tinygrad_zen/data/tables/ATTRIBUTION.md"],
    python_requires=">=3.10",
    packages=find_packages(include=["tinygrad_zen", "tinygrad_zen.*"])
    + [f"tinygrad_zen.{name}" for name in kernels],
    package_dir={"tinygrad_zen": "tinygrad_zen", "tinygrad_zen.kernels": "kernels"},
    package_data={"tinygrad_zen.data": ["tables/*"], "tinygrad_zen.view": ["*.html"]},
    install_requires=["numpy>=2.0", "scipy>=1.11", "tqdm>=4.60"],
    extras_require=EXTRAS,
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Education",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    keywords="neural networks, autograd, deep learning, numpy, cupy, numba, cuda kernels",
)
