"""A chapter for tests: nothing to train, claims of three kinds."""

from typing import Any, NamedTuple

import pytest

from iclrtut import claims, records


class Settings(NamedTuple):
    """Sizes of one profile."""

    steps: int


CHAPTER = claims.Chapter(
    slug="toy",
    title="A toy",
    paper="On toys",
    authors="Nobody",
    url="https://example.org/toys",
    idea="It plays.",
    difficulty="gentle",
    prerequisites="none",
    settings={"smoke": Settings(1), "quick": Settings(10), "full": Settings(100)},
    claims=(
        claims.Claim(
            "faster", "Is faster", "abstract", "seconds", claims.below(2), "no number"
        ),
        claims.Claim(
            "better", "Is better", "table 1", "points", claims.above(0), "3 (table 1)"
        ),
        claims.Claim(
            "often",
            "Is often right",
            "section 2",
            "share",
            claims.above(0.5),
            "0.9 (table 2)",
            kind="share",
        ),
    ),
)

MEASURED = {
    "faster": {"value": 1.5},
    "better": {"value": 3.0, "before": 1.0},
    "often": {"value": 0.8, "successes": 8.0, "trials": 10.0},
}


def install(patch: pytest.MonkeyPatch) -> None:
    """Let the toy be the only chapter, and the book have no records."""

    def chapter(slug: str) -> claims.Chapter:
        if slug != "toy":
            raise claims.BadRequest(f"there is no chapter {slug!r}: use one of toy.")
        return CHAPTER

    patch.setattr(claims, "slugs", lambda: ["toy"])
    patch.setattr(claims, "chapter", chapter)
    patch.setattr(records, "published", list)


def record(**changes: Any) -> dict[str, Any]:
    """A valid record of the toy, some of its keys changed."""
    made = {
        "schema": records.SCHEMA,
        "chapter": "toy",
        "profile": "quick",
        "device": "cpu",
        "device_name": "1 thread(s) of x86_64",
        "seed": 0,
        "versions": {"python": "3.11.7"},
        "commit": "abc",
        "settings": {"steps": 10},
        "data": {"digits": "0" * 64},
        "seconds": 1.5,
        "timings": {"training": 1.0},
        "peak_memory_bytes": None,
        "claims": {id: dict(numbers) for id, numbers in MEASURED.items()},
    }
    return made | changes
