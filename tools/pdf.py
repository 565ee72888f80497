"""Print the whole book as a handout on A4, `_build/iclrtut.pdf`.

Run as `python tools/pdf.py`; it needs the Chromium that tools/browser.py finds. The
pages of the site are opened one by one and typeset there, their articles joined into
one document, and that is printed twice: the second time with the page numbers that the
first print shows.
"""

import json
import runpy
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

TREE = Path(__file__).resolve().parents[1]
SITE = runpy.run_path(str(TREE / "tools" / "site.py"))
BROWSER = runpy.run_path(str(TREE / "tools" / "browser.py"))
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
# The width of the column in CSS pixels: A4 less the margins of tools/pdf.css.
COLUMN = 604
PASSES = 5
FILL = """(numbers) => document.querySelectorAll(".page").forEach((node) => {
  node.textContent = numbers[node.dataset.to] ?? "000"; })"""
HEADINGS = """() => [...document.querySelectorAll("h1, h2, h3, h4")]
  .map((node) => node.textContent.replace(/\\s+/g, " ").trim())"""
# An equation that is wider than the column becomes smaller.
FIT = """() => document.querySelectorAll("div.math").forEach((node) => {
  const room = node.clientWidth / node.scrollWidth;
  const size = parseFloat(getComputedStyle(node).fontSize);
  if (room < 1) node.style.fontSize = `${0.99 * room * size}px`; })"""


def main() -> None:
    """Build the site if it is stale, print the book, and say where it is."""
    if not SITE["fresh"]():
        SITE["build"]()
    print(f"pdf: open {handout(TREE / '_build', SITE['contents']())}")


def handout(
    folder: Path, names: list[str], site: Path = TREE / "_build" / "html"
) -> Path:
    """Print pages of the built site.

    Args:
        folder: where `iclrtut.html`, the joined document, and `iclrtut.pdf` go.
        names: the pages, in order.
        site: the folder of built pages.

    Raises:
        SystemExit: no Chromium was found, or the page numbers do not settle.
    """
    from playwright.sync_api import sync_playwright

    path = BROWSER["chromium"]()
    if path is None:
        sys.exit("pdf: no Chromium was found: install Chromium, then run it again.")
    source, target = folder / "iclrtut.html", folder / "iclrtut.pdf"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        view = {"width": COLUMN, "height": 900}
        context = browser.new_context(viewport=view, offline=True, color_scheme="light")
        page = context.new_page()
        chapters = [
            harvest(page, site, name, names)
            for name in tqdm(names, desc="pages", unit="page")
        ]
        source.write_text(document(chapters), encoding="utf-8")
        page.goto(source.as_uri())
        page.emulate_media(media="print")
        page.evaluate("() => document.fonts.ready")
        page.evaluate(FIT)
        press(page, target)
        finish(target, page.evaluate(HEADINGS))
        browser.close()
    return target


def harvest(page: Any, site: Path, name: str, names: list[str]) -> dict[str, Any]:
    """One page of the site, taken apart by tools/pdf.js."""
    page.goto((site / f"{name}.html").as_uri())
    script = (TREE / "tools" / "pdf.js").read_text(encoding="utf-8")
    about = {"page": name, "pages": names, "site": f"{site.as_uri()}/"}
    return page.evaluate(script, about)


def press(page: Any, target: Path) -> None:
    """Print until the page numbers that are printed are those of the print."""
    numbers: dict[str, int] = {}
    for _ in range(PASSES):
        page.evaluate(FILL, numbers)
        page.pdf(
            path=target,
            prefer_css_page_size=True,
            print_background=True,
            outline=True,
            tagged=bool(numbers),
        )
        before, numbers = numbers, page_numbers(target)
        if numbers == before:
            return
    sys.exit("pdf: the page numbers do not settle: shorten a line of the contents.")


def page_numbers(pdf: Path) -> dict[str, int]:
    """The page, counted from 1, of each anchor that a link of the document leads to."""
    from pypdf import PdfReader

    reader = PdfReader(pdf)
    at = {page.indirect_reference.idnum: i + 1 for i, page in enumerate(reader.pages)}
    return {
        name.removeprefix("/"): at[there.page.idnum]
        for name, there in reader.named_destinations.items()
    }


def finish(pdf: Path, headings: list[str]) -> None:
    """Name the authors, let readers show the title, and mend the bookmarks.

    Chromium names a bookmark by what it drew: without the space at the end of a line.
    """
    from pypdf import PdfWriter
    from pypdf.generic import (
        BooleanObject,
        DictionaryObject,
        NameObject,
        TextStringObject,
    )

    writer = PdfWriter(pdf, incremental=True)
    writer.add_metadata({"/Author": authors()})
    marks = list(bookmarks(writer.root_object["/Outlines"].get_object()))
    for mark, heading in zip(marks, headings, strict=True):
        mark[NameObject("/Title")] = TextStringObject(heading)
    show = {NameObject("/DisplayDocTitle"): BooleanObject(True)}
    writer.root_object[NameObject("/ViewerPreferences")] = DictionaryObject(show)
    writer.write(pdf)


def bookmarks(node: Any) -> Iterator[Any]:
    """All entries below a node of the outline, in reading order."""
    at = node.get("/First")
    while at is not None:
        entry = at.get_object()
        yield entry
        yield from bookmarks(entry)
        at = entry.get("/Next")


def document(chapters: list[dict[str, Any]]) -> str:
    """All pages as one HTML document."""
    styles = dict.fromkeys(style for each in chapters for style in each["styles"])
    sheets = dict.fromkeys(sheet for each in chapters for sheet in each["sheets"])
    links = "".join(f'<link rel="stylesheet" href="{sheet}">' for sheet in sheets)
    rules = (TREE / "tools" / "pdf.css").read_text(encoding="utf-8")
    solutions = {"id": "solutions", "title": "Solutions", "html": answers(chapters)}
    solutions["sections"] = [
        {"id": f"solutions--{each['id']}", "title": escape(each["title"])}
        for each in chapters
        if each["solutions"]
    ]
    bound = [*chapters, solutions]
    body = "".join(
        f'<article class="bd-article" id="{each["id"]}">{each["html"]}</article>'
        for each in bound
    )
    return f"""<!DOCTYPE html>
<html lang="en-GB" data-theme="light" data-mode="light"><head><meta charset="utf-8">
<title>{escape(citation()["title"])}</title>{links}
<style>{"".join(styles)}{rules}{"".join(map(running_head, bound))}</style></head>
<body><div class="bd-main"><div class="bd-content"><div class="bd-article-container">
{title_page()}{table_of_contents(bound)}{body}</div></div></div></body></html>"""


def title_page() -> str:
    """Title, authors, what it is, and where it comes from."""
    cited = citation()
    title, _, subtitle = cited["title"].partition(": ")
    sign = (TREE / "book" / "_static" / "logo.svg").read_text(encoding="utf-8")
    return f"""<section class="title-page">{sign}<p class="title">{escape(title)}</p>
<p class="subtitle">{escape(subtitle)}</p><p class="by">{escape(authors())}</p>
<p>{escape(cited["abstract"])}</p><p class="imprint">Version {cited["version"]},
{cited["date-released"]}. Code under the MIT licence, text and figures under CC BY 4.0.
Source, and the site on which figures move and sounds are heard:
<a href="{cited["repository-code"]}">{cited["repository-code"]}</a></p></section>"""


def table_of_contents(bound: list[dict[str, Any]]) -> str:
    """Parts, chapters and sections with their pages, which `press` fills in."""
    toc = yaml.safe_load((TREE / "_toc.yml").read_text(encoding="utf-8"))
    parts = {
        part["chapters"][0]["file"].replace("/", "-"): part["caption"]
        for part in toc["parts"]
    } | {"solutions": "Appendix"}
    lines = ""
    for each in bound:
        if each["id"] in parts:
            lines += f'<p class="part">{escape(parts[each["id"]])}</p>'
        lines += entry("chapter", each["id"], escape(each["title"]))
        for section in each["sections"]:
            lines += entry("section", section["id"], section["title"])
    return f'<section class="contents"><h1>Contents</h1>{lines}</section>'


def entry(kind: str, to: str, title: str) -> str:
    """A line of the contents."""
    line = f'<span>{title}</span><span class="page" data-to="{to}"></span>'
    return f'<p class="entry {kind}"><a href="#{to}">{line}</a></p>'


def answers(chapters: list[dict[str, Any]]) -> str:
    """The appendix: solutions by chapter, each with the way back to its exercise."""
    made = "<h1>Solutions</h1>"
    for each in chapters:
        if not each["solutions"]:
            continue
        made += f'<section id="solutions--{each["id"]}">'
        made += f"<h2>{escape(each['title'])}</h2>"
        for one in each["solutions"]:
            to = one["id"].replace("--solution-", "--exercise-")
            back = f'<a href="#{to}">{one["name"].replace("Solution", "Exercise")}</a>'
            made += (
                f'<section class="solution" id="{one["id"]}"><h3>{one["name"]}</h3>'
                f'<p class="way">{back}, page <span class="page" data-to="{to}"></span>'
                f"</p>{one['html']}</section>"
            )
        made += "</section>"
    return made


def running_head(chapter: dict[str, Any]) -> str:
    """The style that sets a chapter on pages of its own, under its title."""
    id, title = chapter["id"], json.dumps(chapter["title"], ensure_ascii=False)
    return (
        f"#{id} {{ page: {id} }} @page {id} {{ @top-right {{ content: {title} }} }}\n"
    )


def citation() -> dict[str, Any]:
    """What CITATION.cff says."""
    return yaml.safe_load((TREE / "CITATION.cff").read_text(encoding="utf-8"))


def authors() -> str:
    """Who made the book."""
    return ", ".join(author["name"] for author in citation()["authors"])


if __name__ == "__main__":
    main()
