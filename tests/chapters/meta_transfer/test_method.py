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
from assertions import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp
from rng import normal, rng
from scipy import special, stats
from torch.nn import functional as F

from iclrtut.chapters.meta_transfer import method
from iclrtut.errors import BadRequest

quickly = settings(max_examples=25, derandomize=True)
seeds = st.integers(0, 2**20)
laws = st.sampled_from([1.0, 0.1, 1e-3])
NEVER = 1e-6  # of p-values


def close(result, truth, within=1e-12):
    """Equal to 1e-12 of the largest number, or of 1."""
    truth = torch.as_tensor(truth, dtype=torch.float64)
    assert result.shape == truth.shape
    assert result.dtype == torch.float64
    assert torch.isfinite(result).all()
    scale = max(1.0, truth.abs().max().item()) if truth.numel() else 1
    assert (result - truth).abs().max() <= within * scale if truth.numel() else True
    return True


def joints(R, N, seed=0, rows=1.0):
    """Log joints [R, N, N] from worlds."""
    return method.draw(R, N, rng(seed), rows).log_joint()


def pair(R, N, seed=0, site="cause", rows=1.0):
    """Log joints before and after a change."""
    world = method.draw(R, N, rng(seed), rows)
    return world.log_joint(), method.change(world, site, rng(seed + 1)).log_joint()


def batches(shape, N, seed=0):
    """Indices below N."""
    return torch.randint(N, shape, generator=rng(seed))


# One run at a time, as a careful reader writes it


def one_run(marginal, rows, x, y, rate):
    """(4) by autograd: log-likelihoods before each step, and the logits at the end."""
    marginal = marginal.clone().requires_grad_()
    rows = rows.clone().requires_grad_()
    result = []
    for a, b in zip(x, y, strict=True):
        log_p = marginal.log_softmax(0)[a] + rows.log_softmax(1)[a, b]
        result.append(log_p.sum().item())
        slopes = torch.autograd.grad(-log_p.mean(), (marginal, rows))
        with torch.no_grad():
            marginal -= rate * slopes[0]
            rows -= rate * slopes[1]
    return result, marginal.detach(), rows.detach()


def one_at_a_time(learner, x, y, rate):
    """Log-likelihoods [..., R, T], run by run and episode by episode."""
    flat = [v.reshape(-1, *v.shape[-3:]) for v in (x, y)]
    result = [
        one_run(learner.marginal[r], learner.rows[r], xs[r], ys[r], rate)[0]
        for xs, ys in zip(*flat, strict=True)
        for r in range(len(xs))
    ]
    return torch.tensor(result, dtype=torch.float64).view(x.shape[:-1])


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
    logs = method.log_dirichlet((R, N), c, rng(1))
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
    logs = method.log_dirichlet((50, 100), 1e-3, rng(0))
    assert (logs.exp() == 0).double().mean() > 0.3  # so sparse that many underflow
    assert torch.isfinite(logs).all()
    assert len(torch.unique(logs[logs < -1e-6])) == (logs < -1e-6).sum()
    log_p, log_star = pair(20, 10, rows=1e-3)
    a, b = method.sample(method.draw(20, 10, rng(0), 1e-3), 3, 5, rng(2))
    every = [
        method.deltas(log_p, a, b, 0.5),
        method.kl(log_star, log_p),
        *method.parts(log_p, log_star),
        *method.distances(log_p, log_star),
        *method.first_step(log_p, log_star),
        method.population(method.learn(log_p), log_star, 1.0, 5),
        method.population(method.learn(log_p.mT), log_star.mT, 1.0, 5),
        *method.learning_curves(
            log_p, log_star, a.flatten(1), b.flatten(1), 0.5, (1, 15)
        ),
    ]
    for site in method.SITES:
        for size in (0.3, 1.0):
            world = method.draw(20, 10, rng(4), 1e-3)
            now = method.change(world, site, rng(5), size, 1e-3)
            every += [*now, now.log_joint().logsumexp((-2, -1))]
            close(every[-1], torch.zeros(20))
    assert all(torch.isfinite(each).all() for each in every)


@pytest.mark.parametrize("rows", [1.0, 0.1])
def test_draws_have_their_laws(rows):
    R, N = 3000, 5
    world = method.draw(R, N, rng(3), rows)
    assert (
        stats.kstest(world.cause[:, 2].exp(), stats.beta(1, N - 1).cdf).pvalue > NEVER
    )
    flat = world.effect[:, 1, 3].exp()
    assert stats.kstest(flat, stats.beta(rows, (N - 1) * rows).cdf).pvalue > NEVER
    for one, other in ((world.cause, world.effect[:, 0]), world.effect.unbind(1)[:2]):
        corr = stats.spearmanr(one[:, 0], other[:, 0])
        assert corr.pvalue > NEVER
    again = method.draw(R, N, rng(3), rows)
    assert all(torch.equal(*pair) for pair in zip(world, again, strict=True))
    assert not torch.equal(world.cause, method.draw(R, N, rng(4), rows).cause)


def test_a_new_cause_leaves_the_mechanism():
    world = method.draw(3000, 5, rng(0), 0.3)
    now = method.change(world, "cause", rng(1), rows=0.3)
    assert torch.equal(now.effect, world.effect)
    flat = stats.beta(1, 4).cdf
    assert stats.kstest(now.cause[:, 2].exp(), flat).pvalue > NEVER
    assert stats.spearmanr(now.cause[:, 2], world.cause[:, 2]).pvalue > NEVER


def test_a_new_effect_is_cut_from_the_cause():
    world = method.draw(3000, 5, rng(0), 0.3)
    now = method.change(world, "effect", rng(1), rows=0.3)
    assert torch.equal(now.cause, world.cause)
    close(now.effect, now.effect[:, :1].expand_as(now.effect))
    law = now.effect[:, 0]
    assert stats.kstest(law[:, 2].exp(), stats.beta(1, 4).cdf).pvalue > NEVER
    assert stats.spearmanr(law[:, 2], world.effect[:, 0, 2]).pvalue > NEVER
    close(
        method.parts(world.log_joint(), now.log_joint()).cause, torch.zeros(3000), 1e-11
    )


def test_a_cut_effect_with_the_mean_of_the_logits():
    world = method.draw(4, 5, rng(0))
    now = method.change(world, "geometric", rng(1))
    for r in range(4):
        mean = np.exp([world.effect[r, :, b].mean().item() for b in range(5)])
        for a in range(5):
            close(now.effect[r, a].exp(), mean / mean.sum())
    assert torch.equal(now.cause, world.cause)


def test_a_cut_effect_with_the_marginal_it_had():
    world = method.draw(4, 5, rng(0))
    now = method.change(world, "marginal", rng(1))
    P = world.log_joint().exp().numpy()
    for r in range(4):
        close(now.log_joint()[r].exp(), np.outer(P[r].sum(1), P[r].sum(0)))
    assert torch.equal(now.cause, world.cause)


@pytest.mark.parametrize("rows", [1.0, 0.2])
def test_a_new_mechanism_keeps_the_cause(rows):
    world = method.draw(3000, 4, rng(0))
    now = method.change(world, "mechanism", rng(1), rows=rows)
    assert torch.equal(now.cause, world.cause)
    for a in range(4):
        row = now.effect[:, a, 1].exp()
        assert stats.kstest(row, stats.beta(rows, 3 * rows).cdf).pvalue > NEVER
        assert stats.spearmanr(row, world.effect[:, a, 1]).pvalue > NEVER
    assert stats.spearmanr(now.effect[:, 0, 1], now.effect[:, 1, 1]).pvalue > NEVER


@pytest.mark.parametrize("rows", [1.0, 0.2])
def test_a_new_row_is_one(rows):
    world = method.draw(4000, 4, rng(0))
    now = method.change(world, "row", rng(1), rows=rows)
    assert torch.equal(now.cause, world.cause)
    moved = (now.effect - world.effect).abs().amax(-1) > 1e-9
    assert (moved.sum(1) == 1).all()
    at = moved.int().argmax(1)
    assert stats.chisquare(torch.bincount(at, minlength=4)).pvalue > NEVER
    row = now.effect[torch.arange(4000), at, 2].exp()
    assert stats.kstest(row, stats.beta(rows, 3 * rows).cdf).pvalue > NEVER


@pytest.mark.parametrize("site", method.SITES)
def test_the_size_is_a_share_of_the_way_of_logits(site):
    world = method.draw(5, 4, rng(0))
    whole = method.change(world, site, rng(1))
    for size in (0.25, 0.7):
        part = method.change(world, site, rng(1), size)
        for old, new, result in zip(world, whole, part, strict=True):
            close(result.logsumexp(-1), torch.zeros(old.shape[:-1]))
            way = (1 - size) * old.exp().log() + size * new
            close(result.exp(), (way.exp() / way.exp().sum(-1, keepdim=True)))
    again = method.change(world, site, rng(1), 1.0)
    assert all(torch.equal(*pair) for pair in zip(whole, again, strict=True))
    assert not torch.equal(whole.log_joint(), world.log_joint())
    moved = method.kl(whole.log_joint(), world.log_joint())
    half = method.change(world, site, rng(1), 0.5).log_joint()
    assert (method.kl(half, world.log_joint()) < moved).all()
    # worlds of any leading axes, for example the same ones in several episodes
    many = method.World(*(part.expand(3, *part.shape) for part in world))
    now = method.change(many, site, rng(1))
    assert now.log_joint().shape == (3, 5, 4, 4)
    fresh = not torch.allclose(now.log_joint()[0], now.log_joint()[1])
    assert fresh == (site not in ("geometric", "marginal"))


# Samples


@pytest.mark.parametrize("rows", [1.0, 0.05])
def test_samples_have_the_frequencies_of_the_joint(rows):
    world = method.draw(6, 4, rng(0), rows)
    a, b = method.sample(world, 20, 500, rng(1))
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


@pytest.mark.parametrize("u", [0.0, 1 - 2**-53])
def test_what_has_no_probability_is_not_drawn(u, monkeypatch):
    """The lowest and the highest number that torch draws, and sums short of one."""
    p = torch.tensor([0, 0.1, 0.2, 0.7 - 1e-15, 0], dtype=torch.float64)
    world = method.World(p.log(), p.log().expand(5, 5))
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda v, *_, **__: v.fill_(u))
    for each in method.sample(world, 1, 1, rng(0)):
        assert each.item() in ((1,) if u == 0 else (3, 4))


# Learners


@given(seeds, st.integers(2, 5), st.integers(2, 5), laws)
@quickly
def test_both_learners_know_the_joint(seed, n, J, rows):
    log_p = method.log_dirichlet((3, n), 1.0, rng(seed))[
        ..., None
    ] + method.log_dirichlet((3, n, J), rows, rng(seed + 1))
    forward, backward = method.both(log_p)
    close(forward.log_joint(), log_p)
    close(backward.log_joint(), log_p.mT)
    close(forward.marginal, special.logsumexp(log_p.numpy(), 2))
    close(backward.marginal, special.logsumexp(log_p.numpy(), 1))
    close(forward.rows, log_p - forward.marginal[:, :, None])
    close(backward.rows, log_p.mT - backward.marginal[:, :, None])
    assert all(map(torch.equal, method.learn(log_p), forward))


def test_a_learner_is_its_softmaxes():
    learner = method.Learner(normal(2, 3, scale=4), normal(2, 3, 4, seed=1, scale=4))
    for r in range(2):
        P = learner.marginal[r].softmax(0)[:, None] * learner.rows[r].softmax(1)
        close(learner.log_joint()[r].exp(), P)
        shifted = method.Learner(learner.marginal + 700, learner.rows - 900)
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
    learner = method.Learner(
        normal(R, N, seed=seed, scale=3),
        method.log_dirichlet((R, N, J), rows, rng(seed)),
    )
    kept = [part.clone() for part in learner]
    x, y = batches((2, R, T, M), N, seed), batches((2, R, T, M), J, seed + 1)
    result = method.log_likelihoods(learner, x, y, rate)
    close(result, one_at_a_time(learner, x, y, rate))
    assert all(map(torch.equal, learner, kept))
    # the dense route: whole tables, adapted to all batches before
    for t in range(T):
        now = method.adapt(learner, x[0, :, :t], y[0, :, :t], rate).log_joint()
        cells = (J * x[0, :, t] + y[0, :, t]).view(R, M)
        close(result[0, :, t], now.flatten(1).gather(1, cells).sum(1))


def test_rows_that_few_examples_meet_again_have_moved():
    """Fewer examples than rows: only the rows that they meet are copied."""
    learner = method.learn(joints(3, 100))
    x, y = batches((3, 2, 10), 5), batches((3, 2, 10), 100, 1)
    result = method.log_likelihoods(learner, x, y, 0.5)
    close(result, one_at_a_time(learner, x, y, 0.5))


def test_log_likelihoods_of_many_runs_are_those_of_each():
    """Far more tables than a cache holds: chunks, if there are any, change nothing."""
    log_p = joints(700, 10)
    a, b = batches((5, 700, 3, 6), 10), batches((5, 700, 3, 6), 10, 1)
    learner = method.learn(log_p)
    result = method.log_likelihoods(learner, a, b, 0.7)
    assert result.shape == (5, 700, 3)
    for r in (0, 1, 255, 256, 511, 512, 698, 699):
        one = method.Learner(*(part[r : r + 1] for part in learner))
        for e in range(5):
            alone = method.log_likelihoods(one, a[e, r : r + 1], b[e, r : r + 1], 0.7)
            close(result[e, r : r + 1], alone)
    for e in range(5):
        close(method.log_likelihoods(learner, a[e], b[e], 0.7), result[e])
    deep = method.log_likelihoods(learner, a[None], b[None], 0.7)
    assert torch.equal(deep[0], result)


@pytest.mark.parametrize("shift", [-2000.0, 2000.0])
def test_logits_of_any_height(shift):
    """A constant on a row is nothing, and what would overflow does not."""
    learner = method.learn(joints(4, 5))
    up = method.Learner(learner.marginal + shift, learner.rows + shift)
    x, y = batches((4, 6, 3), 5), batches((4, 6, 3), 5, 1)
    result = method.log_likelihoods(learner, x, y, 0.5)
    # the shift itself rounds logits to 2000 eps
    close(method.log_likelihoods(up, x, y, 0.5), result, 1e-11)
    log_joint = method.adapt(learner, x, y, 0.5).log_joint()
    close(method.adapt(up, x, y, 0.5).log_joint(), log_joint, 1e-11)


def test_steps_of_great_rates():
    learner = method.learn(joints(4, 5))
    x, y = batches((4, 6, 3), 5), batches((4, 6, 3), 5, 1)
    for rate in (5.0, 99.0):
        truth = one_at_a_time(learner, x, y, rate)
        close(method.log_likelihoods(learner, x, y, rate), truth)
    for call in (method.log_likelihoods, method.adapt):
        with pytest.raises(BadRequest, match=r"steps times rate is 600: .*[^.]\.$"):
            call(learner, x, y, 100.0)


@given(seeds, st.integers(2, 5), st.integers(0, 4), st.integers(1, 6), laws)
@quickly
def test_adapting_is_stochastic_gradient_descent(seed, N, T, M, rows):
    learner = method.learn(joints(3, N, seed, rows))
    kept = [part.clone() for part in learner]
    x, y = batches((3, T, M), N, seed), batches((3, T, M), N, seed + 1)
    result = method.adapt(learner, x, y, 0.8)
    for r in range(3):
        _, end, table = one_run(learner.marginal[r], learner.rows[r], x[r], y[r], 0.8)
        close(result.marginal[r].log_softmax(0), end.log_softmax(0))
        close(result.rows[r].log_softmax(1), table.log_softmax(1))
    assert all(map(torch.equal, learner, kept))
    assert result.marginal.shape == learner.marginal.shape
    assert result.rows.shape == learner.rows.shape


@given(seeds, st.integers(2, 5), st.integers(1, 4), st.sampled_from([0.1, 2.0]))
@quickly
def test_delta_is_the_lead_of_the_first_direction(seed, N, T, rate):
    log_p, _ = pair(3, N, seed)
    a, b = batches((2, 3, T, 5), N, seed), batches((2, 3, T, 5), N, seed + 1)
    forward = method.Learner(
        log_p.logsumexp(2), log_p - log_p.logsumexp(2, keepdim=True)
    )
    turned = log_p.transpose(1, 2)
    backward = method.Learner(turned.logsumexp(2), turned - turned.logsumexp(2, True))
    lead = one_at_a_time(forward, a, b, rate) - one_at_a_time(backward, b, a, rate)
    result = method.deltas(log_p, a, b, rate)
    close(result, lead.sum(-1), 2e-12)  # of differences of sums over T batches
    assert result.shape == (2, 3)
    # roles swapped: the same number, turned round
    close(method.deltas(log_p.mT, b, a, rate), -result)


# Exact quantities


@given(seeds, st.integers(2, 5), st.integers(2, 5), laws)
@quickly
def test_kl_is_the_sum_over_cells(seed, n, J, rows):
    p, star = (
        method.log_dirichlet((2, 3, n, J), rows, rng(seed + i)).sub(math.log(n))
        for i in (0, 1)
    )
    result = method.kl(star, p)
    close(result, dense_kl(star, p))
    assert (result >= -1e-12).all()
    close(method.kl(p, p), torch.zeros(2, 3))
    if rows == 1:
        entropy = stats.entropy(star.exp().flatten(2), p.exp().flatten(2), axis=2)
        close(result, entropy)


@given(seeds, st.integers(2, 5), st.sampled_from(method.SITES), laws)
@quickly
def test_the_kl_splits_both_ways(seed, N, site, rows):
    log_p, log_star = pair(3, N, seed, site, rows)
    result = method.parts(log_p, log_star)
    whole = dense_kl(log_star, log_p)
    close(result.cause + result.mechanism, whole)
    close(result.effect + result.inverse, whole)
    star, p = log_star.numpy(), log_p.numpy()
    for i, name in ((2, "cause"), (1, "effect")):
        old, new = (special.logsumexp(v, i) for v in (p, star))
        close(getattr(result, name), (np.exp(new) * (new - old)).sum(1))
    if site == "cause":
        close(result.mechanism, torch.zeros(3), 1e-11)
        assert (result.cause >= result.effect - 1e-11).all()
    else:
        close(result.cause, torch.zeros(3), 1e-11)
        assert (result.effect >= -1e-11).all()
    if site == "marginal":
        close(result.effect, torch.zeros(3), 1e-11)
    swapped = method.parts(log_p.mT, log_star.mT)
    close(swapped.cause, result.effect)
    close(swapped.inverse, result.mechanism)


def centred(v):
    return v - v.mean(-1, keepdims=True)


@given(seeds, st.integers(2, 6), st.sampled_from(method.SITES), laws)
@quickly
def test_distances_are_those_of_centred_logits(seed, N, site, rows):
    log_p, log_star = pair(3, N, seed, site, rows)
    forward, backward = method.distances(log_p, log_star)
    for result, p, star in (
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
        close(result, total)
    learners = method.learn(log_p), method.learn(log_star)
    close(method.distance(*learners), forward)
    up = method.Learner(learners[0].marginal + 3, learners[0].rows + normal(3, N, 1))
    close(method.distance(up, learners[1]), forward, 1e-11)


def expected_nll(marginal, rows, log_star):
    """What population descent descends on: one run, for autograd."""
    log_p = marginal.log_softmax(0)[:, None] + rows.log_softmax(1)
    return -(log_star.exp() * log_p).sum()


@given(seeds, st.integers(2, 5), st.sampled_from(method.SITES), laws)
@quickly
def test_the_first_step_is_the_squared_gradient(seed, N, site, rows):
    """(5) by autograd, and by its sums."""
    log_p, log_star = pair(2, N, seed, site, rows)
    result = method.first_step(log_p, log_star)
    for G, p, star in zip(
        result, (log_p, log_p.mT), (log_star, log_star.mT), strict=True
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


@given(seeds, st.integers(2, 5), st.sampled_from([0.1, 1.0]), laws, st.booleans())
@quickly
def test_population_steps_are_gradient_descent(seed, N, rate, rows, weighted):
    log_p, log_star = pair(2, N, seed, "effect", rows)
    learner = method.Learner(normal(2, N, seed=seed), method.learn(log_p).rows)
    kept = [part.clone() for part in learner]
    result = method.population(learner, log_star, rate, 4, weighted)
    assert all(map(torch.equal, learner, kept))
    assert result.shape == (5, 2)
    close(result[0], dense_kl(log_star, learner.log_joint()))
    for r in range(2):
        parts = [part[r].clone().requires_grad_() for part in learner]
        for t in range(1, 5):
            slopes = torch.autograd.grad(expected_nll(*parts, log_star[r]), parts)
            with torch.no_grad():
                met = 1 if weighted else log_star[r].exp().sum(1)[:, None]
                parts[0] -= rate * slopes[0]
                parts[1] -= rate * slopes[1] / met
            log_q = method.Learner(*(part.detach() for part in parts)).log_joint()
            close(result[t, r], dense_kl(log_star[r], log_q), 1e-9)


@given(seeds, st.integers(2, 5), st.sampled_from([0.1, 1.0]))
@quickly
def test_learning_curves_are_exact_after_single_examples(seed, N, rate):
    log_p, log_star = pair(2, N, seed)
    a, b = batches((2, 8), N, seed), batches((2, 8), N, seed + 1)
    at = (0, 1, 2, 5, 8)
    curves = method.learning_curves(log_p, log_star, a, b, rate, at)
    close(curves.gap, curves.backward - curves.forward)
    for path, p, star, x, y in (
        (curves.forward, log_p, log_star, a, b),
        (curves.backward, log_p.mT, log_star.mT, b, a),
    ):
        assert path.shape == (5, 2)
        for (i, n), r in itertools.product(enumerate(at), range(2)):
            m = p[r].logsumexp(1)
            steps = x[r, :n, None], y[r, :n, None]
            _, *end = one_run(m, p[r] - m[:, None], *steps, rate)
            close(path[i, r], dense_kl(star[r], method.Learner(*end).log_joint()))
    one = method.learning_curves(log_p, log_star, a, b, rate, (5,))
    close(one.gap[0], curves.gap[3])


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
    inputs = torch.tensor([gamma, log_l + delta, log_l], dtype=torch.float64)
    assert method.regret(*inputs).item() == pytest.approx(exact, rel=1e-12, abs=1e-9)


@pytest.mark.parametrize("height", [-5.0, -5000.0])
def test_the_slope_is_the_derivative_of_the_regret(height):
    """And the plain mixture of likelihoods has none at -5000."""
    gamma = normal(200, seed=1, scale=3).requires_grad_()
    forward = height + normal(200, seed=2, scale=4)
    backward = height + normal(200, seed=3, scale=4)
    R = method.regret(gamma, forward, backward)
    by_autograd = torch.autograd.grad(R.sum(), gamma)[0]
    result = method.slope(gamma.detach(), forward - backward)
    # Delta is a difference of numbers near 5000, known to 5000 eps
    assert (result - by_autograd).abs().max() < 1e-11
    p = gamma.sigmoid()
    naive = -(p * forward.exp() + (1 - p) * backward.exp()).log()
    slopes = torch.autograd.grad(naive.sum(), gamma)[0]
    if height == -5:
        assert (result - slopes).abs().max() < 1e-11
    else:
        assert slopes.isnan().all()


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
            method.regret(gamma, ahead, behind).sum().backward()
            optimiser.step()
            path.append(gamma.detach().clone())
        close(method.follow(forward - backward, rate, rms), torch.stack(path), 1e-9)
    # as the official code: RMSprop at 1e-2 by default
    usual = method.follow(forward - backward)
    assert torch.equal(usual, method.follow(forward - backward, 1e-2, True))
    assert usual.shape == (61, 7)
    assert (usual[0] == 0).all()


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
    result = method.fixed_point(deltas)
    assert result.shape == (2,)
    grid = np.concatenate([10.0 ** np.arange(-12, -2), np.linspace(0.001, 0.999, 999)])
    grid = np.concatenate([grid, 1 - 10.0 ** np.arange(-12, -2)])
    for p, d in zip(result.tolist(), deltas.T.numpy(), strict=True):
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


def test_fixed_points_at_the_ends():
    ends = torch.tensor([[1.0, -1, 5e3, -5e3, 5e3, 5e3], [2, -2, 4e3, -1, -5e3, -0.5]])
    result = method.fixed_point(ends.double()).tolist()
    assert result[:4] == pytest.approx([1, 0, 1, 0], abs=1e-15)
    assert result[4] == pytest.approx(0.5)
    # 1 / p = (1 - e^-0.5) / (1 - p (1 - e^-0.5))
    low = -math.expm1(-0.5)
    assert result[5] == pytest.approx(min(1, 1 / (2 * low)))


# Gamma, result


@pytest.fixture
def calls(monkeypatch):
    """The arguments of `deltas`, by name, and what it returned."""
    calls, real = [], method.deltas

    def spy(*args, **kwargs):
        arguments = inspect.signature(real).bind(*args, **kwargs).arguments
        arguments["result"] = real(*args, **kwargs)
        calls.append(arguments)
        return arguments["result"]

    monkeypatch.setattr(method, "deltas", spy)
    return calls


def test_discovering_is_following_the_leads(calls):
    world = method.draw(6, 5, rng(0))
    result = method.discover(
        world, rng(1), episodes=20, steps=3, batch=4, rate=0.2, gamma_rate=0.05
    )
    assert result.shape == (21, 6)
    leads = torch.cat([each["result"].reshape(-1, 6) for each in calls])
    assert leads.shape == (20, 6)
    close(result, method.follow(leads, 0.05, True))
    for each in calls:
        close(each["log_joint"], world.log_joint())
        assert each["a"].shape[-3:] == each["b"].shape[-3:] == (6, 3, 4)
        assert each["rate"] == 0.2
    usual = method.discover(world, rng(1), 2)
    again = method.discover(world, rng(1), 2, "cause", False, 2, 10, 0.1, 1e-2, 1.0)
    assert torch.equal(usual, again)
    assert not torch.equal(usual, method.discover(world, rng(2), 2))
    assert method.discover(world, rng(1)).shape == (501, 6)


def examples_of(calls, **changes):
    """Indices that two runs of N = 3 saw, [E, R, all examples], and their world."""
    world = method.draw(2, 3, rng(3))
    method.discover(world, rng(1), 12, steps=2, batch=2000, **changes)
    a, b = (
        torch.cat([each[k].reshape(-1, 2, 4000) for each in calls]) for k in ("a", "b")
    )
    return world, a, b


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("site", [None, "cause", "effect", "mechanism"])
def test_every_episode_has_a_change_of_its_own(site, swapped, calls):
    world, a, b = examples_of(calls, site=site, swapped=swapped)
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


def test_discovered_rows_have_their_concentration(calls):
    _, a, b = examples_of(calls, site="mechanism", rows=1e-2)
    cells = F.one_hot(3 * a + b, 9).double().mean(2).view(12, 2, 3, 3)
    peak = cells.amax(-1) / cells.sum(-1).clamp_min(1e-12)
    assert peak[cells.sum(-1) > 0.01].mean() > 0.9  # a flat law has about 0.6


def test_gamma_finds_the_direction_both_ways():
    world = method.draw(48, 10, rng(0))
    forward = method.discover(world, rng(1), 300)
    assert (forward[-1].sigmoid() > 0.8).all()
    backward = method.discover(world, rng(1), 300, swapped=True)
    close(backward, -forward, 1e-9)


# Two columns of your own


def columns(log_joint, n, seed):
    """Rows [n, 2] of one joint."""
    N, draws = len(log_joint), np.random.default_rng(seed)
    cells = draws.choice(N * N, n, p=log_joint.exp().flatten())
    return np.stack([cells // N, cells % N], 1)


def shifted(site, n=3000, seed=0, N=6):
    """Rows before and after a change of the world whose cause is the first column."""
    world = method.World(*(part[0] for part in method.draw(1, N, rng(seed))))
    star = method.change(world, site, rng(seed + 1)).log_joint()
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
        result = []
        for _ in range(20):
            rows = rows - S.sum(1)[:, None] * special.softmax(rows, 1) + S
            m = m - special.softmax(m) + S.sum(1)
            Q = special.softmax(m)[:, None] * special.softmax(rows, 1)
            result.append((S * np.log(S / Q)).sum())
        return np.mean(result)

    drift = [stats.entropy(S.sum(i), P.sum(i)) for i in (1, 0)]
    return behind(P.T, S.T) - behind(P, S), drift


@pytest.fixture
def few(monkeypatch):
    """Only 200 resamples, for tests of what they do not move."""
    monkeypatch.setattr(method, "RESAMPLES", 200)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("site", ["cause", "effect"])
def test_comparing_says_which_direction_adapts_faster(site, seed):
    """The true one when the cause changed, the wrong one when the effect did."""
    before, after = shifted(site, seed=seed)
    gap, drift = lead(before, after)
    assert (gap > 0) == (site == "cause")
    for parts, sign in (((before, after), 1), (turned(before, after), -1)):
        result = method.compare(*parts)
        way = "first -> second" if sign * gap > 0 else "second -> first"
        assert result.direction == way
        assert result.gap == pytest.approx(sign * gap, rel=1e-9)
        assert result.low <= result.gap <= result.high
        assert result.low * result.high > 0
        assert result.share > 0.95
        assert list(result.drift) == pytest.approx(drift[::sign], rel=1e-9)
        assert result.p <= 0.01


@pytest.mark.usefixtures("few")
def test_the_summary_names_the_columns_and_what_the_lead_does_not_imply():
    before, after = shifted("cause")
    for parts, source, target in (
        ((before, after), "first", "second"),
        (turned(before, after), "second", "first"),
    ):
        summary = method.compare(*parts).summary
        assert summary.startswith(f"{source} -> {target} adapts faster")
        assert f"says that the {source} column is the cause" in summary
        assert f"the {target} column may be the cause" in summary
        assert f"The {source} column drifted more" in summary


def test_how_sure_the_lead_is_by_a_bootstrap():
    """Rows drawn again, and everything computed anew by the plain loop."""
    world = method.World(*(part[0] for part in method.draw(1, 3, rng(4))))
    star = method.change(world, "mechanism", rng(5)).log_joint()
    before, after = columns(world.log_joint(), 60, 1), columns(star, 40, 2)
    result = method.compare(before, after)
    draws = np.random.default_rng(7)
    again = []
    for _ in range(250):
        parts = (
            part[draws.integers(0, len(part), len(part))] for part in (before, after)
        )
        again.append(lead(*parts, 3)[0])
    again = np.array(again)
    share = (np.sign(again) == np.sign(result.gap)).mean()
    assert 0.6 < share < 0.8  # or anything would do
    error = math.sqrt(share * (1 - share) * (1 / 250 + 1 / 1000))
    assert result.share == pytest.approx(share, abs=5 * error)
    low, high = np.quantile(again, (0.025, 0.975))
    assert result.low == pytest.approx(low, abs=(high - low) / 5)
    assert result.high == pytest.approx(high, abs=(high - low) / 5)
    assert result.low < 0 < result.high and result.direction == "undecided"
    for answer in (result, method.compare(*turned(before, after))):
        assert answer.summary.startswith("Undecided: first -> second is ahead by ")
        assert "contains zero" in answer.summary
        assert "is the cause" not in answer.summary
        more = "first" if answer.drift[0] > answer.drift[1] else "second"
        assert f"The {more} column drifted more" in answer.summary


def test_the_chance_is_that_of_the_likelihood_ratio():
    """Against SciPy's G-test, whose law holds for so many rows."""
    cells, after = [[0, 0], [0, 1], [1, 0], [1, 1]], [304, 245, 242, 209]
    exact = stats.chi2_contingency([[250] * 4, after], lambda_="log-likelihood").pvalue
    assert 0.01 < exact < 0.04
    rows = [np.repeat(cells, counts, axis=0) for counts in ([250] * 4, after)]
    result = [method.compare(*rows, seed=seed).p for seed in range(8)]
    error = math.sqrt(exact / 8000)
    assert np.mean(result) == pytest.approx(exact, abs=5 * error + 0.001)
    assert len(set(result)) > 1


@pytest.mark.usefixtures("few")
def test_two_random_parts_are_rarely_called_shifted():
    called = 0
    for seed in range(60):
        rows = np.random.default_rng(seed).integers(0, 3, (400, 2))
        try:
            method.compare(rows[:200], rows[200:])
            called += 1
        except BadRequest as error:
            assert "no shift" in str(error)
    assert called <= 10  # of 60 at 5 %: more has a chance of 2e-4


@pytest.mark.usefixtures("few")
def test_numbers_are_cut_at_quantiles_and_names_do_not_matter():
    before, after = shifted("cause")
    result = method.compare(before, after)
    named = [
        np.array([-7.5, 0.0, 2.0, 3.5, 4.0, 1e6])[part] for part in (before, after)
    ]
    assert method.compare(*named) == result
    assert method.compare(before.tolist(), torch.tensor(after)) == result
    assert method.compare(before, after, bins=6) == result
    draws = np.random.default_rng(0)
    a = draws.normal(size=(2, 3000)) * [[1], [2]] + [[0], [1]]
    b = np.tanh(a) + 0.3 * draws.normal(size=a.shape)
    x, y = np.stack([a, b], 2)
    result = method.compare(x, y)
    up = [np.stack([np.exp(p[:, 0]), p[:, 1] ** 3], 1) for p in (x, y)]
    assert method.compare(*up) == result
    for bins in (3, 10):
        shares = np.arange(1, bins) / bins
        edges = np.quantile(np.concatenate([x, y]), shares, axis=0)
        coded = [
            np.stack([np.searchsorted(edges[:, i], p[:, i]) for i in (0, 1)], 1)
            for p in (x, y)
        ]
        few = method.compare(x, y, bins=bins)
        assert method.compare(*coded, bins=bins) == few
        gap, drift = lead(*coded, bins)
        assert few.gap == pytest.approx(gap, rel=1e-9)
        assert list(few.drift) == pytest.approx(drift, rel=1e-9)
    assert few == result
    for n, bins in ((30, 2), (80, 4), (244, 6), (245, 7), (499, 9), (500, 10)):
        assert method.compare(x[:n], y) == method.compare(x[:n], y, bins=bins)


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
    world, wide = method.draw(2, 4, rng(0)), np.c_[after, after[:, 0]]
    letters = np.array([["a", "b"]] * 40)
    bad = {
        r"no shift": lambda: method.compare(*halves),
        r"p = 0\.\d\d\)": lambda: method.compare(*halves),
        r"after holds NaN or infinity in 2 rows": lambda: method.compare(before, hole),
        r"before holds NaN or infinity in 1 row": lambda: method.compare(
            endless, after
        ),
        r"before has 29 rows": lambda: method.compare(before[:29], after),
        r"after has 29 rows.* 30": lambda: method.compare(before, after[:29]),
        r"after has 0 rows": lambda: method.compare(before, after[:0]),
        r"second column of before is constant": lambda: method.compare(same, once),
        r"first column of before is constant": lambda: method.compare(
            *turned(same, once)
        ),
        r"10 x 10 categories .* 499 rows.* 500": lambda: method.compare(
            many, many + 1, bins=10
        ),
        r"before has the shape \[500\]": lambda: method.compare(before[:, 0], after),
        r"after has the shape \[500, 3\]": lambda: method.compare(before, wide),
        r"before has the shape \[2, 500\]": lambda: method.compare(before.T, after),
        r"before holds .*numbers?": lambda: method.compare(letters, after),
        r"after .*rows": lambda: method.compare(before, [[1, 2], [3]] * 40),
        r"bins is 1\b": lambda: method.compare(before, after, bins=1),
        r"concentration is 0": lambda: method.log_dirichlet((3,), 0, rng()),
        r"concentration is nan": lambda: method.log_dirichlet((3,), math.nan, rng()),
        r"site 'Cause' is unknown.*cause.*row": lambda: method.change(
            world, "Cause", rng()
        ),
        r"size is 0\b": lambda: method.change(world, "cause", rng(), 0),
        r"size is 1\.1": lambda: method.change(world, "row", rng(), 1.1),
        r"size is nan": lambda: method.change(world, "row", rng(), math.nan),
    }
    for words, call in bad.items():
        refused(words, call)


@pytest.mark.usefixtures("few")
def test_enough_is_enough():
    """Thirty rows, five a cell, and a column that is constant after the change."""
    before = np.array([[0, 0], [0, 1], [1, 0], [1, 1]] * 5 + [[0, 1], [1, 0]] * 5)
    after = np.array([[0, 1], [0, 1], [0, 0]] * 10)
    assert len(before) == len(after) == method.LEAST_ROWS
    result = method.compare(before, after)
    assert result.gap == pytest.approx(lead(before, after, 2)[0], rel=1e-9)
    draws = np.random.default_rng(0)
    x = draws.normal(size=(500, 2))
    assert method.compare(x, draws.normal(size=(500, 2)) + 1).p <= 0.01


# The module as it presents itself


@pytest.mark.usefixtures("few")
def test_the_lines_of_the_docstring_run():
    lines = [li.strip() for li in method.__doc__.splitlines() if li.startswith("    ")]
    assert len(lines) == 5
    before, after = shifted("cause")
    names = dict(vars(method)) | {"before": before, "after": after}
    for line in lines:
        exec(line, names)
    answer = names["answer"]
    assert answer == method.compare(before, after)
    shown = [eval(line.split("#")[0].strip(), names) for line in lines[1:]]
    assert answer.direction in shown
    assert answer.summary in shown
    assert all(isinstance(each, str | float | tuple) for each in shown)
