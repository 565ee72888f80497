"""The chapter's figures in a browser: they compute what PyTorch computes, and obey."""

import numpy as np
import pytest
import torch
import widgets
from torch import nn
from widgets import HOOK, TEXTS, document, drawn, move

from iclrtut import play
from iclrtut.chapters.energy_based_classifier import method

SLUG = "energy_based_classifier"
page, made = widgets.page, widgets.made


def digits_net(generator):
    return drawn(method.digits_net(0), generator)


OTHERS = {
    "pooled": lambda: (
        nn.Sequential(
            nn.Conv2d(2, 4, (3, 2), (2, 1), (0, 1)),
            nn.ReLU(),
            nn.Conv2d(4, 5, 1, bias=False),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(5, 3),
        ),
        [2, 7, 5],
    ),
    "linear": lambda: (nn.Sequential(nn.Flatten(), nn.Linear(12, 4)), [1, 3, 4]),
}


def payload(net, shape=(1, 8, 8), labels=10):
    """A payload as the chapter makes it, of made-up pictures."""
    rng = np.random.default_rng(0)
    pixels = rng.uniform(-1, 1, (10, int(np.prod(shape))))
    quantiles = {"digits": [5.3, 5.8, 6.3, 6.6, 6.8], "noise": [-2, -1.2, -0.8, 0, 0.4]}
    slopes = {
        "digits": [-1.1, -0.6, -0.4, -0.2, -0.1],
        "noise": [-2, -1.6, -1.4, -1.3, -1],
    }
    return {
        "mode": "digits",
        "model": play.export(net),
        "shape": list(shape),
        "labels": list(range(labels)),
        "examples": [{"pixels": list(p), "label": i} for i, p in enumerate(pixels)],
        "reference": {"lse": quantiles, "mass": slopes},
    }


def widget(made, mode="digits", seed=0):
    data = {"mode": mode}
    if mode == "digits":
        data = payload(digits_net(torch.Generator().manual_seed(seed)))
    play.widget(SLUG, data, **TEXTS)
    return made[-1]


def reading(page):
    """Class bars and the two numbers, as a reader sees them."""
    bars = page.locator(".bars .number").all_inner_texts()
    numbers = page.locator(".scale > .number").all_inner_texts()
    return bars, [float(n.replace("−", "-")) for n in numbers]


def climb(net, x):
    """Logits, LSE and its gradient by autograd, in float64."""
    x = x.clone().requires_grad_()
    logits = net(x[None])[0]
    lse = torch.logsumexp(logits, 0)
    (gradient,) = torch.autograd.grad(lse, x)
    return logits.detach(), lse.item(), gradient


# ---- The numbers are PyTorch's ----


@pytest.mark.parametrize("name", ["digits 1", "digits 2", *OTHERS])
def test_the_page_and_pytorch_agree(name, page, made):
    generator = torch.Generator().manual_seed(len(name))
    if name.startswith("digits"):
        net, shape = digits_net(generator.manual_seed(int(name[-1]))), [1, 8, 8]
    else:
        net, shape = OTHERS[name]()
        net = drawn(net, generator)
    classes = net[-1].out_features
    play.widget(SLUG, payload(net, shape, classes), **TEXTS)
    page.set_content(document(made[0]))
    for _ in range(5):
        x = torch.randn(*shape, generator=generator).double()
        logits, lse, gradient = climb(net, x)
        got = page.evaluate(
            f"x => {{ const h = {HOOK}; return {{ logits: h.logits(x), lse: h.lse(x),"
            " mass: h.mass(x), gradient: h.gradient(x) }; }",
            x.flatten().tolist(),
        )
        assert got["logits"] == pytest.approx(logits.tolist(), abs=1e-10)
        assert got["lse"] == pytest.approx(lse, abs=1e-10)
        assert got["gradient"] == pytest.approx(gradient.flatten().tolist(), abs=1e-10)
        assert got["mass"] == pytest.approx(-gradient.norm().item(), abs=1e-10)


def test_a_walk_without_noise_is_pytorch_s(page, made):
    net = digits_net(torch.Generator().manual_seed(3))
    play.widget(SLUG, payload(net), **TEXTS)
    page.set_content(document(made[0]))
    x = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(4)).double()
    start = {"pixels": x.flatten().tolist(), "steps": 12, "alpha": 0.3, "sigma": 0}
    for _ in range(12):
        x = x + 0.3 * climb(net, x)[2]
    got = page.evaluate(f"start => {HOOK}.langevin(start)", start)
    assert got == pytest.approx(x.flatten().tolist(), abs=1e-8)


def test_the_noise_of_a_walk_is_normal_and_its_seed_repeats_it(page, made):
    page.set_content(document(widget(made)))
    walk = (
        f"seed => {HOOK}.langevin({{ pixels: new Array(64).fill(0), steps: 1, alpha: 0,"
        " sigma: 2, seed })"
    )
    assert page.evaluate(walk, 1) == page.evaluate(walk, 1) != page.evaluate(walk, 2)
    draws = np.array([page.evaluate(walk, seed) for seed in range(100)]).ravel() / 2
    error = 4 / draws.size**0.5
    assert abs(draws.mean()) < error and abs(draws.var() - 1) < 2 * error
    assert (
        abs((draws**3).mean()) < 4 * error and abs((draws**4).mean() - 3) < 10 * error
    )
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < error


def test_what_is_shown_is_what_was_computed(page, made):
    net = digits_net(torch.Generator().manual_seed(0))
    page.set_content(document(widget(made)))
    x = torch.tensor(page.evaluate(f"{HOOK}.state().pixels")).view(1, 8, 8).double()
    logits, lse, gradient = climb(net, x)
    bars, (height, slope) = reading(page)
    shares = [float(bar.split()[0]) for bar in bars if "%" in bar]
    assert shares == pytest.approx((100 * logits.softmax(0)).tolist(), abs=0.06)
    assert height == pytest.approx(lse, abs=0.006)
    assert slope == pytest.approx(-gradient.norm().item(), abs=0.006)


# ---- The controls obey ----


def test_lifting_the_logits_moves_the_density_alone(page, made):
    page.set_content(document(widget(made)))
    bars, (height, slope) = reading(page)
    move(page, "Lift the logits", -3.5)
    assert reading(page)[0] == bars
    assert reading(page)[1] == pytest.approx([height - 3.5, slope], abs=0.011)


def test_the_idea_in_numbers(page, made):
    page.set_content(document(widget(made, "idea")))
    before = page.evaluate(f"[{HOOK}.shares(), {HOOK}.lse()]")
    assert before[1] == pytest.approx(np.log(np.exp([2, 0.5, -1]).sum()))
    move(page, "Lift all three", 1.5)
    shares, lse = page.evaluate(f"[{HOOK}.shares(), {HOOK}.lse()]")
    assert shares == pytest.approx(before[0]) and lse == pytest.approx(before[1] + 1.5)
    move(page, "Logit of bird", 3)
    assert page.evaluate(f"{HOOK}.logits()") == pytest.approx([3.5, 2, 4.5])


def test_mixing_and_choosing(page, made):
    page.set_content(document(widget(made)))
    first, second, fifth = (
        payload(digits_net(torch.Generator()))["examples"][i]["pixels"]
        for i in (0, 1, 4)
    )
    now = f"{HOOK}.state().pixels"
    assert page.evaluate(now) == pytest.approx(first)
    move(page, "Mix A with B", 0.25)
    mixed = 0.75 * np.array(first) + 0.25 * np.array(second)
    assert page.evaluate(now) == pytest.approx(list(mixed))
    chosen = page.get_by_role("group", name="Picture B").get_by_role("radio")
    chosen.nth(1).focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert page.evaluate(now) == pytest.approx(fifth)


def test_drawing_by_keyboard(page, made):
    page.set_content(document(widget(made)))
    page.get_by_role("button", name="Clear").click()
    now = f"{HOOK}.state().pixels"
    assert page.evaluate(now) == [-1] * 64
    page.get_by_role("application").focus()
    for key in ("ArrowUp", "ArrowUp", "ArrowRight", " "):
        page.keyboard.press(key)
    pixels = page.evaluate(now)
    assert pixels[2 * 8 + 5] == 1 and sum(pixels) == -62
    page.wait_for_timeout(600)
    said = page.get_by_role("status").all_inner_texts()
    assert "row 3, column 6: 100 % ink" in said
    page.keyboard.press("Delete")
    assert page.evaluate(now) == [-1] * 64


@pytest.mark.parametrize("pen", ["mouse", "touch"])
def test_drawing_by_hand(pen, page, made):
    page.set_content(document(widget(made)))
    page.get_by_role("button", name="Clear").click()
    canvas = page.get_by_role("application")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    x, y, cell = box["x"] + box["width"] / 2, box["y"], box["height"] / 8
    if pen == "touch":
        page.touchscreen.tap(x + cell / 2, y + 4.5 * cell)
        assert page.evaluate(f"{HOOK}.state().pixels")[4 * 8 + 4] > 0.9
        return
    page.mouse.move(x + cell / 2, y + 1.5 * cell)
    page.mouse.down()
    page.mouse.move(x + cell / 2, y + 5.5 * cell)
    page.mouse.up()
    column = np.array(page.evaluate(f"{HOOK}.state().pixels")).reshape(8, 8)[:, 4]
    assert (column[1:6] > 0.5).all() and (column[[0, 7]] < 0).all()
    page.get_by_role("button", name="Erase").click()
    page.mouse.click(x + cell / 2, y + 3.5 * cell)
    assert page.evaluate(f"{HOOK}.state().pixels")[3 * 8 + 4] < -0.9


def test_walking(page, made):
    page.set_content(document(widget(made)))
    page.get_by_role("button", name="From noise").click()
    state = f"{HOOK}.state()"
    start = page.evaluate(state)["pixels"]
    page.get_by_role("button", name="One step").click()
    one = page.evaluate(state)
    assert one["step"] == 1 and one["pixels"] != start
    steps = page.get_by_role("slider", name="Langevin steps")
    steps.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate(state)["step"] == 2
    page.keyboard.press("Home")
    assert page.evaluate(state) == {"pixels": start, "step": 0, "lift": 0}
    page.keyboard.press("ArrowRight")
    assert page.evaluate(state)["pixels"] == one["pixels"]
    page.get_by_role("button", name="Run").click()
    page.wait_for_function(f"{HOOK}.state().step > 4")
    page.get_by_role("button", name="Stop").click()
    stopped = page.evaluate(state)["step"]
    page.wait_for_timeout(200)
    assert page.evaluate(state)["step"] == stopped


def test_a_walk_that_leaves_says_so_and_can_be_mended(page, made):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    net = drawn(net, torch.Generator().manual_seed(0))
    play.widget(SLUG, payload(net), **TEXTS)
    page.set_content(document(made[0]))
    move(page, "Step α", 8)
    move(page, "Langevin steps", 100)
    warning = page.locator(".warning")
    assert "Take a smaller α" in warning.inner_text()
    assert page.evaluate(f"{HOOK}.state().step") < 100
    move(page, "Langevin steps", 0)
    move(page, "Step α", 0)
    assert warning.inner_text() == ""


def test_the_sampler_meets_its_formula_and_explodes_where_it_must(page, made):
    page.set_content(document(widget(made, "sampler")))
    for a, b, s in ((0.5, 0.5, 1), (2, 1, 1), (3, 3, 1), (1, 0.4, 0.8)):
        exact = page.evaluate(f"{HOOK}.stationary({a}, {b}, {s})")
        assert exact == pytest.approx(b * s**2 / (a * (1 - a / (4 * s**2))))
        last = f"{HOOK}.simulate({a}, {b}, {s}).map(chain => chain.at(-1))"
        final = np.array(page.evaluate(last))
        assert final.var() == pytest.approx(exact, rel=4 * (2 / final.size) ** 0.5)
    warning = page.locator(".warning")
    move(page, "Step a", 3.95)
    assert warning.inner_text() == ""
    move(page, "Step a", 4)
    assert "explode" in warning.inner_text()
