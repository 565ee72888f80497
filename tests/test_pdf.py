"""The handout, as Chromium printed it, and the site's pages on paper."""

import functools
import json
import re
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from bs4 import BeautifulSoup
from conftest import NIGHTLY, TREE, open_tab, sample, tool
from pypdf import PdfReader
from pypdf.generic import Destination

PAGES = tool("site").contents()
NOTEBOOKS = [page for page in PAGES if page.startswith("notebooks/")]
# The tables of the ledger are the widest thing of the book.
PAPER = sample(["book/ledger", *(name for name in PAGES if name != "book/ledger")])
FEW = ["book/preface", NOTEBOOKS[0]]
# What does not fit: wider inside than outside, or beyond the column.
WIDER = """(column) => {
  const article = document.querySelector(".bd-article").getBoundingClientRect();
  const edge = column ?? article.right;
  const parts = `.bd-article :is(pre, table, figure, img, svg, .box, .checks,
    div.math), .contents, .title-page`;
  return [...document.querySelectorAll(parts)].filter((node) => {
    const box = node.getBoundingClientRect();
    return box.width && (box.right > edge + 1 || box.left < -1
      || (!node.closest("svg") && node.scrollWidth > node.clientWidth + 1
        && getComputedStyle(node).display !== "inline"));
  }).map((node) => `${node.tagName} ${node.textContent.slice(0, 60)}`);
}"""
# The darkest paper and the lightest words, from 0 (black) to 1.
SHADES = """() => {
  const shade = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(Number);
    return Math.round(2126 * r + 7152 * g + 722 * b) / 2550000;
  };
  const words = [...document.querySelectorAll(
    ".bd-article :is(p, li, td, th, h1, h2, pre span)")]
    .filter((node) => node.getClientRects().length);
  return {
    paper: shade(getComputedStyle(document.body).backgroundColor),
    words: Math.max(...words.map((node) => shade(getComputedStyle(node).color))),
  };
}"""


def flat(text: str) -> str:
    """Text without blanks: a PDF breaks lines where it likes."""
    return re.sub(r"\s+", "", text).replace("ʼ", "’")


@pytest.fixture(scope="session", params=[FEW, pytest.param(PAGES, marks=NIGHTLY)])
def handout(request, built, tmp_path_factory):
    """A page and a chapter, or the book, printed once: file, text, bookmarks."""
    folder = tmp_path_factory.mktemp("handout")
    with ThreadPoolExecutor(1) as apart:  # another test's browser may be open here
        pdf = apart.submit(tool("pdf").handout, folder, request.param, built).result()
    reader = PdfReader(pdf)
    at = {page.indirect_reference.idnum: i for i, page in enumerate(reader.pages)}
    return SimpleNamespace(
        reader=reader,
        names=request.param,
        notebooks=[name for name in request.param if name in NOTEBOOKS],
        document=folder / "iclrtut.html",
        text=[flat(page.extract_text()) for page in reader.pages],
        marks=list(bookmarks(reader, reader.outline, at)),
        anchors={
            name: at[there.page.idnum]
            for name, there in reader.named_destinations.items()
        },
    )


def bookmarks(reader: PdfReader, outline: list[Any], at: dict[int, int], depth=0):
    """Depth, title and page index of each bookmark, in reading order."""
    for entry in outline:
        if isinstance(entry, Destination):
            yield depth, entry.title, at[entry.page.idnum]
        else:
            yield from bookmarks(reader, entry, at, depth + 1)


@functools.cache
def soup(built, name):
    """A page's article."""
    text = (built / f"{name}.html").read_text("utf-8")
    return BeautifulSoup(text, "html.parser").select_one("article.bd-article")


def title(node) -> str:
    """The words of a heading."""
    return flat(node.get_text()).removesuffix("#")


def chapter(handout, built, name) -> str:
    """All text of a chapter's pages."""
    starts = [page for depth, _, page in handout.marks if depth == 0]
    titles = [flat(words) for depth, words, _ in handout.marks if depth == 0]
    i = titles.index(title(soup(built, name).h1))
    return "".join(handout.text[starts[i] : starts[i + 1]])


def appendix(handout) -> int:
    """The index of the first page of the solutions."""
    return next(page for _, words, page in handout.marks if words == "Solutions")


def test_every_page_is_a4_and_says_something(handout):
    assert 10 < len(handout.reader.pages) / len(handout.notebooks) < 120
    for page, text in zip(handout.reader.pages, handout.text, strict=True):
        assert [round(float(side)) for side in page.mediabox[2:]] == [595, 842]
        assert len(text) > 80


def test_every_heading_is_a_bookmark(handout, built):
    wanted = [
        (int(node.name[1]) - 1, title(node))
        for name in handout.names
        for node in soup(built, name).select("h1, h2, h3, h4")
    ]
    found = [(depth, flat(words)) for depth, words, _ in handout.marks]
    last = [words for _, words in found].index("Solutions")
    assert found[0] == (0, "Contents")
    assert found[1:last] == wanted


def test_a_bookmark_leads_to_its_heading(handout):
    for _, words, page in handout.marks:
        said = handout.text[page].casefold()
        assert all(flat(w).casefold() in said for w in re.findall(r"[a-z]{3,}", words))


def test_the_contents_name_the_right_pages(handout):
    front = "".join(handout.text[1 : handout.marks[1][2]])
    listed = [entry for entry in handout.marks[1:] if entry[0] < 2]
    assert len(listed) > 10 * len(handout.notebooks)
    for _, words, page in listed:
        assert f"{flat(words)}{page + 1}" in front


def test_chapters_start_on_a_page_of_their_own(handout, built):
    for name in handout.names:
        words = title(soup(built, name).h1)
        starts = ((flat(told), at) for depth, told, at in handout.marks if depth == 0)
        page = next(page for told, page in starts if told == words)
        head = f"Papersyoucanrun{words}{page + 1}"
        assert handout.text[page].startswith(head)
        assert words in handout.text[page].removeprefix(head)


def test_every_equation_and_every_check_is_there(handout, built):
    for name in handout.notebooks:
        text = chapter(handout, built, name)
        cells = json.loads((TREE / f"{name}.ipynb").read_text("utf-8"))["cells"]
        tags = re.findall(r"\\tag\{(\d+\w*)[^}]*\}", json.dumps(cells))
        assert len(set(tags)) > 10
        for tag in tags:
            assert re.search(rf"\({tag}(,def\.)?\)", text), tag
        checks = [flat(line.get_text()) for line in soup(built, name).select("p.check")]
        assert checks and [line for line in checks if line not in text] == []


def test_solutions_stand_in_the_appendix_only(handout, built):
    for name in handout.notebooks:
        start = appendix(handout)
        before, after = ("".join(part) for part in split(handout.text, start))
        folds = soup(built, name).select("details.fold")
        assert folds
        for fold in folds:
            strings = [flat(words) for words in fold.find_all(string=True)]
            code = [flat(block.get_text()) for block in fold.select("pre")]
            told = max(code or strings, key=len)
            assert told not in before
            assert told in after


def split(pages, at):
    """The pages before an index, and those from it on."""
    return pages[:at], pages[at:]


def test_exercise_and_solution_name_each_others_page(handout, built):
    for name in handout.notebooks:
        label = name.replace("/", "-")
        for fold in soup(built, name).select("details.fold"):
            number = fold["id"].rpartition("-")[2]
            here = handout.anchors[f"/{label}--exercise-{number}"]
            there = handout.anchors[f"/{label}--solution-{number}"]
            assert here < appendix(handout) <= there
            way = f"Solution{number},page{there + 1}"
            assert way in handout.text[here] + handout.text[here + 1]
            assert f"Exercise{number},page{here + 1}" in handout.text[there]


def test_links_resolve(handout):
    inner = 0
    for page in handout.reader.pages:
        for annotation in (each.get_object() for each in page.get("/Annots", [])):
            if "/Dest" in annotation:
                assert annotation["/Dest"] in handout.anchors
                inner += 1
            else:
                assert annotation["/A"]["/URI"].startswith(("http", "mailto:"))
    assert inner > 100 * len(handout.notebooks)


def test_every_font_is_embedded(handout):
    fonts = {}
    for page in handout.reader.pages:
        for font in page["/Resources"].get("/Font", {}).values():
            fonts[font.idnum] = font.get_object()
    assert len(fonts) > 5
    for font in fonts.values():
        if font["/Subtype"] == "/Type3":  # Its glyphs are drawings in the file.
            assert font["/CharProcs"]
            continue
        inner = font["/DescendantFonts"][0] if "/DescendantFonts" in font else font
        files = {"/FontFile", "/FontFile2", "/FontFile3"}
        assert files & set(inner.get_object()["/FontDescriptor"])


def test_the_file_says_what_it_is(handout):
    root = handout.reader.trailer["/Root"]
    assert handout.reader.metadata.title.startswith("Papers you can run")
    assert handout.reader.metadata.author == "The iclrtut contributors"
    assert root["/Lang"] == "en-GB"
    assert root["/MarkInfo"]["/Marked"]
    assert root["/ViewerPreferences"]["/DisplayDocTitle"]


def test_the_joined_document_is_sound(handout, browser):
    """On paper nothing is wider than its place, asks elsewhere or complains."""
    width = tool("pdf").COLUMN
    tab = open_tab(browser, viewport={"width": width, "height": 900})
    tab.page.goto(handout.document.as_uri())
    tab.page.emulate_media(media="print")
    tab.page.evaluate(tool("pdf").FIT)
    wider = tab.page.evaluate(WIDER, width)
    ids = tab.page.evaluate(
        "() => [...document.querySelectorAll('[id]')]"
        ".filter((node) => !node.closest('svg')).map((node) => node.id)"
    )
    small = tab.page.evaluate(
        "() => [...document.querySelectorAll('td, th, small, pre, figcaption')]"
        ".map((node) => parseFloat(getComputedStyle(node).fontSize))"
    )
    tab.page.context.close()
    assert wider == []
    assert sorted(ids) == sorted(set(ids))
    assert round(min(small) * 72 / 96, 2) >= 7
    assert tab.foreign == tab.errors == []


@pytest.mark.parametrize("name", PAPER)
def test_a_page_of_the_site_fits_on_paper(site, browser, name):
    """A4 with a browser's margins, and narrower; in the dark theme too."""
    tab = open_tab(browser, color_scheme="dark")
    tab.page.goto(f"{site}/{name}.html")
    tab.page.evaluate("() => document.fonts.ready")
    tab.page.emulate_media(media="print", color_scheme="dark")
    for width in (718, 604):
        tab.page.set_viewport_size({"width": width, "height": 1000})
        assert tab.page.evaluate(WIDER, None) == []
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    shades = tab.page.evaluate(SHADES)
    tab.page.context.close()
    assert shades["paper"] == 1.0
    assert shades["words"] < 0.45
