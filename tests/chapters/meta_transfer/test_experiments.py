"""The discrete experiments on meta-transfer, against plain loops and closed forms."""

from itertools import product

import numpy as np
import pytest
import runs
import torch
from rng import rng
from scipy import stats
from scipy.special import expit, log_softmax, logsumexp, softmax

from iclrtut.chapters.meta_transfer import (
    CHAPTER,
    experiments,
    graphs,
    method,
    training,
)
from iclrtut.errors import BadRequest, RunFailed

SLUG = "meta_transfer"
folder, start = runs.folder, runs.of(SLUG)
OTHERS = ("encoder_", "real_")  # claims that are measured elsewhere
MINE = [c.id for c in CHAPTER.claims if not c.id.startswith(OTHERS)]


def close(result, expected, tolerance=1e-10):
    assert np.abs(np.asarray(result) - np.asarray(expected)).max() <= tolerance


# One run, one example, one logit at a time


class Slow:
    """A learner of one joint [N, N], first index to second, in plain NumPy."""

    def __init__(self, log_joint):
        self.marginal = logsumexp(log_joint, axis=1)
        self.rows = log_joint - self.marginal[:, None]

    def log_p(self, i, j):
        return log_softmax(self.marginal)[i] + log_softmax(self.rows[i])[j]

    def step(self, pairs, rate):
        """SGD on the mean negative log-likelihood of a batch."""
        d_marginal, d_rows = np.zeros_like(self.marginal), np.zeros_like(self.rows)
        for i, j in pairs:
            d_marginal += softmax(self.marginal) - np.eye(len(self.marginal))[i]
            d_rows[i] += softmax(self.rows[i]) - np.eye(len(self.rows[i]))[j]
        self.marginal = self.marginal - rate * d_marginal / len(pairs)
        self.rows = self.rows - rate * d_rows / len(pairs)

    def kl(self, log_star):
        log_p = [
            log_softmax(self.marginal)[i] + log_softmax(row)
            for i, row in enumerate(self.rows)
        ]
        return (np.exp(log_star) * (log_star - log_p)).sum()


def slow_kls(shifted, r, rate, at):
    """KL of both learners of run r after `at` single examples, two lists."""
    p, star = shifted.log_p[r].numpy(), shifted.log_star[r].numpy()
    result = []
    for turn in (False, True):
        learner, goal = (Slow(p.T), star.T) if turn else (Slow(p), star)
        pairs = list(zip(shifted.a[r].tolist(), shifted.b[r].tolist(), strict=True))
        observed = {0: learner.kl(goal)}
        for n, pair in enumerate(pairs, 1):
            learner.step([pair[::-1] if turn else pair], rate)
            observed[n] = learner.kl(goal) if n in at else None
        result.append([observed[n] for n in at])
    return result


def slow_delta(log_joint, a, b, rate):
    """log L_{A->B} - log L_{B->A} of one run, one example a step."""
    total = 0.0
    for sign, joint, x, y in ((1, log_joint, a, b), (-1, log_joint.T, b, a)):
        learner = Slow(joint)
        for i, j in zip(x, y, strict=True):
            total += sign * learner.log_p(i, j)
            learner.step([(i, j)], rate)
    return total


# Draws


def test_a_shift_changes_what_it_says_and_draws_from_what_is_then():
    shifted = experiments.shift(rng(), 4, 3, 20_000)
    assert shifted.log_p.shape == shifted.log_star.shape == (4, 3, 3)
    assert shifted.a.shape == shifted.b.shape == (4, 20_000)
    before, after = (p.log_softmax(2) for p in shifted[:2])
    close(before, after, 1e-12)  # the cause alone moved
    assert (shifted.log_p - shifted.log_star).abs().amax((1, 2)).min() > 1e-3
    for r in range(4):
        observed = np.bincount((3 * shifted.a[r] + shifted.b[r]).numpy(), minlength=9)
        p = shifted.log_star[r].exp().flatten().numpy()
        assert stats.chisquare(observed, 20_000 * p / p.sum()).pvalue > 1e-4


def test_flat_worlds_treat_a_and_b_alike():
    world = experiments.flat(500, 3, rng())
    p = world.log_joint().exp()
    close(p.sum((1, 2)), 1, 1e-12)
    for i, j in product(range(3), range(3)):  # each cell of Dirichlet(1, ..., 1)
        cell = stats.kstest(p[:, i, j].numpy(), stats.beta(1, 8).cdf)
        assert cell.pvalue > 1e-4
    for marginal in (p.sum(1), p.sum(2)):
        law = stats.kstest(marginal[:, 0].numpy(), stats.beta(3, 6).cdf)
        assert law.pvalue > 1e-4


# The head start


def test_the_head_start_is_the_mean_gap_of_plain_loops():
    run = start(runs=3, N=4, head_at=(1, 2, 6))
    result = experiments.measure_head_start(run)
    shifted = experiments.shift(run.generator("head start"), 3, 4, 6)
    assert list(result) == [f"head_start_{k}" for k in ("slow", "medium", "fast")]
    for numbers, rate in zip(result.values(), run.settings.head_rates, strict=True):
        assert list(numbers) == ["value", "k1", "k2", "k6"]
        kls = np.array([slow_kls(shifted, r, rate, (1, 2, 6)) for r in range(3)])
        expected = (kls[:, 1] - kls[:, 0]).mean(0)
        close([numbers[k] for k in ("k1", "k2", "k6")], expected)
        assert numbers["value"] == min(numbers[k] for k in ("k1", "k2", "k6"))


@pytest.mark.parametrize("site", ["cause", "effect"])
def test_curves_are_those_of_plain_loops(site):
    run = start(runs=2, N=3, head_at=(1, 2))
    at, (forward, backward) = experiments.curves(run, site)
    shifted = experiments.shift(run.generator(f"curves {site}"), 2, 3, 50, site)
    assert (at[0], at[-1]) == (0, 50)
    assert at == sorted(set(at))
    assert forward.shape == backward.shape == (len(at), 2)
    for r in range(2):
        expected = slow_kls(shifted, r, 0.3, at)
        close(forward[:, r], expected[0])
        close(backward[:, r], expected[1])


# Gamma


ENDS = [0.049, 0.051, 0.45, 0.52, 0.949, 0.951]


@pytest.fixture
def discover_calls(monkeypatch):
    """What `discover` is called with; it answers with ends set beforehand."""
    calls = []

    def discover(world, generator, **options):
        calls.append((world, options))
        runs = len(world.cause)
        sigma = torch.tensor(ENDS, dtype=torch.float64)
        ends = sigma.repeat(runs)[:runs].logit()
        return torch.stack([torch.zeros(runs).double(), ends])

    monkeypatch.setattr(method, "discover", discover)
    return calls


OFFICIAL = {"episodes": 7, "steps": 3, "batch": 4, "rate": 0.2, "gamma_rate": 0.05}


def test_sure_runs_are_counted_on_their_own_side(discover_calls):
    run = start(runs=6, N=5, large=9, large_runs=12, **OFFICIAL)
    small, plain = (training.Beliefs(torch.zeros(6).double(), 7) for _ in "ab")
    with torch.no_grad():
        small.gamma += torch.tensor(ENDS).logit()
        plain.gamma += torch.tensor([0.96] * 4 + [0.6, 0.4]).logit()
    result, paths = experiments.measure_gamma(run, small, plain)
    assert {id: numbers["successes"] for id, numbers in result.items()} == {
        "gamma": 1, "gamma_plain": 4, "gamma_large": 2, "both_ways": 1,
    }  # fmt: skip
    assert [numbers["trials"] for numbers in result.values()] == [6, 6, 12, 6]
    assert [numbers["right"] for numbers in result.values()] == [
        1 / 2,
        5 / 6,
        1 / 2,
        1 / 2,
    ]
    assert result["gamma"]["value"] == 1 / 6
    assert torch.equal(paths.small, small.path) and len(paths.plain) == 8
    assert [tuple(w.effect.shape) for w, _ in discover_calls] == [(12, 9, 9), (6, 5, 5)]
    for (_, options), swapped in zip(discover_calls, (False, True), strict=True):
        assert options == {**OFFICIAL, "swapped": swapped}


@pytest.mark.parametrize("plain", [False, True])
def test_the_loop_of_gamma_follows_the_leads_of_plain_loops(plain):
    run = start(runs=2, N=4, episodes=5, steps=2, batch=1, rate=0.3)
    model, loop = experiments.gamma_loop(run, plain)
    training.train(run, loop, 5, "gamma")
    draws = run.generator("gamma")
    world = method.draw(2, 4, draws)
    for e in range(5):
        new = method.change(world, "cause", draws)
        a, b = (z[..., 0].tolist() for z in method.sample(new, 2, 1, draws))
        for r in range(2):
            lead = slow_delta(world.log_joint()[r].numpy(), a[r], b[r], 0.3)
            close(model.deltas[e, r], lead)
    rate = run.settings.plain_rate if plain else run.settings.gamma_rate
    path = method.follow(model.deltas, rate, rms=not plain)
    assert model.path.shape == (6, 2) and (model.path[0] == 0).all()
    close(model.path, path, 1e-9)


def test_no_change_is_measured_where_a_and_b_are_alike_and_where_not(discover_calls):
    run = start(runs=300, N=5, **OFFICIAL)
    numbers = experiments.measure_symmetric(run)["symmetric"]
    (alike, first), (apart, second) = discover_calls
    assert first == {**OFFICIAL, "site": None}
    assert second == {**OFFICIAL, "site": None, "rate": 1.0}
    # Flat on all cells: P(a) is a sum of five, Beta(5, 20); apart: Beta(1, 4).
    for world, law in ((alike, stats.beta(5, 20)), (apart, stats.beta(1, 4))):
        p = world.cause[:, 0].exp().numpy()
        assert stats.kstest(p, law.cdf).pvalue > 1e-4
    ends = np.tile(ENDS, 50)
    assert numbers["sigma"] == pytest.approx(ends.mean())
    assert numbers["value"] == pytest.approx(abs(ends.mean() - 0.5))
    assert numbers["error"] == pytest.approx(ends.std(ddof=1) / 300**0.5)
    assert numbers["apart"] == pytest.approx(ends.mean())


def test_every_site_and_law_is_measured(discover_calls):
    run = start(site_runs=18, N=5, **OFFICIAL)
    result = experiments.measure_whatever(run)
    assert list(result) == [id for id in MINE if id.startswith("whatever")]
    for (id, numbers), (world, options) in zip(
        result.items(), discover_calls, strict=True
    ):
        rows = 0.2 if id.endswith("sparse") else 1.0
        assert options == {**OFFICIAL, "site": id.split("_")[1], "rows": rows}
        assert (numbers["successes"], numbers["trials"]) == (3, 18)
        assert numbers["reversed"] == 3 / 18
        assert numbers["sigma"] == pytest.approx(0.45)
        squares = world.effect.exp().square().sum(2).mean()
        assert squares == pytest.approx((rows + 1) / (5 * rows + 1), abs=0.1)


# Dimension


def slow_half(log_p, log_star, weighted=True):
    """Population steps of rate 1 until half the KL, one run, one row at a time."""
    learner, star = Slow(log_p), Slow(log_star)
    p = np.exp(star.marginal)
    first, steps = learner.kl(log_star), 0
    while learner.kl(log_star) > first / 2:
        new = learner.rows.copy()
        for i in range(len(p)):
            moved = softmax(learner.rows[i]) - np.exp(star.rows[i])
            new[i] = learner.rows[i] - (p[i] if weighted else 1) * moved
        learner.marginal = learner.marginal - (softmax(learner.marginal) - p)
        learner.rows, steps = new, steps + 1
    return steps


def test_steps_to_half_are_those_of_a_plain_loop():
    run = start(sizes=(2, 3, 10), size_runs=4)
    result, output = experiments.measure_dimension(run)
    known = np.zeros((3, 3, 4))
    for at, N in enumerate(run.settings.sizes):
        shifted = experiments.shift(run.generator(f"dimension {N}"), 4, N, 1)
        for r in range(4):
            p, star = shifted.log_p[r].numpy(), shifted.log_star[r].numpy()
            D = [slow_distance(*each) for each in ((p, star), (p.T, star.T))]
            known[0, at, r] = D[1] / D[0]
            for k, weighted in enumerate((True, False), 1):
                ahead = slow_half(p, star, weighted)
                known[k, at, r] = slow_half(p.T, star.T, weighted) / ahead
    close(torch.stack(list(output)), known)
    medians = np.median(known, axis=2)
    slopes = [np.polyfit(np.log((2, 3, 10)), np.log(m), 1)[0] for m in medians]
    one, unit = result["slope_one"], result["row_weight"]
    for numbers, median in ((one, medians[1]), (unit, medians[2])):
        assert [numbers[f"n{N}"] for N in (2, 3, 10)] == pytest.approx(median.tolist())
    assert one["slope"] == pytest.approx(slopes[1])
    assert one["value"] == pytest.approx(abs(slopes[1] - 1))
    assert unit["value"] == pytest.approx(slopes[2])


def slow_distance(log_p, log_star):
    """D of (7), one distribution at a time."""
    old, new = Slow(log_p), Slow(log_star)
    pairs = [(old.marginal, new.marginal), *zip(old.rows, new.rows, strict=True)]
    moved = [(x - x.mean()) - (y - y.mean()) for x, y in pairs]
    return sum((z**2).sum() for z in moved)


def test_the_reversal_is_measured_at_each_site():
    run = start(size_runs=5)
    result = experiments.reversal(run)
    assert list(result) == ["cause", "effect", "mechanism"]
    for site, three in result.items():
        name = f"reversal {site}"
        shifted = experiments.shift(run.generator(name), 5, run.settings.N, 1, site)
        D = method.distances(*shifted[:2])
        assert three[0] == pytest.approx(float((D[1] / D[0]).median()))
    assert result["cause"][1] > 2 > 1 > result["effect"][1]


def test_a_learner_that_does_not_get_there_is_refused():
    shifted = experiments.shift(rng(), 6, 5, 1)
    backward, star = method.both(shifted.log_p)[1], shifted.log_star.mT
    steps = experiments.half_steps(backward, star, 1000)
    limit = int(steps.sort()[0][3])  # the fourth still gets there, two do not
    with pytest.raises(RunFailed, match=f"2 of 6 runs .* {limit} population steps"):
        experiments.half_steps(backward, star, limit)
    assert torch.equal(experiments.half_steps(backward, star, int(steps.max())), steps)
    with pytest.raises(BadRequest, match=r"\(5,\).*at least two"):
        experiments.measure_dimension(start(sizes=(5,)))


# Predictors


def slow_predictions(p, star):
    """D, (5) and (6) of one run, cell by cell; positive where A -> B should lead."""
    D, G, marginal = [], [], []
    for before, after in ((p, star), (p.T, star.T)):
        old, new = Slow(before), Slow(after)
        laws = [(old.marginal, new.marginal), *zip(old.rows, new.rows, strict=True)]
        D.append(slow_distance(before, after))
        weights = [1.0, *np.exp(new.marginal)]
        gradients = [
            w * (softmax(x) - softmax(y))
            for w, (x, y) in zip(weights, laws, strict=True)
        ]
        G.append(sum((g**2).sum() for g in gradients))
        q = np.exp(new.marginal)
        marginal.append((q * (new.marginal - old.marginal)).sum())
    return D[1] - D[0], G[0] - G[1], marginal[0] - marginal[1]


def test_predictors_are_those_of_plain_loops():
    run = start(predictor_runs=3, N=4, predictor_at=8, predictor_rate=0.3)
    result, output = experiments.measure_leaders(run)
    assert output.sites == ("cause", "effect", "geometric", "mechanism", "row")
    g, right, leads = run.generator("leaders"), np.zeros((5, 2, 3)), []
    for i, j in product(range(5), range(2)):
        shifted = experiments.shift(g, 3, 4, 8, output.sites[i], (1.0, 0.25)[j])
        for r in range(3):
            forward, backward = slow_kls(shifted, r, 0.3, (8,))
            gap = backward[0] - forward[0]
            leads.append(gap > 0)
            p, star = shifted.log_p[r].numpy(), shifted.log_star[r].numpy()
            for k, predicted in enumerate(slow_predictions(p, star)):
                right[i, j, k] += (np.sign(predicted) == np.sign(gap)) / 3
    close(output.leads.flatten(), np.array(leads).reshape(10, 3).mean(1), 1e-12)
    for k, name in enumerate(("distance", "step", "parts")):
        close(output.right[name], right[..., k], 1e-12)
        numbers = result[f"leader_{name}"]
        assert numbers["trials"] == 30
        assert numbers["successes"] == round(30 * right[..., k].mean())
        assert numbers["value"] == numbers["successes"] / 30


def test_where_both_marginals_stay_two_predictors_say_nothing():
    """Why that change is not among those that leaders are predicted for."""
    shifted = experiments.shift(rng(), 50, 6, 1, "marginal")
    predicted = experiments.predictions(shifted.log_p, shifted.log_star)
    # With both marginals kept, G is sum (P(a, b) - P(a) P(b))^2 in either direction.
    moved = shifted.log_p.exp() - shifted.log_star.exp()
    for G in method.first_step(shifted.log_p, shifted.log_star):
        close(G, moved.square().sum((1, 2)), 1e-14)
    assert predicted["step"].abs().max() < 1e-12
    assert predicted["parts"].abs().max() < 1e-12
    assert predicted["distance"].abs().min() > 1e-3


# Where it breaks


def test_episodes_at_rate_three_are_those_of_plain_loops():
    run = start(large_runs=2, N=4, episodes=13, predictor_runs=3)
    result, g = experiments.where_it_breaks(run), run.generator("breaks")
    assert result.delta.shape == (13, 2)
    world = method.draw(2, 4, g)
    log_joint, expected = world.log_joint().numpy(), []
    for n in (10, 3):
        wide = method.World(*(f.expand(n, *f.shape) for f in world))
        a, b = method.sample(method.change(wide, "cause", g), 20, 1, g)
        for e in range(n):
            at = [(log_joint[r], a[e, r, :, 0], b[e, r, :, 0]) for r in range(2)]
            expected.append(
                [slow_delta(p, x.tolist(), y.tolist(), 3) for p, x, y in at]
            )
    close(result.delta, expected)
    at = torch.randint(13, (4000, 2), generator=g).numpy()
    gamma, path = np.zeros(2), []
    for step in at:  # plain SGD on (11)
        path.append(expit(gamma))
        ahead = np.array([expected[step[r]][r] for r in range(2)])
        gamma = gamma - 0.1 * (expit(gamma) - expit(gamma + ahead))
    close(result.followed, np.mean([*path[2000:], expit(gamma)], axis=0))
    assert result.sharpness == experiments.SHARPNESS
    assert result.gap.shape == (len(experiments.SHARPNESS), 3)
    for c, gap in zip(experiments.SHARPNESS, result.gap, strict=True):
        shifted = experiments.shift(g, 3, 4, 20, rows=c)
        for r in range(3):
            forward, backward = slow_kls(shifted, r, 0.1, (20,))
            assert gap[r] == pytest.approx(backward[0] - forward[0], abs=1e-10)


# A chain of three variables


def test_beliefs_by_node_end_in_a_cycle():
    run = start(worlds=6, episodes=200)
    result = experiments.where_larger_graphs_stop(run)
    assert result.paths.shape == (201, 6, 3, 3)
    assert (result.paths[0] == 0.5).all()
    assert torch.equal(result.graph, result.paths[-1] > 0.5)
    assert not result.graph.diagonal(dim1=1, dim2=2).any()
    assert torch.equal(result.cyclic, ~graphs.acyclic(result.graph))
    assert result.cyclic.all()  # both ways round, in every run
    assert result.graph[:, 1, 0].all() and result.graph[:, 2, 1].all()  # the true edges
    assert result.graph[:, 1, 2].all()  # and a wrong one
    assert result.mass.min() > 1.01


def test_the_three_are_a_chain_whose_root_changes(monkeypatch):
    observed, real = [], experiments._values

    def values(joint, n, generator):
        observed.append((joint, real(joint, n, generator)))
        return observed[-1][1]

    monkeypatch.setattr(experiments, "_values", values)
    experiments.where_larger_graphs_stop(
        start(worlds=2, episodes=4, batch=20_000, steps=1)
    )
    ((joint, x),) = observed
    p = joint.exp()  # [E, R, 3, 3, 3]
    close(p.sum((2, 3, 4)), 1, 1e-12)
    root = p.sum((3, 4))
    assert (root[0] - root[1]).abs().max() > 1e-3
    middle = p.sum(4) / root[..., None]
    close(middle, middle[:1].expand_as(middle), 1e-12)
    end = p / p.sum(4, keepdim=True)  # given both, the same for each root
    close(end, end[:1, :, :1].expand_as(end), 1e-12)
    for e, r in product(range(4), range(2)):
        at = (9 * x[e, r, :, 0] + 3 * x[e, r, :, 1] + x[e, r, :, 2]).numpy()
        law = p[e, r].flatten().numpy()
        seen_at = np.bincount(at, minlength=27)
        assert stats.chisquare(seen_at, 20_000 * law / law.sum()).pvalue > 1e-4


# All together


def everything(run):
    """All that is claimed here, and all numbers that figures are drawn from."""
    trained = []
    for plain in (False, True):
        model, loop = experiments.gamma_loop(run, plain)
        training.train(run, loop, run.settings.episodes, f"gamma {plain}")
        trained.append(model)
    result = [
        experiments.measure_head_start(run),
        experiments.measure_gamma(run, *trained),
        experiments.measure_symmetric(run),
        experiments.measure_dimension(run),
        experiments.measure_whatever(run),
        experiments.measure_leaders(run),
    ]
    payloads = [experiments.curves(run), experiments.where_it_breaks(run)]
    payloads += [experiments.where_larger_graphs_stop(run)]
    claims = {}
    for part in result:
        claims |= part[0] if isinstance(part, tuple) else part
        payloads += [part[1]] if isinstance(part, tuple) else []
    return claims, payloads


def tensors(part):
    """Every tensor in nested tuples and dictionaries."""
    if isinstance(part, torch.Tensor):
        return [part]
    inner = part.values() if isinstance(part, dict) else part
    if isinstance(part, dict | tuple | list):
        return [t for each in inner for t in tensors(each)]
    return []


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_smoke_measures_every_claim_in_order_and_again_alike(seed):
    runs = [start(seed=seed) for _ in range(2 if seed == 0 else 1)]
    (first, payloads), *again = map(everything, runs)
    for id, numbers in first.items():
        runs[0].claim(id, **numbers)
    assert list(first) == MINE
    assert all(torch.isfinite(t).all() for t in tensors(payloads))
    for claims, output in again:
        assert claims == first
        assert all(map(torch.equal, tensors(output), tensors(payloads)))


def test_seeds_are_independent_runs():
    (first, payloads), (second, output) = (everything(start(seed=k)) for k in (0, 1))
    assert not any(
        torch.equal(x, y)
        for x, y in zip(tensors(payloads), tensors(output), strict=True)
        if x.is_floating_point() and x.numel() > 20
    )
    for id in ("head_start_slow", "symmetric", "slope_one", "gamma"):
        assert first[id] != second[id]
