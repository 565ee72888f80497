"""The words of the notation page, explained where a chapter uses them.

Each row of a table of symbols gets an anchor. A word that a row explains becomes a
quiet link to it where a section of a chapter first says it; `book.js` shows the meaning
when the link is pointed at.

A row explains a word when its first cell is plain text (several words stand between
commas), or when its meaning sets the word in *italics*. A chapter has the words of its
own table, which begins with the line `Of [*title*](chapter)`, and of the tables without
such a line. Where two explain the same word, the chapter's own wins.
"""

import re
from itertools import groupby
from typing import Any, NamedTuple
from urllib.parse import unquote

from docutils import nodes
from portable import Block
from sphinx import addnodes
from sphinx.application import Sphinx

NOTATION = "book/notation"
# Everyday words first of all: a link at each would say what nobody asks.
COMMON = {"in", "out", "change"}
# What is not marked: links, headings, code, and the small print around figures.
LEAVE = (
    *(nodes.reference, addnodes.pending_xref, nodes.title, nodes.literal, nodes.math),
    *(nodes.strong, nodes.inline, nodes.caption, nodes.table, nodes.raw),
)


class Row(NamedTuple):
    """A row that explains words: its anchor, and both of its cells."""

    id: str
    symbol: list[nodes.Node]
    meaning: list[nodes.Node]


class Table(NamedTuple):
    """A table of the notation page.

    Attributes:
        id: anchor of its section.
        chapter: the page that it belongs to, or "" when it holds everywhere.
        words: the rows that explain a word, by the word in lower case.
    """

    id: str
    chapter: str
    words: dict[str, Row]


def anchor(app: Sphinx, doctree: nodes.document) -> None:
    """Give each row of the notation page an anchor, made of its section and symbol."""
    if app.env.docname != NOTATION:
        return
    taken: set[str] = set()
    for section, table in tables(doctree):
        for row in rows(table):
            id = nodes.make_id(f"{section['ids'][0]} {row[0].astext()}")
            while id in taken:
                id += "-2"
            taken.add(id)
            row["ids"].append(id)


def tables(doctree: nodes.document) -> list[tuple[nodes.section, nodes.table]]:
    """The tables of symbols and words, each with the section it stands in."""
    return [
        (section, table)
        for section in doctree.findall(nodes.section)
        for table in section.children
        if isinstance(table, nodes.table)
        if next(iter(table.findall(nodes.entry))).astext().startswith("symbol")
    ]


def rows(table: nodes.table) -> list[nodes.row]:
    """The rows below a table's head."""
    return [row for body in table.findall(nodes.tbody) for row in body.children]


def read(doctree: nodes.document) -> list[Table]:
    """All tables of an anchored notation page."""
    found = []
    for section, table in tables(doctree):
        words: dict[str, Row] = {}
        for row in rows(table):
            symbol, meaning = (inside(cell) for cell in row.children[:2])
            for word in explained(symbol, meaning):
                words.setdefault(word, Row(row["ids"][0], symbol, meaning))
        found.append(Table(section["ids"][0], owner(section), words))
    return found


def inside(cell: nodes.entry) -> list[nodes.Node]:
    """What stands in a cell, out of its paragraph."""
    return [part for paragraph in cell.children for part in paragraph.children]


def explained(symbol: list[nodes.Node], meaning: list[nodes.Node]) -> list[str]:
    """The words that a row explains, in lower case."""
    said = [part.astext() for part in meaning if isinstance(part, nodes.emphasis)]
    if all(isinstance(part, nodes.Text) for part in symbol):
        said += "".join(part.astext() for part in symbol).split(", ")
    return [word.lower() for word in said if word.lower() not in COMMON]


def owner(section: nodes.section) -> str:
    """The chapter that a section names in its line `Of [*title*](chapter)`."""
    for paragraph in section.children:
        if isinstance(paragraph, nodes.paragraph) and paragraph.astext()[:3] == "Of ":
            for link in paragraph.findall(nodes.Element):
                target = unquote(link.get("reftarget") or link.get("refuri") or "")
                if target:
                    return re.sub(r"^(\.\./)+|\.\w+$", "", target)
    return ""


def vocabulary(found: list[Table], page: str) -> dict[str, Row]:
    """The words that are explained on a page; its own table wins."""
    words: dict[str, Row] = {}
    for table in sorted(found, key=lambda table: table.chapter != page):
        if table.chapter in (page, ""):
            words = table.words | words
    return words


def pattern(words: dict[str, Row]) -> re.Pattern[str]:
    """Matches any of the words, whole, in the singular or with a plural s."""

    def one(word: str) -> str:
        return re.escape(word.removesuffix("s")).replace(r"\ ", r"\s+") + "s?"

    longest = sorted(words, key=len, reverse=True)
    return re.compile(rf"(?<![\w-])({'|'.join(map(one, longest))})(?![\w-])", re.I)


def mark(doctree: nodes.document, words: dict[str, Row], address: str) -> list[Row]:
    """Link the first mention of each word in every section of the second level.

    Args:
        doctree: the page, changed in place.
        words: what `vocabulary` gave.
        address: of the notation page, from here.

    Returns:
        The rows that were linked to, in the order of the page.
    """
    join(doctree)
    find = pattern(words)
    by_stem = {word.removesuffix("s"): row for word, row in words.items()}
    met: set[tuple[int, str]] = set()
    used: dict[str, Row] = {}
    for text in list(doctree.findall(nodes.Text)):
        if not is_prose(text):
            continue
        here = chapter_section(text)
        parts: list[nodes.Node] = []
        end = 0
        # In italics a word stands alone; more of them are a title.
        alone = isinstance(text.parent, nodes.emphasis)
        mentions = [find.fullmatch(text)] if alone else find.finditer(text)
        for found in filter(None, mentions):
            stem = " ".join(found[0].lower().split()).removesuffix("s")
            row = by_stem[stem]
            if (here, row.id) in met:
                continue
            met.add((here, row.id))
            used[row.id] = row
            link = nodes.reference("", found[0], refuri=f"{address}#{row.id}")
            link["internal"], link["classes"] = True, ["word"]
            parts += [nodes.Text(text[end : found.start()]), link]
            end = found.end()
        if parts:
            text.parent.replace(text, [*parts, nodes.Text(text[end:])])
    return list(used.values())


def join(doctree: nodes.document) -> None:
    """Make one text of neighbours: the parser splits them at the end of a line."""
    for parent in doctree.findall(nodes.TextElement):
        if not isinstance(parent, (nodes.paragraph, nodes.emphasis)):
            continue
        groups = groupby(parent.children, key=lambda part: isinstance(part, nodes.Text))
        parts = [(text, list(members)) for text, members in groups]
        parent[:] = [
            part
            for text, members in parts
            for part in ([nodes.Text("".join(members))] if text else members)
        ]


def is_prose(text: nodes.Text) -> bool:
    """Whether a text is the chapter's own prose, where words are explained."""
    around = above(text)
    return isinstance(around[0], (nodes.paragraph, nodes.emphasis)) and not any(
        isinstance(node, LEAVE)
        or "check" in node.get("classes", ())
        or "mime_type" in node.attributes
        for node in around
    )


def above(node: nodes.Node) -> list[nodes.Element]:
    """All that a node lies in, the nearest first."""
    found = []
    while node := node.parent:
        found.append(node)
    return found


def chapter_section(node: nodes.Node) -> int:
    """Names the section of the second level that a node lies in; 0 for none."""
    around = [one for one in above(node) if isinstance(one, nodes.section)]
    return id(around[-2]) if len(around) > 1 else 0


def meanings(used: list[Row]) -> list[nodes.Node]:
    """The cards, at the end of the page and out of sight."""
    cards = [
        Block(
            "",
            nodes.strong("", "", *(part.deepcopy() for part in row.symbol)),
            nodes.Text(": "),
            *(part.deepcopy() for part in row.meaning),
            ids=[f"meaning-{row.id}"],
        )
        for row in used
    ]
    return [Block("", *cards, classes=["meanings"])]


def resolve(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Mark the words of a chapter."""
    found = read(app.env.get_doctree(NOTATION))
    if page not in {table.chapter for table in found}:
        return
    address = app.builder.get_relative_uri(page, NOTATION)
    used = mark(doctree, vocabulary(found, page), address)
    doctree += meanings(used)


def add_link(app: Sphinx, page: str, template: str, context: Any, doctree: Any) -> None:
    """Lead from a chapter to its part of the notation page."""
    if doctree is None or NOTATION not in app.env.all_docs:
        return
    for table in read(app.env.get_doctree(NOTATION)):
        if table.chapter == page:
            context["notation"] = f"{context['pathto'](NOTATION)}#{table.id}"


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("doctree-read", anchor)
    app.connect("doctree-resolved", resolve)
    # Before the theme (500), which drops a template that has nothing to show.
    app.connect("html-page-context", add_link, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
