"""Deliberate faults in the chapters' modules: how many do the tests catch?

Run as `make mutants`, or `python tests/mutants.py SLUG` for one chapter. Each fault of
tests/chapters/SLUG/faults.py is applied alone, to a copy of the package, and the tests
of that chapter's method run against the copy; the tests of a shared module, where the
fault is in one.
"""

import importlib.util
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

TREE = Path(__file__).resolve().parents[1]
CHAPTERS = TREE / "tests" / "chapters"
WANTED = 0.95
# Imports take as long as the tests: each fault is tried in a fork of a process that has
# these, and never the installed package.
IMPORTED = ["pytest", "hypothesis", "scipy.stats", "torch._dynamo"]


class Fault(NamedTuple):
    """An exact text of the module, what replaces it, and what that breaks."""

    old: str
    new: str
    what: str


def chapters() -> list[str]:
    """The chapters that have faults, by name."""
    return sorted(file.parent.name for file in CHAPTERS.glob("*/faults.py"))


def faults(slug: str) -> list[Fault]:
    """The faults of one chapter."""
    file = CHAPTERS / slug / "faults.py"
    spec = importlib.util.spec_from_file_location(f"faults_{slug}", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [Fault(*words) for words in module.FAULTS]


def tests(slug: str) -> list[Path]:
    """The files that test the method of one chapter."""
    names = ("test_method.py", "test_attacks.py", "test_decoder.py")
    files = [CHAPTERS / slug / name for name in names]
    return [file for file in files if file.is_file()]


def home(slug: str, old: str) -> Path:
    """The module that has this text once: the method, the chapter's, or a shared one.

    Raises:
        SystemExit: none has, or the text stands there more than once.
    """
    method = TREE / "iclrtut" / "chapters" / slug / "method.py"
    files = [method, *sorted(set(method.parent.glob("*.py")) - {method})]
    files += sorted(method.parents[2].glob("*.py"))
    counts = {file: file.read_text(encoding="utf-8").count(old) for file in files}
    file = next((file for file, times in counts.items() if times), files[0])
    if counts[file] != 1:
        sys.exit(f"mutants: {old!r} stands {counts[file]} times in {slug}, not once.")
    return file


def passes(slug: str, file: Path, text: str, limit: float | None = None) -> bool:
    """Whether the tests of a chapter pass where this file has this text.

    A fault that makes them hang is caught: `limit` seconds are all that they get.
    """
    with tempfile.TemporaryDirectory() as folder:
        hidden = shutil.ignore_patterns("__pycache__")
        shutil.copytree(TREE / "iclrtut", Path(folder) / "iclrtut", ignore=hidden)
        (Path(folder) / file.relative_to(TREE)).write_text(text, "utf-8")
        shared = TREE / "tests" / f"test_{file.stem}.py"
        files = [shared] if file.parent.name == "iclrtut" else tests(slug)
        forks = multiprocessing.get_context("forkserver")
        forks.set_forkserver_preload(IMPORTED)
        child = forks.Process(target=run_tests, args=(folder, list(map(str, files))))
        child.start()
        child.join(limit)
        if child.is_alive():
            child.kill()
            child.join()
    return child.exitcode == 0


def run_tests(folder: str, files: list[str]) -> None:
    """Run tests on the package of this folder, and exit with their status."""
    os.chdir(folder)
    sys.path.insert(0, folder)  # before the installed package
    os.environ["PYTHONPATH"] = folder  # for what the tests start
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    sys.exit(pytest.main(["-xq", "-p", "no:cacheprovider", "--tb=no", *files]))


def mutant(slug: str, fault: Fault) -> tuple[Path, str]:
    """The module that a fault is meant for, and its text with the fault."""
    file = home(slug, fault.old)
    return file, file.read_text(encoding="utf-8").replace(fault.old, fault.new)


def survives(slug: str, limit: float, fault: Fault) -> bool:
    """Whether the tests pass in spite of the fault."""
    return passes(slug, *mutant(slug, fault), limit)


def share(slug: str) -> float:
    """Apply all faults of a chapter, two at a time; the share that was caught."""
    file = TREE / "iclrtut" / "chapters" / slug / "method.py"
    text = file.read_text(encoding="utf-8")
    os.environ["OMP_NUM_THREADS"] = "1"
    began = time.monotonic()
    if not passes(slug, file, text):
        sys.exit(f"mutants: the tests of {slug} fail without any fault: mend them.")
    limit = 60 + 20 * (time.monotonic() - began)
    if passes(slug, file, text + "\nraise SystemError\n"):
        sys.exit(f"mutants: the tests of {slug} do not read the copy.")
    listed, left = faults(slug), []
    with ThreadPoolExecutor(2) as pool:
        results = pool.map(partial(survives, slug, limit), listed)
        for fault, survived in zip(listed, results, strict=True):
            print("SURVIVED" if survived else "caught  ", fault.what, flush=True)
            left.append(survived)
    caught = len(listed) - sum(left)
    print(f"{slug}: {caught} of {len(listed)} caught ({caught / len(listed):.0%}).")
    share = round(caught / len(listed), 3)
    record(slug, "modules", {"faults": len(listed), "caught": caught, "share": share})
    return caught / len(listed)


def record(slug: str, half: str, counts: dict[str, float]) -> None:
    """Write the counts of "modules" or "checks" to records/SLUG/mutants.json.

    The page of running times shows both.
    """
    from iclrtut.files import write_atomic

    file = TREE / "records" / slug / "mutants.json"
    told = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    told[half] = counts
    text = json.dumps(dict(sorted(told.items())), indent=1) + "\n"
    write_atomic(file, text.encode())


def main(slugs: list[str]) -> None:
    """Try the faults of these chapters, or of all, and say how many were caught."""
    unknown = sorted(set(slugs) - set(chapters()))
    if unknown:
        sys.exit(f"mutants: no faults for {unknown[0]}: known are {chapters()}.")
    if any([share(slug) < WANTED for slug in slugs or chapters()]):
        sys.exit(f"mutants: fewer than {WANTED:.0%} were caught in a chapter.")


if __name__ == "__main__":
    main(sys.argv[1:])
