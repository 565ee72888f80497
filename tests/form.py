"""The form of a chapter: each rule is a function from a document to its complaints."""

import ast
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from difflib import SequenceMatcher
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import jupytext

TREE = Path(__file__).resolve().parents[1]
HEADINGS = [
    "The idea in one picture",
    "What you will be able to do",
    "Set-up",
    "The mathematics",
    "From mathematics to code",
    "Training",
    "What the paper claims, and what we measured",
    "Play",
    "Where it breaks",
    "Exercises",
    "Further derivations",
    "What to remember, and what came after",
    "Run card",
]
CLAIMS, FURTHER, REMEMBER = HEADINGS[6], HEADINGS[10], HEADINGS[11]
CHANGED, COLUMNS = "What we changed", ["The paper", "Its code", "This chapter"]
WORDS, CELLS = 4000, 60  # of the core: all sections but the further derivations
CHECKS = {"close", "monte_carlo", "symbolic", "at_most"}
FIGURES = {"figures.show", "play.frames", "play.widget", "audio.players"}
TAG = re.compile(r"\\tag\{([^}]*)\}")
COUNT = re.compile(r"\d+(?:,\d{3})*")
NUMBER = re.compile(r"(\d+[a-z]?)(, def\.)?")
HEADING = re.compile(r"^(#{1,6}) (.+)$", re.MULTILINE)
EXERCISE = re.compile(
    r"^> \*\*Exercise (\d+) \((?:\d+ (?:min|h)|an? \w+), (?:easy|medium|hard|open)\)"
    r"\.\*\*",
    re.MULTILINE,
)
SOLUTION = re.compile(
    r"^<details><summary><b>Solution (\d+)</b></summary>\n\n(.*?)\n\n</details>$",
    re.MULTILINE | re.DOTALL,
)
FENCE = re.compile(r"^```(\w*).*?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Cell(NamedTuple):
    """A cell of a chapter's source; `section` is the heading of level 2 above it."""

    code: bool
    text: str
    tags: tuple[str, ...]
    section: str


class Document(NamedTuple):
    """A chapter's source, and the text of its folder in the package."""

    slug: str
    text: str
    cells: tuple[Cell, ...]
    package: str

    def part(self, section: str) -> str:
        """The text of one section, without its code."""
        return "\n\n".join(
            c.text for c in self.cells if c.section == section and not c.code
        )


def read(text: str, slug: str, package: str = "") -> Document:
    """Parse a source in jupytext's MyST."""
    section, cells = "", []
    for cell in jupytext.reads(text, fmt="md:myst").cells:
        tags = tuple(cell.metadata.get("tags", []))
        if cell.cell_type == "code":
            cells.append(Cell(True, cell.source, tags, section))
            continue
        # One cell may hold several sections.
        parts = re.split(r"(?m)^(?=## )", cell.source)
        for part in filter(str.strip, parts):
            if part.startswith("## "):
                section = part.split("\n")[0].removeprefix("## ").strip()
            cells.append(Cell(False, part, tags, section))
    return Document(slug, text, tuple(cells), package)


def load(file: Path) -> Document:
    """Read a chapter's file."""
    folder = TREE / "iclrtut" / "chapters" / file.stem
    modules = [module.read_text("utf-8") for module in sorted(folder.glob("*.py"))]
    return read(file.read_text("utf-8"), file.stem, "\n".join(modules))


def prose(text: str) -> str:
    """Text without code, formulas, markup of links and quotes, and HTML."""
    text = FENCE.sub("", text)
    text = re.sub(r"\$\$.*?\$\$", "", text, flags=re.DOTALL)
    text = re.sub(r"`[^`]*`|\$[^$]*\$", "", text)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    return re.sub(r"<[^>]*>|^[>#]+ ?", "", text, flags=re.MULTILINE)


def lines(cell: Cell) -> list[str]:
    """The lines of a cell that are not blank."""
    return [line for line in cell.text.split("\n") if line.strip()]


def codes(document: Document) -> list[Cell]:
    """The code cells."""
    return [cell for cell in document.cells if cell.code]


def python(source: str) -> str:
    """A cell as Python: lines of IPython's own become `pass`."""
    return re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", source)


def calls(source: str) -> Iterator[ast.Call]:
    """Every call in a cell, in order."""
    tree = ast.parse(python(source))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return iter(sorted(found, key=lambda node: (node.lineno, node.col_offset)))


# What chapters from before a rule may still break


def excuse(complaints: list[str], known: list[str]) -> tuple[list[str], list[str]]:
    """Complaints that are not known, and known ones that no longer occur.

    Numbers in a known complaint are upper bounds: a chapter may get better only.
    """
    new, left = [], list(known)
    for complaint in complaints:
        found = next((each for each in left if _covers(each, complaint)), None)
        if found is None:
            new.append(complaint)
        else:
            left.remove(found)
    return new, left


def _covers(known: str, complaint: str) -> bool:
    bounds, numbers = (COUNT.findall(text) for text in (known, complaint))
    pairs = zip(bounds, numbers, strict=False)
    within = all(_number(n) <= _number(bound) for bound, n in pairs)
    return COUNT.sub("#", known) == COUNT.sub("#", complaint) and within


def _number(text: str) -> int:
    return int(text.replace(",", ""))


# The rules


def sections(document: Document) -> list[str]:
    """One title, then the thirteen sections in order (the title opens the first)."""
    texts = [FENCE.sub("", c.text) for c in document.cells if not c.code]
    found = [m for text in texts for m in HEADING.findall(text)]
    titles = [name for level, name in found if level == "#"]
    named = [name for level, name in found if level == "##"]
    complaints = []
    if len(titles) != 1 or not found or found[0][0] != "#":
        complaints.append(f"it has the titles {titles}: give it one, at its top")
    if named != HEADINGS:
        at = next(
            (
                i
                for i, pair in enumerate(zip(named, HEADINGS, strict=False))
                if pair[0] != pair[1]
            ),
            min(len(named), len(HEADINGS)),
        )
        here, wanted = (s[at] if at < len(s) else "nothing" for s in (named, HEADINGS))
        complaints.append(f"section {at + 1} is {here!r} and should be {wanted!r}")
    return complaints


def placeholders(document: Document) -> list[str]:
    """Nothing of the template is left."""
    left = re.findall(r"«[^»]*»|\bTODO\b|\bSLUG\b", document.text)
    return [f"{each} is not filled in" for each in left]


def opening(document: Document) -> list[str]:
    """The first section has a picture and its measured running times."""
    text = document.part(HEADINGS[0])
    complaints = []
    if not re.search(r"!\[", text):
        complaints.append("the idea has no picture")
    for mark in ("{{seconds}}", "{{difficulty}}", "{{prerequisites}}"):
        if mark not in text:
            complaints.append(f"the first section lacks {mark}")
    return complaints


def outcomes(document: Document) -> list[str]:
    """Three to five outcomes, each tested by an exercise that exists."""
    text = document.part(HEADINGS[1])
    found = re.split(r"(?m)^\d+\. ", text)[1:]
    there = set(EXERCISE.findall(document.part("Exercises")))
    complaints = []
    if not 3 <= len(found) <= 5:
        complaints.append(f"it has {len(found)} outcomes: write three to five")
    for number, outcome in enumerate(found, 1):
        named = set(
            re.findall(r"\d+", " ".join(re.findall(r"\(exercise.*?\)", outcome)))
        )
        if not named or named - there:
            complaints.append(f"outcome {number} names no exercise that exists")
    return complaints


def setup(document: Document) -> list[str]:
    """An installing cell, a cell of parameters, and a start."""
    cells = codes(document)
    complaints = []
    if not cells or "setup" not in cells[0].tags or "find_spec" not in cells[0].text:
        complaints.append("the first code cell does not install: tag it `setup`")
    elif len(lines(cells[0])) > 6:
        complaints.append(
            f"the first code cell has {len(lines(cells[0]))} lines, over 6"
        )
    elif "OWNER/REPO@COMMIT" not in cells[0].text:
        complaints.append("the first code cell does not install OWNER/REPO@COMMIT")
    given = [cell for cell in cells if "parameters" in cell.tags]
    if len(given) != 1:
        complaints.append(f"{len(given)} cells are tagged `parameters`: tag one")
    else:
        names = re.findall(r"(?m)^(\w+) *=", given[0].text)
        if names != ["profile", "seed"]:
            complaints.append(f"the parameters are {names}, not profile and seed")
    start = f'run = iclrtut.start("{document.slug}", profile, seed)'
    if not any(start in cell.text for cell in cells if cell.section == "Set-up"):
        complaints.append(f"the set-up lacks {start}")
    return complaints


def _events(document: Document) -> Iterator[tuple[str, str]]:
    """Headings, equations and checks in reading order."""
    for cell in document.cells:
        if not cell.code:
            marks = re.finditer(rf"{TAG.pattern}|(?m:^#+ )", FENCE.sub("", cell.text))
            for mark in marks:
                yield ("tag", mark[1]) if mark[1] is not None else ("heading", "")
            continue
        practice = any(tag.startswith(("exercise-", "check-")) for tag in cell.tags)
        for call in calls(cell.text):
            name = ast.unparse(call.func).split(".")[-1]
            if name not in CHECKS:
                continue
            first = call.args[0] if call.args else None
            plain = isinstance(first, ast.Constant) and isinstance(first.value, str)
            numbers = first.value.split() if plain else ["?"]
            for number in numbers:
                yield "practice" if practice else "check", number


def equations(document: Document) -> list[str]:
    """Each numbered equation is executed below it, before the next heading."""
    complaints, known, waiting = [], set(), []
    for kind, what in [*_events(document), ("heading", "")]:
        if kind == "tag":
            number = NUMBER.fullmatch(what)
            if not number:
                complaints.append(f"the tag {what!r} is not of the form 4 or 9, def.")
                continue
            if number[1] in known:
                complaints.append(f"equation ({number[1]}) stands twice")
            known.add(number[1])
            if not number[2]:
                waiting.append(number[1])
        elif kind == "heading":
            complaints += [f"equation ({each}) is not executed" for each in waiting]
            waiting = []
        else:
            if what == "?":
                complaints.append("a check's first argument is no plain text")
            elif what not in known:
                complaints.append(
                    f"a check names ({what}), which no equation above has"
                )
            if kind == "check" and what in waiting:
                waiting.remove(what)
    return complaints


def links(document: Document) -> list[str]:
    """Links inside the page lead to what they name."""
    text = "\n".join(c.text for c in document.cells if not c.code)
    numbers = {tag.split(",")[0] for tag in TAG.findall(text)}
    there = {f"eq-{number}" for number in numbers}
    there |= {f"exercise-{number}" for number in EXERCISE.findall(text)}
    there |= {f"solution-{number}" for number, _ in SOLUTION.findall(text)}
    complaints = []
    for shown, target in re.findall(r"(?<!!)\[([^\]]*)\]\(#([^)]*)\)", text):
        if target not in there:
            complaints.append(f"the link [{shown}] leads nowhere: #{target}")
        elif target.startswith("eq-") and shown != f"({target[3:]})":
            complaints.append(f"the link [{shown}] leads to #{target}")
    return complaints


def sizes(document: Document) -> list[str]:
    """Cells are short, and so are their lines."""
    cells = codes(document)
    complaints = []
    for number, cell in enumerate(cells, 1):
        if len(lines(cell)) > 30:
            complaints.append(
                f"code cell {number} has {len(lines(cell))} lines, over 30"
            )
        long = [line for line in cell.text.split("\n") if len(line) > 79]
        complaints += [f"a line of code cell {number} is over 79: {x}" for x in long]
    median = statistics.median(len(lines(cell)) for cell in cells) if cells else 0
    if median > 10:
        complaints.append(f"the median code cell has {median:g} lines, over 10")
    return complaints


def neighbours(document: Document) -> list[str]:
    """Between two code cells stands a sentence."""
    complaints, number, since = [], 0, ""
    for cell in document.cells:
        if not cell.code:
            since += cell.text + "\n"
            continue
        number += 1
        said = HEADING.sub("", since)
        # A formula or a fold alone is no sentence.
        if len(prose(SOLUTION.sub("", said)).split()) < 4:
            complaints.append(f"no sentence leads from a cell to code cell {number}")
        since = ""
    return complaints


def proportion(document: Document) -> list[str]:
    """At least eight words of prose for each line of code; captions are prose."""
    words, count = count_words(document.cells), 0
    for cell in codes(document):
        count += len(lines(cell))
        for call in calls(cell.text):
            for keyword in call.keywords:
                if keyword.arg in ("alt", "caption"):
                    value = keyword.value
                    words += len(ast.unparse(value).split())
                    count -= (value.end_lineno or value.lineno) - value.lineno + 1
    if words < 8 * count:
        return [
            f"{words} words stand beside {count} lines of code: write more, or less"
        ]
    return []


def count_words(cells: Iterable[Cell]) -> int:
    """The words of prose; a formula or a name in a sentence is one."""
    text = FENCE.sub("", "\n".join(c.text for c in cells if not c.code))
    text = re.sub(r"\$\$.*?\$\$", "", text, flags=re.DOTALL)
    return len(prose(re.sub(r"`[^`]*`|\$[^$]*\$", "x", text)).split())


def core(document: Document) -> list[str]:
    """What is no further derivation is one sitting."""
    cells = [cell for cell in document.cells if cell.section != FURTHER]
    found = {"words": count_words(cells), "code cells": sum(c.code for c in cells)}
    return [
        f"the core has {found[what]:,} {what}, over {most:,}: shorten it, or move some "
        f"to {FURTHER!r}"
        for what, most in (("words", WORDS), ("code cells", CELLS))
        if found[what] > most
    ]


def training(document: Document) -> list[str]:
    """The page takes a step, hands its loop to `fit`, and holds it to the package's."""
    cells = [cell.text for cell in codes(document) if cell.section == "Training"]
    trees = [ast.parse(python(cell)) for cell in cells]
    functions = [
        n for t in trees for n in ast.walk(t) if isinstance(n, ast.FunctionDef)
    ]
    steps = [called(ast.unparse(function)) for function in functions]
    complaints = []
    if not any({"backward", "step"} <= names for names in steps):
        complaints.append(
            "no function under Training calls loss.backward() and steps an optimiser"
        )
    names = called("\n".join(cells))
    if "fit" not in names:
        complaints.append("nothing under Training hands a loop to fit")
    if ".backward()" in document.package and "same_steps" not in names:
        complaints.append(
            "nothing under Training calls same_steps, and the package trains"
        )
    return complaints


def called(source: str) -> set[str]:
    """The names of what a cell calls, without the objects that they belong to."""
    return {ast.unparse(call.func).split(".")[-1] for call in calls(source)}


def changes(document: Document) -> list[str]:
    """The claims end with what we changed: a table, and a list of what is left out."""
    last = re.split(r"(?m)^### ", document.part(CLAIMS))[-1]
    title, _, body = last.partition("\n")
    if title.strip() != CHANGED:
        return [f"{CLAIMS!r} does not end with a subsection {CHANGED!r}"]
    lines = re.findall(r"(?m)^\|(.*)\|$", body)
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)] for line in lines]
    complaints = []
    if rows[:1] != [COLUMNS] or len(rows) < 3 or any(len(row) != 3 for row in rows):
        complaints.append(f"{CHANGED!r} has no table of the columns {COLUMNS}")
    if not re.search(r"(?m)^- ", body):
        complaints.append(f"{CHANGED!r} has no list of what is left out")
    return complaints


def alt_texts(document: Document) -> list[str]:
    """Every picture says what it shows to who cannot see it."""
    complaints = []
    for cell in document.cells:
        if not cell.code:
            for alt in re.findall(r"!\[([^\]]*)\]\(", cell.text):
                if len(alt.split()) < 3:
                    complaints.append(f"a picture has the alt text {alt!r}")
            for image in re.findall(r"<img[^>]*>", cell.text):
                if not re.search(r'alt="[^"]+"', image):
                    complaints.append(f"{image} has no alt text")
            continue
        for call in calls(cell.text):
            name = ast.unparse(call.func)
            given = {keyword.arg for keyword in call.keywords}
            if name in FIGURES and not {"alt", "caption"} <= given:
                complaints.append(f"{name} gets no alt text or no caption")
            if name.endswith("plt.show"):
                complaints.append("plt.show() has no alt text: use figures.show")
    return complaints


def plays(document: Document) -> list[str]:
    """Something to play with stands under Play."""
    cells = [cell for cell in codes(document) if cell.section == "Play"]
    names = {ast.unparse(call.func) for cell in cells for call in calls(cell.text)}
    played = [name for name in names if name.startswith("play.")]
    return [] if played else ["nothing under Play calls iclrtut.play"]


def exercises(document: Document) -> list[str]:
    """At least four, numbered, each with a hidden solution; half have checks."""
    text = document.part("Exercises")
    numbers = EXERCISE.findall(text)
    complaints = []
    if len(numbers) < 4:
        complaints.append(f"it has {len(numbers)} exercises: write at least four")
    if numbers != [str(i) for i in range(1, len(numbers) + 1)]:
        complaints.append(f"the exercises are numbered {', '.join(numbers)}")
    if len(re.findall(r"\*\*Exercise", text)) != len(numbers):
        complaints.append(
            "an exercise does not begin like `> **Exercise 2 (10 min, easy).**`"
        )
    # In reading order each exercise is followed by its solution.
    order = re.findall(r"\*\*Exercise (\d+)|<b>Solution (\d+)</b>", text)
    wanted = [pair for n in numbers for pair in ((n, ""), ("", n))]
    if order != wanted or [n for n, _ in SOLUTION.findall(text)] != numbers:
        complaints.append("an exercise has no folded solution right below it")
    made = answers(document)
    for kind in ("stub", "solution", "check"):
        lacking = [n for n, found in made.items() if not found[kind]]
        complaints += [f"exercise {n} has no {kind}" for n in lacking]
    for number, found in made.items():
        if not found["check"].startswith(f"with run.exercise({number}):"):
            complaints.append(f"the check of exercise {number} begins otherwise")
        if not number.isdecimal() or number not in numbers:
            complaints.append(f"a stub or check belongs to no exercise: {number}")
    checked = sum(bool(found["check"]) for found in made.values())
    if 2 * checked < len(numbers):
        complaints.append(
            f"{checked} of {len(numbers)} exercises are checked by the machine: check "
            "at least half"
        )
    return complaints


def answers(document: Document) -> dict[str, dict[str, str]]:
    """For each exercise with code: its stub, its solution and its check."""
    made: dict[str, dict[str, str]] = {}
    empty = {"stub": "", "solution": "", "check": ""}
    for cell in codes(document):
        for tag in cell.tags:
            kind, _, number = tag.partition("-")
            if kind in ("exercise", "check"):
                key = {"exercise": "stub", "check": "check"}[kind]
                made.setdefault(number, dict(empty))[key] = cell.text
    for number, text in SOLUTION.findall(document.part("Exercises")):
        code = "\n".join(body for kind, body in FENCE.findall(text) if kind == "python")
        if code:
            made.setdefault(number, dict(empty))["solution"] = code
    return made


def stubs(document: Document) -> list[str]:
    """A stub is its solution with parts left out."""
    complaints = []
    for number, found in answers(document).items():
        if not (found["stub"] and found["solution"]):
            continue
        if "..." not in found["stub"]:
            complaints.append(f"the stub of exercise {number} leaves nothing out")
        rest = iter(found["solution"].split("\n"))
        for line in found["stub"].split("\n"):
            bare = line.strip()
            if not bare or bare == "..." or bare.startswith(("#", "raise ")):
                continue
            like = re.escape(line.rstrip()).replace(re.escape("..."), ".+")
            if not any(re.fullmatch(like, other.rstrip()) for other in rest):
                near = max(
                    found["solution"].split("\n"),
                    key=lambda other: SequenceMatcher(None, line, other).ratio(),
                )
                complaints.append(
                    f"exercise {number}: the stub's line {bare!r} is not in the "
                    f"solution in that order; nearest is {near.strip()!r}"
                )
    return complaints


def typed_numbers(document: Document) -> list[str]:
    """Measured numbers come from records: none is typed, the paper's own aside."""
    complaints = []
    for section in (CLAIMS, REMEMBER):
        measured, _, settings = document.part(section).partition(f"### {CHANGED}\n")
        settings = re.sub(r"(?m)^\|.*$", "", settings)
        text = re.sub(r"\{\{.*?\}\}", "", prose(f"{measured}\n{settings}"))
        for sentence in re.split(r"(?<=[.!?:;])\s+|\n\n", text):
            if re.search(r"\bpapers?\b", sentence):
                continue
            for found in re.findall(
                r"(?<![\w.:])\d+\.\d+\b|\d+ ?%(?! interval)", sentence
            ):
                complaints.append(f"{found} is typed in {sentence.strip()!r}")
    return complaints


def claims(document: Document) -> list[str]:
    """Each subsection on claims says the claim in a box and measures it."""
    parts: dict[str, str] = {}
    name = ""
    for cell in document.cells:
        if cell.section != CLAIMS:
            continue
        if not cell.code:
            pieces = re.split(r"(?m)^### (.*)$", cell.text)
            parts[name] = parts.get(name, "") + pieces[0]
            for title, text in zip(pieces[1::2], pieces[2::2], strict=True):
                name = title
                parts[name] = text
        else:
            parts[name] = parts.get(name, "") + "\n" + cell.text
    for name in ("", CHANGED):
        parts.pop(name, None)
    complaints = [] if parts else ["no claim has a subsection of its own"]
    for name, text in parts.items():
        if not re.search(r"(?m)^> \*\*Claim", text):
            complaints.append(f"{name!r} does not begin with `> **Claim (name).**`")
        if not re.search(r"run\.claim(_all)?\(", text):
            complaints.append(f"{name!r} measures nothing with run.claim")
    return complaints


def card(document: Document) -> list[str]:
    """The last code cell shows the run card."""
    cells = codes(document)
    last = cells[-1] if cells else Cell(True, "", (), "")
    if last.section != "Run card" or "run.card()" not in last.text:
        return ["the last code cell is not run.card()"]
    return []


def clean_code(document: Document) -> list[str]:
    """Ruff finds nothing in the cells, read one after another, nor in solutions."""
    solved = {found["stub"]: found["solution"] for found in answers(document).values()}
    pieces = [python(solved.get(cell.text, cell.text)) for cell in codes(document)]
    return _ruff("\n\n\n".join(pieces))


def _ruff(source: str) -> list[str]:
    # Imports stand before their first use, and short letters are mathematics.
    left_out = ["E501", "E402", "E731", "E741", "I001", "B018", "F811", "B023", "B007"]
    words = [sys.executable, "-m", "ruff", "check", "--isolated", "--line-length=79"]
    words += ["--select=E,F,B,SIM,UP", f"--ignore={','.join(left_out)}"]
    words += ["--target-version=py311", "--output-format=json", "-"]
    done = subprocess.run(words, input=source, capture_output=True, text=True)
    found = json.loads(done.stdout or "[]")
    rows = source.split("\n")
    return [
        f"ruff: {each['code']} {each['message']}: "
        f"{rows[each['location']['row'] - 1].strip()}"
        for each in found
    ]


def order_of_headings(document: Document) -> list[str]:
    """No level of heading is skipped."""
    texts = [FENCE.sub("", c.text) for c in document.cells if not c.code]
    found = [m for text in texts for m in HEADING.findall(text)]
    return [
        f"heading {lower[1]!r} skips a level"
        for upper, lower in pairwise(found)
        if len(lower[0]) > len(upper[0]) + 1
    ]


RULES: dict[str, Callable[[Document], list[str]]] = {
    rule.__name__: rule
    for rule in (
        sections,
        order_of_headings,
        placeholders,
        opening,
        outcomes,
        setup,
        equations,
        links,
        sizes,
        neighbours,
        proportion,
        core,
        training,
        alt_texts,
        plays,
        exercises,
        stubs,
        typed_numbers,
        claims,
        changes,
        card,
        clean_code,
    )
}
