"""The exercises that a chapter's source declares."""

import re
from typing import Any, NamedTuple

POINTS = {"easy": 1, "medium": 2, "hard": 3, "open": 0}
PROMPT = "Your answer:"  # begins the cell of an answer that a person reads
# The first line of an exercise: number, time and difficulty.
HEAD = re.compile(
    r"^> \*\*Exercise (\d+) \(([^,()]+), (easy|medium|hard|open)\)\.\*\*", re.MULTILINE
)
SECTION = re.compile(r"^## (.+)$", re.MULTILINE)


class Exercise(NamedTuple):
    """One exercise; `stub` and `check` are empty where a person grades it."""

    number: int
    stub: str
    check: str
    points: int


def exercises(notebook: Any) -> list[Exercise]:
    """The exercises of a chapter's notebook, in their order."""
    text = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    tagged = {tag: c.source for c in notebook.cells for tag in tags(c)}
    known = []
    for number, _, difficulty in HEAD.findall(text):
        check = tagged.get(f"check-{number}", "")
        stub = tagged.get(f"exercise-{number}", "")
        points = POINTS[difficulty] if check else 0
        known.append(Exercise(int(number), stub, check, points))
    return known


def setup(notebook: Any) -> list[str]:
    """The code cells of the section Set-up, which run before every answer."""
    cells, section = [], ""
    for cell in notebook.cells:
        if cell.cell_type == "code" and section == "Set-up":
            cells.append(cell.source)
        elif cell.cell_type == "markdown":
            section = [section, *SECTION.findall(cell.source)][-1]
    return cells


def tags(cell: Any) -> list[str]:
    """A cell's tags, and its name for nbgrader."""
    metadata = cell.get("metadata", {})
    name = metadata.get("nbgrader", {}).get("grade_id")
    return [*metadata.get("tags", []), *([name] if name else [])]
