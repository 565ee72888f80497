"""Directives for the teacher's pages: outcomes, minutes, prerequisites, plans.

Outcomes, exercises and the amount of text come from the chapters' sources, running
times from the records. What people decide stands in book/teach/: prerequisites.yml and
plans.yml.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from pages import Page, by_kind, median_time
from prerequisites import draw, network
from sphinx.application import Sphinx

# How fast a class reads, by our own assumption; nobody was timed.
WORDS = 120  # of prose, a minute
EQUATION, LINE = 60, 5  # seconds for a displayed equation, for a line of code
# Not read through: exercises have times of their own.
SKIPPED = ("Exercises", "Run card")

SECTION = re.compile(r"^## (.+)\n", re.MULTILINE)
HEADING = re.compile(r"^(#{2,3}) (.+)$", re.MULTILINE)
CODE = re.compile(r"^```\{code-cell\}.*?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DISPLAYED = re.compile(r"\$\$.*?\$\$", re.DOTALL)
EXERCISE = re.compile(
    r"^> \*\*Exercise (\d+) \(([^,]+), ([a-z]+)\)\.\*\*", re.MULTILINE
)
OUTCOME = re.compile(
    r"^(\d+)\. (.*?)\s*\(exercises? ([\d and,]+)\)\.$", re.MULTILINE | re.DOTALL
)
MENTION = re.compile(r"\((\d+[a-z]?)\)")
KEY = re.compile(r"^    (\d+): \[$")
COMMENT = re.compile(r"^        # (.*)$")


class Exercise(NamedTuple):
    """The head of an exercise: its stated time, such as `10 min`, and difficulty."""

    number: int
    time: str
    difficulty: str

    @property
    def minutes(self) -> int:
        """The stated minutes; none where an afternoon is asked for."""
        count, _, unit = self.time.partition(" ")
        return int(count) * {"min": 1, "h": 60}[unit] if count.isdigit() else 0


class Outcome(NamedTuple):
    """What a student can do, and the exercises that test it."""

    text: str
    exercises: tuple[int, ...]


class Portion(NamedTuple):
    """What stands below one heading of level 2 or 3, up to the next."""

    part: str
    heading: str
    words: int
    equations: int
    lines: int

    @property
    def seconds(self) -> float:
        """How long reading it takes, at the rates assumed above."""
        return 60 * self.words / WORDS + EQUATION * self.equations + LINE * self.lines


def exercises(text: str) -> dict[int, Exercise]:
    """The exercises of a chapter's source, by number."""
    found = [Exercise(int(n), *words) for n, *words in EXERCISE.findall(text)]
    return {exercise.number: exercise for exercise in found}


def outcomes(text: str) -> list[Outcome]:
    """The outcomes that a chapter's source promises, in order."""
    _, _, rest = text.partition("\n## What you will be able to do\n")
    section, _, _ = rest.partition("\n## ")
    return [
        Outcome(" ".join(words.split()), tuple(map(int, re.findall(r"\d+", numbers))))
        for _, words, numbers in OUTCOME.findall(section)
    ]


def portions(text: str) -> list[Portion]:
    """All that is to be read in a chapter's source, heading by heading."""
    made, part = [], ""
    heads = list(HEADING.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    for head, end in zip(heads, ends, strict=True):
        part = head[2] if head[1] == "##" else part
        if part not in SKIPPED:
            made.append(Portion(part, head[2], *amount(text[head.end() : end])))
    return made


def amount(body: str) -> tuple[int, int, int]:
    """Words, displayed equations and lines of code of some Markdown."""
    code = [line for cell in CODE.findall(body) for line in cell.split("\n")]
    lines = sum(bool(line) and not line.startswith(":tags:") for line in code)
    body = CODE.sub("", body)
    equations = len(DISPLAYED.findall(body))
    body = DISPLAYED.sub("", body)
    body = re.sub(r"!\[[^\]]*\]\([^)]*\)|\]\([^)]*\)|<[^>]*>", "", body)
    body = re.sub(r"\$[^$]*\$|`[^`]*`", "x", body)  # a symbol reads as a word
    return len(re.findall(r"\w[\w'-]*", body)), equations, lines


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

    def needs(self) -> dict[str, list[str]]:
        """What each chapter asks for."""
        return {
            chapter.slug: chapter.prerequisites.split(", ")
            for chapter in self.standing()
        }


class Map(Teacher):
    """What each chapter needs, drawn."""

    def html(self) -> str:
        """A drawing with links to the chapters, in a box that scrolls if it must."""
        titles = {chapter.slug: chapter.title for chapter in self.standing()}
        graph = network(self.data("prerequisites.yml"), self.needs())
        drawn = draw(graph, titles, lambda slug: self.link(f"notebooks/{slug}"))
        name = "What each chapter needs, drawn; the same in words stands below"
        return (
            f'<div class="scroll" tabindex="0" role="group" aria-label="{name}">'
            f"{drawn}</div>"
        )


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
        head = exercises(self.source(slug))[number]
        link = f"[Exercise\u00a0{number}]({page(slug)}#exercise-{number})"
        return f"{link} ({unbroken(head.time)}, {head.difficulty})"


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
            f"Reading counts {WORDS} words of prose a minute, {EQUATION} seconds for a "
            f"displayed equation and {LINE} seconds for a line of code. That is an "
            "assumption of ours, for someone who reads with a pencil: nobody was "
            "timed."
        )
        head = "| Chapter | Reading | Running | Exercises |\n|---|---|---|---|\n"
        rows = "\n".join(map(self.row, self.standing()))
        parts = map(self.parts, self.standing())
        return "\n\n".join([rates, head + rows, *parts])

    def row(self, chapter: Any) -> str:
        """All of one chapter."""
        text = self.source(chapter.slug)
        heads = exercises(text).values()
        long = [head.time for head in heads if not head.minutes]
        short = unbroken(f"{sum(head.minutes for head in heads)} min")
        practice = " and ".join([short, *long])
        cells = title(chapter), reading(portions(text)), self.running(chapter.slug)
        return f"| {' | '.join(cells)} | {practice} |"

    def parts(self, chapter: Any) -> str:
        """One chapter, part by part."""
        rows: dict[str, list[Portion]] = {}
        for portion in portions(self.source(chapter.slug)):
            rows.setdefault(portion.part, []).append(portion)
        body = "\n".join(
            f"| {part} | {total(found, 'words'):,} | {total(found, 'equations')} "
            f"| {total(found, 'lines'):,} | {reading(found)} |"
            for part, found in rows.items()
        )
        head = "| Part | Words | Equations | Lines of code | Reading |"
        return f"## {title(chapter)}\n\n{head}\n|---|--:|--:|--:|--:|\n{body}"


class Needs(Written):
    """What each chapter needs, in words."""

    def html(self) -> str:
        """A list of chapters, then one of what they build on."""
        graph, needs = self.data("prerequisites.yml"), self.needs()
        chapters = "\n".join(
            self.chapter(chapter, needs[chapter.slug], graph["helps"])
            for chapter in self.standing()
        )
        builds = "\n".join(
            f"- *{thing}* builds on {', '.join(below)}."
            for thing, below in graph["know"].items()
            if below
        )
        return f"{chapters}\n\nAnd beneath these:\n\n{builds}"

    def chapter(
        self, chapter: Any, needs: list[str], helps: dict[str, dict[str, str]]
    ) -> str:
        """What one chapter needs, and what helps where."""
        where = ", ".join(
            f"{thing}, for ({number})" for thing, number in helps[chapter.slug].items()
        )
        also = linked(where, chapter.slug)
        return f"- {title(chapter)} needs {', '.join(needs)}. It helps to know {also}."


class Refused(Written):
    """The wrong answers that the checks of a chapter refuse, as its tests give them."""

    required_arguments, optional_arguments = 1, 0

    def html(self) -> str:
        """A list of exercises."""
        (slug,) = self.arguments
        file = self.tree / "tests" / "chapters" / slug / "wrong_answers.py"
        return "\n".join(
            f"- [Exercise {number}]({page(slug)}#exercise-{number}): "
            + " ".join(f"*{fault}*" for fault in faults)
            for number, faults in refused(file).items()
        )


class Weeks(Written):
    """The plan of a term, week by week."""

    def html(self) -> str:
        """An overview, then a section a week."""
        weeks = self.data("plans.yml")["weeks"]
        read = readings(weeks, {c.slug: self.source(c.slug) for c in self.standing()})
        every = list(zip(range(1, len(weeks) + 1), weeks, read, strict=True))
        head = "| Week | What it is about | Reading | Exercises |\n|---|---|---|---|\n"
        rows = "\n".join(self.row(*week) for week in every)
        return "\n\n".join([head + rows, *(self.week(*week) for week in every)])

    def row(self, number: int, week: dict[str, Any], found: list[Portion]) -> str:
        """One week of the overview."""
        heads = [exercises(self.source(slug))[n] for slug, n in homework(week)]
        minutes = sum(head.minutes for head in heads)
        practice = "the project" if heads else "–"
        if minutes:
            practice = unbroken(f"{minutes} min")
        return f"| {number} | {week['title']} | {reading(found)} | {practice} |"

    def week(self, number: int, week: dict[str, Any], found: list[Portion]) -> str:
        """One week in words."""
        slug, chapters = week.get("chapter", ""), self.chapters()
        home = [linked(week["home"], slug)] if "home" in week else []
        if found:
            first, last = found[0].heading, found[-1].heading
            what = f"{title(chapters[slug])} from *{first}* to *{last}*"
            home.append(f"Read {what} ({reading(found)}).")
        given = [
            self.exercise(s, n) + ("" if s == slug else f" of {title(chapters[s])}")
            for s, n in homework(week)
        ]
        if given:
            home.append(", ".join(given) + ".")
        ids = week.get("claims", [])
        claims = " ".join(f"*{chapters[slug].claim(id).sentence}.*" for id in ids)
        measured = linked(claims, slug) or week["measured"]
        return (
            f"## Week {number}: {week['title']}\n\n"
            f"**In class.** {linked(week['class'], slug)}\n\n"
            f"**At home.** {' '.join(home)}\n\n**Measured.** {measured}"
        )


class Days(Written):
    """The plan of a workshop, hour by hour."""

    def html(self) -> str:
        """A section a day."""
        days = self.data("plans.yml")["days"]
        return "\n\n".join(self.day(*numbered) for numbered in enumerate(days, 1))

    def day(self, number: int, day: dict[str, Any]) -> str:
        """One day: when, and what happens."""
        rows, now, last = [], day["start"], ""
        for slot in day["slots"]:
            slug = slot.get("chapter", last)
            what = [linked(slot["do"], slug)]
            if slug != last:
                what.insert(0, f"**{title(self.chapters()[slug])}.**")
            if "exercises" in slot:
                given = [self.exercise(slug, n) for n in slot["exercises"]]
                what.append(", ".join(given) + ".")
            if "run" in slot:
                what.append(f"It takes {self.running(slot['run'])}.")
            rows.append(f"| {clock(now)} | {' '.join(what)} |")
            now, last = now + slot["minutes"], slug
        rows.append(f"| {clock(now)} | End |")
        body = "\n".join(rows)
        return f"## Day {number}: {day['title']}\n\n| Time | What |\n|---|---|\n{body}"


def page(slug: str) -> str:
    """The notebook of a chapter, from book/teach."""
    return f"../../notebooks/{slug}.ipynb"


def title(chapter: Any) -> str:
    """The title of a chapter, as a link."""
    return f"[{chapter.title}]({page(chapter.slug)})"


def linked(text: str, slug: str) -> str:
    """Text in which each `(3)` leads to that equation of a chapter."""
    if not slug:
        return text
    return MENTION.sub(rf"[(\1)]({page(slug)}#eq-\1)", text)


def homework(week: dict[str, Any]) -> list[tuple[str, int]]:
    """The exercises that a week gives: chapter and number."""
    return [(slug, n) for slug, numbers in week["homework"].items() for n in numbers]


def clock(minutes: int) -> str:
    """Minutes after midnight as a time of day."""
    return f"{minutes // 60}:{minutes % 60:02}"


def unbroken(time: str) -> str:
    """A time that no line breaks."""
    return time.replace(" ", "\u00a0")


def total(found: list[Portion], what: str) -> int:
    """One kind of text, added up."""
    return sum(getattr(portion, what) for portion in found)


def reading(found: list[Portion]) -> str:
    """The minutes of reading, or a dash for none."""
    seconds = sum(portion.seconds for portion in found)
    return unbroken(f"{max(1, round(seconds / 60))} min") if found else "–"


def readings(
    weeks: list[dict[str, Any]], sources: dict[str, str]
) -> list[list[Portion]]:
    """What each week reads: from its heading to that of the chapter's next week."""
    made = []
    for now, week in enumerate(weeks):
        if "from" not in week:
            made.append([])
            continue
        all_ = portions(sources[week["chapter"]])
        heads = [portion.heading for portion in all_]
        later = [
            w["from"] for w in weeks[now + 1 :] if w.get("chapter") == week["chapter"]
        ]
        end = heads.index(later[0]) if later else len(heads)
        made.append(all_[heads.index(week["from"]) : end])
    return made


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    for name, directive in (
        ("outcomes", Outcomes),
        ("minutes", Minutes),
        ("needs", Needs),
        ("map", Map),
        ("refused", Refused),
        ("weeks", Weeks),
        ("days", Days),
    ):
        app.add_directive(name, directive)
    app.add_css_file("teach.css")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
