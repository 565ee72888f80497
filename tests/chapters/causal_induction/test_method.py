"""The method of the chapter on causal induction, against independent routes."""

import math
from itertools import combinations, permutations, product

import networkx as nx
import numpy as np
import pytest
import torch
from assertions import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from rng import normal, rng
from scipy import stats
from scipy.special import gammaln

from iclrtut.chapters.causal_induction import graphs, method
from iclrtut.errors import BadRequest
from iclrtut.play import export

seeds = st.integers(0, 2**31 - 1)
few = settings(max_examples=15, deadline=None)


def digraph(A):
    net = nx.DiGraph()
    net.add_nodes_from(range(len(A)))
    net.add_edges_from(A.nonzero().tolist())
    return net


def episodes(B=6, n=3, steps=12, seed=0, watch=0.2):
    """Episodes of the prior, of whose steps a share forces nothing."""
    g = rng(seed)
    world = method.draw(B, n, steps, g)
    targets, forced = method.interventions(B, n, steps, g)
    targets[torch.rand(B, steps, generator=g) < watch] = -1
    return method.Episodes(world.graph, targets, method.respond(world, targets, forced))


# Graphs


def brute(n):
    """All acyclic graphs, from all directed ones."""
    off = [(i, j) for i in range(n) for j in range(n) if i != j]
    found = set()
    for chosen in product((0, 1), repeat=len(off)):
        edges = [e for e, yes in zip(off, chosen, strict=True) if yes]
        if nx.is_directed_acyclic_graph(nx.DiGraph(edges)):
            found.add(frozenset(edges))
    return found


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_the_list_holds_every_acyclic_graph_once(n):
    listed = method.dags(n)
    edges = {frozenset(map(tuple, A.nonzero().tolist())) for A in listed}
    assert len(listed) == len(edges) == graphs.robinson(n)
    assert edges == brute(n)
    assert not listed[0].any()


def test_robinson_counts_as_published():
    # Sequence A003024 of the OEIS.
    counts = [1, 1, 3, 25, 543, 29281, 3781503, 1138779265]
    assert [graphs.robinson(n) for n in range(8)] == counts
    assert len(method.dags(5)) == 29281


@pytest.mark.parametrize("n", [2, 3, 4])
def test_families_number_the_parents(n):
    A, sets, numbers = method.dags(n), method.parent_sets(n), method.families(n)
    for i in range(n):
        assert torch.equal(sets[i][numbers[:, i]], A[:, :, i])
        assert len({tuple(row) for row in sets[i].tolist()}) == 2 ** (n - 1)
        assert not sets[i][:, i].any()


@pytest.mark.parametrize("n", [2, 3, 4])
def test_numbers_come_back_in_any_order(n):
    order = torch.randperm(len(method.dags(n)), generator=rng())
    assert torch.equal(graphs.number(method.dags(n)[order]), order)
    cycle = torch.zeros(n, n, dtype=torch.bool)
    cycle[0, 1] = cycle[1, 0] = True
    refused("cycle", lambda: graphs.number(cycle))


def test_relabelling_moves_every_arrow():
    orders, new = graphs.relabelling(3)
    assert sorted(map(tuple, orders.tolist())) == list(permutations(range(3)))
    for order, row in zip(orders, new, strict=True):
        place = {int(old): a for a, old in enumerate(order)}
        for old, moved in zip(method.dags(3), method.dags(3)[row], strict=True):
            arrows = {(place[i], place[j]) for i, j in old.nonzero().tolist()}
            assert arrows == set(map(tuple, moved.nonzero().tolist()))


@pytest.mark.parametrize("n", [3, 4])
def test_separations_are_those_of_networkx(n):
    A = method.dags(n)
    some = torch.randperm(len(A), generator=rng(n))[:40]
    table = graphs.separations(A[some])
    assert table.shape[1] == math.comb(n, 2) * 2 ** (n - 2)
    for row, graph in zip(table, A[some], strict=True):
        net, count = digraph(graph), 0
        for i, j in combinations(range(n), 2):
            rest = [k for k in range(n) if k not in (i, j)]
            for size in range(len(rest) + 1):
                for given_ in combinations(rest, size):
                    apart = nx.is_d_separator(net, {i}, {j}, set(given_))
                    assert bool(graphs.separated(graph, i, j, given_)) == apart
                    count += apart
        assert int(row.sum()) == count


@pytest.mark.parametrize(
    ("n", "counts", "largest"),
    [(3, [11, 20, 25, 25], 6), (4, [185, 345, 474, 543, 543], 24)],
)
def test_classes_are_what_separations_and_likelihoods_tell_apart(n, counts, largest):
    A = method.dags(n)
    separations = graphs.separations(A).byte()
    same = torch.unique(separations, dim=0, return_inverse=True)[1]
    for k, expected in enumerate(counts):
        labels = graphs.classes(A, range(k))
        assert int(labels.max()) + 1 == expected
        steps = 40
        targets = torch.arange(steps)[None] % (k + 1) - 1  # -1, 0, ..., k - 1
        scores = method.log_likelihoods(normal(1, steps, n), targets, [steps])[0, 0]
        rounded = (scores * 1e7).round()
        assert len(rounded.unique()) == expected
        for label in labels.unique():
            inside = scores[labels == label]
            assert float(inside.max() - inside.min()) < 1e-10
    observed = graphs.classes(A)
    assert int(observed.bincount().max()) == largest
    pairs = torch.stack([same, observed], 1).unique(dim=0)
    assert len(pairs) == counts[0] == int(same.max()) + 1


def test_a_cut_takes_the_arrows_into_a_node_only():
    A = method.dags(3)
    for k in range(3):
        less = graphs.cut(A, k)
        assert not less[:, :, k].any()
        others = [i for i in range(3) if i != k]
        assert torch.equal(less[:, :, others], A[:, :, others])


@given(st.integers(-3, 12))
def test_only_so_many_nodes_are_listed(n):
    if not 1 <= n <= 5:
        refused(f"n is {n}", lambda: method.dags(n))
        refused(f"n is {n}", lambda: method.parent_sets(n))
    if n < 0:
        refused("from 0 on", lambda: graphs.robinson(n))


# Worlds


def test_parameters_have_the_moments_of_the_prior():
    n, B = 3, 60_000
    world = method.draw(B, n, 1, rng(), prior=method.Prior(alpha=9.0, tau=3.0))
    A = method.dags(n)[world.graph]
    assert not world.weights[~A].any()
    p = A.sum(1)
    for parents in range(n):
        variance = world.scale[p == parents].square()
        a = (9.0 - n + parents + 1) / 2
        # Inverse gamma: mean 1.5 / (a - 1), precision Gamma with mean a / 1.5.
        error = variance.std() / len(variance) ** 0.5
        assert abs(variance.mean() - 1.5 / (a - 1)) < 5 * error
        precision = 1 / variance
        error = precision.std() / len(precision) ** 0.5
        assert abs(precision.mean() - a / 1.5) < 5 * error
    at = A.nonzero(as_tuple=True)
    z = world.weights[at] / world.scale[at[0], at[2]] * 3.0**0.5
    assert stats.kstest(z[:20_000].numpy(), "norm").pvalue > 1e-4
    counts = world.graph.bincount(minlength=25)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-4


def test_the_standard_prior_has_its_shapes():
    assert method.Prior().shapes(3).tolist() == [1.5, 2.0, 2.5]
    assert method.Prior().shapes(4).tolist() == [1.5, 2.0, 2.5, 3.0]
    assert method.Prior(alpha=2.5).shapes(3).tolist() == [0.25, 0.75, 1.25]


CDFS = {
    "normal": stats.norm().cdf,
    "laplace": stats.laplace(scale=0.5**0.5).cdf,
    "uniform": stats.uniform(-(3**0.5), 2 * 3**0.5).cdf,
    "t3": stats.t(3, scale=3**-0.5).cdf,
}


@pytest.mark.parametrize("noise", method.NOISES)
def test_noise_has_its_distribution_of_variance_one(noise):
    drawn = method.draw(400, 2, 25, rng(3), noise=noise).noise.flatten().numpy()
    assert stats.kstest(drawn, CDFS[noise]).pvalue > 1e-3
    if noise != "t3":
        assert abs(drawn.var() - 1) < 0.06


FUNCTIONS = {
    "linear": lambda z: z,
    "tanh": lambda z: 2 * math.tanh(z),
    "abs": abs,
    "square": lambda z: z * z / 3,
}


@pytest.mark.parametrize("mechanism", method.MECHANISMS)
@pytest.mark.parametrize("n", [2, 4])
def test_responses_by_hand_in_causal_order(mechanism, n):
    B, steps, g = 5, 6, rng(n)
    world = method.draw(B, n, steps, g, mechanism=mechanism)
    targets, forced = method.interventions(B, n, steps, g)
    targets[:, 2] = -1
    values = method.respond(world, targets, forced)
    f = FUNCTIONS[mechanism]
    for b in range(B):
        order = list(nx.topological_sort(digraph(method.dags(n)[world.graph[b]])))
        for t in range(steps):
            x = {}
            for i in order:
                x[i] = float(world.scale[b, i] * world.noise[b, t, i])
                x[i] += sum(
                    float(world.weights[b, j, i]) * f(x[j]) for j in x if j != i
                )
                if targets[b, t] == i:
                    x[i] = float(forced[b, t])
            assert values[b, t].tolist() == pytest.approx([x[i] for i in range(n)])


def test_interventions_are_uniform_and_as_wide_as_asked():
    targets, forced = method.interventions(2000, 3, 10, rng(), 5.0)
    assert stats.chisquare(targets.flatten().bincount().numpy()).pvalue > 1e-4
    assert stats.kstest(forced.flatten().numpy() / 5, "norm").pvalue > 1e-4
    wide = method.interventions(2000, 3, 10, rng())[1]
    assert wide.std().item() == pytest.approx(8, rel=0.03)


def test_draws_keep_to_the_graphs_that_they_are_given():
    allowed = torch.tensor([3, 7, 20])
    graph = method.draw(300, 3, 1, rng(), allowed=allowed).graph
    assert graph.unique().tolist() == [3, 7, 20]
    fixed = torch.arange(25)
    assert torch.equal(method.draw(25, 3, 1, rng(), graph=fixed).graph, fixed)
    again = method.sample(25, 3, 4, rng(), graph=fixed, noise="uniform")
    assert torch.equal(again.graph, fixed) and again.values.shape == (25, 4, 3)


def test_bad_worlds_are_refused():
    refused("'cube' is unknown", lambda: method.draw(1, 3, 1, rng(), mechanism="cube"))
    refused("'cauchy' is unknown", lambda: method.draw(1, 3, 1, rng(), noise="cauchy"))
    for wrong in ([25], [-1], [0.0]):
        graph = torch.tensor(wrong)
        refused("0 to 24", lambda g=graph: method.draw(1, 3, 1, rng(), graph=g))
    for alpha in (2.0, -1.0, math.nan, math.inf):
        refused("alpha above 2", lambda a=alpha: method.Prior(a).shapes(3))
    for tau in (0.0, -2.0, math.nan, math.inf):
        refused("tau above 0", lambda t=tau: method.Prior(tau=t).shapes(3))


# The exact posterior


def student(values, targets, i, parents, prior, n):
    """log p of node i's values, as a product of Student-t predictives."""
    a = ((n + 2 if prior.alpha is None else prior.alpha) - n + len(parents) + 1) / 2
    precision, mean = prior.tau * np.eye(len(parents)), np.zeros(len(parents))
    b, total = prior.tau / 2, 0.0
    for x, target in zip(values, targets, strict=True):
        if target == i:
            continue
        z = x[parents]
        cover = np.linalg.inv(precision)
        width = b / a * (1 + z @ cover @ z)
        total += stats.t.logpdf(x[i], 2 * a, z @ mean, width**0.5)
        new = precision + np.outer(z, z)
        moved = np.linalg.solve(new, precision @ mean + z * x[i])
        b += (x[i] ** 2 + mean @ precision @ mean - moved @ new @ moved) / 2
        precision, mean, a = new, moved, a + 0.5
    return total


PRIORS = [method.Prior(), method.Prior(alpha=3.2, tau=0.7)]


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("n", [2, 3, 4])
def test_scores_are_products_of_student_predictives(n, prior):
    _, targets, values = episodes(2, n, 9, seed=n)
    scores = method.node_scores(method.statistics(values, targets), prior)
    assert scores.shape == (2, 9, n, 2 ** (n - 1))
    for b, t in ((0, 8), (1, 3), (1, 0)):
        x, forced = values[b, : t + 1].numpy(), targets[b, : t + 1].tolist()
        for i in range(n):
            for s, row in enumerate(method.parent_sets(n)[i]):
                parents = row.nonzero()[:, 0].tolist()
                slow = student(x, forced, i, parents, prior, n)
                assert scores[b, t, i, s].item() == pytest.approx(slow, abs=1e-10)


def literal(values, targets, n, prior=method.STANDARD):
    """(6) as written, summed over the nodes of every graph, [graphs]."""
    alpha = n + 2 if prior.alpha is None else prior.alpha
    total = []
    for A in method.dags(n).numpy():
        score = 0.0
        for i in range(n):
            P = np.flatnonzero(A[:, i])
            x = values[targets != i]
            m, p = len(x), len(P)
            R = prior.tau * np.eye(n) + x.T @ x
            a = (alpha - n + p + 1) / 2
            both = [*P, i]
            score += -m / 2 * math.log(math.pi) + gammaln(a + m / 2) - gammaln(a)
            score += (a + p / 2) * math.log(prior.tau)
            score -= (a + m / 2) * np.linalg.slogdet(R[np.ix_(both, both)])[1]
            score += (a + m / 2 - 0.5) * np.linalg.slogdet(R[np.ix_(P, P)])[1]
        total.append(score)
    return np.array(total)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_likelihoods_are_those_of_the_literal_loop(n):
    _, targets, values = episodes(3, n, 10)
    fast = method.log_likelihoods(values, targets)
    assert fast.shape == (3, 10, graphs.robinson(n))
    for b, t in ((0, 9), (1, 4), (2, 0)):
        slow = literal(values[b, : t + 1].numpy(), targets[b, : t + 1].numpy(), n)
        assert fast[b, t].numpy() == pytest.approx(slow, abs=1e-10)
    some = method.log_likelihoods(values, targets, [0, 5, 10])
    assert float(some[:, 0].abs().max()) < 1e-14
    assert torch.allclose(some[:, 1:], fast[:, [4, 9]], atol=1e-12)
    log_p = method.log_posterior(values, targets, [10])[:, 0]
    assert torch.allclose(log_p, fast[:, 9].log_softmax(-1), atol=1e-12)


def test_five_nodes_follow_the_literal_sums():
    _, targets, values = episodes(1, 5, 8)
    fast = method.log_likelihoods(values, targets, [8])[0, 0]
    for g in (0, 1, 777, 12_345, 29_280):
        A = method.dags(5)[g]
        slow = sum(
            student(values[0].numpy(), targets[0].tolist(), i, parents, PRIORS[0], 5)
            for i in range(5)
            for parents in [A[:, i].nonzero()[:, 0].tolist()]
        )
        assert fast[g].item() == pytest.approx(slow, abs=1e-9)


def test_a_likelihood_by_monte_carlo():
    _, targets, values = episodes(1, 2, 3, seed=4, watch=0.5)
    exact = method.log_likelihoods(values, targets, [3])[0, 0]
    for g, A in enumerate(method.dags(2)):
        world = method.draw(200_000, 2, 1, rng(g), graph=torch.full((200_000,), g))
        total = torch.zeros(200_000, dtype=torch.float64)
        for x, target in zip(values[0], targets[0], strict=True):
            for i in range(2):
                if target != i:
                    mean = (world.weights[:, :, i] * A[:, i] * x).sum(1)
                    density = torch.distributions.Normal(mean, world.scale[:, i])
                    total += density.log_prob(x[i])
        weight = total.exp()
        error = float(weight.std() / weight.mean() / len(weight) ** 0.5)
        assert error < 0.03
        assert abs(total.logsumexp(0) - math.log(len(total)) - exact[g]) < 5 * error


def test_order_does_not_matter_and_statistics_add():
    _, targets, values = episodes()
    order = torch.randperm(12, generator=rng(1))
    whole = method.log_posterior(values, targets)[:, -1]
    mixed = method.log_posterior(values[:, order], targets[:, order])[:, -1]
    assert torch.allclose(whole, mixed, atol=1e-9)
    seen = method.nothing(6, 3)
    for t in range(12):
        seen = seen.add(values[:, t], targets[:, t])
    once = method.statistics(values, targets)
    assert torch.allclose(seen.scatter, once.scatter[:, -1])
    assert torch.equal(seen.free, once.free[:, -1])
    added = method.graph_scores(seen).log_softmax(-1)
    assert torch.allclose(added, whole, atol=1e-9)


def test_the_posterior_is_calibrated_at_every_step():
    graph, targets, values = method.sample(4000, 3, 20, rng(11))
    log_p = method.log_posterior(values, targets)
    surprise = -log_p[torch.arange(4000), :, graph]
    gap = surprise - method.entropy(log_p)  # of mean 0 where prior and draws agree
    error = gap.std(0) / len(gap) ** 0.5
    assert float((gap.mean(0) / error).abs().max()) < 4.5
    # Seen by the brief at steps 1, 5, 10, 15, 20.
    means = method.entropy(log_p).mean(0)[[0, 4, 9, 14, 19]]
    assert means.tolist() == pytest.approx([2.93, 1.96, 1.37, 1.10, 0.94], abs=0.06)


def test_a_forced_value_is_no_evidence_for_its_node():
    _, targets, values = episodes(1, 2, 1)
    targets = torch.zeros(1, 1, dtype=torch.int64)
    before = method.node_scores(method.statistics(values, targets))
    other = values.clone()
    other[..., 0] += 3
    after = method.node_scores(method.statistics(other, targets))
    assert max(float(s[0, 0, 0].abs().max()) for s in (before, after)) < 1e-14
    assert torch.equal(before[0, 0, 1, 0], after[0, 0, 1, 0])  # no parents
    assert not torch.isclose(before[0, 0, 1, 1], after[0, 0, 1, 1])  # with parent 0


def test_predictives_follow_the_chain_rule():
    _, targets, values = episodes(3, 3, 7)
    likelihoods = method.log_likelihoods(values, targets)
    told = method.predictive(likelihoods)
    assert told.shape == (3, 7)
    before = torch.zeros(3, 25, dtype=torch.float64)
    for t in range(7):
        weights = before.softmax(-1)
        ratio = (likelihoods[:, t] - before).exp()
        mixed = (weights * ratio).sum(-1).log()
        assert torch.allclose(told[:, t], mixed, atol=1e-10)
        before = likelihoods[:, t]
    whole = likelihoods[:, -1].exp().mean(-1).log()
    assert torch.allclose(told.sum(-1), whole, atol=1e-9)


@few
@given(seeds, st.integers(0, 6), st.sampled_from(["nan", "inf", "shape", "target"]))
def test_bad_data_are_refused(seed, at, what):
    _, targets, values = episodes(1, 3, 7, seed)
    if what in ("nan", "inf"):
        values[0, at, 1] = float(what)
        words = "NaN, or"
    elif what == "shape":
        targets, words = targets[:, : at + 7 * (at == 0) - 1], r"\[B, T, n\]"
    else:
        targets[0, at] = 3 if seed % 2 else -2
        words = "from -1 to 2"
    refused(words, lambda: method.log_posterior(values, targets))
    refused(words, lambda: method.statistics(values, targets))
    refused(words, lambda: method.features(values, targets))


def test_steps_that_are_not_there_are_refused():
    _, targets, values = episodes(1, 3, 7)
    for after in ([8], [-1], [0, 9]):
        refused("0 to 7", lambda a=after: method.log_posterior(values, targets, a))
    real = targets.double()
    refused("whole numbers", lambda: method.statistics(values, real))


# What beliefs say


def beliefs(n=3, B=5, seed=0, scale=2.0):
    return normal(B, graphs.robinson(n), seed=seed, scale=scale).log_softmax(-1)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_marginals_and_logits_count_the_graphs_that_have_an_edge(n):
    log_p = beliefs(n)
    marginals, logits = method.edge_marginals(log_p), method.edge_logits(log_p)
    for i, j in product(range(n), repeat=2):
        has = method.dags(n)[:, i, j].double()
        p = (log_p.exp() * has).sum(-1)
        assert torch.allclose(marginals[:, i, j], p, atol=1e-12)
        if i != j:
            assert torch.allclose(logits[:, i, j], torch.logit(p), atol=1e-9)
    assert bool((logits.diagonal(dim1=1, dim2=2) == -math.inf).all())


def test_logits_do_not_saturate():
    # Edge 0 -> 1 in one graph, at e^-800 and at 1 - e^-800.
    has = method.dags(2)[:, 0, 1]
    for sign in (-1, 1):
        log_p = torch.where(has, 400.0 * sign, -400.0 * sign).double().log_softmax(-1)
        z = method.edge_logits(log_p)[0, 1].item()
        assert z == pytest.approx(800 * sign - math.log(2), abs=1e-9)


def test_entropy_and_divergence_by_hand():
    p, q = beliefs(seed=1), beliefs(seed=2)
    by_hand = stats.entropy(p.exp().numpy(), axis=1)
    assert method.entropy(p).numpy() == pytest.approx(by_hand)
    by_hand = stats.entropy(p.exp().numpy(), q.exp().numpy(), axis=1)
    assert method.kl(p, q).numpy() == pytest.approx(by_hand)
    sure = torch.full((25,), -math.inf, dtype=torch.float64)
    sure[4] = 0
    assert method.entropy(sure) == 0
    assert method.kl(sure, q[0]) == pytest.approx(-q[0, 4].item())
    assert method.kl(sure, sure) == 0


def test_a_product_is_normalised_over_all_directed_graphs():
    logits = normal(2, 3, 3, seed=5)
    p = logits.sigmoid()
    for b in range(2):
        total, listed = 0.0, method.product(logits)[b].exp()
        off = [(i, j) for i in range(3) for j in range(3) if i != j]
        for chosen in product((0, 1), repeat=6):
            A = torch.zeros(3, 3, dtype=torch.bool)
            q = 1.0
            for (i, j), yes in zip(off, chosen, strict=True):
                A[i, j] = bool(yes)
                q *= float(p[b, i, j] if yes else 1 - p[b, i, j])
            total += q
            if nx.is_directed_acyclic_graph(digraph(A)):
                assert listed[graphs.number(A)].item() == pytest.approx(q)
        assert total == pytest.approx(1)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_total_correlation_splits_the_divergence(n):
    p, logits = beliefs(n), normal(5, n, n, seed=n)
    gap = method.kl(p, method.product(logits))
    off = ~torch.eye(n, dtype=torch.bool)
    a, b = method.edge_marginals(p)[:, off], logits.sigmoid()[:, off]
    edges = a * (a / b).log() + (1 - a) * ((1 - a) / (1 - b)).log()
    assert torch.allclose(method.total_correlation(p), gap - edges.sum(-1), atol=1e-10)


def test_total_correlation_of_the_prior():
    for n, expected, mass in ((3, 0.542, 0.703), (4, 1.126, 0.491)):
        flat = torch.zeros(graphs.robinson(n), dtype=torch.float64).log_softmax(-1)
        assert method.total_correlation(flat).item() == pytest.approx(
            expected, abs=5e-4
        )
        inside = method.product(method.edge_logits(flat)).exp().sum()
        assert inside.item() == pytest.approx(mass, abs=5e-4)
    sure = torch.full((25,), -math.inf, dtype=torch.float64)
    sure[4] = 0
    assert method.total_correlation(sure).item() == pytest.approx(0, abs=1e-9)


def test_beliefs_of_no_known_size_are_refused():
    for size in (1, 2, 24, 26, 542):
        log_p = torch.zeros(size)
        refused(f"{size} graphs", lambda p=log_p: method.edge_marginals(p))
        refused("3, 25, 543", lambda p=log_p: method.nodes(p))


# Gains


def test_both_routes_to_a_gain_agree_and_match_fresh_worlds():
    g = rng(0)
    _, targets, values = episodes(1, 3, 4, seed=9)
    seen = method.statistics(values, targets, [4])
    one = method.Statistics(seen.free[:, 0], seen.scatter[:, 0])
    many = method.Statistics(*(part.expand(300, *part.shape[1:]) for part in one))
    gain = method.gains(many, g, 40)
    for k in range(3):
        gap = gain.entropy[:, k] - gain.kl[:, k]
        assert abs(gap.mean()) < 4.5 * gap.std() / 300**0.5
    start = method.gains(method.nothing(300, 3), g, 40)
    # Before any data the gain is log 25 less the mean entropy after one step.
    _, targets, values = method.sample(12_000, 3, 1, rng(5))
    after = math.log(25) - method.entropy(method.log_posterior(values, targets)[:, 0])
    assert start.kl.min() >= 0
    for route in start[:2]:
        error = math.hypot(
            float(route.std()) / 900**0.5, float(after.std()) / len(after) ** 0.5
        )
        assert abs(route.mean() - after.mean()) < 4.5 * error
    # Over many estimates the error is their deviation.
    ratio = start.error.square().mean().sqrt() / start.kl.std(0).mean()
    assert 0.85 < ratio < 1.1
    narrow = method.gains(method.nothing(300, 3), g, 40, spread=0.1)
    assert narrow.kl.mean() < start.kl.mean() - 0.05


def test_a_gain_by_importance_weights():
    """Worlds of the prior, weighted by the likelihood of the data, tell the same."""
    _, targets, values = episodes(1, 2, 2, seed=2, watch=0.0)
    seen = method.statistics(values, targets, [2])
    one = method.Statistics(seen.free[:, 0], seen.scatter[:, 0])
    gain = method.gains(
        method.Statistics(*(p.expand(400, *p.shape[1:]) for p in one)), rng(1), 50
    )
    B = 150_000
    world = method.draw(B, 2, 1, rng(2))
    log_w = torch.zeros(B, dtype=torch.float64)
    for x, target in zip(values[0], targets[0], strict=True):
        for i in range(2):
            if target != i:
                mean = (world.weights[:, :, i] * x).sum(1)
                density = torch.distributions.Normal(mean, world.scale[:, i])
                log_w += density.log_prob(x[i])
    w = log_w.softmax(0)
    before = method.graph_scores(one).log_softmax(-1)
    forced = 8 * normal(B, 1, seed=8)
    for k in range(2):
        target = torch.full((B, 1), k)
        x = method.respond(world, target, forced)
        data = torch.cat([values.expand(B, -1, -1), x], 1)
        both = torch.cat([targets.expand(B, -1), target], 1)
        after = method.entropy(method.log_posterior(data, both, [3])[:, 0])
        expected = float(method.entropy(before)[0] - (w * after).sum())
        error = float((w * (after - (w * after).sum())).square().sum().sqrt())
        error = math.hypot(error, float(gain.entropy[:, k].std()) / 20)
        assert error < 0.02
        assert abs(gain.entropy[:, k].mean() - expected) < 4.5 * error


def test_posterior_parameters_have_their_moments():
    n, graph = 3, graphs.number(torch.tensor([[0, 1, 1], [0, 0, 1], [0, 0, 0]]).bool())
    _, targets, values = episodes(1, n, 15, seed=3)
    seen = method.statistics(values, targets, [15])
    B = 30_000
    many = method.Statistics(
        seen.free[0].expand(B, n), seen.scatter[0].expand(B, n, n, n)
    )
    world = method.posterior_world(many, graph.expand(B), rng(4))
    assert world.noise.shape == (B, 1, n)
    assert abs(float(world.noise.std()) - 1) < 0.02
    for i in range(n):
        P = list(range(i))
        x = values[0][targets[0] != i].numpy()
        design, y = x[:, P], x[:, i]
        precision = 2 * np.eye(i) + design.T @ design
        mean = np.linalg.solve(precision, design.T @ y)
        a = (i + 3) / 2 + len(x) / 2
        b = (2 + y @ y - mean @ precision @ mean) / 2
        drawn = world.weights[:, P, i]
        cover = b / (a - 1) * np.linalg.inv(precision)
        assert drawn.mean(0).numpy() == pytest.approx(
            mean, abs=5 * np.sqrt(np.diag(cover).max() / B) if i else 0
        )
        if i:
            found = np.atleast_2d(np.cov(drawn.T.numpy()))
            assert found == pytest.approx(cover, abs=0.06 * np.abs(cover).max())
        precisions = 1 / world.scale[:, i].square()
        assert float(precisions.mean()) == pytest.approx(a / b, rel=0.02)
        rest = [j for j in range(n) if j not in P]
        assert not world.weights[:, rest, i].any()


# Relabelling


@few
@given(seeds)
def test_the_posterior_moves_with_the_names(seed):
    _, targets, values = episodes(2, 3, 6, seed)
    log_p = method.log_posterior(values, targets)
    orders, new = graphs.relabelling(3)
    renamed = []
    for order, row in zip(orders, new, strict=True):
        x, forced = graphs.relabel(values, targets, order)
        for a in range(3):
            assert torch.equal(x[..., a], values[..., order[a]])
            assert torch.equal(forced == a, targets == order[a])
        again = method.log_posterior(x, forced)
        assert torch.allclose(again[..., row], log_p, atol=1e-9)
        renamed.append(again)
    same = graphs.symmetrised(torch.stack(renamed))
    assert torch.allclose(same, log_p, atol=1e-9)


def test_averaging_over_names_cannot_raise_the_mean_loss():
    """Of a network, on data closed under relabelling; log q is its mean."""
    graph, targets, values = method.sample(20, 3, 5, rng())
    net, (orders, new) = method.Belief(9, 25, 3), graphs.relabelling(3)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(3)
        beliefs = torch.stack(
            [
                net(method.features(*graphs.relabel(values, targets, order)))
                .double()
                .log_softmax(-1)
                for order in orders
            ]
        )
    rows = torch.arange(20)
    plain = [-b[rows, :, row[graph]] for b, row in zip(beliefs, new, strict=True)]
    averaged = graphs.symmetrised(beliefs)
    assert torch.allclose(averaged.exp().sum(-1), torch.ones(20, 5).double())
    by_hand = torch.stack([-loss for loss in plain]).exp().mean(0).log()
    assert torch.allclose(averaged[rows, :, graph], by_hand, atol=1e-9)
    assert -averaged[rows, :, graph].mean() < torch.stack(plain).mean() - 1e-4


# The network


def test_features_are_what_they_say():
    targets = torch.tensor([[0, 2, -1]])
    values = normal(1, 3, 3, scale=20)
    seen = method.features(values, targets)
    assert seen.dtype == torch.float32 and seen.shape == (1, 3, 9)
    assert seen[0, :, :3].numpy() == pytest.approx(np.arcsinh(values[0].numpy()), 1e-5)
    assert torch.allclose(seen[0, :, 3:6], (values[0] / 8).float())
    assert seen[0, :, 6:].tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_the_network_reads_forward_and_starts_by_its_seed():
    net, x = method.Belief(9, 25, 1), torch.randn(4, 6, 9, generator=rng())
    assert sum(p.numel() for p in net.parameters()) == 31_385
    logits = net(x)
    assert logits.shape == (4, 6, 25)
    assert torch.allclose(net(x[:, :3]), logits[:, :3], atol=1e-5)
    assert not torch.allclose(net(x.flip(1))[:, -1], logits[:, -1])
    assert torch.equal(method.Belief(9, 25, 1)(x), logits)
    assert not torch.equal(method.Belief(9, 25, 2)(x), logits)
    by_hand = net.outside(net.hidden(net.states(x)).relu())
    assert torch.equal(by_hand, logits)
    assert method.Belief(9, 6, 0, width=8).states(x).shape == (4, 6, 8)


def test_the_figure_gets_the_layers_in_order():
    net = method.Belief(9, 25, 1)
    payload = method.figure(net)
    assert payload["graphs"] == method.dags(3).int().tolist()
    names = ("memory.weight_ih_l0", "memory.weight_hh_l0")
    pairs = [("inside.weight", "inside.bias")]
    pairs += [(name, name.replace("weight", "bias")) for name in names]
    pairs += [(f"{name}.weight", f"{name}.bias") for name in ("hidden", "outside")]
    state = net.state_dict()
    for layer, (weight, bias) in zip(payload["layers"], pairs, strict=True):
        plain = torch.nn.Linear(*state[weight].T.shape)
        plain.load_state_dict({"weight": state[weight], "bias": state[bias]})
        assert layer == export(torch.nn.Sequential(plain))["layers"][0]
    for wrong in (method.Belief(9, 6, 0), method.Belief(12, 25, 0)):
        refused("9 and 25", lambda w=wrong: method.figure(w))


# A reader's own table


def chain(rows=400, seed=0):
    """0 -> 1 -> 2 with each column forced in a fifth of the rows, and far from 0."""
    g = np.random.default_rng(seed)
    targets = g.choice([-1, -1, 0, 1, 2], rows)
    x = np.zeros((rows, 3))
    for i in range(3):
        x[:, i] = g.normal(size=rows) + (0.9 * x[:, i - 1] if i else 0)
        x[:, i] = np.where(targets == i, 4 * g.normal(size=rows), x[:, i])
    return x * [1, 30, 0.02] + [5, -400, 1], targets


def test_a_table_gives_its_graph_back():
    x, targets = chain()
    answer = method.posterior(x, targets)
    best = answer.graphs[answer.probabilities.argmax()]
    assert best.nonzero().tolist() == [[0, 1], [1, 2]]
    assert answer.probabilities.sum().item() == pytest.approx(1)
    assert answer.edges[0, 1] > 0.99 and answer.edges[1, 0] < 0.01
    assert "0 -> 1, 1 -> 2" in answer.summary and "sure and wrong" in answer.summary
    log_p = answer.probabilities.log()
    assert f"{method.entropy(log_p).item():.2f} of 3.22 nats" in answer.summary
    moved = method.posterior(x * [7, 0.1, 3] - [1, 2, 3], targets)
    assert torch.allclose(moved.probabilities, answer.probabilities, atol=1e-9)


def test_a_table_on_the_scale_of_the_prior_is_left_as_it_is():
    _, targets, values = episodes(1, 4, 30)
    answer = method.posterior(
        values[0].numpy(), targets[0].numpy(), standardise=False, prior=PRIORS[1]
    )
    log_p = method.log_posterior(values, targets, [30], PRIORS[1])[0, 0]
    assert torch.allclose(answer.probabilities, log_p.exp(), atol=1e-12)
    assert torch.allclose(answer.edges, method.edge_marginals(log_p), atol=1e-12)
    again = method.posterior(
        values[0].numpy(), targets[0].numpy(), standardise=False, prior=PRIORS[1]
    )
    assert torch.equal(again.gains, answer.gains)


def test_columns_are_scaled_by_rows_that_were_left_alone():
    x, targets = chain(60)
    scaled = method._standardised(torch.tensor(x), torch.tensor(targets))
    alone = scaled[targets == -1]
    assert alone.mean(0).tolist() == pytest.approx([0, 0, 0], abs=1e-12)
    assert alone.std(0).tolist() == pytest.approx([1, 1, 1])
    busy = np.where(targets < 0, 0, targets)
    scaled = method._standardised(torch.tensor(x), torch.tensor(busy))
    for j in range(3):
        own = scaled[busy != j, j]
        assert own.mean().item() == pytest.approx(0, abs=1e-12)
        assert own.std().item() == pytest.approx(1)


def test_the_next_column_is_the_one_that_tells_most():
    """Two columns that were only watched: an arrow, and no direction."""
    g = np.random.default_rng(1)
    x = g.normal(size=(60, 2))
    x[:, 1] += 0.8 * x[:, 0]
    answer = method.posterior(x, np.full(60, -1))
    assert answer.edges[0, 1].item() == pytest.approx(answer.edges[1, 0].item())
    wide, narrow = (method.posterior(x, np.full(60, -1), spread=s) for s in (40, 0.1))
    assert wide.gains.min() > 0.4 > 0.1 > narrow.gains.max() > 0
    again = method.posterior(x, np.full(60, -1), seed=1)
    assert not torch.equal(again.gains, answer.gains)
    told = answer._replace(gains=torch.tensor([0.1, 0.4]))
    assert told.next == 1 and "column 1 next: 0.40 nats" in told.summary
    empty = torch.zeros(3).double()
    empty[0] = 1.0
    assert "no arrow" in told._replace(probabilities=empty).summary


@pytest.mark.parametrize("rows", [40, 4000])
def test_advice_does_not_hang_on_the_seed(rows):
    x, targets = chain(rows)
    answers = [method.posterior(x, targets, seed=seed) for seed in range(3)]
    assert len({a.summary for a in answers}) == len({a.next for a in answers}) == 1
    assert all(a.gains.min() >= 0 and a.gains.max() < 0.005 for a in answers)
    assert "No column is expected to tell more" in answers[0].summary


@pytest.mark.parametrize(
    ("gain", "error", "advice"),
    [
        (0.4, 0.19, "Force column 1 next: 0.40 nats"),
        (0.4, 0.21, "No column is expected to tell more"),
        (0.0051, 0.0, "Force column 1 next: 0.01 nats"),
        (0.0049, 0.0, "No column is expected to tell more"),
    ],
)
def test_a_gain_that_its_error_hides_is_no_advice(gain, error, advice):
    answer = method.posterior(*chain(40))
    gains, errors = torch.tensor([-20.0, gain, -20.0]), torch.tensor([9.0, error, 9.0])
    told = answer._replace(gains=gains, errors=errors)
    assert advice in told.summary and told.next == 1


@pytest.mark.parametrize(
    ("second", "columns"), [(0.361, "0 or 1"), (0.359, "1")], ids=["near", "apart"]
)
def test_columns_that_their_errors_do_not_tell_apart_are_all_named(second, columns):
    answer = method.posterior(*chain(40))
    gains, errors = torch.tensor([second, 0.4, 0.0]), torch.tensor([0.016, 0.012, 0.01])
    told = answer._replace(gains=gains, errors=errors)
    assert f"Force column {columns} next: 0.40 nats" in told.summary


def test_a_summary_names_what_it_takes_for_granted():
    x, targets = chain(40)
    told = method.posterior(x, targets, spread=2.5).summary
    for words in (
        "centred and scaled by rows that did not force",
        r"N(0, 2.5^2) in these units",
        "all graphs are equally likely",
        "no common cause",
        "effects are linear",
        "noise is normal",
        "as in the prior",
        "rows are independent",
        "nothing else",
    ):
        assert words in told
    plain = method.posterior(x / 400, targets, standardise=False).summary
    assert "Columns are as they are," in plain and "centred" not in plain


def test_a_wide_spread_gives_gains_that_both_routes_support():
    _, targets, values = episodes(1, 3, 8, seed=5)
    seen = method.statistics(values, targets, [8])
    one = method.Statistics(seen.free[:, 0], seen.scatter[:, 0])
    for spread in (1e3, 9e5):
        gain = method.gains(one, rng(), 4000, spread)
        assert float((gain.kl - gain.entropy).abs().max()) < 0.1
    for spread in (1e6, 1e50):
        refused("1e\\+06", lambda s=spread: method.posterior(*chain(40), spread=s))


def test_tensors_and_arrays_without_a_masked_entry_are_read():
    x, targets = chain(40)
    answer = method.posterior(x, targets)
    leaf = torch.tensor(x, requires_grad=True)
    for same in (leaf, np.ma.array(x), x.tolist()):
        again = method.posterior(same, torch.tensor(targets))
        assert torch.equal(again.probabilities, answer.probabilities)


def still(x, targets, column=1):
    """A column that moves only where it is forced."""
    x = x.copy()
    x[targets != column, column] = 0.1
    return x


RAW = {
    "ragged": (lambda x, t: method.posterior([[1, 2], [3]], [0, 0]), "one length"),
    "ragged targets": (lambda x, t: method.posterior(x, [[0], []]), "one length"),
    "masked": (
        lambda x, t: method.posterior(np.ma.masked_less(x, 0), t),
        "the table has masked",
    ),
    "masked targets": (
        lambda x, t: method.posterior(x, np.ma.masked_less(t, 0)),
        "targets has masked",
    ),
    "word for a seed": (lambda x, t: method.posterior(x, t, seed="x"), "seed.*'x'"),
    "half a seed": (lambda x, t: method.posterior(x, t, seed=1.5), "seed.*1.5"),
    "negative seed": (lambda x, t: method.posterior(x, t, seed=-1), "seed.*-1"),
    "word": (lambda x, t: method.posterior(x, t, spread="a"), "spread 'a'"),
    "no prior": (lambda x, t: method.posterior(x, t, prior=None), "prior is None"),
    "prior of words": (
        lambda x, t: method.posterior(x, t, prior=method.Prior(tau="a")),
        "tau above 0",
    ),
    "still": (
        lambda x, t: method.posterior(still(x, t), t),
        "column 1 is constant where not forced",
    ),
    "half a draw": (
        lambda x, t: method.gains(method.nothing(1, 3), rng(), 1.5),
        "1.5 draws",
    ),
    "given itself": (
        lambda x, t: graphs.separated(method.dags(3), 0, 1, [0]),
        r"\[0, 1, 0\]",
    ),
    "from itself": (lambda x, t: graphs.separated(method.dags(3), 0, 0, []), "once"),
    "no such node": (lambda x, t: graphs.separated(method.dags(3), 0, 3, []), "0 to 2"),
    "class -1": (lambda x, t: graphs.classes(method.dags(3), [-1]), "0 to 2"),
    "class 9": (lambda x, t: graphs.classes(method.dags(3), [9]), r"\[9\].*0 to 2"),
    "order": (
        lambda x, t: graphs.relabel(*data(x, t), torch.tensor([0, 0, 1])),
        "each of 3 nodes once",
    ),
    "tuple": (lambda x, t: graphs.relabel(*data(x, t), (0, 0, 1)), r"\(0, 0, 1\)"),
    "step": (lambda x, t: method.statistics(*data(x, t), [1.5]), r"\[1.5\].*0 to 40"),
    "B": (lambda x, t: method.sample(-1, 3, 2, rng()), "B and steps: .-1, 2"),
    "steps": (lambda x, t: method.sample(1, 3, -2, rng()), "B and steps: .1, -2"),
    "none allowed": (
        lambda x, t: method.sample(1, 3, 2, rng(), allowed=torch.tensor([]).long()),
        "allowed holds no graph",
    ),
    "arrays": (lambda x, t: method.log_posterior(x[None], t[None]), "ndarray"),
    "array of targets": (
        lambda x, t: method.log_posterior(torch.tensor(x[None]), t[None]),
        "give tensors",
    ),
    "nodes": (lambda x, t: method.dags(2.5), "n is 2.5"),
}


def data(x, targets):
    return torch.tensor(x)[None], torch.tensor(targets)[None]


@pytest.mark.parametrize("what", RAW)
def test_what_would_be_a_raw_error_or_nonsense_is_refused(what):
    call, words = RAW[what]
    refused(words, lambda: call(*chain(40)))


def test_a_column_is_scaled_by_what_varies():
    x, targets = chain(60)
    rest = x.copy()
    rest[targets == -1, 1] = 7.0  # constant where nothing was forced
    scaled = method._standardised(torch.tensor(rest), torch.tensor(targets))
    own = scaled[targets != 1, 1]
    assert [own.mean().item(), own.std().item()] == pytest.approx([0, 1])
    forced = np.full(60, 0)  # a column that was forced in every row
    scaled = method._standardised(torch.tensor(x), torch.tensor(forced))
    assert scaled.std(0).tolist() == pytest.approx([1, 1, 1])
    plain = np.full((40, 3), 1.0)  # on the prior's scale a constant is a value
    answer = method.posterior(plain, chain(40)[1], standardise=False)
    log_p = method.log_posterior(*data(plain, chain(40)[1]), [40])[0, 0]
    assert torch.allclose(answer.probabilities, log_p.exp())


def spoilt(what, x, targets, at):
    """A table and targets with one thing wrong, and the words that say so."""
    x, targets = x.copy(), targets.copy()
    if what == "nan":
        x[at, 1] = np.nan
    elif what == "infinite":
        x[at, 2] = -np.inf
    elif what == "constant":
        x[:, 2] = 1.5
    elif what == "wide":
        x = np.concatenate([x, x], 1)
    elif what == "target":
        targets[at] = 3
    elif what == "negative":
        targets[at] = -2
    elif what == "real":
        targets = targets + 0.5
    elif what == "short":
        x, targets = x[:5], targets[:5]
    elif what == "text":
        x = x.astype(str)
    elif what == "lengths":
        targets = targets[1:]
    elif what == "narrow":
        x, targets = x[:, :1], np.full(len(x), -1)
    return x, targets


WORDS = {
    "nan": "NaN",
    "infinite": "infinity",
    "constant": "column 2 is constant",
    "wide": "6 columns",
    "target": "from -1 to 2",
    "negative": "from -1 to 2",
    "real": "whole numbers",
    "short": "5 rows for 3 columns",
    "text": "no numbers",
    "lengths": r"\[rows, columns\] and \[rows\]",
    "narrow": "1 columns",
}


@few
@given(st.sampled_from(sorted(WORDS)), st.integers(0, 39))
def test_bad_tables_are_refused_in_a_sentence(what, at):
    x, targets = spoilt(what, *chain(40), at)
    refused(WORDS[what], lambda: method.posterior(x, targets))


numbers = st.one_of(
    st.floats(-3, 3),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0.0, 1.0, 1e9, 1e9 + 1, 1e99, -1e99, 1e-200, 1e7]),
)
tables = st.lists(st.tuples(numbers, numbers), min_size=2, max_size=14)


@settings(max_examples=60, deadline=None)
@given(tables, st.data(), st.booleans())
def test_any_table_gets_probabilities_or_a_sentence(rows, data, standardise):
    which = st.lists(st.integers(-2, 2), min_size=len(rows), max_size=len(rows))
    targets = data.draw(which)
    try:
        answer = method.posterior(rows, targets, standardise=standardise)
    except BadRequest as told:
        assert str(told).endswith(".") and "\n" not in str(told)
        return
    for part in answer[1:]:
        assert bool(torch.as_tensor(part).isfinite().all())
    assert answer.probabilities.sum().item() == pytest.approx(1)
    assert answer.probabilities.min() >= 0 and set(targets) <= {-1, 0, 1}


def test_values_far_away_are_refused():
    x, targets = chain(40)
    far = x.copy()
    far[targets != -1] *= 1e9
    refused("deviations from 0", lambda: method.posterior(far, targets))
    refused("rescale", lambda: method.posterior(1e9 * x, targets, standardise=False))
    huge = torch.full((1, 2, 3), 1e100, dtype=torch.float64)
    none = torch.full((1, 2), -1)
    refused("1e\\+100 and more", lambda: method.log_posterior(huge, none))
    near = method.log_posterior(huge / 10, none)
    assert bool(near.isfinite().all())  # no difference of large numbers is below tau


@few
@given(st.integers(-3, 0), st.sampled_from([0.0, -1.0, math.nan, math.inf]))
def test_gains_need_draws_and_a_spread(draws, spread):
    start = method.nothing(1, 3)
    refused("positive", lambda: method.gains(start, rng(), draws))
    refused("positive", lambda: method.gains(start, rng(), 5, spread))
    x, targets = chain(40)
    refused("positive", lambda: method.posterior(x, targets, spread=spread))


@pytest.mark.parametrize("what", WORDS)
def test_every_bad_table_is_refused(what):
    x, targets = spoilt(what, *chain(40), 3)
    refused(WORDS[what], lambda: method.posterior(x, targets))
    method.posterior(chain(6)[0], chain(6)[1])  # as many rows as parameters will do
