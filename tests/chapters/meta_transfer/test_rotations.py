"""The experiments with rotated variables, each step by another route.

The routes: SciPy's laws and splines, scikit-learn's EM, torch's distributions and
optimisers, loops over one world at a time. A test of randomness allows five standard
errors.
"""

import math

import numpy as np
import pytest
import runs
import torch
from rng import normal, rng, uniform
from scipy import stats
from scipy.interpolate import CubicSpline
from sklearn.mixture import GaussianMixture
from torch.autograd import grad

from iclrtut.chapters.meta_transfer import encoder, method, rotations

folder, start = runs.folder, runs.of("meta_transfer")
KNOTS = np.linspace(-8, 8, 8)


def world(heights, turn=0.0):
    """One world for each row of heights."""
    heights = torch.tensor(heights, dtype=torch.float64)
    turns = torch.full((len(heights),), turn).double()
    return rotations.Worlds(rotations.curve(heights), turns)


def test_the_mechanism_is_scipys_spline_and_constant_beyond():
    heights = uniform(4, 8, low=-8, high=8)
    worlds = world(heights.tolist())
    a = uniform(4, 300, seed=1, low=-8, high=8)
    a[:, :8] = torch.tensor(KNOTS)
    f = rotations.mechanism(worlds.pieces, a)
    for w in range(4):
        spline = CubicSpline(KNOTS, heights[w].numpy())
        assert np.allclose(f[w], spline(a[w].numpy()), rtol=0, atol=1e-11)
    assert torch.allclose(f[:, :8], heights, rtol=0, atol=1e-12)
    beyond = rotations.mechanism(
        worlds.pieces, torch.tensor([[-9.0, 30]]).double().expand(4, 2)
    )
    assert torch.allclose(beyond, heights[:, [0, -1]], rtol=0, atol=1e-12)


def test_draws_follow_their_law():
    heights, n = uniform(2, 8, low=-8, high=8), 20_000
    worlds = world(heights.tolist(), 0.7)
    mean = torch.tensor([1.0, -3.0]).double()
    points = rotations.draw(worlds, mean, n, rng())
    a, b = encoder.rotate(points, -worlds.turn).unbind(-1)
    for w in range(2):
        noise = b[w].numpy() - CubicSpline(KNOTS, heights[w])(a[w].clamp(-8, 8).numpy())
        assert stats.kstest(a[w].numpy(), stats.norm(mean[w], 2).cdf).pvalue > 1e-6
        assert stats.kstest(noise, stats.norm().cdf).pvalue > 1e-6
        assert abs(np.corrcoef(a[w], noise)[0, 1]) < 5 / math.sqrt(n)


def test_worlds_are_fresh_by_seed_and_name():
    first, same, other = (
        rotations.make_worlds(start("quick", seed)) for seed in (0, 0, 1)
    )
    named = rotations.make_worlds(start("quick"), "named")
    assert first.pieces.shape == (24, 7, 4) and first.turn.shape == (24,)
    assert torch.equal(first.pieces, same.pieces) and torch.equal(first.turn, same.turn)
    for one in (other, named):
        assert not torch.allclose(first.pieces, one.pieces)
        assert not torch.allclose(first.turn, one.turn)
    many = rotations.make_worlds(start(worlds=2000))
    turns = many.turn / (2 * math.pi)
    heights = (many.pieces[:, 0, 3] + 8) / 16
    for uniforms in (turns, heights):
        assert stats.kstest(uniforms.numpy(), "uniform").pvalue > 1e-6


@pytest.mark.parametrize("changed", [True, False])
def test_an_episode_moves_only_the_mean_of_a(changed):
    run = start(worlds=500, train=100, transfer=100)
    worlds = rotations.make_worlds(run)
    train, transfer = rotations.episode(run.settings, worlds, rng(), changed)
    assert train.shape == transfer.shape == (500, 100, 2)
    before, after = (encoder.rotate(x, -worlds.turn)[..., 0] for x in (train, transfer))
    assert stats.kstest(before.flatten().numpy(), stats.norm(0, 2).cdf).pvalue > 1e-6
    assert after.std(1).mean() == pytest.approx(2, abs=0.05)
    means = after.mean(1).numpy()
    if changed:  # uniform in -4 to 4, blurred by 0.2
        assert means.std() == pytest.approx(math.hypot(8 / math.sqrt(12), 0.2), abs=0.2)
        assert 3.5 < np.abs(means).max() < 5
    else:
        assert np.abs(means).max() < 1


def test_the_encoder_starts_where_it_should_and_is_adam():
    run = start(starts=4)
    worlds = rotations.make_worlds(run)
    result = rotations.train_encoder(run, worlds)
    assert result.thetas.shape == result.gammas.shape == (7, 4, 3)
    assert result.leads.shape == (6, 4, 3)
    begun = torch.rad2deg(result.thetas[0])
    assert torch.allclose(begun, torch.tensor([0, 22.5, 45, 67.5]).double()[:, None])
    assert (result.gammas[0] == 0).all()
    # Adam's first step is the rate times the sign of the gradient
    data = rotations.episode(run.settings, worlds, run.generator("encoder"))
    theta, gamma = (
        x[0].clone().requires_grad_() for x in (result.thetas, result.gammas)
    )
    log_l = encoder.log_likelihoods(theta, *data, 5, 0.1)
    leads = (log_l[0] - log_l[1]) / run.settings.transfer
    assert torch.allclose(result.leads[0], leads, rtol=1e-12)
    slopes = grad(method.regret(gamma, *log_l).sum(), [theta, gamma])
    steps = (result.thetas.diff(dim=0)[0], result.gammas.diff(dim=0)[0])
    for step, slope, rate in zip(steps, slopes, (0.03, 0.05), strict=True):
        large = slope.abs() > 1e-3
        assert large.any()
        assert torch.allclose(step[large], -rate * slope.sign()[large], rtol=1e-3)
    # and its rate of theta falls on half a cosine, that of gamma stays
    sizes = result.thetas.diff(dim=0).abs().amax((1, 2))
    assert sizes[-1] < 0.2 * sizes[0]


def test_starts_are_compared_on_the_same_fresh_data():
    run = start()
    worlds = rotations.make_worlds(run)
    paths = rotations.train_encoder(run, worlds)
    data, total = run.generator("judge"), 0
    for _ in range(run.settings.evaluations):
        points = rotations.episode(run.settings, worlds, data)
        log_l = encoder.log_likelihoods(paths.thetas[-1], *points, 5, 0.1)
        total = total + method.regret(paths.gammas[-1], *log_l)
    result = rotations.fresh_regrets(run, worlds, paths)
    assert torch.allclose(result, total / run.settings.evaluations, rtol=1e-12)


@pytest.mark.parametrize("backwards", [False, True])
def test_an_encoder_finds_an_obvious_answer(backwards):
    # a valley, which no line and no other angle explains; starts 10 degrees away
    run = start(
        starts=1, train=200, transfer=100, encoder_episodes=60, encoder_gamma_rate=0.05
    )
    quarter = math.pi / 2 if backwards else 0.0
    worlds = world([[8.0, 4, 0, -4, -4, 0, 4, 8]], math.radians(-10) + quarter)
    result = rotations.train_encoder(run, worlds)
    degrees, sign = encoder.nearest(result.thetas[-1], worlds.turn)
    assert degrees.item() < 3
    assert sign.item() == (-1 if backwards else 1)
    assert result.gammas[-1].sign().item() == sign.item()


def test_the_claims_count_what_they_say():
    """Two starts, four worlds: what is right, and what is not, is known."""
    away = torch.tensor([[1.0, 3, 1.9, -30], [4.0, 20, 6, 4]]).double()
    turn = torch.tensor([0.0, 1, 2, 3]).double()
    quarters = torch.tensor([[0.0, 0, 1, 0], [1, 0, 0, 2]]).double() * math.pi / 2
    theta = torch.deg2rad(away) - turn + quarters
    gamma = torch.tensor([[1.0, -1, -1, 1], [-1, 1, 1, -1]]).double()
    regrets = torch.tensor([[2.0, 1, 1, 3], [1.0, 2, 2, 2]]).double()
    ends = theta[None], gamma[None]
    paths = rotations.Paths(turn, *ends, torch.zeros(0, 2, 4).double())
    result = rotations.measure_encoder(paths, regrets)
    assert set(result) == {"encoder_start", "encoder_four", "encoder_sign"}
    one, best, sign = result.values()
    assert (one["successes"], one["trials"], one["value"]) == (3, 4, 0.75)
    assert one["any"] == 5 / 8
    # chosen: start 1 (4 degrees), 0 (3), 0 (1.9), 1 (4)
    assert (best["successes"], best["value"]) == (4, 1)
    assert best["degrees"] == pytest.approx(3)
    # gamma -1 at k = 1: right; -1 at 0: wrong; -1 at 1: right; -1 at 2: wrong
    assert (sign["successes"], sign["value"]) == (2, 0.5)


def test_the_landscape_is_the_mean_likelihood_at_each_angle():
    run = start(angles=6, evaluations=2)
    worlds = rotations.make_worlds(run)
    land = rotations.landscape(run, worlds)
    assert land.forward.shape == land.backward.shape == (6, 3)
    assert torch.allclose(
        torch.rad2deg(land.angles), torch.arange(0, 90, 15.0).double()
    )
    data, total = run.generator("landscape"), 0
    for _ in range(2):
        points = rotations.episode(run.settings, worlds, data)
        total = total + encoder.log_likelihoods(
            land.angles[5].expand(3), *points, 5, 0.1
        )
    total = total / (2 * run.settings.transfer)
    assert torch.allclose(torch.stack([land.forward[5], land.backward[5]]), total)
    still = rotations.landscape(run, worlds, changed=False)
    assert not torch.allclose(still.forward, land.forward)


def test_the_top_of_a_landscape_is_measured():
    angles = torch.deg2rad(torch.arange(0.0, 90, 2)).double()
    turn = -torch.deg2rad(torch.tensor([10.0, 10, 40, 40])).double()
    low = torch.full((45, 4), -9.0).double()
    forward, backward = low.clone(), low.clone()
    forward[5, 0] = 0  # at 10 degrees: result, A -> B is right
    backward[5, 1] = 0  # result, the wrong direction
    forward[17, 2] = 0  # 6 degrees off
    forward[19, 3], backward[20, 3] = 0, -1  # 2 degrees off
    result = rotations.measure_landscape(
        rotations.Landscape(angles, forward, backward, turn)
    )
    assert (result["successes"], result["trials"], result["value"]) == (3, 4, 0.75)
    assert result["sign"] == 0.75


def test_mixtures_are_torchs_and_survive_what_underflows():
    logits, means = normal(5, 4), normal(5, 4, seed=1, scale=3)
    law = rotations.Mixture(logits.log_softmax(-1), means, normal(5, 4, seed=2))
    known = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=logits),
        torch.distributions.Normal(means, law.log_sds.exp()),
    )
    y = normal(5, seed=3, scale=4)
    assert torch.allclose(law.log_density(y), known.log_prob(y), rtol=1e-12)
    assert law.log_density(y + 1e4).isfinite().all()


def test_em_is_scikit_learns():
    x = torch.cat([normal(300) - 3, normal(200, seed=1, scale=0.5) + 2])
    K = 3
    begun = np.quantile(x.numpy(), (np.arange(K) + 0.5) / K)
    spread = float(x.std())
    for steps in (1, 7):
        law = rotations.expectation_maximisation(x[None], K, steps)
        known = GaussianMixture(
            K,
            tol=0,
            reg_covar=0,
            max_iter=steps,
            weights_init=np.ones(K) / K,
            means_init=begun[:, None],
            precisions_init=np.full((K, 1, 1), (K / spread) ** 2),
        )
        with pytest.warns(match="did not converge"):
            known.fit(x[:, None].numpy())
        assert np.allclose(law.means[0, 0], known.means_[:, 0], atol=1e-6)
        assert np.allclose(law.log_weights[0, 0].exp(), known.weights_, atol=1e-6)
        sds = np.sqrt(known.covariances_[:, 0, 0])
        assert np.allclose(law.log_sds[0, 0].exp(), sds, atol=1e-6)


def test_networks_are_what_a_loop_over_them_makes():
    H, K, M = 4, 3, 6
    weights, x = normal(2, 5, 2 * H + 3 * K * (H + 1)), normal(2, 5, M, seed=1)
    network = rotations.network(weights, x, K)
    for i in range(2):
        for j in range(5):
            w = weights[i, j]
            hidden = torch.tanh(x[i, j][:, None] * w[:H] + w[H : 2 * H])
            out = w[2 * H : 2 * H + 3 * K * H].view(H, 3 * K)
            raw = hidden @ out + w[2 * H + 3 * K * H :]
            assert torch.allclose(
                network.log_weights[i, j].exp(), raw[:, :K].softmax(1)
            )
            assert torch.allclose(network.means[i, j], 4 * raw[:, K : 2 * K])
            assert torch.allclose(network.log_sds[i, j], raw[:, 2 * K :].clamp_min(-4))


def test_networks_adapt_by_adam_and_count_before_each_step():
    H, K, T, M = 4, 3, 6, 8
    weights = normal(3, 2 * H + 3 * K * (H + 1))
    x, y = normal(3, T, M, seed=1), normal(3, T, M, seed=2)
    total, after = rotations.online(weights, x, y, K, 0.01)
    for i in range(3):
        w = weights[i].clone().requires_grad_()
        adam, by_loop = torch.optim.Adam([w], 0.01), 0.0
        for t in range(T):
            log_p = rotations.network(w, x[i, t], K).log_density(y[i, t])
            by_loop += float(log_p.sum().detach())
            adam.zero_grad()
            (-log_p.mean()).backward()
            adam.step()
        assert total[i] == pytest.approx(by_loop, rel=1e-10)
        assert torch.allclose(after[i], w.detach(), rtol=0, atol=1e-10)
    assert not total.requires_grad and not after.requires_grad


def test_no_gradient_goes_through_the_steps_of_networks():
    H, K, T, M = 4, 3, 3, 8
    weights = normal(2, 2 * H + 3 * K * (H + 1))
    x, y = normal(2, T, M, seed=1).requires_grad_(), normal(2, T, M, seed=2)
    total, _ = rotations.online(weights, x, y, K, 0.05)
    (ours,) = grad(total.sum(), x)
    for t in range(T):  # networks as they are before step t, held fixed
        fixed = x.detach()
        _, before = rotations.online(weights, fixed[:, :t], y[:, :t], K, 0.05)
        here = fixed[:, t].clone().requires_grad_()
        log_p = rotations.network(before, here, K).log_density(y[:, t]).sum()
        assert torch.allclose(ours[:, t], grad(log_p, here)[0], rtol=0, atol=1e-10)


def test_networks_learn_a_conditional_of_two_modes():
    # both factorisations of one joint fit alike where a network is flexible enough
    run = start(
        mixture_hidden=24, mixture_components=6, mixture_fit=400, mixture_batch=200
    )
    worlds = world([[8.0, 4, 0, -4, -4, 0, 4, 8]], 0.5)
    weights = rotations.fit_networks(run, worlds, -worlds.turn, "net")
    assert weights.shape == (2, 1, 2 * 24 + 3 * 6 * 25)
    points = rotations.draw(worlds, torch.zeros(1).double(), 4000, rng(5))
    x, y = (part[..., 0, :] for part in rotations._encoded(-worlds.turn, points, 1))
    law = rotations.expectation_maximisation(x, 6, 50)
    given = rotations.network(weights, x, 6).log_density(y)
    forward, backward = (law.log_density(x) + given).mean(-1)[:, 0].tolist()
    truth = -stats.norm(0, 2).entropy() - stats.norm().entropy()  # of a and of b | a
    assert forward == pytest.approx(truth, abs=0.1)
    assert backward == pytest.approx(truth, abs=0.15)
    one = encoder.learn(y[1].double(), x[1].double())  # a given b, with one normal law
    assert one.log_noise.item() > -0.5


def test_the_multimodal_case_runs_through_and_repeats_itself():
    def paths(seed=0):
        return rotations.multimodal(start(seed=seed))

    result, again, other = paths(), paths(), paths(1)
    assert list(result) == ["gamma", "unchanged", "encoder"]
    for name, each in result.items():
        assert each.thetas.shape == each.gammas.shape == (4, 2)
        assert each.leads.shape == (3, 2)
        assert all(part.isfinite().all() for part in each)
        assert (each.gammas[0] == 0).all() and (each.gammas[1] != 0).all()
        assert torch.equal(each.gammas, again[name].gammas)
        assert not torch.allclose(each.leads, other[name].leads)
    for name in ("gamma", "unchanged"):
        truth = -result[name].turn.expand(4, 2)
        assert torch.equal(result[name].thetas, truth)
    assert (result["encoder"].thetas[0] == 0).all()
    assert torch.allclose(
        result["encoder"].thetas[1].abs(), torch.tensor(0.01).double()
    )
    assert not torch.allclose(result["gamma"].leads, result["unchanged"].leads)


def test_gamma_of_networks_follows_11():
    result = rotations.multimodal(start())["gamma"]
    s = start().settings
    deltas = result.leads * s.mixture_steps * s.mixture_batch
    path = method.follow(deltas, s.gamma_rate)
    assert torch.allclose(result.gammas, path, rtol=1e-9, atol=1e-12)


def test_what_came_of_networks_is_counted():
    turn = torch.full((4,), -math.pi / 4).double()
    theta = torch.deg2rad(torch.tensor([45.0, 42, -43, 20])).double()
    gamma = torch.tensor([4.0, -1, -2, 1]).double()
    leads = torch.tensor([[1.0, 1, -1, 1], [1, -1, -1, -1]]).double()
    flat = torch.zeros_like(theta)
    paths = [torch.stack([flat, end]) for end in (theta, gamma)]
    result = rotations.measure_multimodal(rotations.Paths(turn, *paths, leads))
    # signs asked for: 1, 1, -1, 1
    assert result == {
        "right": 0.75,
        "close": 0.75,
        "sure": 0.25,
    }
