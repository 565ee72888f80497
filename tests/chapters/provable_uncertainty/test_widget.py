"""The plane of two moons in a browser: its numbers are the equations', and it obeys."""

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import widgets
from torch import nn
from widgets import HOOK, PICTURE, TEXTS, document, drawn, move

from iclrtut import play

SLUG = "provable_uncertainty"
page, made = widgets.page, widgets.made
PLANE = ".plane svg"
STATE = f"{HOOK}.state()"


def moons_net(generator):
    widths = (2, 16, 12, 2)
    layers = [f for pair in pairwise(widths) for f in (nn.Linear(*pair), nn.ReLU())]
    return drawn(nn.Sequential(*layers[:-1]), generator)


def mixture(rng, components, sigma, spread):
    weights = rng.dirichlet(np.ones(components))
    return {
        "log_weights": np.log(weights).tolist(),
        "means": (spread * rng.normal(size=(components, 2))).tolist(),
        "sigma": rng.uniform(*sigma, components).tolist(),
    }


def payload(seed=0) -> tuple[dict[str, Any], dict[str, nn.Module]]:
    """A made-up plane: plain, OE, CCU (narrow in-mixture) and one that fails."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    models, nets = [], {}
    for id in ("plain", "oe", "ccu", "failing"):
        nets[id] = moons_net(generator)
        models.append({"id": id, "name": f"Model {id}", "net": play.export(nets[id])})
    widths = {"ccu": ((0.1, 0.5), (0.6, 1.5)), "failing": ((0.3, 1.6), (0.2, 0.9))}
    for model in models[2:]:
        inside, outside = (
            mixture(rng, rng.integers(3, 9), width, spread)
            for width, spread in zip(widths[model["id"]], (1, 2.5), strict=True)
        )
        model |= {"inside": inside, "outside": outside, "log_q": rng.normal() / 2}
        model["order"] = [max(inside["sigma"]), max(outside["sigma"])]
    points = [[*rng.normal(size=2), int(i % 2)] for i in range(200)]
    made_up = {
        "mode": "moons",
        "points": points,
        "half": 4,
        "centre": rng.normal(size=2).tolist(),
        "whiten": (np.eye(2) + rng.normal(size=(2, 2)) / 3).tolist(),
        "models": models,
    }
    return made_up, nets


def widget(made, seed=0):
    play.widget(SLUG, payload(seed)[0], **TEXTS)
    return made[-1]


def opened(page, made, seed=0):
    page.set_content(document(widget(made, seed)))


# ---- The reference, in float64 ----


def log_sum(values, axis):
    top = values.max(axis, keepdims=True)
    return (top + np.log(np.exp(values - top).sum(axis, keepdims=True))).squeeze(axis)


class Reference:
    """The equations of one model, by NumPy, one point at a time or many."""

    def __init__(self, plane, net, id):
        self.T, self.centre = np.array(plane["whiten"]), np.array(plane["centre"])
        self.net = net
        model = next(model for model in plane["models"] if model["id"] == id)
        self.mixed = "inside" in model
        if self.mixed:
            self.log_q = model["log_q"]
            self.sides = [
                {name: np.array(values) for name, values in model[side].items()}
                for side in ("inside", "outside")
            ]

    def whiten(self, x):
        return (np.atleast_2d(x) - self.centre) @ self.T.T

    def unwhiten(self, z):
        return self.centre + z @ np.linalg.inv(self.T).T

    def logits(self, x):
        with torch.no_grad():
            return self.net(torch.tensor(np.atleast_2d(x))).numpy()

    def logs(self, side, x, shift=0.0):
        means, sigma = self.sides[side]["means"], self.sides[side]["sigma"]
        d = np.linalg.norm(self.whiten(x)[:, None] - means, axis=2)
        d = np.maximum(d + shift, 0)
        heights = self.sides[side]["log_weights"] - 2 * np.log(sigma)
        return heights - d**2 / (2 * sigma**2)

    def log_ratio(self, x):
        return self.log_q + log_sum(self.logs(0, x), 1) - log_sum(self.logs(1, x), 1)

    def confidence(self, x):
        f = self.logits(x)
        softmax = np.exp(f.max(1) - log_sum(f, 1))
        if not self.mixed:
            return softmax
        inside = np.exp(-np.logaddexp(0, -self.log_ratio(x)))
        return inside * softmax + (1 - inside) / 2

    def ceiling(self, log_b):
        return 0.5 + 0.5 * np.exp(-np.logaddexp(0, -log_b))

    def bound(self, x, R):
        near, far = log_sum(self.logs(0, x, -R), 1), log_sum(self.logs(1, x, R), 1)
        return self.ceiling(self.log_q + near - far)[0]

    def tight(self, x, R):
        """(12) by its words: each pair's quadratic has its maximum in the ball."""
        (inside, outside), z = self.sides, self.whiten(x)[0]
        total = []
        for k, f in enumerate(self.logs(0, x)[0]):
            tops = []
            for j, g in enumerate(self.logs(1, x)[0]):
                a, b = inside["sigma"][k] ** -2, outside["sigma"][j] ** -2
                to_k, to_j = inside["means"][k] - z, outside["means"][j] - z
                slope, bend = np.linalg.norm(a * to_k - b * to_j), a - b
                far = R if bend <= 0 else min(R, slope / bend)
                tops.append(f - g + far * slope - bend * far**2 / 2)
            total.append(-log_sum(-np.array(tops), 0))
        return self.ceiling(self.log_q + log_sum(np.array(total), 0))

    def ball(self, x, R, rings=60, angles=180):
        """A fine polar grid of the ball, boundary included."""
        r = np.linspace(0, R, rings + 1)[:, None]
        a = np.linspace(0, 2 * np.pi, angles, endpoint=False)
        offsets = np.stack([r * np.cos(a), r * np.sin(a)], 2).reshape(-1, 2)
        return self.unwhiten(self.whiten(x) + offsets)


def asked(page, what, *arguments):
    return page.evaluate(f"a => {HOOK}.{what}(...a)", list(arguments))


IDS = ("plain", "oe", "ccu", "failing")


@pytest.mark.parametrize("seed", range(4))
def test_the_page_and_the_equations_agree(seed, page, made):
    opened(page, made, seed)
    plane, nets = payload(seed)
    rng = np.random.default_rng(seed)
    far = [[1000.0, 0.0], [-600.0, 800.0], [30.0, -1.0]]
    points = [*(3 * rng.normal(size=(8, 2))).tolist(), *far]
    for id in IDS:
        by_hand = Reference(plane, nets[id], id)
        for x in points:
            R = float(rng.uniform(0, 4)) * (rng.random() < 0.8)
            assert asked(page, "logits", id, x) == pytest.approx(
                by_hand.logits(x)[0].tolist(), rel=1e-12, abs=1e-10
            )
            here = asked(page, "confidence", id, x)
            assert here == pytest.approx(by_hand.confidence(x)[0], abs=1e-11)
            if not by_hand.mixed:
                assert asked(page, "bound", id, x, R) is None
                assert asked(page, "tight", id, x, R) is None
                continue
            ratio = by_hand.log_ratio(x)[0]
            assert asked(page, "logRatio", id, x) == pytest.approx(
                ratio, rel=1e-12, abs=1e-9
            )
            bound, tight = (asked(page, name, id, x, R) for name in ("bound", "tight"))
            assert bound == pytest.approx(by_hand.bound(x, R), abs=1e-11)
            assert tight == pytest.approx(by_hand.tight(x, R), abs=1e-11)


def test_far_away_densities_underflow_and_the_page_does_not(page, made):
    opened(page, made)
    plane, nets = payload()
    x = [1000.0, 0.0]
    by_hand = Reference(plane, nets["ccu"], "ccu")
    assert np.exp(by_hand.logs(0, x)).max() == np.exp(by_hand.logs(1, x)).max() == 0
    assert asked(page, "confidence", "ccu", x) == 0.5
    assert asked(page, "bound", "ccu", x, 1) == asked(page, "tight", "ccu", x, 1) == 0.5
    failing = Reference(plane, nets["failing"], "failing")
    assert failing.log_ratio(x)[0] > 1000
    sure = asked(page, "confidence", "failing", x)
    assert sure == pytest.approx(failing.confidence(x)[0], abs=1e-12)
    assert asked(page, "bound", "failing", x, 1) == 1
    results = asked(page, "attack", "ccu", x, 2)
    assert results["confidence"] == 0.5 and np.isfinite(results["point"]).all()


@pytest.mark.parametrize("id", IDS)
def test_the_attack_is_strong_and_stays_below_the_ceilings(id, page, made):
    opened(page, made, 5)
    plane, nets = payload(5)
    by_hand = Reference(plane, nets[id], id)
    rng, missed = np.random.default_rng(6), []
    balls = [
        [(2.5 * rng.normal(size=2)).tolist(), float(rng.uniform(0.05, 4))]
        for _ in range(100)
    ]
    got = page.evaluate(
        f"([id, balls]) => balls.map(([x, R]) => ({{...{HOOK}.attack(id, x, R),"
        f" bound: {HOOK}.bound(id, x, R), tight: {HOOK}.tight(id, x, R)}}))",
        [id, balls],
    )
    for (x, R), results in zip(balls, got, strict=True):
        away = np.linalg.norm(by_hand.whiten(results["point"]) - by_hand.whiten(x))
        assert away <= R * (1 + 1e-9)
        here = by_hand.confidence(results["point"])[0]
        assert results["confidence"] == pytest.approx(here, abs=1e-9)
        if by_hand.mixed:
            assert results["confidence"] <= results["tight"] + 1e-9
            assert results["tight"] <= results["bound"] + 1e-12
        best = by_hand.confidence(by_hand.ball(x, R)).max()
        missed.append(best - results["confidence"])
    assert np.mean(np.array(missed) > 1e-3) <= 0.02
    assert max(missed) < 0.05


# ---- What is seen is what was computed ----


def shown(page):
    texts = page.locator(".lane .number").all_inner_texts()
    return [None if text == "none" else float(text) for text in texts]


def test_the_four_numbers_are_the_page_s_own(page, made):
    opened(page, made)
    state = page.evaluate(STATE)
    plane, nets = payload()
    x, R, by_hand = state["centre"], state["R"], Reference(plane, nets["ccu"], "ccu")
    here, results, tight, bound = shown(page)
    assert here == pytest.approx(by_hand.confidence(x)[0], abs=6e-4)
    assert results == pytest.approx(
        asked(page, "attack", "ccu", x, R)["confidence"], abs=6e-4
    )
    assert tight == pytest.approx(by_hand.tight(x, R), abs=6e-4)
    assert bound == pytest.approx(by_hand.bound(x, R), abs=6e-4)
    assert here <= results <= tight <= bound and tight >= 0.65
    widths = page.locator(".lane .bar").evaluate_all(
        "all => all.map(e => e.offsetWidth / e.parentNode.clientWidth)"
    )
    expected = [2 * value - 1 for value in (here, results, tight, bound)]
    assert widths == pytest.approx(expected, abs=0.02)


def test_a_model_without_mixtures_has_no_certificate(page, made):
    opened(page, made)
    for id in ("plain", "oe"):
        page.get_by_role("button", name=f"Model {id}").click()
        assert shown(page)[2:] == [None, None] and None not in shown(page)[:2]
        assert "no certificate" in page.locator(".note").inner_text()
    page.get_by_role("button", name="Model failing").click()
    assert "not certified far away" in page.locator(".note.warning").inner_text()
    assert None not in shown(page)
    page.get_by_role("button", name="Model ccu").click()
    assert page.locator(".note.warning").count() == 0
    assert "goes to 1/2 on every ray" in page.locator(".note").inner_text()


PIXELS = """places => {
    const canvas = document.querySelector('.plane canvas');
    const all = canvas.getContext('2d').getImageData(0, 0, 480, 480).data;
    return places.map(([x, y]) => all[4 * (480 * y + x) + 3] / 255);
}"""


@pytest.mark.parametrize(("id", "zoom"), [("plain", 4), ("failing", 12), ("ccu", 40)])
def test_the_field_is_the_confidence(id, zoom, page, made):
    opened(page, made)
    plane, nets = payload()
    page.get_by_role("button", name=f"Model {id}").click()
    page.get_by_role("button", name=f"±{zoom}", exact=True).click()
    page.wait_for_function(f"{HOOK}.fine()")
    places = np.random.default_rng(0).integers(0, 480, (1000, 2))
    x = zoom * (2 * places / 479 - 1) * [1, -1]
    share = 2 * Reference(plane, nets[id], id).confidence(x) - 1
    expected = np.minimum(np.floor(10 * share), 9) / 9
    error = np.abs(np.array(page.evaluate(PIXELS, places.tolist())) - expected)
    assert np.mean(error < 0.02) > 0.85 and np.mean(error < 0.12) > 0.95


def lightness(rgb):
    """CIE L* of an sRGB colour in 0 to 255."""
    rgb = np.asarray(rgb) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    y = linear @ [0.2126, 0.7152, 0.0722]
    return 116 * np.cbrt(y) - 16 if y > 0.008856 else 903.3 * y


@pytest.mark.parametrize("paper", [(255, 255, 255), (18, 18, 18)])
def test_the_scale_reads_in_grey(paper, page, made):
    opened(page, made)
    inks = [asked(page, "opacity", (i + 0.5) / 10) for i in range(10)]
    model = np.array([0xDF, 0x76, 0x08])
    grey = [lightness(a * model + (1 - a) * np.array(paper)) for a in inks]
    steps = np.diff(grey) * np.sign(grey[-1] - grey[0])
    assert steps.min() > 3 and steps.max() < 2 * steps.min()
    ramp = page.locator(".ramp i").evaluate_all("all => all.map(e => +e.style.opacity)")
    assert ramp == pytest.approx(inks)


# ---- The controls obey ----


def test_models_and_zooms_are_switches(page, made):
    opened(page, made)
    pictures = set()
    for group, names in (
        ("Model", [f"Model {id}" for id in IDS]),
        ("Zoom", ["±4", "±12", "±40"]),
    ):
        buttons = page.get_by_role("group", name=group)
        for name in names:
            buttons.get_by_role("button", name=name, exact=True).click()
            pressed = buttons.locator("[aria-pressed=true]").all_inner_texts()
            assert pressed == [name]
            pictures.add(page.evaluate(PICTURE))
    assert len(pictures) >= 6
    state = page.evaluate(STATE)
    assert state["model"] == "failing" and state["half"] == 40
    move(page, "Centre x₁", 30)
    assert page.evaluate(STATE)["centre"][0] == 30
    page.get_by_role("button", name="±4", exact=True).click()
    assert page.evaluate(STATE)["centre"][0] == 4


def test_zooming_out_and_back_moves_nothing(page, made):
    opened(page, made)
    page.evaluate(f"{HOOK}.set([1.61, -0.37], 1.23)")
    before = page.evaluate(STATE)
    assert before["centre"] == [1.61, -0.37] and before["R"] == 1.23
    for name in ("±12", "±40", "±4"):
        page.get_by_role("button", name=name, exact=True).click()
    assert page.evaluate(STATE) == before


def test_keys_move_the_ball(page, made):
    opened(page, made)
    before = page.evaluate(STATE)
    page.get_by_role("application").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "+", "Shift+ArrowLeft"):
        page.keyboard.press(key)
    after = page.evaluate(STATE)
    moved = np.subtract(after["centre"], before["centre"])
    assert moved == pytest.approx([0.19, -0.1])
    assert after["R"] - before["R"] == pytest.approx(0.1)
    page.keyboard.press("-")
    assert page.evaluate(STATE)["R"] == pytest.approx(before["R"])
    page.wait_for_timeout(600)
    said = page.locator(".unseen").inner_text()
    state = page.evaluate(STATE)
    assert f"radius {state['R']:.2f}" in said and "ceiling" in said
    assert "Model ccu" in said and f"{state['centre'][0]:.2f}" in said


def on_screen(page, x):
    half = page.evaluate(STATE)["half"]
    box = page.locator(PLANE).bounding_box()
    return (
        box["x"] + box["width"] * (x[0] + half) / (2 * half),
        box["y"] + box["height"] * (half - x[1]) / (2 * half),
    )


def settled(page, x, R):
    page.locator(PLANE).scroll_into_view_if_needed()
    page.evaluate(f"([x, R]) => {HOOK}.set(x, R)", [x, R])


def edge(by_hand, x, R, angle):
    """A place on the ball's edge, R away in the whitened plane."""
    z = by_hand.whiten(x)[0] + R * np.array([np.cos(angle), np.sin(angle)])
    return by_hand.unwhiten(z)


def test_dragging_the_centre(page, made):
    opened(page, made)
    settled(page, [1.0, 1.0], 1.0)
    before = page.evaluate(PICTURE)
    page.mouse.move(*on_screen(page, [1.05, 1.0]))
    page.mouse.down()
    page.mouse.move(*on_screen(page, [-0.95, -0.5]), steps=5)
    page.mouse.up()
    state = page.evaluate(STATE)
    assert state["centre"] == pytest.approx([-1.0, -0.5], abs=0.03)
    assert state["R"] == 1 and page.evaluate(PICTURE) != before
    page.mouse.move(*on_screen(page, [2, 2]))
    assert page.evaluate(STATE) == state
    page.mouse.click(*on_screen(page, [3, -3]))
    assert page.evaluate(STATE)["centre"] == pytest.approx([3, -3], abs=0.03)


@pytest.mark.parametrize("angle", [0.3, 2.0, 4.0])
def test_dragging_the_edge(angle, page, made):
    opened(page, made)
    plane, nets = payload()
    by_hand = Reference(plane, nets["ccu"], "ccu")
    settled(page, [0.5, 0.5], 1.2)
    page.mouse.move(*on_screen(page, edge(by_hand, [0.5, 0.5], 1.2, angle)))
    page.mouse.down()
    page.mouse.move(*on_screen(page, edge(by_hand, [0.5, 0.5], 2, angle)), steps=4)
    page.mouse.up()
    state = page.evaluate(STATE)
    assert state["centre"] == [0.5, 0.5]
    assert state["R"] == pytest.approx(2, abs=0.05)
    slider = page.get_by_role("slider", name="Radius")
    assert float(slider.input_value()) == state["R"]


def test_the_ball_is_drawn_as_the_ellipse_it_is(page, made):
    opened(page, made)
    plane, nets = payload()
    by_hand = Reference(plane, nets["ccu"], "ccu")
    settled(page, [0.5, -0.5], 1.7)
    path = page.locator(".ball .ink").get_attribute("d")
    outline = np.array([pair.split(",") for pair in path[1:].split("L")], dtype=float)
    x = 4 * (outline / 180 - 1) * [1, -1]
    z = by_hand.whiten(x) - by_hand.whiten([0.5, -0.5])
    assert np.linalg.norm(z, axis=1) == pytest.approx(1.7, abs=1e-3)


def finger(page, *places):
    """Touch at the first place, slide through the others, and let go."""
    session = page.context.new_cdp_session(page)
    kinds = ["touchStart"] + ["touchMove"] * (len(places) - 1)
    for kind, (x, y) in zip(kinds, places, strict=True):
        event = {"type": kind, "touchPoints": [{"x": x, "y": y}]}
        session.send("Input.dispatchTouchEvent", event)
    end = {"type": "touchEnd", "touchPoints": []}
    session.send("Input.dispatchTouchEvent", end)


def test_a_finger_taps_drags_and_scrolls(page, made):
    opened(page, made)
    settled(page, [1.0, 1.0], 1.0)
    page.touchscreen.tap(*on_screen(page, [-2, -2]))
    assert page.evaluate(STATE)["centre"] == pytest.approx([-2, -2], abs=0.03)
    places = [on_screen(page, x) for x in ([-2, -2], [-1, -1], [1, 0], [2, 1])]
    finger(page, *places)
    page.wait_for_function(f"Math.abs({STATE}.centre[0] - 2) < 0.03")
    after = page.evaluate(STATE)
    assert after["centre"] == pytest.approx([2, 1], abs=0.03)
    plane, nets = payload()
    by_hand = Reference(plane, nets["ccu"], "ccu")
    rim = [edge(by_hand, after["centre"], R, 2.5) for R in (1, 1.4, 1.8)]
    finger(page, *(on_screen(page, x) for x in rim))
    page.wait_for_function(f"Math.abs({STATE}.R - 1.8) < 0.05")
    assert page.evaluate(STATE)["centre"] == after["centre"]
    kept, top = page.evaluate(STATE), page.evaluate("scrollY")
    x, y = on_screen(page, [-3.5, -3.5])
    finger(page, *((x, y - 20 * i) for i in range(6)))
    page.wait_for_function(f"scrollY > {top}")
    assert page.evaluate(STATE) == kept


def test_dragging_computes_no_field(page, made):
    opened(page, made)
    page.wait_for_function(f"{HOOK}.fine()")
    drawn_ = "document.querySelector('.plane canvas').toDataURL()"
    before = page.evaluate(drawn_)
    page.evaluate("() => { CanvasRenderingContext2D.prototype.putImageData = null; }")
    page.evaluate(f"{HOOK}.set([-1, 1], 2)")
    assert page.evaluate(drawn_) == before


def test_a_ball_of_radius_0_is_its_centre(page, made):
    opened(page, made)
    move(page, "Radius", 0)
    here, *others = shown(page)
    assert others[0] == here and others[1] == others[2] >= here


def test_the_figure_stays_light(made):
    assert len(widget(made).encode()) < 120_000
    assert len(json.dumps(payload()[0])) < 60_000
