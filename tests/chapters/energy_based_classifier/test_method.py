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

from iclrtut.chapters.energy_based_classifier import method
from iclrtut.errors import BadRequest

seeds = st.integers(0, 2**31 - 1)
few = settings(max_examples=15)


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


# Energy


def test_log_density_is_the_log_of_the_sum():
    logits = points(40, 4)
    by_sum = torch.tensor([math.log(sum(map(math.exp, row))) for row in logits])
    assert torch.allclose(method.log_density(logits), by_sum.double(), atol=1e-12)
    assert torch.equal(method.energy(logits), -method.log_density(logits))


@few
@given(seeds, st.floats(-50, 50))
def test_a_constant_moves_the_density_and_not_the_classes(seed, c):
    logits = points(5, 3, seed)
    moved = logits + c
    assert torch.allclose(method.log_density(moved) - c, method.log_density(logits))
    assert torch.allclose(moved.softmax(1), logits.softmax(1))


def test_energies_stand_far_from_overflow():
    assert method.energy(torch.tensor([1000.0, 1000.0])) == pytest.approx(
        -1000.69, 1e-4
    )


# Gradients in the input


@few
@given(seeds, st.integers(1, 6), st.integers(1, 5))
def test_input_gradient_against_finite_differences(seed, n, inputs):
    model, x = toy(seed % 99, inputs), points(n, inputs, seed)
    gradient, h = method.input_gradient(model, x), 1e-5
    with torch.no_grad():
        for i in range(inputs):
            step = h * torch.eye(inputs, dtype=torch.float64)[i]
            up, down = (method.log_density(model(x + s)) for s in (step, -step))
            assert torch.allclose(gradient[:, i], (up - down) / (2 * h), atol=1e-8)


def test_input_gradient_weighs_the_jacobian_by_the_classes():
    model, x = toy(), points(5)
    jacobian = torch.stack([torch.autograd.functional.jacobian(model, z) for z in x])
    expected = torch.einsum("nc,ncd->nd", model(x).softmax(1), jacobian)
    assert torch.allclose(method.input_gradient(model, x), expected, atol=1e-12)
    target = torch.tensor([0, 1, 2, 3, 0])
    chosen = jacobian[torch.arange(5), target]
    assert torch.allclose(method.input_gradient(model, x, target), chosen, atol=1e-12)


CALLS = {
    "input_gradient": {},
    "mass_score": {},
    "lambda_max": {},
    "langevin": {"steps": 3, "alpha": 0.1, "sigma": 0.1, "generator": rng()},
    "pgd": {
        "y": torch.zeros(7).long(),
        "radius": 0.1,
        "steps": 2,
        "norm": "linf",
        "generator": rng(),
    },
}


@pytest.mark.parametrize("name", CALLS)
def test_inputs_weights_and_their_gradients_are_left_alone(name):
    model, x = toy(), points()
    model[0].weight.requires_grad_(False)
    model[2].bias.grad = torch.ones(4, dtype=torch.float64)
    before = [(p.requires_grad, p.grad, p.detach().clone()) for p in model.parameters()]
    start = x.clone()
    with torch.no_grad():
        result = getattr(method, name)(model, x, **CALLS[name])
    assert not result.requires_grad
    assert torch.equal(x, start) and not x.requires_grad
    for p, (flag, gradient, value) in zip(model.parameters(), before, strict=True):
        assert p.requires_grad == flag and p.grad is gradient and torch.equal(p, value)


def test_mass_score_of_a_gaussian():
    x = points(9, 3)
    score = method.mass_score(Quadratic(4.0, 4.0, 4.0), x)
    assert torch.allclose(score, -4 * x.square().sum(1).sqrt())
    images = torch.rand(3, 1, 8, 8, generator=rng())
    assert method.mass_score(method.digits_net(0), images).shape == (3,)


# The sampler


def transcription(model, x, steps, alpha, sigma, generator, target=None):
    """The sampler as a plain loop with `backward()`."""
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
    end = method.langevin(model, x, steps, alpha, sigma, rng(seed), target)
    slow = transcription(
        copy.deepcopy(model), x, steps, alpha, sigma, rng(seed), target
    )
    assert torch.allclose(end, slow, atol=1e-10)


def test_no_steps_give_a_copy_of_the_start():
    x = points()
    end = method.langevin(toy(), x, 0, 0.1, 0.1, rng())
    assert torch.equal(end, x)
    end += 1
    assert not torch.equal(end, x)


def test_langevin_restores_the_flags_when_the_network_fails():
    class Failing(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2).double()

        def forward(self, x):
            raise KeyError("no")

    model = Failing()
    with pytest.raises(KeyError):
        method.langevin(model, points(), 3, 0.1, 0.1, rng())
    assert all(p.requires_grad for p in model.parameters())


def test_without_noise_langevin_contracts_a_well():
    x = points(5)
    end = method.langevin(Quadratic(2.0, 0.5), x, 10, 0.3, 0.0, rng())
    factors = torch.tensor([(1 - 0.6) ** 10, (1 - 0.15) ** 10])
    assert torch.allclose(end, x * factors, atol=1e-12)


@pytest.mark.parametrize(("alpha", "sigma"), [(0.5, 1.0), (0.1, 0.3), (1.6, 0.5)])
def test_langevin_has_the_stationary_variance_of_9a(alpha, sigma):
    s, n = 1.3, 20_000
    x = torch.randn(n, 1, generator=rng(), dtype=torch.float64)
    end = method.langevin(Quadratic(1 / s**2), x, 150, alpha, sigma, rng(1))
    a, b = 2 * alpha, sigma**2
    exact = b * s**2 / (a * (1 - a / (4 * s**2)))
    assert end.var().item() == pytest.approx(exact, rel=6 * math.sqrt(2 / n))


def test_past_the_limit_of_9a_chains_explode_and_a_box_holds_them():
    start = points(5)
    curvature = method.lambda_max(Quadratic(1.0, 1.0), start)[0].item()
    ends = [
        method.langevin(Quadratic(1.0, 1.0), start, 200, alpha, 0.0, rng())
        for alpha in (1.9 / curvature, 2.1 / curvature)
    ]
    assert ends[0].abs().max() < 1e-3 < 1e3 < ends[1].abs().max()
    held = method.langevin(
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
    arguments = {"x": points(), "steps": 1, "alpha": 0.1, "sigma": 0.1, **change}
    with pytest.raises(BadRequest, match=words) as error:
        method.langevin(toy(), generator=rng(), **arguments)
    assert str(error.value).count(". ") == 0


def test_an_empty_batch_stays_empty():
    x = torch.zeros(0, 1, 8, 8)
    assert method.langevin(method.digits_net(0), x, 2, 1.0, 0.1, rng()).shape == x.shape
    assert method.mass_score(method.digits_net(0), x).shape == (0,)


# The buffer


def make_buffer(size=50, shape=(2,), restart=0.05, seed=0):
    return method.ReplayBuffer(size, shape, restart, rng(seed))


def test_the_buffer_starts_and_restarts_uniform():
    buffer = make_buffer(20_000, (2,), 1.0)
    fresh, _ = buffer.draw(20_000)
    for z in (buffer.slots, fresh):
        assert stats.kstest(z.flatten().numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-6
    assert not torch.equal(fresh, buffer.slots)


def test_without_restart_the_buffer_gives_what_it_keeps():
    buffer = make_buffer(restart=0.0)
    x, slots = buffer.draw(1000)
    assert torch.equal(x, buffer.slots[slots])
    expected = 50 * (1 - (1 - 1 / 50) ** 1000)
    assert len(slots.unique()) == pytest.approx(expected, abs=1)
    rows = set(map(tuple, buffer.slots.tolist()))
    sampled = list(map(tuple, buffer.sample(100).tolist()))
    assert set(sampled) <= rows
    assert 30 < len(set(sampled)) < 50


def test_drawn_chains_restart_whole_and_with_the_given_chance():
    buffer = make_buffer(10, (3, 4), 0.3)
    x, slots = buffer.draw(20_000)
    changed = (x != buffer.slots[slots]).flatten(1)
    assert torch.equal(changed.any(1), changed.all(1))
    share = changed.any(1).double().mean().item()
    assert share == pytest.approx(0.3, abs=6 * math.sqrt(0.21 / 20_000))


@pytest.mark.parametrize("size", [10, 50, 64])
def test_chains_of_a_class_come_from_its_own_slots(size):
    buffer, y = make_buffer(size, restart=0.0), torch.arange(2000) % 10
    x, slots = buffer.draw(2000, y)
    assert torch.equal(x, buffer.slots[slots]) and torch.equal(slots % 10, y)
    assert len(slots.unique()) == size // 10 * 10


@few
@given(seeds, st.integers(1, 5), st.integers(1, 40))
def test_of_a_slot_put_twice_the_later_stays(seed, size, n):
    buffer, chains = make_buffer(size, (2,), 0.05, seed), torch.rand(n, 2)
    slots = torch.randint(size, (n,), generator=rng(seed))
    expected = buffer.slots.clone()
    for slot, chain in zip(slots, chains, strict=True):
        expected[slot] = chain
    buffer.put(slots, chains.requires_grad_())
    assert torch.equal(buffer.slots, expected)
    assert not buffer.slots.requires_grad


def test_the_age_of_chains_follows_19():
    size, batch, restart, t = 40, 16, 0.05, 60
    ages = []
    for seed in range(150):
        buffer = make_buffer(size, (1,), restart, seed)
        buffer.slots.zero_()
        for _ in range(t):
            x, slots = buffer.draw(batch)
            fresh = x.frac() != 0
            buffer.put(slots, torch.where(fresh, 0.0, x) + 1)
        ages.append(buffer.slots.mean().item())
    drawn = 1 - (1 - 1 / size) ** batch
    exact = (1 - (1 - restart * drawn) ** t) / restart
    error = np.std(ages, ddof=1) / math.sqrt(len(ages))
    assert np.mean(ages) == pytest.approx(exact, abs=5 * error)


def test_a_buffer_comes_back_from_its_state():
    buffer, other = make_buffer(seed=1), make_buffer(seed=2)
    other.load_state_dict(copy.deepcopy(buffer.state_dict()))
    assert torch.equal(buffer.slots, other.slots)
    other.slots.zero_()
    assert buffer.slots.abs().max() > 0


@pytest.mark.parametrize(("size", "restart"), [(0, 0.1), (3, -0.1), (3, 1.1)])
def test_a_buffer_refuses(size, restart):
    with pytest.raises(BadRequest, match="buffer"):
        make_buffer(size, (2,), restart)


# The loss


@few
@given(seeds, st.integers(1, 6), st.integers(1, 6), st.sampled_from([0, 1, 5]))
def test_jem_loss_against_one_term_after_the_other(seed, n, m, k):
    model, x, samples = toy(seed % 99), points(n, 2, seed), points(m, 2, seed + 1)
    x_energy = points(k, 2, seed + 2) if k else None
    y = torch.arange(n) % 4
    loss, watched = method.jem_loss(model, x, y, samples, x_energy)
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
    assert watched["gap"] == pytest.approx((down - up).item())
    assert watched["lse_data"] == pytest.approx(down.item())
    assert watched["lse_samples"] == pytest.approx(up.item())


def test_no_gradient_flows_into_samples_and_none_into_the_level():
    model, x = toy(), points()
    samples = points(seed=3).requires_grad_()
    loss, _ = method.jem_loss(model, x, torch.zeros(7).long(), samples, points(5))
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
        loss, _ = method.jem_loss(model, cells[:3], y, cell[None])
        parts.append([share * g for g in torch.autograd.grad(loss, weights)])
    for terms, expected in zip(zip(*parts, strict=True), exact, strict=True):
        assert torch.allclose(sum(terms), expected, atol=1e-12)


@pytest.mark.parametrize(
    "n, labels, m, k", [(0, 0, 3, 2), (3, 2, 3, 2), (3, 3, 0, 2), (2, 2, 2, 0)]
)
def test_jem_loss_refuses(n, labels, m, k):
    y = torch.zeros(labels, dtype=torch.int64)
    with pytest.raises(BadRequest, match="batch"):
        method.jem_loss(toy(), points(n), y, points(m), points(k))


# Curvature


@settings(max_examples=5)
@given(seeds)
def test_lambda_max_against_the_whole_hessian(seed):
    model, x = toy(seed % 99, 3), points(4, 3, seed)
    for z, value in zip(x, method.lambda_max(model, x, steps=400), strict=True):
        hessian = torch.autograd.functional.hessian(lambda v: -model(v).logsumexp(0), z)
        largest = torch.linalg.eigvalsh(hessian)[-1]
        assert value.item() == pytest.approx(largest.item(), abs=2e-3)


def test_lambda_max_is_the_largest_and_not_the_strongest():
    largest = method.lambda_max(Quadratic(-5.0, 2.0, 1.0), points(3, 3), steps=100)
    assert torch.allclose(largest, torch.full((3,), 2.0).double(), atol=1e-6)


# Networks


def test_a_network_is_its_seed_and_leaves_the_global_one():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, same, other = (method.wide_resnet(10, 1, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first[0].weight, same[0].weight)
    assert not torch.equal(first[0].weight, other[0].weight)


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (method.digits_net(0), (1, 8, 8)),
        (method.plane_net(0), (2,)),
        (method.wide_resnet(10, 1, 0), (3, 32, 32)),
        (method.wide_resnet(10, 1, 0, bf16=True), (3, 32, 32)),
    ],
)
def test_networks_take_their_shape_and_no_other(net, shape):
    x = torch.rand(2, *shape, generator=rng())
    logits = net(x)
    assert logits.shape == (2, net[-1].out_features)
    assert logits.dtype == torch.float32
    assert torch.allclose(net(x[:1]), logits[:1], atol=1e-2)  # no norm over the batch
    for wrong in (torch.rand(2, 5), torch.rand(2, 1, 9, 9), torch.rand(*shape)):
        with pytest.raises(BadRequest, match="shape"):
            net(wrong)


def test_features_are_the_last_convolution_averaged():
    net = method.digits_net(0)
    x = torch.rand(4, 1, 8, 8, generator=rng())
    hidden = F.silu(net[2](F.silu(net[0](x))))
    by_hand = F.silu(net[4](hidden)).mean((2, 3))
    assert torch.allclose(net.features(x), by_hand, atol=1e-6)
    wide = method.wide_resnet(10, 1, 0)
    assert wide.features(torch.rand(2, 3, 32, 32)).shape == (2, 64)


def test_the_wide_resnet_has_the_size_of_the_papers():
    with torch.device("meta"):
        net = method.wide_resnet(28, 10, 0)
    weights = sum(p.numel() for p in net.parameters() if p.ndim > 1)
    assert weights == pytest.approx(36.5e6, rel=0.005)
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert len([m for m in convolutions if m.kernel_size == (3, 3)]) == 25
    strides = [m.stride[0] for m in convolutions if m.kernel_size == (3, 3)]
    assert strides.count(2) == 2


def test_residual_blocks_start_as_the_skip():
    net = method.wide_resnet(16, 1, 0)
    block = net[2]
    x = torch.rand(2, 16, 8, 8, generator=rng())
    assert torch.allclose(block(x), x + block.second.bias.view(1, -1, 1, 1))


@pytest.mark.parametrize("depth", [4, 12, 27, 0])
def test_the_wide_resnet_refuses_other_depths(depth):
    with pytest.raises(BadRequest, match="depth"):
        method.wide_resnet(depth, 1, 0)


# Attacks


@few
@given(seeds, st.floats(0.01, 3), st.sampled_from(["linf", "l2"]))
def test_projection_is_the_nearest_point_of_the_ball(seed, radius, norm):
    v, z = points(6, 5, seed), points(6, 5, seed + 1)
    order = math.inf if norm == "linf" else 2
    z = z * (radius * torch.rand(6, 1) / z.norm(order, dim=1, keepdim=True))
    near = method.project(v, radius, norm)
    assert (near.norm(order, dim=1) <= radius * (1 + 1e-9)).all()
    assert (((z - near) * (v - near)).sum(1) <= 1e-9).all()
    assert torch.allclose(method.project(near, radius, norm), near)


@few
@given(seeds, st.sampled_from(["linf", "l2"]))
def test_no_unit_direction_is_steeper(seed, norm):
    g, u = points(6, 5, seed), points(6, 5, seed + 1)
    order, dual = (math.inf, 1) if norm == "linf" else (2, 2)
    best = method.steepest(g, norm)
    assert torch.allclose(best.norm(order, dim=1), torch.ones(6).double())
    assert torch.allclose((best * g).sum(1), g.norm(dual, dim=1))
    u = u / u.norm(order, dim=1, keepdim=True)
    assert ((u * g).sum(1) <= (best * g).sum(1) + 1e-12).all()


def test_projection_of_images_and_of_nothing():
    delta = torch.ones(2, 3, 4, 4)
    delta[1] = 0
    near = method.project(delta, 2.0, "l2")
    assert near[0].norm().item() == pytest.approx(2.0)
    assert torch.equal(near[1], delta[1])


def pgd(model, x, y, **changes):
    options = {"steps": 5, "norm": "linf", "generator": rng(), **changes}
    return method.pgd(model, x, y, **options)


@pytest.mark.parametrize(("norm", "order"), [("linf", math.inf), ("l2", 2)])
def test_pgd_finds_the_worst_case_of_a_linear_classifier(norm, order):
    w = torch.tensor([[1.0, -2.0, 0.5], [-0.5, 1.0, 2.0]], dtype=torch.float64)
    model = nn.Linear(3, 2, bias=False).double()
    model.weight.data = w
    x, y = 0.1 * points(8, 3), torch.arange(8) % 2
    hit = pgd(model, x, y, radius=0.2, steps=20, norm=norm)
    away = (w[1] - w[0]) * (1 - 2 * y[:, None])
    expected = x + 0.2 * method.steepest(away, norm)
    losses = [F.cross_entropy(model(z), y, reduction="none") for z in (hit, expected)]
    assert (losses[0] <= losses[1] + 1e-9).all()
    assert torch.allclose(*losses, atol=0.02)
    assert ((hit - x).norm(order, dim=1) <= 0.2 + 1e-9).all()


@few
@given(seeds, st.sampled_from(["linf", "l2"]), st.floats(0, 1))
def test_pgd_stays_in_ball_and_box_and_never_helps(seed, norm, radius):
    model = method.plane_net(seed % 99)
    x = torch.rand(8, 2, generator=rng(seed)) * 2 - 1
    y = torch.arange(8) % 2
    attack = {"radius": radius, "norm": norm}
    hit = pgd(model, x, y, steps=5, generator=rng(seed), **attack)
    order = math.inf if norm == "linf" else 2
    assert ((hit - x).norm(order, dim=1) <= radius + 1e-5).all()
    assert hit.abs().max() <= 1
    if radius == 0:
        assert torch.allclose(hit, x)
    start = pgd(model, x, y, steps=0, generator=rng(seed), **attack)
    losses = [F.cross_entropy(model(z), y, reduction="none") for z in (start, hit)]
    assert (losses[0] <= losses[1] + 1e-6).all()  # the strongest point met is kept


def test_pgd_goes_on_from_a_given_start():
    model, x, y = method.plane_net(3), torch.zeros(4, 2), torch.arange(4) % 2
    start = torch.tensor([[0.1, -0.2], [0.3, 0.0], [-0.05, 0.4], [9.0, -9.0]])
    hit = pgd(model, x, y, radius=0.2, steps=0, start=start)
    assert torch.allclose(hit, start.clamp(-0.2, 0.2))


def test_the_attack_is_aimed_at_what_classifies_and_not_at_the_network():
    """The loss of the network grows upwards, that of what classifies downwards."""
    model = nn.Linear(1, 2, bias=False)
    model.weight.data = torch.tensor([[0.0], [1.0]])
    x, y = torch.zeros(3, 1), torch.zeros(3).long()
    hit = pgd(model, x, y, radius=0.5)
    assert torch.allclose(hit, torch.full((3, 1), 0.5))
    hit = pgd(model, x, y, radius=0.5, classify=lambda z: -model(z))
    assert torch.allclose(hit, torch.full((3, 1), -0.5))


def test_the_attack_keeps_the_strongest_point_it_met():
    """The loss peaks in the middle; the one step overshoots to the edge of the ball."""
    x, y = torch.zeros(50, 1), torch.zeros(50).long()

    def peak(z):
        return torch.cat([torch.zeros_like(z), -10 * z.abs()], dim=1)

    hit = pgd(nn.Linear(1, 2), x, y, radius=0.5, steps=1, classify=peak)
    assert (hit.abs() < 0.5).all()


def test_pgd_refuses():
    x, y = points(), torch.zeros(7).long()
    with pytest.raises(BadRequest, match="radius"):
        pgd(toy(), x, y, radius=-1.0)
    for norm in ("l0", "L2"):
        with pytest.raises(BadRequest, match=norm):
            pgd(toy(), x, y, radius=1.0, norm=norm)
        with pytest.raises(BadRequest, match=norm):
            method.steepest(x, norm)


# Refinement

FOUR = method.Refinement(steps=3, alpha=0.1, sigma=0.05, chains=4)


def attack_refined(model, x, y, refinement=FOUR):
    """Of one step, where the attack itself is replaced."""
    return method.attack_refined(
        model, x, y, refinement, radius=0.1, steps=1, norm="l2", generator=rng()
    )


def test_refinement_averages_the_logits_of_its_chains():
    model, x = toy(), points()
    logits = method.refine(model, x, FOUR, rng(5))
    ends = transcription(copy.deepcopy(model), x.repeat(4, 1), 3, 0.1, 0.05, rng(5))
    each = [model(ends[7 * k : 7 * k + 7]) for k in range(4)]
    assert torch.allclose(logits, sum(each) / 4, atol=1e-12)
    assert not logits.requires_grad


def finite_differences(function, x, h=1e-5):
    """The gradient of each row's value, for a function [n, 2] to [n]."""
    steps = h * torch.eye(2, dtype=x.dtype)
    return torch.stack([function(x + s) - function(x - s) for s in steps], 1) / (2 * h)


def test_unrolled_follows_the_sampler_and_knows_its_derivative():
    model, x = toy(), points(3)
    end = method.unrolled(model, x.requires_grad_(), FOUR, rng(2))

    def sampled(z):
        return method.langevin(model, z, 3, 0.1, 0.05, rng(2))

    assert torch.allclose(end, sampled(x))
    gradient = torch.autograd.grad(end.square().sum(), x)[0]
    by_hand = finite_differences(lambda z: sampled(z).square().sum(1), x.detach())
    assert torch.allclose(gradient, by_hand, atol=1e-6)


def test_attacks_on_a_refinement_start_where_the_replayed_one_ends(monkeypatch):
    calls = []

    def record(model, x, y, **options):
        calls.append(options)
        return x + 0.1

    monkeypatch.setattr(method, "pgd", record)
    x = points(5)
    attack_refined(toy(), x, torch.zeros(5).long())
    assert len(calls) == 3 and not {"start", "classify"} & set(calls[0])
    assert all(options["norm"] == "l2" for options in calls)
    assert all(torch.equal(options["start"], x + 0.1) for options in calls[1:])


def test_of_several_attacks_the_worst_counts_for_each_input(monkeypatch):
    """An input survives when it survives all three; here each attack breaks one."""
    right, wrong = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    broken = iter((0, 1, 2))

    def refine(model, x, refinement, generator):
        logits = right.repeat(4, 1)
        logits[next(broken)] = wrong
        return logits

    monkeypatch.setattr(method, "refine", refine)
    monkeypatch.setattr(method, "pgd", lambda model, x, y, **options: x)
    survived = attack_refined(nn.Identity(), torch.zeros(4, 2), torch.zeros(4).long())
    assert list(survived) == ["replayed", "straight", "unrolled", "worst"]
    assert survived["replayed"].tolist() == [False, True, True, True]
    assert survived["worst"].tolist() == [False, False, False, True]


def test_attacks_through_the_sampler_have_their_own_gradients(monkeypatch):
    """Without noise: straight is the gradient at the end, unrolled that of the walk."""
    model, x, y = toy(2), points(6), torch.zeros(6).long()
    gradients = []

    def record(model, x, y, classify=None, **options):
        if classify is not None:
            z = x.clone().requires_grad_()
            loss = F.cross_entropy(classify(z), y, reduction="sum")
            gradients.append(torch.autograd.grad(loss, z)[0])
        return x

    monkeypatch.setattr(method, "pgd", record)
    attack_refined(model, x, y, method.Refinement(4, 0.3, 0.0, 1))

    def sampled(z):
        return method.langevin(model, z, 4, 0.3, 0.0, rng())

    end = sampled(x).requires_grad_()
    loss = F.cross_entropy(model(end), y, reduction="sum")
    straight, unrolled = gradients
    assert torch.allclose(straight, torch.autograd.grad(loss, end)[0])
    by_hand = finite_differences(
        lambda z: F.cross_entropy(model(sampled(z)), y, reduction="none"), x
    )
    assert torch.allclose(unrolled, by_hand.detach(), atol=1e-6)
