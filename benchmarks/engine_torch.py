"""PyTorch, eager; `fused`: Adam as one kernel; `channels_last`; `compile`: torch.compile."""

import time

import networks
import torch
from torch.nn import functional as F


class Program:
    """See engine_ours.Program. On a card in true float32, without TF32, as ours."""

    def __init__(self, network, weights, threads, device, variant):
        torch.set_num_threads(threads)
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.benchmark = True  # its fastest convolutions
        self.version, self.cuda = f"PyTorch {torch.__version__}", device == "cuda"
        self.device = torch.cuda.get_device_name() if self.cuda else "CPU"
        net = networks.build(torch.nn, network)
        net.load_state_dict({n: torch.from_numpy(w) for n, w in weights.items()})
        net.to(device)
        x, y = (torch.from_numpy(a).to(device) for a in networks.batch(network))
        if "channels_last" in variant:
            net.to(memory_format=torch.channels_last)
            x = x.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(
            net.parameters(), lr=networks.LEARNING_RATE, fused="fused" in variant
        )
        loss_of = getattr(F, network.loss)
        self.loss = lambda: loss_of(net(x), y)
        if "compile" in variant:
            self.loss = torch.compile(self.loss)

    def train(self):
        self.optimizer.zero_grad()
        loss = self.loss()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def step(self):
        return float(self.train())

    def seconds(self, steps):
        self.wait()
        begin = time.perf_counter()
        for _ in range(steps):
            self.train()
        self.wait()
        return time.perf_counter() - begin

    def wait(self):
        if self.cuda:
            torch.cuda.synchronize()
