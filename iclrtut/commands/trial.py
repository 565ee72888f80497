"""One answer, tried: the process that the grader starts for each exercise.

It runs alone, without importing the package, and talks in lines of JSON. In come the
set-up with the answer, and, when the answer has run, the check with a fresh number; out
go "ready", "ran" and the verdict with that number. What the answer prints goes nowhere.
"""

import ast
import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

LONGEST = 500  # characters of a verdict
FILE = 2**26  # bytes of a file


def python(cell: str) -> str:
    """A cell as Python: lines for IPython alone become `pass`."""
    try:
        ast.parse(cell)
    except SyntaxError:
        return re.sub(r"(?m)^([ \t]*)(?:[%!?].*|.*\?[ \t]*)$", r"\1pass", cell)
    return cell


def opened(cells: Sequence[str]) -> dict[str, Any]:
    """The names that a chapter's set-up leaves."""
    space: dict[str, Any] = {"__name__": "__main__", "display": print}
    for cell in cells:
        _execute(cell, space)
    return space


def judge(
    opening: dict[str, Any], number: int, answer: Sequence[str], ask: Callable[[], str]
) -> tuple[bool, str]:
    """Run an answer and its check.

    A cell that raises stops no later one, as in a notebook. The check sees the names of
    the set-up as they were, whatever the answer did to its own.

    Args:
        opening: what `opened` returned.
        number: the exercise's.
        answer: the answer's cells.
        ask: gives the check, asked once the answer has run.

    Returns:
        Whether the check passed, and the line that says so.
    """
    run, answered, errors = opening["run"], dict(opening), []
    say = run.exercise
    try:
        for cell in answer:
            try:
                _execute(cell, answered)
            except Exception as error:
                errors.append(error)
        check = ask()
        run.exercise = lambda number: contextlib.nullcontext()
        try:
            _execute(check, answered | opening)
            errors.clear()
        except Exception as error:
            errors.append(error)
        return not errors, _said(say, number, errors)
    except BaseException:
        return False, "ended the process"
    finally:
        run.exercise = say


def _execute(cell: str, space: dict[str, Any]) -> None:
    exec(compile(python(cell), "cell", "exec"), space)


def _said(say: Any, number: int, errors: list[Exception]) -> str:
    """The line that the chapter prints under a check."""
    if errors and isinstance(errors[0], MemoryError):
        return "took more memory than it may"
    line = io.StringIO()
    try:
        with contextlib.redirect_stdout(line), say(number):
            if errors:
                raise errors[0]
    except Exception:
        return f"not yet. {type(errors[0]).__name__}"
    return " ".join(line.getvalue().split())[:LONGEST]


def _confine(seconds: float, memory: int) -> None:
    """Bound what the answer may take, where the system can."""
    try:
        import resource
    except ImportError:
        return
    held = 0
    with contextlib.suppress(OSError), open("/proc/self/statm") as pages:
        held = int(pages.read().split()[0]) * resource.getpagesize()
    clock = int(resource.getrusage(resource.RUSAGE_SELF).ru_utime + 4 * seconds) + 5
    for what, most in (
        (resource.RLIMIT_AS, held + memory),
        (resource.RLIMIT_FSIZE, FILE),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, clock),
    ):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(what, (most, most))


def main() -> None:
    """Try one answer."""
    heard = os.fdopen(os.dup(0), encoding="utf-8")
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(nothing, standard)

    def tell(**said: Any) -> None:
        print(json.dumps(said), file=told, flush=True)

    job = json.loads(heard.readline())
    try:
        opening = opened(job["opening"])
    except Exception as error:
        tell(failed=f"{type(error).__name__}: {error}"[:LONGEST])
        return
    _confine(job["seconds"], job["memory"])
    here, nonce = os.getpid(), ""

    def ask() -> str:
        nonlocal nonce
        if os.getpid() != here:
            os._exit(0)  # a copy that the answer made of this process
        sys.stdout = sys.stderr = os.fdopen(nothing, "w", closefd=False)
        tell(ran=True)
        more = json.loads(heard.readline())
        nonce = more["nonce"]
        return str(more["check"])

    tell(ready=True)
    right, said = judge(opening, job["number"], job["answer"], ask)
    if os.getpid() == here:
        tell(nonce=nonce, right=right, said=said)
    os._exit(0)  # without waiting for threads that the answer left


if __name__ == "__main__":
    main()
