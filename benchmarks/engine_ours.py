"""This engine, on one of its backends; `captured`: the step recorded once and replayed."""

import time

import networks
import numpy as np

import tinygrad_zen as tz


class Program:
    """step() takes one step and gives its loss; seconds(steps) is the time of so many in a row."""

    def __init__(self, network, weights, threads, device, variant):
        (name,) = variant - {"captured"}
        tz.set_backend(name)
        self.backend = tz.backend(name)
        self.version = f"tinygrad_zen {tz.__version__}, NumPy {np.__version__}"
        self.device = "CPU" if self.backend.xp is np else device_name(self.backend.xp)
        self.batch = [tz.tensor(a) for a in networks.batch(network)]
        self.train = networks.train_step(network, weights)
        if "captured" in variant:
            self.train = tz.capture(self.train)

    def step(self):
        return float(self.train(*self.batch))

    def seconds(self, steps):
        self.wait()
        begin = time.perf_counter()
        for _ in range(steps):
            self.train(*self.batch)
        self.wait()
        return time.perf_counter() - begin

    def wait(self):
        if self.backend.xp is not np:
            self.backend.xp.cuda.Device().synchronize()


def device_name(cupy):
    return cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["name"].decode()
