"""PyTorch's kernels of the same ops, in the form of a backend: `place("torch")`, `place("torch-cuda")`."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

NAMES = "torch", "torch-cuda"


def usable():
    """Those of NAMES that can run here."""
    if not importlib.util.find_spec("torch"):
        return []
    import torch

    return list(NAMES) if torch.cuda.is_available() else ["torch"]


@dataclass(frozen=True, eq=False)
class Place:
    """What a Backend offers the benchmarks; `wait` until its device is done."""

    name: str
    kernels: SimpleNamespace
    array: Callable
    numpy: Callable
    wait: Callable


def place(name):
    """PyTorch on the CPU or a card, in true float32, without TF32."""
    import torch

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = True  # its fastest convolutions
    device = "cuda" if name == "torch-cuda" else "cpu"
    return Place(
        name=name,
        kernels=kernels(torch),
        array=lambda a: torch.from_numpy(a).to(device),
        numpy=lambda t: t.cpu().numpy(),
        wait=torch.cuda.synchronize if device == "cuda" else lambda: None,
    )


def kernels(torch):
    """Functions with the arguments of ours."""
    F, aten = torch.nn.functional, torch.ops.aten
    grad = torch.nn.grad

    def conv2d(x, w, b, stride, padding, dilation, groups):
        return F.conv2d(x, w, b, stride, padding, dilation, groups)

    def conv2d_grad_x(g, w, x_shape, *options):
        return grad.conv2d_input(x_shape, w, g, *options)

    def conv2d_grad_w(g, x, w_shape, *options):
        return grad.conv2d_weight(x, w_shape, g, *options)

    def max_pool2d(x, *options):
        return aten.max_pool2d_with_indices(x, *options)[0]

    def layer_norm(x, w, b, eps):
        return aten.native_layer_norm(x, w.shape, w, b, eps)

    def adam_(w, g, m, v, v_max, t, lr, beta1, beta2, eps, weight_decay, decoupled):
        torch._fused_adam_(
            *([w], [g], [m], [v], [], [torch.tensor(float(t), device=w.device)]),
            **{"lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": weight_decay},
            **{"amsgrad": False, "maximize": False},
        )

    return SimpleNamespace(
        matmul=torch.matmul,
        conv2d=conv2d,
        conv2d_grad_x=conv2d_grad_x,
        conv2d_grad_w=conv2d_grad_w,
        max_pool2d=max_pool2d,
        softmax=torch.softmax,
        layer_norm=layer_norm,
        gelu=F.gelu,
        adam_=adam_,
    )
