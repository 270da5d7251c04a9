"""From gradients to the steps of an optimizer: gathered over batches, and clipped."""

from ..optim import clip_grad_norm_, clip_grad_value_
from ..tensor import Tensor


class Update:
    """The steps of a fit.

    accumulate: how many batches make one step. Its gradient is that of the mean over all their
    samples, as if they were one batch; what is left at the end of an epoch makes a step as well.
    clip_norm: the norm that the gradient of all parameters may have. clip_value: the size that each
    of its elements may have. Both as in optim, elements first.
    """

    def __init__(self, optimizer, accumulate=1, clip_norm=None, clip_value=None):
        if accumulate < 1:
            raise ValueError(f"compile: accumulate must be at least 1 batch; got {accumulate}")
        for name, value in (("clip_norm", clip_norm), ("clip_value", clip_value)):
            if value is not None and not value > 0:
                raise ValueError(f"compile: {name} must be positive; got {value}")
        self.optimizer = optimizer
        self.accumulate, self.clip_norm, self.clip_value = accumulate, clip_norm, clip_value
        self.reset()

    def reset(self):
        """Forget what was gathered."""
        self.batches = self.samples = 0

    def begin(self):
        """Before a batch: forget the gradients of the last step."""
        if not self.batches:
            self.optimizer.zero_grad()

    def backward(self, loss, samples):
        """Add the gradients of a batch, whose mean loss this is."""
        (loss if self.accumulate == 1 else loss * samples).backward()

    def end(self, samples):
        """After a batch: make a step, if there are enough."""
        self.batches, self.samples = self.batches + 1, self.samples + samples
        if self.batches == self.accumulate:
            self.step()

    def step(self):
        """Make a step of the batches gathered, if there are any."""
        if not self.batches:
            return
        parameters = list(self._parameters())
        if self.accumulate > 1:
            for p in parameters:
                if p.grad is not None:
                    p.grad.data *= p.dtype.type(1 / self.samples)
        if self.clip_value is not None:
            clip_grad_value_(parameters, self.clip_value)
        if self.clip_norm is not None:
            clip_grad_norm_(parameters, self.clip_norm)
        self.optimizer.step()
        self.reset()

    def _parameters(self):
        return (p for group in self.optimizer.param_groups for p in group["params"])

    def state_dict(self):
        """What was gathered since the last step."""
        grads = {}
        if self.batches:
            grads = {
                i: p.grad.numpy() for i, p in enumerate(self._parameters()) if p.grad is not None
            }
        return {"batches": self.batches, "samples": self.samples, "grads": grads}

    def load_state_dict(self, state):
        """Go on gathering where a state_dict() was taken."""
        self.batches, self.samples = state["batches"], state["samples"]
        for i, p in enumerate(self._parameters()):
            grad = state["grads"].get(i)
            p.grad = None if grad is None else Tensor(p.backend.array(grad, p.dtype), p.backend)
