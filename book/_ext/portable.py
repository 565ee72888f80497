r"""Turn the portable form of a chapter into the site's form.

A chapter is written so that JupyterLab, Colab and this site can all render it. Here

* an equation with `\tag{n}` gets the anchor `eq-n`; formulas.py sets it;
* a block quote that begins `**Kind n (name).**` becomes a box with the anchor `kind-n`;
* `<details><summary>Kind n</summary>` becomes a fold with the anchor `kind-n`;
* `(n)` in the text becomes a link to equation n, where the page has one;
* a drawing (`.svg`) is set inline, so that it takes the colours of the page;
* an output of `✓ (n)` lines becomes a calm list that links to its equations, and each
  checked equation gets a tick that links back.

A duplicate number, a dangling link, a link that names another number than it leads
to, an unknown kind of box and a fold that does not close fail the build.
"""

import base64
import json
import re
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

LOG = logging.getLogger(__name__)
KINDS = (
    *("Proposition", "Theorem", "Lemma", "Corollary", "Definition", "Claim"),
    *("Example", "Exercise", "Algorithm", "Remark", "Caution", "Take away"),
)
TAG = re.compile(r"\\tag\{(\d+\w*)[^}]*\}")
HEAD = re.compile(
    r"(?P<kind>[A-Z][a-z ]*?)(?: (?P<number>\d+\w*))?(?P<note> \(.*\))?\."
)
CHECK = re.compile(r"✓ ((?:\(\d+\w*\) )+)(.*)")
FOLD = re.compile(r"<details>(\s*<summary>(.*?)</summary>)(.*)", re.DOTALL)
ALT = re.compile(r"!\[[^\]]*\]")
MENTION = re.compile(r"(?<![\w)\]])\((\d+[a-z]?)\)")
NUMBERED = re.compile(r"[A-Z][a-z]+ \d+\w*")


class Block(nodes.General, nodes.Element):
    """A plain `<div>`, without the class `container` that docutils and themes share."""


class Portable(SphinxTransform):
    """Convert one page. Runs before MyST resolves `[...](#...)` links (879)."""

    default_priority = 500

    def apply(self, **options: Any) -> None:
        """Convert the page in place."""
        self.anchors: dict[str, str] = {}
        for convert in (self.equations, self.boxes, self.folds, self.checks):
            convert()
        self.links()
        self.mentions()
        self.pictures()
        self.claims()
        slugs = self.env.metadata[self.env.docname].setdefault("myst_slugs", {})
        slugs.update({id: (0, id, title) for id, title in self.anchors.items()})

    def anchor(self, node: nodes.Element, id: str, title: str) -> None:
        """Give a node its anchor; a second one of the same name fails the build."""
        if id in self.anchors:
            LOG.warning("%s stands twice on this page", title, location=node)
        self.anchors[id] = title
        node["ids"].append(id)

    def equations(self) -> None:
        """Anchor numbered equations and keep Sphinx from wrapping any."""
        for node in list(self.document.findall(nodes.math_block)):
            if node.get("label") or node["nowrap"]:
                continue
            if tag := TAG.search(node.astext()):
                self.anchor(node, f"eq-{tag[1]}", f"Equation ({tag[1]})")
            node["nowrap"] = True

    def boxes(self) -> None:
        """Turn block quotes with a bold head into boxes."""
        for quote in list(self.document.findall(nodes.block_quote)):
            words = quote[0].children if quote.children else []
            strong = next((word for word in words if word.astext()), None)
            if not isinstance(strong, nodes.strong):
                continue
            head = HEAD.fullmatch(strong.astext())
            if not head or head["kind"] not in KINDS:
                message = "%r is no kind of box: use one of %s"
                LOG.warning(message, strong.astext(), ", ".join(KINDS), location=quote)
                continue
            title = head["kind"] + (f" {head['number']}" if head["number"] else "")
            box = Block("", *quote.children, classes=["box", slug(head["kind"])])
            box["label"] = title
            if head["number"]:
                self.anchor(box, slug(title), title + (head["note"] or ""))
            split_note(strong, head["note"] or "")
            quote.parent.replace(quote, box)

    def folds(self) -> None:
        """Style and anchor `<details>`; the Markdown inside stays Markdown."""
        depth = 0
        for raw in list(self.document.findall(nodes.raw)):
            html = raw.astext()
            if "details" not in html or is_output(raw):
                continue
            depth += html.count("<details") - html.count("</details>")
            fold = FOLD.match(html)
            if not fold:
                continue
            if fold[3].strip():
                LOG.warning("leave a blank line after </summary>", location=raw)
            summary = re.sub("<.*?>", "", fold[2]).strip()
            name = ""
            if NUMBERED.fullmatch(summary):
                self.anchor(Block(), slug(summary), summary)
                name = f' id="{slug(summary)}"'
            raw[:] = [nodes.Text(f'<details class="fold"{name}>{fold[1]}')]
        if depth:
            LOG.warning("<details> and </details> do not pair", location=self.document)

    def checks(self) -> None:
        """Set check lines as a list of links, and give checked equations a tick."""
        first: dict[str, str] = {}
        for output in list(self.document.findall(nodes.literal_block)):
            lines = output.astext().rstrip("\n").split("\n")
            if "stream" not in output["classes"] or not any(
                map(CHECK.fullmatch, lines)
            ):
                continue
            parts: list[nodes.Node] = []
            for is_check, run in groupby(
                lines, key=lambda ln: bool(CHECK.fullmatch(ln))
            ):
                if is_check:
                    made = [self.check(line, output, first) for line in run]
                    parts.append(Block("", *made, classes=["checks"]))
                else:
                    rest = "\n".join(run)
                    parts.append(nodes.literal_block(rest, rest, **output.attributes))
            output.parent.replace(output, parts)
        for node in list(self.document.findall(nodes.math_block)):
            numbers = [id[3:] for id in node["ids"] if id[3:] in first]
            for number in numbers:
                title = f"Equation ({number}) is checked by running: see the check"
                tick = nodes.inline("", "", classes=["tick"])
                tick += to(first[number], "✓", {first[number]: title})
                whole = Block("", node.deepcopy(), tick, classes=["equation"])
                node.parent.replace(node, whole)

    def check(
        self, text: str, output: nodes.Element, first: dict[str, str]
    ) -> nodes.paragraph:
        """One check line; it is the target of the equations that it checks first."""
        found = CHECK.fullmatch(text)
        assert found
        line = nodes.paragraph("", "✓ ", classes=["check"])
        for number in re.findall(r"\w+", found[1]):
            if f"eq-{number}" not in self.anchors:
                LOG.warning("no equation (%s)", number, location=output)
            if number not in first:
                first[number] = f"check-{number}"
                line["ids"].append(first[number])
            line += to(f"eq-{number}", f"({number})", self.anchors)
            line += nodes.Text(" ")
        line += nodes.Text(found[2])
        return line

    def links(self) -> None:
        """Resolve links to this page's anchors and name what they lead to."""
        for link in self.document.findall(nodes.reference):
            target = link.get("refuri", "")[1:]
            if not link.get("id_link") or target not in self.anchors:
                continue
            shown = re.fullmatch(r"\((\w+)\)", link.astext())
            if shown and target != f"eq-{shown[1]}":
                message = "the link %s leads to %s"
                LOG.warning(message, link.astext(), target, location=link)
            del link["refuri"], link["id_link"]
            link["refid"], link["reftitle"] = target, self.anchors[target]

    def mentions(self) -> None:
        """Link each `(n)` in the text that names an equation of this page."""
        for text in list(self.document.findall(nodes.Text)):
            if not isinstance(text.parent, (nodes.paragraph, nodes.emphasis)):
                continue
            if within(text, nodes.reference) or "check" in text.parent["classes"]:
                continue
            parts = MENTION.split(text)
            if not any(f"eq-{number}" in self.anchors for number in parts[1::2]):
                continue
            words: list[nodes.Node] = []
            for i, part in enumerate(parts):
                id = f"eq-{part}"
                if i % 2 and id in self.anchors:
                    words.append(to(id, f"({part})", self.anchors))
                else:
                    words.append(nodes.Text(f"({part})" if i % 2 else part))
            text.parent.replace(text, words)

    def claims(self) -> None:
        """Mark tables of claims, whose rows are blocks on a phone."""
        for table in self.document.findall(nodes.table):
            if head := next(table.findall(nodes.entry), None):
                table["classes"] += ["claims"] * (head.astext() == "claim")

    def pictures(self) -> None:
        """Set drawings inline, so that they take the colours of the page."""
        here = Path(self.env.doc2path(self.env.docname)).parent
        for image in list(self.document.findall(nodes.image)):
            scheme, _, data = image["uri"].partition(":")
            if scheme == "svg":
                svg = base64.b64decode(data).decode("utf-8")
            elif (here / image["uri"]).suffix == ".svg":
                svg = (here / image["uri"]).read_text("utf-8")
            else:
                continue
            named = f'aria-label="{escape(image["alt"])}"'
            svg = re.sub(r'aria-labelledby="[^"]*"', lambda _, n=named: n, svg)
            picture = nodes.raw("", svg, format="html", classes=["drawing"])
            image.parent.replace(image, picture)


def read(app: Sphinx, page: str, source: list[str]) -> None:
    """Mend the Markdown of a page, or of a notebook's text, before it is parsed."""
    if not app.env.doc2path(page).endswith(".ipynb"):
        source[0] = mend(source[0])
        return
    notebook = json.loads(source[0])
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = mend("".join(cell["source"]))
    source[0] = json.dumps(notebook)


def mend(text: str) -> str:
    """Work around two habits of the Markdown parser.

    It glues the words of an alt text at a line break, and it takes an embedded drawing
    for a danger.
    """
    text = ALT.sub(lambda found: " ".join(found[0].split()), text)
    return text.replace("](data:image/svg+xml;base64,", "](svg:")


def slug(title: str) -> str:
    """`Exercise 2` as an anchor: `exercise-2`."""
    return title.lower().replace(" ", "-")


def to(id: str, text: str, titles: dict[str, str]) -> nodes.reference:
    """A link to an anchor of this page."""
    link = nodes.reference("", text, refid=id, internal=True)
    link["reftitle"] = titles.get(id, "")
    return link


def split_note(strong: nodes.strong, note: str) -> None:
    """Take the note in parentheses out of a box's bold head."""
    strong["classes"].append("head")
    if not note or len(strong) != 1:
        return
    title = strong.astext().removesuffix(f"{note}.")
    strong[:] = [nodes.Text(title)]
    at = strong.parent.index(strong)
    strong.parent.insert(at + 1, nodes.inline("", note + ".", classes=["note"]))


def within(node: nodes.Node, kind: type[nodes.Node]) -> bool:
    """Whether a node lies inside a node of that kind."""
    while node := node.parent:
        if isinstance(node, kind):
            return True
    return False


def is_output(node: nodes.Node) -> bool:
    """Whether a node belongs to what a cell printed, not to the text."""
    while node := node.parent:
        if "mime_type" in getattr(node, "attributes", {}):
            return True
    return False


def visit_block(translator: Any, node: Block) -> None:
    """Open the `<div>`, named for screen readers where it has a label."""
    named = {"role": "group", "aria-label": node["label"]} if "label" in node else {}
    translator.body.append(translator.starttag(node, "div", **named))


def depart_block(translator: Any, node: Block) -> None:
    """Close the `<div>`."""
    translator.body.append("</div>\n")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_node(Block, html=(visit_block, depart_block))
    app.add_transform(Portable)
    app.connect("source-read", read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
