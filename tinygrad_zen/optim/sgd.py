"""Stochastic gradient descent."""

import math

from .optimizer import Optimizer, check_options


class SGD(Optimizer):
    """Gradient descent, with momentum if wanted: buf = momentum buf + (1 - dampening) g; w -= lr buf.

    nesterov: step by g + momentum buf instead. weight_decay: an L2 penalty, added to the gradient as
    weight_decay * w. Sutskever et al. 2013.

        opt = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    """

    def __init__(
        self, params, lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False
    ):
        super().__init__(
            params,
            lr=lr,
            momentum=momentum,
            dampening=dampening,
            weight_decay=weight_decay,
            nesterov=nesterov,
        )

    def check(self, group):
        any_size = (0, math.inf)
        check_options(self.name, group, lr=any_size, momentum=any_size, weight_decay=any_size)
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise ValueError(
                "SGD: nesterov needs momentum above 0 and no dampening; got momentum "
                f"{group['momentum']} and dampening {group['dampening']}"
            )

    def initial_state(self, group):
        return {"momentum_buffer": 0.0} if group["momentum"] else {}

    def update(self, kernels, w, g, state, t, group):
        kernels.sgd_(
            w,
            g,
            state.get("momentum_buffer"),
            t,
            group["lr"],
            group["momentum"],
            group["dampening"],
            group["weight_decay"],
            group["nesterov"],
        )
