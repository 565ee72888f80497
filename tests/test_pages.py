"""Pages under the strict policy, and every figure driven by a reader's hand.

The policy, axe, the console, weights and first pictures are judged page by page in
`test_site.py`; words and citations in `test_prose.py`.
"""

import re

import driving
import pytest
import strict
from conftest import STILL, TREE, open_tab, tool
from driving import PHONE

PAGES = tool("site").contents()
NOTEBOOKS = [page for page in PAGES if page.startswith("notebooks/")]


def tightened(page):
    """A page made strict, and the texts that were kept beside it, by address."""
    kept = {}

    def keep(text, ending):
        address = f"{strict.digest(text)}.{ending}"
        kept[address] = text
        return address

    return strict.tighten(page, keep), kept


def test_a_script_becomes_a_file_at_its_place():
    page, kept = tightened(
        "<p>a</p><script id='one'>say('<p style=\"x\">')</script><p>"
    )
    (address,) = kept
    assert page == f"<p>a</p><script id='one' src=\"{address}\"></script><p>"
    assert kept[address] == "say('<p style=\"x\">')"


@pytest.mark.parametrize(
    "page",
    [
        '<script type="application/json">{"style": 1}</script>',
        '<script defer src="a.js"></script>',
        '<!-- <script>a</script> <p style="b"> -->',
        '<p title=\'one style="b"\' data-style="c">style="d"</p>',
    ],
)
def test_what_is_not_inline_stays(page):
    assert tightened(page) == (page, {})


def test_a_style_element_becomes_one_sheet_in_the_head():
    page, kept = tightened(
        "<head></head><style>a {}</style><p><style>a {}</style><style media='print'>b"
        "</style>"
    )
    assert list(kept.values()) == ["a {}", "b"]
    one, other = kept
    links = re.findall(r"<link [^>]*>", page.split("</head>")[0])
    assert links == [
        f'<link rel="stylesheet" href="{one}"/>',
        f'<link rel="stylesheet" media=\'print\' href="{other}"/>',
    ]
    assert "style>" not in page


def test_a_style_attribute_becomes_a_class_with_a_rule():
    page, kept = tightened(
        '<head></head><p class="a b" id=c style="font: 1em \'X y\'">'
        "<path style='fill: &quot;z&quot;'/><i style=\"font: 1em 'X y'\" hidden>"
    )
    (sheet,) = kept.values()
    names = re.findall(r"\.([\w-]+):not\(#_\) \{ (.*) \}", sheet)
    (one, first), (other, second) = names
    assert (first, second) == ("font: 1em 'X y'", 'fill: "z"')
    assert f'<p class="a b {one}" id=c>' in page
    assert f'<path class="{other}"/>' in page
    assert f'<i class="{one}" hidden>' in page


def test_the_theme_is_quiet_and_others_are_heard():
    said = "a&&console.log(`[PST]: dark`),console.log('b')"
    assert strict.quiet(said) == "a&&void(`[PST]: dark`),console.log('b')"


@pytest.mark.parametrize("name", [*PAGES, "search"])
def test_a_page_holds_nothing_inline(built, name):
    page = (built / f"{name}.html").read_text("utf-8")
    assert tightened(page) == (page, {})
    tags = [found[0] for found in strict.TAG.finditer(page)]
    given = [key for tag in tags for key in strict.attributes(tag)]
    assert [key for key in given if key.startswith("on")] == []
    assert "javascript:" not in page


def test_pages_share_what_is_the_same(built):
    texts = [
        file.read_bytes()
        for file in (built / strict.FOLDER).iterdir()
        if file.is_file()
    ]
    assert len(set(texts)) == len(texts) > 0


def test_the_table_has_a_line_a_page_and_the_heaviest_first():
    light = {"weight": 1024, "requests": 1, "first_picture": None}
    heavy = {"weight": 2048, "requests": 2, "first_picture": 1234.5}
    text = tool("page_weights").table({"light": light, "heavy": heavy})
    head, *lines = text.split("\n")
    assert head.split() == ["page", "KiB", "files", "first", "picture"]
    assert lines[0].split() == ["heavy", "2", "2", "1,234", "ms"]
    assert lines[1].split() == ["light", "1", "1", "no", "picture"]


# Figures in a reader's hand

# What is too small for a finger, and the smallest letter of a drawing.
SIZES = """() => {
  const scale = ({ a, b }) => Math.hypot(a, b);  // turned letters too
  const parts = "button, input[type=range], select, audio, .thumbs label";
  const low = [...document.querySelectorAll(".iclrtut")].flatMap((figure) =>
    [...figure.querySelectorAll(parts)].filter((node) => !node.closest("figcaption")
      && node.getClientRects().length && Math.min(node.offsetWidth, node.offsetHeight)
      < 40)).map((node) => node.outerHTML.slice(0, 120));
  const letters = [...document.querySelectorAll(".iclrtut .play svg text")]
    .filter((node) => node.getClientRects().length && !node.closest(".panels"))
    .map((node) =>
      parseFloat(getComputedStyle(node).fontSize) * scale(node.getScreenCTM()));
  return { low, letters };
}"""
# What a figure has beyond the window, where it cannot be scrolled.
BEYOND = """() => [...document.querySelectorAll(".iclrtut, .iclrtut *")]
  .filter((node) => node.getClientRects().length
    && !node.closest("svg *, .unseen, .panels, table, pre")
    && node.getBoundingClientRect().right > innerWidth + 1)
  .map((node) => node.outerHTML.slice(0, 120))"""
AXE = """() => axe.run({include: [[".iclrtut .play"]]}, {
  resultTypes: ["violations"], preload: false, rules: {region: {enabled: false}},
}).then((found) => found.violations.flatMap((rule) => rule.nodes.map(
  (node) => rule.id + ": " + node.html.slice(0, 120))))"""
FAULTS = ("covered", "still", "pictureless", "silent", "said", "low", "beyond", "axe")


@pytest.fixture(scope="session")
def driver():
    return driving.Driver()


@pytest.fixture(scope="session")
def drives(site, browser, driver):
    """Every chapter's figures, driven on a phone, and what they look like then."""
    return {name: drive(f"{site}/{name}.html", browser, driver) for name in NOTEBOOKS}


def drive(url, browser, driver):
    """What one chapter's figures did; what the page then said and broke."""
    tab = open_tab(browser, **PHONE)
    page = tab.page
    page.goto(url)
    page.evaluate("() => document.fonts.ready")
    found = driver.drive(page)
    found["said"] = tab.errors + tab.foreign + page.evaluate("refused")
    found |= page.evaluate(SIZES) | {"beyond": []}
    for width in (340, 390, 1280):
        page.set_viewport_size({"width": width, "height": 844})
        found["beyond"] += page.evaluate(BEYOND)
    page.evaluate((TREE / "tests" / "vendor" / "axe.min.js").read_text("utf-8"))
    page.evaluate(STILL)
    # In the light, `test_site.py` holds the whole page against the same rules.
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    found["axe"] = page.evaluate(AXE)
    page.context.close()
    return found


@pytest.mark.parametrize("name", NOTEBOOKS)
@pytest.mark.parametrize("fault", FAULTS)
def test_no_figure_is(drives, name, fault):
    """Under something else, unmoved, moved without a picture or a word, and so on."""
    found = drives[name][fault]
    # A volume moves the sound alone: the chapter's own tests listen to it.
    assert [what for what in found if " Volume" not in what] == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_letters_of_a_figure_can_be_read_on_a_phone(drives, name):
    assert min(drives[name]["letters"], default=11) >= 11


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_figure_that_plays_was_driven(drives, built, name):
    page = (built / f"{name}.html").read_text("utf-8")
    figures = set(re.findall(r'data-play="(\w+)"', page))
    driven = {what.split()[1] for what in drives[name]["driven"]}
    assert figures and driven == figures


def test_every_kind_of_control_met_mouse_keyboard_and_touch(drives, driver):
    for kind in ("range", "button", "radio"):
        assert set(driver.met[kind]) == set(driving.MEANS)
    drawn = {*driver.met["svg"], *driver.met.get("canvas", [])}
    assert {"mouse", "touch"} <= drawn


# What is cut on a phone: wider than its place and not marked as a box that scrolls; and
# what the tabulator key stops at although it does not scroll.
CUT = """() => [...document.querySelectorAll(
    ".bd-article :is(div.math, pre, .scroll, .pst-scrollable-table-container)")]
  .filter((box) => box.getClientRects().length)
  .filter((box) => {
    const wide = box.scrollWidth > box.clientWidth + 1;
    const marked = box.tabIndex === 0 && box.ariaLabel && "more" in box.dataset;
    return wide ? !marked : box.tabIndex === 0 && !box.matches(".scroll");
  }).map((box) => box.id || box.textContent.slice(0, 60))"""
CLAIMS = """() => [...document.querySelectorAll("table.claims")]
  .filter((table) => table.scrollWidth > innerWidth).length"""


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_nothing_is_cut_on_a_phone(site, browser, name):
    page = open_tab(browser, **PHONE).page
    page.goto(f"{site}/{name}.html")
    page.wait_for_timeout(500)
    assert page.evaluate(CUT) == []
    assert page.evaluate(CLAIMS) == 0
    equations = page.locator(".bd-article div.math")
    assert page.locator("div.math[data-more]").count() <= 0.1 * equations.count()
    page.context.close()
