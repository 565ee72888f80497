"""The teacher's pages: what is computed is right, and the plans add up."""

import math
import re
import runpy
from itertools import combinations, pairwise

import form
import networkx as nx
import prerequisites
import pytest
import teaching
import yaml
from bs4 import BeautifulSoup
from conftest import TREE
from hypothesis import given, settings
from hypothesis import strategies as st

from iclrtut import claims, records

TEACH = TREE / "book" / "teach"
CHAPTERS = {chapter.slug: chapter for chapter in claims.chapters()}
SOURCES = {
    slug: (TREE / "book" / "chapters" / f"{slug}.md").read_text("utf-8")
    for slug in CHAPTERS
}
EXERCISES = {slug: teaching.exercises(text) for slug, text in SOURCES.items()}
PLANS = yaml.safe_load((TEACH / "plans.yml").read_text("utf-8"))
WEEKS, DAYS = PLANS["weeks"], PLANS["days"]
KNOWN = yaml.safe_load((TEACH / "prerequisites.yml").read_text("utf-8"))
NEEDS = {slug: chapter.prerequisites.split(", ") for slug, chapter in CHAPTERS.items()}
every_chapter = pytest.mark.parametrize("slug", CHAPTERS)


def tags(slug):
    """The numbers of a chapter's equations."""
    return set(re.findall(r"\\tag\{(\d+[a-z]?)", SOURCES[slug]))


def soup(built, name):
    """A built page."""
    text = (built / "book" / "teach" / f"{name}.html").read_text("utf-8")
    return BeautifulSoup(text, "html.parser").select_one("article")


# What is read from a source


def test_an_exercise_is_read_from_its_head():
    text = (
        "> **Exercise 1 (10 min, easy).** Do.\n\n> **Exercise 2 (2 h, hard).** Do.\n\n"
        "> **Exercise 3 (an afternoon, open).** Do.\n"
    )
    found = teaching.exercises(text)
    assert [found[n].minutes for n in (1, 2, 3)] == [10, 120, 0]
    assert found[3] == (3, "an afternoon", "open")


def test_an_outcome_is_read_with_its_exercises():
    text = (
        "# T\n\n## What you will be able to do\n\n1. You see\n   two (exercise 2).\n"
        "2. You do (exercises 1, 3 and 12).\n\n## Set-up\n\n1. No (exercise 4).\n"
    )
    assert teaching.outcomes(text) == [
        ("You see two", (2,)),
        ("You do", (1, 3, 12)),
    ]


def test_words_equations_and_lines_are_counted():
    text = (
        "Two words, $x + y$ and `z`: [a link](../no/words.md).\n\n$$\na = b\n$$\n\n"
        "```{code-cell} ipython3\n:tags: [here]\n\none = 1\n\n# two\n```\n\n"
        "> $$c \\tag{1}$$\n\n![no alt\ntext](p.svg)\n"
    )
    assert teaching.amount(text) == (7, 2, 2)
    portion = teaching.Portion("P", "H", 120, 2, 6)
    assert portion.seconds == 60 + 2 * 60 + 6 * 5


@every_chapter
def test_lines_and_equations_are_those_of_the_notebook(slug):
    document = form.read(SOURCES[slug], slug)
    read = [c for c in document.cells if c.section not in ("", *teaching.SKIPPED)]
    found = teaching.portions(SOURCES[slug])
    lines = sum(len(form.lines(cell)) for cell in read if cell.code)
    assert teaching.total(found, "lines") == lines
    text = "\n".join(cell.text for cell in read if not cell.code)
    assert teaching.total(found, "equations") == text.count("$$") / 2
    prose = re.findall(r"\w[\w'-]*", form.prose(re.sub(r"(?m)^#+ .*", "", text)))
    symbols = re.findall(r"\$[^$]+\$|`[^`]+`", re.sub(r"(?s)\$\$.*?\$\$", "", text))
    words = len(prose) + len(symbols)
    assert teaching.total(found, "words") == pytest.approx(words, rel=0.02)


@every_chapter
def test_outcomes_name_exercises_that_exist(slug):
    found = teaching.outcomes(SOURCES[slug])
    heads = form.EXERCISE.findall(SOURCES[slug])
    assert 3 <= len(found) <= 5
    assert list(EXERCISES[slug]) == list(map(int, heads))
    assert all(n in EXERCISES[slug] for outcome in found for n in outcome.exercises)


@every_chapter
def test_each_refused_answer_says_what_is_wrong_with_it(slug):
    file = TREE / "tests" / "chapters" / slug / "wrong_answers.py"
    wrong = runpy.run_path(str(file))["WRONG"]
    said = teaching.refused(file)
    assert {n: len(texts) for n, texts in said.items()} == {
        n: len(answers) for n, answers in wrong.items()
    }


# What needs what


def test_every_chapter_and_all_it_asks_for_is_in_the_graph():
    graph = prerequisites.network(KNOWN, NEEDS)
    assert set(KNOWN["helps"]) == set(CHAPTERS)
    assert set(graph) == set(CHAPTERS) | set(KNOWN["know"])
    for slug in CHAPTERS:
        for thing in NEEDS[slug]:
            assert thing in KNOWN["know"]
            assert nx.has_path(graph, thing, slug)
        for thing, number in KNOWN["helps"][slug].items():
            assert nx.has_path(graph, thing, slug) and number in tags(slug)


def test_all_that_is_in_the_graph_leads_to_a_chapter():
    graph = prerequisites.network(KNOWN, NEEDS)
    assert nx.is_directed_acyclic_graph(graph)
    assert {node for node in graph if not graph.out_degree(node)} == set(CHAPTERS)


def test_a_chapter_needs_another_only_where_its_text_leads_there():
    graph = prerequisites.network(KNOWN, NEEDS)
    said = {
        (other, slug)
        for slug, text in SOURCES.items()
        for other in CHAPTERS
        if other != slug and f"{other}.ipynb" in text
    }
    assert {edge for edge in graph.edges if set(edge) <= set(CHAPTERS)} == said


def test_a_cycle_is_refused():
    know = {"a": ["b"], "b": ["a"]}
    with pytest.raises(nx.NetworkXError):
        prerequisites.network({"know": know, "helps": {}}, {"c": ["a"]})


def test_what_is_implied_is_left_out():
    know = {"a": [], "b": ["a"], "c": []}
    helps = {"z": {"a": "1", "c": "2"}}
    graph = prerequisites.network({"know": know, "helps": helps}, {"z": ["b", "a"]})
    assert set(graph.edges(data="kind")) == {
        ("a", "b", "needs"),
        ("b", "z", "needs"),
        ("c", "z", "helps"),
    }


@st.composite
def graphs(draw):
    """Things numbered so that each builds on earlier ones; the last are chapters."""
    size = draw(st.integers(2, 12))
    names = [f"thing {k}" for k in range(size)]
    know = {
        name: draw(st.lists(st.sampled_from(names[:k]), unique=True)) if k else []
        for k, name in enumerate(names)
    }
    chapters = ["last", "and least"][: draw(st.integers(1, 2))]
    needs = {c: draw(st.lists(st.sampled_from(names), min_size=1)) for c in chapters}
    graph = prerequisites.network({"know": know, "helps": {}}, needs)
    used = nx.ancestors(graph, chapters[0]) | set(chapters)
    return graph.subgraph(used).copy(), [c for c in chapters if c in used]


def boxes(svg):
    """Left, top, right and bottom of each box of a drawing, by name."""
    found = {}
    for frame in BeautifulSoup(svg, "html.parser").select("svg > g, svg > a"):
        x, y, width, height = (
            float(frame.rect[k]) for k in ("x", "y", "width", "height")
        )
        name = " ".join(part.get_text() for part in frame.select("tspan"))
        found[name] = x, y, x + width, y + height
    return found


def apart(one, two):
    """Whether two boxes do not touch."""
    return one[2] < two[0] or two[2] < one[0] or one[3] <= two[1] or two[3] <= one[1]


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_a_drawing_keeps_boxes_apart_and_runs_to_the_right(made):
    graph, chapters = made
    svg = prerequisites.draw(graph, {c: c for c in chapters}, str)
    placed = boxes(svg)
    assert set(placed) == set(graph)
    assert all(apart(*pair) for pair in combinations(placed.values(), 2))
    assert all(placed[a][2] < placed[b][0] for a, b in graph.edges)
    view = BeautifulSoup(svg, "html.parser").svg["viewbox"].split()
    _, _, width, height = map(float, view)
    for left, top, right, bottom in placed.values():
        assert left >= 0 and top >= -1 and right <= width and bottom <= height + 1


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_no_line_runs_through_a_box(made):
    graph, chapters = made
    column = prerequisites.columns(graph)
    routes = prerequisites.bent(graph, column)
    y = prerequisites.heights(routes, column, chapters)
    for one, two in combinations(routes, 2):
        if column[one] == column[two]:
            room = (prerequisites.tall(one) + prerequisites.tall(two)) / 2
            assert abs(y[one] - y[two]) >= room - 1e-6
    assert all(column[b] - column[a] == 1 for a, b in routes.edges)


def test_the_drawing_names_everything_once_and_links_chapters(built):
    page = soup(built, "prerequisites")
    svg = page.select_one("svg.needed")
    titles = {chapter.title for chapter in CHAPTERS.values()}
    assert set(boxes(str(svg))) == titles | set(KNOWN["know"])
    assert {a["href"] for a in svg.select("a")} == {
        f"../../notebooks/{slug}.html" for slug in CHAPTERS
    }
    box = svg.find_parent(class_="scroll")
    assert box["tabindex"] == "0" and box["aria-label"] and svg["aria-label"]
    words = page.get_text(" ", strip=True).replace("\u2019", "'")
    for slug, needs in NEEDS.items():
        said = f"{CHAPTERS[slug].title} needs {', '.join(needs)}."
        assert said.replace("\u2019", "'") in re.sub(r"\s+", " ", words)


@pytest.mark.parametrize("width", [1280, 390])
def test_the_drawing_can_be_read_on_any_screen(site, page, width):
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(f"{site}/book/teach/prerequisites.html")
    box = page.locator(".scroll:has(svg.needed)")
    over = box.evaluate("b => b.scrollWidth - b.clientWidth")
    assert over <= 1 if width == 1280 else over > 100
    text = page.locator("svg.needed text").first
    assert text.evaluate("t => t.getBoundingClientRect().height") > 13
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box.focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.matches('svg.needed a')")


# Outcomes and minutes


def test_outcomes_stand_on_their_page(built):
    page = soup(built, "outcomes")
    links = {a["href"] for a in page.select("li a")}
    for slug, text in SOURCES.items():
        for outcome in teaching.outcomes(text):
            for n in outcome.exercises:
                assert f"../../notebooks/{slug}.html#exercise-{n}" in links
    assert len(page.select("ol > li")) == sum(
        len(teaching.outcomes(text)) for text in SOURCES.values()
    )


def test_minutes_add_up(built):
    page = soup(built, "minutes")
    rows = page.select_one("table").select("tbody tr")
    assert len(rows) == len(CHAPTERS)
    kept = [r for r in records.read_all(TREE / "records") if r["profile"] == "quick"]
    for row in rows:
        slug = row.a["href"].split("/")[-1].removesuffix(".html")
        cells = [cell.get_text(" ", strip=True) for cell in row.select("td")]
        found = teaching.portions(SOURCES[slug])
        seconds = math.fsum(portion.seconds for portion in found)
        assert int(cells[1].split()[0]) == pytest.approx(seconds / 60, abs=0.5)
        seconds = sorted(
            r["seconds"] for r in kept if r["chapter"] == slug and r["device"] == "cpu"
        )
        middle = seconds[len(seconds) // 2]
        assert int(cells[2].split()[0]) == pytest.approx(middle, abs=0.5)
        stated = sum(head.minutes for head in EXERCISES[slug].values())
        assert cells[3].split()[0] == str(stated)
    for slug, table in zip(
        [row.a["href"] for row in rows], page.select("table")[1:], strict=True
    ):
        slug = slug.split("/")[-1].removesuffix(".html")
        words = [
            int(row.select("td")[1].get_text().replace(",", ""))
            for row in table.select("tbody tr")
        ]
        assert sum(words) == teaching.total(teaching.portions(SOURCES[slug]), "words")


# Plans


def test_a_term_has_twelve_weeks_that_read_each_chapter_once():
    assert len(WEEKS) == 12
    read = teaching.readings(WEEKS, SOURCES)
    for slug, text in SOURCES.items():
        parts = [
            portion
            for week, found in zip(WEEKS, read, strict=True)
            if week.get("chapter") == slug
            for portion in found
        ]
        assert parts == teaching.portions(text)


def test_a_term_gives_each_exercise_once_and_covers_each_outcome():
    given_ = [exercise for week in WEEKS for exercise in teaching.homework(week)]
    every = [(slug, n) for slug, heads in EXERCISES.items() for n in heads]
    assert sorted(given_) == sorted(every)
    for slug, text in SOURCES.items():
        for outcome in teaching.outcomes(text):
            assert all((slug, n) in given_ for n in outcome.exercises)


def test_open_exercises_are_the_project_and_its_rule_comes_first():
    project = WEEKS[10]["homework"]
    assert project == {
        slug: [n for n, head in heads.items() if head.difficulty == "open"]
        for slug, heads in EXERCISES.items()
    }
    assert "before anything runs" in WEEKS[8]["home"]
    assert "ledger" in WEEKS[11]["class"]


def test_a_week_can_be_done_in_a_week():
    for week, found in zip(WEEKS, teaching.readings(WEEKS, SOURCES), strict=True):
        reading = sum(portion.seconds for portion in found) / 60
        given_ = teaching.homework(week)
        practice = sum(EXERCISES[slug][n].minutes for slug, n in given_)
        assert reading + practice <= 120


def test_weeks_measure_declared_claims_of_their_chapter():
    for week in WEEKS:
        assert ("claims" in week) != ("measured" in week)
        for id in week.get("claims", []):
            assert CHAPTERS[week["chapter"]].claim(id)


@pytest.mark.parametrize("day", DAYS, ids=lambda day: day["title"])
def test_a_day_has_eight_hours_with_lunch_and_breaks(day):
    slots = day["slots"]
    assert sum(slot["minutes"] for slot in slots) == 8 * 60
    lunch = [slot["minutes"] for slot in slots if slot["do"] == "Lunch."]
    assert lunch == [60]
    since = 0
    for slot in slots:
        pause = slot["do"].startswith(("Lunch", "Break"))
        since = 0 if pause else since + slot["minutes"]
        assert since <= 120, f"{slot['do']} ends {since} minutes without a break"


@pytest.mark.parametrize("day", DAYS, ids=lambda day: day["title"])
def test_exercises_and_runs_fit_their_slots(day):
    kept = [r for r in records.read_all(TREE / "records") if r["profile"] == "quick"]
    for slot in day["slots"]:
        numbers = slot.get("exercises", [])
        stated = sum(EXERCISES[slot["chapter"]][n].minutes for n in numbers)
        assert stated <= slot["minutes"]
        if "run" in slot:
            spent = [r["seconds"] for r in kept if r["chapter"] == slot["run"]]
            assert spent and max(spent) < slot["minutes"] * 60


def test_the_workshop_has_every_chapter_and_runs_each_once():
    slots = [slot for day in DAYS for slot in day["slots"]]
    assert {slot["chapter"] for slot in slots if "chapter" in slot} == set(CHAPTERS)
    assert sorted(s["run"] for s in slots if "run" in s) == sorted(CHAPTERS)


def test_plans_mention_equations_that_exist():
    slots = [slot for day in DAYS for slot in day["slots"]]
    for entry in WEEKS + slots:
        text = entry.get("class", "") + entry.get("do", "")
        found = teaching.MENTION.findall(text)
        assert not found or set(found) <= tags(entry["chapter"])


def test_the_built_plan_shows_weeks_days_and_times(built):
    page = soup(built, "plans")
    heads = [h.get_text() for h in page.select("h3")]
    assert [h.split(":")[0] for h in heads] == [
        *(f"Week {n}" for n in range(1, 13)),
        "Day 1",
        "Day 2",
    ]
    for table in page.select("table")[1:]:
        times = [row.td.get_text() for row in table.select("tbody tr")]
        assert (times[0], times[-1]) == ("9:00", "17:00")
    links = {a["href"] for a in page.select("a[href]")}
    for slug, heads_ in EXERCISES.items():
        for n in heads_:
            assert f"../../notebooks/{slug}.html#exercise-{n}" in links


def sessions():
    """Each session of ninety minutes: its rows as start, end and what happens."""
    text = (TEACH / "sessions.md").read_text("utf-8")
    for part in text.split("\n## ")[1:]:
        rows = re.findall(r"^\| (\d+)–(\d+) \| (.*?) \|", part, re.MULTILINE)
        yield part, [(int(start), int(end), what) for start, end, what in rows]


def test_sessions_last_ninety_minutes_and_leave_time_for_exercises():
    seen = set()
    for part, rows in sessions():
        (slug,) = set(re.findall(r"notebooks/(\w+)\.ipynb\)", part))
        seen.add(slug)
        assert rows[0][0] == 0 and rows[-1][1] == 90
        assert all(before[1] == after[0] for before, after in pairwise(rows))
        for start, end, what in rows:
            numbers = re.findall(r"#exercise-(\d+)", what)
            stated = sum(EXERCISES[slug][int(n)].minutes for n in numbers)
            assert end - start >= stated, what
    assert seen == set(CHAPTERS)


# Misconceptions


@every_chapter
def test_a_chapter_has_misconceptions_and_exercises_that_reveal_them(slug):
    text = (TEACH / "misconceptions.md").read_text("utf-8")
    part = next(p for p in text.split("\n## ") if f"{{refused}} {slug}" in p)
    said = re.findall(r'^- \*".*?(?=\n- |\n\n)', part, re.MULTILINE | re.DOTALL)
    assert len(said) >= 4
    assert all(f"notebooks/{slug}.ipynb#" in each for each in said)
    revealed = set(re.findall(r"#exercise-(\d+)", "".join(said)))
    checked = form.answers(form.read(SOURCES[slug], slug))
    assert set(checked) <= revealed <= set(map(str, EXERCISES[slug]))


def test_refused_answers_are_shown(built):
    text = soup(built, "misconceptions").get_text(" ", strip=True)
    text = re.sub(r"\s+", " ", text).replace("\u2019", "'")
    for slug in CHAPTERS:
        file = TREE / "tests" / "chapters" / slug / "wrong_answers.py"
        for faults in teaching.refused(file).values():
            assert all(fault in text for fault in faults)
