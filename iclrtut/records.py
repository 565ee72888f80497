"""Records: one JSON file a run, holding what that run measured."""

import json
import math
import os
from pathlib import Path
from typing import Any

from iclrtut import claims
from iclrtut.errors import BadRequest

SCHEMA = 1
KEYS = {
    "schema", "chapter", "profile", "device", "device_name", "seed", "versions",
    "commit", "seconds", "timings", "peak_memory_bytes", "claims",
}  # fmt: skip


def folder() -> Path | None:
    """Where records are read: `ICLRTUT_RECORDS`, else the source tree's own."""
    named = os.environ.get("ICLRTUT_RECORDS")
    if named:
        return Path(named)
    tree = Path(__file__).resolve().parents[1] / "records"
    return tree if tree.is_dir() else None


def path(root: Path, record: dict[str, Any]) -> Path:
    """The file of a record: <root>/<chapter>/<profile>-<device>-<seed>.json."""
    name = f"{record['profile']}-{record['device']}-{record['seed']}.json"
    return root / str(record["chapter"]) / name


def write(root: Path, record: dict[str, Any]) -> Path:
    """Write a record, whole or not at all, over an older one of the same run.

    Raises:
        BadRequest: the record is not valid.
        RunFailed: the file cannot be written.
    """
    from iclrtut.files import write_atomic

    target = path(root, record)
    _validate(record, target)
    write_atomic(target, (json.dumps(record, indent=1) + "\n").encode())
    return target


def read(file: Path) -> dict[str, Any]:
    """Read one record.

    Raises:
        BadRequest: not JSON, or of an unknown schema, chapter or claim.
        RunFailed: the file cannot be read.
    """
    from iclrtut.files import explained

    try:
        with explained(file, "read"):
            record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadRequest(
            f"{file} is not JSON ({error}): delete it and run again."
        ) from None
    _validate(record, file)
    return record


def read_all(root: Path) -> list[dict[str, Any]]:
    """All records below a folder, in the order of their paths; benchmarks left out."""
    files = sorted(root.glob("*/*.json"))
    return [read(file) for file in files if not file.name.startswith("bench-")]


def _validate(record: Any, file: Path) -> None:
    def refuse(why: str) -> None:
        raise BadRequest(f"{file} is refused: {why}; delete it or mend it.")

    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        found = record.get("schema") if isinstance(record, dict) else record
        refuse(f"its schema is {found!r} and this version reads {SCHEMA}")
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
        isinstance(each, dict) and all(map(_number, each.values())) for each in maps
    ):
        refuse("its timings or claims are not maps from names to finite numbers")
    if not _number(record["seconds"]):
        refuse(f"its seconds are {record['seconds']!r}, which is no number")
    known = {claim.id: claim for claim in claims.chapter(record["chapter"]).claims}
    for id, numbers in measured.items():
        if id not in known:
            refuse(f"{record['chapter']} declares no claim {id!r}")
        share = known[id].share
        needed = {"value", "successes", "trials"} if share else {"value"}
        if not needed <= set(numbers):
            refuse(f"claim {id!r} lacks {sorted(needed - set(numbers))}")
        if share and not 0 <= numbers["successes"] <= numbers["trials"] >= 1:
            refuse(f"claim {id!r} is no share of trials: {numbers}")


def _number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < math.inf
