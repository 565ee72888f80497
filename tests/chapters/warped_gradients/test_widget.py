"""Descents in a browser: the page computes what the package does, and obeys."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import widgets
from rng import normal, rng
from scipy.optimize import minimize
from widgets import HOOK, TEXTS, document, move

from iclrtut import play
from iclrtut.chapters.warped_gradients.landscapes import (
    STARTS,
    Coupling,
    mountains,
    payload,
    sample_mountains,
    sample_valley,
    valley,
)

SLUG = "warped_gradients"
page, shown = widgets.page, widgets.made
LOSSES = {"valley": valley, "mountains": mountains}
SAMPLERS = {"valley": sample_valley, "mountains": sample_mountains}
NAMES = list(LOSSES)
RUNS = {
    "sgd": "SGD",
    "momentum": "Momentum",
    "warped": "Warped SGD",
    "moved": "SGD from Ω(θ)",
}
SLIDERS = {"Rate": 0.04, "Momentum": 0.5, "Warp strength": 0.5, "Steps": 7}
CASES = ("SGD fails", "Warp fails", "Warp off", "Trained by (11)")
PATHS = "() => [...document.querySelectorAll('.plane svg')].map((e) => e.innerHTML)"


def some_warp(seed: int, scale: float = 0.25) -> Coupling:
    warp, draws = Coupling(seed=seed).double(), rng(seed)
    with torch.no_grad():
        for p in warp.parameters():
            noise = torch.randn(p.shape, generator=draws, dtype=torch.float64)
            p.copy_(scale * noise)
    return warp


def warps() -> dict[str, dict[str, Coupling]]:
    return {
        "valley": {"10": some_warp(1), "11": some_warp(2)},
        "mountains": {"10": some_warp(3)},
    }


def opened(page: Any, shown: list[str], theme: str = "light", full: bool = True) -> Any:
    """The full figure or the first one, whose descents end at once."""
    page.emulate_media(reduced_motion="reduce")
    made = warps() if full else None
    play.widget(SLUG, payload(made), **TEXTS)
    page.set_content(document(shown[-1], theme))
    return made


def call(page: Any, name: str, *args: Any) -> Any:
    return page.evaluate(f"(args) => {HOOK}.{name}(...args)", list(args))


def call_all(page: Any, name: str, asked: list[list[Any]]) -> np.ndarray:
    code = f"(asked) => asked.map((args) => {HOOK}.{name}(...args))"
    return np.array(page.evaluate(code, asked))


def press(page: Any, *names: str) -> None:
    for name in names:
        page.get_by_role("button", name=name, exact=True).click()


def descend(f: Any, start: torch.Tensor, rate: float, momentum: float, n: int) -> Any:
    """Points on the way, by autograd."""
    path, speed = [start], torch.zeros_like(start)
    for _ in range(n):
        at = path[-1].clone().requires_grad_()
        (slope,) = torch.autograd.grad(f(at), at)
        speed = momentum * speed + slope
        path.append(path[-1] - rate * speed)
    return torch.stack(path)


def field_of(name: str, task: torch.Tensor, warp: Any = lambda at: at) -> Any:
    """The summed loss of points, or of a warp's points."""
    return lambda at: LOSSES[name.lower()](warp(at), task).sum()


def lowest(name: str, task: torch.Tensor) -> float:
    """The lowest loss of the picture, by another route than the page's."""

    def value(x: np.ndarray) -> tuple[float, np.ndarray]:
        at = torch.tensor(x).double().requires_grad_()
        loss = LOSSES[name](at, task)
        (slope,) = torch.autograd.grad(loss, at)
        return loss.item(), slope.numpy()

    line = torch.linspace(-3.6, 3.6, 121).double()
    grid = torch.cartesian_prod(line, line)
    start = grid[LOSSES[name](grid, task).argmin()].numpy()
    sides = [(-3.6, 3.6)] * 2
    exact = {"ftol": 1e-15, "gtol": 1e-10}
    return minimize(value, start, jac=True, bounds=sides, options=exact).fun


# ---- The page computes what the package computes ----


@pytest.mark.parametrize("name", NAMES)
def test_losses_and_gradients_are_those_of_the_package(name, page, shown):
    opened(page, shown)
    tasks, points = SAMPLERS[name](12, rng(1)).double(), normal(12, 8, 2, seed=2)
    points = (1.5 * points).requires_grad_()
    losses = LOSSES[name](points, tasks)
    (slopes,) = torch.autograd.grad(losses.sum(), points)
    asked = [
        [name, points[i, j].tolist(), tasks[i].tolist()]
        for i in range(12)
        for j in range(8)
    ]
    assert np.allclose(call_all(page, "loss", asked), losses.detach().flatten())
    assert np.allclose(call_all(page, "slope", asked), slopes.flatten(0, 1), atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_the_lowest_point_is_the_lowest(name, page, shown):
    opened(page, shown)
    for task in SAMPLERS[name](8, rng(3)).double():
        found = call(page, "lowest", name, task.tolist())
        here = LOSSES[name](torch.tensor(found).double(), task).item()
        assert here == pytest.approx(lowest(name, task), abs=1e-6)
        if name == "valley":
            assert here == pytest.approx(0, abs=1e-12)


def test_the_warp_is_that_of_the_package(page, shown):
    warp = opened(page, shown)["valley"]["10"]
    points, pulls = normal(10, 2, seed=4, scale=2), normal(10, 2, seed=5)
    for strength in (0.0, 0.3, 1.0):
        one = [[point, strength] for point in points.tolist()]
        gamma, theta = warp(points, strength), warp.inverse(points, strength)
        near = {"rtol": 1e-9, "atol": 1e-9}
        assert np.allclose(call_all(page, "forward", one), gamma.detach(), **near)
        found = call_all(page, "inverse", one)
        assert np.allclose(found, theta.detach(), **near)
        back = call_all(page, "forward", [[at, strength] for at in found.tolist()])
        assert np.allclose(back, points, **near)
        at = points.clone().requires_grad_()
        (pulled,) = torch.autograd.grad(warp(at, strength), at, pulls)
        two = zip(points.tolist(), pulls.tolist(), strict=True)
        got = call_all(page, "pull", [[point, g, strength] for point, g in two])
        assert np.allclose(got, pulled, **near)


def test_float32_weights_agree_to_five_digits(page, shown):
    warp = some_warp(8).float()
    play.widget(SLUG, payload({"valley": {"10": warp}}), **TEXTS)
    page.set_content(document(shown[-1]))
    points = normal(20, 2, seed=6).float()
    got = call_all(page, "forward", [[point, 1] for point in points.tolist()])
    assert np.allclose(got, warp(points).detach(), rtol=1e-5, atol=1e-5)


def test_the_warp_written_by_hand_makes_the_valley_round(page, shown):
    """Its loss is (25 / 2) times a square distance in P, at any place."""
    opened(page, shown, full=False)
    at, e = call(page, "state")["task"]
    centre = np.array([at / 5, math.sqrt(10) * e / 5])
    for theta in normal(6, 2, seed=7).tolist():
        gamma = call(page, "forward", theta, 1)
        loss = call(page, "loss", "valley", gamma, [at, e])
        assert loss == pytest.approx(12.5 * np.sum((theta - centre) ** 2), abs=1e-9)
        assert call(page, "inverse", gamma, 1) == pytest.approx(theta, abs=1e-9)
        # J' grad L is the gradient of that bowl.
        slope = call(page, "slope", "valley", gamma, [at, e])
        pulled = call(page, "pull", theta, slope, 1)
        assert pulled == pytest.approx((25 * (theta - centre)).tolist(), abs=1e-8)
    half = call(page, "forward", [0.3, 0.2], 0.5)
    x = 0.3 * math.sqrt(5)
    y = 0.2 * (5 / math.sqrt(10)) ** 0.5 + 0.4 * math.sin(1.5 * x)
    assert half == pytest.approx([x, y])


def check_runs(page: Any, made: dict[str, dict[str, Coupling]]) -> None:
    state, runs = call(page, "state"), call(page, "runs")
    name, strength = state["name"], state["strength"]
    warp, task = made[name][state["objective"]], torch.tensor(state["task"]).double()
    point, inside = torch.tensor(state["point"]).double(), state["space"] == "P"
    theta = point if inside else warp.inverse(point, strength)

    def loss(gamma):
        return LOSSES[name](gamma, task)

    floor = lowest(name, task)
    with_momentum = {"momentum": state["momentum"]}
    starts = {"sgd": point, "momentum": point, "warped": theta}
    if inside:
        starts["moved"] = warp(theta, strength)
    assert list(runs) == list(starts)
    for id, start in starts.items():
        run, warped = runs[id], id == "warped"
        f = (lambda t: loss(warp(t, strength))) if warped else loss
        n = len(run["W"]) - 1
        walk = descend(f, start.detach(), state["rate"], with_momentum.get(id, 0), n)
        W = warp(walk, strength) if warped else walk
        P = walk if warped else warp.inverse(walk, strength)
        few = min(n, 20)  # what is chaotic afterwards may part in the last digits
        assert np.allclose(run["W"][:few], W.detach()[:few], atol=1e-5)
        assert np.allclose(run["P"][:few], P.detach()[:few], atol=1e-5)
        above = loss(torch.tensor(run["W"]).double()).numpy() - floor
        assert np.allclose(run["losses"], np.maximum(above, 0), atol=1e-6)
        first = next((k for k, v in enumerate(run["losses"]) if v < 1e-3), -1)
        assert run["solved"] == first
        if n < 100:
            assert (
                not np.hypot(
                    *descend(f, W[-1] if not warped else walk[-1], state["rate"], 0, 1)[
                        -1
                    ].detach()
                )
                < 100
            )


def test_descents_are_those_of_the_package(page, shown):
    made = opened(page, shown)
    check_runs(page, made)
    press(page, "P")
    check_runs(page, made)
    press(page, "Trained by (11)")
    check_runs(page, made)
    move(page, "Warp strength", 0.4)
    move(page, "Momentum", 0.6)
    check_runs(page, made)
    press(page, "Mountains")
    check_runs(page, made)
    press(page, "New task", "P")
    check_runs(page, made)


# ---- The controls obey, and what is seen is what was computed ----


def numbers(page: Any) -> list[list[str]]:
    rows = page.locator("table").first.locator("tbody tr")
    return [
        rows.nth(i).locator("th, td").all_inner_texts() for i in range(rows.count())
    ]


def written(value: float | None) -> str:
    if value is None:
        return "diverged"
    if value < 1e-3:
        return "< 0.001"
    return "> 999" if value > 999 else f"{float(f'{value:.3g}'):g}"


def test_the_reader_predicts_before_the_paths_show(page, shown):
    for full in (False, True):
        opened(page, shown, full=full)
        assert page.locator("path.sgd").count() == 0
        assert all(row[2:] == ["?", "?"] for row in numbers(page))
        box = page.locator(".plane svg").first.bounding_box()
        page.mouse.click(box["x"] + 40, box["y"] + 50)
        assert page.locator("path.sgd").count() == 0  # a start gives nothing away
        press(page, "Momentum")
        assert page.locator("path.sgd").count() == 2  # in both planes
        assert not page.get_by_role("button", name="Momentum", exact=True).is_visible()
        n, runs = call(page, "state")["steps"], call(page, "runs")
        ends = {id: run["losses"][n] for id, run in runs.items()}
        best = {id for id, v in ends.items() if v <= min(ends.values()) + 1e-3}
        text = page.locator(".play").inner_text()
        assert ("Right." in text) == ("momentum" in best)
        assert ("Not so." in text) == ("momentum" not in best)
        for id in best:
            assert RUNS[id] in text.split(f"Lowest at step {n}:")[1].split("\n")[0]
        press(page, "New task")
        assert page.locator("path.sgd").count() == 0


def test_the_numbers_are_those_of_the_runs(page, shown):
    opened(page, shown)
    move(page, "Steps", 23)
    press(page, "P")
    runs = call(page, "runs")
    page.wait_for_function("document.querySelector('.unseen').textContent")
    said = page.locator(".unseen")
    page.wait_for_function(
        "document.querySelector('.unseen').textContent.includes('Ω(θ)')"
    )
    for row, (id, run) in zip(numbers(page), runs.items(), strict=True):
        assert row[0].strip() == RUNS[id]
        assert row[1] == written(run["losses"][0])
        end = run["losses"][23] if len(run["losses"]) > 23 else None
        assert row[2] == written(end)
        solved = run["solved"]
        assert row[3] == ("never" if solved < 0 else f"{solved} steps")
        assert f"{RUNS[id]} {written(end)}" in said.inner_text()
    page.locator("summary").click()
    body = page.locator("details tbody tr")
    steps = [0, 1, 2, 5, 10, 20, 30, 50, 100]
    assert body.count() == len(steps)
    for i, k in enumerate(steps):
        cells = body.nth(i).locator("th, td").all_inner_texts()
        all_ = [run["losses"] for run in runs.values()]
        assert cells == [str(k), *(written(v[k] if k < len(v) else None) for v in all_)]
    for name in "WP":
        label = page.get_by_role("application").nth("WP".index(name))
        text = label.get_attribute("aria-label")
        for id, run in runs.items():
            x, y = (float(f"{v:.2g}") for v in run[name][min(23, len(run[name]) - 1)])
            told = f"{RUNS[id]} ends at ({x:g}, {y:g})".replace("-", "−")
            assert told in text


def test_paths_and_marks_lie_where_they_should(page, shown):
    opened(page, shown)
    move(page, "Steps", 9)
    runs, task = call(page, "runs"), call(page, "state")["task"]
    W = page.locator(".plane svg").first
    for id, run in runs.items():
        d = W.locator(f"path.{id}").get_attribute("d")
        drawn = np.array([pair.split(",") for pair in d[1:].split("L")], dtype=float)
        expected = 100 * (1 + np.array(run["W"][:10]) / 3 * [1, -1])
        assert drawn == pytest.approx(np.clip(expected, -1800, 1800), abs=0.06)
    x, y = call(page, "lowest", "valley", task)
    place = W.locator("path.bottom").get_attribute("transform")
    assert place == f"translate({100 * (1 + x / 3):.1f},{100 * (1 - y / 3):.1f})"
    dashes = {W.locator(f"path.{id}").get_attribute("stroke-dasharray") for id in runs}
    assert len(dashes) == 3  # told apart without colour


def test_contours_are_levels_of_the_loss_in_both_planes(page, shown):
    made = opened(page, shown)
    state = call(page, "state")
    task, warp = torch.tensor(state["task"]).double(), made["valley"]["10"]
    lines = [
        page.locator(".plane svg").nth(i).locator("g").first.locator("path")
        for i in range(2)
    ]
    levels = []
    for k in range(lines[0].count()):
        d = lines[0].nth(k).get_attribute("d")
        spots = [p for part in d.split("M")[1:] for p in part.split("L")]
        spots = np.array([spot.split(",") for spot in spots], dtype=float)
        gamma = torch.tensor(3 * (spots / 100 - 1) * [1, -1])
        losses = valley(gamma, task)
        levels.append(losses.median().item())
        assert losses.std() < 0.1 * losses.mean() + 0.01
    assert levels == sorted(levels, reverse=True) and len(levels) == 9
    # Where the warp is off, P is W; where it is on, its contours are other lines.
    apart = [lines[1].nth(k).get_attribute("d") for k in range(9)]
    move(page, "Warp strength", 0)
    same = [[one.nth(k).get_attribute("d") for k in range(9)] for one in lines]
    assert same[0] == same[1] != apart
    assert warp is not None


@pytest.mark.parametrize("space", ["W", "P"])
def test_a_click_a_tap_and_keys_give_the_start(space, page, shown):
    made = opened(page, shown)
    warp = made["valley"]["10"]
    press(page, "Warped SGD")
    svg = page.locator(".plane svg").first
    box = svg.bounding_box()
    at = [box["x"] + 0.25 * box["width"], box["y"] + 0.4 * box["height"]]
    expected = [-1.5, 0.6]
    if space == "P":
        press(page, "P")
        expected = warp.inverse(torch.tensor(expected).double()).tolist()
    for act in (page.mouse.click, page.touchscreen.tap):
        press(page, "New task", "Warped SGD")
        if space == "P":
            press(page, "P")
        act(*at)
        assert call(page, "state")["point"] == pytest.approx(expected, abs=0.06)
        assert page.locator("path.sgd").count() == 2
    svg.focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowUp")
    before = call(page, "state")["point"]
    assert before == pytest.approx(expected, abs=0.06)  # not before Enter
    page.keyboard.press("Enter")
    got = torch.tensor(call(page, "state")["point"]).double()
    gamma = warp(got) if space == "P" else got
    assert gamma.tolist() == pytest.approx([-0.6, 0.03], abs=1e-6)
    # The other plane's places are those of the warp.
    other = page.locator(".plane svg").nth(1)
    other.click(position={"x": 60, "y": 60})
    mark = other.locator(".start").get_attribute("transform")
    spot = np.array(mark[len("translate(") : -1].split(","), dtype=float)
    side = other.bounding_box()["width"]
    assert spot == pytest.approx([12000 / side] * 2, abs=2)
    seen = call(page, "runs")["warped"]
    start = call(page, "state")["point"]
    assert seen[space][0] == pytest.approx(start, abs=1e-9)


def test_every_slider_changes_the_picture(page, shown):
    for full in (True, False):
        opened(page, shown, full=full)
        for label, value in SLIDERS.items():
            if label == "Momentum" and not full:
                continue
            before = page.evaluate(PATHS), numbers(page)
            move(page, label, value)
            after = page.evaluate(PATHS), numbers(page)
            assert before[0] != after[0] and before[1] != after[1]
            range_ = page.get_by_role("slider", name=label, exact=True)
            assert float(range_.get_attribute("aria-valuetext")) == value


def test_cases_do_what_they_say(page, shown):
    made = opened(page, shown)
    for name in ("Valley", "Mountains"):
        press(page, name)
        for case, behind, ahead in (
            ("SGD fails", "sgd", "warped"),
            ("Warp fails", "warped", "sgd"),
        ):
            press(page, case)
            state = call(page, "state")
            assert page.locator("path.sgd").count() == 0 and state["space"] == "W"
            warp, task = made[name.lower()]["10"], torch.tensor(state["task"]).double()
            low, high = STARTS[name.lower()]
            lines = [
                torch.linspace(a, b, 9).double() for a, b in zip(low, high, strict=True)
            ]
            grid, n = torch.cartesian_prod(*lines), state["steps"]
            plain = descend(field_of(name, task), grid, state["rate"], 0, n)[-1]
            warped = field_of(name, task, warp)
            theta = descend(warped, warp.inverse(grid).detach(), state["rate"], 0, n)
            ends = {
                "sgd": LOSSES[name.lower()](plain, task),
                "warped": LOSSES[name.lower()](warp(theta[-1]), task),
            }
            ends = {id: loss.detach().nan_to_num(1e9) for id, loss in ends.items()}
            count = int((ends[behind] > ends[ahead] + 1e-3).sum())
            press(page, "Warped SGD")
            text = page.locator(".play").inner_text()
            assert f"from {count} of 81 starts" in text
    press(page, "Valley", "Warp off", "SGD")
    runs = call(page, "runs")
    assert np.allclose(runs["sgd"]["W"], runs["warped"]["W"], atol=1e-9)
    assert "warped SGD is SGD" in page.locator(".play").inner_text()
    press(page, "Trained by (11)")
    state = call(page, "state")
    assert state["objective"] == "11" and state["strength"] == 1
    pressed = page.get_by_role("button", name="Trained by (11)")
    assert pressed.get_attribute("aria-pressed") == "true"
    press(page, "Warped SGD", "Trained by (11)")
    assert call(page, "state")["objective"] == "10"
    press(page, "Mountains")
    assert pressed.is_disabled()  # there is none


def test_numbers_of_a_start_are_kept_between_W_and_P(page, shown):
    made = opened(page, shown)
    press(page, "Warped SGD")
    before = call(page, "runs")
    press(page, "P")
    after = call(page, "runs")
    assert after["sgd"] == before["sgd"]
    assert after["warped"]["P"][0] == before["sgd"]["W"][0]
    assert after["moved"]["W"][0] == pytest.approx(after["warped"]["W"][0])
    assert made["valley"]["10"] is not None
    press(page, "W")
    assert call(page, "runs") == before


def test_descents_roll_step_by_step(page, shown):
    opened(page, shown)
    page.emulate_media(reduced_motion="no-preference")
    press(page, "Warped SGD")
    page.wait_for_function(f"{HOOK}.state().shown === {HOOK}.state().steps")
    assert call(page, "state")["shown"] == 30
    d = page.locator("path.sgd").first.get_attribute("d")
    assert d.count("L") == 30
    page.locator(".plane svg").first.click(position={"x": 30, "y": 30})
    assert page.locator("path.sgd").first.get_attribute("d").count("L") < 30


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_extremes_give_numbers_on_one_screen(theme, page, shown):
    for full in (False, True):
        opened(page, shown, theme, full)
        names = [None] if not full else ["Valley", "Mountains"]
        for name in names:
            if name:
                press(page, name)
            for label in SLIDERS if full else ["Rate", "Warp strength", "Steps"]:
                range_ = page.get_by_role("slider", name=label, exact=True)
                for end in ("max", "min", "max"):
                    move(page, label, float(range_.get_attribute(end)))
                    text = page.locator(".play").inner_html()
                    for word in ("NaN", "Infinity", "undefined", "e+"):
                        assert word not in text
                    assert page.evaluate("document.documentElement.scrollWidth") <= 390
        sizes = page.locator(".play svg text").evaluate_all(
            """all => all.map((e) => parseFloat(getComputedStyle(e).fontSize)
                * e.getScreenCTM().a)"""
        )
        assert sizes and min(sizes) >= 11
        page.locator("summary").click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        end = page.evaluate(
            "document.querySelector('.play details').getBoundingClientRect().top"
        )
        assert end < 800


def test_divergence_begins_where_it_should(page, shown):
    """(5): the bowl of the warp by hand has curvature 25, so the limit is 0.08."""
    opened(page, shown, full=False)
    move(page, "Steps", 100)
    for rate, text in ((0.075, "< 0.001"), (0.085, "diverged")):
        move(page, "Rate", rate)
        assert numbers(page)[2][2] == text
    said = page.locator(".play").inner_text()
    assert "Lowest at step 100: Warped" not in said
