"""Run the book's chapters, judge their claims, grade exercises, plan a course."""

# Modules that need installed packages are imported by the commands that use them.

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from iclrtut import claims, ledger, records
from iclrtut.errors import BadRequest, RunFailed
from iclrtut.repository import TREE

MOST_SEEDS = 10_000
# The package does not require what only some commands import.
NOT_REQUIRED = ("distributed", "jupytext", "nbformat", "papermill", "psutil")


def main(words: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0 for success, 1 for a failed run, 2 for a bad request, such as
        a command whose packages are not installed.
    """
    arguments = parser().parse_args(words)
    try:
        arguments.command(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of the output, such as `head`, is gone; Python flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (BadRequest, RunFailed) as error:
        print(f"iclrtut: {error}", file=sys.stderr)
        return 2 if isinstance(error, BadRequest) else 1
    except KeyboardInterrupt:
        again = "give the same command again, and `run` goes on from what is recorded"
        print(f"iclrtut: interrupted: {again}.", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "iclrtut":
            raise
        print(f"iclrtut: {_missing(error.name)}", file=sys.stderr)
        return 2
    return 0


def _missing(module: str) -> str:
    """One sentence on a module that this Python lacks, and how to get it."""
    environment = TREE / ".venv"
    name = module.partition(".")[0]
    lacks = f"this Python ({sys.executable}) has no module named {name!r}"
    if environment.is_dir() and Path(sys.prefix).resolve() != environment.resolve():
        windows = ".venv\\Scripts\\activate"
        activate = windows if os.name == "nt" else ". .venv/bin/activate"
        return f"{lacks}: use the book's environment, with '{activate}' in {TREE}."
    if (TREE / "tools" / "make.py").is_file():
        install = f"pip install {name}" if name in NOT_REQUIRED else "pip install ."
        return (
            f"{lacks}: make the book's environment, with 'make env' in {TREE}, or "
            f"install into this one, with '{install}' there."
        )
    return f"{lacks}: install it, or run this in a clone of the book."


class Parser(argparse.ArgumentParser):
    """A parser that refuses in one sentence."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the command line, and end with 2."""
        self.exit(2, f"iclrtut: {message}; {self.prog} --help tells more.\n")


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    top = Parser(prog="python -m iclrtut", description=__doc__)
    verbs = top.add_subparsers(required=True, metavar="COMMAND")

    def verb(name: str, command: Any, about: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=about, description=about)
        made.set_defaults(command=command)
        return made

    lister = verb(
        "list", list_chapters, "the chapters: profiles, claims, measured times"
    )
    runner = verb("run", run_chapters, "execute chapters and keep their records")
    runner.add_argument("slugs", nargs="+", metavar="SLUG", help="chapters, or 'all'")
    runner.add_argument(
        "--profile", default="quick", help=f"{', '.join(claims.PROFILES)} or several"
    )
    runner.add_argument(
        "--seeds", default="0", type=seeds, help="such as 3, 0-4 or 1,5,9"
    )
    where = runner.add_mutually_exclusive_group()
    where.add_argument("--processes", default=1, type=int, help="how many at a time")
    where.add_argument("--scheduler", help="a Dask cluster, such as tcp://HOST:8786")
    runner.add_argument("--again", action="store_true", help="run recorded ones too")
    runner.add_argument(
        "--records", type=Path, help="folder of records (default: one of your own)"
    )
    ledgerer = verb("ledger", show_ledger, "every claim with its verdict, from records")
    ledgerer.add_argument(
        "--records", type=Path, help="folder (default: your own with the book's)"
    )
    keeper = verb("data", keep_data, "list, fetch or verify the data sets")
    keeper.add_argument("action", choices=["list", "fetch", "verify"])
    keeper.add_argument(
        "names", nargs="*", metavar="NAME", help="data sets (default: all)"
    )
    student = verb("student", write_students, "write notebooks without solutions")
    student.add_argument("folder", type=Path, metavar="DIR", help="where they go")
    student.add_argument("slugs", nargs="*", metavar="SLUG", help="chapters (all)")
    grader = verb("grade", grade_students, "grade what students handed in")
    grader.add_argument(
        "folder", type=Path, metavar="DIR", help="holds <student>/<slug>.ipynb"
    )
    grader.add_argument(
        "--seconds", default=60, type=float, help="for each exercise (60)"
    )
    grader.add_argument("--processes", default=1, type=int, help="how many at a time")
    grader.add_argument(
        "--json", type=Path, metavar="FILE", help="write the points there"
    )
    planner = verb("plan", plan_course, "a course: which chapter in which week")
    planner.add_argument("slugs", nargs="*", metavar="SLUG", help="chapters (about 8)")
    planner.add_argument(
        "--hours", type=float, help="of class in a week (1.5), or in a day (6)"
    )
    span = planner.add_mutually_exclusive_group()
    span.add_argument("--weeks", type=int, help="how many there are at most")
    span.add_argument("--days", type=int, help="plan a workshop of at most so many")
    for each in (lister, ledgerer, keeper):
        each.add_argument("--json", action="store_true", help="for machines")
    return top


def seeds(text: str) -> list[int]:
    """The seeds that a word such as `3`, `0-4` or `1,5,9` means."""
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if not match:
            raise argparse.ArgumentTypeError(f"{text!r} is none of 3, 0-4, 1,5,9")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise argparse.ArgumentTypeError(f"{part!r} counts down")
        if last - first + len(numbers) >= MOST_SEEDS:
            raise argparse.ArgumentTypeError(
                f"{text!r} names over {MOST_SEEDS:,} seeds"
            )
        numbers += range(first, last + 1)
    return list(dict.fromkeys(numbers))


def list_chapters(arguments: argparse.Namespace) -> None:
    """Print the chapters, each with the median time of its recorded runs."""
    recorded = records.read_all(*records.folders())
    times = {slug: ledger.running_times(slug, recorded) for slug in claims.slugs()}
    if arguments.json:
        _print_json([_as_json(each, times[each.slug]) for each in claims.chapters()])
        return
    for chapter in claims.chapters():
        print(f"{chapter.slug}: {chapter.title}")
        print(f"  {len(chapter.claims)} claims; profiles {', '.join(chapter.settings)}")
        print(f"  median time: {ledger.in_words(times[chapter.slug])}")


def _as_json(
    chapter: claims.Chapter, times: dict[tuple[str, str], float]
) -> dict[str, Any]:
    return {
        "slug": chapter.slug,
        "title": chapter.title,
        "paper": chapter.paper,
        "profiles": list(chapter.settings),
        "claims": {claim.id: claim.sentence for claim in chapter.claims},
        "seconds": [
            {"profile": profile, "device": device, "median": round(seconds, 1)}
            for (profile, device), seconds in times.items()
        ],
    }


def run_chapters(arguments: argparse.Namespace) -> None:
    """Execute chapters, one record for each profile and seed."""
    from iclrtut.commands import sweep

    named = claims.slugs() if arguments.slugs == ["all"] else arguments.slugs
    if arguments.processes < 1:
        raise BadRequest(f"{arguments.processes} processes run nothing: use 1 or more.")
    slugs = [claims.chapter(slug).slug for slug in named]
    profiles = [claims.profile(word) for word in arguments.profile.split(",")]
    jobs = [
        sweep.Job(slug, profile, seed)
        for slug in dict.fromkeys(slugs)
        for profile in profiles
        for seed in arguments.seeds
    ]
    folder = arguments.records or records.kept()
    with sweep.connect(arguments.scheduler, arguments.processes) as client:
        sweep.record(client, jobs, folder, arguments.again)
    print(f"Records are in {folder}.")


def show_ledger(arguments: argparse.Namespace) -> None:
    """Print every claim with its interval and verdict."""
    folder = arguments.records
    if folder and not folder.is_dir():
        raise BadRequest(
            f"there is no folder of records at {folder}: name one with --records."
        )
    rows = ledger.rows(*([folder] if folder else records.folders()))
    if folder and not rows:
        raise BadRequest(
            f"{folder} holds no record: name a folder with <chapter>/<profile>-<device>"
            "-<seed>.json in it, as `run` makes it."
        )
    if arguments.json:
        _print_json(rows)
        return
    remarks: dict[str, None] = {}
    for row in rows:
        where = f"{row['chapter']} {row['profile']}-{row['device']}"
        notes = f" ({beside})" if (beside := ledger.beside(row)) else ""
        what = f"{row['claim']}: {ledger.measured(row)}, {row['seeds']} seeds{notes}"
        print(f"{where} {what}; holds when the {row['rule']}: {row['verdict']}")
        if apart := ledger.apart(row):
            remarks[f"{where}: {apart}"] = None
    if rows:
        print(*remarks, ledger.luck(rows), sep="\n")


def keep_data(arguments: argparse.Namespace) -> None:
    """List, fetch or verify data sets."""
    from iclrtut import data

    infos = [data.info(name) for name in arguments.names or data.names()]
    act = {"fetch": data.fetch, "verify": data.verify}.get(arguments.action)
    done, failed = [], []
    for info in infos:
        try:
            if act:
                act(info.name)
            done.append(info)
        except (BadRequest, RunFailed) as error:
            failed.append(str(error))
    if arguments.json:
        _print_json([info._asdict() for info in done])
    else:
        prefix = {"list": "", "fetch": "here: ", "verify": "verified: "}
        for info in done:
            size = f"{info.bytes / 2**20:.1f} MiB"
            about = f"{info.name} ({size}, {info.licence}): {info.about}"
            print(f"{prefix[arguments.action]}{about}; {data.place(info)}")
    if failed:
        raise RunFailed("\n".join(failed))


def write_students(arguments: argparse.Namespace) -> None:
    """Write the student edition."""
    from iclrtut.commands import execute, student

    for file in student.write(arguments.folder, arguments.slugs):
        print(file)
    if remark := execute.unpinned():
        print(remark, file=sys.stderr)


def grade_students(arguments: argparse.Namespace) -> None:
    """Grade submissions: a report, and the points as JSON where a file is named."""
    from iclrtut.commands import grade
    from iclrtut.files import write_atomic

    if arguments.processes < 1:
        raise BadRequest(f"{arguments.processes} processes run nothing: use 1 or more.")
    if not 0 < arguments.seconds < float("inf"):
        raise BadRequest(f"{arguments.seconds:g} seconds are no time limit: use 60.")
    answers = grade.grade(arguments.folder, arguments.seconds, arguments.processes)
    print(grade.report(answers))
    if arguments.json:
        rows = [grade.as_json(answer) for answer in answers]
        text = json.dumps(rows, indent=1, ensure_ascii=False)
        write_atomic(arguments.json, text.encode(errors="replace"))


def plan_course(arguments: argparse.Namespace) -> None:
    """Print the plan of a term or, where days are asked for, of a workshop."""
    from iclrtut.commands import plan, timetable

    course = plan.book(), plan.closing(), arguments.slugs
    hours, days = arguments.hours, arguments.days
    if days is None:
        hours = plan.WEEK if hours is None else hours
        print(timetable.weekly(plan.term(*course, hours, arguments.weeks)))
    else:
        hours = plan.DAY if hours is None else hours
        print(timetable.daily(plan.workshop(*course, hours, days)))


def _print_json(value: Any) -> None:
    def plain(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: plain(each) for key, each in item.items()}
        if isinstance(item, (list, tuple)):
            return [plain(each) for each in item]
        return None if item != item else item

    print(json.dumps(plain(value), indent=1, ensure_ascii=False, default=str))
