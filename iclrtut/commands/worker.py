"""The process in which one answer runs; `grade` starts one for each.

It receives the check only after the answer has run, together with a random number that
the result must repeat. All that the answer prints is discarded.
"""

import ast
import contextlib
import json
import os
import re
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

REASON_LENGTH = 500  # characters
FILE_SIZE = 2**26  # bytes
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "MPLBACKEND": "agg",
    "ICLRTUT_PROFILE": "smoke",
    "ICLRTUT_RECORDS": "",
}


def main(
    connection: socket.socket,
    setup: Sequence[str],
    answer: Sequence[str],
    folder: str,
    seconds: float,
    memory: int,
) -> None:
    """Run an answer and its check, and send the result as a line of JSON.

    Args:
        connection: to the grader.
        setup: the code cells of the chapter's set-up.
        answer: the student's code cells.
        folder: an empty folder to run in.
        seconds: the time limit of answer and check together.
        memory: what they may allocate, in bytes.
    """
    if os.name == "posix":
        os.setsid()  # so that the grader can end whatever the answer starts
        # Inherited files lead to processes of multiprocessing.
        os.closerange(3, connection.fileno())
        os.closerange(connection.fileno() + 1, 2**16)
    os.environ |= ENVIRONMENT | {"ICLRTUT_CHECKPOINTS": folder}
    os.chdir(folder)
    _silence()
    lines, process, request = connection.makefile("rwb"), os.getpid(), {}

    def send(**message: Any) -> None:
        if os.getpid() != process:  # a copy that the answer made with fork
            os._exit(0)
        lines.write(json.dumps(message).encode() + b"\n")
        lines.flush()

    def request_check() -> str:
        _silence()  # the answer may have closed its streams
        send(ran=True)
        request.update(json.loads(lines.readline()))
        return str(request["check"])

    try:
        try:
            names = run_setup(setup)
        except Exception as error:
            return send(failed=describe(error))
        _limit_resources(seconds, memory)
        send(ready=True)
        reason = evaluate(names, answer, request_check)
        send(token=request["token"], reason=reason)
    finally:
        os._exit(0)  # without waiting for threads that the answer started


def run_setup(cells: Sequence[str]) -> dict[str, Any]:
    """The variables after a chapter's set-up."""
    names = {"__name__": "__main__", "display": print}
    for cell in cells:
        _execute(cell, names)
    return names


def evaluate(
    names: dict[str, Any], answer: Sequence[str], request_check: Callable[[], str]
) -> str:
    """Run an answer and its check.

    As in a notebook, a cell that raises does not stop the cells below. The check finds
    the variables of the set-up as they were, whatever the answer assigned to them.

    Args:
        names: what `run_setup` returned.
        answer: the student's code cells.
        request_check: returns the check; called when the answer has run.

    Returns:
        Why the answer is wrong; empty where it is right.
    """
    run, variables, errors = names["run"], dict(names), []
    for cell in answer:
        try:
            _execute(cell, variables)
        except BaseException as error:
            errors.append(error)
    check = request_check()
    # The original prints an exception of the check and goes on.
    run.exercise = lambda number: contextlib.nullcontext()
    try:
        _execute(check, variables | names)
    except BaseException as error:
        return describe([*errors, error][0])
    finally:
        del run.exercise
    return ""


def describe(error: BaseException) -> str:
    """An exception in one line."""
    if isinstance(error, MemoryError):
        return "took more memory than it may"
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # its __str__ is the student's
        text = type(error).__name__
    return " ".join(text.split())[:REASON_LENGTH]


def _execute(cell: str, variables: dict[str, Any]) -> None:
    try:
        ast.parse(cell)
    except SyntaxError:  # IPython's own syntax: magics, shell commands, help
        cell = re.sub(r"(?m)^([ \t]*)(?:[%!?].*|.*\?[ \t]*)$", r"\1pass", cell)
    exec(compile(cell, "cell", "exec"), variables)


def _silence() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    os.close(null)
    sys.stdin = os.fdopen(0, "r", closefd=False)
    sys.stdout = sys.stderr = os.fdopen(1, "w", closefd=False)


def _limit_resources(seconds: float, memory: int) -> None:
    """Set the system's limits for this process, where it has any."""
    try:
        import resource
    except ImportError:  # Windows
        return
    allocated = 0
    with contextlib.suppress(OSError), open("/proc/self/statm") as pages:
        allocated = int(pages.read().split()[0]) * resource.getpagesize()
    # The grader's clock ends an answer; this ends what has escaped the grader.
    used = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    for limit, value in (
        (resource.RLIMIT_AS, allocated + memory),
        (resource.RLIMIT_FSIZE, FILE_SIZE),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, int(used + 4 * seconds) + 5),
    ):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(limit, (value, value))
