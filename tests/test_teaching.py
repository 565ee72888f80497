"""The teacher's pages: what is computed is right, and what chapters bring fits them."""

import math
import re
import runpy
import statistics
from graphlib import TopologicalSorter

import form
import pytest
import teaching
import yaml
from bs4 import BeautifulSoup
from conftest import TREE

from iclrtut import claims, records
from iclrtut.commands import minutes, plan, timetable

TEACH = TREE / "book" / "teach"
CHAPTERS = {chapter.slug: chapter for chapter in claims.chapters()}
SOURCES = {
    slug: (TREE / "book" / "chapters" / f"{slug}.md").read_text("utf-8")
    for slug in CHAPTERS
}
EXERCISES = {slug: minutes.exercises(text) for slug, text in SOURCES.items()}
BROUGHT = {
    slug: yaml.safe_load((TEACH / "chapters" / f"{slug}.yml").read_text("utf-8"))
    for slug in CHAPTERS
}
SUBJECTS = yaml.safe_load((TEACH / "prerequisites.yml").read_text("utf-8"))
NEEDS = {slug: chapter.prerequisites.split(", ") for slug, chapter in CHAPTERS.items()}
every_chapter = pytest.mark.parametrize("slug", CHAPTERS)


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
    found = minutes.exercises(text)
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
        "# T\n\n## P\n\nTwo words, $x + y$ and `z`: [a link](../no/words.md).\n\n$$\n"
        "a = b\n$$\n\n```{code-cell} ipython3\n:tags: [here]\n\none = 1\n\n# two\n"
        "```\n\n### H\n\n> $$c \\tag{1}$$\n\n![no alt\ntext](p.svg)\n\n"
        "## Exercises\n\nNot read.\n"
    )
    found = minutes.portions(text)
    assert found == [("P", "P", 7, 1, 2), ("P", "H", 0, 1, 0)]
    assert [portion.seconds for portion in found] == [3.5 + 60 + 10, 60]
    assert minutes.reading(found) == 2


@every_chapter
def test_lines_and_equations_are_those_of_the_notebook(slug):
    document = form.read(SOURCES[slug], slug)
    read = [c for c in document.cells if c.section not in ("", *minutes.SKIPPED)]
    found = minutes.portions(SOURCES[slug])
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


def test_subjects_build_on_subjects_without_a_circle():
    order = list(TopologicalSorter(SUBJECTS).static_order())
    assert set(order) == set(SUBJECTS)


def test_each_subject_is_asked_for_or_helps_somewhere():
    used = {subject for needs in NEEDS.values() for subject in needs}
    used |= {subject for brought in BROUGHT.values() for subject in brought["helps"]}
    below = [subject for subjects in SUBJECTS.values() for subject in subjects]
    assert used | set(below) == set(SUBJECTS)


def test_the_table_of_prerequisites_names_and_links_every_chapter(built):
    page = soup(built, "prerequisites")
    rows = page.select_one("table").select("tbody tr")
    assert {row.a["href"] for row in rows} == {
        f"../../notebooks/{slug}.html" for slug in CHAPTERS
    }
    for row in rows:
        slug = row.a["href"].split("/")[-1].removesuffix(".html")
        asked, helps = (
            cell.get_text().replace("\u2019", "'") for cell in row.select("td")[1:]
        )
        assert asked.split(", ")[: len(NEEDS[slug])] == NEEDS[slug]
        assert all(subject in helps for subject in BROUGHT[slug]["helps"])


@pytest.mark.parametrize("name", ["prerequisites", "plans", "sessions"])
def test_the_tables_fit_a_phone(site, page, name):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{site}/book/teach/{name}.html")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for table in page.locator("article table").all():
        assert table.evaluate("t => t.scrollWidth <= t.parentElement.clientWidth + 1")


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
        found = minutes.portions(SOURCES[slug])
        seconds = math.fsum(portion.seconds for portion in found)
        assert int(cells[1].split()[0]) == pytest.approx(seconds / 60, abs=0.5)
        middle = statistics.median(
            r["seconds"] for r in kept if r["chapter"] == slug and r["device"] == "cpu"
        )
        size, unit = cells[2].split()[:2]
        told = float(size) * {"s": 1, "min": 60}[unit]
        assert told == pytest.approx(middle, abs=0.5 if unit == "s" else 30)
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
        assert sum(words) == teaching.total(minutes.portions(SOURCES[slug]), "words")


# What each chapter brings, and the plans made of it


def misfits(brought, source):
    """What of a chapter's notes for teachers does not fit its source."""
    exercises, slots = minutes.exercises(source), brought["slots"]
    tags = set(re.findall(r"\\tag\{(\d+[a-z]?)", source))
    heads = {*re.findall(r"(?m)^#{2,3} (.+)$", source), "The ledger"}
    if set(brought) - {"helps", "before", "slots", "homework", "after"}:
        yield "an entry that nobody reads"
    if sum(slot["minutes"] for slot in slots) != 90:
        yield "no ninety minutes"
    in_class = [n for slot in slots for n in slot.get("exercises", ())]
    opened = [n for n, head in exercises.items() if head.difficulty == "open"]
    if sorted([*in_class, *brought["homework"], *opened]) != sorted(exercises):
        yield "an exercise that is given twice, or never"
    for slot in slots:
        if "|" in slot["do"]:
            yield "a bar, which ends a cell of a table"
        given = sum(exercises[n].minutes for n in slot.get("exercises", ()))
        if given > slot["minutes"]:
            yield f"{given} minutes of exercises in {slot['minutes']}"
        found = timetable.MENTION.findall(
            " ".join([slot["do"], *slot.get("where", ())])
        )
        yield from (f"no equation ({tag})" for tag in found if tag not in tags)
        for place in slot.get("where", ()):
            if place not in heads and not timetable.MENTION.search(place):
                yield f"no heading {place}"
    for subject, tag in brought["helps"].items():
        if subject not in SUBJECTS or tag not in tags:
            yield f"{subject}, or its equation ({tag})"


@every_chapter
def test_what_a_chapter_brings_fits_it(slug):
    assert list(misfits(BROUGHT[slug], SOURCES[slug])) == []
    assert set(NEEDS[slug]) <= set(SUBJECTS)


def test_what_a_new_chapter_brings_fits_it():
    template = TREE / "tools" / "template"
    brought = yaml.safe_load((template / "teach.yml").read_text("utf-8"))
    source = (template / "chapter.md").read_text("utf-8")
    assert list(misfits(brought, source)) == []
    brought["slots"][0] |= {"minutes": 14, "where": ["Nowhere", "(99)"]}
    brought["homework"] = [2, 2]
    assert len(list(misfits(brought, source))) == 4


def test_the_sessions_show_what_each_chapter_brings(built):
    page = soup(built, "sessions")
    links = {a["href"] for a in page.select("a[href]")}
    for slug, brought in BROUGHT.items():
        for n in EXERCISES[slug]:
            opened = EXERCISES[slug][n].difficulty == "open"
            assert opened or f"../../notebooks/{slug}.html#exercise-{n}" in links
        name = page.find("a", href=f"../../notebooks/{slug}.html")
        rows = name.find_parent("section").select("tbody tr")
        assert len(rows) == len(brought["slots"])
        assert rows[-1].td.get_text().endswith("–90")
    assert len(page.select("h2")) == len(CHAPTERS) + len(plan.closing())


def test_the_plans_take_about_eight_chapters_and_every_minute(built):
    page = soup(built, "plans")
    weeks, *days = page.select("table")
    titles = [row.select("td")[1].a for row in weeks.select("tbody tr")]
    chosen = [a["href"].split("/")[-1].removesuffix(".html") for a in titles if a]
    assert chosen == plan.default(plan.book(), 8)
    assert len(chosen) == min(8, len(CHAPTERS)) and len(titles) == len(chosen) + 2
    assert len(days) == 2
    for table in days:
        times = [row.td.get_text() for row in table.select("tbody tr")]
        assert times[0] == "9:00" and int(times[-1].split(":")[0]) < 17


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
