"""The student edition: chapters without solutions, with cells to answer in.

The cells carry nbgrader's metadata, so each notebook is an nbgrader assignment as well.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iclrtut import claims
from iclrtut.commands import execute
from iclrtut.commands.exercises import HEAD, POINTS, PROMPT, exercises, tags
from iclrtut.errors import BadRequest
from iclrtut.files import write_atomic

SOLUTION = re.compile(
    r"(?s)<details><summary><b>Solution \d+</b></summary>(?:(?!</?details).)*</details>"
)
FOLD = re.compile(r"(?i)<(/?)details")
SUMMARY = re.compile(r"(?is)<summary.*?</summary>")
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\([^)\s]*#solution-\d+\)")
# An exercise and a section begin a cell, so that cells to answer in fit between.
BREAK = re.compile(r"(?m)^(?=> \*\*Exercise \d+ \(|## )")
KEPT = re.compile(r"setup|parameters|exercise-\d+|check-\d+")
NOTE = (
    "*Student edition: the solutions are left out. Write your answers into the cells "
    "made for them; you may add code cells between an answer and its check. Whoever "
    "grades runs these cells behind those of the set-up, and nothing else of this "
    "page.*"
)
README = """# Student edition

One notebook for each chapter. The solutions are left out.

**Open it.** On Colab, choose *File, Upload notebook*; the first code cell installs what
the chapter needs. On your own machine, open this folder in JupyterLab, in an
environment that has the book's package, `iclrtut`. Then no network is needed.

**Answer.** Each exercise has a cell that is begun for you, and a check below it that
says whether you are right. Change neither the checks nor the names of functions. You
may add code cells between an answer and its check. Whoever grades runs the set-up cells
and your cells, and nothing else of the chapter: bring what you use. Exercises without a
check have a cell "Your answer:". Write your text there.

**Hand in.** Keep the file names. Whoever grades collects the files as
`DIR/<student>/<slug>.ipynb`, for example `DIR/ada/{slug}.ipynb`.
"""


def write(folder: Path, slugs: Sequence[str] = ()) -> list[Path]:
    """Write the student edition of these chapters (all if none is named).

    Args:
        folder: where the notebooks go; created if missing.
        slugs: chapters.

    Returns:
        The notebooks written.

    Raises:
        BadRequest: a chapter is unknown, or a notebook is there already.
        RunFailed: the folder cannot be written.
    """
    import nbformat

    named = [claims.chapter(slug).slug for slug in slugs or claims.slugs()]
    files = {slug: folder / f"{slug}.ipynb" for slug in named}
    for file in files.values():
        if file.exists():
            raise BadRequest(
                f"{file} is there already and may hold answers: move it away, or name "
                "another folder."
            )
    texts = {
        file: nbformat.writes(edition(execute.source(slug), slug))
        for slug, file in files.items()
    }
    if not (folder / "README.md").exists():
        texts[folder / "README.md"] = README.format(slug=named[0])
    for file, text in texts.items():
        write_atomic(file, text.encode())
    return list(files.values())


def edition(notebook: Any, slug: str) -> Any:
    """A chapter's notebook for students.

    Nothing of the source is copied but the text outside the solutions, the code of its
    cells, and the tags of set-up, answers and checks.

    Raises:
        BadRequest: it is unclear where a solution ends.
    """
    from nbformat import v4

    known = exercises(notebook)
    points = {f"check-{each.number}": each.points for each in known}
    checked = {each.number for each in known if each.check}
    cells = [v4.new_markdown_cell(NOTE)]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            kept = [tag for tag in tags(cell) if KEPT.fullmatch(tag)]
            cells.append(v4.new_code_cell(cell.source, metadata={"tags": kept}))
            for tag in set(kept) - {"parameters"}:
                solution = tag.startswith("exercise")
                grade = {"grade": True, "points": points[tag]} if tag in points else {}
                _mark(cells[-1], tag, solution=solution, locked=not solution, **grade)
        elif cell.cell_type == "markdown":
            text = LINK.sub(r"\1", without_solutions(cell.source, slug))
            for part in filter(str.strip, BREAK.split(text)):
                cells.append(v4.new_markdown_cell(part.strip()))
                head = HEAD.match(part)
                if head and int(head[1]) not in checked:
                    tag = f"answer-{head[1]}"
                    answer = v4.new_markdown_cell(PROMPT)
                    answer.metadata.tags = [tag]
                    _mark(
                        answer, tag, solution=True, grade=True, points=POINTS[head[3]]
                    )
                    cells.append(answer)
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    about = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return v4.new_notebook(cells=cells, metadata=about)


def without_solutions(text: str, slug: str) -> str:
    """A cell's text without its folded solutions.

    Raises:
        BadRequest: a solution is not folded as the book folds it, or the folds of the
            rest are not closed one after the other, so that some of a solution might
            be left.
    """
    rest = SOLUTION.sub("", text)
    folds = FOLD.findall(rest)
    solutions = [s for s in SUMMARY.findall(rest) if "solution" in s.lower()]
    if solutions or folds != ["", "/"] * (len(folds) // 2):
        raise BadRequest(
            f"a fold of {slug} is not clear: begin each solution with "
            "<details><summary><b>Solution 1</b></summary>, end it with </details> "
            "before the next code cell, and put no fold into another."
        )
    return rest


def _mark(cell: Any, name: str, **roles: Any) -> None:
    """Name a cell for nbgrader, with its role."""
    none = {"grade": False, "solution": False, "locked": False, "task": False}
    kind = {"schema_version": 3, "grade_id": name, "cell_type": cell.cell_type}
    cell.metadata.nbgrader = kind | none | roles
