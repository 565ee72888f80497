"""How long a chapter takes at home, from its source: reading, and its exercises."""

import re
from typing import NamedTuple

from iclrtut.commands.exercises import HEAD

# How fast a class reads, by our own assumption; nobody was timed.
WORDS = 120  # of prose, a minute
EQUATION, LINE = 60, 5  # seconds for a displayed equation, for a line of code
# Not read through: exercises have times of their own.
SKIPPED = ("Exercises", "Run card")

HEADING = re.compile(r"^(#{2,3}) (.+)$", re.MULTILINE)
CODE = re.compile(r"^```\{code-cell\}.*?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DISPLAYED = re.compile(r"\$\$.*?\$\$", re.DOTALL)


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


def exercises(source: str) -> dict[int, Exercise]:
    """The exercises of a chapter's source, by number."""
    found = [Exercise(int(n), *words) for n, *words in HEAD.findall(source)]
    return {exercise.number: exercise for exercise in found}


def portions(source: str) -> list[Portion]:
    """All that is to be read in a chapter's source, heading by heading."""
    found, part = [], ""
    heads = list(HEADING.finditer(source))
    ends = [head.start() for head in heads[1:]] + [len(source)]
    for head, end in zip(heads, ends, strict=True):
        part = head[2] if head[1] == "##" else part
        if part not in SKIPPED:
            found.append(Portion(part, head[2], *_amount(source[head.end() : end])))
    return found


def reading(portions: list[Portion]) -> int:
    """The minutes that reading takes, at least one."""
    return max(1, round(sum(portion.seconds for portion in portions) / 60))


def _amount(body: str) -> tuple[int, int, int]:
    """Words, displayed equations and lines of code of some Markdown."""
    code = [line for cell in CODE.findall(body) for line in cell.split("\n")]
    lines = sum(bool(line) and not line.startswith(":tags:") for line in code)
    body = CODE.sub("", body)
    equations = len(DISPLAYED.findall(body))
    body = DISPLAYED.sub("", body)
    body = re.sub(r"!\[[^\]]*\]\([^)]*\)|\]\([^)]*\)|<[^>]*>", "", body)
    body = re.sub(r"\$[^$]*\$|`[^`]*`", "x", body)  # a symbol reads as a word
    return len(re.findall(r"\w[\w'-]*", body)), equations, lines
