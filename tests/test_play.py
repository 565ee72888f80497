"""Interactive figures: what is written into the page, and what any page makes of it."""

import base64
import json
import re

import numpy as np
import pytest
import torch
import widgets
from torch import nn
from widgets import MOVE, TEXTS, document

from iclrtut import figures, play
from iclrtut.errors import BadRequest

SLUG = "energy_based_classifier"
page = widgets.page


@pytest.fixture
def shown(monkeypatch):
    pages = []
    monkeypatch.setattr(figures, "display", lambda page, text: pages.append(page))
    return pages


def wave(value, points=50):
    fig, axes = figures.figure()
    x = np.linspace(0, 6, points)
    axes.plot(x, np.sin(value * x), **figures.LINE[figures.MODEL])
    return fig


def frames(values=(0.5, 1, 2), draw=wave, **changes):
    texts = {"label": "Frequency", "alt": "A wave.", "caption": "It gets faster."}
    play.frames(draw, values, **{**texts, **changes})


def test_a_frame_a_value_and_the_first_is_the_one_without_scripts(shown):
    frames(alt=lambda value: f"A wave of frequency {value}.", format="{:.1f} Hz")
    (page,) = shown
    heads = re.findall(r'<div class="panels"[^>]*>', page)
    assert len(heads) == page.count("<svg") == 3
    assert [" hidden" in head for head in heads] == [False, True, True]
    for head, value in zip(heads, ("0.5", "1", "2"), strict=True):
        assert f'aria-label="A wave of frequency {value}."' in head
        assert f'data-value="{float(value):.1f} Hz"' in head
    assert 'type="range" min="0" max="2" step="1" value="0"' in page
    assert '<output aria-live="polite">0.5 Hz</output>' in page
    assert "<noscript><p>" in page and "<figcaption>It gets faster." in page


def test_a_frame_of_several_figures(shown):
    frames(draw=lambda value: [wave(value), wave(-value)])
    assert shown[0].count("<svg") == 6


@pytest.mark.parametrize("text", ["label", "alt", "caption"])
def test_frames_need_their_texts(text, shown):
    with pytest.raises(BadRequest, match=f"{text} is empty"):
        frames(**{text: " "})
    assert not shown


def test_one_frame_is_no_slider(shown):
    with pytest.raises(BadRequest, match=r"got 1 value"):
        frames(values=[1])


def test_a_heavy_frame_is_drawn_as_a_picture_or_refused(shown):
    def cloud(value, colours=figures.DATA):
        fig, axes = figures.figure()
        axes.scatter(*np.random.default_rng(0).normal(size=(2, int(value))), c=colours)
        return fig

    frames(values=[10, 900], draw=cloud)
    assert "<image" in shown[0]
    assert max(map(len, shown[0].split('<div class="panels"'))) < play.FRAME_BYTES
    with pytest.raises(BadRequest, match=r"Frequency = 9000 weighs .* fewer points"):
        frames(
            values=[10, 9000],
            draw=lambda value: cloud(
                value, np.random.default_rng(1).random((value, 3))
            ),
        )


def numbers(text):
    return np.frombuffer(base64.b64decode(text), "<f4")


def test_weights_make_the_round_trip():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=(1, 0)),
        nn.ReLU(),
        nn.Conv2d(3, 4, 1, bias=False),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
    )
    layers = json.loads(json.dumps(play.export(model)))["layers"]
    names = ["conv", "relu", "conv", "silu", "mean", "flatten", "linear"]
    assert [layer["type"] for layer in layers] == names
    assert layers[0]["stride"] == [2, 1] and layers[0]["padding"] == [1, 0]
    for i in (0, 2, 6):
        assert layers[i]["shape"] == list(model[i].weight.shape)
        weight = numbers(layers[i]["weight"]).reshape(layers[i]["shape"])
        assert np.array_equal(weight, model[i].weight.detach().numpy())
    assert np.array_equal(numbers(layers[6]["bias"]), model[6].bias.detach().numpy())
    assert np.array_equal(numbers(layers[2]["bias"]), np.zeros(4))


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm2d(1),
        nn.GELU(),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(0),
        nn.Conv2d(2, 2, 3, groups=2),
        nn.Conv2d(1, 1, 3, dilation=2),
        nn.Conv2d(1, 1, 3, padding="same"),
        nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"),
    ],
)
def test_another_layer_is_refused_by_name(layer):
    with pytest.raises(BadRequest, match=rf"{type(layer).__name__}.*\(layer 1\)"):
        play.export(nn.Sequential(nn.ReLU(), layer))


def test_a_model_that_is_no_sequence_is_refused():
    with pytest.raises(BadRequest, match="not Linear"):
        play.export(nn.Linear(1, 1))


def test_a_widget_carries_its_script_and_its_payload(shown):
    payload = {"mode": "idea", "labels": ["</script>", "<!--", "ü"]}
    play.widget(SLUG, payload, alt="Three logits.", caption="Lift them.")
    (page,) = shown
    assert page.count("</script>") == 1 and "<!--" not in page
    data = re.search(r"^const payload = (.*);$", page, flags=re.M)[1]
    assert json.loads(data) == payload
    assert 'role="group" aria-label="Three logits."' in page
    assert "<noscript>" in page and "<figcaption>Lift them." in page


def test_a_script_gets_the_shared_ones_that_it_uses(shown):
    texts = {"alt": "A text.", "caption": "Read it."}
    play.run_script("// uses audio.js\nplayers();", {"fs": 8000}, **texts)
    play.run_script("// audio.js is not used\nroot.append('text');", {}, **texts)
    used, not_used = shown
    places = [used.index(text) for text in ("function slider(", "function players(")]
    assert places == sorted(places) and used.index("const payload") > places[1]
    assert "function slider(" in not_used and "function players(" not in not_used


def test_a_widget_asks_nothing_of_the_network(shown):
    play.widget(SLUG, {"mode": "sampler"}, alt="A bowl.", caption="Jump.")
    text = shown[0].replace("http://www.w3.org/2000/svg", "")
    assert not re.search(
        r"https?:|//[a-z]+\.|fetch\(|import\(|@import|url\(['\"]?h", text
    )


@pytest.mark.parametrize(
    ("slug", "payload", "texts", "message"),
    [
        (
            "no_such_chapter",
            {},
            ("a", "c"),
            r"no iclrtut/chapters/no_such_chapter/widget\.js",
        ),
        (SLUG, {"x": float("nan")}, ("a", "c"), "cannot be written as JSON"),
        (SLUG, {"x": torch.zeros(1)}, ("a", "c"), "cannot be written as JSON"),
        (SLUG, {}, ("", "c"), "alt is empty"),
        (SLUG, {}, ("a", " "), "caption is empty"),
    ],
)
def test_a_bad_widget_is_refused(slug, payload, texts, message, shown):
    with pytest.raises(BadRequest, match=message):
        play.widget(slug, payload, alt=texts[0], caption=texts[1])
    assert not shown


def test_colours_of_widgets_are_those_of_figures(shown):
    play.widget(SLUG, {"mode": "idea"}, alt="Three logits.", caption="Lift them.")
    for name in ("DATA", "MODEL", "BASELINE", "EXACT", "FAILURE"):
        assert f"--{name.lower()}:{getattr(figures, name)}" in shown[0]


# ---- In a browser ----


def idea(shown):
    """A small widget with four sliders."""
    play.widget(SLUG, {"mode": "idea"}, **TEXTS)
    return shown[-1]


def test_the_frames_slider_by_keyboard(page, shown):
    frames()
    page.set_content(document(shown[-1]))
    slider = page.get_by_role("slider", name="Frequency")
    slider.focus()
    page.keyboard.press("ArrowRight")
    visible = page.locator(".panels:visible")
    assert visible.count() == 1 and visible.get_attribute("data-value") == "1"
    assert page.locator("output").inner_text() == "1"
    assert slider.get_attribute("aria-valuetext") == "1"
    page.emulate_media(media="print")
    assert visible.count() == 1 and visible.get_attribute("data-value") == "0.5"


def test_twins_on_a_page_live_apart(page, shown):
    html = idea(shown)
    page.set_content(document(html + html))
    page.get_by_role("slider", name="Lift all three").nth(1).evaluate(MOVE, 1)
    levels = page.locator(".play").evaluate_all("all => all.map(e => e.iclrtut.lse())")
    assert levels[1] == pytest.approx(levels[0] + 1)


def test_it_starts_when_a_notebook_inserts_it_later(page, shown):
    page.set_content(document("<div id=output></div>"))
    page.evaluate(
        """html => {
            const output = document.createElement('div');
            output.innerHTML = html;
            for (const old of output.querySelectorAll('script')) {
                const script = document.createElement('script');
                script.textContent = old.textContent;
                old.replaceWith(script);
            }
            document.querySelector('#output').append(output);
        }""",
        idea(shown),
    )
    assert page.get_by_role("slider").count() == 4


def test_without_scripts_the_first_frame_stands(browser, shown):
    frames()
    html = shown[-1] + idea(shown)
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.set_content(document(html))
    assert page.locator(".panels:visible").count() == 1
    assert page.locator("noscript").count() == 2  # headless browsers do not draw it
    context.close()
