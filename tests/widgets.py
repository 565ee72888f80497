"""What the tests of the chapters' figures share: a phone, a page, a reader's moves.

A test file takes the fixtures by name: `page, made = widgets.page, widgets.made`.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from conftest import PATIENCE
from torch import nn

from iclrtut import figures

TEXTS = {"alt": "A figure to play with.", "caption": "Move a slider."}
MOVE = "(e, v) => { e.value = v; e.dispatchEvent(new Event('input')); }"
HOOK = "document.querySelector('.play').iclrtut"
# What a picture shows, without the sliders that moved it.
PICTURE = """() => {
    const copy = document.querySelector('.play').cloneNode(true);
    copy.querySelectorAll('.control, [role=status]').forEach((node) => node.remove());
    return copy.innerHTML;
}"""


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A phone without a network; its errors and foreign requests fail the test."""
    context = browser.new_context(
        offline=True, viewport={"width": 390, "height": 800}, has_touch=True
    )
    context.set_default_timeout(PATIENCE)
    page, troubles = context.new_page(), []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda message: troubles.append(message.text))
    page.on("requestfailed", lambda request: troubles.append(request.url))
    yield page
    assert not troubles
    context.close()


@pytest.fixture
def made(monkeypatch: Any) -> list[str]:
    """The figures that were displayed, one a string of HTML."""
    pages: list[str] = []
    monkeypatch.setattr(figures, "display", lambda page, text: pages.append(page))
    return pages


def document(body: str, theme: str = "light") -> str:
    """A page of the book's colours around a figure."""
    colour = {"light": ("#222832", "#fff"), "dark": ("#ced6dd", "#121212")}[theme]
    return (
        f'<!doctype html><html lang="en" data-theme="{theme}"><head>'
        '<title>A page</title><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<style>body {{ color: {colour[0]}; background: {colour[1]}; }}</style>"
        f"</head><body>{body}</body></html>"
    )


def drawn(net: nn.Module, generator: torch.Generator) -> nn.Module:
    """Weights from the generator, rounded to what the page gets, then in float64."""
    with torch.no_grad():
        for p in net.parameters():
            noise = torch.randn(p.shape, generator=generator)
            p.copy_(1.5 * noise / p[0].numel() ** 0.5)
    return net.double()


def move(page: Any, label: str, value: float) -> None:
    """Move the slider of this label."""
    page.get_by_role("slider", name=label).evaluate(MOVE, value)
