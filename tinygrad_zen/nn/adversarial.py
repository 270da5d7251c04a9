"""Losses of adversarial training: a generator that makes samples, and a discriminator that judges them.

The discriminator gives each sample one raw score (a logit), high for a real one. Of each kind there is
what the discriminator minimises and what the generator does; the means over the samples are taken here.

    d_loss = adversarial.discriminator_loss(d(real), d(g(noise).detach()))
    g_loss = adversarial.generator_loss(d(g(noise)))
"""

import math

from ..autograd import grad
from ..backend import default_generator
from ..tensor import Tensor
from . import functional as F

# kind -> (loss of the discriminator from scores of real and of made samples, that of the generator)
KINDS = {
    "non-saturating": (
        lambda real, fake: F.softplus(-real).mean() + F.softplus(fake).mean(),
        lambda fake: F.softplus(-fake).mean(),
    ),
    "least-squares": (
        lambda real, fake: 0.5 * (((real - 1) ** 2).mean() + (fake**2).mean()),
        lambda fake: 0.5 * ((fake - 1) ** 2).mean(),
    ),
    "hinge": (
        lambda real, fake: F.relu(1 - real).mean() + F.relu(1 + fake).mean(),
        lambda fake: -fake.mean(),
    ),
    "wasserstein": (
        lambda real, fake: fake.mean() - real.mean(),
        lambda fake: -fake.mean(),
    ),
}


def discriminator_loss(real, fake, kind="non-saturating"):
    """What the discriminator minimises, given its scores of real samples and of made ones: one number.

    With s the sigmoid and means over the samples:
    non-saturating: -log s(real) - log(1 - s(fake)), finite at any score. Goodfellow et al. 2014.
    least-squares: ((real - 1)^2 + fake^2) / 2. Mao et al. 2017.
    hinge: max(0, 1 - real) + max(0, 1 + fake). Lim & Ye 2017.
    wasserstein: fake - real, for a critic whose slope is held at 1, see gradient_penalty.
    Arjovsky et al. 2017. Raises ValueError for another kind.
    """
    return _losses("discriminator_loss", kind)[0](real, fake)


def generator_loss(fake, kind="non-saturating"):
    """What the generator minimises, given the discriminator's scores of its samples: one number.

    non-saturating: -log s(fake); least-squares: (fake - 1)^2 / 2; hinge and wasserstein: -fake. Sources
    and errors as for discriminator_loss.
    """
    return _losses("generator_loss", kind)[1](fake)


def gradient_penalty(critic, real, fake, rng=None):
    """The mean of (|d critic(x) / d x| - 1)^2 at random points x between real and made samples.

    critic: gives samples (N, ...) a score each, (N,) or (N, 1), that depends on that sample alone: no
    batch norm. real, fake: (N, ...), one shape. x = real + t (fake - real), with t even in 0..1 for each
    sample, drawn from rng (a NumPy generator) or the engine's. Real and fake get no gradient, the critic's
    weights do, through its second derivatives; weigh the penalty, usually by 10, and add it to the
    loss. Gulrajani et al. 2017. Raises ValueError for other shapes.
    """
    if real.shape != fake.shape or real.ndim < 2:
        raise ValueError(
            f"gradient_penalty: real and fake must be (N, ...) of one shape; got {real.shape} and "
            f"{fake.shape}"
        )
    n, be = real.shape[0], real.backend
    rng = default_generator() if rng is None else rng
    t = be.array(rng.random((n,) + (1,) * (real.ndim - 1)), real.dtype)
    x = Tensor(real.data + t * (fake.data - real.data), be, requires_grad=True)
    scores = critic(x)
    if scores.shape not in ((n,), (n, 1)):
        raise ValueError(
            f"gradient_penalty: the critic must give {n} samples a score each; got {scores.shape}"
        )
    # the scores' sum: each depends on its own sample alone, so one backward pass serves all
    slope = grad(scores.sum(), x, create_graph=True).reshape((n, math.prod(x.shape[1:])))
    # where the slope is 0 the length has no derivative; a little under the root gives it that of 0
    length = ((slope * slope).sum(axis=1) + 1e-12) ** 0.5
    return ((length - 1) ** 2).mean()


def _losses(name, kind):
    if kind not in KINDS:
        raise ValueError(f"{name}: unknown kind {kind!r}: choose from {', '.join(KINDS)}")
    return KINDS[kind]
