"""Adagrad."""

import math

from .optimizer import Optimizer, check_options


class Adagrad(Optimizer):
    """Divide by the root of the sum of all squared gradients: w -= lr g / (sqrt(sum g^2) + eps).

    lr_decay: step t uses lr / (1 + (t - 1) lr_decay). weight_decay: an L2 penalty.
    initial_accumulator_value: where the sum starts. Duchi, Hazan & Singer 2011.

        opt = optim.Adagrad(net.parameters(), lr=1e-2)
    """

    def __init__(
        self,
        params,
        lr=1e-2,
        lr_decay=0.0,
        weight_decay=0.0,
        initial_accumulator_value=0.0,
        eps=1e-10,
    ):
        super().__init__(
            params,
            lr=lr,
            lr_decay=lr_decay,
            weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value,
            eps=eps,
        )

    def check(self, group):
        check_options(self.name, group, **dict.fromkeys(self.defaults, (0, math.inf)))

    def initial_state(self, group):
        return {"sum": group["initial_accumulator_value"]}

    def update(self, kernels, w, g, state, t, group):
        kernels.adagrad_(
            w,
            g,
            state["sum"],
            t,
            group["lr"],
            group["lr_decay"],
            group["eps"],
            group["weight_decay"],
        )
