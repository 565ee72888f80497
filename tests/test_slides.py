"""The decks of slides: what is on them, and whether the last row can read it."""

import functools
import re
import xml.etree.ElementTree as etree
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
from bs4 import BeautifulSoup
from conftest import TREE, open_tab, sample, tool

slides = tool("slides")
CHAPTERS = slides.chapters()
SCREEN = {"width": 1280, "height": 720}
READY = "window.Reveal?.isReady()"
# What is seen of the present slide: what does not fit, its smallest text, its words.
# Superscripts and what screen readers read are left out; so are words in code.
SEEN = """() => {
  const slide = document.querySelector("section.present");
  const box = slide.getBoundingClientRect();
  const shown = [...slide.querySelectorAll("*")].filter((node) =>
    node.getClientRects().length && !node.closest(".notes, mjx-assistive-mml, svg *")
    && (!node.closest("mjx-math *") || node.tagName === "MJX-MTD"));
  const inside = ({ left, right, top, bottom }) => left >= box.left - 1
    && right <= box.right + 1 && top >= box.top - 1 && bottom <= box.bottom + 1;
  const cut = shown.filter((node) => node.matches("p, li, pre, h1, h2, figcaption")
    && node.scrollWidth > node.clientWidth + 1);
  const texts = document.createTreeWalker(slide, NodeFilter.SHOW_TEXT);
  const sizes = [], words = [];
  for (let text; (text = texts.nextNode());) {
    const node = text.parentElement;
    const silent = ".notes, mjx-container, script, noscript, title";
    if (!text.data.trim() || !node.getClientRects().length) continue;
    if (node.closest(silent)) continue;
    const scale = node.getScreenCTM?.().a ?? node.currentCSSZoom ?? 1;
    sizes.push(parseFloat(getComputedStyle(node).fontSize) * scale);
    const found = text.data.match(/[\\p{L}\\d][\\p{L}\\d’'.,-]*/gu) ?? [];
    if (!node.closest("pre, .play")) words.push(...found);
  }
  const formulas = [...slide.querySelectorAll(".equation")].map((node) =>
    parseFloat(getComputedStyle(node).fontSize) * node.currentCSSZoom);
  const pictures = [...slide.querySelectorAll(".frame:not([hidden]) img, .idea img")]
    .map((image) => [image.getAttribute("src"), image.clientWidth, image.clientHeight]);
  return {
    kind: slide.classList[0], title: slide.querySelector("h1, h2").textContent,
    beyond: shown.filter((node) => !inside(node.getBoundingClientRect()))
      .concat(cut).map((node) => node.outerHTML.slice(0, 100)),
    smallest: Math.min(...sizes), words: words.length, pictures, formulas,
    broken: [...slide.querySelectorAll("mjx-merror, [data-mjx-error]")].length,
  };
}"""

# Without preload, axe does not ask for style sheets, which a file may not.
VIOLATIONS = """() => axe.run(document.querySelector("section.present"), {
  resultTypes: ["violations"], preload: false,
  rules: {region: {enabled: false}, "page-has-heading-one": {enabled: false}},
}).then((found) => found.violations.flatMap((rule) => rule.nodes.map(
  (node) => rule.id + ": " + node.html.slice(0, 120))))"""


@pytest.fixture(scope="session")
def decks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The decks, built once into a folder of their own."""
    out = tmp_path_factory.mktemp("decks") / "slides"
    slides.build(out)
    return out


@pytest.fixture(scope="session")
def walks(decks: Path, browser: Any) -> Callable[[str], SimpleNamespace]:
    """A deck, opened from its folder and walked through once with the keyboard."""
    return functools.cache(lambda slug: walk(decks / f"{slug}.html", browser))


def walk(file: Path, browser: Any) -> SimpleNamespace:
    """Press the right arrow until the deck ends; look at each slide."""
    tab = open_tab(browser, viewport=SCREEN)
    page = tab.page
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(file.as_uri())
    page.wait_for_function(READY)
    seen = []
    for _ in range(page.evaluate("Reveal.getTotalSlides()")):
        seen.append(page.evaluate(SEEN))
        page.keyboard.press("ArrowRight")
    last = page.evaluate("Reveal.isLastSlide()")
    page.context.close()
    return SimpleNamespace(
        seen=seen, said=said, errors=tab.errors, foreign=tab.foreign, last=last
    )


def soup(decks: Path, slug: str) -> BeautifulSoup:
    """A deck's HTML."""
    return BeautifulSoup((decks / f"{slug}.html").read_text("utf-8"), "html.parser")


def cells(slug: str) -> list[Any]:
    """The cells of a chapter."""
    return nbformat.read(TREE / "notebooks" / f"{slug}.ipynb", as_version=4).cells


def prose(slug: str) -> str:
    """All text of a chapter."""
    return "\n\n".join(c.source for c in cells(slug) if c.cell_type == "markdown")


def outputs(slug: str) -> str:
    """All that a chapter's cells print or show as HTML or Markdown."""
    found = [o for c in cells(slug) for o in c.get("outputs", [])]
    data = [output.get("data", {}) for output in found]
    texts = [output.get("text", "") for output in found]
    return "\n".join(
        [*texts, *(d.get("text/html", "") + d.get("text/markdown", "") for d in data)]
    )


# What is on the slides


def test_the_list_leads_to_every_deck(decks):
    page = BeautifulSoup((decks / "index.html").read_text("utf-8"), "html.parser")
    links = [link["href"] for link in page.select("a")]
    assert links == [f"{slug}.html" for slug in CHAPTERS]
    assert all((decks / link).is_file() for link in links)


@pytest.mark.parametrize("slug", sample(CHAPTERS))
def test_each_numbered_equation_has_one_slide_with_its_check(decks, slug):
    page = soup(decks, slug)
    lines = re.findall(r"✓ (?:\(\d+\w*\) )+.*", outputs(slug))
    numbers = re.findall(r"\\tag\{(\d+\w*)(, def\.)?\}", prose(slug))
    assert len(numbers) > 10
    for number, defined in numbers:
        tagged = re.compile(rf"\\tag\{{{number}\W")
        found = [s for s in page.select("section") if tagged.search(visible(s))]
        assert [s["id"] for s in found] == [f"eq-{number}"]
        checks = [li.text for li in found[0].select(".checks li:not(.more)")]
        assert all(line in lines and f"({number})" in line for line in checks)
        assert checks or defined


def visible(section: Any) -> str:
    """The text of a slide without its notes."""
    notes = section.select_one(".notes")
    return section.text.replace(notes.text, "") if notes else section.text


@pytest.mark.parametrize("slug", sample(CHAPTERS))
def test_every_figure_is_there_with_its_caption_and_a_text(decks, slug):
    page, shown = soup(decks, slug), outputs(slug)
    captions = [
        BeautifulSoup(text, "html.parser").text
        for text in re.findall(r"<figcaption>(.*?)</figcaption>", shown, re.S)
    ]
    captions = [text for text in captions if "${" not in text]
    seen = {" ".join(c.text.split()) for c in page.select("figcaption")}
    assert len(captions) > 5
    for caption in captions:
        assert any(text.startswith(caption) for text in seen), caption
    drawings = re.findall(r'<div class="panels".*?</div>', shown, re.S)
    panels = sum(text.count("<svg") for text in drawings)
    assert len(page.select(".figure img")) == panels
    for frame in page.select(".frame"):
        assert frame.select("img")[0]["alt"]
    for image in page.select("img"):
        assert (decks / image["src"]).is_file() and image.has_attr("alt")


@pytest.mark.parametrize("slug", sample(CHAPTERS))
def test_every_claim_is_there_with_the_verdict_of_the_ledger(decks, slug):
    from iclrtut import ledger

    rows = {
        row["claim"]: (row["verdict"], ledger.measured(row))
        for row in ledger.rows(TREE / "records")
        if (row["chapter"], row["profile"], row["device"]) == (slug, "quick", "cpu")
    }
    shown = {}
    for item in soup(decks, slug).select("[data-claim]"):
        verdict = item.select_one(".verdict")
        interval = verdict.b.extract().text
        shown[item["data-claim"]] = (verdict.text.strip(), interval)
        assert verdict.text.strip().replace(" ", "-") in verdict["class"]
        assert item.p.text.strip()
    table = set(re.findall(r"(?m)^\| \*\*(\w+)\*\* ", outputs(slug)))
    assert table == set(shown)
    assert {claim: rows[claim] for claim in shown} == shown


@pytest.mark.parametrize("slug", sample(CHAPTERS))
def test_exercises_are_stated_and_no_solution_is_there(decks, slug):
    text = (decks / f"{slug}.html").read_text("utf-8")
    page = soup(decks, slug)
    source = prose(slug)
    heads = re.findall(r"> \*\*(Exercise \d+ \(.*?\))\.\*\*", source)
    assert heads == [h.text for h in page.select("section[id^=exercise-] h2")]
    solutions = re.findall(r"</summary>(.*?)</details>", source, re.S)
    assert len(solutions) == len(heads) >= 4
    assert "Solution" not in text and "details" not in text
    for solution in solutions:
        lines = [line.strip() for line in solution.splitlines()]
        for line in lines:
            if len(line) > 20 and source.count(line) == 1:
                assert line not in page.text


@pytest.mark.parametrize("slug", sample(CHAPTERS))
def test_links_lead_to_slides_or_to_the_chapters_page(decks, slug):
    page = soup(decks, slug)
    ids = [node["id"] for node in page.select("section[id]")]
    assert len(ids) == len(set(ids))
    for link in page.select("a[href]"):
        href = link["href"]
        if href.startswith("#/"):
            assert href.removeprefix("#/") in ids
        elif not href.startswith("https://"):
            assert href.startswith(f"../html/notebooks/{slug}.html#")


@pytest.mark.parametrize("slug", sample(CHAPTERS))
def test_links_to_the_page_name_a_heading_that_it_has(decks, built, slug):
    html = (built / "notebooks" / f"{slug}.html").read_text("utf-8")
    for link in soup(decks, slug).select("a[href^='../html']"):
        assert f'id="{link["href"].partition("#")[2]}"' in html


@pytest.mark.parametrize("slug", sample(CHAPTERS))
def test_the_prose_is_in_the_notes(decks, slug):
    notes = flat("".join(node.text for node in soup(decks, slug).select(".notes")))
    part, spoken = "", 0
    for block in slides.blocks(SimpleNamespace(cells=cells(slug))):
        part = block.text if block.kind == "h2" else part
        # Markdown that HTML shows otherwise is left out; so are parts without a story.
        if block.kind != "text" or set(block.text) & set("*[`$<"):
            continue
        if part not in (*slides.SHAPES, *slides.UNSEEN):
            assert flat(block.text) in notes
            spoken += 1
    assert spoken > 5


def flat(text: str) -> str:
    """A text on one line."""
    return " ".join(text.split())


# Whether it can be read


@pytest.mark.parametrize("slug", sample(CHAPTERS))
def test_nothing_is_cut_off(walks, slug):
    found = walks(slug).seen
    assert len(found) > 40
    assert [(s["title"], s["beyond"]) for s in found if s["beyond"]] == []
    assert not any(slide["broken"] for slide in found)


@pytest.mark.parametrize("slug", sample(CHAPTERS))
def test_the_last_row_can_read_it(walks, slug):
    small = [s for s in walks(slug).seen if s["smallest"] < 23.9]
    assert small == []


@pytest.mark.parametrize("slug", sample(CHAPTERS))
def test_a_slide_has_few_words(walks, slug):
    many = [s["words"] for s in walks(slug).seen]
    assert sum(count > 60 for count in many) <= 2
    assert max(many) <= 70


@pytest.mark.parametrize("slug", sample(CHAPTERS))
def test_text_in_pictures_is_large(walks, decks, slug):
    """Twenty-four pixels at least; superscripts may be seven tenths of that."""
    small, count = [], 0
    for slide in walks(slug).seen:
        for src, width, height in slide["pictures"]:
            root = etree.parse(decks / src).getroot()
            box = [float(v) for v in root.get("viewBox").split()]
            scale = min(width / box[2], height / box[3])
            text = etree.tostring(root, encoding="unicode")
            sizes = re.findall(r"font(?:-size)?[:=]\s*\"?([\d.]+)", text)
            for size in map(float, sizes):
                count += 1
                if size * scale < (24 if size > 10 else 16.5) - 0.5:
                    small.append((slide["title"], src, size * scale))
    assert count > 100
    assert small == []


@pytest.mark.parametrize("slug", sample(CHAPTERS))
def test_arrow_keys_walk_through_without_a_complaint(walks, slug):
    found = walks(slug)
    assert found.last
    assert (found.said, found.errors, found.foreign) == ([], [], [])
    titles = [slide["title"] for slide in found.seen]
    assert len(set(titles)) > 10


@pytest.mark.parametrize("slug", sample(CHAPTERS))
def test_formulas_are_large(walks, slug):
    sizes = [size for slide in walks(slug).seen for size in slide["formulas"]]
    assert len(sizes) > 10
    assert min(sizes) >= 28 and sum(size >= 40 for size in sizes) > len(sizes) / 2


# How it behaves


@pytest.fixture
def deck(decks: Path, browser: Any) -> Any:
    """Opens a deck, in a tab of its own."""
    tabs = []

    def opened(slug: str, more: str = "", **options: Any) -> Any:
        tab = open_tab(browser, **{"viewport": SCREEN} | options)
        tabs.append(tab)
        tab.page.goto((decks / f"{slug}.html").as_uri() + more)
        tab.page.wait_for_function(READY)
        return tab.page

    yield opened
    for tab in tabs:
        tab.page.context.close()
        assert (tab.errors, tab.foreign) == ([], [])


def test_a_link_opens_a_deck_at_its_equation(deck):
    page = deck(CHAPTERS[0], "#/eq-1")
    assert page.evaluate("Reveal.getCurrentSlide().id") == "eq-1"


def test_a_slider_turns_frames(deck):
    page = deck("energy_based_classifier")
    at = page.evaluate(
        "() => Reveal.getSlides().findIndex((s) => s.querySelector('figcaption input'))"
    )
    page.evaluate("(i) => Reveal.slide(i)", at)
    slider = page.locator("section.present input")
    before = page.locator("section.present .frame:not([hidden])").get_attribute(
        "data-value"
    )
    slider.press("ArrowRight")
    shown = page.locator("section.present .frame:not([hidden])")
    assert shown.count() == 1
    after = shown.get_attribute("data-value")
    assert after != before
    assert page.locator("section.present output").text_content() == after
    assert page.evaluate("Reveal.getIndices().h") == at


def test_sounds_play_in_the_deck(deck):
    page = deck("differentiable_dsp")
    players = page.evaluate("() => document.querySelectorAll('.play audio').length")
    assert players >= 2


@pytest.mark.parametrize("slug", sample(CHAPTERS))
def test_a_widget_runs_or_leads_to_the_page(deck, decks, slug):
    page = deck(slug)
    widgets = page.evaluate(
        """() => [...document.querySelectorAll("section.widget")].map((slide) => [
          slide.querySelectorAll(".play").length,
          slide.querySelectorAll(".elsewhere:not([hidden]) a").length])"""
    )
    assert widgets and all(sum(pair) == 1 for pair in widgets)


def test_colours_follow_the_reader(deck):
    paint = "getComputedStyle(document.body).backgroundColor"
    light, dark = (
        deck(CHAPTERS[0], color_scheme=scheme).evaluate(paint)
        for scheme in ("light", "dark")
    )
    assert light == "rgb(255, 253, 249)" and dark == "rgb(23, 24, 27)"


@pytest.mark.parametrize("scheme", sample(["light", "dark"]))
def test_slides_are_accessible(deck, scheme):
    """One slide of each kind, in the deck that has the most kinds."""
    page = deck("energy_based_classifier", color_scheme=scheme)
    page.add_script_tag(path=TREE / "tests" / "vendor" / "axe.min.js")
    kinds = page.evaluate("Reveal.getSlides().map((slide) => slide.classList[0])")
    assert len(set(kinds)) >= 10
    found = []
    for kind in dict.fromkeys(kinds):
        page.evaluate("(i) => Reveal.slide(i)", kinds.index(kind))
        found += page.evaluate(VIOLATIONS)
    assert found == []
    assert page.title() and page.locator("html").get_attribute("lang") == "en-GB"


@pytest.mark.parametrize("slug", sample(["index", *CHAPTERS]))
def test_no_script_or_style_is_inline(decks, slug):
    text = (decks / f"{slug}.html").read_text("utf-8")
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", text)


def test_it_prints_one_page_a_slide(deck, tmp_path):
    from pypdf import PdfReader

    slug = min(CHAPTERS, key=lambda name: len(cells(name)))
    page = deck(slug, "?print-pdf")
    count = page.evaluate("document.querySelectorAll('.slides section').length")
    page.wait_for_function("document.querySelectorAll('.pdf-page').length > 40")
    page.pdf(path=tmp_path / "deck.pdf", prefer_css_page_size=True)
    assert len(PdfReader(tmp_path / "deck.pdf").pages) == count


def test_notes_open_in_a_window_of_their_own(deck):
    page = deck(CHAPTERS[0])
    page.keyboard.press("ArrowRight")
    with page.expect_popup() as popup:
        page.keyboard.press("s")
    popup.value.locator(".speaker-controls-notes .value").wait_for(state="attached")


# The rules of choice, on small examples


def test_sentences_are_not_cut_inside_a_formula_or_emphasis():
    text = (
        "Take $a. B$ first. *Then this. And that.* See (it. It ends). So $x$, 1.5 nats."
    )
    assert slides.sentences(text) == [
        "Take $a. B$ first.",
        "*Then this. And that.* See (it. It ends).",
        "So $x$, 1.5 nats.",
    ]


def test_the_last_sentences_lead_to_an_equation():
    text = "One two three. Four five. Six:"
    assert slides.closing(text, 3) == "Four five. Six:"
    assert slides.closing(text, 0) == "Six:"
    assert slides.closing("ends here. Next:", 9, continues=True) == "Next:"


def test_items_are_shared_out_in_order():
    assert slides.packs([3, 3, 3, 9, 1], int, 6) == [[3, 3], [3], [9], [1]]


def test_formulas_and_addresses_are_no_words():
    assert slides.words("See $a b c$ and [the *paper*](https://x.y/z), now.") == 5


def test_a_solution_never_becomes_a_block():
    source = "A.\n\n<details><summary>S</summary>\n\nSecret.\n\n</details>\n\nB."
    assert [block.text for block in slides.prose(source)] == ["A.", "B."]


def test_a_missing_notebook_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(slides, "chapters", lambda: ["no_such_chapter"])
    with pytest.raises(SystemExit, match=r"no_such_chapter\.ipynb is missing"):
        slides.build(tmp_path / "slides")


def test_what_the_decks_need_is_theirs(decks):
    names = {path.name for path in (decks / "_static" / "vendor").iterdir()}
    assert names == {"fonts", "mathjax", "reveal"}
    version = re.search(r"VERSION=\w+|`(6\.\d+\.\d+)`", reveal(decks))
    assert version
    listed = (TREE / "book/_static/vendor/README.md").read_text("utf-8")
    assert "`reveal.js` | 6.0.2 | MIT" in listed


def reveal(decks: Path) -> str:
    """The engine's text."""
    return (decks / "_static/vendor/reveal/reveal.js").read_text("utf-8")
