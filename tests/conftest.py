"""What all tests share: seeds, backends, how hypothesis searches."""

import os

import numpy as np
import pytest
from hypothesis import settings

import tinygrad_zen as tz

# no deadlines: this machine is shared. In CI the same examples are drawn run after run.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

DEFAULT = tz.tensor(0.0).backend  # numba where it is installed: tests run on what people run on


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random numbers and the default backend, alone or among others."""
    tz.seed(0)
    np.random.seed(0)
    tz.set_backend(DEFAULT)


@pytest.fixture(params=[name for name, why in tz.backends().items() if why == "usable"])
def backend(request):
    """Each backend that this machine can use, in turn."""
    with tz.using(request.param) as chosen:
        yield chosen
