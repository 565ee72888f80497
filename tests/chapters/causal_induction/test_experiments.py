"""The experiments of the chapter on causal induction, against independent routes."""

import math

import pytest
import runs
import torch
from rng import rng
from torch import nn

from iclrtut.chapters.causal_induction import (
    ARMS,
    CHAPTER,
    SHIFTS,
    experiments,
    method,
)
from iclrtut.train import fit

SLUG = "causal_induction"
folder, start = runs.folder, runs.of(SLUG)


class Says(nn.Module):
    """A network that always gives the same logits."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, steps):
        return self.logits.expand(*steps.shape[:2], -1)


def uniform(trial):
    """The belief of a guess, [N, T, graphs]."""
    return torch.zeros_like(trial.exact).log_softmax(-1)


def train_belief(run):
    """The loop of the page, to its end."""
    made = experiments.belief_loop(run)
    fit(made, run.settings.belief_steps, folder=None, name="belief")
    return made.state["model"]


# Networks


def test_a_prediction_of_outcomes_is_a_density_of_what_was_not_forced():
    """With two nodes one is free: the mixture integrates to one over it."""
    run = start(nodes=2)
    trunk = experiments.network(run, "t", 1)
    model = experiments.Outcomes(trunk, 2, 3, seed=0)
    e = method.sample(2, 2, 4, rng())
    line = torch.linspace(-300, 300, 12_001, dtype=torch.float64)
    for values, targets in zip(e.values, e.targets, strict=True):
        many = values.expand(len(line), 4, 2).clone()
        many[:, -1, 1 - targets[-1]] = line
        with torch.no_grad():
            log_q = model(many, targets.expand(len(line), 4))[:, -1].double()
        total = torch.trapezoid(log_q.exp(), line).item()
        assert total == pytest.approx(1, abs=5e-3)  # the tails are left out


def test_a_prediction_knows_the_past_and_the_experiment_alone():
    run = start()
    model = experiments.Outcomes(experiments.network(run, "t", 1), 3, 2, seed=0)
    e = method.sample(3, 3, 5, rng())
    with torch.no_grad():
        before = model(e.values, e.targets)
        later = e.values.clone()
        later[:, 3:] += 1
        changed = model(later, e.targets)
        assert torch.equal(before[:, :3], changed[:, :3])
        early = e.values.clone()
        early[:, 0] += 1
        moved = model(early, e.targets)
    assert (moved[:, 1:] != before[:, 1:]).any()


def test_sums_do_not_depend_on_the_order_of_the_steps():
    e = method.sample(4, 3, 7, rng())
    order = torch.randperm(7, generator=rng(1))
    read = [
        experiments.sums(method.statistics(values, targets))[:, -1]
        for values, targets in (
            (e.values, e.targets),
            (e.values[:, order], e.targets[:, order]),
        )
    ]
    assert read[0].shape == (4, 3 + 27) and read[0].dtype == torch.float32
    assert torch.allclose(*read, atol=1e-5)


def test_sums_hold_counts_scales_and_correlations():
    x = torch.tensor([[[1.0, 2.0], [3.0, -1.0]]]).double()
    seen = method.statistics(x, torch.tensor([[-1, 0]]), [2])
    read = experiments.sums(seen).flatten().tolist()
    a = [[1 + 2.0, 4 + 2.0], [1 + 9 + 2.0, 4 + 1 + 2.0]]  # node by node, plus tau
    r = [2 / math.sqrt(3 * 6), (2 - 3) / math.sqrt(12 * 7)]
    counts = [1, 2]
    wanted = [m / 10 for m in counts]
    wanted += [
        math.log(v / (m + 2)) / 2 for row, m in zip(a, counts, strict=True) for v in row
    ]
    wanted += [*r, *map(math.atanh, r)]
    assert read == pytest.approx(wanted, abs=1e-6)


# Losses


def test_the_loss_of_graphs_is_the_mean_surprise_of_the_truth():
    logits, graph = torch.randn(5, 4, 25, generator=rng()), torch.arange(5)
    log_q = logits.log_softmax(-1)
    by_hand = -sum(log_q[b, t, b] for b in range(5) for t in range(4)) / 20
    assert experiments.graph_loss(logits, graph) == pytest.approx(by_hand.item())


@pytest.mark.parametrize("n", [2, 3, 4])
def test_the_loss_of_edges_is_the_surprise_of_their_product(n):
    """The product over entries, from the method, of the true graph."""
    logits = torch.randn(6, 2, n * (n - 1), generator=rng()).double()
    graph = torch.randint(len(method.dags(n)), (6,), generator=rng())
    full = torch.zeros(6, 2, n, n).double()
    full[..., ~torch.eye(n, dtype=torch.bool)] = logits
    log_q = method.product(full)
    by_hand = -torch.stack([log_q[b, :, graph[b]] for b in range(6)]).mean()
    loss = experiments.edge_loss(logits, graph, n)
    assert loss.item() == pytest.approx(by_hand.item(), abs=1e-9)


# Training


def test_held_out_graphs_are_drawn_by_the_seed():
    first, same, other = (experiments.held_out(start(seed=k)) for k in (0, 0, 1))
    assert torch.equal(first, same) and set(first.tolist()) != set(other.tolist())
    assert len(first.unique()) == CHAPTER.settings["smoke"].held_out


def test_a_training_without_some_graphs_never_sees_them(monkeypatch):
    met, loss = [], experiments.edge_loss

    def spy(logits, graph, nodes):
        met.append(graph)
        return loss(logits, graph, nodes)

    monkeypatch.setattr(experiments, "edge_loss", spy)
    allowed = torch.tensor([3, 7])
    experiments.train_edges(start(), allowed)
    assert set(torch.cat(met).tolist()) == {3, 7}
    met.clear()
    experiments.train_edges(start())
    assert len(torch.cat(met).unique()) > 10


def test_a_probe_leaves_its_network_as_it_was():
    run = start()
    model = experiments.train_outcomes(run)
    before = [w.clone() for w in model.trunk.parameters()]
    probe = experiments.train_probe(run, model.trunk, "probe")
    assert all(map(torch.equal, before, model.trunk.parameters()))
    fresh = experiments.Probe(
        model.trunk, 25, run.generator("probe probe", "cpu").initial_seed()
    )
    trained, first = (m.read.state_dict().values() for m in (probe, fresh))
    assert not all(map(torch.equal, trained, first))


def test_a_copy_is_trained_on_with_episodes_of_another_kind(monkeypatch):
    run, kinds, drawn = start(), [], experiments.sample

    def spy(B, n, steps, generator, **world):
        kinds.append((steps, world))
        return drawn(B, n, steps, generator, **world)

    model = experiments.network(run)
    before = [w.clone() for w in model.parameters()]
    monkeypatch.setattr(experiments, "sample", spy)
    twin = experiments.train_on(run, model, 9, mechanism="tanh")
    assert kinds == [(9, {"mechanism": "tanh"})] * run.settings.longer_steps
    assert all(map(torch.equal, before, model.parameters()))
    assert not any(map(torch.equal, before, twin.parameters()))


def test_trained_networks_answer_for_every_graph_after_every_step():
    run = start()
    t = experiments.trial(run, n=7)
    said = [
        experiments.believe(run, train_belief(run), t.episodes),
        experiments.believe_sums(run, experiments.train_sums(run), t.episodes),
    ]
    for log_q in said:
        assert log_q.shape == t.exact.shape and log_q.dtype == torch.float64
        assert torch.allclose(log_q.exp().sum(-1), torch.ones(7, 6).double())


# Measurements


def test_who_says_what_bayes_says_is_no_nats_away_and_who_guesses_says_nothing():
    t = experiments.trial(start())
    curves = experiments.distances(t, {"belief": t.exact, "guess": uniform(t)})
    assert curves["belief"] == pytest.approx([0] * 6, abs=1e-12)
    # KL from a guess is the log of their number less the entropy.
    told = [math.log(25) - h for h in curves["exact"]]
    assert curves["guess"] == pytest.approx(told)
    value = experiments.measure_informed(t, curves)["informed"]["value"]
    assert value == pytest.approx(1)
    curves["belief"] = curves["guess"]
    value = experiments.measure_informed(t, curves)["informed"]["value"]
    assert value == pytest.approx(0)


def test_total_correlation_is_the_distance_of_the_best_edges():
    t = experiments.trial(start(), n=30)
    q = method.product(method.edge_logits(t.exact))
    curves = experiments.distances(t, {"edges": q})
    assert experiments.correlation(t) == pytest.approx(curves["edges"], abs=1e-9)


def test_the_exact_posterior_is_calibrated_and_a_sharpened_one_is_not():
    t = experiments.trial(start(), n=2000)
    same = experiments.measure_calibrated(t, t.exact)["calibrated"]
    assert same["value"] == 0 and same["rms"] == 0 and same["exact"] < 0.03
    sharp = (4 * t.exact).log_softmax(-1)
    worse = experiments.measure_calibrated(t, sharp)["calibrated"]
    assert worse["value"] > 0.05 and worse["rms"] > 0.1


def test_probes_and_lengths_are_compared_at_their_ends():
    curves = {"belief": [9, 1], "probe": [9, 1.5], "random": [9, 4.0]}
    found = experiments.measure_outcomes(curves)
    assert found["outcome_belief"]["value"] == 0.5
    assert found["outcome_learnt"]["value"] == 2.5
    long = experiments.measure_longer(start(steps=2), {"belief": [3, 1, 2, 5.0]})
    assert long["longer"] == {"value": 4, "kl_long": 5, "kl_end": 1}


def test_a_coin_for_each_entry_pays_as_many_bits_on_any_graph():
    run = start()
    t = experiments.trial(run)
    coin, sure = Says(torch.zeros(6)), Says(torch.full((6,), -2.0))
    found = experiments.measure_unseen(run, t, {"with": coin, "without": sure})
    nats = found["unseen_graphs"]
    assert nats["with"] == pytest.approx(6 * math.log(2))
    rows = torch.isin(t.episodes.graph, experiments.held_out(run))
    arrows = method.dags(3)[t.episodes.graph[rows]].sum((1, 2)).double().mean()
    cost = 6 * math.log1p(math.exp(-2)) + 2 * arrows.item()
    assert nats["without"] == pytest.approx(cost, abs=1e-5)
    assert nats["value"] == pytest.approx(nats["without"] - nats["with"])
    # Who denies what is there pays for it.
    assert nats["exact"] < nats["exact_without"]


def test_the_exact_posterior_pays_its_entropy_where_nothing_has_shifted(monkeypatch):
    monkeypatch.setattr(experiments, "SHIFTS", {"none": ("", {}), **SHIFTS})
    run = start(shifted=4000)
    curves = experiments.shift_curves(run, Says(torch.zeros(25)))
    assert set(curves) == {"none", *SHIFTS}
    none = curves["none"]
    assert none["exact"] == pytest.approx(none["entropy"], abs=0.1)
    assert none["network"] == pytest.approx([math.log(25)] * 6)
    measured = experiments.measure_shift(run, curves)
    assert measured["shift_none"]["value"] == pytest.approx(1)
    assert measured["shift_abs"]["exact"] > none["exact"][-1] + 0.3


def test_choosing_saves_nats_and_shares_all_else():
    run = start(chosen=300, choices=5, draws=32)
    curves = experiments.choose(run)
    assert set(curves) == {"chosen", *ARMS}
    assert all(len(curve) == 5 for curve in curves.values())
    found = experiments.measure_active(curves)
    assert set(found) == {f"active_{arm}" for arm in ARMS}
    assert found["active_random"]["value"] > 0.1
    again = experiments.choose(run)
    assert again == curves


def test_the_prediction_of_an_outcome_costs_what_the_chain_rule_says():
    run = start()
    t = experiments.trial(run, n=200)
    model = experiments.Outcomes(experiments.network(run, "t", 1), 3, 2, seed=0)
    found = experiments.outcome_nll(run, model, t)
    levels = method.log_likelihoods(t.episodes.values, t.episodes.targets)
    exact = -method.predictive(levels)[:, -1].mean().item()
    assert found["exact"] == pytest.approx(exact)
    assert found["network"] > found["exact"]


def test_the_page_gets_a_network_of_three_nodes_whatever_the_run_has(monkeypatch):
    run = start()
    mine = experiments.playground(run, experiments.network(run))
    assert len(mine["graphs"]) == 25 and len(mine["layers"]) == 5
    small = CHAPTER.settings["smoke"]
    monkeypatch.setitem(CHAPTER.settings, "quick", small)
    other = start(nodes=4)
    trained = experiments.playground(other, experiments.network(other))
    assert len(trained["graphs"]) == 25
    assert other.settings.nodes == 4


def test_four_nodes_go_all_the_way():
    """What `full` does, at the sizes of smoke."""
    run = start(nodes=4, test=60, held_out=54)
    t = experiments.trial(run)
    q = {"belief": experiments.believe(run, train_belief(run), t.episodes)}
    q["sums"] = experiments.believe_sums(run, experiments.train_sums(run), t.episodes)
    edges = experiments.train_edges(run)
    q["edges"] = method.product(experiments.edge_beliefs(run, edges, t.episodes))
    outcomes = experiments.train_outcomes(run)
    probe = experiments.train_probe(run, outcomes.trunk, "probe")
    q["probe"] = experiments.believe(run, probe, t.episodes)
    curves = experiments.distances(t, q)
    assert all(len(c) == 6 and min(c) > -1e-9 for c in curves.values())
    both = {"with": edges, "without": edges}
    assert experiments.measure_unseen(run, t, both)["unseen_graphs"]["value"] == 0
    assert len(experiments.choose(run)["chosen"]) == run.settings.choices
