"""The ledger: the verdict on every claim, computed from the records."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from iclrtut import claims, records
from iclrtut.intervals import ALPHA, holm

JUDGED = ("quick", "full")


def rows(*roots: Path) -> list[dict[str, Any]]:
    """One row a claim, profile and device, judged over the seeds that are recorded.

    Args:
        roots: folders of records; of two with one path the first folder's counts.

    Returns:
        What `row` returns, with the device, and how many runs stand "apart" because
        their data or settings are others; claims in declared order.
    """
    runs: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for record in records.read_all(*roots):
        if record["profile"] in JUDGED:
            kind = record["chapter"], record["profile"], record["device"]
            runs.setdefault(kind, []).append(record)
    judged = []
    for (slug, profile, device), recorded in sorted(runs.items(), key=lambda i: i[0]):
        chapter = claims.chapter(slug)
        pool = counting(recorded, records.plain(chapter.settings[profile]))
        more = {"device": device, "apart": len(recorded) - len(pool)}
        for claim in chapter.claims:
            over_seeds = [
                r["claims"][claim.id] for r in pool if claim.id in r["claims"]
            ]
            if over_seeds:
                judged.append(row(chapter, claim, profile, over_seeds) | more)
    return judged


def counting(recorded: list[dict[str, Any]], settings: Any) -> list[dict[str, Any]]:
    """The runs of one chapter, profile and device that speak together.

    Runs are pooled where settings and data are the same; those that were recorded
    before either was (schema 1) only among themselves. Of several pools the one of most
    runs counts, with these settings before any with others.

    Args:
        recorded: the runs.
        settings: as in a record, those that the chapter declares.
    """
    pools: dict[str, list[dict[str, Any]]] = {}
    for record in recorded:
        own = json.dumps([record["settings"], record["data"]], sort_keys=True)
        pools.setdefault(own, []).append(record)

    def weight(pool: list[dict[str, Any]]) -> tuple[bool, int, bool]:
        own = pool[0]["settings"]
        return own in (None, settings), len(pool), own is not None

    return max(pools.values(), key=weight, default=[])


def row(
    chapter: claims.Chapter,
    claim: claims.Claim,
    profile: str,
    measured: claims.Measured,
) -> dict[str, Any]:
    """Judge one claim over the measurements of several seeds.

    Args:
        chapter: the chapter that declares it.
        claim: what is judged.
        profile: of the runs.
        measured: the numbers of each seed.

    Returns:
        Chapter, claim, profile, sentence, source, paper, statistic, kind, number (what
        the values become, in words), log (whether on a log scale), rule, overlap,
        seeds, values (of every seed), and what `iclrtut.claims.Judgement` holds: mean,
        low, high, sign_flip, p, smallest and verdict.
    """
    overlap = chapter.overlap.get(profile, 0.0)
    judgement = claim.judge(measured, overlap)
    return {
        "chapter": chapter.slug,
        "claim": claim.id,
        "profile": profile,
        "sentence": claim.sentence,
        "source": claim.source,
        "paper": claim.paper,
        "statistic": claim.statistic,
        "kind": claim.kind,
        "number": claim.number,
        "log": claim.log,
        "rule": claim.holds_when,
        "overlap": overlap,
        "seeds": len(measured),
        "values": [each["value"] for each in measured],
        **judgement.interval._asdict(),
        "sign_flip": judgement.sign_flip,
        "p": judgement.p,
        "smallest": judgement.smallest,
        "verdict": judgement.verdict,
    }


class Luck(NamedTuple):
    """What many claims owe to their number.

    Attributes:
        claims: how many are judged by an interval.
        by_luck: how many of them would hold by luck, if each sat at its bound.
        hold: how many of them hold.
        after_holm: how many of those still hold after Holm's correction, by the
            one-sided p of their intervals, for all of them.
    """

    claims: int
    by_luck: float
    hold: int
    after_holm: int

    def __str__(self) -> str:
        return (
            f"{self.claims} claims are judged by an interval. If each of them sat at "
            f"its bound, about {self.by_luck:.1f} would hold by luck "
            f"({ALPHA / 2:g} a claim). {self.hold} hold; of these {self.after_holm} "
            f"would hold after Holm's correction for all {self.claims}."
        )


def luck(judged: Sequence[dict[str, Any]]) -> Luck:
    """How many of these rows would hold by luck, and how many survive Holm."""
    tested = [row for row in judged if row["p"] == row["p"]]
    kept = holm([row["p"] for row in tested])
    hold = [row["verdict"] == claims.HOLDS for row in tested]
    both = sum(map(min, hold, kept))
    return Luck(len(tested), ALPHA / 2 * len(tested), sum(hold), both)


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


def beside(row: dict[str, Any]) -> str:
    """What stands beside the interval: the sign-flip test, and what could be seen."""
    seeds, notes = row["seeds"], []
    if row["sign_flip"] == row["sign_flip"]:
        notes.append(f"sign-flip p = {number(row['sign_flip'])}")
    if row["verdict"] == claims.UNDECIDED and row["p"] == row["p"] and seeds > 1:
        if row["low"] != row["low"]:
            notes.append("all seeds read the same")
        elif row["smallest"] == row["smallest"]:
            what = "a factor" if row["log"] else "a distance"
            least = max(claims.SEEDS, seeds)
            notes.append(f"{least} seeds would see {what} of {number(row['smallest'])}")
    return ", ".join(notes)


def apart(row: dict[str, Any]) -> str:
    """How many runs were left out of a row, in a sentence; empty if none."""
    if not row["apart"]:
        return ""
    runs = "1 run" if row["apart"] == 1 else f"{row['apart']} runs"
    return f"{runs} with other data or settings left out."


def corrected(row: dict[str, Any]) -> str:
    """Whether seeds overlap, in a sentence; empty if they do not."""
    return "Seeds split one set anew; intervals are corrected." * bool(row["overlap"])
