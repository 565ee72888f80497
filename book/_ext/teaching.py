"""Directives for the teacher's pages: outcomes, minutes, prerequisites, plans.

Outcomes, exercises and the amount of text come from the chapters' sources, running
times from the records. What people decide stands in book/teach/: chapters/<slug>.yml
for each chapter, prerequisites.yml and closing.yml for all.
"""

import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from pages import Page, by_kind, median_time
from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from iclrtut.commands import minutes, plan, timetable
from iclrtut.commands.minutes import Portion
from iclrtut.commands.timetable import unbroken

SECTION = re.compile(r"^## (.+)\n", re.MULTILINE)
OUTCOME = re.compile(
    r"^(\d+)\. (.*?)\s*\(exercises? ([\d and,]+)\)\.$", re.MULTILINE | re.DOTALL
)
KEY = re.compile(r"^    (\d+): \[$")
COMMENT = re.compile(r"^        # (.*)$")


class Outcome(NamedTuple):
    """What a student can do, and the exercises that test it."""

    text: str
    exercises: tuple[int, ...]


def outcomes(text: str) -> list[Outcome]:
    """The outcomes that a chapter's source promises, in order."""
    _, _, rest = text.partition("\n## What you will be able to do\n")
    section, _, _ = rest.partition("\n## ")
    return [
        Outcome(" ".join(words.split()), tuple(map(int, re.findall(r"\d+", numbers))))
        for _, words, numbers in OUTCOME.findall(section)
    ]


def refused(file: Path) -> dict[int, list[str]]:
    """What is wrong with each wrong answer that the tests give, by exercise."""
    found: dict[int, list[str]] = {}
    for line in file.read_text(encoding="utf-8").split("\n"):
        if key := KEY.match(line):
            found[int(key[1])] = []
        elif found and (comment := COMMENT.match(line)):
            found[max(found)].append(comment[1])
    return found


class Teacher(Page):
    """A directive that knows the chapters' sources and the data of book/teach."""

    def source(self, slug: str) -> str:
        """The source of a chapter."""
        file = self.tree / "book" / "chapters" / f"{slug}.md"
        return file.read_text(encoding="utf-8")

    def data(self, name: str) -> Any:
        """A file of book/teach."""
        file = self.tree / "book" / "teach" / name
        return yaml.safe_load(file.read_text(encoding="utf-8"))

    def standing(self) -> list[Any]:
        """The declared chapters in the order of the book."""
        declared = self.chapters()
        order = [slug for part in self.plan().values() for slug in part]
        return [declared[slug] for slug in order if slug in declared]


class Written(Teacher):
    """A directive that writes Markdown, whose links are checked as any others."""

    def run(self) -> list[nodes.Node]:
        """Write the Markdown in place of what is, elsewhere, HTML."""
        (written,) = super().run()
        opening, *rest = SECTION.split(written.astext())
        made = self.parsed(opening)
        for heading, body in zip(rest[::2], rest[1::2], strict=True):
            words, _ = self.parse_inline(heading)
            name = nodes.title("", "", *words)
            section = nodes.section("", name, ids=[nodes.make_id(name.astext())])
            section += self.parsed(body)
            made.append(section)
        return made

    def parsed(self, text: str) -> list[nodes.Node]:
        """Markdown without headings, as the page's parser reads it."""
        node = nodes.Element()
        lines = StringList(text.split("\n"), self.env.docname)
        self.state.nested_parse(lines, 0, node)
        return list(node.children)

    def running(self, slug: str) -> str:
        """How long a chapter's recorded runs took, by profile and device."""
        own = [record for record in self.records() if record["chapter"] == slug]
        return by_kind(own, median_time)

    def exercise(self, slug: str, number: int) -> str:
        """A link to an exercise, with its time and difficulty."""
        head = minutes.exercises(self.source(slug))[number]
        return timetable.exercise(head, slug, address)


class Outcomes(Written):
    """What a student can do after each chapter, and the exercises that show it."""

    def html(self) -> str:
        """A section a chapter."""
        return "\n\n".join(map(self.chapter, self.standing()))

    def chapter(self, chapter: Any) -> str:
        """The outcomes of one chapter."""
        listed = "\n".join(
            f"1. {outcome.text}.\\\n   "
            + ", ".join(self.exercise(chapter.slug, n) for n in outcome.exercises)
            for outcome in outcomes(self.source(chapter.slug))
        )
        return f"## {title(chapter)}\n\n{listed}"


class Minutes(Written):
    """How long each chapter takes to read, to run and to practise."""

    def html(self) -> str:
        """The rates, one table over all chapters, then one a chapter."""
        rates = (
            f"Reading counts {minutes.WORDS} words of prose a minute, "
            f"{minutes.EQUATION} seconds for a displayed equation and {minutes.LINE} "
            "seconds for a line of code. That is an assumption of ours, for someone "
            "who reads with a pencil: nobody was timed."
        )
        head = "| Chapter | Reading | Running | Exercises |\n|---|---|---|---|\n"
        rows = "\n".join(map(self.row, self.standing()))
        parts = map(self.parts, self.standing())
        return "\n\n".join([rates, head + rows, *parts])

    def row(self, chapter: Any) -> str:
        """All of one chapter."""
        text = self.source(chapter.slug)
        heads = minutes.exercises(text).values()
        long = [head.time for head in heads if not head.minutes]
        short = unbroken(f"{sum(head.minutes for head in heads)} min")
        practice = " and ".join([short, *long])
        read = reading(minutes.portions(text))
        cells = title(chapter), read, self.running(chapter.slug)
        return f"| {' | '.join(cells)} | {practice} |"

    def parts(self, chapter: Any) -> str:
        """One chapter, part by part."""
        rows: dict[str, list[Portion]] = {}
        for portion in minutes.portions(self.source(chapter.slug)):
            rows.setdefault(portion.part, []).append(portion)
        body = "\n".join(
            f"| {part} | {total(found, 'words'):,} | {total(found, 'equations')} "
            f"| {total(found, 'lines'):,} | {reading(found)} |"
            for part, found in rows.items()
        )
        head = "| Part | Words | Equations | Lines of code | Reading |"
        return f"## {title(chapter)}\n\n{head}\n|---|--:|--:|--:|--:|\n{body}"


class Needs(Written):
    """What each chapter needs."""

    def html(self) -> str:
        """A table of the chapters, then a list of what their needs build on."""
        rows = "\n".join(map(self.row, self.standing()))
        builds = "\n".join(
            f"- *{subject}* builds on {', '.join(below)}."
            for subject, below in self.data("prerequisites.yml").items()
            if below
        )
        return (
            "| Chapter | It asks for | It helps to know |\n|---|---|---|\n"
            f"{rows}\n\n## Beneath these\n\n{builds}"
        )

    def row(self, chapter: Any) -> str:
        """What one chapter asks for, chapters among it, and what helps where."""
        below = [title(self.chapters()[slug]) for slug in chapter.builds_on]
        asked = ", ".join([chapter.prerequisites, *below])
        helps = self.data(f"chapters/{chapter.slug}.yml").get("helps", {})
        said = ", ".join(f"{subject}, at ({tag})" for subject, tag in helps.items())
        where = timetable.mentions(said, chapter.slug, address) or "–"
        return f"| {title(chapter)} | {asked} | {where} |"


class Refused(Written):
    """The wrong answers that the checks of a chapter refuse, as its tests give them."""

    required_arguments, optional_arguments = 1, 0

    def html(self) -> str:
        """A list of exercises."""
        (slug,) = self.arguments
        file = self.tree / "tests" / "chapters" / slug / "wrong_answers.py"
        return "\n".join(
            f"- [Exercise {number}]({address(f'notebooks/{slug}')}#exercise-{number}): "
            + " ".join(f"*{fault}*" for fault in faults)
            for number, faults in refused(file).items()
        )


class Sessions(Written):
    """A session a chapter, minute by minute, then those that close a course."""

    def html(self) -> str:
        """A section a session."""
        every = [*plan.book().values(), *plan.closing()]
        return "\n\n".join(timetable.detailed(session, address) for session in every)


class Weeks(Written):
    """The default plan of a term of at most so many weeks."""

    required_arguments, optional_arguments = 1, 0

    def html(self) -> str:
        """A table."""
        weeks = int(self.arguments[0])
        course = plan.term(plan.book(), plan.closing(), weeks=weeks)
        return timetable.weekly(course, address)


class Days(Written):
    """The default plan of a workshop of at most so many days."""

    required_arguments, optional_arguments = 1, 0

    def html(self) -> str:
        """A section a day."""
        days = int(self.arguments[0])
        course = plan.workshop(plan.book(), plan.closing(), days=days)
        return timetable.daily(course, address)


def address(page: str) -> str:
    """The file of a page, from book/teach."""
    return f"../../{page}.{'ipynb' if page.startswith('notebooks/') else 'md'}"


def title(chapter: Any) -> str:
    """The title of a chapter, as a link."""
    return timetable.title(chapter, address)


def reading(found: list[Portion]) -> str:
    """The minutes of reading."""
    return unbroken(f"{minutes.reading(found)} min")


def total(found: list[Portion], what: str) -> int:
    """One kind of text, added up."""
    return sum(getattr(portion, what) for portion in found)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    for name, directive in (
        ("outcomes", Outcomes),
        ("minutes", Minutes),
        ("needs", Needs),
        ("refused", Refused),
        ("sessions", Sessions),
        ("weeks", Weeks),
        ("days", Days),
    ):
        app.add_directive(name, directive)
    app.add_css_file("teach.css")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
