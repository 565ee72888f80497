"""Grade a class: every answer runs in a process of its own.

Only answers are taken from what students hand in; set-up and checks come from the
book's source. An answer cannot print its own result, see the check beforehand, or reach
another answer. That stops accidents and small tricks, not an attacker.
"""

import json
import multiprocessing
import os
import re
import secrets
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import groupby
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import IO, Any, NamedTuple

from iclrtut import claims
from iclrtut.commands import execute, worker
from iclrtut.commands.exercises import (
    HEAD,
    PROMPT,
    SECTION,
    Exercise,
    exercises,
    setup,
    tags,
)
from iclrtut.commands.progress import Progress
from iclrtut.errors import BadRequest, RunFailed

MEMORY = 4 * 2**30  # bytes that an answer may allocate
NOTEBOOK_SIZE = 100 * 2**20  # bytes
SETUP_SECONDS = 300.0
FOLDER = "iclrtut-answer-"
MESSAGE_LENGTH = 2**16
MARK = re.compile(r"(exercise|answer|check)-(\d+)")
# A fork finds the chapter's modules imported. Only Linux forks safely after that.
CONTEXT: Any = multiprocessing.get_context(
    "forkserver" if sys.platform == "linux" else "spawn"
)
Sources = dict[int, list[tuple[bool, str]]]
LOCK = threading.Lock()  # multiprocessing does not expect several threads


class Answer(NamedTuple):
    """What a student handed in for one exercise, and what became of it.

    Attributes:
        student, chapter: whose it is, and the chapter's slug.
        exercise: as the book has it.
        cells: code for the check, or whatever a person should read.
        reason: why there are no points; empty where there is no reason.
    """

    student: str
    chapter: str
    exercise: Exercise
    cells: Sequence[str]
    reason: str

    @property
    def points(self) -> int:
        """The points that the check gives."""
        return 0 if self.reason else self.exercise.points

    @property
    def text(self) -> str:
        """What a person should read, where there is no check."""
        cells = [] if self.exercise.check else self.cells
        return "\n\n".join(cells).removeprefix(PROMPT).strip()


def grade(folder: Path, seconds: float = 60, processes: int = 1) -> list[Answer]:
    """Grade the notebooks that lie in `folder` as `<student>/<slug>.ipynb`.

    Args:
        folder: one folder a student in it.
        seconds: time limit of an answer and its check, without the set-up.
        processes: how many answers run at a time.

    Returns:
        The answer of each student to each exercise of the chapters that anybody handed
        in.

    Raises:
        BadRequest: there is no such folder, or nobody handed in a chapter.
        RunFailed: the set-up of a chapter fails.
    """
    if not folder.is_dir():
        raise BadRequest(f"there is no folder {folder}: name the one of the students.")
    students = [f for f in sorted(folder.iterdir()) if f.is_dir() and f.name[0] != "."]
    books = {
        slug: execute.source(slug)
        for slug in claims.slugs()
        if any((student / f"{slug}.ipynb").exists() for student in students)
    }
    if not books:
        raise BadRequest(
            f"{folder} holds no submission: they lie in it as STUDENT/CHAPTER.ipynb, "
            f"for example ada/{claims.slugs()[0]}.ipynb."
        )
    answers = [
        answer
        for student in students
        for slug, book in books.items()
        for answer in read(student / f"{slug}.ipynb", book)
    ]
    setups = {slug: setup(book) for slug, book in books.items()}
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read at the import of torch
    modules = [f"iclrtut.chapters.{slug}.experiments" for slug in books]
    CONTEXT.set_forkserver_preload([worker.__name__, *modules])
    with Progress(len(answers), "answers") as progress:

        def task(answer: Answer) -> Answer:
            name = f"{answer.student}, {answer.chapter}, {answer.exercise.number}"
            progress.update(name)
            if answer.exercise.check and not answer.reason:
                reason = attempt(answer, setups[answer.chapter], seconds)
                answer = answer._replace(reason=reason)
            progress.finish(name)
            return answer

        with ThreadPoolExecutor(processes) as pool:
            return list(pool.map(task, answers))


def read(file: Path, book: Any) -> list[Answer]:
    """A student's answers to the exercises of a chapter, in their order.

    Args:
        file: the student's notebook, `<student>/<slug>.ipynb`.
        book: the chapter's notebook.
    """
    sources, problem = _read_sources(file, book)
    answers = []
    for exercise in exercises(book):
        cells = [
            source
            for code, source in sources.get(exercise.number, [])
            if code or not exercise.check
        ]
        blank = "\n".join(cells).strip() in ("", exercise.stub.strip(), PROMPT)
        reason = problem or ("not answered" if blank else "")
        answers.append(Answer(file.parent.name, file.stem, exercise, cells, reason))
    return answers


def _read_sources(file: Path, book: Any) -> tuple[Sources, str]:
    """What `_by_exercise` finds in a file, and why it finds nothing."""
    import nbformat

    if not file.is_file():
        others = ", ".join(sorted(f.name for f in file.parent.glob("*.ipynb")))
        return {}, f"{file.name} was not handed in, but {others or 'nothing'}"
    try:
        if file.stat().st_size > NOTEBOOK_SIZE:
            return {}, f"{file.name} is over {NOTEBOOK_SIZE >> 20} MiB"
        notebook = nbformat.reads(file.read_text(encoding="utf-8"), as_version=4)
        return _by_exercise(notebook, book), ""
    except Exception as error:  # whatever an invalid file may raise
        return {}, f"{file.name} is no notebook: {worker.describe(error)}"


def _by_exercise(notebook: Any, book: Any) -> Sources:
    """A student's cells by exercise: whether they are code, and their source.

    They follow the exercise's text or begin with the cell that its tag marks, for tags
    get lost, and end before its check, another exercise, or a section of the book.
    """
    text = "\n".join(c.source for c in book.cells if c.cell_type == "markdown")
    sections = set(SECTION.findall(text))
    sources: Sources = {}
    number = 0
    for cell in notebook.cells:
        code, source = cell.cell_type == "code", str(cell.source)
        heads = [] if code else HEAD.findall(source)
        marks = [mark for tag in tags(cell) if (mark := MARK.fullmatch(tag))]
        if marks:
            number = 0 if marks[0][1] == "check" else int(marks[0][2])
        elif heads:
            number = int(heads[-1][0])
        elif code:
            number = 0 if source.lstrip().startswith("with run.exercise(") else number
        elif sections & set(SECTION.findall(source)):
            number = 0
        if number and not heads:
            sources.setdefault(number, []).append((code, source))
    return sources


def attempt(answer: Answer, setup: Sequence[str], seconds: float) -> str:
    """Run an answer and its check in a new process, and end what it left running.

    Args:
        answer: the student's.
        setup: the code cells of the chapter's set-up.
        seconds: time limit of answer and check.

    Returns:
        Why the answer is wrong; empty where it is right.

    Raises:
        RunFailed: the set-up fails.
    """
    near, far = socket.socketpair()
    with (
        tempfile.TemporaryDirectory(
            prefix=FOLDER, ignore_cleanup_errors=True
        ) as folder,
        near,
        near.makefile("rb") as lines,
    ):
        job = {"setup": setup, "answer": answer.cells, "folder": folder}
        limits = {"seconds": seconds, "memory": MEMORY}
        process = CONTEXT.Process(
            target=worker.main, args=(far,), kwargs=job | limits, daemon=True
        )
        try:
            with LOCK, far:
                process.start()
        except (OSError, EOFError) as error:
            raise RunFailed(f"no process starts: {worker.describe(error)}") from None
        try:
            message = _receive(near, lines, SETUP_SECONDS)
            if "ready" not in message:
                why = message.get("failed", "it ended, or took too long")
                raise RunFailed(f"the set-up of {answer.chapter} fails: {why}")
            token = secrets.token_hex(16)
            deadline = time.monotonic() + seconds
            message = _receive(near, lines, seconds)
            if "ran" in message:
                request = {"token": token, "check": answer.exercise.check}
                with suppress(OSError):  # the process has ended
                    near.sendall(json.dumps(request).encode() + b"\n")
                message = _receive(near, lines, deadline - time.monotonic())
        finally:
            code = _end(process)
    if message.get("token") == token:
        return str(message["reason"])
    if "late" in message:
        return f"took more than {seconds:g} s"
    signalled = signal.strsignal(-code) if code < 0 else None
    return f"ended the process ({signalled})" if signalled else "ended the process"


def _receive(connection: socket.socket, lines: IO[bytes], seconds: float) -> Any:
    """A worker's next message; `late` when time ran out, empty when there is none."""
    connection.settimeout(max(seconds, 0.001))
    try:
        message = json.loads(lines.readline(MESSAGE_LENGTH))
    except TimeoutError:
        return {"late": True}
    except (OSError, ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}


def _end(process: BaseProcess) -> int:
    """Kill a process and all its children, and return its exit code."""
    if os.name == "posix":
        with suppress(OSError):
            assert process.pid
            os.killpg(process.pid, signal.SIGKILL)
    with LOCK:
        process.kill()
        process.join()
        return process.exitcode or 0


def report(answers: Sequence[Answer]) -> str:
    """The points of each student and chapter, with the reasons and texts below."""
    lines = []
    for names, group in groupby(answers, key=lambda answer: answer[:2]):
        members = list(group)
        most = sum(each.exercise.points for each in members)
        points = sum(each.points for each in members)
        lines.append(f"{', '.join(names)}: {points} of {most} points")
        reasons: dict[str, list[int]] = {}
        for each in members:
            if each.reason:
                reasons.setdefault(each.reason, []).append(each.exercise.number)
            if each.text:
                reasons[f"for you to read: {each.text}"] = [each.exercise.number]
        for reason, numbers in reasons.items():
            lines.append(f"  {', '.join(map(str, numbers))}: {reason}")
    text = "\n".join(lines)
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def as_json(answer: Answer) -> dict[str, Any]:
    """An answer's result without its code."""
    return {
        "student": answer.student,
        "chapter": answer.chapter,
        "exercise": answer.exercise.number,
        "points": answer.points,
        "of": answer.exercise.points,
        "reason": answer.reason,
        "text": answer.text,
    }
