"""RMSprop."""

import math

from .optimizer import Optimizer, check_options


class RMSprop(Optimizer):
    """Divide by a running root mean square: v = alpha v + (1 - alpha) g^2; w -= lr g / (sqrt(v) + eps).

    centered: subtract the square of the running mean from v. momentum: as in SGD, of the divided
    gradient. weight_decay: an L2 penalty. Hinton 2012, lecture 6.

        opt = optim.RMSprop(net.parameters(), lr=1e-3)
    """

    def __init__(
        self, params, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0, centered=False
    ):
        super().__init__(
            params,
            lr=lr,
            alpha=alpha,
            eps=eps,
            weight_decay=weight_decay,
            momentum=momentum,
            centered=centered,
        )

    def check(self, group):
        any_size = (0, math.inf)
        check_options(
            self.name,
            group,
            lr=any_size,
            alpha=(0, 1),
            eps=any_size,
            weight_decay=any_size,
            momentum=any_size,
        )

    def initial_state(self, group):
        state = {"square_avg": 0.0}
        if group["momentum"]:
            state["momentum_buffer"] = 0.0
        if group["centered"]:
            state["grad_avg"] = 0.0
        return state

    def update(self, kernels, w, g, state, t, group):
        kernels.rmsprop_(
            w,
            g,
            state["square_avg"],
            state.get("grad_avg"),
            state.get("momentum_buffer"),
            group["lr"],
            group["alpha"],
            group["eps"],
            group["momentum"],
            group["weight_decay"],
        )
