"""The reader's comforts, used as a reader uses them, with the network off."""

import functools
import io
import json
import re
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

import cite
import glossary
import pytest
import yaml
from bs4 import BeautifulSoup
from conftest import STILL, TREE, open_tab, tool
from PIL import Image
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

PAGES = tool("site").contents()
CHAPTERS = [page for page in PAGES if page.startswith("notebooks/")]
CHAPTER = "notebooks/provable_uncertainty"
AXE = TREE / "tests" / "vendor" / "axe.min.js"
VIOLATIONS = """() => axe.run(document, {
  rules: {region: {enabled: false}}, resultTypes: ["violations"],
}).then((found) => found.violations.flatMap((rule) => rule.nodes.map(
  (node) => rule.id + ": " + node.html.slice(0, 160))))"""
PASTE = "() => navigator.clipboard.readText()"


# The words, on a tiny book

NOTATION = r"""# Notation

## Networks

| symbol | meaning | first met |
|---|---|---|
| $f(x)$ | the *logit* of a class, in nats | everywhere |
| $x$ | an input | everywhere |
| $X$ | many of them | everywhere |

## Sounds

Of [*Sounds*](../sounds.md).

| symbol or word | meaning | first met |
|---|---|---|
| $h$ | samples between frames, the *hop* | [(1)](../sounds.md) |
| change, selection | a *change* is new | [(1)](../sounds.md) |
| spectral loss | what $L$ measures | [(1)](../sounds.md) |
| seed | our own seed | [(1)](../sounds.md) |

## Pictures

Of [*Pictures*](../pictures.md).

| symbol or word | meaning | first met |
|---|---|---|
| pixel | a point | everywhere |

## Measuring

| symbol or word | meaning | first met |
|---|---|---|
| seed | the number that fixes a run | everywhere |
| ECE | a gap | everywhere |

## Colours and marks

| meaning | in figures |
|---|---|
| data | blue |
"""
SOUNDS = r"""# Sounds of a hop

A hop first. A change of data and a pixel are not explained here, nor is a multi-hop.

## One hop

**Hop.** The `hop` and [a hop](pictures.md) and $hop$ and *The hop that was*. Two
Hops follow, and a hop again. The *logit* and the spectral
loss.

| a hop | seed |
|---|---|
| a hop | a seed |

### Deeper

A hop here is the same section's. Its seeds differ; the ece does not.

## Another

A hop once more.
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A book of a notation page and two chapters: each page's soup, and warnings."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "book").mkdir()
    index = "# Book\n\nA hop.\n\n```{toctree}\nsounds\npictures\nbook/notation\n```"
    for name, text in {
        "book/notation": NOTATION,
        "sounds": SOUNDS,
        "pictures": "# Pictures\n\nA pixel, a hop, a seed.",
        "index": index,
    }.items():
        (folder / f"{name}.md").write_text(text, "utf-8")
    warnings = io.StringIO()
    config = {
        "extensions": ["myst_nb", "portable", "glossary"],
        "myst_enable_extensions": ["dollarmath"],
        "nb_execution_mode": "off",
        "html_theme": "basic",
    }
    with docutils_namespace():
        app = Sphinx(
            folder, None, folder / "out", folder / "trees", "html",
            confoverrides=config, status=None, warning=warnings,
        )  # fmt: skip
        app.build()
    names = ("book/notation", "sounds", "pictures", "index")
    soups = {
        name: BeautifulSoup(
            (folder / "out" / f"{name}.html").read_text("utf-8"), "html.parser"
        )
        for name in names
    }
    return soups | {"warnings": warnings.getvalue()}


def linked(page):
    return [" ".join(link.text.split()) for link in page.select("a.word")]


def test_a_word_is_marked_once_a_section(small):
    assert small["warnings"] == ""
    first = ["hop"]
    one = ["Hops", "logit", "spectral loss", "seeds", "ece"]
    assert linked(small["sounds"]) == [*first, *one, "hop"]


def test_a_page_has_its_own_words_and_everybodys(small):
    assert linked(small["pictures"]) == ["pixel", "seed"]
    assert linked(small["index"]) == []


def test_a_chapters_own_word_wins(small):
    to = {
        name: [a["href"] for a in small[name].select("a.word") if "seed" in a.text]
        for name in ("sounds", "pictures")
    }
    assert to == {
        "sounds": ["book/notation.html#sounds-seed"],
        "pictures": ["book/notation.html#measuring-seed"],
    }


def test_a_word_leads_to_its_row_and_has_its_meaning(small):
    for link in small["sounds"].select("a.word"):
        id = link["href"].partition("#")[2]
        row = small["book/notation"].find("tr", id=id)
        card = small["sounds"].find(id=f"meaning-{id}")
        symbol, meaning = row.select("td")[:2]
        assert card.text.strip() == f"{symbol.text}: {meaning.text}"
        assert len(card.select(".math")) == len(row.select(".math"))


def test_every_row_of_symbols_has_an_anchor_of_its_own(small):
    tables = small["book/notation"].select("table")
    ids = [row.get("id") for table in tables[:-1] for row in table.select("tbody tr")]
    assert None not in ids and len(ids) == len(set(ids)) == 10
    assert not tables[-1].select("tr[id]")


@pytest.mark.parametrize("word", sorted(glossary.COMMON))
def test_everyday_words_are_not_explained(word):
    from docutils import nodes

    meaning = [nodes.emphasis("", word), nodes.Text(" and "), nodes.emphasis("", "hop")]
    assert glossary.explained([nodes.Text(word)], meaning) == ["hop"]


# Citations


def test_a_citation_is_made_of_what_the_file_says():
    cff = {
        "title": "A book & more",
        "authors": [
            {"name": "Some people"},
            {"given-names": "Ada", "family-names": "B"},
        ],
        "version": "1.2",
        "date-released": "2031-05-06",
        "repository-code": "https://x.org/a_b",
    }
    assert cite.sentence(cff) == (
        "Some people, Ada B (2031). A book & more, version 1.2. https://x.org/a_b"
    )
    assert cite.sentence(cff, "Ch", "u").startswith(
        "Some people, Ada B (2031). Ch. In A book & more, version 1.2. u"
    )
    fields = entry(cite.bibtex(cff, "50 % of #1", "https://x.org/a_b/c", "ch_1"))
    assert fields["title"] == r"50 \% of \#1"
    assert fields["note"] == r"In: A book \& more, version 1.2"
    assert fields["howpublished"] == r"\url{https://x.org/a_b/c}"
    assert cite.plain("A &amp; <em>b</em>") == "A & b"


def entry(text):
    """The fields of a BibTeX text's one entry, as a well-known parser reads them."""
    import pybtex.database

    (only,) = pybtex.database.parse_string(text, "bibtex").entries.values()
    return dict(only.fields) | {"author": "; ".join(map(str, only.persons["author"]))}


@functools.cache
def soup(built, name):
    return BeautifulSoup((built / f"{name}.html").read_text("utf-8"), "html.parser")


@pytest.mark.parametrize("name", PAGES)
def test_every_page_says_how_to_cite_it(built, name):
    page = soup(built, name)
    said = page.select_one("details.cite")
    sentence, bibtex = (block.text for block in said.select("pre"))
    cff = yaml.safe_load((TREE / "CITATION.cff").read_text("utf-8"))
    fields = entry(bibtex)
    assert cff["authors"][0]["name"] in fields["author"]
    assert fields["year"] == str(cff["date-released"])[:4]
    for part in (cff["title"], cff["version"], cff["authors"][0]["name"]):
        assert part in sentence
    if name == PAGES[0]:
        assert fields["title"] == cff["title"]
        return
    heading = page.select_one("article h1")
    heading.select_one(".headerlink").extract()
    assert fields["title"] == heading.text
    where = urlsplit(fields["howpublished"].removeprefix(r"\url{").rstrip("}"))
    repository = urlsplit(cff["repository-code"])
    assert where.netloc == repository.netloc
    file = where.path.removeprefix(f"{repository.path}/blob/main/")
    assert (TREE / file).is_file() and file.startswith(name)


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_cites_its_paper(built, name):
    from iclrtut import claims

    (chapter,) = (c for c in claims.chapters() if name.endswith(c.slug))
    link = soup(built, name).select_one("details.cite p a")
    assert link.text == chapter.paper
    shown = soup(built, "book/cite").find(id=link["href"].partition("#")[2])
    assert shown.find_next("a", href=chapter.url)


def test_the_book_is_cited_from_one_place(built):
    block = soup(built, "book/cite").select_one(".highlight-bibtex pre").text
    assert block.strip() == cite.bibtex(cite.load(TREE)).strip()
    assert "@misc" not in (TREE / "book" / "cite.md").read_text("utf-8")


# The changelog


def test_the_changelog_is_dated_newest_first_and_tells_every_chapter(built):
    page = soup(built, "book/changelog")
    heads = [head.text.rstrip("#") for head in page.select("article h2")]
    dates = [datetime.strptime(head, "%d %B %Y") for head in heads]
    assert dates and dates == sorted(dates, reverse=True)
    told = {a["href"] for a in page.select("article li a")}
    assert {f"../{name}.html" for name in CHAPTERS} <= told


# A chapter, in the browser


def visit(browser, address, **options):
    tab = open_tab(browser, accept_downloads=True, **options)
    if address.startswith("http"):
        tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.page.goto(address)
    tab.page.said = tab.errors
    ready(tab.page)
    return tab


def ready(page):
    page.wait_for_load_state("load")
    page.evaluate("() => document.fonts.ready")
    page.wait_for_timeout(50)


def violations(page):
    """What axe finds; it tries styles that the policy refuses, and that is its own."""
    said = list(page.said)
    page.evaluate(AXE.read_text("utf-8"))
    found = page.evaluate(VIOLATIONS)
    page.wait_for_timeout(50)
    page.said[:] = said
    return found


def closed(tab):
    tab.page.context.close()
    assert (tab.errors, tab.foreign) == ([], [])


@pytest.fixture(scope="module")
def open_chapter(site, browser):
    """One chapter, open for all tests that leave it as it was."""
    tab = visit(
        browser, f"{site}/{CHAPTER}.html", viewport={"width": 1280, "height": 900}
    )
    yield tab.page
    closed(tab)


@pytest.fixture
def chapter(open_chapter):
    """The open chapter, with nothing pointed at and the top in sight."""
    open_chapter.mouse.move(2, 2)
    open_chapter.evaluate(
        "() => (document.activeElement.blur(), scrollTo({top: 0, behavior: 'instant'}))"
    )
    return open_chapter


@pytest.fixture
def phone(site, browser):
    """The same chapter under a finger, at 390 pixels."""
    size = {"width": 390, "height": 844}
    tab = visit(browser, f"{site}/{CHAPTER}.html", viewport=size, has_touch=True)
    yield tab.page
    closed(tab)


def still(page):
    """Wait until scrolling has ended: it puts the card away."""
    page.wait_for_timeout(400)


def text(locator):
    return " ".join(locator.inner_text().split())


def test_pointing_at_a_word_shows_its_meaning(chapter):
    word = chapter.locator("a.word", has_text="logits").first
    word.scroll_into_view_if_needed()
    still(chapter)
    card = chapter.locator(".preview")
    assert not card.is_visible()
    word.hover()
    card.wait_for()
    assert "that a network gives to class" in text(card)
    assert card.locator(".katex").count() == 3
    chapter.mouse.move(2, 2)
    card.wait_for(state="hidden")


def test_a_word_is_explained_by_keyboard_and_to_a_screen_reader(chapter):
    word = chapter.locator("a.word", has_text="interval").first
    chapter.keyboard.press("Shift")  # who presses keys sees the focus
    word.focus()
    card = chapter.locator(".preview")
    card.wait_for()
    assert "covers the mean in 95 of 100" in text(card)
    chapter.keyboard.press("Escape")
    card.wait_for(state="hidden")
    meaning = chapter.locator(f"[id='{word.get_attribute('aria-describedby')}']")
    assert "covers the mean" in meaning.text_content()
    assert word.get_attribute("title") is None


def test_a_tap_shows_the_meaning_and_a_second_one_follows(phone):
    word = phone.locator("a.word").first
    word.scroll_into_view_if_needed()
    still(phone)
    word.tap()
    phone.locator(".preview").wait_for()
    phone.wait_for_timeout(200)
    assert phone.url.endswith(f"{CHAPTER}.html")
    word.tap()
    phone.wait_for_url("**/book/notation.html#*")
    assert phone.locator("tr:target").is_visible()


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_leads_to_its_part_of_the_notation(built, name):
    links = soup(built, name).select(".page-link-notation, .notation-link")
    assert len(links) == 2
    for link in links:
        part = soup(built, "book/notation").find(id=link["href"].partition("#")[2])
        assert part.find("a", href=f"../{name}.html")
    assert len(soup(built, name).select("a.word")) > 5


def test_a_phone_finds_the_notation_beside_the_contents_of_the_page(phone):
    assert not phone.locator(".page-link-notation").is_visible()
    phone.locator(".secondary-toggle").last.tap()
    phone.locator(".notation-link").tap()
    phone.wait_for_url("**/book/notation.html#mixtures-and-certificates")


# Copying


def cells(kind):
    """The cells of the chapter's notebook, of one kind."""
    whole = json.loads((TREE / f"{CHAPTER}.ipynb").read_text("utf-8"))
    kept = [cell for cell in whole["cells"] if cell["cell_type"] == kind]
    return ["".join(cell["source"]) for cell in kept]


def test_code_is_copied_by_keyboard_and_what_it_printed_is_not(chapter):
    code = [cell.strip() for cell in cells("code") if cell.strip()]
    marks = chapter.locator("article .cell_input button.copybtn")
    assert marks.count() == len(code)
    assert chapter.locator(".cell_output button.copybtn").count() == 0
    mark = marks.nth(3)
    assert mark.evaluate("node => getComputedStyle(node).opacity") == "0"
    mark.focus()
    chapter.keyboard.press("Shift+Tab")
    chapter.keyboard.press("Tab")
    chapter.wait_for_timeout(400)
    assert mark.evaluate("node => getComputedStyle(node).opacity") == "1"
    assert "Copy" in mark.evaluate("node => node.querySelector('title').textContent")
    chapter.keyboard.press("Enter")
    assert chapter.evaluate(PASTE).strip() == code[3]
    chapter.locator("[role=status]", has_text="Copied!").wait_for(state="attached")


def source(tex):
    """A formula without its spaces, which Markdown's parser may move."""
    return "".join(tex.split())


def test_every_equation_is_copied_as_it_was_written(chapter):
    written = [
        source(tex)
        for cell in cells("markdown")
        for tex in re.findall(r"\$\$(.*?)\$\$", cell.replace("\n> ", "\n"), re.S)
    ]
    marks = chapter.locator("button.copy-tex")
    assert marks.count() == len(written) > 15
    copied = []
    for i in range(0, marks.count(), 4):
        marks.nth(i).focus()
        chapter.keyboard.press("Enter")
        chapter.wait_for_timeout(50)
        copied.append(source(chapter.evaluate(PASTE)))
    assert copied == written[::4]
    chapter.locator("[role=status]", has_text="LaTeX copied").wait_for(state="attached")


def test_the_button_of_an_equation_is_named_and_shows_when_pointed_at(chapter):
    equation = chapter.locator(".equation:has(#eq-7)")
    equation.scroll_into_view_if_needed()
    mark = equation.get_by_role("button", name="Copy equation (7) as LaTeX")
    opacity = "node => getComputedStyle(node).opacity"
    assert mark.evaluate(opacity) == "0"
    equation.locator(".katex-html").first.hover()
    assert mark.evaluate(opacity) == "1"
    mark.click()
    assert r"\tag{7" in chapter.evaluate(PASTE)


def test_a_finger_sees_the_buttons(phone):
    for kind in (".copy-tex", ".cell_input .copybtn"):
        mark = phone.locator(kind).first
        mark.scroll_into_view_if_needed()
        assert float(mark.evaluate("node => getComputedStyle(node).opacity")) > 0.5
        box = mark.bounding_box()
        assert min(box["width"], box["height"]) >= 24
        assert box["x"] + box["width"] <= 390


def test_copying_works_where_the_clipboard_is_refused(chapter):
    chapter.evaluate("""() => {
      navigator.clipboard.writeText("before");
      const refuse = () => Promise.reject(new Error("refused"));
      Object.defineProperty(navigator.clipboard, "writeText",
        {value: refuse, configurable: true});
    }""")
    mark = chapter.locator("button.copy-tex").nth(2)
    mark.focus()
    chapter.keyboard.press("Enter")
    chapter.wait_for_timeout(100)
    assert chapter.evaluate("() => document.activeElement.className") == "copy-tex"
    chapter.evaluate("() => delete navigator.clipboard.writeText")
    assert chapter.evaluate(PASTE) not in ("before", "")
    assert mark.get_attribute("data-said") == "Copied"


def test_a_citation_is_copied(chapter):
    chapter.locator("details.cite summary").focus()
    chapter.keyboard.press("Enter")
    marks = chapter.locator("details.cite button.copybtn")
    assert marks.count() == 2
    marks.nth(1).click()
    key = f"@misc{{iclrtut-{CHAPTER.partition('/')[2]},"
    assert chapter.evaluate(PASTE).startswith(key)
    chapter.locator("details.cite summary").click()


# Saving figures


def saved(page, mark):
    """The picture that a Save button gives, and the name of its file."""
    mark.scroll_into_view_if_needed()
    with page.expect_download() as download:
        mark.click()
    file = download.value
    return Image.open(io.BytesIO(Path(file.path()).read_bytes())), (
        file.suggested_filename
    )


def shades(picture):
    return len(picture.convert("RGB").getcolors(2**24))


def test_every_figure_can_be_saved(chapter):
    figures = chapter.locator(
        "article :is(figure.iclrtut, .drawing, .cell_output img)"
    ).evaluate_all(
        "all => all.filter((n) => !n.parentElement.closest('figure')).length"
    )
    marks = chapter.locator("button.save")
    assert marks.count() == figures > 5
    for i in range(marks.count()):
        picture, name = saved(chapter, marks.nth(i))
        assert name == f"provable_uncertainty-{i + 1}.png"
        assert picture.format == "PNG" and picture.width >= 1200
        assert shades(picture) > 20
        paper = chapter.evaluate(
            "() => getComputedStyle(document.body).backgroundColor"
        )
        assert picture.convert("RGB").getpixel((1, 1)) == tuple(
            map(int, re.findall(r"\d+", paper))
        )


def test_an_interactive_figure_is_saved_as_it_stands(chapter):
    figure = chapter.locator("figure.iclrtut:has(input[type=range])").first
    mark = figure.locator("button.save")
    before, _ = saved(chapter, mark)
    same, _ = saved(chapter, mark)
    figure.locator("input[type=range]").first.press("End")
    after, _ = saved(chapter, mark)
    figure.locator("input[type=range]").first.press("Home")
    assert before.tobytes() == same.tobytes() != after.tobytes()


def test_saving_leaves_the_figure_as_it_was(chapter):
    figure = chapter.locator("figure.iclrtut:has(canvas)").first
    # What it says to screen readers comes later, in its own time.
    shown = """node => { const copy = node.cloneNode(true);
      copy.querySelectorAll("[role=status]").forEach((each) => each.remove());
      return copy.outerHTML; }"""
    before = figure.evaluate(shown)
    picture, _ = saved(chapter, figure.locator("button.save"))
    assert figure.evaluate(shown) == before
    assert shades(picture) > 100


def test_figures_are_saved_and_equations_copied_from_a_folder(built, browser):
    tab = visit(browser, (built / f"{CHAPTER}.html").as_uri())
    picture, name = saved(tab.page, tab.page.locator("button.save").nth(1))
    assert name.endswith("-2.png") and shades(picture) > 20
    mark = tab.page.locator("button.copy-tex").first
    mark.focus()
    tab.page.keyboard.press("Enter")
    tab.page.locator("[role=status]", has_text="LaTeX copied").wait_for(
        state="attached"
    )
    closed(tab)


# Keys


@pytest.fixture
def reader(site, browser):
    """A short page in a fresh browser."""
    tab = visit(browser, f"{site}/book/preface.html")
    yield tab.page
    closed(tab)


def test_arrows_turn_the_pages(reader, site):
    reader.keyboard.press("ArrowRight")
    reader.wait_for_url("**/book/notation.html")
    ready(reader)
    reader.keyboard.press("ArrowLeft")
    reader.wait_for_url("**/book/preface.html")


@pytest.mark.parametrize("key", ["/", "Control+k"])
def test_a_key_opens_the_search_and_escape_closes_it(reader, key):
    reader.keyboard.press(key)
    field = reader.locator(".search-button__wrapper.show input")
    field.wait_for()
    reader.keyboard.type("a/b?")
    reader.keyboard.press("ArrowLeft")
    reader.keyboard.press("ArrowRight")
    reader.wait_for_timeout(100)
    assert field.input_value() == "a/b?" and reader.url.endswith("preface.html")
    assert not reader.locator("dialog.keys").is_visible()
    reader.keyboard.press("Escape")
    reader.locator(".search-button__wrapper.show").wait_for(state="detached")


def test_the_keys_are_listed_and_can_be_switched_off(reader):
    reader.keyboard.press("?")
    dialog = reader.get_by_role("dialog", name="Keyboard shortcuts")
    dialog.wait_for()
    assert "next page" in text(dialog)
    assert violations(reader) == []
    reader.keyboard.press("ArrowRight")
    reader.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    opener = reader.locator(".keys-open")
    opener.click()
    dialog.get_by_role("checkbox").uncheck()
    dialog.get_by_role("button", name="Close").click()
    reader.reload()
    ready(reader)
    for key in ("ArrowRight", "/", "?"):
        reader.keyboard.press(key)
    reader.wait_for_timeout(200)
    assert reader.url.endswith("preface.html")
    assert not reader.locator("dialog.keys, .search-button__wrapper.show").count() or (
        not reader.locator("dialog.keys").is_visible()
    )
    reader.keyboard.press("Control+k")
    reader.locator(".search-button__wrapper.show input").wait_for()


@pytest.mark.parametrize(
    "busy",
    [
        "figure.iclrtut input[type=range]",
        "figure.iclrtut .plane svg[tabindex]",
        "figure.iclrtut .play button",
        "article pre[tabindex]",
    ],
)
def test_keys_are_left_to_what_has_the_focus(chapter, busy):
    chapter.locator(busy).first.focus()
    for key in ("ArrowRight", "ArrowLeft", "?", "/"):
        chapter.keyboard.press(key)
    chapter.wait_for_timeout(100)
    assert chapter.url.endswith(f"{CHAPTER}.html")
    assert not chapter.locator("dialog.keys").is_visible()
    assert chapter.locator(".search-button__wrapper.show").count() == 0


# The place

STOPPED = "the-parts-of-a-chapter"


@pytest.fixture
def low(reader):
    """The same page in a low window, where it is long."""
    reader.set_viewport_size({"width": 1280, "height": 420})
    reader.reload()
    ready(reader)
    return reader


def stand_at(page, id):
    page.evaluate(
        "id => document.getElementById(id).scrollIntoView({behavior: 'instant'})", id
    )
    page.wait_for_timeout(300)


def come_back(page, site):
    """Go to another page and return."""
    page.goto(f"{site}/book/cite.html")
    assert page.locator(".go-on").count() == 0
    page.goto(f"{site}/book/preface.html")
    ready(page)


def test_a_page_offers_to_go_on_where_one_stopped(low, site):
    offer = low.locator(".go-on")
    assert offer.count() == 0
    stand_at(low, STOPPED)
    come_back(low, site)
    low.set_viewport_size({"width": 390, "height": 500})
    assert text(offer) == "Go on at The parts of a chapter ×"
    assert violations(low) == []
    offer.get_by_role("link").press("Enter")
    top = "document.getElementById(id).getBoundingClientRect().top"
    low.wait_for_function(f"id => 0 <= {top} && {top} < 200", arg=STOPPED)
    assert offer.count() == 0
    low.goto(f"{site}/book/cite.html")
    low.goto(f"{site}/book/preface.html#what-works-where")
    assert offer.count() == 0


def test_the_offer_can_be_dismissed_for_good(low, site):
    stand_at(low, STOPPED)
    come_back(low, site)
    low.get_by_role("button", name="Forget the place").click()
    assert low.locator(".go-on").count() == 0
    come_back(low, site)
    assert low.locator(".go-on").count() == 0


def test_near_the_top_there_is_nothing_to_offer(low, site):
    low.mouse.wheel(0, 40)
    low.wait_for_timeout(300)
    come_back(low, site)
    assert low.locator(".go-on").count() == 0


def test_a_page_read_to_the_end_gets_a_tick(low, site):
    stand_at(low, STOPPED)
    assert low.locator("nav.bd-links a.read").count() == 0
    low.evaluate(
        "() => scrollTo({top: document.body.scrollHeight, behavior: 'instant'})"
    )
    low.wait_for_timeout(300)
    come_back(low, site)
    read = low.locator("nav.bd-links a.read")
    assert text(read).startswith("How to read this book") and read.count() == 1
    assert "(read)" in read.text_content()
    assert low.locator(".go-on").count() == 0


def test_a_browser_that_keeps_nothing_is_no_worse(site, browser):
    tab = open_tab(browser, viewport={"width": 1280, "height": 420})
    tab.page.add_init_script("""
      for (const name of ["getItem", "setItem", "removeItem"]) {
        Storage.prototype[name] = function (key) {
          if (/^(place|read|single)/.test(key)) throw new DOMException("refused");
          return null;
        };
      }""")
    tab.page.goto(f"{site}/book/preface.html")
    ready(tab.page)
    stand_at(tab.page, STOPPED)
    tab.page.keyboard.press("?")
    tab.page.locator("dialog.keys").get_by_role("checkbox").uncheck()
    tab.page.keyboard.press("Escape")
    # The focus leaves a closed dialog with the browser's next frame, and not before.
    tab.page.wait_for_function("document.activeElement === document.body")
    tab.page.keyboard.press("ArrowRight")
    tab.page.wait_for_url("**/book/notation.html")
    closed(tab)


# On paper, and in quiet


def test_paper_shows_no_comfort(chapter):
    chapter.emulate_media(media="print")
    kinds = ".copy-tex, button.save, .copybtn, details.cite, .keys-open, .meanings"
    shown = chapter.locator(kinds).evaluate_all(
        "all => all.filter((node) => node.checkVisibility()).map((n) => n.className)"
    )
    line = chapter.locator("a.word").first.evaluate(
        "node => getComputedStyle(node).textDecorationLine"
    )
    chapter.emulate_media(media="screen")
    assert (shown, line) == ([], "none")
    assert chapter.locator("button.save").first.is_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_an_open_citation_is_accessible(reader, theme):
    reader.evaluate(f"() => (document.documentElement.dataset.theme = '{theme}')")
    reader.evaluate(STILL)
    reader.locator("details.cite summary").click()
    assert violations(reader) == []


def test_nothing_is_loaded_from_elsewhere_and_there_is_no_feed(built):
    loads = "script[src], link[href], img[src], iframe[src], audio[src], source[src]"
    found = []
    for file in built.rglob("*.html"):
        page = BeautifulSoup(file.read_text("utf-8"), "html.parser")
        for node in page.select(loads):
            address = node.get("src") or node.get("href")
            if urlsplit(address).netloc or "alternate" in node.get("rel", []):
                found.append((file.name, address))
    assert found == []
    names = [file.name.lower() for file in built.rglob("*")]
    assert not [n for n in names if re.search(r"rss|atom|feed", n)]


def test_styles_load_nothing_from_elsewhere(built):
    for file in built.rglob("*.css"):
        rules = file.read_text("utf-8")
        assert not re.search(r"(url\(\s*['\"]?|@import\s+['\"])(https?:)?//", rules), (
            file
        )


def test_the_site_keeps_no_cookie_and_calls_no_tracker(site, browser):
    tab = open_tab(browser)
    for name in (PAGES[0], CHAPTER, "book/preface"):
        tab.page.goto(f"{site}/{name}.html")
        ready(tab.page)
        tab.page.keyboard.press("PageDown")
    assert tab.page.context.cookies() == []
    kept = tab.page.evaluate("() => Object.keys(localStorage)")
    assert [key for key in kept if not re.match(r"mode|theme|place:|read:", key)] == []
    closed(tab)
    own = [TREE / "book" / "_static" / name for name in ("book.js", "reader.js")]
    for file in own:
        assert not re.search(
            r"cookie|sendBeacon|XMLHttpRequest", file.read_text("utf-8")
        )
