"""Grading a class: each exercise of each student in a process of its own.

Only the students' answers are taken from what they hand in. Set-up and checks come from
the book's source, and the verdict comes back on a channel that an answer's output does
not reach. That guards against mishaps and small tricks; it is no safe against malice.
"""

import json
import os
import queue
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from iclrtut import claims
from iclrtut.commands import execute, trial
from iclrtut.commands.exercises import (
    HEAD,
    SECTION,
    Exercise,
    exercises,
    opening,
    tags,
)
from iclrtut.errors import BadRequest, RunFailed

MEMORY = 4 * 2**30
LARGEST = 100 * 2**20
PATIENCE = 300.0  # seconds for a chapter's own set-up
TO_READ = "for you to read"
UNTOUCHED = "not answered: the stub is as it was"


class Score(NamedTuple):
    """What a student reached in one exercise.

    Attributes:
        number: the exercise's.
        points: reached, of how many the machine can give (`of`).
        said: the line of the check, or why there is none.
        text: the student's words where no machine checks.
        broken: the book's own set-up failed, so that nothing was tried.
    """

    number: int
    points: int
    of: int
    said: str
    text: str = ""
    broken: bool = False


class Sheet(NamedTuple):
    """A student's scores in one chapter."""

    student: str
    chapter: str
    scores: list[Score]

    @property
    def points(self) -> tuple[int, int]:
        """The points reached, and of how many."""
        return sum(s.points for s in self.scores), sum(s.of for s in self.scores)


class Answer(NamedTuple):
    """A student's cells for one exercise; `lost` says that they had no tag."""

    cells: list[str]
    text: str = ""
    lost: bool = False


def grade(folder: Path, seconds: float = 60, processes: int = 1) -> list[Sheet]:
    """Grade what lies in `folder` as `<student>/<slug>.ipynb`.

    Args:
        folder: one folder a student in it.
        seconds: what each exercise may take, the set-up aside.
        processes: how many are tried at a time.

    Returns:
        A sheet for each student and each chapter that anybody handed in.

    Raises:
        BadRequest: there is no such folder, or nobody handed in a chapter.
    """
    from tqdm import tqdm

    if not folder.is_dir():
        raise BadRequest(f"there is no folder {folder}: name the one of the students.")
    students = sorted(
        f for f in folder.iterdir() if f.is_dir() and not f.name.startswith(".")
    )
    slugs = [
        slug
        for slug in claims.slugs()
        if any(os.path.exists(student / f"{slug}.ipynb") for student in students)
    ]
    if not slugs:
        raise BadRequest(
            f"{folder} holds no submission: they lie in it as STUDENT/CHAPTER.ipynb, "
            f"for example ada/{claims.slugs()[0]}.ipynb."
        )
    books = {slug: execute.source(slug) for slug in slugs}
    jobs = [
        (student, slug, exercise, answer)
        for student in students
        for slug in slugs
        for exercise, answer in _handed_in(student / f"{slug}.ipynb", books[slug])
    ]
    setups = {slug: opening(book) for slug, book in books.items()}

    def one(job: tuple[Path, str, Exercise, Answer | str]) -> Score:
        _, slug, exercise, answer = job
        return score(setups[slug], exercise, answer, seconds)

    with ThreadPoolExecutor(processes) as pool:
        scores = list(
            tqdm(pool.map(one, jobs), total=len(jobs), desc="exercises", disable=None)
        )
    sheets: dict[tuple[str, str], Sheet] = {}
    for (student, slug, _, _), found in zip(jobs, scores, strict=True):
        key = (student.name, slug)
        sheets.setdefault(key, Sheet(*key, [])).scores.append(found)
    return list(sheets.values())


def _handed_in(file: Path, book: Any) -> Iterator[tuple[Exercise, Answer | str]]:
    """Each exercise with its answer, or with the reason why there is none."""
    found: dict[int, Answer] | str
    known = exercises(book)
    try:
        found = answers(_read(file), book)
    except (OSError, ValueError) as error:
        found = f"no notebook: {' '.join(str(error).split())[:200]}"
    except Exception:  # whatever else a broken file may bring
        found = f"no notebook: {file.name} is not in a notebook's format"
    for exercise in known:
        yield exercise, found if isinstance(found, str) else found[exercise.number]


def _read(file: Path) -> Any:
    import nbformat

    if not file.is_file():
        named = {f"{slug}.ipynb" for slug in claims.slugs()}
        odd = sorted({f.name for f in file.parent.glob("*.ipynb")} - named)
        hint = f"; {', '.join(odd)} is no chapter's name" if odd else ""
        raise ValueError(f"{file.name} was not handed in{hint}")
    if file.stat().st_size > LARGEST:
        raise ValueError(f"{file.name} is over {LARGEST >> 20} MiB")
    text = file.read_text(encoding="utf-8")
    if not text.strip():
        raise ValueError(f"{file.name} is empty")
    return nbformat.reads(text, as_version=4)


def answers(notebook: Any, book: Any) -> dict[int, Answer]:
    """A student's answers, by exercise.

    An answer begins at the cell that its tag or nbgrader's name marks and ends before
    the check, the next exercise or the book's next section. Where the mark is lost, it
    begins below the exercise's text.
    """
    sections = {
        title
        for cell in book.cells
        if cell.cell_type == "markdown"
        for title in SECTION.findall(cell.source)
    }
    return {
        each.number: _answer(notebook.cells, each, sections) for each in exercises(book)
    }


def _answer(cells: Sequence[Any], exercise: Exercise, sections: set[str]) -> Answer:
    number = exercise.number
    mark = f"exercise-{number}" if exercise.check else f"answer-{number}"
    marked = [place for place, cell in enumerate(cells) if mark in tags(cell)]
    heads = [
        place
        for place, cell in enumerate(cells)
        if cell.cell_type == "markdown"
        and any(int(head[1]) == number for head in HEAD.finditer(cell.source))
    ]
    if not marked and not heads:
        return Answer([])
    first = (marked or heads)[0]
    more = takewhile(lambda cell: not _ends(cell, number, sections), cells[first + 1 :])
    taken = [*([cells[first]] if marked else []), *more]
    code = [cell.source for cell in taken if cell.cell_type == "code"]
    text = "" if exercise.check else "\n\n".join(cell.source for cell in taken)
    return Answer(code, text.removeprefix("Your answer:").strip(), not marked)


def _ends(cell: Any, number: int, sections: set[str]) -> bool:
    """Whether a cell stands behind the answer to this exercise."""
    if cell.cell_type != "code":
        found = set(SECTION.findall(cell.source)) & sections
        return bool(found or HEAD.search(cell.source))
    if cell.source.lstrip().startswith("with run.exercise("):
        return True
    named = re.findall(r"\b(exercise|check|answer)-(\d+)", " ".join(tags(cell)))
    return any(kind == "check" or int(other) != number for kind, other in named)


def score(
    setup: Sequence[str], exercise: Exercise, answer: Answer | str, seconds: float
) -> Score:
    """The score of one answer.

    Args:
        setup: the chapter's set-up cells.
        exercise: the book's.
        answer: the student's, or the reason why there is none.
        seconds: what it may take.
    """
    if isinstance(answer, str):
        return Score(exercise.number, 0, exercise.points, answer)
    if not exercise.check:
        said = TO_READ if answer.text else "not answered"
        return Score(exercise.number, 0, 0, said, answer.text)
    if not "".join(answer.cells).strip():
        return Score(exercise.number, 0, exercise.points, "no answer cell")
    if "\n".join(answer.cells).strip() == exercise.stub.strip():
        return Score(exercise.number, 0, exercise.points, UNTOUCHED)
    right, said, broken = attempt(setup, exercise, answer.cells, seconds)
    if answer.lost:
        said += " (its tag was lost; found below the exercise's text)"
    points = exercise.points if right else 0
    return Score(exercise.number, points, exercise.points, said, "", broken)


def attempt(
    setup: Sequence[str], exercise: Exercise, cells: Sequence[str], seconds: float
) -> tuple[bool, str, bool]:
    """Try an answer in a process of its own, and end whatever it left running.

    Returns:
        Whether it is right, the line that says so, and whether the set-up failed.
    """
    nonce = secrets.token_hex(16)
    job = {
        "opening": list(setup),
        "number": exercise.number,
        "answer": list(cells),
        "seconds": seconds,
        "memory": MEMORY,
    }
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as here:
        with _process(here) as process:
            heard = _listen(process)
            said = _exchange(process, heard, job, PATIENCE)
            if "ready" not in said:
                why = said.get("failed", "it ended, or took too long")
                return False, f"the chapter's set-up failed: {why}", True
            until = time.monotonic() + seconds
            said = _hear(heard, seconds)
            if "ran" in said:
                more = {"nonce": nonce, "check": exercise.check}
                said = _exchange(process, heard, more, until - time.monotonic())
        if said.get("nonce") == nonce:
            return bool(said["right"]), str(said["said"]), False
        return False, _why(process.returncode, "late" in said, seconds), False


@contextmanager
def _process(here: str) -> Iterator[subprocess.Popen[bytes]]:
    """A trial's process; at the end its whole group is killed."""
    tree = os.pathsep.join([str(execute.TREE), os.environ.get("PYTHONPATH", "")])
    extra = {
        "PYTHONPATH": tree.rstrip(os.pathsep),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "MPLBACKEND": "agg",
        "ICLRTUT_PROFILE": "smoke",
        "ICLRTUT_CHECKPOINTS": here,
        "ICLRTUT_RECORDS": "",
    }
    process = subprocess.Popen(
        [sys.executable, "-P", trial.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=here,
        env=os.environ | extra,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if os.name == "posix":
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()


def _listen(process: subprocess.Popen[bytes]) -> queue.SimpleQueue[bytes]:
    """The three lines that a trial says, read aside so that waiting can end."""
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        assert process.stdout
        for _ in range(3):
            lines.put(process.stdout.readline(2**16))

    threading.Thread(target=read, daemon=True).start()
    return lines


def _exchange(
    process: subprocess.Popen[bytes],
    heard: queue.SimpleQueue[bytes],
    told: dict[str, Any],
    seconds: float,
) -> dict[str, Any]:
    assert process.stdin
    with suppress(OSError):  # it has ended, and the next line says so
        process.stdin.write(json.dumps(told).encode() + b"\n")
        process.stdin.flush()
    return _hear(heard, seconds)


def _hear(heard: queue.SimpleQueue[bytes], seconds: float) -> dict[str, Any]:
    """A trial's next line; empty when it said none, `late` when time ran out."""
    try:
        said = json.loads(heard.get(timeout=max(0.0, seconds)))
    except queue.Empty:
        return {"late": True}
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _why(code: int, late: bool, seconds: float) -> str:
    """Why a trial gave no verdict."""
    name = signal.Signals(-code).name if code < 0 else ""
    if late or name == "SIGXCPU":
        return f"took more than {seconds:g} s"
    return f"ended the process ({name})" if name else "ended the process"


def table(sheets: Sequence[Sheet]) -> str:
    """The sheets for people: a row each, then the reasons, then what is to be read."""
    head = ["student", "chapter", "points", "exercises"]
    rows = [head, *(_row(sheet) for sheet in sheets)]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [
        "  ".join([*(w.ljust(n) for w, n in zip(row[:3], widths, strict=True)), row[3]])
        for row in rows
    ]
    reasons = [line for sheet in sheets for line in _reasons(sheet)]
    lines += ["", *reasons] * bool(reasons)
    texts = [
        f"{_where(sheet, [each.number])}: {each.text}"
        for sheet in sheets
        for each in sheet.scores
        if each.text
    ]
    lines += ["", "For you to read:", *texts] * bool(texts)
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in "\n".join(lines))


def _reasons(sheet: Sheet) -> Iterator[str]:
    """Why points were lost, a sentence each; the same sentence once."""
    said: dict[str, list[int]] = {}
    for each in sheet.scores:
        if each.points < each.of:
            begins = f"○ exercise {each.number}: "
            said.setdefault(each.said.removeprefix(begins), []).append(each.number)
    for words, numbers in said.items():
        yield f"{_where(sheet, numbers)}: {words}"


def _row(sheet: Sheet) -> list[str]:
    reached, of = sheet.points
    marks = [
        f"{s.number}{'✓' if s.points else '○' if s.of else '…' if s.text else '–'}"
        for s in sheet.scores
    ]
    return [sheet.student, sheet.chapter, f"{reached} of {of}", " ".join(marks)]


def _where(sheet: Sheet, numbers: Sequence[int]) -> str:
    exercise = "exercise" if len(numbers) == 1 else "exercises"
    listed = ", ".join(map(str, numbers))
    return f"{sheet.student}, {sheet.chapter}, {exercise} {listed}"


def plain(sheets: Sequence[Sheet]) -> list[dict[str, Any]]:
    """The sheets for machines."""
    return [
        {
            "student": sheet.student,
            "chapter": sheet.chapter,
            "points": sheet.points[0],
            "of": sheet.points[1],
            "exercises": [each._asdict() for each in sheet.scores],
        }
        for sheet in sheets
    ]


def refuse_broken(sheets: Sequence[Sheet]) -> None:
    """Say that the book itself failed, where it did.

    Raises:
        RunFailed: a chapter's set-up failed, so that answers were not tried.
    """
    broken = [each for sheet in sheets for each in sheet.scores if each.broken]
    if broken:
        raise RunFailed(
            f"{len(broken)} answers were not tried, because {broken[0].said}: mend "
            "that and grade again."
        )
