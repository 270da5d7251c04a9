"""Adversarial losses: against their definitions and PyTorch, and the penalty's second derivatives."""

import numpy as np
import pytest

import tinygrad_zen as tz
from tinygrad_zen import nn, optim
from tinygrad_zen.nn import adversarial
from tinygrad_zen.nn.adversarial import discriminator_loss, generator_loss, gradient_penalty


def scores(n=7, seed=0):
    return tz.tensor(2 * np.random.default_rng(seed).standard_normal((n, 1)), dtype="float64")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# kind -> (discriminator's loss, generator's), from the definitions, on NumPy arrays
DEFINITIONS = {
    "non-saturating": (
        lambda r, f: -np.log(sigmoid(r)).mean() - np.log(1 - sigmoid(f)).mean(),
        lambda f: -np.log(sigmoid(f)).mean(),
    ),
    "least-squares": (
        lambda r, f: ((r - 1) ** 2).mean() / 2 + (f**2).mean() / 2,
        lambda f: ((f - 1) ** 2).mean() / 2,
    ),
    "hinge": (
        lambda r, f: np.maximum(0, 1 - r).mean() + np.maximum(0, 1 + f).mean(),
        lambda f: -f.mean(),
    ),
    "wasserstein": (lambda r, f: f.mean() - r.mean(), lambda f: -f.mean()),
}


@pytest.mark.parametrize("kind", adversarial.KINDS)
def test_losses_are_their_definitions(backend, kind):
    d_loss, g_loss = DEFINITIONS[kind]
    real, fake = scores(7, 0), scores(5, 1)
    r, f = real.numpy(), fake.numpy()
    assert discriminator_loss(real, fake, kind).item() == pytest.approx(d_loss(r, f), rel=1e-12)
    assert generator_loss(fake, kind).item() == pytest.approx(g_loss(f), rel=1e-12)
    real.requires_grad_(), fake.requires_grad_()
    tz.check.gradcheck(lambda a, b: discriminator_loss(a, b, kind), real, fake)
    tz.check.gradcheck(lambda b: generator_loss(b, kind), fake)


def test_the_first_kind_is_finite_and_pushes_at_any_score():
    """In float32 the sigmoid of 200 is 1: log(1 - s) by its formula is minus infinity."""
    high = tz.tensor([[200.0]], requires_grad=True)
    loss = discriminator_loss(-high, high)
    assert loss.item() == 400
    loss.backward()
    assert high.grad.item() == 2
    low = tz.tensor([[-200.0]], requires_grad=True)
    loss = generator_loss(low)
    loss.backward()
    assert loss.item() == 200 and low.grad.item() == -1


def test_unknown_kinds():
    known = "choose from non-saturating, least-squares, hinge, wasserstein"
    with pytest.raises(ValueError, match=f"discriminator_loss: unknown kind 'gan': {known}"):
        discriminator_loss(scores(), scores(), "gan")
    with pytest.raises(ValueError, match=f"generator_loss: unknown kind 'gan': {known}"):
        generator_loss(scores(), "gan")


def critic(nn=nn):
    """Images (N, 1, 6, 6) -> scores (N, 1), through every layer of the recipe's discriminator."""
    return nn.Sequential(
        nn.Conv2d(1, 3, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(3, 4, 3, padding=1),
        nn.LayerNorm((4, 3, 3)),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(36, 5),
        nn.Tanh(),
        nn.Linear(5, 1),
    )


def two_kinds_of_images():
    rng = np.random.default_rng(0)
    return (tz.tensor(rng.standard_normal((4, 1, 6, 6)), dtype="float64") for _ in range(2))


def test_the_gradient_of_the_penalty_is_that_of_differences(backend):
    """All weights of the critic, in float64, along random directions and element by element."""
    net = critic().to("float64")
    real, fake = two_kinds_of_images()
    weights = [p for name, p in net.named_parameters() if name != "8.bias"]  # has no slope

    def penalty(*_):
        return gradient_penalty(net, real, fake, np.random.default_rng(1))

    gradients = tz.grad(penalty(), weights, allow_unused=True)
    rng = np.random.default_rng(2)
    h = 1e-6
    for p, g in zip(weights, gradients, strict=True):
        for i in rng.choice(p.size, min(p.size, 12), replace=False):
            at = np.unravel_index(i, p.shape)
            kept = p.data[at].item()
            values = []
            for step in (h, -h):
                p.data[at] = kept + step
                values.append(penalty().item())
            p.data[at] = kept
            slope = (values[0] - values[1]) / (2 * h)
            got = 0.0 if g is None else g.numpy()[at]
            assert got == pytest.approx(slope, rel=1e-6, abs=1e-8)
    assert sum(np.abs(g.numpy()).max() > 1e-3 for g in gradients if g is not None) >= 7


def test_the_penalty_and_its_gradient_are_pytorchs(backend):
    torch = pytest.importorskip("torch")
    net, theirs = critic().to("float64"), critic(torch.nn).double()
    theirs.load_state_dict({k: torch.tensor(v) for k, v in net.state_dict().items()})
    real, fake = two_kinds_of_images()
    gradient_penalty(net, real, fake, np.random.default_rng(1)).backward()

    t = torch.tensor(np.random.default_rng(1).random((4, 1, 1, 1)))
    x = torch.lerp(torch.tensor(real.numpy()), torch.tensor(fake.numpy()), t).requires_grad_()
    (slope,) = torch.autograd.grad(theirs(x).sum(), x, create_graph=True)
    ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean().backward()
    expected = {name: p.grad for name, p in theirs.named_parameters()}
    for name, p in net.named_parameters():
        if expected[name] is None:
            assert p.grad is None
        else:
            np.testing.assert_allclose(p.grad.numpy(), expected[name], rtol=1e-8, atol=1e-11)


def test_a_slope_of_zero_has_a_finite_penalty():
    net = nn.Linear(3, 1)
    net.weight.data[...] = 0
    loss = gradient_penalty(net, tz.tensor(np.ones((2, 3))), tz.tensor(np.zeros((2, 3))))
    loss.backward()
    assert loss.item() == pytest.approx(1, abs=1e-5)
    assert np.isfinite(net.weight.grad.numpy()).all()


def test_the_penalty_holds_the_slope_at_one():
    """A critic alone, of samples whose clouds lie 2 apart: Wasserstein's distance, at a slope of 1.

    A slope s gains 2 s and pays 10 (s - 1)^2: the best is 1.1.
    """
    tz.seed(0)
    rng = np.random.default_rng(0)
    net = nn.Sequential(nn.Linear(2, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
    optimizer = optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(300):
        real = tz.tensor(rng.standard_normal((32, 2)) * 0.1 + [2.0, 0.0], dtype="float32")
        fake = tz.tensor(rng.standard_normal((32, 2)) * 0.1, dtype="float32")
        optimizer.zero_grad()
        loss = discriminator_loss(net(real), net(fake), "wasserstein")
        (loss + 10 * gradient_penalty(net, real, fake, rng)).backward()
        optimizer.step()
    assert -loss.item() == pytest.approx(2 * 1.1, rel=0.05)


def test_a_generator_trains_against_a_critic_with_the_penalty():
    """Images whose left half is bright: after a few steps those of the generator are, too."""
    tz.seed(0)
    rng = np.random.default_rng(0)
    bright = np.where(np.arange(6) < 3, 0.8, -0.8)
    d, g = critic(), nn.Sequential(nn.Linear(4, 36), nn.Tanh())
    opt_d, opt_g = (optim.Adam(net.parameters(), lr=0.01, betas=(0.5, 0.9)) for net in (d, g))

    def make():
        return g(tz.tensor(rng.standard_normal((16, 4)), dtype="float32")).reshape(16, 1, 6, 6)

    def gap():
        return np.abs(make().numpy().mean(axis=0) - bright).mean()

    before = gap()
    for step in range(150):
        real = bright + 0.1 * rng.standard_normal((16, 1, 6, 6))
        real, fake = tz.tensor(real, dtype="float32"), make().detach()
        opt_d.zero_grad()
        loss = discriminator_loss(d(real), d(fake), "wasserstein")
        (loss + 10 * gradient_penalty(d, real, fake, rng)).backward()
        opt_d.step()
        if step % 2:
            opt_g.zero_grad()
            generator_loss(d(make()), "wasserstein").backward()
            opt_g.step()
    assert before > 0.7 and gap() < 0.6


def test_what_the_penalty_cannot_use():
    x = tz.tensor(np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"of one shape; got \(4, 3\) and \(4, 2\)"):
        gradient_penalty(nn.Linear(3, 1), x, x[:, :2])
    with pytest.raises(ValueError, match=r"must give 4 samples a score each; got \(4, 2\)"):
        gradient_penalty(nn.Linear(3, 2), x, x)
