"""Take what is inline out of the built pages, so that a strict policy can be served.

`Content-Security-Policy: default-src 'self' data:` runs no script and applies no style
that stands in the HTML, and the theme and the notebooks' outputs are full of them. So
each inline script becomes a file, read at the same place; each style element becomes a
sheet at the end of the head; each style attribute becomes a class with its own rule.
What two pages share is one file. A notebook keeps everything inline and stands alone.
"""

import hashlib
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path

from sphinx.application import Sphinx

FOLDER = "_static/inline"
WITHIN = r"""(?:[^>"']|"[^"]*"|'[^']*')*"""
TAG = re.compile(
    rf"<!--.*?-->|<(script|style)\b({WITHIN})>(.*?)</\1\s*>|<[a-z]{WITHIN}>",
    re.DOTALL | re.IGNORECASE,
)
ATTRIBUTE = re.compile(r"""\s+([^\s=>"'/]+)(?:=("[^"]*"|'[^']*'|[^\s"'>]+))?""")
SCRIPTS = {None, "", "module", "text/javascript", "application/javascript"}


def tighten(page: str, keep: Callable[[str, str], str]) -> str:
    """A page without inline scripts and styles.

    Args:
        page: the HTML.
        keep: stores a text under an ending, "js" or "css", and returns its address.
    """
    rules: dict[str, str] = {}
    sheets: dict[str, None] = {}

    def outside(found: re.Match[str]) -> str:
        tag, head, body = found.groups()
        if found[0].startswith("<!--"):
            return found[0]
        if tag is None:
            return unstyled(found[0], rules)
        given = attributes(f"<{tag}{head}>")
        if tag.lower() == "style":
            sheets[f'<link rel="stylesheet"{head} href="{keep(body, "css")}"/>'] = None
            return ""
        if "src" in given or given.get("type") not in SCRIPTS:
            return found[0]
        return f'<script{head} src="{keep(quiet(body), "js")}"></script>'

    page = TAG.sub(outside, page)
    if rules:
        # An attribute outranks every selector; an id lifts this nearly as high, and,
        # beginning with the class it is tried on the elements of that class alone.
        sheet = "\n".join(
            f".{name}:not(#_) {{ {text} }}" for name, text in rules.items()
        )
        sheets[f'<link rel="stylesheet" href="{keep(sheet, "css")}"/>'] = None
    return page.replace("</head>", "\n".join([*sheets, "</head>"]), 1)


def unstyled(tag: str, rules: dict[str, str]) -> str:
    """A start tag with a class for its style attribute; the rule goes into `rules`."""
    given = attributes(tag)
    if "style" not in given:
        return tag
    name = f"s-{digest(given['style'])}"
    rules[name] = given["style"]
    classes = f"{given.get('class', '')} {name}".strip()
    rest = ATTRIBUTE.sub(
        lambda found: "" if found[1].lower() in ("style", "class") else found[0], tag
    )
    return re.sub(r"^<[^\s/>]+", rf'\g<0> class="{classes}"', rest)


def attributes(tag: str) -> dict[str, str]:
    """The attributes of a start tag; of those without a value, the empty text."""
    return {
        found[1].lower(): unescape(unquoted(found[2] or ""))
        for found in ATTRIBUTE.finditer(tag)
    }


def unquoted(value: str) -> str:
    """The value of an attribute without the quotes around it, if there are any."""
    return value[1:-1] if value[:1] in ('"', "'") else value


def digest(text: str) -> str:
    """A short name for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def tighten_all(folder: Path) -> None:
    """Rewrite every page of a built site; templates below `_static` are no pages."""
    for file in sorted(folder.rglob("*.html")):
        where = file.relative_to(folder)
        if where.parts[0] == "_static":
            continue

        def keep(
            text: str, ending: str, up: str = "../" * (len(where.parts) - 1)
        ) -> str:
            name = f"{FOLDER}/{digest(text)}.{ending}"
            (folder / FOLDER).mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
            return up + name

        page = file.read_text(encoding="utf-8")
        file.write_text(tighten(page, keep), encoding="utf-8")


def quiet(script: str) -> str:
    """A script of the theme that no longer tells the console what it does."""
    return re.sub(r"console\.log\((?=[\"'`]\[PST\])", "void(", script)


def finish(app: Sphinx, error: Exception | None) -> None:
    """Tighten what was built, unless building failed."""
    if error is None and app.builder.format == "html":
        tighten_all(Path(app.outdir))
        theme = Path(app.outdir) / "_static/scripts/pydata-sphinx-theme.js"
        theme.write_text(quiet(theme.read_text("utf-8")), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    # Before every other script.
    app.add_js_file("strict.js", priority=100)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
