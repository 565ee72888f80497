"""Two beliefs in a browser: the page computes what the package does, and obeys."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import widgets
from rng import rng
from scipy import stats
from widgets import HOOK, TEXTS, document, move

from iclrtut import play
from iclrtut.chapters.causal_induction import graphs, method

SLUG = "causal_induction"
page, shown = widgets.page, widgets.made
BUTTONS = ["Force A", "Force B", "Force C", "Only watch"]
MOST = 40


def network(seed: int = 0) -> method.Belief:
    """Weights that say something, as the page gets them."""
    return widgets.drawn(method.Belief(9, 25, 0), rng(seed))


def opened(page: Any, shown: list[str], seed: int = 1) -> method.Belief:
    net = network(seed)
    play.widget(SLUG, method.figure(net) | {"seed": seed}, **TEXTS)
    page.set_content(document(shown[-1]))
    return net


def call(page: Any, name: str, *args: Any) -> Any:
    return page.evaluate(f"(args) => {HOOK}.{name}(...args)", list(args))


def press(page: Any, *names: str) -> None:
    for name in names:
        page.get_by_role("button", name=name).click()


def state(page: Any) -> dict[str, Any]:
    return call(page, "state")


def beliefs(net: method.Belief, values: torch.Tensor, targets: torch.Tensor) -> Any:
    """Of the exact posterior and the network, [T, 25] each, in float64."""
    with torch.no_grad():
        log_q = net(method.features(values, targets).double()).log_softmax(-1)
    return method.log_posterior(values, targets)[0], log_q[0]


def steps_of(values: torch.Tensor, targets: torch.Tensor) -> list[dict[str, Any]]:
    pairs = zip(values[0].tolist(), targets[0].tolist(), strict=True)
    return [{"x": x, "target": target} for x, target in pairs]


# ---- The page computes what the package computes ----


@pytest.mark.parametrize(("seed", "scale"), [(0, 1), (1, 1), (2, 1), (3, 6), (4, 0.01)])
def test_both_beliefs_are_those_of_the_package(seed, scale, page, shown):
    net = opened(page, shown, seed)
    _, targets, values = method.sample(1, 3, 30, rng(seed))
    targets[0, 3:30:5] = -1
    values = scale * values
    log_p, log_q = beliefs(net, values, targets)
    path = call(page, "compute", steps_of(values, targets))
    assert len(path) == 31
    flat = [-math.log(25)] * 25
    assert path[0]["logP"] == pytest.approx(flat) == path[0]["logQ"]
    for t, got in enumerate(path[1:]):
        assert got["logP"] == pytest.approx(log_p[t].tolist(), abs=1e-9)
        # Features are rounded to float32 by the package, and not by the page.
        assert got["logQ"] == pytest.approx(log_q[t].tolist(), abs=1e-5)
    last = path[-1]
    gap = method.kl(log_p[-1], log_q[-1]).item()
    assert call(page, "divergence", last["logP"], last["logQ"]) == pytest.approx(
        gap, abs=1e-5
    )
    for name, log in (("logP", log_p), ("logQ", log_q)):
        open_ = method.entropy(log[-1]).item()
        assert call(page, "entropy", last[name]) == pytest.approx(open_, abs=1e-5)
        edges = method.edge_marginals(log[-1])[~torch.eye(3, dtype=torch.bool)]
        found = call(page, "arrows", last[name])
        assert found == pytest.approx(edges.tolist(), abs=1e-5)


def test_the_twelve_scores_are_those_of_the_package(page, shown):
    opened(page, shown)
    _, targets, values = method.sample(1, 3, 17, rng(7))
    seen = call(page, "compute", steps_of(values, targets))[-1]["seen"]
    scores = method.node_scores(method.statistics(values, targets, [17]))[0, 0]
    for i, sets in enumerate(method.parent_sets(3)):
        for s, row in enumerate(sets):
            parents = row.nonzero()[:, 0].tolist()
            got = call(page, "nodeScore", seen[i], i, parents)
            assert got == pytest.approx(scores[i, s].item(), abs=1e-10)


def test_gains_are_those_of_the_package(page, shown):
    opened(page, shown)
    for seed, T in ((3, 0), (4, 5)):
        _, targets, values = method.sample(1, 3, max(T, 1), rng(seed))
        steps = steps_of(values, targets)[:T]
        last = call(page, "compute", steps)[-1]
        told = page.evaluate(
            f"""([seen, logP]) => {{ const f = {HOOK}; return Array.from({{length: 60}},
                (_, i) => f.gains(seen, logP, f.random(i), 100)); }}""",
            [last["seen"], last["logP"]],
        )
        one = method.statistics(values, targets, [T])
        many = method.Statistics(*(part[0].expand(60, *part.shape[2:]) for part in one))
        exact = method.gains(many, rng(seed), 100).kl
        told = torch.tensor(told)
        error = (told.var(0) / 60 + exact.var(0) / 60).sqrt()
        assert float(((told.mean(0) - exact.mean(0)) / error).abs().max()) < 4.5
        assert bool((exact.mean(0) > 8 * error).all())


def test_worlds_are_drawn_from_the_prior(page, shown):
    opened(page, shown)
    full = [[0, 1, 1], [0, 0, 1], [0, 0, 0]]
    drawn = page.evaluate(
        f"""(graph) => {{ const f = {HOOK}, rng = f.random(5);
            return Array.from({{length: 4000}}, () =>
                f.parameters(f.nothing(), graph, rng)); }}""",
        full,
    )
    for i in range(3):
        assert drawn[0][i]["P"] == list(range(i))
        variance = np.array([nodes[i]["scale"] for nodes in drawn]) ** 2
        prior = stats.invgamma((i + 3) / 2, scale=1)  # tau / 2
        assert stats.kstest(variance, prior.cdf).pvalue > 1e-4
        for k in range(i):
            weights = np.array([nodes[i]["weights"][k] for nodes in drawn])
            z = weights / np.sqrt(variance / 2)
            assert stats.kstest(z, "norm").pvalue > 1e-4


def test_a_world_responds_as_in_the_package(page, shown):
    opened(page, shown)
    world = method.draw(25, 3, 1, rng(2), graph=torch.arange(25))
    for b in range(25):
        A = method.dags(3)[b]
        nodes = []
        for i in range(3):
            parents = A[:, i].nonzero()[:, 0].tolist()
            weights = world.weights[b, parents, i].tolist()
            scale = world.scale[b, i].item()
            nodes.append({"P": parents, "scale": scale, "weights": weights})
        for target in (-1, 0, 1, 2):
            got = call(page, "respond", nodes, target, 5.0, world.noise[b, 0].tolist())
            one = method.World(
                *(part[b : b + 1] for part in world[:4]), mechanism="linear"
            )
            forced = torch.full((1, 1), 5.0).double()
            x = method.respond(one, torch.full((1, 1), target), forced)
            assert got == pytest.approx(x[0, 0].tolist())


# ---- The controls obey, and what is seen is what was computed ----


def test_buttons_force_nodes_and_only_watch(page, shown):
    net = opened(page, shown)
    move(page, "Value to force", -5)
    press(page, *BUTTONS)
    steps = state(page)["steps"]
    assert [step["target"] for step in steps] == [0, 1, 2, -1]
    assert [steps[i]["x"][i] for i in range(3)] == [-5, -5, -5]
    move(page, "Value to force", 11)
    press(page, "Force B")
    step = state(page)["steps"][-1]
    assert step["target"] == 1 and step["x"][1] == 11
    steps = state(page)["steps"]
    values = torch.tensor([[step["x"] for step in steps]], dtype=torch.float64)
    targets = torch.tensor([[step["target"] for step in steps]])
    log_p, log_q = beliefs(net, values, targets)
    page.wait_for_function("document.querySelector('.unseen').textContent")
    text = page.locator(".note").inner_text().strip()
    assert f"World 1, {len(steps)} samples." in text
    assert f"Exact: {method.entropy(log_p[-1]).item():.2f} nats open" in text
    assert f"the network {method.entropy(log_q[-1]).item():.2f}" in text
    assert f"{method.kl(log_p[-1], log_q[-1]).item():.2f} nats away" in text
    told = call(page, "told")
    for name, gain in zip(BUTTONS, told, strict=False):
        label = page.get_by_role("button", name=name).inner_text()
        assert label == f"{name} · +{gain:.2f}"
    charts = page.locator("svg.plot")
    for k, log in enumerate((log_q, log_p)):
        label = charts.nth(k).get_attribute("aria-label")
        edges = method.edge_marginals(log[-1])
        for i, a in enumerate("ABC"):
            for j, b in enumerate("ABC"):
                if i != j:
                    share = float(label.split(f"{a} to {b} ")[1].split(" %")[0])
                    assert share == pytest.approx(100 * float(edges[i, j]), abs=0.06)
    strip = charts.nth(2)
    assert strip.locator("rect").count() == 4  # forced
    assert strip.locator("circle").count() == 3 * len(steps) - 4
    assert "B 11.0 (forced)" in strip.get_attribute("aria-label")


def test_a_click_on_a_node_of_either_diagram_forces_it(page, shown):
    opened(page, shown)
    for diagram in (0, 1):
        for i in range(3):
            page.locator("svg.plot").nth(diagram).locator(".node").nth(i).click()
    targets = [step["target"] for step in state(page)["steps"]]
    assert targets == [0, 1, 2, 0, 1, 2]


def test_the_best_gain_stands_out(page, shown):
    opened(page, shown)
    press(page, "Force A", "Force A", "Force A")
    told = call(page, "told")
    best = page.locator("button .best")
    assert best.count() == 1
    assert best.inner_text() == f"{max(told):.2f}"
    parent = best.locator("..").inner_text()
    assert parent.startswith(BUTTONS[int(np.argmax(told))])


def test_watching_leaves_a_class_open(page, shown):
    """Under (8) only the class can be known: its members keep one probability."""
    opened(page, shown, 4)
    press(page, *["Only watch"] * 12)
    log_p = np.array(call(page, "path")[-1]["logP"])
    labels = graphs.classes(method.dags(3)).numpy()
    for label in np.unique(labels):
        assert np.ptp(log_p[labels == label]) < 1e-9
    best = np.sum(log_p > log_p.max() - 1e-9)
    text = page.locator(".note").inner_text()
    assert (f"{best} graphs share the lead" in text) == (best > 1)


def test_the_graph_is_revealed_and_a_new_one_comes(page, shown):
    opened(page, shown)
    truth = call(page, "world")["graph"]
    press(page, "Force A", "Reveal the graph")
    button = page.get_by_role("button", name="Reveal the graph")
    assert button.get_attribute("aria-pressed") == "true"
    drawn = (
        page.locator("svg.plot")
        .first.locator(".truth")
        .evaluate_all("all => all.map((e) => e.style.display !== 'none')")
    )
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    assert drawn == [bool(truth[i][j]) for i, j in pairs]
    arrows = [f"{'ABC'[i]}→{'ABC'[j]}" for i, j in pairs if truth[i][j]]
    text = page.locator(".note").inner_text()
    assert f"The graph: {', '.join(arrows) or 'no arrow'};" in text
    press(page, "New graph")
    assert state(page)["steps"] == [] and not state(page)["revealed"]
    assert state(page)["seed"] == 2
    assert "The graph:" not in page.locator(".note").inner_text()
    seen = {str(truth)}
    for _ in range(12):
        press(page, "New graph")
        seen.add(str(call(page, "world")["graph"]))
    assert len(seen) > 5


def test_noise_does_not_depend_on_what_was_forced(page, shown):
    """Two ways to the same step: what is upstream of the target stays as it was."""
    opened(page, shown)
    press(page, "Only watch")
    watched = state(page)["steps"][0]["x"]
    opened(page, shown)
    graph = np.array(call(page, "world")["graph"])
    reach = np.linalg.matrix_power(graph + np.eye(3, dtype=int), 3) > 0
    press(page, "Force C")
    forced = state(page)["steps"][0]["x"]
    for j in range(2):
        if not reach[2, j]:
            assert forced[j] == watched[j]


def test_the_curves_end_where_they_should(page, shown):
    opened(page, shown)
    press(page, "Force A", "Force B", "Force C")
    path = call(page, "path")
    chart = page.locator("svg.plot").nth(3)
    series = {
        "exact": [call(page, "entropy", at["logP"]) for at in path],
        "network": [call(page, "entropy", at["logQ"]) for at in path],
        "gap": [call(page, "divergence", at["logP"], at["logQ"]) for at in path],
    }
    top = max(3.4, *series["gap"])
    for name, values in series.items():
        d = chart.locator(f"path.{name}").get_attribute("d")
        drawn = np.array([pair.split(",") for pair in d[1:].split("L")], dtype=float)
        y = 146 - np.array(values) / top * (146 - 26)
        assert drawn[:, 1] == pytest.approx(y, abs=0.06)
        x = 34 + np.arange(4) / 10 * (332 - 34)
        assert drawn[:, 0] == pytest.approx(x, abs=0.06)
        assert f"{values[-1]:.2f}" in chart.get_attribute("aria-label")
    dashes = {
        chart.locator(f"path.{name}").get_attribute("stroke-dasharray")
        for name in series
    }
    assert len(dashes) == 3  # told apart without colour


def test_extremes_give_numbers_and_the_end_is_said(page, shown):
    opened(page, shown)
    for value in (16, -16):
        move(page, "Value to force", value)
        press(page, *BUTTONS * (MOST // 8))
        text = page.locator(".play").inner_html()
        for word in ("NaN", "Infinity", "undefined"):
            assert word not in text
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert len(state(page)["steps"]) == MOST
    assert "trained on 20 samples" in page.locator(".note").inner_text()
    for name in BUTTONS:
        assert page.get_by_role("button", name=name).is_disabled()
    page.locator("svg.plot").first.locator(".node").first.click()
    assert len(state(page)["steps"]) == MOST
    press(page, "New graph")
    assert page.get_by_role("button", name="Force A").is_enabled()


def test_the_exact_posterior_stands_alone_before_there_is_a_network(page, shown):
    play.widget(SLUG, {"graphs": method.dags(3).int().tolist()}, **TEXTS)
    page.set_content(document(shown[-1]))
    press(page, "Force A", "Force B", "Only watch", "Reveal the graph")
    steps = state(page)["steps"]
    values = torch.tensor([[step["x"] for step in steps]], dtype=torch.float64)
    log_p = method.log_posterior(values, torch.tensor([[0, 1, -1]]))[0, -1]
    last = call(page, "path")[-1]
    assert last["logP"] == pytest.approx(log_p.tolist(), abs=1e-9)
    assert page.locator("svg.plot").count() == 3  # arrows, samples and the curve
    assert page.locator("path.exact").count() == 1
    assert page.locator("path.network, path.gap").count() == 0
    open_ = method.entropy(log_p).item()
    assert f"Exact: {open_:.2f} nats open. " in page.locator(".note").inner_text()
    assert "network" not in page.locator(".play").inner_html()
