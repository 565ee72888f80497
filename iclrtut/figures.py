"""One look for every figure of the book, in light and dark, on paper and by ear.

A colour has one meaning from the first chapter to the last; a marker, a dash and a
hatch say the same without colour. Whatever is drawn in black is ink: `show` turns it
into the colour of the page's own text.
"""

import hashlib
import html
import io
import re
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

from iclrtut.errors import BadRequest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DATA, MODEL, BASELINE = "#4161e0", "#df7608", "#917296"
EXACT, FAILURE = "#17a86f", "#ce0932"
INK = "#000000"

_DASHES: dict[str, Any] = {
    DATA: (0, (1, 1.5)),
    MODEL: "-",
    BASELINE: (0, (5, 2)),
    EXACT: (0, (6, 2, 1, 2)),
    FAILURE: (0, (3, 1, 1, 1, 1, 1)),
}
_MARKERS = {DATA: "o", MODEL: "s", BASELINE: "^", EXACT: "D", FAILURE: "X"}
_HATCHES = {DATA: "\\\\", MODEL: "", BASELINE: "//", EXACT: "--", FAILURE: "xx"}

# Keyword arguments that draw a meaning: ax.plot(x, y, **LINE[MODEL]).
LINE = {c: {"color": c, "linestyle": dash} for c, dash in _DASHES.items()}
POINTS = {c: {"color": c, "marker": m, "linestyle": ""} for c, m in _MARKERS.items()}
BARS = {c: {"facecolor": c, "edgecolor": INK, "hatch": h} for c, h in _HATCHES.items()}

WIDTH = 6.0  # inches; wider would be under 11 px of text on a phone of 390 px
_SCALE = 1.2  # CSS pixels a point at full size: text of 14 pt reads as 17 px
_HEAVY = 1000  # points above which an artist becomes a picture inside the SVG


def style() -> None:
    """Set the book's style in matplotlib's rcParams. `figure` calls it for you."""
    import matplotlib.style
    from cycler import cycler

    dashes = cycler(color=list(_DASHES)) + cycler(linestyle=list(_DASHES.values()))
    sheet = str(resources.files("iclrtut").joinpath("figures.mplstyle"))
    matplotlib.style.use([sheet, {"axes.prop_cycle": dashes}])


def figure(
    rows: int = 1,
    columns: int = 1,
    *,
    width: float = WIDTH,
    height: float = 3.6,
    **subplots: Any,
) -> tuple["Figure", Any]:
    """A figure in the book's style and its axes, one or an array of them.

    Args:
        rows, columns: a grid inside one figure: right for small pictures. Panels
            with axes of their own are better as several figures, `show([a, b])`.
        width, height: inches; a figure at most 6 wide stays readable on a phone,
            two panels of 3.6 stand side by side on a page and stack on a phone.
        subplots: passed to `matplotlib.figure.Figure.subplots`.
    """
    from matplotlib.figure import Figure

    style()
    fig = Figure(figsize=(width, height), layout="constrained")
    return fig, fig.subplots(rows, columns, **subplots)


def show(fig: "Figure | Sequence[Figure]", *, alt: str, caption: str) -> None:
    """Display one figure, or several that stack on a phone, and close them.

    Args:
        fig: a matplotlib figure, or a sequence of them.
        alt: what a reader who cannot see the figure needs to know.
        caption: what to see in it.

    Raises:
        BadRequest: alt or caption is empty, or a figure is wider than 6 inches.
    """
    if not caption.strip():
        raise BadRequest("caption is empty: say in a sentence what to see in it.")
    body = f"{panels(fig, alt)}<figcaption>{html.escape(caption)}</figcaption>"
    display(f'{css("figures.css")}<figure class="iclrtut">{body}</figure>', alt)


def panels(
    fig: "Figure | Sequence[Figure]",
    alt: str,
    heavy: int = _HEAVY,
    attributes: str = "",
) -> str:
    """The HTML of figures side by side, read out as `alt`; closes the figures."""
    from matplotlib import pyplot

    if not alt.strip():
        raise BadRequest("alt is empty: say what the figure shows to who cannot see.")
    figs = list(fig) if isinstance(fig, Sequence) else [fig]
    body = "".join(svg(each, heavy, str(i)) for i, each in enumerate(figs))
    for each in figs:
        pyplot.close(each)
    label = html.escape(alt)
    return (
        f'<div class="panels" role="img" aria-label="{label}"{attributes}>{body}</div>'
    )


def svg(fig: "Figure", heavy: int = _HEAVY, salt: str = "") -> str:
    """A figure as an SVG element: no fixed ink, no background, ids of its own.

    The same figure gives the same text, byte for byte. An artist of more than
    `heavy` points is embedded as a PNG picture, so it should not be drawn in ink.

    Raises:
        BadRequest: the figure is wider than 6 inches.
    """
    import matplotlib

    width = fig.get_figwidth()
    if width > WIDTH + 1e-9:
        raise BadRequest(
            f"The figure is {width:g} inches wide and unreadable on a phone: make it "
            f"at most {WIDTH:g}, or show a list of smaller figures."
        )
    for axes in fig.axes:
        for artist in [*axes.lines, *axes.collections]:
            artist.set_rasterized(_points(artist) > heavy)
    text = io.StringIO()
    settings: dict[Any, Any] = {"svg.hashsalt": "iclrtut", "svg.fonttype": "none"}
    with matplotlib.rc_context(settings):
        fig.savefig(text, format="svg", dpi=144, metadata={"Date": None})
    return _inline(text.getvalue(), width * 72 * _SCALE, salt)


def css(name: str) -> str:
    """A style sheet of the package as an element, so that each output stands alone."""
    text = resources.files("iclrtut").joinpath(name).read_text("utf-8")
    return f"<style>{text}</style>"


def display(page: str, text: str) -> None:
    """Display HTML, with a plain text where there is none."""
    from IPython.display import display as show_object

    show_object(_Output(page, text))  # type: ignore[no-untyped-call]


class _Output:
    def __init__(self, page: str, text: str):
        self.page, self.text = page, text

    def _repr_html_(self) -> str:
        return self.page

    def __repr__(self) -> str:
        return self.text


def _points(artist: Any) -> int:
    """How many points a line or a collection draws."""
    if hasattr(artist, "get_xdata"):
        return len(artist.get_xdata())
    values = artist.get_array()
    outlines = sum(len(path.vertices) for path in artist.get_paths())
    return max(
        len(artist.get_offsets()), outlines, 0 if values is None else values.size
    )


def _inline(text: str, width: float, salt: str) -> str:
    """Make matplotlib's SVG file an element that takes its ink from the page."""
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.S)
    text = re.sub(r"\n\s*", " ", text)
    text = re.sub(r"('[\w ]+', )+sans-serif", "system-ui, sans-serif", text)
    text = text.replace(INK, "currentColor")
    used = set(re.findall(r"#([\w.-]+)[\")]", text))
    prefix = "f" + hashlib.sha256((salt + text).encode()).hexdigest()[:8]
    text = re.sub(
        r' id="([\w.-]+)"',
        lambda m: f' id="{prefix}-{m[1]}"' if m[1] in used else "",
        text,
    )
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", text)
    box = re.search(r'viewBox="[^"]*"', text)
    assert box
    size = f"width:{width:.0f}px;min-width:min(100%,{width * 0.66:.0f}px)"
    head = (
        f'<svg {box[0]} style="{size}" fill="currentColor" stroke-linejoin="round" '
        'aria-hidden="true" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return head + text[text.index(">") + 1 :]
