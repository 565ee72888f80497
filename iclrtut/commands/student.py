"""The student edition: each chapter without solutions, with places to answer.

Its cells carry nbgrader's metadata, so that it is an nbgrader assignment as well.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from iclrtut import claims
from iclrtut.commands import execute
from iclrtut.commands.exercises import HEAD, POINTS, exercises, tags
from iclrtut.errors import BadRequest
from iclrtut.files import write_atomic

SUMMARY = re.compile(r"(?is)<details\b[^>]*>\s*<summary\b.*?</summary>")
FOLD = re.compile(r"(?i)<(/?)details\b[^>]*>")
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\([^)\s]*#solution-\d+\)")
PLACE = re.compile(r"(?m)^(?=> \*\*Exercise \d+ \(|## )")
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
        folder: where the notebooks go; it is made if it is missing.
        slugs: chapters.

    Returns:
        The notebooks written.

    Raises:
        BadRequest: a chapter is unknown, or a notebook is there already.
        RunFailed: the folder cannot be written.
    """
    import nbformat
    from tqdm import tqdm

    named = [claims.chapter(slug).slug for slug in slugs or claims.slugs()]
    files = {slug: folder / f"{slug}.ipynb" for slug in dict.fromkeys(named)}
    for file in files.values():
        if file.exists():
            raise BadRequest(
                f"{file} is there already and may hold answers: move it away, or name "
                "another folder."
            )
    made = {
        files[slug]: nbformat.writes(edition(execute.source(slug), slug))
        for slug in tqdm(files, desc="chapters", disable=None)
    }
    for file, text in made.items():
        write_atomic(file, text.encode())
    if not (folder / "README.md").exists():
        text = README.format(slug=next(iter(files)))
        write_atomic(folder / "README.md", text.encode())
    return list(made)


def edition(notebook: Any, slug: str) -> Any:
    """A chapter's notebook as its students get it.

    Of the source nothing is taken over but the text outside the solutions, the code of
    its cells, and the tags of set-up, answers and checks.

    Raises:
        BadRequest: a fold does not end in the cell in which it begins.
    """
    from nbformat import v4

    points = {each.number: each.points for each in exercises(notebook)}
    checked = {each.number for each in exercises(notebook) if each.check}
    cells = [v4.new_markdown_cell(NOTE)]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            made = v4.new_code_cell(cell.source)
            made.metadata.tags = [tag for tag in tags(cell) if KEPT.fullmatch(tag)]
            _mark(made, points)
            cells.append(made)
        elif cell.cell_type == "markdown":
            text = LINK.sub(r"\1", without_solutions(cell.source, slug))
            for part in filter(str.strip, PLACE.split(text)):
                cells.append(v4.new_markdown_cell(part.strip()))
                cells += _room(part, checked)
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    return v4.new_notebook(
        cells=cells,
        metadata={
            "kernelspec": {
                "display_name": "Python 3",
                "language": "python",
                "name": "python3",
            },
            "language_info": {"name": "python"},
        },
    )


def without_solutions(text: str, slug: str) -> str:
    """A cell's text without its folded solutions.

    Raises:
        BadRequest: a fold does not end in this cell, or ends twice, so that nobody can
            say where a solution ends.
    """
    kept, start, depth, hidden = "", 0, 0, 0
    for fold in FOLD.finditer(text):
        depth += -1 if fold[1] else 1
        summary = SUMMARY.match(text, fold.start())
        if not hidden and summary and "solution" in summary[0].lower():
            kept, hidden = kept + text[start : fold.start()], depth
        elif hidden and depth < hidden:
            start, hidden = fold.end(), 0
        if depth < 0:
            break
    if depth:
        raise BadRequest(
            f"a fold of {slug} does not begin and end once in one cell: give each "
            "<details> its </details> before the next code cell."
        )
    return kept + text[start:]


def _room(text: str, checked: set[int]) -> Iterator[Any]:
    """A cell for the answer to an exercise that no machine checks."""
    from nbformat import v4

    head = HEAD.match(text)
    if head and int(head[1]) not in checked:
        cell = v4.new_markdown_cell("Your answer:")
        name = f"answer-{head[1]}"
        cell.metadata.tags = [name]
        cell.metadata.nbgrader = _nbgrader(
            name, "markdown", grade=True, solution=True, points=POINTS[head[2]]
        )
        yield cell


def _mark(cell: Any, points: dict[int, int]) -> None:
    """Tell nbgrader what a code cell is: set-up, an answer or a check."""
    for tag in cell.metadata.tags:
        kind, _, number = tag.partition("-")
        if kind == "exercise":
            cell.metadata.nbgrader = _nbgrader(tag, "code", solution=True)
        elif kind == "check":
            cell.metadata.nbgrader = _nbgrader(
                tag, "code", grade=True, locked=True, points=points.get(int(number), 0)
            )
        elif kind == "setup":
            cell.metadata.nbgrader = _nbgrader(tag, "code", locked=True)


def _nbgrader(name: str, kind: str, **said: Any) -> dict[str, Any]:
    made = {"grade": False, "solution": False, "locked": False, "task": False} | said
    return {"schema_version": 3, "grade_id": name, "cell_type": kind} | made
