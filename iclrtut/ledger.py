"""The ledger: the verdict on every claim, computed from the records."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from iclrtut import claims, records

JUDGED = ("quick", "full")


def rows(*roots: Path) -> list[dict[str, Any]]:
    """One row a claim, profile and device, judged over the seeds that are recorded.

    Args:
        roots: folders of records; of two with one path the first folder's counts.

    Returns:
        Dicts with chapter, claim, sentence, source, paper, statistic, rule, profile,
        device, seeds, mean, low, high and verdict; claims in declared order.
    """
    runs: dict[tuple[str, str, str], list[claims.Measurements]] = {}
    for record in records.read_all(*roots):
        if record["profile"] in JUDGED:
            kind = record["chapter"], record["profile"], record["device"]
            runs.setdefault(kind, []).append(record["claims"])
    judged = []
    for (slug, profile, device), measured in sorted(runs.items(), key=lambda i: i[0]):
        chapter = claims.chapter(slug)
        for claim in chapter.claims:
            over_seeds = [run[claim.id] for run in measured if claim.id in run]
            if over_seeds:
                verdict = row(chapter, claim, over_seeds)
                judged.append(verdict | {"profile": profile, "device": device})
    return judged


def row(
    chapter: claims.Chapter,
    claim: claims.Claim,
    measured: Sequence[Mapping[str, float]],
) -> dict[str, Any]:
    """Judge one claim over the measurements of several seeds.

    Args:
        chapter: the chapter that declares it.
        claim: what is judged.
        measured: the numbers of each seed.

    Returns:
        As in `rows`, without profile and device.
    """
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


def running_times(
    slug: str, recorded: Sequence[dict[str, Any]]
) -> dict[tuple[str, str], float]:
    """(profile, device) -> the median seconds that runs of a chapter took."""
    runs: dict[tuple[str, str], list[float]] = {}
    for record in recorded:
        if record["chapter"] == slug:
            kind = record["profile"], record["device"]
            runs.setdefault(kind, []).append(record["seconds"])
    return {kind: median(seconds) for kind, seconds in sorted(runs.items())}


def in_words(times: dict[tuple[str, str], float]) -> str:
    """What `running_times` returns as prose, such as "quick (CPU) 57 s"."""
    words = [f"{p} ({d.upper()}) {s:.0f} s" for (p, d), s in times.items()]
    return ", ".join(words) or "not yet measured"


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
