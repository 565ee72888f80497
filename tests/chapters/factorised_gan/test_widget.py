"""Tables in a browser: the page computes what the package does, and obeys."""

from typing import Any

import pytest
import torch
import widgets
from rng import rng
from widgets import HOOK, PICTURE, TEXTS, document, move

from iclrtut import play
from iclrtut.chapters.factorised_gan import experiments, method

SLUG = "factorised_gan"
page, shown = widgets.page, widgets.made
NAMES = ("first", "second", "c_p", "c_q")
KEYS = {"first": "first", "second": "second", "c_p": "cP", "c_q": "cQ"}


def opened(page: Any, shown: list[str], mode: str = "flow") -> None:
    play.widget(SLUG, experiments.playground(mode), **TEXTS)
    page.set_content(document(shown[-1]))


def call(page: Any, name: str, *args: Any) -> Any:
    return page.evaluate(f"(args) => {HOOK}.{name}(...args)", list(args))


def press(page: Any, *names: str) -> None:
    for name in names:
        page.get_by_role("button", name=name, exact=True).click()


def state(page: Any) -> dict[str, Any]:
    return call(page, "state")


def table(seed: int) -> torch.Tensor:
    x = torch.randn(9, generator=rng(seed), dtype=torch.float64)
    return x.softmax(0).view(3, 3)


def flat(t: torch.Tensor) -> list[float]:
    return t.flatten().tolist()


def on(**off: bool) -> dict[str, bool]:
    return {KEYS[name]: off.get(name, True) for name in NAMES}


# ---- The page computes what the package computes ----


@pytest.mark.parametrize("seed", range(4))
def test_the_four_pictures_are_those_of_the_package(seed, page, shown):
    opened(page, shown)
    p, q, r = table(seed), table(seed + 10), table(seed + 20)
    exact = method.ratios(p, q, r)
    found = call(page, "ratios", flat(p), flat(q), flat(r))
    for name in NAMES:
        wanted = flat(getattr(exact, name).expand(3, 3))
        assert found[KEYS[name]] == pytest.approx(wanted, abs=1e-10)
    for batch in (1, 2, 32):
        wanted = flat(method.permuted(exact.c_p, batch))
        got = call(page, "permuted", flat(exact.c_p), batch)
        assert got == pytest.approx(wanted, abs=1e-10)


@pytest.mark.parametrize(
    ("off", "batch", "tilt"),
    [({}, 0, 0), ({"c_p": False}, 0, 0), ({"c_q": False}, 0, 0.7), ({}, 4, -1.0)],
)
def test_the_walk_is_that_of_the_package(off, batch, tilt, page, shown):
    opened(page, shown)
    p, q = table(1), table(2)
    parts = call(page, "tilted", flat(p), tilt)
    r = torch.tensor(parts, dtype=torch.float64).view(3, 3)
    if not tilt:
        torch.testing.assert_close(r, method.product(p))
    switches = method.Switches(**{k: float(v) for k, v in off.items()})
    wanted = method.walk(p, q, 6.0, 60, switches, parts=r, batch=batch or None)
    more = {"parts": parts, "batch": batch}
    found = call(page, "walk", flat(p), flat(q), 6.0, 60, on(**off), more)
    assert found == pytest.approx(flat(wanted), abs=1e-8)


# ---- It obeys ----


def test_keys_and_dragging_change_a_cell(page, shown):
    opened(page, shown, "pictures")
    before, picture = state(page), page.evaluate(PICTURE)
    cell = page.get_by_role("slider", name="p, row 1, column 2")
    cell.focus()
    cell.press("ArrowUp")
    after = state(page)
    assert after["p"][1] > before["p"][1]
    assert sum(after["p"]) == pytest.approx(1)
    assert after["q"] == before["q"]
    assert page.evaluate(PICTURE) != picture
    box = page.get_by_role("slider", name="q, row 2, column 2").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x, y - 40)
    page.mouse.up()
    assert state(page)["q"][4] > before["q"][4]
    page.mouse.move(x, y - 80)
    assert state(page)["q"] == state(page)["q"]


def ended(page: Any) -> dict[str, Any]:
    page.wait_for_function(f"() => !{HOOK}.state().running")
    return state(page)


def test_training_walks_to_the_data_and_without_d_p_to_independence(page, shown):
    opened(page, shown)
    press(page, "Train")
    end = ended(page)
    assert end["q"] == pytest.approx(end["p"], abs=1e-3)
    assert len(end["path"]) > 10
    press(page, "d_P", "Train")
    end = ended(page)
    assert end["on"]["cP"] is False
    p = torch.tensor(end["p"], dtype=torch.float64).view(3, 3)
    assert end["q"] == pytest.approx(flat(method.product(p)), abs=1e-3)
    press(page, "All on")
    assert all(state(page)["on"].values())


def test_sliders_change_the_pictures(page, shown):
    opened(page, shown)
    for label, value in (("Batch of a permutation", 2), ("Loose parts", 1.0)):
        before = page.evaluate(PICTURE)
        move(page, label, value)
        assert page.evaluate(PICTURE) != before
    found = state(page)
    assert (found["batch"], found["tilt"]) == (2, 1.0)
    move(page, "Batch of a permutation", 1)
    assert state(page)["batch"] == 0
    assert "Z = " in page.locator(".note").inner_text()


def test_buttons_begin_anew(page, shown):
    opened(page, shown)
    first = state(page)["q"]
    press(page, "Parts alike")
    alike = torch.tensor(state(page)["q"], dtype=torch.float64).view(3, 3)
    p = torch.tensor(state(page)["p"], dtype=torch.float64).view(3, 3)
    torch.testing.assert_close(alike, method.product(p))
    press(page, "New start")
    assert state(page)["q"] != first


def test_a_phone_shows_all_of_it_and_letters_are_large_enough(page, shown):
    opened(page, shown)
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 390
    sizes = page.evaluate(
        """() => [...document.querySelectorAll('.play svg text')].map((t) =>
          parseFloat(getComputedStyle(t).fontSize)
          * t.ownerSVGElement.getBoundingClientRect().width
          / t.ownerSVGElement.viewBox.baseVal.width)"""
    )
    assert min(sizes) >= 11
