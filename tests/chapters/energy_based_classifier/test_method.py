"""The method of the chapter on JEM, each function against an independent route."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn
from torch.nn import functional as F

from iclrtut.chapters.energy_based_classifier import CHAPTER, FOREIGN, attacks
from iclrtut.chapters.energy_based_classifier import method as jem
from iclrtut.errors import BadRequest

seeds = st.integers(0, 2**31 - 1)
few = settings(max_examples=15, deadline=None)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def toy(seed=0, inputs=2, classes=4):
    """A small smooth network in double precision."""
    torch.manual_seed(seed)
    layers = (nn.Linear(inputs, 12), nn.Tanh(), nn.Linear(12, classes))
    return nn.Sequential(*layers).double()


def points(n=7, inputs=2, seed=0):
    return torch.randn(n, inputs, generator=rng(seed), dtype=torch.float64)


class Quadratic(nn.Module):
    """Two equal logits whose LSE is -x'Ax/2 + log 2, for a diagonal A."""

    def __init__(self, *diagonal):
        super().__init__()
        a = torch.tensor(diagonal, dtype=torch.float64)
        self.a = nn.Parameter(a)

    def forward(self, x):
        height = -(self.a * x.square()).sum(1) / 2
        return torch.stack([height, height], 1)


def snapshot(model):
    return [(p.requires_grad, p.grad, p.detach().clone()) for p in model.parameters()]


def untouched(model, before):
    for p, (flag, grad, value) in zip(model.parameters(), before, strict=True):
        assert p.requires_grad == flag
        assert p.grad is grad
        assert torch.equal(p, value)


# Energy


def test_log_density_is_the_log_of_the_sum():
    logits = points(40, 4)
    by_sum = torch.tensor([math.log(sum(map(math.exp, row))) for row in logits])
    assert torch.allclose(jem.log_density(logits), by_sum.double(), atol=1e-12)
    assert torch.equal(jem.energy(logits), -jem.log_density(logits))


@few
@given(seeds, st.floats(-50, 50))
def test_a_constant_moves_the_density_and_not_the_classes(seed, c):
    logits = points(5, 3, seed)
    moved = logits + c
    assert torch.allclose(jem.log_density(moved) - c, jem.log_density(logits))
    assert torch.allclose(moved.softmax(1), logits.softmax(1))


def test_energies_stand_far_from_overflow():
    assert jem.energy(torch.tensor([1000.0, 1000.0])) == pytest.approx(-1000.69, 1e-4)
    assert jem.log_density(torch.full((3, 2, 5), 0.0)).shape == (3, 2)


# Gradients in the input


@few
@given(seeds, st.integers(1, 6), st.integers(1, 5))
def test_input_gradient_against_finite_differences(seed, n, inputs):
    model, x = toy(seed % 99, inputs), points(n, inputs, seed)
    found, h = jem.input_gradient(model, x), 1e-5
    with torch.no_grad():
        for i in range(inputs):
            step = h * torch.eye(inputs, dtype=torch.float64)[i]
            up, down = (jem.log_density(model(x + s)) for s in (step, -step))
            assert torch.allclose(found[:, i], (up - down) / (2 * h), atol=1e-8)


def test_input_gradient_weighs_the_jacobian_by_the_classes():
    model, x = toy(), points(5)
    jacobian = torch.stack([torch.autograd.functional.jacobian(model, z) for z in x])
    expected = torch.einsum("nc,ncd->nd", model(x).softmax(1), jacobian)
    assert torch.allclose(jem.input_gradient(model, x), expected, atol=1e-12)
    target = torch.tensor([0, 1, 2, 3, 0])
    chosen = jacobian[torch.arange(5), target]
    assert torch.allclose(jem.input_gradient(model, x, target), chosen, atol=1e-12)


@pytest.mark.parametrize("call", ["input_gradient", "mass_score", "lambda_max", "pgd"])
def test_weights_flags_and_gradients_are_left_alone(call):
    model, x = toy(), points()
    model[0].weight.requires_grad_(False)
    model[2].bias.grad = torch.ones(4, dtype=torch.float64)
    before = snapshot(model)
    more = (torch.zeros(7).long(), 0.1, 2, "linf", rng()) if call == "pgd" else ()
    with torch.no_grad():
        getattr(jem, call)(model, x, *more)
    untouched(model, before)
    assert not x.requires_grad


def test_mass_score_of_a_gaussian():
    x = points(9, 3)
    found = jem.mass_score(Quadratic(4.0, 4.0, 4.0), x)
    assert torch.allclose(found, -4 * x.square().sum(1).sqrt())
    images = torch.rand(3, 1, 8, 8, generator=rng())
    assert jem.mass_score(jem.digits_net(0), images).shape == (3,)


# The sampler


def transcription(model, x, steps, alpha, sigma, generator, target=None):
    """What a careful reader writes."""
    for _ in range(steps):
        x = x.detach().requires_grad_()
        logits = model(x)
        if target is None:
            logits.logsumexp(1).sum().backward()
        else:
            logits[torch.arange(len(x)), target].sum().backward()
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        x = x.detach() + alpha * x.grad + sigma * noise
    return x


@few
@given(seeds, st.integers(0, 6), st.floats(1e-3, 1), st.floats(0, 1), st.booleans())
def test_langevin_is_the_transcription(seed, steps, alpha, sigma, wanted):
    model, x = toy(seed % 99), points(20, 2, seed)
    target = torch.arange(20) % 4 if wanted else None
    how = (steps, alpha, sigma)
    found = jem.langevin(model, x, *how, rng(seed), target)
    slow = transcription(copy.deepcopy(model), x, *how, rng(seed), target)
    assert torch.allclose(found, slow, atol=1e-10)


def test_langevin_on_images_is_the_transcription():
    model = jem.digits_net(3)
    x = torch.rand(6, 1, 8, 8, generator=rng()) * 2 - 1
    found = jem.langevin(model, x, 5, 1.0, 0.01, rng(1))
    slow = transcription(copy.deepcopy(model), x, 5, 1.0, 0.01, rng(1))
    assert torch.allclose(found, slow, atol=1e-5)


def test_langevin_leaves_all_else_alone():
    model, x = toy(), points()
    model[2].weight.requires_grad_(False)
    model[0].bias.grad = torch.ones(12, dtype=torch.float64)
    before, start = snapshot(model), x.clone()
    with torch.no_grad():
        end = jem.langevin(model, x, 3, 0.1, 0.1, rng())
    untouched(model, before)
    assert torch.equal(x, start)
    assert not end.requires_grad
    still = jem.langevin(model, x, 0, 0.1, 0.1, rng())
    assert torch.equal(still, x)
    still += 1
    assert torch.equal(x, start)


def test_langevin_restores_the_flags_when_the_network_fails():
    class Failing(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2).double()

        def forward(self, x):
            raise KeyError("no")

    model = Failing()
    with pytest.raises(KeyError):
        jem.langevin(model, points(), 3, 0.1, 0.1, rng())
    assert all(p.requires_grad for p in model.parameters())


def test_without_noise_langevin_contracts_a_well():
    x = points(5)
    end = jem.langevin(Quadratic(2.0, 0.5), x, 10, 0.3, 0.0, rng())
    factors = torch.tensor([(1 - 0.6) ** 10, (1 - 0.15) ** 10])
    assert torch.allclose(end, x * factors, atol=1e-12)


@pytest.mark.parametrize(("alpha", "sigma"), [(0.5, 1.0), (0.1, 0.3), (1.6, 0.5)])
def test_langevin_has_the_stationary_variance_of_9a(alpha, sigma):
    s, n = 1.3, 100_000
    x = torch.randn(n, 1, generator=rng(), dtype=torch.float64)
    end = jem.langevin(Quadratic(1 / s**2), x, 150, alpha, sigma, rng(1))
    a, b = 2 * alpha, sigma**2
    exact = b * s**2 / (a * (1 - a / (4 * s**2)))
    assert end.var().item() == pytest.approx(exact, rel=6 * math.sqrt(2 / n))


def test_past_the_limit_of_9a_chains_explode_and_a_box_holds_them():
    start = points(5)
    curvature = jem.lambda_max(Quadratic(1.0, 1.0), start)[0].item()
    runs = [
        jem.langevin(Quadratic(1.0, 1.0), start, 200, alpha, 0.0, rng())
        for alpha in (1.9 / curvature, 2.1 / curvature)
    ]
    assert runs[0].abs().max() < 1e-3 < 1e3 < runs[1].abs().max()
    held = jem.langevin(
        Quadratic(1.0, 1.0), start, 200, 2.1, 0.1, rng(), clamp=(-1.5, 1.0)
    )
    assert held.min() >= -1.5
    assert held.max() <= 1.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": -1.0}, "alpha"),
        ({"alpha": math.nan}, "alpha"),
        ({"alpha": math.inf}, "alpha"),
        ({"sigma": -0.1}, "sigma"),
        ({"sigma": math.nan}, "sigma"),
        ({"steps": -1}, "steps"),
        ({"x": torch.zeros(2, 2)}, "float32"),
        ({"x": torch.zeros(2, 2, dtype=torch.int64)}, "int64"),
        ({"x": torch.full((2, 2), math.nan, dtype=torch.float64)}, "NaN"),
        ({"x": torch.full((2, 2), math.inf, dtype=torch.float64)}, "NaN"),
    ],
)
def test_langevin_refuses(change, words):
    given = {"x": points(), "steps": 1, "alpha": 0.1, "sigma": 0.1, **change}
    with pytest.raises(BadRequest, match=words) as error:
        jem.langevin(toy(), generator=rng(), **given)
    assert str(error.value).count(". ") == 0


def test_an_empty_batch_stays_empty():
    x = torch.zeros(0, 1, 8, 8)
    assert jem.langevin(jem.digits_net(0), x, 2, 1.0, 0.1, rng()).shape == x.shape
    assert jem.mass_score(jem.digits_net(0), x).shape == (0,)


# The buffer


def buffer(size=50, shape=(2,), restart=0.05, seed=0):
    return jem.ReplayBuffer(size, shape, restart, rng(seed))


def test_the_buffer_starts_and_restarts_uniform():
    kept = buffer(20_000, (2,), 1.0)
    fresh, _ = kept.draw(20_000)
    for z in (kept.slots, fresh):
        assert stats.kstest(z.flatten().numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-6
    assert not torch.equal(fresh, kept.slots)


def test_without_restart_the_buffer_gives_what_it_keeps():
    kept = buffer(restart=0.0)
    x, slots = kept.draw(1000)
    assert torch.equal(x, kept.slots[slots])
    expected = 50 * (1 - (1 - 1 / 50) ** 1000)
    assert len(slots.unique()) == pytest.approx(expected, abs=1)
    rows = set(map(tuple, kept.slots.tolist()))
    sampled = list(map(tuple, kept.sample(100).tolist()))
    assert set(sampled) <= rows
    assert 30 < len(set(sampled)) < 50


def test_drawn_chains_restart_whole_and_with_the_given_chance():
    kept = buffer(10, (3, 4), 0.3)
    x, slots = kept.draw(20_000)
    changed = (x != kept.slots[slots]).flatten(1)
    assert torch.equal(changed.any(1), changed.all(1))
    share = changed.any(1).double().mean().item()
    assert share == pytest.approx(0.3, abs=6 * math.sqrt(0.21 / 20_000))


@few
@given(seeds, st.integers(1, 5), st.integers(1, 40))
def test_of_a_slot_put_twice_the_later_stays(seed, size, n):
    kept, chains = buffer(size, (2,), 0.05, seed), torch.rand(n, 2)
    slots = torch.randint(size, (n,), generator=rng(seed))
    expected = kept.slots.clone()
    for slot, chain in zip(slots, chains, strict=True):
        expected[slot] = chain
    kept.put(slots, chains.requires_grad_())
    assert torch.equal(kept.slots, expected)
    assert not kept.slots.requires_grad


def test_the_age_of_chains_follows_11():
    size, batch, restart, t = 40, 16, 0.05, 60
    ages = []
    for seed in range(400):
        kept = buffer(size, (1,), restart, seed)
        kept.slots.zero_()
        for _ in range(t):
            x, slots = kept.draw(batch)
            fresh = x.frac() != 0
            kept.put(slots, torch.where(fresh, 0.0, x) + 1)
        ages.append(kept.slots.mean().item())
    q = 1 - (1 - 1 / size) ** batch
    # Of a slot drawn twice in a batch one chain is kept: a draw ages it by one.
    exact = (1 - (1 - restart * q) ** t) / restart
    error = np.std(ages, ddof=1) / math.sqrt(len(ages))
    assert np.mean(ages) == pytest.approx(exact, abs=5 * error)


def test_a_buffer_comes_back_from_its_state():
    kept, other = buffer(seed=1), buffer(seed=2)
    other.load_state_dict(copy.deepcopy(kept.state_dict()))
    assert torch.equal(kept.slots, other.slots)
    other.slots.zero_()
    assert kept.slots.abs().max() > 0


@pytest.mark.parametrize(("size", "restart"), [(0, 0.1), (3, -0.1), (3, 1.1)])
def test_a_buffer_refuses(size, restart):
    with pytest.raises(BadRequest, match="slot"):
        buffer(size, (2,), restart)


# The loss


@few
@given(seeds, st.integers(1, 6), st.integers(1, 6), st.sampled_from([0, 1, 5]))
def test_jem_loss_against_one_term_after_the_other(seed, n, m, k):
    model, x, samples = toy(seed % 99), points(n, 2, seed), points(m, 2, seed + 1)
    x_energy = points(k, 2, seed + 2) if k else None
    y = torch.arange(n) % 4
    loss, seen = jem.jem_loss(model, x, y, samples, x_energy)
    up = torch.stack([model(z).exp().sum().log() for z in samples]).mean()
    data = x if x_energy is None else x_energy
    down = torch.stack([model(z).exp().sum().log() for z in data]).mean()
    each = [model(z).softmax(0)[c].log() for z, c in zip(x, y, strict=True)]
    expected = up - down - torch.stack(each).mean()
    assert torch.allclose(loss, expected)
    for ours, theirs in zip(
        torch.autograd.grad(loss, list(model.parameters())),
        torch.autograd.grad(expected, list(model.parameters())),
        strict=True,
    ):
        assert torch.allclose(ours, theirs, atol=1e-12)
    assert seen["gap"] == pytest.approx((down - up).item())
    assert seen["lse_data"] == pytest.approx(down.item())
    assert seen["lse_samples"] == pytest.approx(up.item())


def test_no_gradient_flows_into_samples_and_none_into_the_level():
    model, x = toy(), points()
    samples = points(seed=3).requires_grad_()
    loss, _ = jem.jem_loss(model, x, torch.zeros(7).long(), samples, points(5))
    loss.backward()
    assert samples.grad is None
    assert abs(model[2].bias.grad.sum().item()) < 1e-12


def test_with_exact_samples_the_loss_climbs_the_likelihood():
    """(7) on 40 points, where Z is a sum: E over all draws is a weighted mean."""
    model, cells = toy(4), points(40, seed=5)
    weights = list(model.parameters())
    logits = model(cells)
    log_p = logits.logsumexp(1) - logits.flatten().logsumexp(0)
    likelihood = log_p[:3].mean() + logits[:3].log_softmax(1)[:, 1].mean()
    exact = torch.autograd.grad(-likelihood, weights, retain_graph=True)
    y = torch.ones(3, dtype=torch.int64)
    shares = log_p.exp().detach()
    parts = []
    for cell, share in zip(cells, shares, strict=True):
        loss, _ = jem.jem_loss(model, cells[:3], y, cell[None])
        parts.append([share * g for g in torch.autograd.grad(loss, weights)])
    for found, expected in zip(zip(*parts, strict=True), exact, strict=True):
        assert torch.allclose(sum(found), expected, atol=1e-12)


@pytest.mark.parametrize("n, labels, m, k", [(0, 0, 3, 2), (3, 2, 3, 2), (3, 3, 0, 2)])
def test_jem_loss_refuses(n, labels, m, k):
    y = torch.zeros(labels, dtype=torch.int64)
    with pytest.raises(BadRequest, match="batch"):
        jem.jem_loss(toy(), points(n), y, points(m), points(k))


def test_jem_loss_refuses_an_empty_second_batch():
    with pytest.raises(BadRequest, match="batch"):
        jem.jem_loss(toy(), points(2), torch.zeros(2).long(), points(2), points(0))


# Curvature


@few
@given(seeds)
def test_lambda_max_against_the_whole_hessian(seed):
    model, x = toy(seed % 99, 3), points(4, 3, seed)
    found = jem.lambda_max(model, x, steps=400)
    for z, value in zip(x, found, strict=True):
        hessian = torch.autograd.functional.hessian(lambda v: -model(v).logsumexp(0), z)
        largest = torch.linalg.eigvalsh(hessian)[-1]
        assert value.item() == pytest.approx(largest.item(), abs=2e-3)


def test_lambda_max_is_the_largest_and_not_the_strongest():
    found = jem.lambda_max(Quadratic(-5.0, 2.0, 1.0), points(3, 3), steps=100)
    assert torch.allclose(found, torch.full((3,), 2.0).double(), atol=1e-6)


# Networks


def test_a_network_is_its_seed_and_leaves_the_global_one():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, same, other = (jem.digits_net(seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first[0].weight, same[0].weight)
    assert not torch.equal(first[0].weight, other[0].weight)


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (jem.digits_net(0), (1, 8, 8)),
        (jem.mlp(0, classes=10), (2,)),
        (jem.wide_resnet(10, 1, 0), (3, 32, 32)),
        (jem.wide_resnet(10, 1, 0, bf16=True), (3, 32, 32)),
    ],
)
def test_networks_take_their_shape_and_no_other(net, shape):
    x = torch.rand(2, *shape, generator=rng())
    logits = net(x)
    assert logits.shape == (2, 10)
    assert logits.dtype == torch.float32
    assert torch.allclose(net(x[:1]), logits[:1], atol=1e-2)  # no norm over the batch
    for wrong in (torch.rand(2, 5), torch.rand(2, 1, 9, 9), torch.rand(*shape)):
        with pytest.raises(BadRequest, match="shape"):
            net(wrong)


def test_no_network_normalises():
    for net in (jem.digits_net(0), jem.wide_resnet(16, 1, 0)):
        assert not any("Norm" in type(module).__name__ for module in net.modules())


def test_features_are_the_last_convolution_averaged():
    net = jem.digits_net(0)
    x = torch.rand(4, 1, 8, 8, generator=rng())
    hidden = F.silu(net[2](F.silu(net[0](x))))
    by_hand = F.silu(net[4](hidden)).mean((2, 3))
    assert torch.allclose(net.features(x), by_hand, atol=1e-6)
    wide = jem.wide_resnet(10, 1, 0)
    assert wide.features(torch.rand(2, 3, 32, 32)).shape == (2, 64)


def test_the_wide_resnet_has_the_size_of_the_papers():
    with torch.device("meta"):
        net = jem.wide_resnet(28, 10, 0)
    weights = sum(p.numel() for p in net.parameters() if p.ndim > 1)
    assert weights == pytest.approx(36.5e6, rel=0.005)
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert len([m for m in convolutions if m.kernel_size == (3, 3)]) == 25
    strides = [m.stride[0] for m in convolutions if m.kernel_size == (3, 3)]
    assert strides.count(2) == 2


def test_residual_blocks_start_as_the_skip():
    net = jem.wide_resnet(16, 1, 0)
    block = net[2]
    x = torch.rand(2, 16, 8, 8, generator=rng())
    assert torch.allclose(block(x), x + block.second.bias.view(1, -1, 1, 1))


@pytest.mark.parametrize("depth", [4, 12, 27, 0])
def test_the_wide_resnet_refuses_other_depths(depth):
    with pytest.raises(BadRequest, match="depth"):
        jem.wide_resnet(depth, 1, 0)


# Attacks


@few
@given(seeds, st.floats(0.01, 3), st.sampled_from(["linf", "l2"]))
def test_projection_is_the_nearest_point_of_the_ball(seed, radius, norm):
    v, z = points(6, 5, seed), points(6, 5, seed + 1)
    order = math.inf if norm == "linf" else 2
    z = z * (radius * torch.rand(6, 1) / z.norm(order, dim=1, keepdim=True))
    near = jem.project(v, radius, norm)
    assert (near.norm(order, dim=1) <= radius * (1 + 1e-9)).all()
    assert (((z - near) * (v - near)).sum(1) <= 1e-9).all()
    assert torch.allclose(jem.project(near, radius, norm), near)


@few
@given(seeds, st.sampled_from(["linf", "l2"]))
def test_no_unit_direction_is_steeper(seed, norm):
    g, u = points(6, 5, seed), points(6, 5, seed + 1)
    order, dual = (math.inf, 1) if norm == "linf" else (2, 2)
    best = jem.steepest(g, norm)
    assert torch.allclose(best.norm(order, dim=1), torch.ones(6).double())
    assert torch.allclose((best * g).sum(1), g.norm(dual, dim=1))
    u = u / u.norm(order, dim=1, keepdim=True)
    assert ((u * g).sum(1) <= (best * g).sum(1) + 1e-12).all()


def test_projection_of_images_and_of_nothing():
    delta = torch.ones(2, 3, 4, 4)
    delta[1] = 0
    near = jem.project(delta, 2.0, "l2")
    assert near[0].norm().item() == pytest.approx(2.0)
    assert torch.equal(near[1], delta[1])
    with pytest.raises(BadRequest, match="l1"):
        jem.project(delta, 1.0, "l1")


@pytest.mark.parametrize(("norm", "order"), [("linf", math.inf), ("l2", 2)])
def test_pgd_finds_the_worst_case_of_a_linear_classifier(norm, order):
    w = torch.tensor([[1.0, -2.0, 0.5], [-0.5, 1.0, 2.0]], dtype=torch.float64)
    model = nn.Linear(3, 2, bias=False).double()
    model.weight.data = w
    x, y = 0.1 * points(8, 3), torch.arange(8) % 2
    hit = jem.pgd(model, x, y, 0.2, 20, norm, rng())
    away = (w[1] - w[0]) * (1 - 2 * y[:, None])
    expected = x + 0.2 * jem.steepest(away, norm)
    losses = [F.cross_entropy(model(z), y, reduction="none") for z in (hit, expected)]
    assert (losses[0] <= losses[1] + 1e-9).all()
    assert torch.allclose(*losses, atol=0.02)
    assert ((hit - x).norm(order, dim=1) <= 0.2 + 1e-9).all()


@few
@given(seeds, st.sampled_from(["linf", "l2"]), st.floats(0, 1))
def test_pgd_stays_in_ball_and_box_and_never_helps(seed, norm, radius):
    model = jem.mlp(seed % 99)
    x = torch.rand(8, 2, generator=rng(seed)) * 2 - 1
    y = torch.arange(8) % 2
    hit = jem.pgd(model, x, y, radius, 5, norm, rng(seed))
    order = math.inf if norm == "linf" else 2
    assert ((hit - x).norm(order, dim=1) <= radius + 1e-5).all()
    assert hit.abs().max() <= 1
    if radius == 0:
        assert torch.allclose(hit, x)
    more = jem.pgd(model, x, y, radius, 0, norm, rng(seed))
    losses = [F.cross_entropy(model(z), y, reduction="none") for z in (more, hit)]
    assert (losses[0] <= losses[1] + 1e-6).all()  # the strongest point met is kept


def test_pgd_goes_on_from_a_given_start():
    model, x, y = jem.mlp(3), torch.zeros(4, 2), torch.arange(4) % 2
    start = torch.tensor([[0.1, -0.2], [0.3, 0.0], [-0.05, 0.4], [9.0, -9.0]])
    hit = jem.pgd(model, x, y, 0.2, 0, "linf", rng(), None, start)
    assert torch.allclose(hit, start.clamp(-0.2, 0.2))


def test_attacks_on_a_refinement_go_on_from_the_replayed_one(monkeypatch):
    seen = []

    def spy(model, x, y, *given):
        seen.append(given)
        return x + 0.1

    monkeypatch.setattr(attacks, "pgd", spy)
    x, y = points(5), torch.zeros(5).long()
    attacks.attack_refined(toy(), x, y, 0.1, 1, HOW, rng(), "l2")
    assert [len(given) for given in seen] == [4, 6, 6]
    assert all(given[2] == "l2" for given in seen)
    assert all(torch.equal(given[5], x + 0.1) for given in seen[1:])


def test_pgd_refuses():
    x, y = points(), torch.zeros(7).long()
    with pytest.raises(BadRequest, match="radius"):
        jem.pgd(toy(), x, y, -1.0, 2, "linf", rng())
    with pytest.raises(BadRequest, match="norm"):
        jem.pgd(toy(), x, y, 1.0, 2, "l0", rng())


HOW = jem.Refinement(3, 0.1, 0.05, 4)


def test_refinement_averages_the_logits_of_its_chains():
    model, x, generator = toy(), points(), rng(5)
    found = jem.refine(model, x, HOW, rng(5))
    ends = transcription(copy.deepcopy(model), x.repeat(4, 1), 3, 0.1, 0.05, generator)
    each = [model(ends[7 * k : 7 * k + 7]) for k in range(4)]
    assert torch.allclose(found, sum(each) / 4, atol=1e-12)
    assert not found.requires_grad


def test_unrolled_walks_as_the_sampler_and_knows_its_derivative():
    model, x = toy(), points(3)
    walk = attacks.unrolled(model, x.requires_grad_(), HOW, rng(2))
    assert torch.allclose(walk, jem.langevin(model, x, 3, 0.1, 0.05, rng(2)))
    slope = torch.autograd.grad(walk.square().sum(), x)[0]
    for i in range(2):
        step = 1e-5 * torch.eye(2, dtype=torch.float64)[i]
        ends = [jem.langevin(model, x + s, 3, 0.1, 0.05, rng(2)) for s in (step, -step)]
        by_hand = (ends[0].square() - ends[1].square()).sum(1) / 2e-5
        assert torch.allclose(slope[:, i], by_hand, atol=1e-6)


def test_the_three_attacks_on_a_refinement():
    model = jem.mlp(1)
    x = torch.rand(30, 2, generator=rng()) * 2 - 1
    y = model(x).argmax(1)
    right = attacks.attack_refined(model, x, y, 0.05, 4, HOW, rng())
    assert list(right) == ["replayed", "straight", "unrolled", "worst"]
    three = torch.stack([right[k] for k in ("replayed", "straight", "unrolled")])
    assert torch.equal(right["worst"], three.all(0))
    assert right["worst"].any()
    lost = attacks.attack_refined(model, x, 1 - y, 0.0, 1, HOW, rng())
    assert not lost["worst"].all()
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_attacks_through_the_sampler_have_their_own_gradients():
    """Without noise: straight is the gradient at the end, unrolled that of the walk."""
    model, x = toy(2), points(6)
    y, how = torch.zeros(6).long(), jem.Refinement(4, 0.3, 0.0, 1)
    seen = {}

    def spy(*given):
        attacked = given[7] if len(given) > 7 else None
        z = x.clone().requires_grad_()
        if attacked is not None:
            loss = F.cross_entropy(attacked(z), y, reduction="sum")
            seen[len(seen)] = torch.autograd.grad(loss, z)[0]
        return x

    original, attacks.pgd = attacks.pgd, spy
    try:
        attacks.attack_refined(model, x, y, 0.1, 1, how, rng())
    finally:
        attacks.pgd = original
    end = jem.langevin(model, x, 4, 0.3, 0.0, rng()).requires_grad_()
    loss = F.cross_entropy(model(end), y, reduction="sum")
    assert torch.allclose(seen[0], torch.autograd.grad(loss, end)[0])

    def after_walk(z):
        return F.cross_entropy(
            model(jem.langevin(model, z, 4, 0.3, 0.0, rng())), y, reduction="none"
        )

    for i in range(2):
        step = 1e-5 * torch.eye(2, dtype=torch.float64)[i]
        by_hand = (after_walk(x + step) - after_walk(x - step)) / 2e-5
        assert torch.allclose(seen[1][:, i], by_hand, atol=1e-6)


# The declaration


def test_claims_name_the_five_benefits_and_what_stands_beside():
    ids = [claim.id for claim in CHAPTER.claims]
    assert len(ids) == len(set(ids))
    foreign = [f"ood_{s}_{n}" for s in ("density", "mass") for n in FOREIGN]
    others = [id for id in ids if id not in foreign]
    assert others == [
        "accuracy",
        "generates_buffer",
        "generates_noise",
        "recognised",
        "calibrated",
        "nll_raw",
        "nll_tempered",
        "robust",
        "robust_refined",
        "overhead",
    ]
    assert ids[7:21] == foreign
    rules = {claim.id: str(claim.rule) for claim in CHAPTER.claims}
    assert rules["accuracy"].endswith("below 3")
    assert rules["overhead"].endswith("below 2")
    assert rules["recognised"].endswith("above 0.8")
    assert all(rules[id].endswith("below 0") for id in ids[1:3])
    assert all(rules[id].endswith("above 0") for id in ids if id[:3] in ("ood", "nll"))
