"""The rotation encoder and the continuous case, each function by another route.

The routes: complex numbers, SciPy's laws and splines, scikit-learn's ridge regression
and EM, autograd through plain formulas, loops over one world at a time, finite
differences and closed forms. A test of randomness allows five standard errors.
"""

import math

import numpy as np
import pytest
import started
import torch
from drawn import normal, rng, uniform
from scipy import stats
from scipy.interpolate import CubicSpline
from sklearn.linear_model import Ridge
from sklearn.mixture import GaussianMixture
from torch.autograd import grad, gradcheck

from iclrtut.chapters.meta_transfer import encoder as lab
from iclrtut.chapters.meta_transfer import method as chapter
from iclrtut.errors import BadRequest

SLUG = "meta_transfer"
folder, start = started.folder, started.of(SLUG)
KNOTS = np.linspace(-8, 8, 8)
CENTRES = np.arange(-11.0, 12)


def world(heights, turn=0.0):
    """One world for each row of heights."""
    heights = torch.tensor(heights, dtype=torch.float64)
    return lab.Worlds(lab._curve(heights), torch.full((len(heights),), turn).double())


def points(W=3, n=60, m=40, seed=0):
    """Training and transfer points of W worlds, as `regret` takes them."""
    train = normal(W, n, 2, seed=seed, scale=2.0)
    train[..., 1] += train[..., 0].sin() * 3
    return train, normal(W, m, 2, seed=seed + 1, scale=2.0) + 1


# Worlds


def test_rotation_is_multiplication_by_a_unit_complex_number():
    x, theta = normal(3, 5, 2), normal(3, seed=1)
    made = lab.rotate(x, theta)
    turned = (
        torch.view_as_complex(x) * torch.polar(torch.ones(3).double(), theta)[:, None]
    )
    assert torch.allclose(torch.view_as_complex(made), turned, rtol=0, atol=1e-14)
    quarter = lab.rotate(torch.tensor([[[1.0, 0]]]), torch.tensor([math.pi / 2]))
    assert torch.allclose(quarter, torch.tensor([[[0.0, 1]]]), atol=1e-6)


def test_the_nearest_solution_is_the_nearest_of_all():
    theta, turn = normal(500, scale=5), normal(500, seed=1, scale=5)
    degrees, sign = lab.nearest(theta, turn)
    k = np.arange(-40, 41)
    away = np.abs(np.degrees((theta + turn)[:, None].numpy() - k * np.pi / 2))
    assert np.allclose(degrees, away.min(1), rtol=0, atol=1e-10)
    assert np.array_equal(sign, np.where(k[away.argmin(1)] % 2 == 0, 1, -1))
    assert degrees.max() <= 45


def test_at_a_solution_of_either_sign_the_cause_is_where_gamma_says():
    seen = lab.rotate(
        torch.tensor([[[3.0, 5.0]]]).double(), torch.tensor([0.4]).double()
    )
    for k, cause in enumerate((3.0, -5.0, -3.0, 5.0)):  # the first encoded variable
        theta = torch.tensor([k * math.pi / 2 - 0.4]).double()
        encoded = lab.rotate(seen, theta)
        _, sign = lab.nearest(theta, torch.tensor([0.4]).double())
        assert encoded[0, 0, 0] == pytest.approx(cause)
        assert (sign > 0) == (abs(cause) == 3)


def test_the_mechanism_is_scipys_spline_and_constant_beyond():
    heights = uniform(4, 8, low=-8, high=8)
    made = world(heights.tolist())
    a = uniform(4, 300, seed=1, low=-8, high=8)
    a[:, :8] = torch.tensor(KNOTS)
    f = lab.mechanism(made.pieces, a)
    for w in range(4):
        spline = CubicSpline(KNOTS, heights[w].numpy())
        assert np.allclose(f[w], spline(a[w].numpy()), rtol=0, atol=1e-11)
    assert torch.allclose(f[:, :8], heights, rtol=0, atol=1e-12)
    beyond = lab.mechanism(
        made.pieces, torch.tensor([[-9.0, 30]]).double().expand(4, 2)
    )
    assert torch.allclose(beyond, heights[:, [0, -1]], rtol=0, atol=1e-12)


def test_draws_follow_their_law():
    heights, n = uniform(2, 8, low=-8, high=8), 20_000
    made = world(heights.tolist(), 0.7)
    mean = torch.tensor([1.0, -3.0]).double()
    seen = lab.draw(made, mean, n, rng())
    a, b = lab.rotate(seen, -made.turn).unbind(-1)
    for w in range(2):
        noise = b[w].numpy() - CubicSpline(KNOTS, heights[w])(a[w].clamp(-8, 8).numpy())
        assert stats.kstest(a[w].numpy(), stats.norm(mean[w], 2).cdf).pvalue > 1e-6
        assert stats.kstest(noise, stats.norm().cdf).pvalue > 1e-6
        assert abs(np.corrcoef(a[w], noise)[0, 1]) < 5 / math.sqrt(n)


def test_worlds_are_fresh_by_seed_and_name():
    first, same, other = (lab.make_worlds(start("quick", seed)) for seed in (0, 0, 1))
    named = lab.make_worlds(start("quick"), "named")
    assert first.pieces.shape == (24, 7, 4) and first.turn.shape == (24,)
    assert torch.equal(first.pieces, same.pieces) and torch.equal(first.turn, same.turn)
    for one in (other, named):
        assert not torch.allclose(first.pieces, one.pieces)
        assert not torch.allclose(first.turn, one.turn)
    many = lab.make_worlds(start(worlds=2000))
    turns = many.turn / (2 * math.pi)
    heights = (many.pieces[:, 0, 3] + 8) / 16
    for uniforms in (turns, heights):
        assert stats.kstest(uniforms.numpy(), "uniform").pvalue > 1e-6


@pytest.mark.parametrize("changed", [True, False])
def test_an_episode_moves_only_the_mean_of_a(changed):
    run = start(worlds=500, train=100, transfer=100)
    worlds = lab.make_worlds(run)
    train, transfer = lab.episode(run, worlds, rng(), changed)
    assert train.shape == transfer.shape == (500, 100, 2)
    before, after = (lab.rotate(x, -worlds.turn)[..., 0] for x in (train, transfer))
    assert stats.kstest(before.flatten().numpy(), stats.norm(0, 2).cdf).pvalue > 1e-6
    assert after.std(1).mean() == pytest.approx(2, abs=0.05)
    means = after.mean(1).numpy()
    if changed:  # uniform in -4 to 4, blurred by 0.2
        assert means.std() == pytest.approx(math.hypot(8 / math.sqrt(12), 0.2), abs=0.2)
        assert 3.5 < np.abs(means).max() < 5
    else:
        assert np.abs(means).max() < 1


# Learners


def test_bumps_are_gaussian_and_their_fast_sums_have_their_gradients():
    x = normal(2, 9, scale=4).requires_grad_()
    P = (-(x[:, None] - torch.tensor(CENTRES)[:, None]).square() / 2).exp()
    fast = lab.bumps(x)
    assert torch.allclose(fast, P, rtol=0, atol=1e-15) and not fast.requires_grad
    w, r = normal(2, 23, seed=1).requires_grad_(), normal(2, 9, seed=2).requires_grad_()
    pairs = (
        (lab._blend(x, w, fast), torch.einsum("bj,bjn->bn", w, P), (x, w)),
        (lab._gather(x, r, fast), torch.einsum("bjn,bn->bj", P, r), (x, r)),
        (lab._gram(x, fast), torch.einsum("bin,bjn->bij", P, P), (x,)),
    )
    for i, (made, slow, inputs) in enumerate(pairs):
        assert torch.allclose(made, slow, rtol=0, atol=1e-13)
        g = normal(*made.shape, seed=3 + i)
        ours = grad((made * g).sum(), inputs)
        for one, two in zip(
            ours, grad((slow * g).sum(), inputs, retain_graph=True), strict=True
        ):
            assert torch.allclose(one, two, rtol=0, atol=1e-12)


def test_a_learner_is_ridge_regression_between_normal_laws():
    x, y = normal(2, 50, scale=3), normal(2, 50, seed=1, scale=2)
    made = lab.learn(x, y)
    for i in range(2):
        features = np.exp(-((x[i].numpy()[:, None] - CENTRES) ** 2) / 2)
        ridge = Ridge(alpha=1.0, fit_intercept=False).fit(features, y[i].numpy())
        residual = y[i].numpy() - ridge.predict(features)
        assert np.allclose(made.weights[i], ridge.coef_, rtol=0, atol=1e-10)
        assert made.mean[i] == pytest.approx(float(x[i].mean()))
        assert made.log_sd[i].exp() == pytest.approx(x[i].numpy().std())
        noise = math.sqrt((residual**2).mean())
        assert made.log_noise[i].exp() == pytest.approx(noise)


def by_hand(x, y, u, v, rate):
    """log L of one learner, by torch's laws and autograd, one batch after the other."""
    learner = [part.detach().clone().requires_grad_() for part in lab.learn(x, y)]
    total = 0.0
    for u_t, v_t in zip(u, v, strict=True):
        mean, log_sd, weights, log_noise = learner
        features = (-(u_t[:, None] - torch.tensor(CENTRES)).square() / 2).exp()
        of_x = torch.distributions.Normal(mean, log_sd.exp()).log_prob(u_t)
        given = torch.distributions.Normal(features @ weights, log_noise.exp())
        log_p = of_x + given.log_prob(v_t)
        total += float(log_p.sum().detach())
        steps = grad(log_p.mean(), learner)
        learner = [
            (part + rate * step).detach().requires_grad_()
            for part, step in zip(learner, steps, strict=True)
        ]
    return total


def test_adaptation_is_gradient_ascent_judged_before_each_step():
    x, y = normal(3, 50, scale=3), normal(3, 50, seed=1, scale=2)
    u, v = normal(3, 4, 7, seed=2, scale=3) + 1, normal(3, 4, 7, seed=3, scale=2)
    found = lab.adapt(lab.learn(x, y), u, v, 0.1)
    still = lab.adapt(lab.learn(x, y), u, v, 0.0)
    for i in range(3):
        assert found[i] == pytest.approx(by_hand(x[i], y[i], u[i], v[i], 0.1), abs=1e-9)
        assert still[i] == pytest.approx(by_hand(x[i], y[i], u[i], v[i], 0.0), abs=1e-9)
    one = lab.adapt(lab.learn(x, y), u[:, :1], v[:, :1], 0.1)
    same = lab.adapt(lab.learn(x, y), u[:, :1], v[:, :1], 99.0)
    assert torch.equal(one, same)  # the step on the last batch is not judged


def test_without_steps_a_moved_cause_costs_its_gaussian_divergence():
    n, mean = 40_000, 3.0
    made = world([[0.0] * 8])  # B is noise
    zero = torch.zeros(1).double()
    train = lab.draw(made, zero, n, rng())
    transfer = lab.draw(made, zero + mean, n, rng(1))
    found = lab.log_likelihoods(zero, train, transfer, 1, 0.0) / n
    entropy = stats.norm(0, 2).entropy() + stats.norm(0, 1).entropy()
    # variances: of an example's log-likelihood 3.25, by the errors of the fitted mean
    # and deviation 2.25 and 2.5
    error = 5 * math.sqrt((3.25 + 2.25 + 2.5) / n)
    assert found[0, 0] == pytest.approx(-entropy - mean**2 / 8, abs=error)


# The regret, (13)


def test_log_likelihoods_are_of_both_orders_of_the_encoded_points():
    train, transfer = points()
    theta = normal(3, seed=4)
    forward, backward = lab.log_likelihoods(theta, train, transfer, 5, 0.1)
    for w in range(3):
        x, y = lab.rotate(train, theta)[w].unbind(-1)
        u, v = lab.rotate(transfer, theta)[w].view(5, 8, 2).unbind(-1)
        assert forward[w] == pytest.approx(by_hand(x, y, u, v, 0.1), rel=1e-12)
        assert backward[w] == pytest.approx(by_hand(y, x, v, u, 0.1), rel=1e-12)
    gamma = normal(3, seed=5)
    R = lab.regret(theta, gamma, train, transfer, 5, 0.1)
    p = gamma.sigmoid()
    shift = forward.max()
    mixed = (p * (forward - shift).exp() + (1 - p) * (backward - shift).exp()).log()
    usable = (forward - shift > -600) & (backward - shift > -600)
    assert usable.any()
    assert torch.allclose(R[usable], -(mixed + shift)[usable], rtol=1e-13, atol=0)


def test_a_quarter_turn_exchanges_the_directions():
    train, transfer = points()
    theta, gamma = normal(4, 3, seed=4), normal(4, 3, seed=5)
    how = train, transfer, 5, 0.1
    R = lab.regret(theta, gamma, *how)
    turned = lab.regret(theta + math.pi / 2, -gamma, *how)
    assert R.shape == (4, 3)
    assert ((turned - R).abs() / R.abs()).max() < 1e-12
    assert (lab.regret(theta + math.pi / 2, gamma, *how) - R).abs().max() > 0.1


def test_its_gradient_meets_differences_and_13():
    train, transfer = points()
    theta, gamma = (
        normal(3, seed=4).requires_grad_(),
        normal(3, seed=5).requires_grad_(),
    )
    how = train, transfer, 5, 0.1
    ours = grad(lab.regret(theta, gamma, *how).sum(), [theta, gamma])
    h = 1e-5
    with torch.no_grad():
        ahead, behind = (lab.regret(theta + d, gamma, *how) for d in (h, -h))
    slope = (ahead - behind) / (2 * h)
    assert (ours[0] - slope).abs().max() < 1e-6 * slope.abs().max()
    forward, backward = lab.log_likelihoods(theta, *how)
    parts = [grad(x.sum(), theta, retain_graph=True)[0] for x in (forward, backward)]
    w = (gamma + forward - backward).sigmoid()
    mixed = -(w * parts[0] + (1 - w) * parts[1])
    assert torch.allclose(ours[0], mixed, rtol=1e-10, atol=0)
    wanted = chapter.slope(gamma, forward - backward)
    assert torch.allclose(ours[1], wanted, rtol=0, atol=1e-12)


def test_first_order_changes_the_gradient_and_nothing_else():
    train, transfer = points()
    theta, gamma = normal(3, seed=4).requires_grad_(), torch.zeros(3).double()
    found = {}
    for rate in (0.0, 0.1):
        for first in (False, True):
            R = lab.regret(theta, gamma, train, transfer, 5, rate, first)
            found[rate, first] = R.detach(), grad(R.sum(), theta)[0]
    assert torch.equal(found[0.1, True][0], found[0.1, False][0])
    assert torch.allclose(found[0.0, True][1], found[0.0, False][1], rtol=1e-12)
    assert not torch.allclose(found[0.1, True][1], found[0.1, False][1], rtol=1e-3)


def test_likelihoods_that_underflow_keep_their_regret():
    train, transfer = points(m=4000)
    theta, gamma = normal(3, seed=4).requires_grad_(), torch.zeros(3).double()
    R = lab.regret(theta, gamma, train, transfer, 5, 0.1)
    assert (R > 5000).all()
    assert grad(R.sum(), theta)[0].isfinite().all()


def test_points_that_do_not_fit_are_refused():
    train, transfer = points()
    theta = torch.zeros(3).double()

    def refused(match, one=train, two=transfer, steps=5):
        with pytest.raises(BadRequest, match=match):
            lab.regret(theta, theta, one, two, steps, 0.1)

    refused(r"training points have shape \(3, 60, 3\): give", normal(3, 60, 3))
    refused(r"transfer points have shape \(40,\): give", two=normal(40))
    refused("at least 2", train[:, :1])
    for value in (math.nan, math.inf):
        broken = transfer.clone()
        broken[1, 2, 0] = value
        refused("transfer points are not all finite: remove NaN", two=broken)
    flat = train.clone()
    flat[2, :, 1] = 4.0
    refused("constant column: give two that vary", flat)
    refused("40 transfer points do not make 7 equal batches", steps=7)


# The encoder


def test_the_encoder_starts_where_it_should_and_is_adam():
    run = start(starts=4)
    worlds = lab.make_worlds(run)
    found = lab.train_encoder(run, worlds)
    assert found.thetas.shape == found.gammas.shape == (7, 4, 3)
    assert found.regrets.shape == (4, 3) and found.regrets.isfinite().all()
    begun = torch.rad2deg(found.thetas[0])
    assert torch.allclose(begun, torch.tensor([0, 22.5, 45, 67.5]).double()[:, None])
    assert (found.gammas[0] == 0).all()
    # Adam's first step is the rate times the sign of the gradient
    data = lab.episode(run, worlds, run.generator("encoder"))
    theta, gamma = (x[0].clone().requires_grad_() for x in (found.thetas, found.gammas))
    slopes = grad(lab.regret(theta, gamma, *data, 5, 0.1).sum(), [theta, gamma])
    steps = (found.thetas.diff(dim=0)[0], found.gammas.diff(dim=0)[0])
    for step, slope, rate in zip(steps, slopes, (0.03, 0.05), strict=True):
        large = slope.abs() > 1e-3
        assert large.any()
        assert torch.allclose(step[large], -rate * slope.sign()[large], rtol=1e-3)
    # and its rate of theta falls on half a cosine, that of gamma stays
    sizes = found.thetas.diff(dim=0).abs().amax((1, 2))
    assert sizes[-1] < 0.2 * sizes[0]


def test_starts_are_judged_on_the_same_fresh_data():
    run = start()
    worlds = lab.make_worlds(run)
    found = lab.train_encoder(run, worlds)
    data, total = run.generator("judge"), 0
    for _ in range(run.settings.judged):
        seen = lab.episode(run, worlds, data)
        total = total + lab.regret(found.thetas[-1], found.gammas[-1], *seen, 5, 0.1)
    assert torch.allclose(found.regrets, total / run.settings.judged, rtol=1e-12)


def test_the_encoder_repeats_itself_by_seed_and_after_a_pause():
    def paths(seed=0, **changes):
        run = start(seed=seed, **changes)
        made = lab.train_encoder(run, lab.make_worlds(run))
        return made.thetas

    first, again = paths(), paths()  # the second comes from the checkpoint
    assert torch.equal(first, again)
    assert torch.equal(first, paths(every=1))
    assert not torch.allclose(first, paths(seed=1))


@pytest.mark.parametrize("backwards", [False, True])
def test_an_encoder_finds_an_obvious_answer(backwards):
    # a valley, which no line and no other angle explains; starts 10 degrees away
    run = start(
        starts=1, train=200, transfer=100, encoder_episodes=60, encoder_gamma_rate=0.05
    )
    quarter = math.pi / 2 if backwards else 0.0
    worlds = world([[8.0, 4, 0, -4, -4, 0, 4, 8]], math.radians(-10) + quarter)
    found = lab.train_encoder(run, worlds)
    degrees, sign = lab.nearest(found.thetas[-1], worlds.turn)
    assert degrees.item() < 3
    assert sign.item() == (-1 if backwards else 1)
    assert found.gammas[-1].sign().item() == sign.item()


def made_encoder():
    """Two starts, four worlds: what is right, and what is not, is known."""
    away = torch.tensor([[1.0, 3, 1.9, -30], [4.0, 20, 6, 4]]).double()
    turn = torch.tensor([0.0, 1, 2, 3]).double()
    quarters = torch.tensor([[0.0, 0, 1, 0], [1, 0, 0, 2]]).double() * math.pi / 2
    theta = torch.deg2rad(away) - turn + quarters
    gamma = torch.tensor([[1.0, -1, -1, 1], [-1, 1, 1, -1]]).double()
    regrets = torch.tensor([[2.0, 1, 1, 3], [1.0, 2, 2, 2]]).double()
    flat = torch.zeros_like(theta)
    return lab.Encoder(
        turn, torch.stack([flat, theta]), torch.stack([flat, gamma]), regrets
    )


def test_the_claims_count_what_they_say():
    found = lab.measure_encoder(made_encoder())
    assert set(found) == {"encoder_one", "encoder_best", "encoder_sign"}
    one, best, sign = found.values()
    assert (one["successes"], one["trials"], one["value"]) == (2, 4, 0.5)
    assert one["any"] == 2 / 8
    # chosen: start 1 (4 degrees), 0 (3), 0 (1.9), 1 (4)
    assert (best["successes"], best["value"]) == (4, 1)
    assert best["degrees"] == pytest.approx(3)
    # gamma -1 at k = 1: right; -1 at 0: wrong; -1 at 1: right; -1 at 2: wrong
    assert (sign["successes"], sign["value"]) == (2, 0.5)


def test_the_landscape_is_the_mean_likelihood_at_each_angle():
    run = start(angles=6, judged=2)
    worlds = lab.make_worlds(run)
    land = lab.landscape(run, worlds)
    assert land.forward.shape == land.backward.shape == (6, 3)
    assert torch.allclose(
        torch.rad2deg(land.angles), torch.arange(0, 90, 15.0).double()
    )
    data, total = run.generator("landscape"), 0
    for _ in range(2):
        seen = lab.episode(run, worlds, data)
        total = total + lab.log_likelihoods(land.angles[5].expand(3), *seen, 5, 0.1)
    total = total / (2 * run.settings.transfer)
    assert torch.allclose(torch.stack([land.forward[5], land.backward[5]]), total)
    still = lab.landscape(run, worlds, changed=False)
    assert not torch.allclose(still.forward, land.forward)


def test_the_top_of_a_landscape_is_measured():
    angles = torch.deg2rad(torch.arange(0.0, 90, 2)).double()
    turn = -torch.deg2rad(torch.tensor([10.0, 10, 40, 40])).double()
    low = torch.full((45, 4), -9.0).double()
    forward, backward = low.clone(), low.clone()
    forward[5, 0] = 0  # at 10 degrees: found, A -> B is right
    backward[5, 1] = 0  # found, the wrong direction
    forward[18, 2] = 0  # 4 degrees off
    forward[19, 3], backward[20, 3] = 0, -1  # 2 degrees off
    found = lab.measure_landscape(lab.Landscape(angles, forward, backward, turn))
    assert (found["successes"], found["trials"], found["value"]) == (3, 4, 0.75)
    assert found["sign"] == 0.75


# Mixture density networks


def test_mixtures_are_torchs_and_survive_what_underflows():
    logits, means = normal(5, 4), normal(5, 4, seed=1, scale=3)
    law = lab.Mixture(logits.log_softmax(-1), means, normal(5, 4, seed=2))
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
        law = lab.expectation_maximisation(x[None], K, steps)
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


def test_em_climbs_and_never_collapses():
    x = torch.stack([normal(200), torch.cat([torch.zeros(100), torch.ones(100)])])
    heights = []
    for steps in range(0, 30, 3):
        law = lab.expectation_maximisation(x, 10, steps)
        heights.append(law.log_density(x).sum(-1))
        assert all(part.isfinite().all() for part in law)
        assert (
            law.log_sds.exp() >= 0.99 * math.sqrt(1e-3) * x.std(-1)[:, None, None]
        ).all()
    climbed = torch.stack(heights)[:, 0].diff()
    assert (climbed > -1e-3).all() and climbed[0] > 1


def test_networks_are_what_a_loop_over_them_makes():
    H, K, M = 4, 3, 6
    weights, x = normal(2, 5, 2 * H + 3 * K * (H + 1)), normal(2, 5, M, seed=1)
    made = lab.network(weights, x, K)
    for i in range(2):
        for j in range(5):
            w = weights[i, j]
            hidden = torch.tanh(x[i, j][:, None] * w[:H] + w[H : 2 * H])
            out = w[2 * H : 2 * H + 3 * K * H].view(H, 3 * K)
            raw = hidden @ out + w[2 * H + 3 * K * H :]
            assert torch.allclose(made.log_weights[i, j].exp(), raw[:, :K].softmax(1))
            assert torch.allclose(made.means[i, j], 4 * raw[:, K : 2 * K])
            assert torch.allclose(made.log_sds[i, j], raw[:, 2 * K :].clamp_min(-4))


def test_networks_adapt_by_adam_and_are_judged_before_each_step():
    H, K, T, M = 4, 3, 6, 8
    weights = normal(3, 2 * H + 3 * K * (H + 1))
    x, y = normal(3, T, M, seed=1), normal(3, T, M, seed=2)
    total, after = lab.online(weights, x, y, K, 0.01)
    for i in range(3):
        w = weights[i].clone().requires_grad_()
        adam, by_loop = torch.optim.Adam([w], 0.01), 0.0
        for t in range(T):
            log_p = lab.network(w, x[i, t], K).log_density(y[i, t])
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
    total, _ = lab.online(weights, x, y, K, 0.05)
    (ours,) = grad(total.sum(), x)
    for t in range(T):  # networks as they are before step t, held fixed
        fixed = x.detach()
        _, before = lab.online(weights, fixed[:, :t], y[:, :t], K, 0.05)
        here = fixed[:, t].clone().requires_grad_()
        log_p = lab.network(before, here, K).log_density(y[:, t]).sum()
        assert torch.allclose(ours[:, t], grad(log_p, here)[0], rtol=0, atol=1e-10)


def test_modes_are_counted():
    line = [*np.linspace(-8, 8, 8)]
    valley = [8.0, 4, 0, -4, -4, 0, 4, 8]
    found = lab.modes(world([line, valley]))
    assert found[0] == 1
    assert 1.5 < found[1] <= 2.0
    drawn = lab.modes(lab.make_worlds(start(worlds=40)))
    assert drawn.mean() > 1.5  # random curves: several causes explain an effect


def test_networks_learn_a_conditional_of_two_modes():
    # both factorisations of one joint fit alike where a network is flexible enough
    run = start(
        mixture_hidden=24, mixture_components=6, mixture_fit=400, mixture_batch=200
    )
    worlds = world([[8.0, 4, 0, -4, -4, 0, 4, 8]], 0.5)
    weights = lab.fit_networks(run, worlds, -worlds.turn, "net")
    assert weights.shape == (2, 1, 2 * 24 + 3 * 6 * 25)
    seen = lab.draw(worlds, torch.zeros(1).double(), 4000, rng(5))
    x, y = (part[..., 0, :] for part in lab._encoded(-worlds.turn, seen, 1))
    law = lab.expectation_maximisation(x, 6, 50)
    given = lab.network(weights, x, 6).log_density(y)
    forward, backward = (law.log_density(x) + given).mean(-1)[:, 0].tolist()
    truth = -stats.norm(0, 2).entropy() - stats.norm().entropy()  # of a and of b | a
    assert forward == pytest.approx(truth, abs=0.1)
    assert backward == pytest.approx(truth, abs=0.15)
    one = lab.learn(y[1].double(), x[1].double())  # a given b, with one normal law
    assert one.log_noise.item() > -0.5


def test_the_multimodal_case_runs_through_and_repeats_itself():
    def paths(seed=0):
        return lab.multimodal(start(seed=seed))

    found, again, other = paths(), paths(), paths(1)
    assert list(found) == ["gamma", "unchanged", "encoder"]
    for name, each in found.items():
        assert each.thetas.shape == each.gammas.shape == (4, 2)
        assert each.leads.shape == (3, 2)
        assert all(part.isfinite().all() for part in each)
        assert (each.gammas[0] == 0).all() and (each.gammas[1] != 0).all()
        assert torch.equal(each.gammas, again[name].gammas)
        assert not torch.allclose(each.leads, other[name].leads)
    for name in ("gamma", "unchanged"):
        truth = -found[name].turn.expand(4, 2)
        assert torch.equal(found[name].thetas, truth)
    assert (found["encoder"].thetas[0] == 0).all()
    assert torch.allclose(found["encoder"].thetas[1].abs(), torch.tensor(0.01).double())
    assert not torch.allclose(found["gamma"].leads, found["unchanged"].leads)


def test_gamma_of_networks_follows_11():
    found = lab.multimodal(start())["gamma"]
    s = start().settings
    deltas = found.leads * s.mixture_steps * s.mixture_batch
    # the loss is a mean over worlds, which RMSprop forgets, but for its floor
    path = chapter.follow(deltas, s.gamma_rate)
    assert torch.allclose(found.gammas, path, rtol=1e-4, atol=1e-6)


def test_networks_lead_in_the_causal_direction_once_the_cause_moves():
    run = start(
        mixture_hidden=24,
        mixture_components=6,
        mixture_fit=400,
        mixture_batch=200,
        mixture_episodes=12,
        mixture_steps=5,
        em_steps=20,
    )
    worlds = world([[8.0, 4, 0, -4, -4, 0, 4, 8]], 0.5)
    weights = lab.fit_networks(run, worlds, -worlds.turn, "net")
    moved = lab.train_multimodal_gamma(run, worlds, weights, "moved")
    still = lab.train_multimodal_gamma(run, worlds, weights, "still", False)
    assert moved.leads.mean() > 0.05
    assert still.leads.mean().abs() < 0.5 * moved.leads.mean()
    assert moved.gammas[-1] > 0


def test_networks_at_every_angle_are_judged_on_the_same_data():
    run = start(rotor_angles=3)
    worlds = lab.multimodal_worlds(run)
    land = lab.multimodal_landscape(run, worlds)
    assert land.forward.shape == land.backward.shape == (3, 2)
    assert torch.allclose(
        torch.rad2deg(land.angles), torch.tensor([15.0, 45, 75]).double()
    )
    assert lab.nearest(land.angles[1], worlds.turn)[0].max() < 1e-9
    s, theta = run.settings, land.angles[2].expand(2)
    weights = lab.fit_networks(run, worlds, theta, "networks at angle 2")
    data, total, n = run.generator("multimodal landscape"), 0, s.rotor_steps * 50
    for _ in range(s.judged):
        points = lab._moved(worlds, n, data, True)
        total = total + lab._likelihoods(run, weights, theta, points, s.rotor_steps)
    found = torch.stack([land.forward[2], land.backward[2]])
    assert torch.allclose(found, total.double() / (s.judged * n), rtol=1e-6)


def test_what_came_of_networks_is_counted():
    turn = torch.full((4,), -math.pi / 4).double()
    theta = torch.deg2rad(torch.tensor([45.0, 42, -43, 20])).double()
    gamma = torch.tensor([4.0, -1, -2, 1]).double()
    leads = torch.tensor([[1.0, 1, -1, 1], [1, -1, -1, -1]]).double()
    flat = torch.zeros_like(theta)
    paths = [torch.stack([flat, end]) for end in (theta, gamma)]
    found = lab.measure_multimodal(lab.Multimodal(turn, *paths, leads))
    # signs asked for: 1, 1, -1, 1
    assert found == {
        "right": 0.75,
        "close": 0.75,
        "sure": 0.25,
        "episodes": 0.75,
        "nats": 0.5,
    }


def test_gradcheck_of_the_whole_regret():
    train, transfer = points(W=2, n=12, m=6)
    theta, gamma = (
        normal(2, seed=8).requires_grad_(),
        normal(2, seed=9).requires_grad_(),
    )

    def R(theta, gamma):
        return lab.regret(theta, gamma, train, transfer, 3, 0.1)

    assert gradcheck(R, (theta, gamma), eps=1e-6, atol=1e-5, rtol=1e-5)
