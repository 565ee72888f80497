"""The book's Sphinx extensions, on tiny documents."""

import base64
import io
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import buttons
import formulas
import pages
import portable
import pytest
from bs4 import BeautifulSoup
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

TREE = Path(__file__).resolve().parents[1]
CONFIG = {
    "extensions": ["myst_nb", "portable", "formulas"],
    "myst_enable_extensions": ["dollarmath"],
    "myst_dmath_double_inline": True,
    "nb_execution_mode": "off",
    "html_math_renderer": "katex",
    "html_theme": "basic",
    "nitpicky": True,
}


def notebook(printed: str, text: str) -> str:
    """A notebook of one text cell and one code cell that printed something."""
    stream = {"output_type": "stream", "name": "stdout", "text": printed}
    shared = {"metadata": {}, "id": "a"}
    cells = [
        {"cell_type": "markdown", "source": text, **shared},
        {
            "cell_type": "code",
            "source": "close()",
            "execution_count": 1,
            "outputs": [stream],
            **(shared | {"id": "b"}),
        },
    ]
    kernel = {
        "kernelspec": {"name": "python3", "display_name": "Python 3"},
        "language_info": {"name": "python"},
    }
    whole = {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole)


def render(folder: Path, text: str, **config: Any) -> tuple[str, str]:
    """Build one page; its HTML and the warnings."""
    ending = ".ipynb" if text.startswith("{") else ".md"
    title = "" if ending == ".ipynb" else "# Page\n\n"
    (folder / f"index{ending}").write_text(title + text, encoding="utf-8")
    warnings = io.StringIO()
    with docutils_namespace():
        app = Sphinx(
            folder, None, folder / "out", folder / "trees", "html",
            confoverrides=CONFIG | config, status=None, warning=warnings,
        )  # fmt: skip
        app.build()
    html = (folder / "out" / "index.html").read_text(encoding="utf-8")
    return html, re.sub(r"\x1b\[\S*?m", "", warnings.getvalue())


def test_numbered_equations_get_anchors_and_links_resolve(tmp_path):
    html, warnings = render(
        tmp_path,
        "$$\nx = 1 \\tag{7}\n$$\n\n$$y \\tag{8a, def.}$$\n\nBy [(7)](#eq-7) and (8a).",
    )
    assert warnings == ""
    assert 'id="eq-7"' in html and 'id="eq-8a"' in html
    link = re.search(r'<a class="reference internal" href="#eq-7"[^>]*>', html)
    assert link and 'title="Equation (7)"' in link[0]
    assert 'href="#eq-8a"' in html  # a bare mention is linked too


def test_a_formula_is_set_by_the_build_and_keeps_its_source(tmp_path):
    source = r"\begin{aligned} a &= b \\ &= c \end{aligned} \tag{1}"
    html, warnings = render(tmp_path, f"So $x^2$:\n\n$$\n{source}\n$$\n")
    assert warnings == ""
    page = BeautifulSoup(html, "html.parser")
    inline, display = page.select(".math")
    assert inline.name == "span" and inline.annotation.text == "x^2"
    assert display["id"] == "eq-1" and display.annotation.text == source
    for formula in (inline, display):
        assert formula.select_one("math") and formula.select_one(".katex-html")
    assert [tag.text for tag in display.select(".stack > .katex-tag")] == ["(1)"]
    assert [row.text for row in display.select(".rows .lines")] == ["a=b", "=c"]


def test_lines_break_before_relations_and_not_in_brackets(tmp_path):
    html, _ = render(tmp_path, r"$$p(a \mid b) = c + d \le e, \qquad f = (g = h)$$")
    pieces = BeautifulSoup(html, "html.parser").select(".piece")
    shown = [piece.text.replace("\u200b", "").strip() for piece in pieces]
    assert shown == ["p(a∣b)", "=c+d", "≤e,", "f", "=(g=h)"]


@pytest.mark.parametrize(
    ("tex", "lines"),
    [
        (r"a = b \tag{1}", []),
        (r"\begin{aligned} a &= b \\ &+ c \end{aligned}", ["a = b", "{}+ c"]),
        (
            r"\begin{gathered} a \\[2pt] b\& \end{gathered}, \tag{2}",
            ["a", r"b\& ,\tag{2}"],
        ),
        (
            r"\begin{aligned} a &= {x \\ y} \\ b &= \begin{cases} c & d \\ e & f"
            r" \end{cases} \end{aligned}",
            [r"a = {x \\ y}", r"b = \begin{cases} c & d \\ e & f \end{cases}"],
        ),
    ],
)
def test_a_stack_is_taken_apart_line_by_line(tex, lines):
    assert [line.strip() for line in formulas.stacked(tex)] == lines


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("$$a \\tag{1}$$\n\n$$b \\tag{1}$$", "Equation (1) stands twice"),
        ("> **Lemma 2.** a\n\n> **Lemma 2 (b).** c", "Lemma 2 (b) stands twice"),
        ("See [(9)](#eq-9).", "eq-9"),
        (r"So $\foo{a}$.", r"index: the formula '\\foo{a}' cannot be set: Undefined"),
        ("$$a \\tag{1}$$\n\nSee [(2)](#eq-1).", "the link (2) leads to eq-1"),
        ("> **Riddle 1 (5 min).** a", "no kind of box"),
        ("<details><summary>Solution 1</summary>\ntext\n</details>", "blank line"),
        ("<details><summary>Solution 1</summary>\n\ntext", "do not pair"),
        (
            notebook("✓ (3) sum, within 1\n", "# Page\n\n$$a \\tag{1}$$"),
            "no equation (3)",
        ),
    ],
)
def test_what_fails_the_build(tmp_path, text, complaint):
    assert complaint in render(tmp_path, text)[1]


def test_quotes_become_boxes(tmp_path):
    html, warnings = render(
        tmp_path,
        "> **Exercise 2 (10 min, easy).** Show it.\n\n> **Take away.** All.\n\n"
        "> A quotation stays one.\n\nSee [it](#exercise-2).",
    )
    assert warnings == ""
    box = re.search(r'<div[^>]*id="exercise-2"[^>]*>', html)
    assert box and 'class="box exercise"' in box[0] and "Exercise 2" in box[0]
    assert '<span class="note"> (10 min, easy).</span>' in html
    assert 'class="box take-away"' in html
    assert html.count("<blockquote") == 1
    assert 'title="Exercise 2 (10 min, easy)"' in html


def test_folds_keep_their_markdown(tmp_path):
    html, warnings = render(
        tmp_path,
        "<details><summary><b>Solution 2</b></summary>\n\n**bold** and $x$\n\n"
        "```python\na = 1\n```\n\n</details>\n\nSee [it](#solution-2).",
    )
    assert warnings == ""
    assert '<details class="fold" id="solution-2">' in html
    assert "<strong>bold</strong>" in html and "highlight-python" in html


def test_check_lines_link_both_ways(tmp_path):
    html, warnings = render(
        tmp_path,
        notebook(
            "✓ (3) (4) the joint, within 1e-12\n✓ (4) again, within 1e-12\n",
            "# Page\n\n$$a \\tag{3}$$\n\n$$b \\tag{4}$$",
        ),
    )
    assert warnings == ""
    assert 'class="checks"' in html and html.count('class="check"') == 2
    for number in "34":
        assert len(re.findall(rf'href="#eq-{number}"', html)) >= 1
        assert len(re.findall(rf'id="check-{number}"', html)) == 1
        assert f'href="#check-{number}"' in html
        assert len(re.findall(rf'id="eq-{number}"', html)) == 1


def test_other_output_stays_as_it_is(tmp_path):
    text = "# Page\n\n$$a \\tag{1}$$"
    html, warnings = render(tmp_path, notebook("T = 5\n✓ (1) a\nT = 6\n", text))
    assert warnings == ""
    first, check, last = (html.index(t) for t in ("T = 5", 'class="checks"', "T = 6"))
    assert first < check < last and html.count("<pre>") == 3


@pytest.mark.parametrize("embed", [False, True])
def test_drawings_are_set_inline(tmp_path, embed):
    svg = '<svg aria-labelledby="a b"><title id="a">é</title></svg>'
    (tmp_path / "curve.svg").write_text(svg, "utf-8")
    data = base64.b64encode(svg.encode()).decode()
    uri = f"data:image/svg+xml;base64,{data}" if embed else "curve.svg"
    html, warnings = render(tmp_path, f"![A curve &\nmore]({uri})")
    assert warnings == ""
    assert '<svg aria-label="A curve &amp; more">' in html
    assert "é" in html and "<img" not in html


def test_buttons_of_a_notebook_and_of_a_page():
    theme = {
        "repository_url": "https://github.com/o/r",
        "repository_branch": "main",
        "launch_buttons": {"colab_url": "https://colab.research.google.com"},
    }
    found = {b["name"]: b for b in buttons.page_links("notebooks/a", ".ipynb", theme)}
    assert found["colab"]["url"] == (
        "https://colab.research.google.com/github/o/r/blob/main/notebooks/a.ipynb"
    )
    assert found["download"]["download"]
    assert found["source"]["url"].endswith("/blob/main/book/chapters/a.md")
    [only] = buttons.page_links("book/preface", ".md", theme)
    assert only["url"] == "https://github.com/o/r/blob/main/book/preface.md"


def test_durations_as_a_reader_says_them():
    times = (0.42, 58.2, 119, 720, 9000)
    spoken = [pages.duration(s).replace("\u00a0", " ") for s in times]
    assert spoken == ["0.4 s", "58 s", "119 s", "12 min", "2.5 h"]


def test_a_benchmark_leaves_a_dash_where_nothing_was_measured(tmp_path):
    rows = {"one": {"seconds": 0.51234, "peak_MiB": 23437.5}, "two": {"seconds": -2.0}}
    file = tmp_path / "toy" / "bench-cpu.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"device": "cpu", "points": 9, "route": rows}))
    html = pages.Speed.benchmark(SimpleNamespace(chapters=dict), file)
    heads = re.findall(r'<th scope="col">(.*?)</th>', html)
    assert heads == ["route", "seconds", "peak MiB"]
    cells = re.findall(r"<td>(.*?)</td>", html)
    assert cells == ["one", "0.512", "23,438", "two", "−2", "–"]
    assert "device cpu, points 9" in html


def test_faults_that_were_caught_stand_by_chapter(tmp_path):
    file = tmp_path / "records" / "toy" / "mutants.json"
    chapters = {"toy": SimpleNamespace(title="A <toy>")}
    page = SimpleNamespace(tree=tmp_path, chapters=lambda: chapters)
    assert pages.Speed.faults(page) == ""
    file.parent.mkdir(parents=True)
    counts = {"cells": 9, "faults": 80, "caught": 78, "no_fault": 5, "share": 0.975}
    file.write_text(json.dumps({"checks": counts}))
    cells = re.findall(r"<td>(.*?)</td>", pages.Speed.faults(page))
    assert cells == ["A &lt;toy&gt;", "–", "98%<small>78 of 80</small>"]


def test_a_sweep_shows_its_times_and_where_an_ideal_one_would_end(tmp_path):
    rows = {
        "none": {"seconds": 44.0},
        "1": {"seconds": 40.0, "times_as_fast": 1.0, "share_of_ideal": 1.0},
        "2": {"seconds": 25.0, "times_as_fast": 1.6, "share_of_ideal": 0.8},
    }
    facts = {"runs": 4, "chapter": "toy", "profile": "smoke", "cores": 2}
    file = tmp_path / "records" / "sweep" / "bench-cpu.json"
    chapters = {"toy": SimpleNamespace(title="A toy")}
    page = SimpleNamespace(tree=tmp_path, chapters=lambda: chapters)
    page.row = lambda name, row, longest: pages.Sweep.row(page, name, row, longest)
    assert pages.Sweep.html(page) == pages.NO_RECORDS
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({**facts, "load_before": 0.5, "workers": rows}))
    html = pages.Sweep.html(page)
    assert "4 runs of <i>A toy</i> (smoke) on one machine with 2 cores" in html
    cells = [re.sub("<.*?>", "", cell) for cell in re.findall("<td>(.*?)</td>", html)]
    assert cells[10:15] == ["2", "25\u00a0s", "1.6", "0.8", ""]
    ends = [float(x) for x in re.findall(r'cx="(.*?)"', html)]
    ideal = [float(x) for x in re.findall(r'class="bound" d="M(.*?) ', html)]
    assert ideal[0] == ends[1]
    assert (ideal[1] - 4) * 2 == pytest.approx(ends[1] - 4, 0.01)


def drawn(side="above", bound=0.0, log=False, low=1.0, high=3.0):
    """A whisker: the tinted part, the mean's dot, the seeds' dots, and all of it."""
    row = {"mean": 2.0, "low": low, "high": high, "verdict": "holds"}
    row |= {"log": log, "values": [1.0, 2.0, 4.0]}
    svg = pages.whisker(row, SimpleNamespace(side=side, bound=bound))
    start, width = map(float, re.search(r' x="(.*?)" width="(.*?)"', svg).groups())
    (mean,) = map(float, re.findall(r'class="mean" cx="(.*?)"', svg))
    seeds = [float(x) for x in re.findall(r'class="seed" cx="(.*?)"', svg)]
    return (start, start + width), mean, seeds, svg


@pytest.mark.parametrize("side", ["above", "below"])
def test_the_whisker_tints_the_side_on_which_a_claim_holds(side):
    (start, end), mean, seeds, _ = drawn(side)
    assert all((start <= dot <= end) == (side == "above") for dot in (mean, *seeds))


def test_the_whisker_shows_every_seed_on_the_scale_of_its_mean():
    _, mean, seeds, svg = drawn()
    assert seeds[1] == mean and 'class="interval"' in svg
    assert seeds[2] - seeds[1] == pytest.approx(2 * (seeds[1] - seeds[0]), abs=0.3)
    *_, logs, _ = drawn(bound=0.5, log=True)
    assert logs[2] - logs[1] == pytest.approx(logs[1] - logs[0], abs=0.3)
    assert 'class="interval"' not in drawn(low=math.nan, high=math.nan)[-1]


def test_verdicts_are_counted_in_their_order():
    words = ["does not hold", "holds", "holds", "undecided"]
    said = re.sub("<.*?>", "", pages.tally([{"verdict": word} for word in words]))
    assert " ".join(said.split()) == "2 hold 1 does not hold 1 undecided"


def test_every_kind_of_box_has_an_anchor_of_its_own():
    assert len({portable.slug(kind) for kind in portable.KINDS}) == len(portable.KINDS)
