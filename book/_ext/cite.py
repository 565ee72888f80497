"""How to cite the book and each of its pages; everything is said in CITATION.cff."""

import re
from html import unescape
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

SPECIAL = re.compile(r"([&%$#_{}])")


def load(tree: Path) -> dict[str, Any]:
    """CITATION.cff of a tree."""
    return yaml.safe_load((tree / "CITATION.cff").read_text(encoding="utf-8"))


def names(cff: dict[str, Any]) -> list[str]:
    """The authors, an organisation by its name and a person given name first."""
    return [
        author.get("name") or f"{author['given-names']} {author['family-names']}"
        for author in cff["authors"]
    ]


def year(cff: dict[str, Any]) -> str:
    """The year of the release."""
    return str(cff["date-released"])[:4]


def sentence(cff: dict[str, Any], title: str = "", address: str = "") -> str:
    """A line for a list of references; of the whole book without a title."""
    part = f"{title}. In " if title else ""
    return (
        f"{', '.join(names(cff))} ({year(cff)}). {part}{cff['title']}, version "
        f"{cff['version']}. {address or cff['repository-code']}"
    )


def bibtex(
    cff: dict[str, Any], title: str = "", address: str = "", key: str = ""
) -> str:
    """A BibTeX entry; of the whole book without a title."""
    kept = [f"{{{tex(name)}}}" for name in names(cff)]
    note = f"version {cff['version']}"
    fields = {
        "title": tex(title or cff["title"]),
        "author": " and ".join(kept),
        "year": year(cff),
        "note": f"In: {tex(cff['title'])}, {note}" if title else note.capitalize(),
        "howpublished": rf"\url{{{address or cff['repository-code']}}}",
    }
    body = "".join(f"  {name:12} = {{{text}}},\n" for name, text in fields.items())
    return f"@misc{{{'-'.join(filter(None, ('iclrtut', key)))},\n{body}}}"


def tex(text: str) -> str:
    """A text with TeX's own characters escaped."""
    return SPECIAL.sub(r"\\\1", text)


def plain(title: str) -> str:
    """A page's title, which the theme has as HTML, as text."""
    return unescape(re.sub("<.*?>", "", title))


class CiteBook(SphinxDirective):
    """The BibTeX entry of the whole book."""

    def run(self) -> list[nodes.Node]:
        """Make a code block."""
        entry = bibtex(load(Path(self.env.srcdir)))
        return [nodes.literal_block(entry, entry, language="bibtex")]


def paper(app: Sphinx, page: str) -> tuple[str, str, str] | None:
    """The paper of a chapter, and page and anchor of its entry among the references."""
    from iclrtut import claims

    slug = page.rpartition("/")[2]
    for chapter in claims.chapters():
        for entry in app.env.get_domain("cite").citations:
            if chapter.slug == slug and entry.entry.fields.get("url") == chapter.url:
                where = entry.bibliography_key.docname
                return chapter.paper, where, entry.citation_id
    return None


def add_citation(
    app: Sphinx, page: str, template: str, context: Any, doctree: Any
) -> None:
    """Hand the citation of a page to the template at its end."""
    suffix = context.get("page_source_suffix")
    if doctree is None or not suffix:
        return
    cff = load(Path(app.srcdir))
    theme = app.config.html_theme_options
    address = (
        f"{theme['repository_url']}/blob/{theme['repository_branch']}/{page}{suffix}"
    )
    said = (cff, plain(context["title"]), address)
    if page == app.config.root_doc:
        said = (cff,)
    context["citation"] = {
        "sentence": sentence(*said),
        "bibtex": bibtex(*said, key=page.rpartition("/")[2]),
    }
    if found := paper(app, page):
        title, where, anchor = found
        context["citation"] |= {
            "paper": title,
            "target": f"{context['pathto'](where)}#{anchor}",
        }


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_directive("cite-book", CiteBook)
    # Before the theme (500), which drops a template that has nothing to show.
    app.connect("html-page-context", add_citation, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
