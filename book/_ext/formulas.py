"""Set every formula when the site is built, so that no page needs a formula engine.

KaTeX runs here, in the JavaScript engine of the package `mini-racer`. A formula becomes
HTML for the eye, with the fonts of `vendor/katex`, and MathML for screen readers, which
also keeps the LaTeX it was made from. One that KaTeX does not know fails the build.
"""

import functools
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from py_mini_racer import JSEvalException, MiniRacer
from sphinx.application import Sphinx
from sphinx.util import logging

LOG = logging.getLogger(__name__)
ENGINE = Path(__file__).parent / "katex"
# A display that is nothing but lines under each other.
STACK = re.compile(
    r"\\begin\{(aligned|gathered)\}(?P<body>.*)\\end\{\1\}(?P<mark>[.,;]?)\s*"
    r"(?P<tag>\\tag\{[^}]*\})?",
    re.DOTALL,
)
PART = re.compile(
    r"\\begin\{\w+\*?\}|\\end\{\w+\*?\}|\\\\(?:\[[^]]*\])?|\\.|[{}&]|[^\\{}&]+",
    re.DOTALL,
)


class BadFormula(ValueError):
    """A formula that cannot be set; the text says why."""


@functools.cache
def engine() -> MiniRacer:
    """KaTeX, started once."""
    racer = MiniRacer()
    for name in ("katex.min.js", "set.js"):
        racer.eval((ENGINE / name).read_text(encoding="utf-8"))
    return racer


@functools.cache
def typeset(tex: str, display: bool) -> str:
    """A formula as HTML.

    Args:
        tex: its LaTeX, without delimiters.
        display: whether it stands in a line of its own.

    Raises:
        BadFormula: KaTeX does not know it.
    """
    lines = stacked(tex.strip()) if display else []
    try:
        return str(engine().call("set", tex.strip(), display, lines))
    except JSEvalException as error:
        said = str(error).partition("KaTeX parse error: ")[2] or str(error)
        raise BadFormula(said.split("\n")[0].replace("\u0332", "")) from error


def stacked(tex: str) -> list[str]:
    """The lines of a display that is nothing but lines, each a formula of its own."""
    stack = STACK.fullmatch(tex)
    if not stack:
        return []
    lines, depth = [""], 0
    for part in PART.findall(stack["body"]):
        opens = part == "{" or part.startswith(r"\begin{")
        closes = part == "}" or part.startswith(r"\end{")
        depth += opens - closes
        if not depth and part.startswith("\\\\"):
            lines.append("")
        elif not depth and part == "&":
            # What stands between two operators keeps its spacing.
            lines[-1] += "" if lines[-1].strip() else "{}"
        else:
            lines[-1] += part
    lines[-1] += stack["mark"] + (stack["tag"] or "")
    return lines


def made(translator: Any, node: nodes.Element, display: bool) -> str:
    """The HTML of a node's formula, or of nothing where the build has to fail."""
    tex = node.astext()
    try:
        return typeset(tex, display)
    except BadFormula as error:
        page = translator.builder.current_docname
        message = "%s: the formula %r cannot be set: %s"
        LOG.warning(message, page, " ".join(tex.split()), error, location=node)
        return ""


def visit_inline(translator: Any, node: nodes.math) -> None:
    """A formula in a line of text."""
    html = made(translator, node, display=False)
    tag = translator.starttag(node, "span", "", CLASS="math notranslate")
    translator.body.append(f"{tag}{html}</span>")
    raise nodes.SkipNode


def visit_display(translator: Any, node: nodes.math_block) -> None:
    """A formula in a line of its own."""
    html = made(translator, node, display=True)
    tag = translator.starttag(node, "div", "", CLASS="math notranslate")
    translator.body.append(f"{tag}{html}</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_html_math_renderer("katex", (visit_inline, None), (visit_display, None))
    app.add_css_file("vendor/katex/katex.min.css", priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
