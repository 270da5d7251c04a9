"""AdamW."""

from .adam import Adam


class AdamW(Adam):
    """Adam whose weight decay shrinks the weights by themselves: w *= 1 - lr weight_decay, then Adam.

    Loshchilov & Hutter 2019.

        opt = optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.01)
    """

    decoupled = True

    def __init__(
        self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, amsgrad=False
    ):
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad)
