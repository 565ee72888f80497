"""The ledger: every claim of the book, as the records decide it."""

from itertools import groupby
from pathlib import Path
from typing import Any

from iclrtut import claims, records

JUDGED = ("quick", "full")


def rows(root: Path) -> list[dict[str, Any]]:
    """One row a claim, profile and device, judged over the seeds that are recorded.

    Args:
        root: the folder of records.

    Returns:
        Dicts with chapter, claim, sentence, source, paper, statistic, rule, profile,
        device, seeds, mean, low, high and verdict; claims in declared order.
    """
    judged = [r for r in records.read_all(root) if r["profile"] in JUDGED]
    by_kind = sorted(judged, key=_kind)
    return [
        row(
            chapter,
            claim,
            [r["claims"][claim.id] for r in group if claim.id in r["claims"]],
        )
        | {"profile": kind[1], "device": kind[2]}
        for kind, members in groupby(by_kind, key=_kind)
        for group in [list(members)]
        for chapter in [claims.chapter(kind[0])]
        for claim in chapter.claims
        if any(claim.id in r["claims"] for r in group)
    ]


def _kind(record: dict[str, Any]) -> tuple[str, str, str]:
    return record["chapter"], record["profile"], record["device"]


def row(
    chapter: claims.Chapter, claim: claims.Claim, measured: list[dict[str, float]]
) -> dict[str, Any]:
    """Judge one claim over the measurements of several seeds."""
    interval = claim.interval(measured)
    return {
        "chapter": chapter.slug,
        "claim": claim.id,
        "sentence": claim.sentence,
        "source": claim.source,
        "paper": claim.paper,
        "statistic": claim.statistic,
        "rule": str(claim.rule),
        "seeds": len(measured),
        **interval._asdict(),
        "verdict": claim.rule.verdict(interval),
    }


def number(value: float) -> str:
    """A number as the book prints it: three significant digits, a true minus sign."""
    if value != value:
        return "–"
    digits = f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return digits.replace("-", "−")


def measured(row: dict[str, Any]) -> str:
    """A row's mean with its interval, such as `0.31 [0.26, 0.36]`."""
    text = number(row["mean"])
    if row["low"] == row["low"]:
        text += f" [{number(row['low'])}, {number(row['high'])}]"
    return text
