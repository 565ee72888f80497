"""The links at the top of each page: Colab, download, source."""

from typing import Any

from sphinx.application import Sphinx


def page_links(page: str, suffix: str, theme: dict[str, Any]) -> list[dict[str, Any]]:
    """The links of a page, in order.

    Args:
        page: path of the page without ending, from the repository's root.
        suffix: ending of its file, ".ipynb" or ".md".
        theme: the theme's options, which name repository, branch and Colab.

    Returns:
        Dicts with name, text, title, url, and download for what is not a page.
    """
    repository, branch = theme["repository_url"], theme["repository_branch"]
    source = f"{page}{suffix}"
    links = []
    if suffix == ".ipynb":
        path = repository.removeprefix("https://github.com/")
        colab = f"{theme['launch_buttons']['colab_url']}/github/{path}/blob/{branch}"
        source = f"book/chapters/{page.rpartition('/')[2]}.md"
        links += [
            link(
                "colab",
                "Colab",
                "Run this page on Google Colab",
                f"{colab}/{page}.ipynb",
            ),
            link("download", "Download", "Download this notebook", "", download=True),
        ]
    where = f"{repository}/blob/{branch}/{source}"
    return [*links, link("source", "Source", f"Read {source} on GitHub", where)]


def link(
    name: str, text: str, title: str, url: str, download: bool = False
) -> dict[str, Any]:
    """One link of the header."""
    return {
        "name": name,
        "text": text,
        "title": title,
        "url": url,
        "download": download,
    }


def add_links(
    app: Sphinx, page: str, template: str, context: Any, doctree: Any
) -> None:
    """Hand the links to the header's template; the theme's own buttons go unused."""
    suffix = context.get("page_source_suffix")
    if doctree is None or not suffix:
        return
    context["page_links"] = page_links(page, suffix, app.config.html_theme_options)
    for entry in context["page_links"]:
        if entry["download"]:
            entry["url"] = context["pathto"](f"_sources/{page}{suffix}", 1)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("html-page-context", add_links, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
