"""The ledger: every claim of the book, as the records decide it."""

import math
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
    digits = f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return digits.replace("-", "−")


def measured(row: dict[str, Any]) -> str:
    """A mean with its interval, with the digits that the interval's width bears out."""
    mean, low, high = row["mean"], row["low"], row["high"]
    if low != low:
        return number(mean)
    places = 1 - math.floor(math.log10((high - low) / 2)) if high > low else 3
    show = f"{{:,.{min(max(places, 0), 6)}f}}".format
    return f"{show(mean)} [{show(low)}, {show(high)}]".replace("-", "−")
