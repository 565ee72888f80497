"""Figures: read by ear, in the dark, in grey, and the same each time."""

import re
from itertools import combinations

import numpy as np
import pytest
from matplotlib import pyplot
from skimage.color import rgb2lab

from iclrtut import figures
from iclrtut.errors import BadRequest

MEANINGS = [
    figures.DATA,
    figures.MODEL,
    figures.BASELINE,
    figures.EXACT,
    figures.FAILURE,
]
# Machado, Oliveira and Fernandes (2009): what the three colour-blind eyes see.
EYES = {
    "all cones": np.eye(3),
    "no red": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no green": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "no blue": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def linear(colour):
    """The light of a hex colour, as sRGB defines it."""
    c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def contrast(a, b):
    """WCAG's contrast ratio."""
    dark, light = sorted(linear(c) @ [0.2126, 0.7152, 0.0722] for c in (a, b))
    return (light + 0.05) / (dark + 0.05)


def seen(colour, eye):
    light = np.clip(np.array(EYES[eye]) @ linear(colour), 0, 1)
    curve = np.where(
        light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055
    )
    return rgb2lab(curve[None, None])[0, 0]


@pytest.fixture
def shown(monkeypatch):
    """Pages that were displayed, with their plain texts."""
    pages = []
    monkeypatch.setattr(figures, "display", lambda page, text: pages.append(page))
    return pages


def example(shift=0.0):
    fig, axes = figures.figure()
    x = np.linspace(0, 6, 50)
    for i, colour in enumerate(MEANINGS):
        axes.plot(x, np.sin(x + i) + shift, **figures.LINE[colour], label=f"line {i}")
    axes.plot(x[::9], x[::9] / 6, **figures.POINTS[figures.DATA])
    axes.bar([1, 2], [0.5, 0.2], **figures.BARS[figures.BASELINE])
    axes.set(xlabel=r"step $\alpha$", ylabel="LSE", title="An example")
    axes.annotate("here", (1, 0), (2, 0.5), arrowprops={"arrowstyle": "->"})
    axes.legend()
    return fig


@pytest.mark.parametrize("colour", MEANINGS)
@pytest.mark.parametrize("page", ["#ffffff", "#121212", "#14181e"])
def test_a_colour_stands_out_on_light_and_dark(colour, page):
    assert contrast(colour, page) >= 3


@pytest.mark.parametrize("eye", EYES)
def test_colour_blind_eyes_tell_any_two_colours_apart(eye):
    for a, b in combinations(MEANINGS, 2):
        assert np.linalg.norm(seen(a, eye) - seen(b, eye)) > 25


def test_in_grey_a_dash_a_marker_and_a_hatch_say_the_same():
    for looks, key in (
        (figures.LINE, "linestyle"),
        (figures.POINTS, "marker"),
        (figures.BARS, "hatch"),
    ):
        assert set(looks) == set(MEANINGS)
        assert len({look[key] for look in looks.values()}) == len(MEANINGS)


def test_ink_is_the_page_s_and_nothing_is_black_or_painted_behind():
    text = figures.svg(example())
    assert text.startswith("<svg") and text.endswith("</svg>")
    assert "currentColor" in text and 'fill="currentColor"' in text
    assert not re.search(r"#000|black|#fff|white", text)
    fills = re.findall(r"<path[^>]*style=\"fill: ([^;\"]+)", text)
    assert set(fills[:2]) == {"none"}  # the figure's and the axes' background
    assert ">An example<" in text  # text stays text


def test_a_figure_is_the_same_each_time():
    assert figures.svg(example()) == figures.svg(example())
    assert "<dc:date>" not in figures.svg(example())


def test_ids_of_two_figures_on_a_page_differ_and_every_reference_is_met(shown):
    figures.show([example(), example()], alt="Twice the same.", caption="Two.")
    figures.show(example(0.1), alt="A third.", caption="One.")
    page = "".join(shown)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) > 3 and len(ids) == len(set(ids))
    assert set(re.findall(r"(?:url\(|href=\")#([^\")]+)", page)) == set(ids)


def test_a_figure_says_what_it_shows(shown):
    figures.show(example(), alt='Five "sines" & more', caption="They <cross>.")
    (page,) = shown
    assert 'role="img" aria-label="Five &quot;sines&quot; &amp; more"' in page
    assert "<figcaption>They &lt;cross&gt;.</figcaption>" in page
    assert page.count("<svg") == page.count('aria-hidden="true"') == 1


def test_where_there_is_no_html_the_alt_text_is_printed(capsys):
    figures.show(example(), alt="Five sines.", caption="They cross.")
    assert capsys.readouterr().out == "Five sines.\n"


@pytest.mark.parametrize("texts", [("", "Caption."), (" ", "Caption."), ("Alt.", "")])
def test_an_empty_text_is_refused(texts, shown):
    with pytest.raises(BadRequest, match="is empty"):
        figures.show(example(), alt=texts[0], caption=texts[1])
    assert not shown


def test_a_figure_too_wide_for_a_phone_is_refused():
    fig, _ = figures.figure(width=9)
    with pytest.raises(BadRequest, match="9 inches wide"):
        figures.svg(fig)


def test_text_is_eleven_pixels_on_a_phone():
    column = 390 - 2 * 16 - 16  # the site's margins, and the output's
    text = figures.svg(example())
    sizes = [float(v) for v in re.findall(r"font(?:-size)?: ([\d.]+)px", text)]
    box = float(re.search(r'viewBox="0 0 ([\d.]+)', text)[1])
    assert min(sizes) * column / box >= 11


def test_a_cloud_becomes_a_picture_and_a_few_points_do_not():
    def cloud(count):
        fig, axes = figures.figure()
        axes.scatter(*np.random.default_rng(0).normal(size=(2, count)))
        return figures.svg(fig)

    assert "<image" in cloud(3000) and len(cloud(3000)) < 200_000
    assert "<image" not in cloud(100)
    fig, axes = figures.figure()
    axes.plot(np.arange(5000))
    axes.pcolormesh(np.zeros((60, 60)))
    assert figures.svg(fig).count("<image") == 2


def test_tiny_pictures_stay_crisp():
    fig, axes = figures.figure()
    axes.imshow(np.eye(8))
    text = figures.svg(fig)
    assert "pixelated" in text and len(text) < 20_000


def test_a_figure_of_pyplot_is_closed_after_showing(shown):
    fig, _ = pyplot.subplots(figsize=(4, 3))
    figures.show(fig, alt="Empty axes.", caption="Nothing.")
    assert not pyplot.fignum_exists(fig.number)
    pyplot.close("all")
