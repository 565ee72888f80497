"""The method of the chapter on CCU, each function against an independent route."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from assertions import refused
from rng import normal, uniform
from scipy import optimize, special, stats
from torch.nn import functional as F

from iclrtut.chapters.provable_uncertainty import (
    CHAPTER,
    FOREIGN,
    Settings,
    attack,
    experiments,
)
from iclrtut.chapters.provable_uncertainty import method as pu
from iclrtut.errors import BadRequest

from .random_metric import metric


def plain_metric(D):
    one = torch.ones(D, dtype=torch.float64)
    return pu.Metric(0 * one, torch.eye(D, dtype=torch.float64), one)


def mixture(K, D, seed=0, low=0.3, high=1.2, spread=2.0):
    sigma = uniform(K, seed=seed + 1, low=low, high=high)
    weights = uniform(K, seed=seed + 2, low=0.05).softmax(0)
    return pu.Mixture(normal(K, D, seed=seed, scale=spread), sigma, weights)


def ccu(seed=0, D=3, K=4, L=5, q=1.0, own=True, certified=True):
    """Random mixtures in a random metric; certified, unless told otherwise."""
    outside = (1.0, 2.5) if certified else (0.2, 1.5)
    inside = mixture(K, D, 10 * seed)
    return pu.CCU(
        metric(D, seed) if own else plain_metric(D),
        inside,
        mixture(L, D, 10 * seed + 5, *(outside if certified else (0.2, 1.1))),
        q,
    )


def parts(mix):
    """Mean, sigma and log weight of each component, as numbers."""
    rows = mix.means.detach(), mix.sigma.tolist(), mix.log_weights.tolist()
    return zip(rows[0].numpy(), *rows[1:], strict=True)


def gauss(mu, s):
    """scipy's spherical Gaussian."""
    return stats.multivariate_normal(mu, s**2)


def in_ball(z, R, count, seed, ends=()):
    """Points within R of each z [n, D], most of them on the boundary: [n, count, D]."""
    way = F.normalize(normal(len(z), count, z.shape[1], seed=seed), dim=2)
    share = uniform(len(z), count, 1, seed=seed + 1, high=1.5).clamp_max(1)
    radius = R[:, None, None]
    moves = [radius * way * share]
    for end in ends:
        line = end - z[:, None]
        way, length = F.normalize(line, dim=2), line.norm(dim=2, keepdim=True)
        moves += [radius * way, -radius * way, torch.minimum(radius, length) * way]
    return z[:, None] + torch.cat(moves, 1)


def ratio(z, inside, outside):
    """The log density ratio at z [..., D], by scipy's densities, one by one."""

    def log_density(mix):
        return special.logsumexp(
            [gauss(mu, s).logpdf(z.numpy()) + a for mu, s, a in parts(mix)], 0
        )

    return torch.from_numpy(log_density(inside) - log_density(outside))


def quick_ratio(z, inside, outside):
    """The same in torch, for many points: every difference is formed."""

    def log_density(mix):
        squares = (z[..., None, :] - mix.means).square().sum(-1)
        D, sigma = z.shape[-1], mix.sigma
        return torch.logsumexp(
            mix.log_weights - D * sigma.log() - squares / (2 * sigma**2), -1
        )

    with torch.no_grad():
        return log_density(inside) - log_density(outside)


# Metric


@pytest.mark.parametrize("floor", [0, 1e-2, 0.3])
def test_the_metric_is_mahalanobis(floor):
    x = normal(50, 4, seed=3) @ normal(4, 4, seed=4) + 7
    results = pu.fit_metric(x.view(50, 2, 2), floor)
    C = np.cov(x.numpy().T)
    values, axes = np.linalg.eigh(C)
    C = axes * np.maximum(values, floor * values.max()) @ axes.T
    assert np.allclose(results.covariance, C, rtol=1e-12)
    assert np.allclose(results.centre, x.mean(0))
    z = results.whiten(x)
    delta = (x[0] - x[1]).numpy()
    distance = np.sqrt(delta @ np.linalg.inv(C) @ delta)
    assert (z[0] - z[1]).norm() == pytest.approx(distance, rel=1e-11)
    assert results.log_det == pytest.approx(-np.linalg.slogdet(C)[1] / 2, rel=1e-11)
    assert (results.scales.diff() >= 0).all()
    if floor == 0:
        assert np.allclose(torch.cov(z.T), np.eye(4))


def test_whitening_goes_back():
    x = normal(6, 1, 2, 3, seed=5).float()
    results = pu.fit_metric(normal(30, 1, 2, 3, seed=6).float())
    back = results.unwhiten(results.whiten(x), x)
    assert back.dtype == torch.float32
    assert back.shape == x.shape
    assert torch.allclose(back, x, atol=1e-6)
    assert results.whiten(x).dtype == torch.float64


def test_a_pixel_moves_no_further_than_its_reach():
    results = metric(5)
    R = 1.7
    C = results.covariance
    ends = R * C / C.diagonal().sqrt()  # column j is R C e_j / sqrt(C_jj)
    x = results.centre + ends.T
    z = results.whiten(x)
    assert torch.allclose(z.norm(dim=1), torch.full((5,), R).double())
    moved = (x - results.centre).diagonal()
    assert torch.allclose(moved, R * results.reach())
    drawn = results.unwhiten(R * F.normalize(normal(5000, 5), dim=1), x)
    far = (drawn - results.centre).abs().amax(0)
    assert (far <= R * results.reach() * (1 + 1e-12)).all()
    lengths = (drawn - results.centre).norm(dim=1)
    assert lengths.min() >= R * results.scales[0] * (1 - 1e-12)
    assert lengths.max() <= R * results.scales[-1] * (1 + 1e-12)


# Distances


def exact_squares(z, means):
    """In 80 bits, every difference formed."""
    z, means = (v.numpy().astype(np.longdouble) for v in (z, means))
    return np.stack([((z - mu) ** 2).sum(1) for mu in means], 1)


@pytest.mark.parametrize("D", [1, 2, 17, 3072])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_rounding_outwards_is_never_wrong(D, offset):
    z = normal(60, D, seed=D) + offset
    means = torch.cat([normal(40, D, seed=D + 1) + offset, z[:20], z[20:40] + 1e-9])
    truth = exact_squares(z, means)
    low, near, high = (
        pu.squared_distances(z, means, way).numpy() for way in (-1, 0, 1)
    )
    assert (low <= truth).all()
    assert (truth <= high).all()
    assert (low >= 0).all()
    assert np.allclose(near, truth, rtol=1e-11, atol=1e-11 * D)
    assert (high - low).max() < 1e-11 * D * D + 1e-12


def test_far_points_and_nearly_equal_ones():
    z = torch.tensor([[1e8, 0.0], [3.0, 4.0]], dtype=torch.float64)
    means = torch.zeros(1, 2, dtype=torch.float64)
    assert pu.squared_distances(z, means).flatten().tolist() == [1e16, 25.0]
    assert pu.squared_distances(means, means).item() == 0


# Densities


@pytest.mark.parametrize("D", [1, 2, 6])
def test_densities_are_those_of_scipy(D):
    mix, z = mixture(4, D, seed=D), normal(30, D, seed=9)
    each = [math.exp(a) * gauss(mu, s).pdf(z.numpy()) for mu, s, a in parts(mix)]
    gone = (2 * math.pi) ** (-D / 2)
    results = mix.log_density(z).exp().detach() * gone
    assert np.allclose(results, np.sum(each, 0).reshape(-1), rtol=1e-11)
    apart = mix.log_components(z).exp().detach() * gone
    assert np.allclose(apart, np.stack(each, 1).reshape(30, 4))


def test_a_mixture_integrates_to_one_in_pixels_as_well():
    m = metric(1)
    mix = mixture(3, 1)
    x = torch.linspace(-60, 60, 400_001, dtype=torch.float64)[:, None]
    with torch.no_grad():
        height = (mix.log_density(m.whiten(x)) + m.log_det).exp() / math.sqrt(
            2 * math.pi
        )
    assert torch.trapezoid(height, x[:, 0]) == pytest.approx(1, abs=1e-6)


def test_weights_are_equal_unless_given_and_add_up_to_one():
    mix = pu.Mixture(normal(4, 2), torch.ones(4))
    assert torch.allclose(mix.log_weights.exp(), torch.full((4,), 0.25).double())
    mix = pu.Mixture(normal(2, 2), torch.ones(2), torch.tensor([0.2, 0.8]))
    assert torch.allclose(mix.log_weights.exp(), torch.tensor([0.2, 0.8]).double())
    assert {p.dtype for p in mix.parameters()} == {torch.float64}


def test_sigma_is_held_by_lowest():
    mix = pu.Mixture(normal(2, 3), torch.tensor([1.0, 2.0]), lowest=-3.0)
    with torch.no_grad():
        mix.log_sigma[0] = -800
    assert mix.sigma.tolist() == pytest.approx([math.exp(-3), 2])
    mix.requires_grad_(False)
    assert torch.isfinite(mix.log_density(normal(5, 3))).all()
    assert mix.heights()[0] == pytest.approx(math.log(0.5) + 9)


def test_em_finds_two_clusters_and_is_told_its_seed():
    z = torch.cat([normal(400, 2, scale=0.5) + 4, normal(200, 2, seed=1) - 4])
    mix = pu.fit_mixture(z, 2, seed=3).requires_grad_(False)
    first = int(mix.means[:, 0].argmax())
    assert torch.allclose(mix.means[first], torch.tensor(4.0).double(), atol=0.15)
    assert mix.sigma[first] == pytest.approx(0.5, abs=0.05)
    assert mix.sigma[1 - first] == pytest.approx(1, abs=0.1)
    assert mix.log_weights[first].exp() == pytest.approx(2 / 3, abs=0.02)
    many = [pu.fit_mixture(z, 7, seed=3).means for _ in range(2)]
    assert torch.equal(*many)
    assert not torch.equal(many[0], pu.fit_mixture(z, 7, seed=4).means)
    assert (pu.fit_mixture(z, 7, lowest=0.5).sigma >= math.exp(0.5) - 1e-12).all()


# Bayes


def direct(model, logits, x):
    """(3) as it stands, with densities of the pixels by scipy."""
    m = model.metric
    C, z = m.covariance.numpy(), x.flatten(1).numpy()

    def density(mix):
        total = 0.0
        for mu, s, a in parts(mix):
            middle = m.unwhiten(torch.from_numpy(mu)[None], x).flatten().numpy()
            component = stats.multivariate_normal(middle, s**2 * C)
            total = total + math.exp(a) * component.pdf(z)
        return torch.from_numpy(np.atleast_1d(total))[:, None]

    q = math.exp(model.log_q)
    p_in, p_out = q / (1 + q), 1 / (1 + q)
    inside, outside = density(model.inside) * p_in, density(model.outside) * p_out
    classes = logits.shape[1]
    p = inside + outside
    return (logits.softmax(1) * inside + outside / classes) / p, p.log().flatten()


@pytest.mark.parametrize("q", [0.1, 1.0, 7.0])
def test_bayes_in_logs_is_bayes(q):
    model = ccu(2, q=q)
    x, logits = (
        model.metric.unwhiten(normal(40, 3, scale=2), normal(1, 3)),
        normal(40, 5),
    )
    by_bayes, log_density = direct(model, logits, x)
    results = model(logits, x).detach()
    assert results.dtype == torch.float64
    assert torch.allclose(results.exp(), by_bayes, rtol=1e-12, atol=1e-14)
    dropped = model.metric.log_det - 1.5 * math.log(2 * math.pi)
    assert torch.allclose(model.log_density(x).detach() + dropped, log_density)
    # (6): a mixture of softmax and uniform
    w = torch.sigmoid(model.log_ratio(x))[:, None]
    mixed = w * logits.softmax(1) + (1 - w) / 5
    assert torch.allclose(results.exp(), mixed.detach(), rtol=1e-13)
    by_scipy = ratio(model.metric.whiten(x), model.inside, model.outside)
    assert torch.allclose(model.log_ratio(x).detach(), by_scipy + math.log(q))


def test_logs_stay_finite_where_densities_underflow():
    model = ccu(1, D=784, own=False)
    logits = 1000 * normal(3, 10)
    x = torch.cat([normal(1, 784, scale=3), normal(1, 784, scale=1e3)])
    x = torch.cat([x, torch.full((1, 784), 1e8).double()])
    results = model(logits, x)
    assert model.inside.log_density(x).max() < math.log(1e-300)
    assert torch.isfinite(results).all()
    assert torch.allclose(results.exp().sum(1), torch.ones(3).double(), rtol=1e-12)
    assert torch.allclose(results[1:].exp(), torch.tensor(0.1).double())
    near = model(logits, model.inside.means[:3].detach())
    assert torch.isfinite(near).all()
    assert torch.allclose(near.exp(), logits.softmax(1), atol=1e-12)
    for log_p in (near, results):
        gradient = torch.autograd.grad(log_p.sum(), tuple(model.parameters()))
        assert all(torch.isfinite(g).all() for g in gradient)


def test_confidence_and_log_odds_undo_each_other():
    for classes in (2, 10, 100):
        for tau in (1 / classes + 1e-3, 0.6, 0.9, 1 - 1e-9):
            b = torch.tensor(pu.log_odds(tau, classes), dtype=torch.float64)
            assert pu.confidence(b, classes) == pytest.approx(tau, rel=1e-12)
        b = normal(30, scale=3)
        formula = (1 + classes * b.exp()) / (classes * (1 + b.exp()))
        assert torch.allclose(pu.confidence(b, classes), formula, rtol=1e-13)
        assert pu.log_odds(1 / classes, classes) == -math.inf
        assert pu.log_odds(0.0, classes) == -math.inf
        assert pu.log_odds(1.0, classes) == math.inf
        ends = pu.confidence(torch.tensor([-1e4, 1e4]).double(), classes)
        assert ends.tolist() == [1 / classes, 1]


# Objectives


@pytest.mark.parametrize("q", [0.25, 1.0, 3.0])
def test_the_objective_term_by_term(q):
    model = ccu(3, q=q)
    x, x_out = normal(6, 3, seed=1), normal(4, 3, seed=2, scale=2)
    logits, y = normal(6, 5, seed=3), torch.tensor([0, 4, 1, 1, 3, 2])
    logits_out = normal(4, 5, seed=4)
    p, log_p = direct(model, logits, x)
    p_out, log_out = direct(model, logits_out, x_out)
    drop = model.metric.log_det - 1.5 * math.log(2 * math.pi)
    inside = np.mean([-math.log(p[i, y[i]]) - log_p[i] + drop for i in range(6)])
    outside = np.mean(
        [-math.log(p_out[j, c]) - log_out[j] + drop for j in range(4) for c in range(5)]
    )
    results = pu.ccu_loss(model, logits, x, y, logits_out, x_out)
    assert results.item() == pytest.approx(float(inside + outside / q), rel=1e-11)


def test_the_slope_by_logits_is_softmax_minus_onehot_times_its_share():
    model = ccu(4, q=2.0)
    x, y = model.metric.unwhiten(normal(6, 3), normal(1, 3)), torch.arange(6) % 4
    logits = normal(6, 4, seed=1).requires_grad_()
    out, x_out = normal(3, 4, seed=2), normal(3, 3, seed=3)
    loss = pu.ccu_loss(model, logits, x, y, out, x_out)
    results = torch.autograd.grad(loss, logits)[0]
    with torch.no_grad():
        w = torch.sigmoid(model.log_ratio(x))
        soft, log_p = logits.softmax(1), model(logits, x)
        share = w * (soft / log_p.exp())[torch.arange(6), y]
        expected = share[:, None] * (soft - F.one_hot(y, 4)) / 6
    assert torch.allclose(results, expected, atol=1e-14)


def test_the_objective_trains_every_part():
    model = ccu(5)
    x, out = normal(6, 3), normal(6, 3, seed=1, scale=3)
    loss = pu.ccu_loss(model, normal(6, 4), x, torch.zeros(6).long(), normal(6, 4), out)
    loss.backward()
    assert all(
        p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters()
    )


def test_outlier_exposure_term_by_term():
    logits, out, y = normal(5, 3), normal(4, 3, seed=1), torch.tensor([0, 1, 2, 2, 0])
    inside = -logits.softmax(1).log()[torch.arange(5), y].mean()
    outside = -(out.softmax(1).log() / 3).sum(1).mean()
    assert pu.oe_loss(logits, y, out) == pytest.approx(float(inside + outside))


# Certificates


def balls(model, n, seed):
    """Centres in z, half of them by a mean, and radii; some hold means."""
    z = normal(n, model.inside.means.shape[1], seed=seed, scale=3)
    means = torch.cat([model.inside.means, model.outside.means]).detach()
    z[: n // 2] = means[torch.arange(n // 2) % len(means)] + 0.5 * z[: n // 2]
    return z, uniform(n, seed=seed + 1, low=0.0, high=1.0) ** 2 * 5


def test_no_point_of_4000_balls_beats_either_certificate():
    close = []
    for seed in range(400):
        D = 1 + seed % 6
        model = ccu(
            seed,
            D,
            1 + seed % 5,
            1 + seed % 4,
            own=seed % 2 == 0,
            q=[0.2, 1, 6][seed % 3],
            certified=seed % 4 > 0,
        )
        z, R = balls(model, 10, seed)
        ends = (model.inside.means.detach(), model.outside.means.detach())
        points = in_ball(z, R, 40, seed, ends)
        moved = (points - z[:, None]).norm(dim=2)
        assert (moved <= R[:, None] * (1 + 1e-9) + 1e-12).all()
        x = model.metric.unwhiten(z, z)
        best = quick_ratio(points, model.inside, model.outside).amax(1) + model.log_q
        loose, tight = model.log_bound(x, R), model.log_bound(x, R, tight=True)
        scale = 1e-9 * (1 + best.abs())
        assert (best <= loose + scale).all()
        assert (best <= tight + scale).all()
        assert (tight <= loose).all()
        confident = pu.confidence(best, 10)
        assert (confident <= model.bound(x, R, 10) + 1e-9).all()
        assert (confident <= model.bound(x, R, 10, tight=True) + 1e-9).all()
        close.append((tight - best).median())
    assert torch.stack(close).median() < 0.2


def test_the_certificate_is_the_formula():
    model = ccu(7, q=3.0)
    z, R = balls(model, 12, 1)
    results = model.log_bound(model.metric.unwhiten(z, z), R)
    inside, outside = model.inside, model.outside
    for i in range(12):
        top = bottom = 0.0
        for mu, s, a in parts(inside):
            d = max(np.linalg.norm(z[i].numpy() - mu) - float(R[i]), 0)
            top += math.exp(a - d**2 / (2 * s**2)) * s**-3
        for mu, s, a in parts(outside):
            d = np.linalg.norm(z[i].numpy() - mu) + float(R[i])
            bottom += math.exp(a - d**2 / (2 * s**2)) * s**-3
        assert results[i] == pytest.approx(math.log(3 * top / bottom), abs=1e-9)


@pytest.mark.parametrize("tight", [False, True])
def test_the_certificate_grows_with_the_ball_and_is_exact_at_its_centre(tight):
    model = ccu(8, certified=False, q=0.3)
    x = model.metric.unwhiten(balls(model, 20, 3)[0], normal(1, 3))
    at_centre = model.log_bound(x, 0.0, tight)
    assert torch.allclose(at_centre, model.log_ratio(x).detach(), atol=1e-9)
    # rounded outwards: not below the value that it stands for, to the last digits
    assert (at_centre >= model.log_ratio(x).detach() - 1e-13).all()
    steps = [model.log_bound(x, R, tight) for R in np.linspace(0, 12, 60)]
    for low, high in pairwise(steps):
        assert (high > low if not tight else high >= low).all()


def test_offsets_do_not_break_the_certificate():
    """Centres and means 100 from the origin: single precision would lose the ball."""
    model = ccu(9, D=64, own=False)
    with torch.no_grad():
        model.inside.means += 100
        model.outside.means += 100
    z = model.inside.means.detach() + normal(4, 64, seed=3, scale=1e-3)
    R = torch.full((4,), 1e-3, dtype=torch.float64)
    points = in_ball(z, R, 200, 1)
    best = quick_ratio(points, model.inside, model.outside).amax(1)
    for tight in (False, True):
        assert (best <= model.log_bound(z, R, tight)).all()


@pytest.mark.parametrize("narrow", ["inside", "outside"])
def test_distances_of_either_kind_are_rounded_outwards(narrow):
    """A narrow component beside a wide one shows the rounding of one alone."""
    D = 64
    mu = normal(1, D, seed=2)
    z = mu + normal(300, D, seed=1)
    sigma = {"inside": 1e4, "outside": 1e4, narrow: 1e-3}
    pair = []
    for name in ("inside", "outside"):  # a second mean only moves the middle
        means = torch.cat([mu, mu + 40]) if name == narrow else mu
        every = torch.full((len(means),), sigma[name], dtype=torch.float64)
        pair.append(pu.Mixture(means, every))
    squares = exact_squares(z, mu)[:, 0]
    s, th = (np.longdouble(m.sigma[0].item()) for m in pair)
    truth = squares / (2 * th**2) - squares / (2 * s**2)
    apart = pair[0].heights()[0] - pair[1].heights()[0]
    results = pu.log_bound(z, 0.0, *pair).numpy() - np.longdouble(apart.item())
    assert (results >= truth * (1 - np.sign(truth) * 1e-15)).all()
    assert np.allclose(results.astype(float), truth.astype(float), rtol=1e-10)


def test_the_tighter_certificate_is_its_formula():
    """(12) by numpy, a pair of components at a time: one sum within the other."""
    output = 0
    for seed in range(10):
        model = ccu(seed, certified=seed % 2 == 0, q=2.0)
        z, R = balls(model, 8, seed)
        x = model.metric.unwhiten(z, z)
        loose = model.log_bound(x, R).numpy()
        results = model.log_bound(x, R, tight=True).numpy()
        for i, (here, r) in enumerate(zip(z.numpy(), R.tolist(), strict=True)):
            b = 0.0
            for mu, s, a in parts(model.inside):
                rows = []
                for nu, t, e in parts(model.outside):
                    g = gauss(mu, s).logpdf(here) + a - gauss(nu, t).logpdf(here) - e
                    c = s**-2 - t**-2
                    v = np.linalg.norm((mu - here) / s**2 - (nu - here) / t**2)
                    inner = c > 0 and v < c * r
                    rows.append(g + (v**2 / (2 * c) if inner else r * v - c * r**2 / 2))
                b += 1 / np.sum(np.exp(-np.array(rows)))
            formula = math.log(2 * b)
            output += formula < loose[i]
            assert results[i] == pytest.approx(min(formula, loose[i]), abs=1e-6)
    assert output > 40


def line_search(mu, s, nu, t, z, R):
    """The largest log ratio of two components in a ball: by scipy, in the plane of
    the centre and both means, from many starts."""
    axes, _ = np.linalg.qr(np.stack([mu - z, nu - z], 1))
    a, b = axes.T @ (mu - z), axes.T @ (nu - z)

    def negative(u):
        up = ((u - a) ** 2).sum() / (2 * s**2)
        return up - ((u - b) ** 2).sum() / (2 * t**2) + len(z) * math.log(s / t)

    inside = {"type": "ineq", "fun": lambda u: R**2 - (u**2).sum()}
    results = []
    for angle in np.linspace(0, 2 * np.pi, 8, endpoint=False):
        start = 0.9 * R * np.array([math.cos(angle), math.sin(angle)])[: len(a)]
        done = optimize.minimize(
            negative, start, method="SLSQP", constraints=[inside],
            options={"ftol": 1e-14, "maxiter": 200},
        )  # fmt: skip
        shrunk = done.x * min(1, R / max(np.linalg.norm(done.x), 1e-300))
        results.append(-negative(shrunk))
    return max(results)


def test_one_pair_of_components_has_its_exact_maximum():
    """(12) against scipy's constrained optimum: c of either sign, peaks inside."""
    kinds = set()
    for seed in range(80):
        D = 2 + seed % 4
        s, t = (0.5, 1.5) if seed % 3 == 0 else (0.6, 0.9)
        s, t = (t, s) if seed % 3 == 1 else (s, t)
        mu, nu, z = (normal(D, seed=3 * seed + i, scale=1.5) for i in range(3))
        R = [0.3, 1.0, 4.0][seed % 3] if seed % 2 else [0.05, 2.5, 1.5][seed % 3]
        pair = [
            pu.Mixture(m[None], torch.tensor([w], dtype=torch.float64))
            for m, w in ((mu, s), (nu, t))
        ]
        results = pu.log_bound(z[None], R, *pair, tight=True).item()
        best = line_search(mu.numpy(), s, nu.numpy(), t, z.numpy(), R)
        assert results == pytest.approx(best, abs=1e-5, rel=1e-6)
        assert results >= best - 1e-9
        c = s**-2 - t**-2
        v = ((mu - z) / s**2 - (nu - z) / t**2).norm()
        kinds.add((c > 0, bool(c * R > v)))
    assert kinds == {(True, True), (True, False), (False, False)}


def test_the_tighter_one_is_tighter_where_it_should_be():
    """Of one pair with equal widths the ratio is linear: R v exactly, not the sum."""
    one = torch.ones(1).double()
    pair = pu.Mixture(one[None] * 0, one), pu.Mixture(one[None] * 3, one)
    z = torch.tensor([[10.0]]).double()
    at = float(pu.log_bound(z, 0.0, *pair))
    assert pu.log_bound(z, 2.0, *pair, tight=True) == pytest.approx(
        at + 2 * 3, abs=1e-6
    )
    assert float(pu.log_bound(z, 2.0, *pair)) > at + 20


# Radii


@pytest.mark.parametrize("tight", [False, True])
@pytest.mark.parametrize("q", [0.2, 1.0, 5.0])
def test_a_radius_is_the_largest(tight, q):
    seen = 0
    for seed in range(12):
        model = ccu(seed, q=q, K=2 + seed % 3)
        x = model.metric.unwhiten(normal(40, 3, seed=seed, scale=4), normal(1, 3))
        for tau in (0.2, 0.6):
            R = model.radius(x, tau, 10, tight)
            centre = model.bound(x, 0.0, 10, tight)
            assert (R.isnan() == (centre > tau + 1e-15)).all()
            x_in, R_in = x[R.isfinite()], R[R.isfinite()]
            seen += len(R_in)
            assert (model.bound(x_in, R_in, 10, tight) <= tau + 1e-14).all()
            limit = pu.log_odds(tau, 10)
            assert (model.log_bound(x_in, R_in, tight) <= limit + 1e-12).all()
            more = model.log_bound(x_in, R_in * (1 + 1e-9) + 1e-12, tight)
            assert (more > limit).all()
    assert seen > 100


def test_no_radius_and_no_end():
    model = ccu(1)
    x = model.metric.unwhiten(normal(9, 3, scale=30), normal(1, 3))
    for tau in (0.1, 0.05, 0.0):
        assert model.radius(x, tau, 10).isnan().all()
        assert model.radius(x, tau, 10, tight=True).isnan().all()
    for tau in (1.0, 2.0):
        assert (model.radius(x, tau, 10) == math.inf).all()
    at_mean = model.metric.unwhiten(model.inside.means.detach(), x)
    assert model.radius(at_mean, 0.11, 10).isnan().all()
    # Rounding of the bound itself would certify 1/M on a far ball.
    far = model.metric.unwhiten(normal(1, 3, scale=1e6), x)
    assert model.bound(far, 1.0, 10).item() == 0.1
    assert model.radius(far, 0.1, 10).isnan().all()


def test_the_tighter_radius_has_no_end_where_the_ratio_has_a_maximum():
    D2 = torch.zeros(1, 2).double()
    one = torch.ones(1).double()
    model = pu.CCU(plain_metric(2), pu.Mixture(D2, one), pu.Mixture(D2, 2 * one))
    x = normal(5, 2) + 1
    assert pu.log_odds(0.9, 2) > math.log(4) - 1e-9  # the ratio is at most 2^D
    assert (model.radius(x, 0.91, 2, tight=True) == math.inf).all()
    assert model.radius(x, 0.91, 2).isfinite().all()
    assert model.bound(x, 1e12, 2, tight=True).max() <= 0.91
    assert model.radius(x + 3, 0.7, 2, tight=True).isfinite().all()


@pytest.mark.parametrize("tight", [False, True])
def test_far_out_the_radius_is_a_share_of_the_distance(tight):
    model = ccu(3, own=False)
    s, th = model.order()
    assert (s, th) == (model.inside.sigma.max(), model.outside.sigma.max())
    ways = F.normalize(normal(20, 3), dim=1)
    R = model.radius(1e7 * ways, 0.3, 10, tight)
    if tight:  # up to the nearest that b > 1 comes to the means: all but a constant
        assert torch.allclose(R / 1e7, torch.ones(20).double(), atol=1e-5)
    else:
        share = torch.full_like(R, (th - s) / (th + s))
        assert torch.allclose(R / 1e7, share, atol=1e-5)


@pytest.mark.parametrize("q", [0.5, 1.0, 4.0])
def test_far_away_every_ray_says_one_over_the_number_of_classes(q):
    lengths = []
    for seed in range(20):
        model = ccu(seed, D=1 + seed % 4, q=q)
        eps = [1e-3, 1e-2, 1e-6][seed % 3]
        r = pu.far_radius(model, eps, 10)
        ways = F.normalize(normal(1000, 1 + seed % 4, seed=seed), dim=1)
        sure = torch.eye(10).double()[:1].expand(1000, 10) * 1e4
        for times in (1.0, 1.3, 10.0):
            x = model.metric.unwhiten(times * r * ways, ways)
            sharp = model(sure, x).exp()
            assert ((sharp - 0.1).abs() <= eps * (1 + 1e-9)).all()
        x = model.metric.unwhiten(0.1 * r * ways, ways)
        inner = (model(sure, x).exp() - 0.1).abs().max()
        lengths.append(bool(inner > eps))
    assert np.mean(lengths) > 0.8


def test_the_far_radius_is_the_root():
    model = ccu(6, q=2.0).requires_grad_(False)
    r = pu.far_radius(model, 1e-3, 10)
    s, th = model.order()
    k = int(model.outside.sigma.argmax())
    rho_i = float(model.inside.means.norm(dim=1).max())
    rho_o = float(model.outside.means[k].norm())
    C = math.log(2.0 / float(model.inside.sigma.min()) ** 3 * th**3) - float(
        model.outside.log_weights[k]
    )
    C -= math.log(1e-3 / (1 - 0.1 - 1e-3))

    def gap(r):
        return (r - rho_i) ** 2 / (2 * s**2) - (r + rho_o) ** 2 / (2 * th**2) - C

    assert C > 0
    high = optimize.brentq(gap, r * 0.99, 1e4)
    assert r == pytest.approx(high, rel=1e-9)
    # b is small of itself: the root without the constant still counts
    tiny = ccu(6, q=1e-60)
    assert pu.far_radius(tiny, 0.5, 10) >= rho_i
    at = pu.far_radius(tiny, 0.5, 10)
    assert abs(gap(at) + C) < 1e-9 * at**2


@pytest.mark.parametrize("seed", range(4))
def test_what_is_not_certified_is_refused(seed):
    model = ccu(seed)
    assert model.certified
    with torch.no_grad():
        model.inside.log_sigma[0] = model.outside.log_sigma.max()
    assert not model.certified
    for call in (
        lambda: pu.far_radius(model, 1e-3, 10),
        lambda: model.radius(normal(2, 3), 0.2, 10),
        lambda: model.radius(normal(2, 3), 0.2, 10, tight=True),
    ):
        with pytest.raises(BadRequest, match=f"{model.order()[0]:.3g}"):
            call()
    assert (model.bound(normal(2, 3), 0.5, 10) <= 1).all()  # it holds for any two


def test_towards_the_likeliest_component():
    model = ccu(2)
    x = model.metric.unwhiten(normal(30, 3, scale=2), normal(1, 3))
    z, inside = model.metric.whiten(x), model.inside
    for here, results in zip(z.numpy(), attack.towards(model, x, 0.0), strict=True):
        heights = [gauss(mu, s).logpdf(here) + a for mu, s, a in parts(inside)]
        assert torch.equal(results, inside.means[int(np.argmax(heights))])
    nearer = attack.towards(model, x, torch.full((30,), 2.5))
    for here, results in zip(z.numpy(), nearer, strict=True):
        heights = [
            a
            - 3 * math.log(s)
            - max(np.linalg.norm(here - mu) - 2.5, 0) ** 2 / (2 * s**2)
            for mu, s, a in parts(inside)
        ]
        assert torch.equal(results, inside.means[int(np.argmax(heights))])
    assert not torch.equal(nearer, attack.towards(model, x, 0.0))


# Chunks


@pytest.mark.parametrize("tight", [False, True])
def test_chunks_change_nothing(tight, monkeypatch):
    model = ccu(1, K=2, L=3)
    x = model.metric.unwhiten(normal(2003, 3, scale=4), normal(1, 3))
    R = uniform(2003)
    bounds, radii = model.log_bound(x, R, tight), model.radius(x, 0.3, 10, tight)
    for size in (1, 150) if tight else (150, 5000):
        monkeypatch.setattr(pu, "_chunk", lambda *_, size=size: size)
        n = 50 if size == 1 else 2003
        again = model.log_bound(x[:n], R[:n], tight)
        assert torch.allclose(again, bounds[:n], rtol=1e-12, atol=1e-10)
        again = model.radius(x[:n], 0.3, 10, tight)
        assert torch.allclose(again, radii[:n], rtol=1e-9, equal_nan=True)


def test_no_tensor_of_points_times_components_times_pixels(monkeypatch):
    """Every tensor that torch makes is watched: the largest stays below N K D / 10."""
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, call, types, args=(), kwargs=None):
            nonlocal largest
            made = call(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor):
                largest = max(largest, made.untyped_storage().nbytes() // 8)
            return made

    N, K, D = 1200, 20, 200
    inside, outside = mixture(K, D), mixture(K, D, 5)
    z = normal(N, D)
    for tight in (False, True):
        largest = 0
        with Watch():
            pu.log_bound(z, 0.5, inside, outside, tight)
            pu.largest_radius(z[:20], 0.0, inside, outside, tight)
        assert 0 < largest <= max(N * D, 2_000_000)


# Bad input


def test_bad_numbers_are_told_in_one_sentence():
    model, x, logits = ccu(), normal(4, 3), normal(4, 5)
    nan = torch.full((4, 3), math.nan)
    two, one = normal(2, 3), torch.ones(2)
    bad = {
        "torch.float16": lambda: model(logits, x.half()),
        "torch.int64": lambda: model.bound(x.long(), 1.0, 5),
        "inputs hold NaN": lambda: model.log_ratio(nan),
        "inputs are torch.bfloat16": lambda: pu.fit_metric(x.bfloat16()),
        "logits hold NaN": lambda: model(logits * math.inf, x),
        "logits are torch.float16": lambda: model(logits.half(), x),
        r"R is -1\b": lambda: model.bound(x, -1.0, 5),
        "R is -0.5": lambda: model.log_bound(x, torch.tensor([0, 1, 2, -0.5])),
        "R is nan": lambda: model.bound(x, math.nan, 5, tight=True),
        r"9 components .* 4 input": lambda: pu.fit_mixture(x, 9),
        r"0 components": lambda: pu.fit_mixture(x, 0),
        r"eigenvalues from .*e.* floor": lambda: pu.fit_metric(x[:3], 0.0),
        "singular": lambda: pu.fit_metric(torch.zeros(5, 3)),
        r"^1 input": lambda: pu.fit_metric(x[:1]),
        "floor is nan": lambda: pu.fit_metric(x, math.nan),
        "floor is -1": lambda: pu.fit_metric(x, -1),
        "floor is 2": lambda: pu.fit_metric(x, 2),
        "sigma hold 0.0e": lambda: pu.Mixture(two, torch.tensor([1.0, 0.0])),
        "sigma hold -1.0e": lambda: pu.Mixture(two, -one),
        "sigma hold NaN": lambda: pu.Mixture(two, one * math.nan),
        "means hold NaN": lambda: pu.Mixture(two * math.inf, one),
        "weights hold 0.0e": lambda: pu.Mixture(two, one, torch.tensor([1.0, 0.0])),
        r"\[2, 3\] and \[3\]": lambda: pu.Mixture(two, torch.ones(3)),
        r"is 0\b": lambda: pu.CCU(model.metric, model.inside, model.outside, 0),
        r"is -2\b": lambda: pu.CCU(model.metric, model.inside, model.outside, -2),
        "is inf": lambda: pu.CCU(model.metric, model.inside, model.outside, math.inf),
        "is nan": lambda: pu.CCU(model.metric, model.inside, model.outside, math.nan),
        r"\[3, 3, 2\]": lambda: pu.CCU(model.metric, model.inside, mixture(2, 2)),
        r"\[4, 2\].* 3 numbers": lambda: model.log_ratio(normal(4, 2)),
        r"\[3\].* 3 numbers": lambda: model.log_ratio(normal(3)),
        r"eps is 0\b": lambda: pu.far_radius(model, 0, 10),
        r"eps is 0.9\b": lambda: pu.far_radius(model, 0.9, 10),
        "eps is nan": lambda: pu.far_radius(model, math.nan, 10),
    }
    for words, call in bad.items():
        refused(words, call)


# The module as it presents itself


def test_the_lines_of_the_docstring_run():
    lines = [
        line.strip() for line in pu.__doc__.splitlines() if line.startswith("    ")
    ]
    assert len(lines) == 4
    images = uniform(200, 1, 4, 4).float() * torch.linspace(0.2, 1, 16).view(1, 4, 4)
    names = {
        "CCU": pu.CCU,
        "images": images,
        "foreign_images": 6 * normal(300, 1, 4, 4, seed=1).float(),
        "x": images[:5],
        "logits": normal(5, 10).float(),
    }
    exec("\n".join(lines), names)
    assert names["log_p"].shape == (5, 10)
    assert torch.allclose(names["log_p"].exp().sum(1), torch.ones(5).double())
    assert ((names["ceiling"] >= 0.1) & (names["ceiling"] <= 1)).all()
    assert (names["log_p"].exp().amax(1) <= names["ceiling"]).all()
    assert names["R"].shape == (5,)
    assert names["ccu"].certified
    assert len(names["ccu"].inside.means) == len(names["ccu"].outside.means) == 25


def test_a_fit_keeps_its_settings_and_its_state():
    x_in, x_out = normal(80, 3), normal(90, 3, seed=1, scale=4) + 2
    made = pu.CCU.fit(x_in, x_out, (2, 3), 0.5, 3.0, seed=1, lowest=-1.0)
    assert made.log_q == math.log(3)
    assert [len(m.means) for m in (made.inside, made.outside)] == [2, 3]
    assert made.inside.lowest == made.outside.lowest == -1
    assert torch.equal(made.metric.scales, pu.fit_metric(x_in, 0.5).scales)
    again = pu.fit_mixture(made.metric.whiten(x_in), 2, 1, -1.0)
    assert torch.equal(made.inside.means, again.means)
    outside = pu.fit_mixture(made.metric.whiten(x_out), 3, 1, -1.0)
    assert torch.equal(made.outside.weight_logits, outside.weight_logits)
    other = ccu(3, K=2, L=3)
    other.load_state_dict(made.state_dict())
    assert torch.equal(other.metric.axes, made.metric.axes)


def test_what_is_saved_says_all_that_it_means():
    """Loaded into a model of another q and another limit, it says the same."""
    x, logits = normal(9, 3), normal(9, 4)
    saved, other = (
        pu.CCU.fit(normal(40, 3), 3 * normal(40, 3, seed=1), (2, 2), q=q, lowest=lowest)
        for q, lowest in ((2.0, -1.0), (1.0, -4.0))
    )
    with torch.no_grad():
        saved.inside.log_sigma -= 5  # below its limit
    other.load_state_dict(saved.state_dict())
    assert torch.equal(other(logits, x), saved(logits, x))
    assert torch.equal(other.log_bound(x, 1.0), saved.log_bound(x, 1.0))
    assert other.log_q.item() == pytest.approx(math.log(2))
    assert other.inside.lowest == -1


def test_claims_and_settings_are_declared():
    chapter = CHAPTER
    ids = [claim.id for claim in chapter.claims]
    assert len(set(ids)) == len(ids) == 18 + 2 * len(FOREIGN)
    for name in FOREIGN:
        mmc = chapter.claim(f"mmc_{name}")
        assert (mmc.rule.side, mmc.rule.bound) == ("below", 0)
        assert FOREIGN[name] in mmc.sentence
    for name in FOREIGN.keys() - {"noise", "permuted"}:
        auroc = chapter.claim(f"auroc_{name}")
        assert (auroc.rule.side, auroc.rule.bound) == ("above", -0.01)
        assert FOREIGN[name] in auroc.sentence
    rules = {
        "accuracy": ("below", 1),
        "uniform_noise": ("above", 0.95),
        "guarded": ("above", 0),
        "certifiable": ("above", 0.5),
        "certifiable_whole": ("above", 0.5),
        "ball_10": ("below", 1e-6),
        "ball_12": ("below", 1e-6),
        "slack_10_noise": ("below", 0.1),
        "slack_10_near": ("below", 0.1),
        "slack_12_noise": ("below", 0.1),
        "slack_12_near": ("below", 0.1),
        "sure_plain": ("above", 0.5),
        "sure_oe_box": ("above", 0.5),
        "paper_oe": ("above", 0.5),
        "far_root": ("below", 1),
        "far_falls": ("below", 2),
        "tight": ("above", 1.2),
    }
    for name, (side, bound) in rules.items():
        rule = chapter.claim(name).rule
        assert (rule.side, rule.bound) == (side, bound)
    assert set(chapter.settings) == {"smoke", "quick", "full"}
    quick, smoke = chapter.settings["quick"], chapter.settings["smoke"]
    assert quick == Settings()
    assert smoke.steps < quick.steps < chapter.settings["full"].steps
    assert f"{experiments.SURE:g} " in chapter.claim("sure_oe").statistic
    assert f"{experiments.UNIFORM:g} " in chapter.claim("uniform_noise").statistic
    for s in chapter.settings.values():
        assert f"{s.eps:g}" in chapter.claim("far_root").statistic
        for id in ("certifiable", "certifiable_whole"):
            assert f"{s.tau:g}" in chapter.claim(id).statistic
        assert all(1 / 10 < s.tau < 1 for _ in s.data)
        assert 0 < s.floor < 1


@pytest.mark.parametrize(
    "net, shape",
    [
        (experiments.digits_net, (1, 8, 8)),
        (experiments.moons_net, (2,)),
        (pu.lenet, (1, 28, 28)),
        (pu.resnet18, (3, 32, 32)),
    ],
)
def test_networks_are_made_by_their_seed_alone(net, shape):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    made = net(3)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    x = torch.rand(2, *shape)
    assert torch.equal(made.eval()(x), net(3).eval()(x))
    assert not torch.equal(made(x), net(4).eval()(x))
    assert made(x).shape == (2, 2 if net is experiments.moons_net else 10)
    counts = {pu.resnet18: 11_173_962, experiments.moons_net: 4_482}
    if net in counts:
        assert sum(p.numel() for p in made.parameters()) == counts[net]
