"""What a chapter's source says about its exercises."""

import re
from typing import Any, NamedTuple

POINTS = {"easy": 1, "medium": 2, "hard": 3, "open": 0}
HEAD = re.compile(
    r"^> \*\*Exercise (\d+) \([^)]*?\b(easy|medium|hard|open)\)", re.MULTILINE
)
SECTION = re.compile(r"^## (.+)$", re.MULTILINE)


class Exercise(NamedTuple):
    """One exercise; `stub` and `check` are empty where no machine checks it."""

    number: int
    level: str
    stub: str
    check: str

    @property
    def points(self) -> int:
        """What the machine can give: 0 where it checks nothing."""
        return POINTS[self.level] if self.check else 0


def exercises(notebook: Any) -> list[Exercise]:
    """The exercises of a chapter's notebook, in their order."""
    text = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    tagged = {tag: c.source for c in notebook.cells for tag in tags(c)}
    return [
        Exercise(
            int(number),
            level,
            tagged.get(f"exercise-{number}", ""),
            tagged.get(f"check-{number}", ""),
        )
        for number, level in HEAD.findall(text)
    ]


def opening(notebook: Any) -> list[str]:
    """The code that an answer finds run: the cells of the section Set-up."""
    found, section = [], ""
    for cell in notebook.cells:
        if cell.cell_type == "code" and section == "Set-up":
            found.append(cell.source)
        elif cell.cell_type == "markdown":
            section = [section, *SECTION.findall(cell.source)][-1]
    return found


def tags(cell: Any) -> list[str]:
    """A cell's tags, and the name that nbgrader knows it by."""
    metadata = cell.get("metadata", {})
    name = metadata.get("nbgrader", {}).get("grade_id")
    return [*metadata.get("tags", []), *([name] if name else [])]
