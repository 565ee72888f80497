"""The method of the chapter on meta-transfer, each function against another route.

The routes: autograd loops of one run at a time, enumeration in NumPy, torch's own
optimisers, SciPy's laws and root finders, and closed forms. A test of randomness allows
five standard errors, or a p-value of 1e-6.
"""

import inspect
import itertools
import math

import numpy as np
import pytest
import torch
from drawn import normal, rng
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp
from refusing import refused
from scipy import optimize, special, stats
from torch.nn import functional as F

from iclrtut.chapters.meta_transfer import CHAPTER, Settings, theory
from iclrtut.chapters.meta_transfer import method as mt
from iclrtut.errors import BadRequest

quickly = settings(deadline=None, max_examples=25, derandomize=True)
seeds = st.integers(0, 2**20)
laws = st.sampled_from([1.0, 0.1, 1e-3])
NEVER = 1e-6  # of p-values


def close(found, truth, within=1e-12):
    """Equal to 1e-12 of the largest number, or of 1."""
    truth = torch.as_tensor(truth, dtype=torch.float64)
    assert found.shape == truth.shape
    assert found.dtype == torch.float64
    assert torch.isfinite(found).all()
    scale = max(1.0, truth.abs().max().item()) if truth.numel() else 1
    assert (found - truth).abs().max() <= within * scale if truth.numel() else True
    return True


def joints(R, N, seed=0, rows=1.0):
    """Log joints [R, N, N] from worlds."""
    return mt.draw(R, N, rng(seed), rows).log_joint()


def pair(R, N, seed=0, site="cause", rows=1.0):
    """Log joints before and after a change."""
    world = mt.draw(R, N, rng(seed), rows)
    return world.log_joint(), mt.change(world, site, rng(seed + 1)).log_joint()


def batches(shape, N, seed=0):
    """Indices below N."""
    return torch.randint(N, shape, generator=rng(seed))


def marginal(log_joint, axis):
    """Log marginal by NumPy; axis 0 is A, 1 is B."""
    return special.logsumexp(
        log_joint.numpy(), axis=axis - 2 + (1 if axis == 0 else -1)
    )


# One run at a time, as a careful reader writes it


def one_run(marginal, rows, x, y, rate):
    """(4) by autograd: log-likelihoods before each step, and the logits at the end."""
    marginal = marginal.clone().requires_grad_()
    rows = rows.clone().requires_grad_()
    found = []
    for a, b in zip(x, y, strict=True):
        log_p = marginal.log_softmax(0)[a] + rows.log_softmax(1)[a, b]
        found.append(log_p.sum().item())
        slopes = torch.autograd.grad(-log_p.mean(), (marginal, rows))
        with torch.no_grad():
            marginal -= rate * slopes[0]
            rows -= rate * slopes[1]
    return found, marginal.detach(), rows.detach()


def one_at_a_time(learner, x, y, rate):
    """Log-likelihoods [..., R, T], run by run and episode by episode."""
    flat = [v.reshape(-1, *v.shape[-3:]) for v in (x, y)]
    found = [
        one_run(learner.marginal[r], learner.rows[r], xs[r], ys[r], rate)[0]
        for xs, ys in zip(*flat, strict=True)
        for r in range(len(xs))
    ]
    return torch.tensor(found, dtype=torch.float64).view(x.shape[:-1])


def dense_kl(log_star, log_p):
    """KL by a sum over all cells, in NumPy."""
    star, p = log_star.numpy(), log_p.numpy()
    cells = itertools.product(range(star.shape[-2]), range(star.shape[-1]))
    return sum(
        np.exp(star[..., i, j]) * (star[..., i, j] - p[..., i, j]) for i, j in cells
    )


# Worlds


@pytest.mark.parametrize("c", [1.0, 0.3, 1e-3])
def test_log_dirichlet_is_the_dirichlet_law(c):
    R, N = 20_000, 4
    logs = mt.log_dirichlet((R, N), c, rng(1))
    assert logs.shape == (R, N)
    assert torch.isfinite(logs).all()
    close(logs.logsumexp(1), torch.zeros(R))
    # E log p_i = psi(c) - psi(N c), Var = psi_1(c) - psi_1(N c)
    mean = special.digamma(c) - special.digamma(N * c)
    var = special.polygamma(1, c) - special.polygamma(1, N * c)
    z = (logs.mean(0).numpy() - mean) / math.sqrt(var / R)
    assert np.abs(z).max() < 5
    spread = ((logs.numpy() - mean) ** 2).mean(0) / var
    kurtosis = ((logs.numpy() - mean) ** 4).mean(0) / var**2
    assert (np.abs(spread - 1) < 5 * np.sqrt(kurtosis / R)).all()
    if c > 0.1:  # else most draws round to zero
        law = stats.beta(c, (N - 1) * c)
        assert stats.kstest(logs[:, 0].exp().numpy(), law.cdf).pvalue > NEVER
        both = stats.spearmanr(logs[:, 0], logs[:, 1])[0]
        exact = stats.spearmanr(*stats.dirichlet([c] * N).rvs(R, 0).T[:2])[0]
        assert both == pytest.approx(exact, abs=5 * 2 / math.sqrt(R))


def test_sparse_draws_keep_their_logs():
    logs = mt.log_dirichlet((50, 100), 1e-3, rng(0))
    assert (logs.exp() == 0).double().mean() > 0.3  # so sparse that many underflow
    assert torch.isfinite(logs).all()
    assert len(torch.unique(logs[logs < -1e-6])) == (logs < -1e-6).sum()
    log_p, log_star = pair(20, 10, rows=1e-3)
    a, b = mt.sample(mt.draw(20, 10, rng(0), 1e-3), 3, 5, rng(2))
    every = [
        mt.deltas(log_p, a, b, 0.5),
        mt.kl(log_star, log_p),
        *mt.parts(log_p, log_star),
        *theory.distances(log_p, log_star),
        *theory.first_step(log_p, log_star),
        mt.population(mt.learn(log_p), log_star, 1.0, 5),
        mt.population(mt.learn(log_p.mT), log_star.mT, 1.0, 5),
        theory.gaps(log_p, log_star, a.flatten(1), b.flatten(1), 0.5, (1, 15)),
    ]
    for site in mt.SITES:
        for size in (0.3, 1.0):
            world = mt.draw(20, 10, rng(4), 1e-3)
            now = mt.change(world, site, rng(5), size, 1e-3)
            every += [*now, now.log_joint().logsumexp((-2, -1))]
            close(every[-1], torch.zeros(20))
    assert all(torch.isfinite(each).all() for each in every)


def test_a_world_is_cause_times_effect():
    world = mt.draw(3, 4, rng(2))
    assert world.cause.shape == (3, 4)
    assert world.effect.shape == (3, 4, 4)
    close(world.cause.logsumexp(-1), torch.zeros(3))
    close(world.effect.logsumexp(-1), torch.zeros(3, 4))
    joint = world.log_joint().numpy()
    for r, a, b in itertools.product(range(3), range(4), range(4)):
        p = math.exp(world.cause[r, a]) * math.exp(world.effect[r, a, b])
        assert math.exp(joint[r, a, b]) == pytest.approx(p, rel=1e-13)


@pytest.mark.parametrize("rows", [1.0, 0.1])
def test_draws_have_their_laws(rows):
    R, N = 3000, 5
    world = mt.draw(R, N, rng(3), rows)
    assert (
        stats.kstest(world.cause[:, 2].exp(), stats.beta(1, N - 1).cdf).pvalue > NEVER
    )
    flat = world.effect[:, 1, 3].exp()
    assert stats.kstest(flat, stats.beta(rows, (N - 1) * rows).cdf).pvalue > NEVER
    for one, other in ((world.cause, world.effect[:, 0]), world.effect.unbind(1)[:2]):
        corr = stats.spearmanr(one[:, 0], other[:, 0])
        assert corr.pvalue > NEVER
    again = mt.draw(R, N, rng(3), rows)
    assert all(torch.equal(*pair) for pair in zip(world, again, strict=True))
    assert not torch.equal(world.cause, mt.draw(R, N, rng(4), rows).cause)


def test_a_new_cause_leaves_the_mechanism():
    world = mt.draw(3000, 5, rng(0), 0.3)
    now = mt.change(world, "cause", rng(1), rows=0.3)
    assert torch.equal(now.effect, world.effect)
    flat = stats.beta(1, 4).cdf
    assert stats.kstest(now.cause[:, 2].exp(), flat).pvalue > NEVER
    assert stats.spearmanr(now.cause[:, 2], world.cause[:, 2]).pvalue > NEVER


def test_a_new_effect_is_cut_from_the_cause():
    world = mt.draw(3000, 5, rng(0), 0.3)
    now = mt.change(world, "effect", rng(1), rows=0.3)
    assert torch.equal(now.cause, world.cause)
    close(now.effect, now.effect[:, :1].expand_as(now.effect))
    law = now.effect[:, 0]
    assert stats.kstest(law[:, 2].exp(), stats.beta(1, 4).cdf).pvalue > NEVER
    assert stats.spearmanr(law[:, 2], world.effect[:, 0, 2]).pvalue > NEVER
    close(mt.parts(world.log_joint(), now.log_joint()).cause, torch.zeros(3000), 1e-11)


def test_a_cut_effect_with_the_mean_of_the_logits():
    world = mt.draw(4, 5, rng(0))
    now = mt.change(world, "geometric", rng(1))
    for r in range(4):
        mean = np.exp([world.effect[r, :, b].mean().item() for b in range(5)])
        for a in range(5):
            close(now.effect[r, a].exp(), mean / mean.sum())
    assert torch.equal(now.cause, world.cause)


def test_a_cut_effect_with_the_marginal_it_had():
    world = mt.draw(4, 5, rng(0))
    now = mt.change(world, "marginal", rng(1))
    P = world.log_joint().exp().numpy()
    for r in range(4):
        close(now.log_joint()[r].exp(), np.outer(P[r].sum(1), P[r].sum(0)))
    assert torch.equal(now.cause, world.cause)


@pytest.mark.parametrize("rows", [1.0, 0.2])
def test_a_new_mechanism_keeps_the_cause(rows):
    world = mt.draw(3000, 4, rng(0))
    now = mt.change(world, "mechanism", rng(1), rows=rows)
    assert torch.equal(now.cause, world.cause)
    for a in range(4):
        drawn = now.effect[:, a, 1].exp()
        assert stats.kstest(drawn, stats.beta(rows, 3 * rows).cdf).pvalue > NEVER
        assert stats.spearmanr(drawn, world.effect[:, a, 1]).pvalue > NEVER
    assert stats.spearmanr(now.effect[:, 0, 1], now.effect[:, 1, 1]).pvalue > NEVER


@pytest.mark.parametrize("rows", [1.0, 0.2])
def test_a_new_row_is_one(rows):
    world = mt.draw(4000, 4, rng(0))
    now = mt.change(world, "row", rng(1), rows=rows)
    assert torch.equal(now.cause, world.cause)
    moved = (now.effect - world.effect).abs().amax(-1) > 1e-9
    assert (moved.sum(1) == 1).all()
    at = moved.int().argmax(1)
    assert stats.chisquare(torch.bincount(at, minlength=4)).pvalue > NEVER
    drawn = now.effect[torch.arange(4000), at, 2].exp()
    assert stats.kstest(drawn, stats.beta(rows, 3 * rows).cdf).pvalue > NEVER


@pytest.mark.parametrize("site", mt.SITES)
def test_the_size_is_a_share_of_the_way_of_logits(site):
    world = mt.draw(5, 4, rng(0))
    whole = mt.change(world, site, rng(1))
    for size in (0.25, 0.7):
        part = mt.change(world, site, rng(1), size)
        for old, new, found in zip(world, whole, part, strict=True):
            close(found.logsumexp(-1), torch.zeros(old.shape[:-1]))
            way = (1 - size) * old.exp().log() + size * new
            close(found.exp(), (way.exp() / way.exp().sum(-1, keepdim=True)))
    again = mt.change(world, site, rng(1), 1.0)
    assert all(torch.equal(*pair) for pair in zip(whole, again, strict=True))
    assert not torch.equal(whole.log_joint(), world.log_joint())
    moved = mt.kl(whole.log_joint(), world.log_joint())
    half = mt.change(world, site, rng(1), 0.5).log_joint()
    assert (mt.kl(half, world.log_joint()) < moved).all()
    # worlds of any leading axes, for example the same ones in several episodes
    many = mt.World(*(part.expand(3, *part.shape) for part in world))
    now = mt.change(many, site, rng(1))
    assert now.log_joint().shape == (3, 5, 4, 4)
    fresh = not torch.allclose(now.log_joint()[0], now.log_joint()[1])
    assert fresh == (site not in ("geometric", "marginal"))


def test_sites_are_those_of_the_chapter():
    names = ("cause", "effect", "geometric", "marginal", "mechanism", "row")
    assert names == mt.SITES


# Samples


@pytest.mark.parametrize("rows", [1.0, 0.05])
def test_samples_have_the_frequencies_of_the_joint(rows):
    world = mt.draw(6, 4, rng(0), rows)
    a, b = mt.sample(world, 20, 500, rng(1))
    assert a.shape == b.shape == (6, 20, 500)
    assert a.dtype == b.dtype == torch.int64
    P = world.log_joint().exp().numpy().reshape(6, 16)
    for r in range(6):
        seen = np.bincount((4 * a[r] + b[r]).flatten(), minlength=16)
        often = P[r] * 10_000 > 5
        few = np.append(seen[often], seen[~often].sum())
        expected = np.append(P[r][often], P[r][~often].sum()) * 10_000
        few, expected = few[expected > 0], expected[expected > 0]
        assert stats.chisquare(few, expected).pvalue > NEVER
        cells = np.bincount(a[r, :, ::2].flatten() * 4 + a[r, :, 1::2].flatten())
        table = np.resize(np.append(cells, np.zeros(16)), 16).reshape(4, 4)
        table = table[table.sum(1) > 0][:, table.sum(0) > 0]
        assert stats.chi2_contingency(table).pvalue > NEVER  # neighbours: independent


def test_samples_follow_the_generator_and_any_leading_axes():
    world = mt.draw(3, 5, rng(0))
    many = mt.World(*(part.expand(7, *part.shape) for part in world))
    a, b = mt.sample(many, 2, 4, rng(1))
    assert a.shape == b.shape == (7, 3, 2, 4)
    again = mt.sample(many, 2, 4, rng(1))
    assert torch.equal(a, again[0])
    assert torch.equal(b, again[1])
    assert not torch.equal(a[0], a[1])
    assert not torch.equal(a, mt.sample(many, 2, 4, rng(2))[0])


@pytest.mark.parametrize("u", [0.0, 1 - 2**-53])
def test_what_has_no_probability_is_not_drawn(u, monkeypatch):
    """The lowest and the highest number that torch draws, and sums short of one."""
    p = torch.tensor([0, 0.1, 0.2, 0.7 - 1e-15, 0], dtype=torch.float64)
    world = mt.World(p.log(), p.log().expand(5, 5))
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda v, *_, **__: v.fill_(u))
    for each in mt.sample(world, 1, 1, rng(0)):
        assert each.item() in ((1,) if u == 0 else (3, 4))


# Learners


@given(seeds, st.integers(2, 5), st.integers(2, 5), laws)
@quickly
def test_both_learners_know_the_joint(seed, n, J, rows):
    log_p = mt.log_dirichlet((3, n), 1.0, rng(seed))[..., None] + mt.log_dirichlet(
        (3, n, J), rows, rng(seed + 1)
    )
    forward, backward = mt.both(log_p)
    close(forward.log_joint(), log_p)
    close(backward.log_joint(), log_p.mT)
    close(forward.marginal, special.logsumexp(log_p.numpy(), 2))
    close(backward.marginal, special.logsumexp(log_p.numpy(), 1))
    close(forward.rows, log_p - forward.marginal[:, :, None])
    close(backward.rows, log_p.mT - backward.marginal[:, :, None])
    assert all(map(torch.equal, mt.learn(log_p), forward))


def test_a_learner_is_its_softmaxes():
    learner = mt.Learner(normal(2, 3, scale=4), normal(2, 3, 4, seed=1, scale=4))
    for r in range(2):
        P = learner.marginal[r].softmax(0)[:, None] * learner.rows[r].softmax(1)
        close(learner.log_joint()[r].exp(), P)
        shifted = mt.Learner(learner.marginal + 700, learner.rows - 900)
    close(shifted.log_joint(), learner.log_joint())


# Adaptation


@given(
    seeds,
    st.integers(1, 3),
    st.tuples(st.integers(2, 6), st.integers(2, 6)),
    st.integers(1, 5),
    st.integers(1, 7),
    st.sampled_from([0.0, 0.1, 1.0, 5.0]),
    laws,
)
@quickly
def test_log_likelihoods_are_those_of_one_run_at_a_time(
    seed, R, sizes, T, M, rate, rows
):
    """With so few rows they come again within batches and across them."""
    N, J = sizes
    learner = mt.Learner(
        normal(R, N, seed=seed, scale=3), mt.log_dirichlet((R, N, J), rows, rng(seed))
    )
    kept = [part.clone() for part in learner]
    x, y = batches((2, R, T, M), N, seed), batches((2, R, T, M), J, seed + 1)
    found = mt.log_likelihoods(learner, x, y, rate)
    close(found, one_at_a_time(learner, x, y, rate))
    assert all(map(torch.equal, learner, kept))
    # the dense route: whole tables, adapted to all batches before
    for t in range(T):
        now = mt.adapt(learner, x[0, :, :t], y[0, :, :t], rate).log_joint()
        cells = (J * x[0, :, t] + y[0, :, t]).view(R, M)
        close(found[0, :, t], now.flatten(1).gather(1, cells).sum(1))


@pytest.mark.parametrize("N", [10, 100])
@pytest.mark.parametrize("T", [1, 2, 20])
def test_log_likelihoods_at_the_sizes_of_the_chapter(N, T):
    log_p, log_star = pair(3, N, seed=T)
    world = mt.World(*mt.learn(log_star))
    a, b = mt.sample(world, T, 10, rng(5))
    for learner, x, y in zip(mt.both(log_p), (a, b), (b, a), strict=True):
        close(mt.log_likelihoods(learner, x, y, 0.1), one_at_a_time(learner, x, y, 0.1))


def test_log_likelihoods_of_many_runs_are_those_of_each():
    """Far more tables than a cache holds: chunks, if there are any, change nothing."""
    log_p = joints(700, 10)
    a, b = batches((5, 700, 3, 6), 10), batches((5, 700, 3, 6), 10, 1)
    learner = mt.learn(log_p)
    found = mt.log_likelihoods(learner, a, b, 0.7)
    assert found.shape == (5, 700, 3)
    for r in (0, 1, 255, 256, 511, 512, 698, 699):
        one = mt.Learner(*(part[r : r + 1] for part in learner))
        for e in range(5):
            alone = mt.log_likelihoods(one, a[e, r : r + 1], b[e, r : r + 1], 0.7)
            close(found[e, r : r + 1], alone)
    for e in range(5):
        close(mt.log_likelihoods(learner, a[e], b[e], 0.7), found[e])
    deep = mt.log_likelihoods(learner, a[None], b[None], 0.7)
    assert torch.equal(deep[0], found)


@pytest.mark.parametrize("shift", [-2000.0, 2000.0])
def test_logits_of_any_height(shift):
    """A constant on a row is nothing, and what would overflow does not."""
    learner = mt.learn(joints(4, 5))
    up = mt.Learner(learner.marginal + shift, learner.rows + shift)
    x, y = batches((4, 6, 3), 5), batches((4, 6, 3), 5, 1)
    found = mt.log_likelihoods(learner, x, y, 0.5)
    # the shift itself rounds logits to 2000 eps
    close(mt.log_likelihoods(up, x, y, 0.5), found, 1e-11)
    log_joint = mt.adapt(learner, x, y, 0.5).log_joint()
    close(mt.adapt(up, x, y, 0.5).log_joint(), log_joint, 1e-11)


def test_steps_of_great_rates():
    learner = mt.learn(joints(4, 5))
    x, y = batches((4, 6, 3), 5), batches((4, 6, 3), 5, 1)
    for rate in (5.0, 99.0):
        truth = one_at_a_time(learner, x, y, rate)
        close(mt.log_likelihoods(learner, x, y, rate), truth)
    for call in (mt.log_likelihoods, mt.adapt):
        with pytest.raises(BadRequest, match=r"steps times rate is 600: .*[^.]\.$"):
            call(learner, x, y, 100.0)


@given(seeds, st.integers(2, 5), st.integers(0, 4), st.integers(1, 6), laws)
@quickly
def test_adapting_is_stochastic_gradient_descent(seed, N, T, M, rows):
    learner = mt.learn(joints(3, N, seed, rows))
    kept = [part.clone() for part in learner]
    x, y = batches((3, T, M), N, seed), batches((3, T, M), N, seed + 1)
    found = mt.adapt(learner, x, y, 0.8)
    for r in range(3):
        _, end, table = one_run(learner.marginal[r], learner.rows[r], x[r], y[r], 0.8)
        close(found.marginal[r].log_softmax(0), end.log_softmax(0))
        close(found.rows[r].log_softmax(1), table.log_softmax(1))
    assert all(map(torch.equal, learner, kept))
    assert found.marginal.shape == learner.marginal.shape
    assert found.rows.shape == learner.rows.shape


def test_the_likelihood_comes_before_the_step():
    log_p, _ = pair(5, 4)
    learner = mt.learn(log_p)
    x, y = batches((5, 3, 6), 4), batches((5, 3, 6), 4, 1)
    start = log_p.flatten(1).gather(1, (4 * x + y)[:, 0]).sum(1)
    for rate in (0.0, 0.1, 3.0):
        found = mt.log_likelihoods(learner, x, y, rate)
        close(found[:, 0], start)
        # what comes later changes nothing before it
        short = mt.log_likelihoods(learner, x[:, :2], y[:, :2], rate)
        close(short, found[:, :2])
    still = mt.log_likelihoods(learner, x, y, 0.0)
    every = log_p[:, None].flatten(2).expand(5, 3, 16).gather(2, 4 * x + y).sum(2)
    close(still, every)


def test_equal_starts_give_no_lead():
    """Delta of one step is zero, and the first addend of every Delta."""
    for rows in (1.0, 1e-3):
        log_p, _ = pair(50, 10, rows=rows)
        a, b = mt.sample(mt.World(*mt.learn(log_p)), 1, 10, rng(2))
        assert mt.deltas(log_p, a, b, 1.0).abs().max() < 1e-12
        forward, backward = mt.both(log_p)
        two = [v.repeat(1, 2, 1) for v in (a, b)]
        first = mt.log_likelihoods(forward, *two, 1.0)[:, 0]
        close(first, mt.log_likelihoods(backward, *two[::-1], 1.0)[:, 0])
        assert mt.deltas(log_p, *two, 1.0).abs().min() > 1e-6


@given(seeds, st.integers(2, 5), st.integers(1, 4), st.sampled_from([0.1, 2.0]))
@quickly
def test_delta_is_the_lead_of_the_first_direction(seed, N, T, rate):
    log_p, _ = pair(3, N, seed)
    a, b = batches((2, 3, T, 5), N, seed), batches((2, 3, T, 5), N, seed + 1)
    forward = mt.Learner(log_p.logsumexp(2), log_p - log_p.logsumexp(2, keepdim=True))
    turned = log_p.transpose(1, 2)
    backward = mt.Learner(turned.logsumexp(2), turned - turned.logsumexp(2, True))
    lead = one_at_a_time(forward, a, b, rate) - one_at_a_time(backward, b, a, rate)
    found = mt.deltas(log_p, a, b, rate)
    close(found, lead.sum(-1), 2e-12)  # of differences of sums over T batches
    assert found.shape == (2, 3)
    # roles swapped: the same number, turned round
    close(mt.deltas(log_p.mT, b, a, rate), -found)


def test_the_causal_learner_leads_and_delta_says_so():
    """On average, when the cause changed; and the gap has the same sign."""
    world = mt.draw(400, 10, rng(0))
    now = mt.change(world, "cause", rng(1))
    a, b = mt.sample(now, 2, 10, rng(2))
    found = mt.deltas(world.log_joint(), a, b, 0.1)
    assert found.mean() > 5 * found.std() / 20
    star = now.log_joint()
    a, b = (v.flatten(1) for v in (a, b))
    gaps = theory.gaps(world.log_joint(), star, a, b, 0.1, (20,))[0]
    assert gaps.mean() > 5 * gaps.std() / 20
    cut = mt.change(world, "effect", rng(1))
    found = mt.deltas(world.log_joint(), *mt.sample(cut, 2, 10, rng(2)), 0.1)
    assert found.mean() < -5 * found.std() / 20


# Exact quantities


@given(seeds, st.integers(2, 5), st.integers(2, 5), laws)
@quickly
def test_kl_is_the_sum_over_cells(seed, n, J, rows):
    p, star = (
        mt.log_dirichlet((2, 3, n, J), rows, rng(seed + i)).sub(math.log(n))
        for i in (0, 1)
    )
    found = mt.kl(star, p)
    close(found, dense_kl(star, p))
    assert (found >= -1e-12).all()
    close(mt.kl(p, p), torch.zeros(2, 3))
    if rows == 1:
        entropy = stats.entropy(star.exp().flatten(2), p.exp().flatten(2), axis=2)
        close(found, entropy)


@given(seeds, st.integers(2, 5), st.sampled_from(mt.SITES), laws)
@quickly
def test_the_kl_splits_both_ways(seed, N, site, rows):
    log_p, log_star = pair(3, N, seed, site, rows)
    found = mt.parts(log_p, log_star)
    whole = dense_kl(log_star, log_p)
    close(found.cause + found.mechanism, whole)
    close(found.effect + found.inverse, whole)
    star, p = log_star.numpy(), log_p.numpy()
    for i, name in ((2, "cause"), (1, "effect")):
        old, new = (special.logsumexp(v, i) for v in (p, star))
        close(getattr(found, name), (np.exp(new) * (new - old)).sum(1))
    if site == "cause":
        close(found.mechanism, torch.zeros(3), 1e-11)
        assert (found.cause >= found.effect - 1e-11).all()
    else:
        close(found.cause, torch.zeros(3), 1e-11)
        assert (found.effect >= -1e-11).all()
    if site == "marginal":
        close(found.effect, torch.zeros(3), 1e-11)
    swapped = mt.parts(log_p.mT, log_star.mT)
    close(swapped.cause, found.effect)
    close(swapped.inverse, found.mechanism)


def centred(v):
    return v - v.mean(-1, keepdims=True)


@given(seeds, st.integers(2, 6), st.sampled_from(mt.SITES), laws)
@quickly
def test_distances_are_those_of_centred_logits(seed, N, site, rows):
    log_p, log_star = pair(3, N, seed, site, rows)
    forward, backward = theory.distances(log_p, log_star)
    for found, p, star in (
        (forward, log_p, log_star),
        (backward, log_p.mT, log_star.mT),
    ):
        p, star = p.numpy(), star.numpy()
        total = np.zeros(3)
        old, new = (special.logsumexp(v, 2) for v in (p, star))
        total += ((centred(new) - centred(old)) ** 2).sum(1)
        for i in range(N):  # P(.|i): logits of a slice, which centring alone makes
            move = centred(star[:, i]) - centred(p[:, i])
            total += (move**2).sum(1)
        close(found, total)
    learners = mt.learn(log_p), mt.learn(log_star)
    close(theory.distance(*learners), forward)
    up = mt.Learner(learners[0].marginal + 3, learners[0].rows + normal(3, N, 1))
    close(theory.distance(up, learners[1]), forward, 1e-11)


@pytest.mark.parametrize("N", [2, 3, 10])
def test_the_distances_in_closed_form(N):
    """(8), for a new cause and for an effect cut from it."""
    world = mt.draw(50, N, rng(N))
    log_p = world.log_joint()
    before = centred(special.logsumexp(log_p.numpy(), 1))

    star = mt.change(world, "cause", rng(1)).log_joint()
    forward, backward = theory.distances(log_p, star)
    after = centred(special.logsumexp(star.numpy(), 1))
    close(backward, N * forward + torch.tensor(((before - after) ** 2).sum(1)), 1e-11)

    for site in ("effect", "geometric", "marginal"):
        star = mt.change(world, site, rng(1)).log_joint()
        forward, backward = theory.distances(log_p, star)
        Q = centred(special.logsumexp(star.numpy(), 1))
        logits = centred(world.effect.numpy())
        rows_lse = centred(special.logsumexp(logits, 2))
        c = logits.mean(1)
        apart = N * ((rows_lse**2).sum(1) - ((c - Q) ** 2).sum(1))
        found = backward - forward
        close(found, ((before - Q) ** 2).sum(1) + apart, 1e-11)
        if site == "geometric":
            assert (found > 0).all()


def test_mean_distances_of_flat_worlds():
    """(9), N = 10, 4000 worlds."""
    N, R = 10, 4000
    world = mt.draw(R, N, rng(0))
    fixed = {
        "cause": (N - 1) * math.pi**2 / 3,
        "effect": N * (N - 1) * math.pi**2 / 3,
        "mechanism": N * (N - 1) * math.pi**2 / 3,
    }
    rough = {"cause": 297, "effect": 155, "mechanism": 280}
    for site, mean in fixed.items():
        star = mt.change(world, site, rng(1)).log_joint()
        forward, backward = theory.distances(world.log_joint(), star)
        error = forward.std() / math.sqrt(R)
        assert abs(forward.mean() - mean) < 5 * error
        assert backward.mean() == pytest.approx(rough[site], rel=0.02)
        if site == "mechanism":
            assert (backward < forward).double().mean() == pytest.approx(0.91, abs=0.02)


def expected_nll(marginal, rows, log_star):
    """What population descent descends on: one run, for autograd."""
    log_p = marginal.log_softmax(0)[:, None] + rows.log_softmax(1)
    return -(log_star.exp() * log_p).sum()


@given(seeds, st.integers(2, 5), st.sampled_from(mt.SITES), laws)
@quickly
def test_the_first_step_is_the_squared_gradient(seed, N, site, rows):
    """(5) by autograd, and by its sums."""
    log_p, log_star = pair(2, N, seed, site, rows)
    found = theory.first_step(log_p, log_star)
    for G, p, star in zip(
        found, (log_p, log_p.mT), (log_star, log_star.mT), strict=True
    ):
        for r in range(2):
            m = p[r].logsumexp(1)
            parts = m.clone().requires_grad_(), (p[r] - m[:, None]).requires_grad_()
            slopes = torch.autograd.grad(expected_nll(*parts, star[r]), parts)
            close(G[r], sum((s**2).sum() for s in slopes))
            P, S = p[r].exp(), star[r].exp()
            total = ((P.sum(1) - S.sum(1)) ** 2).sum()
            for a in range(N):
                old, new = p[r, a].softmax(0), star[r, a].softmax(0)
                total += S[a].sum() ** 2 * ((old - new) ** 2).sum()
            close(G[r], total)


@pytest.mark.parametrize("site", mt.SITES)
def test_the_first_step_is_what_a_small_one_gains(site):
    log_p, log_star = pair(20, 4, 3, site)
    G = theory.first_step(log_p, log_star)
    errors = []
    for rate in (1e-3, 1e-4):
        forward = mt.population(mt.learn(log_p), log_star, rate, 1)
        backward = mt.population(mt.learn(log_p.mT), log_star.mT, rate, 1)
        gap = (backward[1] - forward[1]) / rate
        errors.append((gap - (G[0] - G[1])).abs().max())
        close(forward[0], backward[0])
    assert errors[0] < 1e-2
    assert errors[1] < errors[0] / 5


@given(seeds, st.integers(2, 5), st.sampled_from([0.1, 1.0]), laws)
@quickly
def test_population_steps_are_gradient_descent(seed, N, rate, rows):
    log_p, log_star = pair(2, N, seed, "effect", rows)
    learner = mt.Learner(normal(2, N, seed=seed), mt.learn(log_p).rows)
    kept = [part.clone() for part in learner]
    found = mt.population(learner, log_star, rate, 4)
    assert all(map(torch.equal, learner, kept))
    assert found.shape == (5, 2)
    close(found[0], dense_kl(log_star, learner.log_joint()))
    for r in range(2):
        parts = [part[r].clone().requires_grad_() for part in learner]
        for t in range(1, 5):
            slopes = torch.autograd.grad(expected_nll(*parts, log_star[r]), parts)
            with torch.no_grad():
                for part, by in zip(parts, slopes, strict=True):
                    part -= rate * by
            log_q = mt.Learner(*(part.detach() for part in parts)).log_joint()
            close(found[t, r], dense_kl(log_star[r], log_q))


def test_population_steps_arrive():
    log_p, log_star = pair(3, 4)
    for p, star in ((log_p, log_star), (log_p.mT, log_star.mT)):
        found = mt.population(mt.learn(p), star, 1.0, 3000)
        assert (found.diff(dim=0) <= 1e-15).all()
        assert (found[-1] < 1e-3 * found[0]).all()
    many = mt.population(mt.learn(log_p.expand(2, 3, 4, 4)), log_star, 1.0, 2)
    close(many[:, 1], mt.population(mt.learn(log_p), log_star, 1.0, 2))


def test_the_mechanism_has_no_gradient_when_the_cause_changed():
    """(2): N of the N + N^2 entries move in A -> B, all in B -> A."""
    log_p, log_star = pair(1, 10)
    counts = []
    for p, star in ((log_p, log_star), (log_p.mT, log_star.mT)):
        m = p[0].logsumexp(1)
        parts = m.clone().requires_grad_(), (p[0] - m[:, None]).requires_grad_()
        slopes = torch.autograd.grad(expected_nll(*parts, star[0]), parts)
        counts.append(sum(int((s.abs() > 1e-14).sum()) for s in slopes))
    assert counts == [10, 110]
    forward, backward = theory.first_step(log_p, log_star)
    old, new = (v.logsumexp(2).exp() for v in (log_p, log_star))
    close(forward, ((old - new) ** 2).sum(1))
    assert (backward > 0).all()


@given(seeds, st.integers(2, 5), st.sampled_from([0.1, 1.0]))
@quickly
def test_gaps_are_exact_after_single_examples(seed, N, rate):
    log_p, log_star = pair(2, N, seed)
    a, b = batches((2, 8), N, seed), batches((2, 8), N, seed + 1)
    at = (1, 2, 5, 8)
    found = theory.gaps(log_p, log_star, a, b, rate, at)
    assert found.shape == (4, 2)
    for i, n in enumerate(at):
        for r in range(2):
            kls = []
            for p, star, x, y in (
                (log_p, log_star, a, b),
                (log_p.mT, log_star.mT, b, a),
            ):
                m = p[r].logsumexp(1)
                steps = x[r, :n, None], y[r, :n, None]
                _, *end = one_run(m, p[r] - m[:, None], *steps, rate)
                kls.append(dense_kl(star[r], mt.Learner(*end).log_joint()))
            close(found[i, r], kls[1] - kls[0])
    close(theory.gaps(log_p, log_star, a, b, rate, (5,))[0], found[2])
    close(theory.gaps(log_p.mT, log_star.mT, b, a, rate, at), -found)


# Gamma


@given(st.floats(-30, 30), st.floats(-6000, -1), st.floats(-50, 50), st.booleans())
@quickly
def test_the_regret_in_logs(gamma, log_l, delta, rounded):
    """(11) in 60 digits, where likelihoods underflow as well."""
    with mp.workdps(60):
        s = 1 / (1 + mp.exp(-mp.mpf(gamma)))
        exact = -mp.log(
            s * mp.exp(mp.mpf(log_l) + mp.mpf(delta)) + (1 - s) * mp.exp(log_l)
        )
        exact = float(exact)
    told = (torch.tensor(v, dtype=torch.float64) for v in (gamma, log_l + delta, log_l))
    assert mt.regret(*told).item() == pytest.approx(exact, rel=1e-12, abs=1e-9)


@pytest.mark.parametrize("height", [-5.0, -5000.0])
def test_the_slope_is_the_derivative_of_the_regret(height):
    """And the plain mixture of likelihoods has none at -5000."""
    gamma = normal(200, seed=1, scale=3).requires_grad_()
    forward = height + normal(200, seed=2, scale=4)
    backward = height + normal(200, seed=3, scale=4)
    R = mt.regret(gamma, forward, backward)
    by_autograd = torch.autograd.grad(R.sum(), gamma)[0]
    found = mt.slope(gamma.detach(), forward - backward)
    # Delta is a difference of numbers near 5000, known to 5000 eps
    assert (found - by_autograd).abs().max() < 1e-11
    p = gamma.sigmoid()
    naive = -(p * forward.exp() + (1 - p) * backward.exp()).log()
    slopes = torch.autograd.grad(naive.sum(), gamma)[0]
    if height == -5:
        assert (found - slopes).abs().max() < 1e-11
    else:
        assert slopes.isnan().all()


def test_the_better_learner_pulls_gamma():
    zero = torch.zeros(1, dtype=torch.float64)
    for delta in (1e-3, 1.0, 900.0):
        assert mt.slope(zero, zero + delta) < 0 < mt.slope(zero, zero - delta)
    ends = mt.slope(torch.tensor([0.0, 0, 2]), torch.tensor([5e3, -5e3, 0])).tolist()
    assert ends == [-0.5, 0.5, 0]
    # sigma(gamma + Delta) is the posterior
    gamma, delta = normal(50), normal(50, seed=1, scale=3)
    prior = gamma.sigmoid()
    posterior = prior * delta.exp() / (prior * delta.exp() + 1 - prior)
    close(mt.slope(gamma, delta), prior - posterior)


@pytest.mark.parametrize("rms", [True, False])
def test_gamma_follows_torchs_optimiser(rms):
    forward = -5000 + normal(60, 7, seed=1, scale=2)
    backward = -5000 + normal(60, 7, seed=2, scale=2)
    gamma = torch.zeros(7, dtype=torch.float64, requires_grad=True)
    kind = torch.optim.RMSprop if rms else torch.optim.SGD
    for rate in (1e-2, 0.3):
        gamma.data.zero_()
        optimiser = kind([gamma], lr=rate)
        path = [gamma.detach().clone()]
        for ahead, behind in zip(forward, backward, strict=True):
            optimiser.zero_grad()
            mt.regret(gamma, ahead, behind).sum().backward()
            optimiser.step()
            path.append(gamma.detach().clone())
        close(mt.follow(forward - backward, rate, rms), torch.stack(path), 1e-9)
    # as the official code: RMSprop at 1e-2 unless told otherwise
    usual = mt.follow(forward - backward)
    assert torch.equal(usual, mt.follow(forward - backward, 1e-2, True))
    assert usual.shape == (61, 7)
    assert (usual[0] == 0).all()


def test_gamma_starts_with_ten_rates():
    """RMSprop's first step is rate / sqrt(1 - 0.99)."""
    found = mt.follow(torch.tensor([[3.0, -0.2]]).double(), 0.05)
    close(found[1], torch.tensor([0.5, -0.5]), 1e-5)  # floor 1e-8 over 0.005


def regret_at(p, deltas):
    """Mean regret at sigma(gamma) = p, less log L of the second learner."""
    return -np.mean(np.logaddexp(np.log(p) + deltas, np.log1p(-p)))


@given(
    seeds,
    st.floats(-2.5, 2.5),
    st.sampled_from([0.3, 1.0, 3.0, 30.0]),
    st.integers(1, 40),
)
@quickly
def test_the_fixed_point_has_the_least_regret(seed, shift, spread, n):
    deltas = shift + normal(n, 2, seed=seed, scale=spread)
    found = theory.fixed_point(deltas)
    assert found.shape == (2,)
    grid = np.concatenate([10.0 ** np.arange(-12, -2), np.linspace(0.001, 0.999, 999)])
    grid = np.concatenate([grid, 1 - 10.0 ** np.arange(-12, -2)])
    for p, d in zip(found.tolist(), deltas.T.numpy(), strict=True):
        inner = min(max(p, 1e-15), 1 - 1e-15)
        best = min(regret_at(each, d) for each in grid)
        assert regret_at(inner, d) <= best + 1e-9 * max(1, np.abs(d).max())
        up, down = (special.logsumexp(s * d) - np.log(n) for s in (1, -1))
        if down < -1e-9:
            assert p == pytest.approx(1, abs=1e-15)
        elif up < -1e-9:
            assert p == pytest.approx(0, abs=1e-15)
        elif min(up, down) > 1e-9:
            assert 0 < p < 1


def test_the_fixed_point_of_two_leads():
    """Delta = 1 or -3, mean 0.6: not 1, but 0.889; and SGD goes there."""
    two = torch.tensor([1.0] * 9 + [-3.0]).double()
    assert two.mean() == pytest.approx(0.6)
    root = optimize.brentq(
        lambda p: (
            0.9 * np.expm1(1) / (1 + p * np.expm1(1))
            + 0.1 * np.expm1(-3) / (1 + p * np.expm1(-3))
        ),
        1e-9,
        1 - 1e-9,
        xtol=1e-14,
    )
    found = theory.fixed_point(two[:, None])
    assert found.item() == pytest.approx(root, abs=1e-12)
    assert found.item() == pytest.approx(0.889, abs=5e-4)
    drawn = two[batches((8000, 16), 10)]
    path = mt.follow(drawn, 0.05, rms=False)[4000:].sigmoid().mean(1)
    assert path.mean() == pytest.approx(0.889, abs=0.01)


def test_fixed_points_at_the_ends():
    ends = torch.tensor([[1.0, -1, 5e3, -5e3, 5e3, 5e3], [2, -2, 4e3, -1, -5e3, -0.5]])
    found = theory.fixed_point(ends.double()).tolist()
    assert found[:4] == pytest.approx([1, 0, 1, 0], abs=1e-15)
    assert found[4] == pytest.approx(0.5)
    # 1 / p = (1 - e^-0.5) / (1 - p (1 - e^-0.5))
    low = -math.expm1(-0.5)
    assert found[5] == pytest.approx(min(1, 1 / (2 * low)))


# Gamma, found


def spied(monkeypatch):
    """What `deltas` was called with, and what it answered."""
    seen, real = [], mt.deltas

    def spy(*given, **named):
        told = inspect.signature(real).bind(*given, **named).arguments
        told["found"] = real(*given, **named)
        seen.append(told)
        return told["found"]

    monkeypatch.setattr(mt, "deltas", spy)
    return seen


def test_discovering_is_following_the_leads(monkeypatch):
    seen = spied(monkeypatch)
    world = mt.draw(6, 5, rng(0))
    found = mt.discover(
        world, rng(1), episodes=20, steps=3, batch=4, rate=0.2, gamma_rate=0.05
    )
    assert found.shape == (21, 6)
    leads = torch.cat([each["found"].reshape(-1, 6) for each in seen])
    assert leads.shape == (20, 6)
    close(found, mt.follow(leads, 0.05, True))
    for each in seen:
        close(each["log_joint"], world.log_joint())
        assert each["a"].shape[-3:] == each["b"].shape[-3:] == (6, 3, 4)
        assert each["rate"] == 0.2
    usual = mt.discover(world, rng(1), 2)
    again = mt.discover(world, rng(1), 2, "cause", False, 2, 10, 0.1, 1e-2, 1.0)
    assert torch.equal(usual, again)
    assert not torch.equal(usual, mt.discover(world, rng(2), 2))
    assert mt.discover(world, rng(1)).shape == (501, 6)


def drawn_by(monkeypatch, **changes):
    """Indices that two runs of N = 3 saw, [E, R, all examples], and their world."""
    seen = spied(monkeypatch)
    world = mt.draw(2, 3, rng(3))
    mt.discover(world, rng(1), 12, steps=2, batch=2000, **changes)
    a, b = (
        torch.cat([each[k].reshape(-1, 2, 4000) for each in seen]) for k in ("a", "b")
    )
    return world, a, b


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("site", [None, "cause", "effect", "mechanism"])
def test_every_episode_has_a_change_of_its_own(site, swapped, monkeypatch):
    world, a, b = drawn_by(monkeypatch, site=site, swapped=swapped)
    if swapped:
        a, b = b, a
    assert a.shape == (12, 2, 4000)
    causes = F.one_hot(a, 3).double().mean(2)  # [E, R, N]
    cells = F.one_hot(3 * a + b, 9).double().mean(2).view(12, 2, 3, 3)
    rows = cells / cells.sum(-1, keepdim=True)
    same_cause = (causes - world.cause.exp()).abs().amax((-2, -1)) < 0.05
    if site == "cause":
        assert same_cause.sum() <= 1
        assert (causes[1:] - causes[:-1]).abs().amax((-2, -1)).min() > 0.05
    else:
        assert same_cause.all()
    heavy = cells.sum(-1) > 0.05
    apart = (rows - world.effect.exp()).abs().amax(-1)
    apart = torch.where(heavy, apart, 0.0)
    if site in (None, "cause"):
        assert apart.max() < 0.2
        assert apart.median() < 0.05
    else:
        assert (apart.amax((-2, -1)) > 0.1).all()
        assert (rows[1:] - rows[:-1]).abs().amax((-3, -2, -1)).min() > 0.05
    if site == "effect":
        law = torch.where(heavy[..., None], rows - rows.mean(2, keepdim=True), 0.0)
        assert law.abs().median() < 0.05


def test_discovered_rows_have_their_concentration(monkeypatch):
    _, a, b = drawn_by(monkeypatch, site="mechanism", rows=1e-2)
    cells = F.one_hot(3 * a + b, 9).double().mean(2).view(12, 2, 3, 3)
    peak = cells.amax(-1) / cells.sum(-1).clamp_min(1e-12)
    assert peak[cells.sum(-1) > 0.01].mean() > 0.9  # a flat law has about 0.6


def test_gamma_finds_the_direction_both_ways():
    world = mt.draw(48, 10, rng(0))
    forward = mt.discover(world, rng(1), 300)
    assert (forward[-1].sigmoid() > 0.8).all()
    backward = mt.discover(world, rng(1), 300, swapped=True)
    close(backward, -forward, 1e-9)


def test_gamma_is_sure_and_wrong_when_the_effect_changes():
    world = mt.draw(24, 10, rng(0))
    for site in ("effect", "mechanism"):
        found = mt.discover(world, rng(1), 200, site)[-1].sigmoid()
        assert (found < 0.5).all()
        assert found.mean() < 0.3


def test_without_a_step_no_signal():
    world = mt.draw(8, 4, rng(0))
    for still in ({"steps": 1}, {"rate": 0.0}):
        assert mt.discover(world, rng(1), 50, **still).abs().max() < 1e-3


def test_no_change_no_signal_in_a_joint_flat_on_all_cells():
    """By symmetry of the law, not of any one joint: mean lead within five errors."""
    R, N = 2000, 5
    log_p = mt.log_dirichlet((R, N * N), 1.0, rng(0)).view(R, N, N)
    a, b = mt.sample(mt.World(*mt.learn(log_p)), 4, 5, rng(1))
    found = mt.deltas(log_p, a, b, 1.0)
    assert found.mean().abs() < 5 * found.std() / math.sqrt(R)


# Two columns of your own


def columns(log_joint, n, seed):
    """Rows [n, 2] of one joint."""
    N, draws = len(log_joint), np.random.default_rng(seed)
    cells = draws.choice(N * N, n, p=log_joint.exp().flatten())
    return np.stack([cells // N, cells % N], 1)


def shifted(site, n=3000, seed=0, N=6):
    """Rows before and after a change of the world whose cause is the first column."""
    world = mt.World(*(part[0] for part in mt.draw(1, N, rng(seed))))
    star = mt.change(world, site, rng(seed + 1)).log_joint()
    return columns(world.log_joint(), n, 1), columns(star, n, 2)


def turned(*parts):
    return tuple(part[:, ::-1] for part in parts)


def lead(before, after, N=6):
    """The gap by a plain loop over tables, and the drift; categories 0 to N - 1."""
    P, S = (
        np.histogram2d(*part.T, bins=np.arange(N + 1) - 0.5)[0] + 0.5
        for part in (before, after)
    )
    P, S = P / P.sum(), S / S.sum()

    def behind(P, S):
        m, rows = np.log(P.sum(1)), np.log(P / P.sum(1, keepdims=True))
        found = []
        for _ in range(20):
            rows = rows - S.sum(1)[:, None] * special.softmax(rows, 1) + S
            m = m - special.softmax(m) + S.sum(1)
            Q = special.softmax(m)[:, None] * special.softmax(rows, 1)
            found.append((S * np.log(S / Q)).sum())
        return np.mean(found)

    drift = [stats.entropy(S.sum(i), P.sum(i)) for i in (1, 0)]
    return behind(P.T, S.T) - behind(P, S), drift


@pytest.fixture
def few(monkeypatch):
    """Only 200 resamples, for tests of what they do not move."""
    monkeypatch.setattr(mt, "RESAMPLES", 200)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("site", ["cause", "effect"])
def test_comparing_says_which_direction_adapts_faster(site, seed):
    """The true one when the cause changed, the wrong one when the effect did."""
    before, after = shifted(site, seed=seed)
    gap, drift = lead(before, after)
    assert (gap > 0) == (site == "cause")
    for parts, sign in (((before, after), 1), (turned(before, after), -1)):
        found = mt.compare(*parts)
        way = "first -> second" if sign * gap > 0 else "second -> first"
        assert found.direction == way
        assert found.gap == pytest.approx(abs(gap), rel=1e-9)
        assert 0 < found.low <= found.gap <= found.high
        assert found.share > 0.95
        assert list(found.drift) == pytest.approx(drift[::sign], rel=1e-9)
        assert found.p <= 0.01


@pytest.mark.usefixtures("few")
def test_comparing_says_what_it_does_not_imply():
    before, after = shifted("cause")
    found = mt.compare(before, after)
    for words in (
        f"{found.direction} adapts faster",
        f"{found.share:.0%}",
        "says that the first column is the cause",
        "the effect or the mechanism",
        "the second column may be the cause",
        "two columns cannot tell",
        "The first column drifted more",
    ):
        assert words in found.says, words
    other = mt.compare(*turned(before, after)).says
    assert "second -> first adapts faster" in other
    assert "says that the second column is the cause" in other
    assert "the first column may be the cause" in other
    assert "The second column drifted more" in other
    assert f"{found.gap:.2g}" in found.says
    assert f"{found.low:.2g} to {found.high:.2g}" in found.says


def test_how_sure_is_told_by_a_bootstrap():
    """Rows drawn again, and everything computed anew by the plain loop."""
    world = mt.World(*(part[0] for part in mt.draw(1, 3, rng(4))))
    star = mt.change(world, "mechanism", rng(5)).log_joint()
    before, after = columns(world.log_joint(), 60, 1), columns(star, 40, 2)
    found = mt.compare(before, after)
    draws = np.random.default_rng(7)
    again = []
    for _ in range(250):
        parts = (
            part[draws.integers(0, len(part), len(part))] for part in (before, after)
        )
        again.append(lead(*parts, 3)[0])
    again = np.array(again) * (1 if found.direction == "first -> second" else -1)
    share = (again > 0).mean()
    assert 0.6 < share < 0.8  # or anything would do
    error = math.sqrt(share * (1 - share) * (1 / 250 + 1 / 1000))
    assert found.share == pytest.approx(share, abs=5 * error)
    low, high = np.quantile(again, (0.025, 0.975))
    assert found.low == pytest.approx(low, abs=(high - low) / 5)
    assert found.high == pytest.approx(high, abs=(high - low) / 5)
    assert found.low < 0 < found.high


def test_the_chance_is_that_of_the_likelihood_ratio():
    """Against SciPy's G-test, whose law holds for so many rows."""
    cells, after = [[0, 0], [0, 1], [1, 0], [1, 1]], [304, 245, 242, 209]
    exact = stats.chi2_contingency([[250] * 4, after], lambda_="log-likelihood").pvalue
    assert 0.01 < exact < 0.04
    rows = [np.repeat(cells, counts, axis=0) for counts in ([250] * 4, after)]
    found = [mt.compare(*rows, seed=seed).p for seed in range(8)]
    error = math.sqrt(exact / 8000)
    assert np.mean(found) == pytest.approx(exact, abs=5 * error + 0.001)
    assert len(set(found)) > 1


@pytest.mark.usefixtures("few")
def test_two_random_parts_are_rarely_called_shifted():
    called = 0
    for seed in range(60):
        rows = np.random.default_rng(seed).integers(0, 3, (400, 2))
        try:
            mt.compare(rows[:200], rows[200:])
            called += 1
        except BadRequest as told:
            assert "no shift" in str(told)
    assert called <= 10  # of 60 at 5 %: more has a chance of 2e-4


@pytest.mark.usefixtures("few")
def test_numbers_are_cut_at_quantiles_and_names_do_not_matter():
    before, after = shifted("cause")
    found = mt.compare(before, after)
    named = [
        np.array([-7.5, 0.0, 2.0, 3.5, 4.0, 1e6])[part] for part in (before, after)
    ]
    assert mt.compare(*named) == found
    assert mt.compare(before.tolist(), torch.tensor(after)) == found
    assert mt.compare(before, after, bins=6) == found
    draws = np.random.default_rng(0)
    a = draws.normal(size=(2, 3000)) * [[1], [2]] + [[0], [1]]
    b = np.tanh(a) + 0.3 * draws.normal(size=a.shape)
    x, y = np.stack([a, b], 2)
    found = mt.compare(x, y)
    up = [np.stack([np.exp(p[:, 0]), p[:, 1] ** 3], 1) for p in (x, y)]
    assert mt.compare(*up) == found
    for bins in (3, 10):
        shares = np.arange(1, bins) / bins
        edges = np.quantile(np.concatenate([x, y]), shares, axis=0)
        coded = [
            np.stack([np.searchsorted(edges[:, i], p[:, i]) for i in (0, 1)], 1)
            for p in (x, y)
        ]
        few = mt.compare(x, y, bins=bins)
        assert mt.compare(*coded, bins=bins) == few
        gap, drift = lead(*coded, bins)
        assert few.gap == pytest.approx(abs(gap), rel=1e-9)
        assert list(few.drift) == pytest.approx(drift, rel=1e-9)
    assert few == found


@pytest.mark.usefixtures("few")
def test_many_equal_values_are_no_constant_column():
    """19 of 20 rows are tied at the bottom, the rest differ."""
    draws = np.random.default_rng(0)
    x, y = (draws.exponential(size=(2000, 2)) for _ in range(2))
    for part, share in ((x, 0.95), (y, 0.7)):
        low = draws.random(2000) < share
        part[low, 0] = 0
        part[~low, 1] += 1
    found = mt.compare(x, y)
    assert found.gap > 0
    assert found.p <= 0.01


@pytest.mark.usefixtures("few")
def test_answers_follow_the_seed():
    before, after = shifted("cause", 300, seed=5)
    found = mt.compare(before, after)
    assert mt.compare(before, after, seed=0) == found
    other = mt.compare(before, after, seed=1)
    assert (other.low, other.high) != (found.low, found.high)
    assert other.gap == found.gap
    assert mt.compare(before, after, 10, 1) == other


@pytest.mark.usefixtures("few")
def test_what_cannot_be_answered_is_declined_in_one_sentence():
    before, after = shifted("cause", 500)
    good = np.random.default_rng(0).integers(0, 3, (600, 2)).astype(float)
    halves = good[:300], good[300:]
    hole, endless = after.astype(float), before.astype(float)
    hole[3:5, 1] = math.nan
    endless[7, 0] = -math.inf
    same = good.copy()
    same[:, 1] = 4
    once = np.concatenate([good, [[1, 9]]])  # varies after the change only
    many = np.random.default_rng(1).normal(size=(499, 2))
    world, wide = mt.draw(2, 4, rng(0)), np.c_[after, after[:, 0]]
    letters = np.array([["a", "b"]] * 40)
    bad = {
        r"no shift": lambda: mt.compare(*halves),
        r"p = 0\.\d\d\)": lambda: mt.compare(*halves),
        r"after holds NaN or infinity in 2 rows": lambda: mt.compare(before, hole),
        r"before holds NaN or infinity in 1 row": lambda: mt.compare(endless, after),
        r"before has 29 rows": lambda: mt.compare(before[:29], after),
        r"after has 29 rows.* 30": lambda: mt.compare(before, after[:29]),
        r"after has 0 rows": lambda: mt.compare(before, after[:0]),
        r"second column of before is constant": lambda: mt.compare(same, once),
        r"first column of before is constant": lambda: mt.compare(*turned(same, once)),
        r"10 x 10 categories .* 499 rows.* 500": lambda: mt.compare(many, many + 1),
        r"before has the shape \[500\]": lambda: mt.compare(before[:, 0], after),
        r"after has the shape \[500, 3\]": lambda: mt.compare(before, wide),
        r"before has the shape \[2, 500\]": lambda: mt.compare(before.T, after),
        r"before holds .*numbers?": lambda: mt.compare(letters, after),
        r"after .*rows": lambda: mt.compare(before, [[1, 2], [3]] * 40),
        r"bins is 1\b": lambda: mt.compare(before, after, bins=1),
        r"concentration is 0": lambda: mt.log_dirichlet((3,), 0, rng()),
        r"concentration is nan": lambda: mt.log_dirichlet((3,), math.nan, rng()),
        r"site 'Cause' is unknown.*cause.*row": lambda: mt.change(
            world, "Cause", rng()
        ),
        r"size is 0\b": lambda: mt.change(world, "cause", rng(), 0),
        r"size is 1\.1": lambda: mt.change(world, "row", rng(), 1.1),
        r"size is nan": lambda: mt.change(world, "row", rng(), math.nan),
    }
    for words, call in bad.items():
        refused(words, call)


@pytest.mark.usefixtures("few")
def test_enough_is_enough():
    """Thirty rows, five a cell, and a column that is constant after the change."""
    before = np.array([[0, 0], [0, 1], [1, 0], [1, 1]] * 5 + [[0, 1], [1, 0]] * 5)
    after = np.array([[0, 1], [0, 1], [0, 0]] * 10)
    assert len(before) == len(after) == mt.LEAST
    found = mt.compare(before, after)
    assert found.gap == pytest.approx(abs(lead(before, after, 2)[0]), rel=1e-9)
    draws = np.random.default_rng(0)
    x = draws.normal(size=(500, 2))
    assert mt.compare(x, draws.normal(size=(500, 2)) + 1).p <= 0.01


# The module as it presents itself


@pytest.mark.usefixtures("few")
def test_the_lines_of_the_docstring_run():
    lines = [li.strip() for li in mt.__doc__.splitlines() if li.startswith("    ")]
    assert len(lines) == 5
    before, after = shifted("cause")
    names = dict(vars(mt)) | {"before": before, "after": after}
    for line in lines:
        exec(line, names)
    answer = names["answer"]
    assert answer == mt.compare(before, after)
    shown = [eval(line.split("#")[0].strip(), names) for line in lines[1:]]
    assert answer.direction in shown
    assert answer.says in shown
    assert all(isinstance(each, str | float | tuple) for each in shown)


def test_claims_and_settings_are_declared():
    chapter = CHAPTER
    ids = [f"head_start_{rate}" for rate in ("slow", "medium", "fast")]
    rules = dict.fromkeys([*ids, "dimension", "pairs_drift"], ("above", 0))
    rules |= dict.fromkeys(["gamma", "gamma_large", "both_ways"], ("above", 0.95))
    rules["symmetric"] = ("below", 0.02)
    sites = itertools.product(("effect", "mechanism"), ("", "_sparse"))
    any_site = [f"any_site_{site}{law}" for site, law in sites]
    pairs = [f"pairs_{x}" for x in ("selection", "blocks", "shuffled", "unsorted")]
    rules |= dict.fromkeys([*any_site, *pairs], ("above", 0.5))
    predictors = [f"predictor_{name}" for name in ("distance", "step", "parts")]
    encoders = [f"encoder_{name}" for name in ("one", "best", "sign")]
    rules |= dict.fromkeys([*predictors, *encoders], ("above", 0.9))
    assert {c.id: (c.rule.side, c.rule.bound) for c in chapter.claims} == rules
    shares = {*any_site, *predictors, *encoders, "gamma", "gamma_large", "both_ways"}
    assert {c.id for c in chapter.claims if c.share} == shares
    assert chapter.slug == "meta_transfer"
    assert set(chapter.settings) == {"smoke", "quick", "full"}
    quick, full = chapter.settings["quick"], chapter.settings["full"]
    assert quick == Settings()
    official = (quick.N, quick.steps, quick.batch, quick.rate, quick.gamma_rate)
    assert official == (10, 2, 10, 0.1, 0.01)
    assert (quick.runs, quick.episodes, quick.large) == (256, 500, 100)
    assert quick.head_at == (1, 2, 5, 10, 20)
    assert quick.head_rates == (0.1, 0.3, 1.0)
    assert quick.sizes == (5, 10, 20, 40)
    assert quick.predictor_at == 100
    assert not quick.mixture
    assert full.mixture
    assert (full.runs, full.episodes, max(full.sizes)) == (1024, 1000, 100)
