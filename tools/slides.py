r"""Make a deck of slides a chapter from its executed notebook: `_build/slides`.

No deck is written by hand. What stands on a slide is chosen by rule: the idea and its
picture; the outcomes; each numbered equation with the sentence that leads to it and
the check that it passed; each theorem or remark; each short transcription; each
figure; each claim with its verdict; the statement of each exercise, without its
solution; what to remember. All prose goes into the speaker's notes.

nbconvert has an exporter for slides, but it shows cells as they are; here an equation
is a slide and a cell is not. So the Markdown is parsed by the parser that the site's
own stands on (markdown-it with its plug-in for formulas), and Jinja lays the slides
out. The deck runs on reveal.js, formulas on the site's MathJax.
"""

import base64
import hashlib
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, groupby
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode
from markupsafe import escape
from mdit_py_plugins.dollarmath import dollarmath_plugin
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from tqdm import tqdm

TREE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TREE))
OUT = TREE / "_build" / "slides"
WORDS = 60  # visible on a slide, formulas apart
TITLE, LEAST, LEAD, AFTER, CHECKS, LINES = 7, 22, 40, 20, 2, 12
IDEA, OUTCOMES = "The idea in one picture", "What you will be able to do"
CODE, BREAKS, EXERCISES = "From mathematics to code", "Where it breaks", "Exercises"
REMEMBER = "What to remember, and what came after"
UNSEEN = ("Set-up", "Run card")
# So many points of a figure fit a slide when its text of 14 points is shown 24 px high.
ROOM = (690, 303)
PANELS = re.compile(
    r'<div class="panels" role="img" aria-label="([^"]*)"'
    r'(?: data-value="([^"]*)")?(?: hidden)?>(.*?)</div>',
    re.S,
)
TAG = re.compile(r"\\tag\{(\d+\w*)[^}]*\}")
CHECK = re.compile(r"✓ ((?:\(\d+\w*\) )+).*")
BOX = re.compile(
    r"\*\*(?P<head>(?P<kind>[A-Z][a-z ]*?)(?: \d+\w*)?(?: \(.*?\))?)\.\*\*"
)
ROW = re.compile(r"\*\*(\w+)\*\* (.*?)(?: \*The paper: (.*)\.\*)?")
ELSEWHERE = re.compile(r"(?<!!)\[([^\]]*)\]\((?!http|#eq-|data:)[^)]*\)")
INK = (
    "<style>:root{color:#23201c;--accent:#93281b}@media(prefers-color-scheme:dark)"
    "{:root{color:#e4dfd5;--accent:#f19a84}}</style>"
)


class Block(NamedTuple):
    """A piece of a notebook, in reading order; `text` is Markdown where it is prose."""

    kind: str
    text: str = ""
    data: Any = None


@dataclass
class Slide:
    """One slide; the template says how each kind looks."""

    kind: str
    title: str
    id: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


# Markdown ---------------------------------------------------------------------


def parser() -> MarkdownIt:
    """Markdown as the notebooks use it; formulas are left to MathJax."""
    md = MarkdownIt("commonmark", {"html": True}).enable("table")
    md.use(dollarmath_plugin, allow_labels=False, double_inline=True)
    md.validateLink = lambda url: True  # type: ignore[method-assign]
    for rule, (start, end) in {
        "math_inline": (r"\(", r"\)"),
        "math_inline_double": (r"\[", r"\]"),
        "math_block": (r"\[", r"\]"),
    }.items():
        md.add_render_rule(
            rule,
            lambda self, tokens, i, options, env, s=start, e=end: (
                f"{s}{escape(tokens[i].content)}{e}"
            ),
        )
    return md


MD = parser()


def inline(text: str) -> str:
    """A line of Markdown as HTML; links to other pages of the book are dropped."""
    return MD.renderInline(ELSEWHERE.sub(r"\1", text).replace("](#", "](#/"))


def words(text: str) -> int:
    """How many words Markdown or HTML shows; a formula counts as none."""
    text = re.sub(
        r"\$\$.*?\$\$|\$.*?\$|\\\(.*?\\\)|<.*?>|\]\(.*?\)", " ", text, flags=re.S
    )
    return len(re.findall(r"\w[\w’'.,-]*", text))


def sentences(text: str) -> list[str]:
    """The sentences of a paragraph; none is cut inside a formula or emphasis."""
    merged: list[str] = []
    for part in re.split(r"(?<=[.!?])\s+(?=[^a-z])", " ".join(text.split())):
        if merged and unfinished(merged[-1]):
            merged[-1] += f" {part}"
        else:
            merged.append(part)
    return merged


def unfinished(text: str) -> bool:
    """Whether a formula, an emphasis or a bracket is still open."""
    prose = re.sub(r"\$.*?\$", "", text)
    return bool(
        prose.count("$") % 2
        or prose.count("*") % 2
        or prose.count("(") > prose.count(")")
        or prose.count("[") > prose.count("]")
    )


def opening(text: str, budget: int) -> str:
    """The first sentence of a paragraph, and as many more as the budget allows."""
    parts: list[str] = []
    for sentence in sentences(text):
        if parts and words(" ".join([*parts, sentence])) > budget:
            break
        parts.append(sentence)
    return inline(" ".join(parts))


def closing(text: str, budget: int, continues: bool = False) -> str:
    """The last sentence of a paragraph, and as many before it as the budget allows.

    The end of a sentence that began before a formula is left out.
    """
    parts: list[str] = []
    whole = sentences(text)
    for sentence in reversed(whole[1:] if continues and whole[1:] else whole):
        if parts and words(" ".join([sentence, *parts])) > budget:
            break
        parts.insert(0, sentence)
    return inline(" ".join(parts))


def packs(items: list[Any], size: Any, budget: int) -> list[list[Any]]:
    """Share items out, in order, so that no group is over the budget if it can be."""
    groups: list[list[Any]] = []
    left = 0
    for item in items:
        if not groups or size(item) > left:
            groups.append([])
            left = budget
        groups[-1].append(item)
        left -= size(item)
    return groups


# The notebook as blocks -------------------------------------------------------


def blocks(notebook: Any) -> Iterator[Block]:
    """The pieces of a notebook in reading order; solutions are left out."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            yield from prose(cell.source)
        else:
            yield from executed(cell)


def prose(source: str) -> Iterator[Block]:
    """The pieces of a text cell."""
    # The parser glues the words of an alt text at a line break.
    source = re.sub(r"!\[[^\]]*\]", lambda m: " ".join(m[0].split()), source)
    folded = 0
    for node in SyntaxTreeNode(MD.parse(source)).children:
        if node.type == "html_block":
            folded += node.content.count("<details") - node.content.count("</details>")
        elif not folded:
            yield from piece(node)


def piece(node: SyntaxTreeNode) -> Iterator[Block]:
    """The blocks of one node of a text cell."""
    if node.type == "heading":
        yield Block(node.tag, node.children[0].content)
    elif node.type == "math_block":
        yield Block("formula", node.content)
    elif node.type == "paragraph":
        images = [child for child in node.children[0].children if child.type == "image"]
        if images:
            yield Block("drawing", images[0].content, images[0].attrs["src"])
        else:
            yield Block("text", node.children[0].content)
    elif node.type in ("ordered_list", "bullet_list"):
        items = [leaves(item)[0].content for item in node.children]
        yield Block("list", "\n".join(items), items)
    elif node.type == "blockquote":
        yield from boxed(node)


def boxed(node: SyntaxTreeNode) -> Iterator[Block]:
    """A box with its head, if the quote is one."""
    texts = [
        f"$${leaf.content}$$" if leaf.type == "math_block" else leaf.content
        for leaf in leaves(node)
    ]
    head = BOX.match(texts[0]) if texts else None
    if head:
        body = [texts[0][head.end() :].strip(), *texts[1:]]
        yield Block("box", "\n\n".join(body), head[1])


def leaves(node: SyntaxTreeNode) -> list[SyntaxTreeNode]:
    """The inline texts and formulas under a node."""
    return [n for n in node.walk() if n.type in ("inline", "math_block")]


def executed(cell: Any) -> Iterator[Block]:
    """What a code cell brings: itself, its checks, its figures and tables of claims."""
    if "def " in cell.source and not cell.metadata.get("tags"):
        yield Block("code", cell.source)
    for output in cell.outputs:
        for line in CHECK.finditer(output.get("text", "")):
            yield Block("check", line[0], re.findall(r"\w+", line[1]))
        data = output.get("data", {})
        if "text/html" in data:
            yield figure(data["text/html"])
        elif "text/markdown" in data:
            yield from table(data["text/markdown"])


def figure(page: str) -> Block:
    """A figure, a slider over frames or a widget, taken out of its HTML."""
    caption = re.findall(r"<figcaption>(.*?)</figcaption>", page, re.S)[-1]
    if '<div class="play" ' in page:
        mark, alt = re.search(
            r'data-play="(\w+)".*?<div class="play" role="group" aria-label="(.*?)"',
            page,
        ).groups()
        script = page[page.rindex("<script>") + 8 : page.rindex("</script>")]
        return Block("widget", caption, {"mark": mark, "alt": alt, "script": script})
    frames = [
        {"alt": alt, "value": value, "pictures": list(map(picture, svgs(panels)))}
        for alt, value, panels in PANELS.findall(page)
    ]
    label = re.search(r"<label><span>(.*?)</span>", page)
    return Block("figure", caption, {"frames": frames, "label": label and label[1]})


def svgs(panels: str) -> list[str]:
    """The drawings of a group of panels."""
    return re.findall(r"<svg.*?</svg>", panels, re.S)


def picture(svg: str) -> dict[str, Any]:
    """A drawing as a file of its own that knows its ink, in light and dark."""
    width, height = map(
        float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups()
    )
    svg = re.sub(r' style="width:[^"]*"| xmlns="[^"]*"', "", svg, count=2)
    namespace = '<svg xmlns="http://www.w3.org/2000/svg" font-family="Georgia, serif"'
    svg = re.sub(r"<svg([^>]*)>", rf"{namespace}\1>{INK}", svg, count=1)
    name = hashlib.sha256(svg.encode()).hexdigest()[:12]
    return {"file": f"{name}.svg", "svg": svg, "width": width, "height": height}


def table(text: str) -> Iterator[Block]:
    """The rows of a table of claims."""
    rows = [
        [cell.children[0].content for cell in row.children]
        for row in SyntaxTreeNode(MD.parse(text)).walk()
        if row.type == "tr"
    ]
    claims = [row for row in rows[1:] if ROW.fullmatch(row[0])]
    if claims:
        yield Block("claims", data=claims)


# Blocks as slides -------------------------------------------------------------


def deck(slug: str, notebook: Any) -> list[Slide]:
    """The slides of a chapter.

    Args:
        slug: the chapter.
        notebook: its executed notebook.
    """
    every_block = list(blocks(notebook))
    parts: list[tuple[str, list[Block]]] = [("", [])]
    for block in every_block:
        if block.kind == "h2":
            parts.append((block.text, []))
        else:
            parts[-1][1].append(block)
    outputs: dict[str, list[str]] = {}
    for title, pieces in parts:
        for block in pieces if title != EXERCISES else ():
            for number in block.data if block.kind == "check" else ():
                outputs.setdefault(number, []).append(block.text)
    slides: list[Slide] = []
    for title, pieces in parts:
        if title not in UNSEEN:
            make = SHAPES.get(title, story)
            slides += make(title, pieces, Context(slug, outputs))
    return slides


class Context(NamedTuple):
    """What a slide may need from elsewhere: the chapter, and checks by equation."""

    slug: str
    outputs: dict[str, list[str]]


def cover(title: str, pieces: list[Block], context: Context) -> list[Slide]:
    """The title, the authors and the paper."""
    head, lead = pieces[0], pieces[1]
    return [Slide("cover", inline(head.text), data={"lead": inline(lead.text)})]


def idea(title: str, pieces: list[Block], context: Context) -> list[Slide]:
    """The idea in its sentences, beside its picture; few at a time."""
    text, drawing = pieces[0], pieces[1]
    svg = base64.b64decode(drawing.data.partition("base64,")[2]).decode()
    shared = {"alt": drawing.text, "picture": picture(svg)}
    slides = [
        Slide("idea", title, data={"lead": inline(" ".join(group)), **shared})
        for group in packs(sentences(text.text), words, WORDS - TITLE)
    ]
    slides[-1].notes = [block.text for block in pieces[2:]]
    return slides


def outcomes(title: str, pieces: list[Block], context: Context) -> list[Slide]:
    """What the reader will be able to do, on as few slides as can be read."""
    return listed(title, next(b.data for b in pieces if b.kind == "list"))


def remember(title: str, pieces: list[Block], context: Context) -> list[Slide]:
    """The sentences before the claims are listed again."""
    texts = [block for block in pieces if block.kind in ("text", "list")]
    first = next(i for i, block in enumerate(texts) if block.kind == "list")
    slides = listed("What to remember", sentences(texts[0].text))
    slides[-1].notes = [block.text for block in texts[1 : first + 1]]
    return slides


def listed(title: str, items: list[str]) -> list[Slide]:
    """A list, on several slides if it has too many words for one."""
    starts, slides = 1, []
    for group in packs(items, words, WORDS):
        data = {"items": list(map(inline, group)), "start": starts}
        slides.append(Slide("list", title, data=data))
        starts += len(group)
    return slides


def exercises(title: str, pieces: list[Block], context: Context) -> list[Slide]:
    """The statements, one a slide."""
    slides = [Slide("part", title, data={"lead": opening(pieces[0].text, LEAD)})]
    for block in pieces:
        if block.kind == "box":
            id = re.sub(r" \(.*", "", block.data).lower().replace(" ", "-")
            slides.append(Slide("box", block.data, id, {"head": "", **boxes(block)}))
    return slides


def story(title: str, pieces: list[Block], context: Context) -> list[Slide]:
    """A part of the chapter: its equations, boxes, figures, claims and code."""
    slides = [Slide("part", title, data={"lead": ""})]
    if pieces and pieces[0].kind == "text":
        slides[0].data["lead"] = opening(pieces[0].text, LEAD)
    section, anchor, waiting = title, slugged(title), []
    for i, block in enumerate(pieces):
        around = [
            pieces[j] if 0 <= j < len(pieces) else Block("") for j in (i - 1, i + 1)
        ]
        if block.kind == "h3":
            slides[-1].notes += waiting
            section, anchor, waiting = inline(block.text), slugged(block.text), []
        new = shown(title, block, around, context)
        for slide in new:
            slide.title, slide.data["anchor"] = section, anchor
        if block.kind in ("text", "list", "box") or (
            block.kind == "formula" and not new
        ):
            text = block.text if block.kind != "formula" else f"$${block.text}$$"
            waiting.append(text)
        if new:
            new[0].notes, waiting = waiting, []
            slides += new
    slides[-1].notes += waiting
    return slides


def shown(
    part: str, block: Block, around: list[Block], context: Context
) -> list[Slide]:
    """The slides of one block; none if it is only spoken."""
    before, after = around
    lead = before.text if before.kind == "text" else ""
    if block.kind == "formula" and (tag := TAG.search(block.text)):
        more = opening(after.text, AFTER) if continues(after) else ""
        data = {"tex": block.text, "after": more, **checked(tag[1], context)}
        taken = TITLE + words(more) + sum(map(words, data["checks"]))
        data["lead"] = closing(
            lead, max(LEAST, min(LEAD, WORDS - taken)), continues(before)
        )
        return [Slide("formula", "", f"eq-{tag[1]}", data)]
    if block.kind == "box":
        tag = TAG.search(block.text)
        data = {"head": block.data, **boxes(block)}
        if tag:
            data |= checked(tag[1], context)
        return [Slide("box", "", f"eq-{tag[1]}" if tag else "", data)]
    if block.kind == "figure":
        return pictured(block)
    if block.kind == "widget":
        return [Slide("widget", "", data=block.data | {"caption": block.text})]
    if block.kind == "claims":
        return judged(block, context)
    if block.kind == "code" and part == CODE:
        lines = [line for line in block.text.split("\n") if line.strip()]
        if len(lines) <= LINES:
            coloured = highlight(block.text, PythonLexer(), HtmlFormatter(nowrap=True))
            return [
                Slide("code", "", data={"lead": closing(lead, LEAD), "code": coloured})
            ]
    if block.kind == "text" and part == BREAKS and before.kind == "h3":
        return [Slide("text", "", data={"lead": opening(block.text, WORDS - TITLE)})]
    return []


def continues(block: Block) -> bool:
    """Whether a paragraph goes on with a sentence that a formula interrupted."""
    return block.kind == "text" and block.text[:1].islower()


def slugged(heading: str) -> str:
    """A heading's anchor on the chapter's page."""
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")


def boxes(block: Block) -> dict[str, Any]:
    """The paragraphs of a box."""
    paragraphs = [inline(text) for text in block.text.split("\n\n")]
    return {"paragraphs": paragraphs, "checks": [], "more": 0}


def checked(number: str, context: Context) -> dict[str, Any]:
    """The lines that an equation's checks printed, the first few of them."""
    lines = list(dict.fromkeys(context.outputs.get(number, [])))
    return {"checks": lines[:CHECKS], "more": len(lines[CHECKS:])}


def pictured(block: Block) -> list[Slide]:
    """A figure as large as the slide allows; panels that would be small get another."""
    frames, label = block.data["frames"], block.data["label"]
    pages = [frames]
    if len(frames) == 1:
        rows = packs(frames[0]["pictures"], lambda p: p["width"], ROOM[0])
        high = packs(rows, lambda row: max(p["height"] for p in row), ROOM[1])
        pages = [[frames[0] | {"pictures": list(chain(*page))}] for page in high]
    return [
        Slide(
            "figure",
            "",
            data={
                "frames": page,
                "label": label,
                "caption": block.text,
                "wide": wide(page[0]["pictures"]),
            },
        )
        for page in pages
    ]


def wide(pictures: list[dict[str, Any]]) -> bool:
    """Whether a caption is better below the pictures than beside them."""
    width = sum(picture["width"] for picture in pictures)
    return width >= 2 * max(picture["height"] for picture in pictures)


def judged(block: Block, context: Context) -> list[Slide]:
    """Claims with their verdicts; those that share a statistic may share a slide."""
    from iclrtut import claims

    declared = claims.chapter(context.slug)
    rows = []
    for what, verdict, interval, rule, _ in block.data:
        id, sentence, paper = ROW.fullmatch(what).groups()
        interval = interval.partition(" (")[0].replace("\u00a0", " ")
        over, _, seeds = interval.partition(", n = ")
        lead, colon, rest = sentence.partition(": ")
        row = {
            "id": id,
            "sentence": rest or sentence,
            "paper": paper or "",
            "verdict": verdict.strip("*"),
            "interval": over,
        }
        rule = f"Holds when the {rule}; {seeds} seeds."
        rows.append(
            (declared.claim(id).statistic, rule, lead + colon if rest else "", row)
        )
    slides = []
    for (statistic, rule, lead), group in groupby(rows, key=lambda row: row[:3]):
        taken = TITLE + words(f"Measured {statistic} {rule} {lead}")
        for page in packs([row for *_, row in group], said_of, WORDS - taken):
            data = {"rows": page, "statistic": statistic, "rule": rule, "lead": lead}
            slides.append(Slide("claims", "", data=data))
    return slides


def said_of(row: dict[str, str]) -> int:
    """How many words a claim takes on a slide; its name is not shown."""
    return sum(words(text) for name, text in row.items() if name != "id")


SHAPES = {
    "": cover,
    IDEA: idea,
    OUTCOMES: outcomes,
    EXERCISES: exercises,
    REMEMBER: remember,
}

# Files ------------------------------------------------------------------------


def chapters(tree: Path = TREE) -> list[str]:
    """The chapters of the table of contents, in the order of the book."""
    toc = yaml.safe_load((tree / "_toc.yml").read_text(encoding="utf-8"))
    files = [entry["file"] for part in toc["parts"] for entry in part["chapters"]]
    return [Path(f).name for f in files if f.startswith("notebooks/")]


def build(out: Path = OUT) -> list[Path]:
    """Write a deck for each chapter, a page that lists them, and what they need.

    Args:
        out: the folder; what stood there is replaced.

    Returns:
        The pages that were written; the list of decks is the first.

    Raises:
        SystemExit: a notebook is missing.
    """
    templates = Environment(
        loader=FileSystemLoader(TREE / "tools"),
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    shutil.rmtree(out, ignore_errors=True)
    static = out / "_static"
    for name in ("reveal", "mathjax", "fonts"):
        vendored = TREE / "book" / "_static" / "vendor" / name
        shutil.copytree(vendored, static / "vendor" / name)
    for name in ("deck.css", "deck.js"):
        shutil.copy(TREE / "tools" / name, static)
    sheets = [TREE / "iclrtut" / name for name in ("figures.css", "play.css")]
    text = "\n".join(sheet.read_text("utf-8") for sheet in sheets)
    (static / "play.css").write_text(text, encoding="utf-8")
    pages, decks = [out / "index.html"], {}
    for slug in tqdm(chapters(), desc="slides"):
        source = TREE / "notebooks" / f"{slug}.ipynb"
        if not source.is_file():
            sys.exit(f"slides: {source.name} is missing: run `make notebooks`.")
        slides = deck(slug, nbformat.read(source, as_version=4))
        decks[slug] = slides[0].title
        files(slides, static / slug)
        for slide in slides:
            slide.notes = [inline(note) for note in slide.notes]
        page = templates.get_template("slides.html").render(slug=slug, slides=slides)
        pages.append(out / f"{slug}.html")
        pages[-1].write_text(page, encoding="utf-8")
    page = templates.get_template("decks.html").render(decks=decks)
    pages[0].write_text(page, encoding="utf-8")
    return pages


def files(slides: list[Slide], folder: Path) -> None:
    """Write the pictures and scripts of a deck."""
    folder.mkdir(parents=True)
    for slide in slides:
        pictures = [slide.data["picture"]] if "picture" in slide.data else []
        for frame in slide.data.get("frames", []):
            pictures += frame["pictures"]
        for each in pictures:
            (folder / each["file"]).write_text(each["svg"], encoding="utf-8")
        if slide.kind == "widget":
            script = folder / f"{slide.data['mark']}.js"
            script.write_text(slide.data["script"], encoding="utf-8")


if __name__ == "__main__":
    print(f"slides: open {build()[0]}")
