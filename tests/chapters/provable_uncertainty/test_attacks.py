"""Rays and attacks of the chapter on CCU, against brute force."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from rng import normal, rng, uniform
from torch import nn

from iclrtut.chapters.provable_uncertainty import attack, experiments
from iclrtut.chapters.provable_uncertainty import method as pu
from iclrtut.errors import BadRequest

from .random_metric import metric


def ccu(seed, D, K=4, L=5, q=1.0):
    def mixture(K, low, high, seed):
        sigma = uniform(K, seed=seed + 1, low=low, high=high)
        weights = uniform(K, seed=seed + 2, low=0.05).softmax(0)
        return pu.Mixture(normal(K, D, seed=seed, scale=2), sigma, weights)

    inside, outside = mixture(K, 0.3, 1, 10 * seed), mixture(L, 1, 2.5, 10 * seed + 5)
    made = pu.CCU(metric(D, seed), inside, outside, q)
    return made.requires_grad_(False)


def layers(seed, *sizes):
    torch.manual_seed(seed)
    made = []
    for a, b in pairwise(sizes):
        made += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*made[:-1]).double().requires_grad_(False)


def softmax(net):
    return lambda x: net(x).log_softmax(1)


# Rays


@pytest.mark.parametrize("start", [False, True])
def test_far_out_the_logits_are_affine(start):
    nets = {
        (2,): layers(1, 2, 20, 20, 3),
        (5,): layers(2, 5, 9, 7, 6, 4),
        (2, 6, 6): nn.Sequential(
            nn.Conv2d(2, 4, 3, 1, 1),
            nn.ReLU(),
            nn.Conv2d(4, 5, 3, 2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(20, 4),
        )
        .double()
        .requires_grad_(False),
        (1, 8, 8): experiments.digits_net(0).double().requires_grad_(False),
    }
    for shape, net in nets.items():
        v = normal(40, *shape, seed=3)
        origin = normal(40, *shape, seed=4) if start else None
        m, a = pu.asymptote(net, v, origin)
        with torch.no_grad():
            at = 0 if origin is None else origin
            for t in (2.0**28, 2.0**30):
                results = net(at + t * v)
                assert torch.allclose(results, t * m + a, rtol=1e-9, atol=3e-6)
            slope = (net(at + 2.0**30 * v) - net(at + 2.0**29 * v)) / 2.0**29
        assert torch.allclose(slope, m, rtol=1e-6, atol=1e-9)


def test_of_a_shut_gate_the_intercept_decides():
    """Where the slope of a gate is 0, the intercept opens or shuts it."""
    first = nn.Linear(2, 3)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]))
        first.bias.copy_(torch.tensor([0.5, 2.0, -3.0]))
    net = nn.Sequential(first, nn.ReLU()).requires_grad_(False)
    v = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [0.0, 1.0]])
    m, a = pu.asymptote(net, v)
    assert m.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert a.tolist() == [[0.5, 2, 0], [0, 2, 0], [0.5, 2, 0]]


def test_tied_rays_have_limits_below_one():
    tied = 0
    for seed in range(40):
        net = layers(seed, 2, 3, 3, 3)
        v = normal(20, 2, seed=seed)
        m, a = pu.asymptote(net, v)
        limit = pu.limit_confidence(m, a)
        # the steepest classes alone, by hand
        for i in range(20):
            J = (m[i] == m[i].max()).nonzero().flatten()
            e = a[i][J].exp()
            assert limit[i] == pytest.approx(float(e.max() / e.sum()), rel=1e-12)
            tied += len(J) > 1
            top = m[i].topk(2).values
            if len(J) > 1 or top[0] - top[1] > 1e-3:
                far = net(2.0**30 * v[i : i + 1]).softmax(1).max()
                assert limit[i] == pytest.approx(float(far), abs=1e-5)
    assert 0.1 < tied / 800 < 0.4
    m, a = pu.asymptote(layers(1, 2, 100, 100, 2), normal(500, 2))
    assert (pu.limit_confidence(m, a) == 1).all()


def test_an_unknown_layer_is_told():
    for layer in (nn.Tanh(), nn.MaxPool2d(2)):
        with pytest.raises(BadRequest, match=type(layer).__name__):
            pu.asymptote(nn.Sequential(nn.Linear(2, 2), layer), torch.ones(1, 2))


# Attacks


def saturated(seed, D, classes=10):
    """Logits of one class far above all, wherever the input: the worst classifier."""
    logits = torch.full((classes,), -1e3, dtype=torch.float64)
    logits[seed % classes] = 1e3
    return lambda model: lambda x: model(logits.expand(len(x), -1), x)


def test_no_attack_beats_a_certificate_in_4000_balls():
    over, over_tight = [], []
    for seed in range(100):
        D = 1 + seed % 5
        model = ccu(seed, D, q=[0.3, 1, 3][seed % 3])
        log_p = saturated(seed, D)(model)
        z = normal(40, D, seed=seed, scale=3)
        z[:20] = model.inside.means[torch.arange(20) % 4] + 0.3 * z[:20]
        x = model.metric.unwhiten(z, z)
        R = uniform(40, seed=seed, high=3)
        results = attack.attack(log_p, model.metric, x, R, 8, rng(seed), model)
        z_found = model.metric.whiten(results.x)
        centre = model.metric.whiten(x)
        assert ((z_found - centre).norm(dim=1) <= R * (1 + 1e-9) + 1e-9).all()
        at = log_p(results.x).exp().amax(1)
        assert torch.allclose(at, results.confidence, atol=1e-6)
        over.append(results.confidence - model.bound(x, R, 10))
        over_tight.append(results.confidence - model.bound(x, R, 10, tight=True))
        assert (results.confidence >= log_p(x).exp().amax(1) - 1e-9).all()
    assert torch.cat(over).max() <= 1e-9
    assert torch.cat(over_tight).max() <= 1e-9
    assert torch.cat(over_tight).median() > -0.01


def grid(log_p, model, x, R, rings=40, spokes=120):
    """The surest of a polar grid in each ball of the plane."""
    angle = torch.arange(spokes).double() * 2 * math.pi / spokes
    way = torch.stack([angle.cos(), angle.sin()], 1)
    disc = torch.linspace(0, 1, rings).double()[:, None, None] * way
    z = model.metric.whiten(x)[:, None] + R[:, None, None] * disc.view(1, -1, 2)
    at = model.metric.unwhiten(z.view(-1, 2), x)
    return log_p(at).view(len(x), -1, 10).amax((1, 2)).exp()


def test_in_the_plane_the_attack_is_as_good_as_a_grid():
    short, moved = [], []
    for seed in range(10):
        model = ccu(seed, 2)
        net = layers(seed, 2, 16, 10)

        def log_p(x, model=model, net=net):
            return model(3 * net(x), x)

        x = model.metric.unwhiten(normal(30, 2, seed=seed, scale=6), normal(1, 2))
        R = model.radius(x, 0.3, 10, tight=True)
        x, R = x[R.isfinite()], R[R.isfinite()]
        R = [1.0, 1.2][seed % 2] * R
        results = attack.attack(log_p, model.metric, x, R, 100, rng(), model)
        best = grid(log_p, model, x, R)
        short.append(best - results.confidence)
        moved.append((results.confidence - log_p(x).exp().amax(1)) > 1e-3)
    short = torch.cat(short)
    assert len(short) > 100
    assert (short < 1e-3).double().mean() >= 0.95
    assert torch.cat(moved).double().mean() > 0.5


def test_a_plain_network_is_attacked_as_well():
    model = ccu(3, 2)
    net = layers(5, 2, 32, 10)
    log_p = softmax(net)
    x, R = normal(40, 2, seed=2, scale=2), torch.full((40,), 1.5).double()
    results = attack.attack(log_p, model.metric, x, R, 60, rng(), restarts=2)
    assert results.x.dtype == results.confidence.dtype == torch.float64
    best = grid(log_p, model, x, R)
    assert (best - results.confidence < 1e-3).double().mean() >= 0.95
    centre = model.metric.whiten(x)
    lengths = (model.metric.whiten(results.x) - centre).norm(dim=1)
    assert (lengths <= R * (1 + 1e-9)).all()
    assert (lengths > 0.9 * R).double().mean() > 0.5


def ramp(x):
    """Two classes; the first is the surer, the further along (1, 1, ..)."""
    height = x.flatten(1).double().sum(1)
    return torch.stack([height, -height], 1).log_softmax(1)


def test_the_attack_of_a_ramp_ends_at_its_boundary():
    """The optimum is known: x + R C 1 / |C^(1/2) 1|, in the metric."""
    m = metric(6, seed=3)
    x = m.centre.expand(5, 6) + 0.01
    for R in (0.1, torch.tensor([0.02, 0.05, 0.1, 0.2, 0.3])):
        results = attack.attack(ramp, m, x.view(5, 2, 3), R, 60, rng())
        assert results.x.shape == (5, 2, 3)
        C1 = m.covariance @ torch.ones(6).double()
        reach = torch.as_tensor(R).double() * C1.sum().sqrt()
        height = x.sum(1).abs() + reach
        assert torch.allclose(results.confidence, torch.sigmoid(2 * height), atol=1e-4)


def test_the_attack_depends_on_its_generator_alone():
    model = ccu(1, 4)
    log_p = softmax(layers(3, 4, 12, 10))
    x, before = normal(12, 4, seed=5, scale=3), torch.get_rng_state()
    kept = x.clone()
    one, two, other = (
        attack.attack(log_p, model.metric, x, 1.0, 6, rng(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one.confidence, two.confidence)
    assert torch.equal(one.x, two.x)
    assert not torch.equal(one.x, other.x)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(x, kept)


def test_rates_and_restarts_are_all_tried():
    model = ccu(2, 3)
    rows = []

    def log_p(x):
        rows.append(len(x))
        return model(torch.zeros(len(x), 10), x)

    x = normal(7, 3)
    for rates, restarts, with_ccu in (
        ((0.3,), 1, True),
        ((0.3, 0.1, 0.03), 4, True),
        ((0.5, 0.2), 3, False),
    ):
        rows.clear()
        attack.attack(
            log_p,
            model.metric,
            x,
            1.0,
            10,
            rng(),
            model if with_ccu else None,
            rates,
            restarts,
        )
        starts = restarts + 1 + with_ccu
        assert rows.count(7 * starts * len(rates)) == (6 if with_ccu else 11)
        assert rows.count(7) == 2


def test_a_model_without_mixtures_may_start_towards_the_guides_mean():
    """A network is sure in one spot alone, which is the mean of an in-component."""
    m = pu.Metric(
        torch.zeros(8).double(), torch.eye(8).double(), torch.ones(8).double()
    )
    mean = torch.full((1, 8), 2.0).double()
    one = torch.ones(1).double()
    guide = pu.CCU(m, pu.Mixture(mean, one), pu.Mixture(0 * mean, 3 * one))

    def log_p(x):
        height = 9 * (-50 * (x - mean).square().sum(1)).exp()
        return torch.stack([height, 0 * height], 1).log_softmax(1)

    x, R = torch.zeros(3, 8).double(), mean.norm()
    alone, guided = (
        attack.attack(log_p, m, x, R, 1, rng(), rates=(0.01,), guide=each)
        for each in (None, guide)
    )
    assert alone.confidence.max() < 0.6 < 0.99 < guided.confidence.min()


def test_each_start_takes_each_rate():
    """In a ball of radius 1 the first step from the centre is as long as its rate."""
    m = pu.Metric(
        torch.zeros(2).double(), torch.eye(2).double(), torch.ones(2).double()
    )
    seen = []

    def log_p(x):
        seen.append(x.detach().clone())
        return ramp(x)

    attack.attack(
        log_p, m, torch.full((1, 2), 1e-3), 1.0, 4, rng(), None, (0.4, 0.2), 1
    )
    steps = [(b - a).norm(dim=1) for a, b in pairwise(seen[:5])]
    centre = torch.stack(steps)[:, :2]
    assert torch.allclose(centre[0], torch.tensor([0.4, 0.2]).double())
    assert torch.allclose(centre[1], torch.tensor([0.3, 0.15]).double())
    assert torch.allclose(centre[3, 1], torch.tensor(0.05).double())
    ends = (seen[0][2:] - 1e-3).norm(dim=1)
    assert torch.allclose(ends, torch.ones(2).double())


def test_the_best_point_is_kept_and_not_the_last():
    """Confidence stands on a tiny disc about the start, which long steps leave."""
    m = pu.Metric(
        torch.zeros(2).double(), torch.eye(2).double(), torch.ones(2).double()
    )

    def log_p(x):
        height = 5 * (-1e4 * x.square().sum(1)).exp()
        return torch.stack([height, torch.zeros_like(height)], 1).log_softmax(1)

    x = torch.full((1, 2), 0.005, dtype=torch.float64)
    for steps in (2, 9, 10):
        results = attack.attack(
            log_p, m, x, 1.0, steps, rng(), rates=(1.0,), restarts=0
        )
        assert results.confidence >= log_p(x).exp().amax(1) - 1e-12
        at = log_p(results.x).exp().amax(1)
        assert results.confidence == pytest.approx(float(at), rel=1e-12)


def test_chunks_of_an_attack_are_put_together_again():
    model = ccu(4, 2)
    log_p = saturated(4, 2)(model)
    x = model.metric.unwhiten(normal(700, 2, scale=3), normal(1, 2))
    R = uniform(700, high=2)
    results = attack.attack(log_p, model.metric, x, R, 10, rng(), model)
    assert results.confidence.shape == (700,)
    at = log_p(results.x).exp().amax(1)
    assert torch.allclose(at, results.confidence, atol=1e-9)
    lengths = (model.metric.whiten(results.x) - model.metric.whiten(x)).norm(dim=1)
    assert (lengths <= R * (1 + 1e-9) + 1e-12).all()
    some = [0, 333, 334, 699]
    alone = attack.attack(log_p, model.metric, x[some], R[some], 40, rng(), model)
    assert np.allclose(alone.confidence, results.confidence[some], atol=0.05)


def test_a_ball_without_a_size_holds_its_centre():
    model = ccu(5, 3)
    log_p = saturated(5, 3)(model)
    x = normal(6, 3)
    results = attack.attack(log_p, model.metric, x, 0.0, 5, rng(), model)
    assert torch.allclose(results.x, x, atol=1e-12)
    assert torch.allclose(results.confidence, log_p(x).exp().amax(1))
    with pytest.raises(BadRequest, match="R is -1"):
        attack.attack(log_p, model.metric, x, -1.0, 5, rng(), model)


def test_images_stay_images_and_in_their_balls():
    model = ccu(6, 4)
    net = layers(7, 4, 16, 10)
    x, R = uniform(12, 4, seed=3), uniform(12, seed=4, low=0.1, high=2)
    free, boxed = (
        attack.attack(
            softmax(net), model.metric, x, R, 20, rng(), restarts=2, pixels=pixels
        )
        for pixels in (False, True)
    )
    assert (free.x.amin() < 0 or free.x.amax() > 1) and (free.confidence.min() > 0.1)
    assert boxed.x.min() >= -1e-12 and boxed.x.max() <= 1 + 1e-12
    for found in (free, boxed):
        length = (model.metric.whiten(found.x) - model.metric.whiten(x)).norm(dim=1)
        assert (length <= R * (1 + 1e-9)).all()
        at = softmax(net)(found.x).amax(1)
        assert torch.allclose(found.log_p, at, atol=1e-9)
    assert boxed.confidence.mean() < free.confidence.mean()
    with pytest.raises(BadRequest, match="outside"):
        attack.attack(
            softmax(net), model.metric, x + 1, R, 2, rng(), restarts=1, pixels=True
        )
