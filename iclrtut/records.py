"""Records: one JSON file a run, with all that the run measured."""

import json
import os
import reprlib
import sys
from pathlib import Path
from typing import Any

from iclrtut import claims
from iclrtut.errors import BadRequest
from iclrtut.files import explained, write_atomic
from iclrtut.repository import TREE

SCHEMA = 2
KEYS = {
    "schema", "chapter", "profile", "device", "device_name", "seed", "versions",
    "commit", "settings", "data", "seconds", "timings", "peak_memory_bytes", "claims",
}  # fmt: skip


def folders() -> list[Path]:
    """The folders from which verdicts are read; the first that has a record counts.

    Records that the reader keeps come before those of the book, which an installed
    package holds a copy of. `ICLRTUT_RECORDS` set to nothing leaves the book's alone.
    """
    own = [] if os.environ.get("ICLRTUT_RECORDS") == "" else [kept()]
    return [*own, *published()]


def kept() -> Path:
    """Where the reader's records are kept: `ICLRTUT_RECORDS`, else in the home."""
    named = os.environ.get("ICLRTUT_RECORDS")
    home = Path.home() / ".local" / "share" / "iclrtut" / "records"
    return Path(named).expanduser() if named else home


def published() -> list[Path]:
    """The folder of the book's records: the installed copy, else the repository's."""
    places = (Path(__file__).with_name("recorded"), TREE / "records")
    return [place for place in places if place.is_dir()][:1]


def path(root: Path, record: dict[str, Any]) -> Path:
    """The file of a record: <root>/<chapter>/<profile>-<device>-<seed>.json."""
    name = f"{record['profile']}-{record['device']}-{record['seed']}.json"
    return root / str(record["chapter"]) / name


def write(root: Path, record: dict[str, Any]) -> Path:
    """Write a record in one step, over an older one of the same run.

    Raises:
        BadRequest: the record is not valid.
        RunFailed: the file cannot be written.
    """
    target = path(root, record)
    _validate(record, target)
    write_atomic(target, (json.dumps(record, indent=1) + "\n").encode())
    return target


def read(file: Path) -> dict[str, Any]:
    """Read one record.

    Of schema 1, which kept neither, `settings` and `data` are None.

    Raises:
        BadRequest: not JSON, or of an unknown schema, chapter or claim.
        RunFailed: the file cannot be read.
    """
    try:
        with explained(file, "read"):
            record = _converted(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, RecursionError) as error:
        raise BadRequest(
            f"{file} is not JSON ({error}): delete it and run again."
        ) from None
    _validate(record, file)
    return record  # type: ignore[no-any-return]


def plain(settings: Any) -> Any:
    """Settings as JSON gives them back: maps for named tuples, lists for others."""
    if hasattr(settings, "_asdict"):
        return {name: plain(value) for name, value in settings._asdict().items()}
    if isinstance(settings, (list, tuple)):
        return [plain(each) for each in settings]
    return settings


def read_all(*roots: Path, names: str = "*/*.json") -> list[dict[str, Any]]:
    """The records below some folders, in the order of their paths.

    A path names one run, so a record hides those of the same path in later folders.

    Args:
        roots: folders of records; they need not exist.
        names: a pattern for the paths below a folder. Benchmarks are left out, and the
            counts of deliberate faults.

    Raises:
        BadRequest, RunFailed: as in `read`.
    """
    files = {
        file.relative_to(root): file
        for root in reversed(roots)
        for file in root.glob(names)
        if not file.name.startswith(("bench-", "mutants."))
    }
    return [read(files[name]) for name in sorted(files)]


def _converted(record: Any) -> Any:
    """What was read, a record of schema 1 in the form of schema 2.

    Where an accuracy had an interval over its inputs, `value` was the lower end of it.
    """
    if not isinstance(record, dict) or record.get("schema") != 1:
        return record
    measured = record.get("claims")
    for numbers in measured.values() if isinstance(measured, dict) else ():
        if isinstance(numbers, dict) and {"accuracy", "low", "high"} <= set(numbers):
            numbers["value"] = numbers["accuracy"]
    return record | {"schema": SCHEMA, "settings": None, "data": None}


def _validate(record: Any, file: Path) -> None:
    """Raise BadRequest unless a record is one, and stands in its own file."""

    def refuse(why: str) -> None:
        raise BadRequest(f"{file} is refused: {why}; delete it or mend it.")

    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        schema = record.get("schema") if isinstance(record, dict) else None
        shown = reprlib.repr(schema)
        refuse(f"its schema is {shown} and this version reads {SCHEMA}")
    if set(record) != KEYS:
        refuse(f"it lacks or adds the keys {sorted(KEYS ^ set(record))}")
    if record["profile"] not in claims.PROFILES:
        refuse(f"its profile {record['profile']!r} is none of {claims.PROFILES}")
    if record["chapter"] not in claims.slugs():
        refuse(f"there is no chapter {record['chapter']!r}")
    if file.parts[-2:] != path(Path(), record).parts:
        refuse("its name is not <chapter>/<profile>-<device>-<seed>.json")
    measured = record["claims"]
    maps = (
        [record["timings"], *measured.values()]
        if isinstance(measured, dict)
        else [None]
    )
    if not all(
        isinstance(each, dict) and all(map(_is_finite, each.values())) for each in maps
    ):
        refuse("its timings or claims are not maps from names to finite numbers")
    if not all(isinstance(record[k], dict | None) for k in ("settings", "data")):
        refuse("its settings or data are no maps")
    if not _is_finite(record["seconds"]):
        refuse(f"its seconds are {record['seconds']!r}, which is no number")
    known = {claim.id: claim for claim in claims.chapter(record["chapter"]).claims}
    for id, numbers in measured.items():
        if id not in known:
            refuse(f"{record['chapter']} declares no claim {id!r}")
        if fault := known[id].fault(numbers):
            refuse(f"claim {id!r} {fault}")


def _is_finite(value: Any) -> bool:
    """Whether a value from JSON is a finite number; true and false are none."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max
