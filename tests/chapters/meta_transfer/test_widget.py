"""Two learners in a browser: the page computes what the package does, and obeys."""

from typing import Any

import numpy as np
import pytest
import torch
import widgets
from scipy import stats
from torch import Tensor
from widgets import HOOK, TEXTS, document, move

from iclrtut import play
from iclrtut.chapters.meta_transfer import method

SLUG = "meta_transfer"
page, shown = widgets.page, widgets.made
STATE = f"{HOOK}.state()"
START = {
    "site": "cause",
    "N": 10,
    "size": 1,
    "rate": 0.3,
    "examples": 40,
    "sharpness": 1,
    "seed": 1,
}
SLIDERS = {
    "Categories N": "N",
    "Size of change": "size",
    "Learning rate": "rate",
    "Examples": "examples",
    "Sharpness": "sharpness",
}
EPISODES = 200


def widget(shown: list[str], payload: dict[str, Any] | None = None) -> str:
    play.widget(SLUG, payload or {}, **TEXTS)
    return shown[-1]


def opened(page: Any, shown: list[str], payload: dict[str, Any] | None = None) -> None:
    page.set_content(document(widget(shown, payload)))


def call(page: Any, name: str, *args: Any) -> Any:
    return page.evaluate(f"(args) => {HOOK}.{name}(...args)", list(args))


# ---- The page computes what the package computes ----


def joints(site: str, N: int, rows: float, examples: int, seed: int, size: float = 1):
    """Joints before and after, [N, N], and seven episodes of the second."""
    generator = torch.Generator().manual_seed(seed)
    before = method.draw(1, N, generator, rows)
    after = method.change(before, site, generator, size, rows)
    log_p, log_star = (world.log_joint()[0] for world in (before, after))
    cells = np.random.default_rng(seed).choice(
        N * N, (7, examples), p=log_star.exp().flatten() / log_star.exp().sum()
    )
    a, b = (torch.tensor(index) for index in np.divmod(cells, N))
    return log_p, log_star, a, b


def reference(log_p: Tensor, log_star: Tensor, a: Tensor, b: Tensor, rate: float):
    """What `compute` gives, by the package; episodes are its runs."""
    runs, steps = a.shape
    many, star = (log.expand(runs, *log.shape) for log in (log_p, log_star))
    kl, population = [], []
    for start, goal, x, y in zip(
        method.both(many), (star, star.mT), (a, b), (b, a), strict=True
    ):
        now, path = start, [method.kl(goal, start.log_joint()).mean()]
        for t in range(steps):
            now = method.adapt(now, x[:, t, None, None], y[:, t, None, None], rate)
            path.append(method.kl(goal, now.log_joint()).mean())
        kl.append(path)
        population.append(method.population(start, goal, rate, steps)[:, 0])
    parts = method.parts(log_p, log_star)
    return {
        "kl": kl,
        "population": [path.tolist() for path in population],
        "gaps": method.learning_curves(many, star, a, b, rate, [steps]).gap[0].tolist(),
        "deltas": method.deltas(many, a[..., None], b[..., None], rate).tolist(),
        "D": method.distances(log_p, log_star),
        "parts": [[parts.cause, parts.mechanism], [parts.effect, parts.inverse]],
        "G": method.first_step(log_p, log_star),
    }


CASES = [
    # site, N, concentration of rows, examples, rate, size
    *((site, 10, 1.0, 20, 0.1, 1.0) for site in method.SITES),
    *((site, 6, 0.1, 40, 3.0, 0.4) for site in method.SITES),
    ("cause", 2, 0.01, 100, 3.0, 1.0),
    ("effect", 20, 10.0, 100, 0.01, 0.05),
    ("mechanism", 20, 0.01, 30, 1.0, 1.0),
    ("row", 3, 1.0, 1, 0.3, 1.0),
]


@pytest.mark.parametrize(("site", "N", "rows", "examples", "rate", "size"), CASES)
def test_the_page_computes_what_the_package_computes(
    site, N, rows, examples, rate, size, page, shown
):
    opened(page, shown)
    log_p, log_star, a, b = joints(site, N, rows, examples, 5, size)
    tables = {"logP": log_p, "logStar": log_star, "a": a, "b": b}
    fed = {name: table.tolist() for name, table in tables.items()}
    got = call(page, "compute", fed | {"rate": rate})
    expected = reference(log_p, log_star, a, b, rate)
    assert got.keys() == expected.keys()
    for name, values in expected.items():
        # 100 steps in float64, each with its rounding, at KLs of up to 1,000 nats.
        close = pytest.approx(np.array(values, dtype=float), rel=1e-10, abs=1e-10)
        assert np.array(got[name]) == close, name


def test_one_example_tells_nothing(page, shown):
    opened(page, shown, {"examples": 1})
    result = page.evaluate(f"{HOOK}.result()")
    assert result["deltas"] == [0] * EPISODES
    assert result["gammas"] == [0] * (EPISODES + 1) and result["fixed"] is None
    assert "none moves it" in page.locator(".note").inner_text()


DELTAS = [
    [1.0] * 9 + [-3.0],
    [0.2, -0.1, 0.3],
    [0.5, 1.0, 2.0],
    [-0.5, -0.1],
    [800.0, -800.0, 3.0],
    [-1000.0] * 3 + [2.0],
    np.random.default_rng(0).normal(0.3, 2, 200).tolist(),
    np.random.default_rng(1).normal(-6.5, 9, 200).tolist(),
]


@pytest.mark.parametrize("deltas", DELTAS)
def test_gamma_follows_and_ends_as_in_the_package(deltas, page, shown):
    opened(page, shown)
    values = torch.tensor(deltas, dtype=torch.float64)
    path = method.follow(values).tolist()
    assert call(page, "follow", deltas) == pytest.approx(path, abs=1e-12)
    fast = method.follow(values, 0.5).tolist()
    assert call(page, "follow", deltas, 0.5) == pytest.approx(fast, abs=1e-10)
    fixed = call(page, "fixedPoint", deltas)
    assert fixed == pytest.approx(method.fixed_point(values).item(), abs=1e-12)


# ---- Its worlds are drawn from the laws it names ----

DRAW = f"""([n, alpha, times]) => {{
    const rng = {HOOK}.random(7);
    return Array.from({{length: times}}, () => {HOOK}.logDirichlet(n, alpha, rng));
}}"""


@pytest.mark.parametrize(("n", "alpha"), [(2, 0.01), (20, 0.01), (2, 0.3), (20, 10)])
def test_the_sampler_draws_a_dirichlet(n, alpha, page, shown):
    opened(page, shown)
    times = 30_000 // n
    logs = np.array(page.evaluate(DRAW, [n, alpha, times]))
    assert np.isfinite(logs).all()
    assert np.abs(np.exp(logs).sum(1) - 1).max() < 1e-12
    # E log p = digamma(alpha) - digamma(n alpha), variance by trigamma.
    both = torch.tensor([alpha, n * alpha], dtype=torch.float64)
    mean = float(-torch.digamma(both).diff())
    variance = float(-torch.polygamma(1, both).diff())
    error = (logs.mean(0) - mean) / (variance / times) ** 0.5
    assert np.abs(error).max() < 4.5  # of 20 at most: 1 in 7,000
    squares = (logs - mean) ** 2
    error = (squares.mean(0) - variance) / (squares.std(0) / times**0.5)
    assert np.abs(error).max() < 5.5  # skewed: its own error varies
    p = np.exp(logs[:, :2])
    product = alpha / (n * (n * alpha + 1))  # E p1 p2 = alpha^2 / (n alpha (n alpha+1))
    joint = p.prod(1)
    assert abs(joint.mean() - product) < 5 * joint.std() / times**0.5


def world(page: Any, **changes: Any) -> tuple[Tensor, Tensor]:
    result = call(page, "world", START | changes)
    return tuple(
        torch.tensor(result[name], dtype=torch.float64) for name in ("logP", "logStar")
    )


def logits(learner: method.Learner) -> tuple[Tensor, Tensor]:
    return tuple(table - table.mean(-1, keepdim=True) for table in learner)


@pytest.mark.parametrize("site", ["cause", "effect", "mechanism"])
def test_only_the_named_thing_changes_and_as_far_as_asked(site, page, shown):
    opened(page, shown)
    before, after = world(page, site=site, sharpness=0.2)
    _, half = world(page, site=site, sharpness=0.2, size=0.5)
    for joint in (before, after, half):
        assert joint.exp().sum() == pytest.approx(1, abs=1e-12)
    old, new, mid = (logits(method.learn(joint)) for joint in (before, after, half))
    moved = [not torch.allclose(x, y) for x, y in zip(old, new, strict=True)]
    assert moved == ([True, False] if site == "cause" else [False, True])
    for x, y, z in zip(old, new, mid, strict=True):
        assert torch.allclose((x + y) / 2, z, atol=1e-9)
    alike = [torch.allclose(joint[1][0], joint[1][1]) for joint in (old, new)]
    assert alike == [False, site == "effect"]


@pytest.mark.parametrize("sharpness", [1, 0.05])
def test_examples_come_from_the_changed_joint(sharpness, page, shown):
    opened(page, shown)
    _, after = world(page, N=5, sharpness=sharpness)
    drawn = call(page, "sample", after.tolist(), 100, 3)
    a, b = np.array(drawn["a"]), np.array(drawn["b"])
    assert a.shape == b.shape == (EPISODES, 100)
    expected = 20_000 * after.exp().numpy().ravel()
    counts = np.bincount(5 * a.ravel() + b.ravel(), minlength=25)
    seen = expected > 5
    assert counts[expected < 1e-6].sum() == 0
    chi2 = ((counts - expected) ** 2 / expected)[seen].sum()
    assert stats.chi2.sf(chi2, seen.sum() - 1) > 1e-3
    assert len({tuple(episode) for episode in a.tolist()}) == EPISODES
    short = call(page, "sample", after.tolist(), 30, 3)
    assert np.array_equal(short["a"], a[:, :30])
    assert np.array_equal(short["b"], b[:, :30])
    assert call(page, "sample", after.tolist(), 30, 4) != short


# ---- What is seen is what was computed ----


def recomputed(page: Any, state: dict[str, Any]) -> dict[str, Any]:
    """The page's world and examples, adapted to by the package."""
    log_p, log_star = world(page, **state)
    drawn = call(
        page, "sample", log_star.tolist(), state["examples"], state["seed"] + 2**31
    )
    a, b = torch.tensor(drawn["a"]), torch.tensor(drawn["b"])
    result = reference(log_p, log_star, a, b, state["rate"])
    deltas = torch.tensor(result["deltas"])
    gaps = np.array(result["gaps"])
    return result | {
        "gap": gaps.mean(),
        "error": gaps.std() / len(gaps) ** 0.5,
        "gammas": method.follow(deltas),
        "fixed": method.fixed_point(deltas).item(),
    }


def name(sign: float) -> str:
    return "A→B" if sign > 0 else "B→A"


# Both leaders, both sides of each predictor, right and wrong.
SHOWN = [
    {"site": site, "sharpness": sharpness}
    for site in ("cause", "effect", "mechanism")
    for sharpness in (1, 0.01)
] + [{"site": "effect", "sharpness": 0.01, "rate": 3, "examples": 100}]


@pytest.mark.parametrize("payload", SHOWN)
def test_the_words_are_those_of_the_package(payload, page, shown):
    opened(page, shown, payload)
    result = recomputed(page, START | payload)
    gap, ends = result["gap"], [path[-1] for path in result["kl"]]
    assert abs(gap) > 2 * result["error"]
    page.wait_for_function("document.querySelector('.unseen').textContent")
    text = page.locator("[role=status]").inner_text()
    assert text == page.locator(".note").inner_text()
    sigma = result["gammas"][-1].sigmoid().item()
    way = "true" if gap > 0 else "wrong"
    assert f"{name(gap)}, the {way} direction, leads by {abs(gap):.3g} nats" in text
    assert f"after {payload.get('examples', 40)} examples" in text
    assert f"the {payload['site']} changes" in text
    assert f"stands at {sigma:.2f} after 200 episodes" in text
    assert f"which pull it to {result['fixed']:.2f}" in text
    assert text.endswith("The truth is always A→B.")
    assert page.locator(".note.warning").count() == (gap < 0)

    (klA, _), (klB, _) = result["parts"]
    D, G = result["D"], result["G"]
    pairs = [(ends[1], ends[0]), (D[1], D[0]), (klA, klB), (G[0], G[1])]
    lanes = page.locator(".lane").all()
    assert len(lanes) == 4
    for i, (lane, (plus, less)) in enumerate(zip(lanes, pairs, strict=True)):
        share = float((plus - less) / (plus + less))
        right = "✓ right" if share * gap > 0 else "✗ wrong"
        verdict = f"{name(share)} {right if i else 'leads'}"
        assert lane.locator(".number").inner_text() == verdict
        numbers = lane.locator(".help").inner_text().replace(",", "")
        digits = 4 if i == 1 else 3  # distances are often close
        for value in (plus, less):
            short = float(f"{value:.{digits}g}")
            assert f" {short:.15g}" in numbers or short < 1e-4
        bar, track = (lane.locator(part).bounding_box() for part in (".bar", ".track"))
        middle = track["x"] + track["width"] / 2
        if share > 0:
            assert bar["x"] == pytest.approx(middle, abs=2)
        else:
            assert bar["x"] + bar["width"] == pytest.approx(middle, abs=2)
        length = 2 * bar["width"] / track["width"]
        assert length == pytest.approx(abs(share), abs=0.02)
        back = lane.locator(".bar.back").count()
        assert back == (share < 0)


def test_a_gap_within_its_error_is_too_close_to_call(page, shown):
    close = {"size": 0.05, "rate": 3, "examples": 20}
    for seed in range(1, 40):
        opened(page, shown, close | {"seed": seed})
        result = page.evaluate(f"{HOOK}.result()")
        if abs(np.mean(result["gaps"])) < 2 * stats.sem(result["gaps"], ddof=0):
            break
    texts = page.locator(".lane .number").all_inner_texts()
    assert texts[0] == "too close to call"
    assert all(text.endswith("· undecided") for text in texts[1:])
    assert "Neither learner leads clearly" in page.locator(".note").inner_text()
    assert page.locator(".note.warning").count() == 0


def path(page: Any, selector: str) -> np.ndarray:
    d = page.locator(selector).get_attribute("d")
    return np.array([pair.split(",") for pair in d[1:].split("L")], dtype=float)


CURVES = ["--model", "--baseline"]


@pytest.mark.parametrize("size", [1, 0.05])
def test_the_curves_are_drawn_where_they_are(size, page, shown):
    opened(page, shown, {"size": size, "rate": 0.01})
    result = page.evaluate(f"{HOOK}.result()")
    charts = page.locator("svg.plot")
    assert charts.count() == 2
    unit = "nats / 1,000" if max(result["kl"][0]) < 0.02 else "nats"
    assert charts.first.locator("text").first.text_content() == f"KL(P*‖P), {unit}"
    lines = charts.first.locator("path[fill=none]:not([stroke=currentColor])")
    values = result["population"] + result["kl"]
    assert lines.count() == 4
    top = 1.02 * max(map(max, values))
    for i, (line, kl) in enumerate(zip(lines.all(), values, strict=True)):
        colour = ["--exact", "--exact", *CURVES][i]
        assert line.get_attribute("stroke") == f"var({colour})"
        d = line.get_attribute("d")[1:].split("L")
        drawn = np.array([pair.split(",") for pair in d], dtype=float)
        x = 34 + np.arange(41) / 40 * (332 - 34)
        y = 176 - np.array(kl) / top * (176 - 26)
        assert np.abs(drawn - np.stack([x, y], 1)).max() < 0.06
    dashes = {line.get_attribute("stroke-dasharray") for line in lines.all()}
    assert len(dashes) == 4  # told apart without colour
    label = charts.first.get_attribute("aria-label")
    assert "after 40" in label and "A→B" in label and "B→A" in label


@pytest.mark.parametrize(("site", "wrong"), [("cause", False), ("effect", True)])
def test_gamma_is_drawn_to_its_end_and_its_fixed_point(site, wrong, page, shown):
    opened(page, shown, {"site": site})
    result = page.evaluate(f"{HOOK}.result()")
    sigma = 1 / (1 + np.exp(-np.array(result["gammas"])))
    y = 176 - sigma * (176 - 26)
    drawn = path(page, ".gamma")
    assert drawn[:, 1] == pytest.approx(y, abs=0.06)
    assert drawn[:, 0] == pytest.approx(np.linspace(34, 332, EPISODES + 1), abs=0.06)
    level = float(page.locator(".fixed").get_attribute("d").split(",")[1].split("H")[0])
    assert level == pytest.approx(176 - result["fixed"] * 150, abs=0.01)
    chart = page.locator("svg.plot").nth(1)
    assert (sigma[-1] < 0.5) == wrong
    assert chart.locator("[stroke='var(--failure)']").count() == wrong
    assert chart.locator("circle").count() == (not wrong)
    texts = chart.locator("text").all_text_contents()
    assert texts[-1] == f"{sigma[-1]:.2f}" + (", wrong" if wrong else "")
    assert f"p* = {result['fixed']:.3f}" in texts


# ---- The controls obey ----


def test_sliders_reach_what_they_say(page, shown):
    opened(page, shown)
    ends = {
        "Categories N": (2, 20),
        "Size of change": (0.05, 1),
        "Learning rate": (0.01, 3),
        "Examples": (1, 100),
        "Sharpness": (10, 0.01),  # to the right the rows are sharper
    }
    for label, expected in ends.items():
        slider = page.get_by_role("slider", name=label)
        for side, value in zip(("min", "max"), expected, strict=True):
            move(page, label, float(slider.get_attribute(side)))
            assert page.evaluate(STATE)[SLIDERS[label]] == value
    for label in ("Learning rate", "Sharpness"):
        slider = page.get_by_role("slider", name=label)
        steps = []
        for i in range(int(slider.get_attribute("max")) + 1):
            move(page, label, i)
            steps.append(np.log(page.evaluate(STATE)[SLIDERS[label]]))
        steps = np.abs(np.diff(steps))
        assert steps.min() > np.log(1.3) and steps.max() < np.log(1.7)  # a log scale


def test_a_payload_says_where_to_begin(page, shown):
    begin = {
        "site": "mechanism",
        "N": 4,
        "size": 0.35,
        "rate": 1.5,
        "examples": 7,
        "sharpness": 0.03,
        "seed": 9,
    }
    opened(page, shown, begin)
    assert page.evaluate(STATE) == begin
    for label, field in SLIDERS.items():
        text = page.get_by_role("slider", name=label).get_attribute("aria-valuetext")
        assert float(text) == begin[field]
    assert page.get_by_role("radio", name="mechanism").is_checked()


def test_extremes_give_numbers(page, shown):
    opened(page, shown)
    broken = page.evaluate(
        f"""([sites]) => {{
            const range = (name) => [...document.querySelectorAll('.control')]
                .find((e) => e.textContent.includes(name)).querySelector('input');
            const to = (input, side) => {{
                input.value = input[side];
                input.dispatchEvent(new Event('input'));
            }};
            const labels = ['Categories', 'Size', 'Learning', 'Examples', 'Sharpness'];
            const broken = [];
            for (const site of sites) {{
                document.querySelector(`[value=${{site}}]`).click();
                for (let i = 0; i < 32; i++) {{
                    labels.forEach((label, k) =>
                        to(range(label), i >> k & 1 ? 'max' : 'min'));
                    const text = document.querySelector('.play').innerHTML;
                    const all = JSON.stringify({HOOK}.result(), (_, v) =>
                        typeof v === 'number' && !Number.isFinite(v) ? 'NaN' : v);
                    const width = document.documentElement.scrollWidth;
                    if (/NaN|Infinity|undefined|∞/.test(text + all) || width > 390)
                        broken.push([site, i, width]);
                }}
            }}
            return broken;
        }}""",
        [["cause", "effect", "mechanism"]],
    )
    assert broken == []
