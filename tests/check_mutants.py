"""Deliberate faults in the check cells of the notebooks: how many let one through?

Run as `make mutants`, or `python tests/check_mutants.py SLUG` for one chapter. The
cells run in one process. Before each statement of the formula's side of a check, a
forked child goes on with one fault in it, to the end of that check's cell. A fault that
passes must stand in tests/chapters/SLUG/survivors.toml: under `no_fault` where the
faulty line is right as well, under `weak` where the check should have seen it.
"""

import ast
import contextlib
import copy
import io
import os
import pickle
import re
import signal
import sys
import tempfile
import time
import tomllib
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import form
import formula
from mutants import CHAPTERS, TREE, record
from tautology import tautology

JOBS = 2
PASSED, CAUGHT, STOPPED = 0, 1, 2


class Block(NamedTuple):
    """The statements of a check's cell, and of the cells that lead to it."""

    before: str
    statements: list[ast.stmt]

    @property
    def numbers(self) -> str:
        """The equations that it checks."""
        found = formula.checks(self.statements)
        return " ".join(dict.fromkeys(" ".join(c.numbers for c in found).split()))


class Survivor(NamedTuple):
    """A fault that passed: the equations, the faulty line, and the true one."""

    numbers: str
    fault: str
    line: str = ""


class Result(NamedTuple):
    """What came of a chapter's faults; `stopped` ones raised before any check did."""

    cells: int
    caught: int
    stopped: int
    survivors: list[Survivor]


def blocks(document: form.Document) -> Iterator[Block]:
    """A chapter's check cells, each with the cells since the check or heading above.

    What stands before these is text to be run first. Exercises are left out.
    """
    before, cells = "", []
    for cell in document.cells:
        if not cell.code:
            if re.search(r"(?m)^#{2,} ", form.FENCE.sub("", cell.text)):
                before, cells = "\n".join([before, *cells]), []
            continue
        if any(tag.startswith(("exercise-", "check-")) for tag in cell.tags):
            continue
        cells.append(form.python(cell.text))
        if formula.checks(ast.parse(cells[-1]).body):
            yield Block(before, ast.parse("\n".join(cells)).body)
            before, cells = "", []


def tried(document: form.Document, namespace: dict[str, Any]) -> Result:
    """Run a chapter to its last check, trying every fault on the way.

    Args:
        document: the chapter's source.
        namespace: what its cells start from; they change it.
    """
    outcomes, survivors, drawing = [], [], set(formula.DRAWS)
    every = list(blocks(document))
    for block in every:
        leading = ast.parse(block.before).body
        drawing |= formula.helpers(leading, drawing)
        _execute(leading, namespace)
        known, limit = _scout(block, namespace)
        made = formula.faults(block.statements, known, drawing | _random(namespace))
        survivors += _empty(block)
        for top, statement in enumerate(block.statements):
            rest = block.statements[top + 1 :]
            here = [fault for fault in made if fault.top == top]
            ends = _fork(namespace, [[f.statement, *rest] for f in here], limit)
            outcomes += ends
            survivors += [
                Survivor(block.numbers, fault.text, fault.line)
                for fault, end in zip(here, ends, strict=True)
                if end == PASSED
            ]
            _execute([statement], namespace)
        drawing |= formula.helpers(block.statements, drawing)
    return Result(
        len(every), outcomes.count(CAUGHT), outcomes.count(STOPPED), survivors
    )


def _empty(block: Block) -> Iterator[Survivor]:
    """The checks of a block that no formula could fail."""
    for check in formula.checks(block.statements):
        if why := tautology(block.statements[: check.top + 1], check.call):
            yield Survivor(check.numbers, why, ast.unparse(check.call))


def _execute(statements: list[ast.stmt], namespace: dict[str, Any]) -> None:
    module = ast.fix_missing_locations(ast.Module(copy.deepcopy(statements), []))
    silent = io.StringIO()
    with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
        exec(compile(module, "<cells>", "exec"), namespace)


def _fork(
    namespace: dict[str, Any], tries: list[list[ast.stmt]], limit: float
) -> list[int]:
    """How each of these ends, every one in a process of its own."""
    ends, running = [STOPPED] * len(tries), {}
    for number, statements in enumerate([*tries, None]):
        while running and (statements is None or len(running) == JOBS):
            pid, status = os.waitpid(next(iter(running)), 0)
            # The alarm ends what hangs: caught.
            ends[running.pop(pid)] = (
                CAUGHT if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            )
        if statements is None:
            break
        pid = os.fork()
        if pid == 0:
            _child(statements, namespace, limit)
        running[pid] = number
    return ends


def _child(statements: list[ast.stmt], namespace: dict[str, Any], limit: float) -> None:
    """Run statements and leave the process, with the outcome as its status."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        _execute(statements, namespace)
    except AssertionError:
        os._exit(CAUGHT)
    except BaseException:
        os._exit(STOPPED)
    os._exit(PASSED)


def _scout(block: Block, namespace: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """What each name holds after the true cells, and a limit of time for the faulty.

    Raises:
        SystemExit: the cells fail without any fault.
    """
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        began, error, kinds = time.monotonic(), "", {}
        try:
            _execute(block.statements, namespace)
            words = {n.id for s in block.statements for n in ast.walk(s) if _is_name(n)}
            kinds = {name: formula.kind(namespace.get(name)) for name in words}
        except BaseException as problem:
            error = f"{type(problem).__name__}: {problem}"
        with os.fdopen(theirs, "wb") as pipe:
            pickle.dump((error, kinds, time.monotonic() - began), pipe)
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        error, kinds, seconds = pickle.load(pipe)
    os.waitpid(pid, 0)
    if error:
        sys.exit(
            f"mutants: the cell of ({block.numbers}) fails without a fault: {error}"
        )
    return {name: kind for name, kind in kinds.items() if kind}, 60 + 20 * seconds


def _is_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Name)


def _random(namespace: dict[str, Any]) -> set[str]:
    """Names of random generators, and of arguments that hold one."""

    def holds(value: Any) -> bool:
        parts = value.values() if isinstance(value, dict) else [value]
        return any(type(part).__name__ == "Generator" for part in parts)

    return {name for name, value in namespace.items() if holds(value)}


def listed(slug: str) -> dict[str, dict[tuple[str, str], str]]:
    """The known survivors: "no_fault" or "weak" -> (equations, fault) -> reason."""
    file = CHAPTERS / slug / "survivors.toml"
    told = tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return {
        kind: {
            (entry["equations"], fault): entry["reason"]
            for entry in told.get(kind, [])
            for fault in entry["faults"]
        }
        for kind in ("no_fault", "weak")
    }


def judge(slug: str, result: Result) -> tuple[dict[str, float], list[str]]:
    """The counts of a chapter, and its complaints: what is new, and what is gone."""
    known = listed(slug)
    keys = {each[:2]: each for each in result.survivors}
    anywhere = known["no_fault"] | known["weak"]
    complaints = [
        f"SURVIVED ({numbers}) {fault}\n         true: {keys[numbers, fault].line}"
        for numbers, fault in keys
        if (numbers, fault) not in anywhere
    ]
    complaints += [
        f"GONE     ({numbers}) {fault}: strike it from survivors.toml"
        for numbers, fault in anywhere
        if (numbers, fault) not in keys
    ]
    no_fault = sum(key in known["no_fault"] for key in keys)
    judged = result.caught + len(keys) - no_fault
    return {
        "cells": result.cells,
        "faults": judged,
        "caught": result.caught,
        "no_fault": no_fault,
        "stopped": result.stopped,
        "share": round(result.caught / max(1, judged), 3),
    }, complaints


def share(slug: str) -> bool:
    """Try a chapter's faults, write the counts to its record; whether all is listed."""
    document = form.load(TREE / "book" / "chapters" / f"{slug}.md")
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"ICLRTUT_CHECKPOINTS": folder, "ICLRTUT_PROFILE": "smoke"}
        result = tried(document, {"__name__": "__main__"})
    counts, complaints = judge(slug, result)
    print("\n".join(complaints))
    print(
        f"{slug}: {counts['caught']} of {counts['faults']} faults in {counts['cells']} "
        f"check cells caught ({counts['share']:.0%}); {counts['no_fault']} were none, "
        f"{counts['stopped']} did not run.",
        flush=True,
    )
    record(slug, "checks", counts)
    return not complaints


def main(slugs: list[str]) -> None:
    """Try the faults of these chapters, or of all, and say how many were caught."""
    if not hasattr(os, "fork"):
        sys.exit("mutants: this system cannot fork: run it on Linux or macOS.")
    known = sorted(file.stem for file in (TREE / "book" / "chapters").glob("*.md"))
    unknown = sorted(set(slugs) - set(known))
    if unknown:
        sys.exit(f"mutants: no chapter {unknown[0]}: known are {known}.")
    # One thread, and no GPU: a process with more cannot be forked.
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if not all([share(slug) for slug in slugs or known]):
        sys.exit("mutants: mend the checks named above, or list what is no fault.")


if __name__ == "__main__":
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    os.environ |= threads | {"CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "Agg"}
    main(sys.argv[1:])
