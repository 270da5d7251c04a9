"""Adam."""

import math

from .optimizer import Optimizer, check_options


class Adam(Optimizer):
    """Steps of the mean gradient over its root mean square. Kingma & Ba 2015, Algorithm 1.

    m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; mhat = m / (1 - b1^t); vhat = v / (1 - b2^t);
    w -= lr mhat / (sqrt(vhat) + eps). weight_decay: an L2 penalty, added to the gradient (AdamW
    decays the weights instead). amsgrad: vhat never shrinks; Reddi et al. 2018.

        opt = optim.Adam(net.parameters(), lr=1e-3)
    """

    decoupled = False

    def __init__(
        self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False
    ):
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad
        )

    def check(self, group):
        any_size = (0, math.inf)
        check_options(self.name, group, lr=any_size, eps=any_size, weight_decay=any_size)
        betas = group["betas"]
        if len(betas) != 2 or not all(0 <= b < 1 for b in betas):
            raise ValueError(f"{self.name}: betas must be two numbers in [0, 1); got {betas}")

    def initial_state(self, group):
        state = {"exp_avg": 0.0, "exp_avg_sq": 0.0}
        if group["amsgrad"]:
            state["max_exp_avg_sq"] = 0.0
        return state

    def update(self, kernels, w, g, state, t, group):
        kernels.adam_(
            w,
            g,
            state["exp_avg"],
            state["exp_avg_sq"],
            state.get("max_exp_avg_sq"),
            t,
            group["lr"],
            *group["betas"],
            group["eps"],
            group["weight_decay"],
            self.decoupled,
        )
