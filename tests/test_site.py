"""The built site, walked in a browser with the network off."""

import functools
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest
from bs4 import BeautifulSoup
from conftest import STILL, TREE, open_tab, sample, tool

PAGES = tool("site").contents()
NOTEBOOKS = [page for page in PAGES if page.startswith("notebooks/")]
# One page; the rest of them tonight.
KINDS = sample([NOTEBOOKS[0], *sorted(set(PAGES) - {NOTEBOOKS[0]})])
AXE = TREE / "tests" / "vendor" / "axe.min.js"
MIB = 2**20
# One walk over a page; the tests below ask about one aspect each.
FACTS = """() => ({
  formulas: document.querySelectorAll(".math").length,
  spoken: document.querySelectorAll(".math math annotation").length,
  broken: [...document.querySelectorAll(".math")]
    .filter((node) => !node.querySelector(".katex-html")?.getClientRects)
    .map((node) => node.textContent),
  mute: [...document.querySelectorAll("img, svg, canvas")].filter((node) => {
    if (node.closest("[aria-hidden=true], [role=img] *, .thebe")) return false;
    const name = node.getAttribute("alt") ?? node.getAttribute("aria-label")
      ?? node.querySelector("title")?.textContent
      ?? (node.closest("[role=img]") ?? node.closest("button, label"))?.textContent;
    return !name || /^[0-9a-f]{20,}|\\.(png|svg)$/.test(name);
  }).map((node) => node.outerHTML.slice(0, 120)),
})"""
# Classes that stand for a style attribute and have no rule.
UNRULED = """() => {
  const rules = [...document.styleSheets].flatMap((sheet) => [...sheet.cssRules]);
  const there = rules.map((rule) => rule.selectorText).join();
  const named = [...document.querySelectorAll("[class*='s-']")]
    .flatMap((node) => [...node.classList]).filter((name) => /^s-\\w{10}$/.test(name));
  return [...new Set(named)].filter((name) => !there.includes(name));
}"""
DRAWN = """() => new Promise((done) =>
  requestAnimationFrame(() => requestAnimationFrame(done)))"""
WIDER = """() => document.documentElement.scrollWidth > innerWidth
  ? [...document.querySelectorAll(".bd-main *")]
      .filter((node) => node.getBoundingClientRect().right > innerWidth + 1)
      .map((node) => node.tagName + "." + node.className).slice(0, 5)
  : []"""
# The policy refuses the style element through which axe would preload the sheets.
VIOLATIONS = """([where, only]) => axe.run(where ?? document, {
  resultTypes: ["violations"], preload: {assets: ["media"]}, ...only,
}).then((found) => ({
  rules: ["passes", "violations", "incomplete", "inapplicable"]
    .flatMap((kind) => found[kind].map((rule) => rule.id)),
  broken: found.violations.flatMap((rule) => rule.nodes.map(
    (node) => rule.id + ": " + node.html.slice(0, 160))),
}))"""
# The rules that a theme can break; formulas have the colour of their line.
THEMED = ["color-contrast", "link-in-text-block"]
PLAIN = {"exclude": [[".katex"]]}
# When the first picture of the article is there, or nothing if the page has none.
FIRST_PICTURE = """const look = () => {
  const node = document.querySelector("article :is(img, svg, canvas):not(button *)");
  if (node?.clientHeight && (node.complete ?? true))
    requestAnimationFrame(() => { window.firstPicture = performance.now(); });
  else if (!node && document.readyState === "complete") window.firstPicture = null;
  else requestAnimationFrame(look);
};
requestAnimationFrame(look);"""


def typeset(page: Any) -> None:
    """Wait until the fonts are there and every formula fits."""
    page.wait_for_load_state("load")
    page.evaluate("() => document.fonts.ready")


@pytest.fixture(scope="session")
def visits(site, browser):
    """Every page, visited once: what it asked for, said, weighs and shows.

    Weights and times are left in `_build/page_weights.json`, which the tool of that
    name prints.
    """
    found = {name: visit(f"{site}/{name}.html", browser) for name in PAGES}
    facts = ("weight", "requests", "first_picture", "rules")
    table = {
        name: {fact: getattr(seen, fact) for fact in facts}
        for name, seen in found.items()
    }
    file = TREE / "_build" / "page_weights.json"
    file.write_text(json.dumps(table, indent=1) + "\n")
    return found


def visit(url: str, browser: Any) -> SimpleNamespace:
    """Walk over one page at two widths."""
    tab = open_tab(browser, viewport={"width": 1280, "height": 900})
    page, weights, missing = tab.page, [], []

    def weigh(response: Any) -> None:
        if response.status >= 400:
            missing.append(response.url)
        weights.append(int(response.headers.get("content-length", 0)))

    page.on("response", weigh)
    page.add_init_script(FIRST_PICTURE)
    page.goto(url)
    typeset(page)
    found = SimpleNamespace(
        weight=sum(weights),
        requests=len(weights),
        missing=missing,
        **page.evaluate(FACTS),
    )
    found.first_picture = page.evaluate("window.firstPicture")
    found.unruled = page.evaluate(UNRULED)
    page.evaluate(AXE.read_text("utf-8"))
    page.evaluate(STILL)
    axe = page.evaluate(VIOLATIONS, [None, {}])
    found.rules, found.inaccessible = axe["rules"], axe["broken"]
    page.set_viewport_size({"width": 390, "height": 844})
    page.evaluate("document.querySelectorAll('details').forEach((d) => d.open = true)")
    page.evaluate(DRAWN)
    found.wider = page.evaluate(WIDER)
    found.refused = page.evaluate("refused")
    found.foreign, found.errors = tab.foreign, tab.errors
    page.context.close()
    return found


@functools.cache
def soup(built: Path, name: str) -> BeautifulSoup:
    """A page's HTML, parsed once."""
    return BeautifulSoup((built / f"{name}.html").read_text("utf-8"), "html.parser")


@functools.cache
def ids(built: Path, name: str) -> list[str]:
    """All anchors of a page."""
    return [node["id"] for node in soup(built, name).select("[id]")]


def test_the_site_was_built_without_a_warning(built):
    assert tool("site").fresh()


def test_there_are_as_many_pages_as_the_contents_name(built):
    made = {f.relative_to(built).as_posix()[:-5] for f in built.rglob("*.html")}
    made = {name for name in made if not name.startswith("_")}
    assert made - {"index", "search"} == set(PAGES)


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(
    "aspect",
    [
        *("foreign", "missing", "refused", "unruled", "errors", "broken", "mute"),
        *("inaccessible", "wider"),
    ],
)
def test_a_page_has_no(visits, name, aspect):
    assert getattr(visits[name], aspect) == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_weighs_at_most_three_megabytes(visits, name):
    assert 0 < visits[name].weight <= 3 * MIB


def test_the_first_picture_of_a_chapter_is_timed(visits):
    kept = json.loads((TREE / "_build" / "page_weights.json").read_text("utf-8"))
    assert set(kept) == set(PAGES)
    assert all(visits[name].first_picture > 0 for name in NOTEBOOKS)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_was_held_against_every_rule_of_axe(visits, name):
    # A rule counts once, though it may have passed here and failed there.
    assert len(set(visits[name].rules)) >= 80


@pytest.mark.parametrize("name", KINDS)
def test_a_page_can_be_read_in_the_dark(site, browser, name):
    page = open_tab(browser).page
    page.goto(f"{site}/{name}.html")
    typeset(page)
    page.evaluate(AXE.read_text("utf-8"))
    page.evaluate(STILL)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    found = page.evaluate(VIOLATIONS, [PLAIN, {"runOnly": THEMED}])
    assert set(found["rules"]) == set(THEMED)
    assert found["broken"] == []
    page.context.close()


@pytest.mark.parametrize("name", PAGES)
def test_formulas_are_set_and_can_be_read_aloud(visits, name):
    assert visits[name].spoken == visits[name].formulas


@pytest.mark.parametrize("name", [*PAGES, "search"])
def test_a_page_loads_no_formula_engine(built, name):
    scripts = [node["src"] for node in soup(built, name).select("script[src]")]
    assert [src for src in scripts if re.search("mathjax|katex", src, re.I)] == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_chapter_shows_all_its_formulas(visits, name):
    cells = json.loads((TREE / f"{name}.ipynb").read_text("utf-8"))["cells"]
    prose = "".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    assert visits[name].formulas >= len(re.findall(r"\$\$.+?\$\$", prose, re.S)) > 0


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(built, name):
    dead = []
    for link in soup(built, name).select("[href], [src]"):
        address = link.get("href") or link["src"]
        url, anchor = urldefrag(urljoin(f"{name}.html", address))
        parts = urlsplit(url)
        if parts.scheme == "data" and link.name != "a":
            continue
        if parts.scheme or parts.netloc:
            if parts.scheme != "https" or "." not in parts.netloc or " " in url:
                dead.append(address)
            continue
        file = built / unquote(parts.path)
        there = file.is_file()
        if there and anchor and file.suffix == ".html":
            there = unquote(anchor) in ids(built, parts.path.removesuffix(".html"))
        if not there:
            dead.append(address)
    assert dead == []


@pytest.mark.parametrize("name", PAGES)
def test_ids_are_unique(built, name):
    found = ids(built, name)
    assert sorted(found) == sorted(set(found))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_buttons_of_a_chapter_are_right(built, name):
    page, where = soup(built, name), "github.com/iclrtut/iclrtut"
    colab, download, source = (
        page.select_one(f"a.page-link-{kind}")["href"]
        for kind in ("colab", "download", "source")
    )
    path = where.removeprefix("github.com/")
    assert colab == (
        f"https://colab.research.google.com/github/{path}/blob/main/{name}.ipynb"
    )
    given = (built / name).parent / download
    assert given.read_bytes() == (TREE / f"{name}.ipynb").read_bytes()
    slug = name.removeprefix("notebooks/")
    assert source == f"https://{where}/blob/main/book/chapters/{slug}.md"
    assert (TREE / "book" / "chapters" / f"{slug}.md").is_file()


@pytest.mark.parametrize("name", sorted(set(PAGES) - set(NOTEBOOKS)))
def test_buttons_of_a_text_page_are_right(built, name):
    page = soup(built, name)
    assert page.select("a.page-link-colab, a.page-link-download") == []
    source = page.select_one("a.page-link-source")["href"]
    assert source == f"https://github.com/iclrtut/iclrtut/blob/main/{name}.md"
    assert (TREE / f"{name}.md").is_file()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_chapter_shows_all_its_cells_and_checks(built, name):
    cells = json.loads((TREE / f"{name}.ipynb").read_text("utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code" and cell["source"]]
    page = soup(built, name)
    assert len(page.select("div.cell")) == len(code) > 0
    numbers = set(
        re.findall(r"\\tag\{(\d+\w*)\}", json.dumps(cells).replace("\\\\", "\\"))
    )
    checked = {a["href"].removeprefix("#eq-") for a in page.select("p.check a")}
    assert numbers and numbers <= checked


def test_the_ledger_has_a_row_for_every_judged_claim(built):
    from iclrtut import ledger

    rows = ledger.rows(TREE / "records")
    shown = soup(built, "book/ledger").select(".ledger tbody tr")
    words = [row.select_one(".verdict").get_text(strip=True) for row in shown]
    assert sorted(words) == sorted(row["verdict"] for row in rows)


def test_the_cover_shows_every_chapter_once(built):
    page = soup(built, "book/index")
    cards = page.select(".chapter h3 a")
    assert [a["href"] for a in cards] == [f"../{name}.html" for name in NOTEBOOKS]
    planned = page.select(".planned li")
    parts = pages_plan()
    assert len(cards) + len(planned) == sum(map(len, parts.values())) == 14


def pages_plan() -> dict[str, dict[str, str]]:
    import yaml

    return yaml.safe_load((TREE / "book" / "plan.yml").read_text("utf-8"))


def test_the_root_leads_to_the_cover(site, page):
    page.goto(f"{site}/index.html")
    page.wait_for_url("**/book/index.html")


@pytest.mark.parametrize("word", ["Langevin", "undecided"])
def test_search_finds_a_word(site, page, word):
    page.goto(f"{site}/search.html?q={word}")
    found = page.locator("#search-results li a").first
    found.wait_for()
    found.click()
    page.wait_for_load_state()
    assert word.lower() in page.locator("article").inner_text().lower()


def test_the_search_page_is_accessible(site, page):
    page.goto(f"{site}/search.html?q=energy")
    page.locator("#search-results li a").first.wait_for()
    page.evaluate(AXE.read_text("utf-8"))
    assert page.evaluate(VIOLATIONS, [None, {}])["broken"] == []


def test_search_opens_by_keyboard(site, page):
    page.goto(f"{site}/book/preface.html")
    page.keyboard.press("Control+k")
    page.locator(".search-button__wrapper.show input").wait_for()
    page.keyboard.type("Langevin")
    page.keyboard.press("Enter")
    page.locator("#search-results li a").first.wait_for()


def test_the_theme_switches_and_is_remembered(site, page):
    page.goto(f"{site}/book/preface.html")
    paint = "getComputedStyle(document.body).backgroundColor"
    seen = set()
    for _ in range(3):
        page.locator(".theme-switch-button").click()
        seen.add(
            (page.locator("html").get_attribute("data-theme"), page.evaluate(paint))
        )
    assert {theme for theme, _ in seen} == {"light", "dark"}
    assert len(seen) == 2
    chosen = page.locator("html").get_attribute("data-mode")
    page.reload()
    assert page.locator("html").get_attribute("data-mode") == chosen


def test_the_contents_open_on_a_phone(site, page):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{site}/book/preface.html")
    link = page.locator(".bd-sidebar-primary nav a").first
    assert not link.is_visible()
    page.locator(".primary-toggle").first.click()
    link.wait_for()
    link.click()
    page.wait_for_load_state()


@pytest.mark.parametrize("name", sample(NOTEBOOKS))
def test_a_link_to_an_equation_shows_it(site, page, name):
    page.goto(f"{site}/{name}.html")
    typeset(page)
    link = page.locator('article p a[href^="#eq-"]').first
    link.scroll_into_view_if_needed()
    page.wait_for_timeout(1000)  # scrolling puts the preview away
    link.hover()
    page.locator(".preview .katex").first.wait_for()


@pytest.mark.parametrize("name", KINDS)
def test_a_page_opens_from_a_folder(built, browser, name):
    tab = open_tab(browser)
    tab.page.goto((built / f"{name}.html").as_uri())
    typeset(tab.page)
    assert tab.page.evaluate(FACTS)["broken"] == []
    tab.page.context.close()
    assert (tab.errors, tab.foreign) == ([], [])


def test_search_works_from_a_folder(built, browser):
    tab = open_tab(browser)
    tab.page.goto((built / "search.html").as_uri() + "?q=Langevin")
    tab.page.locator("#search-results li a").first.wait_for()
    tab.page.context.close()
    assert (tab.errors, tab.foreign) == ([], [])


def test_what_is_vendored_is_listed_with_its_licence():
    vendor = TREE / "book" / "_static" / "vendor"
    listed = (vendor / "README.md").read_text("utf-8")
    for folder in (path for path in vendor.iterdir() if path.is_dir()):
        assert f"{folder.name}/" in listed
        assert list(folder.glob("*LICENSE*")) or list(folder.glob("OFL*"))
