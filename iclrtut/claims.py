"""What chapters declare: claims, each with the rule that decides, and settings."""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from iclrtut.errors import BadRequest

# claim id -> what was measured of it; "value" is the declared statistic.
Measurements = Mapping[str, Mapping[str, float]]

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
PROFILES = ("smoke", "quick", "full")


class Interval(NamedTuple):
    """A mean and its 95 % interval; nan bounds where one value gives none."""

    mean: float
    low: float
    high: float


class Rule(NamedTuple):
    """The interval must lie wholly above (or below) a bound fixed beforehand."""

    side: str
    bound: float

    def __str__(self) -> str:
        return f"95 % interval lies {self.side} {self.bound:g}"

    def verdict(self, interval: Interval) -> str:
        """Whether an interval lies on the declared side of the bound.

        Returns:
            "holds" (wholly on that side), "does not hold" (wholly on the other) or
            "undecided" (the bound lies inside, or there is no interval).
        """
        above, below = interval.low > self.bound, interval.high < self.bound
        if not (above or below):
            return UNDECIDED
        return HOLDS if above == (self.side == "above") else FAILS


def above(bound: float) -> Rule:
    """The rule that the 95 % interval lies above `bound`."""
    return Rule("above", bound)


def below(bound: float) -> Rule:
    """The rule that the 95 % interval lies below `bound`."""
    return Rule("below", bound)


@dataclass(frozen=True)
class Claim:
    """One claim of a paper.

    Attributes:
        id: name of the claim, unique in its chapter.
        sentence: the claim in the paper's terms.
        source: where the paper says it.
        statistic: what is measured here, with its unit.
        rule: what decides.
        paper: the paper's own number with its table or figure, if it has one.
        share: whether the statistic is a share of trials (Wilson's interval over
            the trials of all seeds) rather than a number a seed (t interval).
    """

    id: str
    sentence: str
    source: str
    statistic: str
    rule: Rule
    paper: str = ""
    share: bool = False

    def interval(self, measured: Sequence[Mapping[str, float]]) -> Interval:
        """The 95 % interval of this claim over the measurements of several seeds."""
        if self.share:
            return share_interval(
                sum(m["successes"] for m in measured),
                sum(m["trials"] for m in measured),
            )
        return mean_interval([m["value"] for m in measured])


@dataclass(frozen=True)
class Chapter:
    """What a chapter declares about itself.

    Attributes:
        slug: its one name.
        title, paper, authors, url: of the chapter, and of the paper it reads.
        idea: one sentence for the cover.
        difficulty: one of "gentle", "middling", "steep".
        prerequisites: what to know before.
        settings: profile name -> settings of that profile.
        claims: the declared claims, in the order in which they are measured.
        builds_on: slugs of the chapters whose modules this one may import.
    """

    slug: str
    title: str
    paper: str
    authors: str
    url: str
    idea: str
    difficulty: str
    prerequisites: str
    settings: Mapping[str, Any] = field(repr=False)
    claims: tuple[Claim, ...] = field(repr=False)
    builds_on: tuple[str, ...] = ()

    def claim(self, id: str) -> Claim:
        """The claim of that id.

        Raises:
            BadRequest: no such claim is declared.
        """
        for claim in self.claims:
            if claim.id == id:
                return claim
        known = ", ".join(claim.id for claim in self.claims)
        raise BadRequest(
            f"{self.slug} declares no claim {id!r}: use one of {known}, or declare it "
            f"in iclrtut/chapters/{self.slug} before measuring it."
        )


def mean_interval(values: Sequence[float]) -> Interval:
    """Student's t interval (95 %) of the mean of independent values."""
    import numpy as np
    from scipy import stats

    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, float("nan"), float("nan"))
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    half = float(stats.t.ppf(0.975, len(values) - 1) * error)
    return Interval(mean, mean - half, mean + half)


def share_interval(successes: float, trials: float) -> Interval:
    """Wilson's interval (95 %) of a share of independent trials."""
    from scipy import stats

    test = stats.binomtest(int(successes), int(trials))
    low, high = test.proportion_ci(method="wilson")
    return Interval(successes / trials, float(low), float(high))


def profile(name: str) -> str:
    """Return a profile's name unchanged, if there is such a profile.

    Raises:
        BadRequest: there is no such profile.
    """
    if name not in PROFILES:
        raise BadRequest(f"profile {name!r} is unknown: use {', '.join(PROFILES)}.")
    return name


def slugs() -> list[str]:
    """The slugs of the chapters of this package, sorted."""
    from iclrtut import chapters

    return sorted(module.name for module in pkgutil.iter_modules(chapters.__path__))


def chapter(slug: str) -> Chapter:
    """A chapter's declaration.

    Raises:
        BadRequest: there is no such chapter.
    """
    if slug not in slugs():
        raise BadRequest(
            f"there is no chapter {slug!r}: use one of {', '.join(slugs())}."
        )
    declared: Chapter = importlib.import_module(f"iclrtut.chapters.{slug}").CHAPTER
    return declared


def chapters() -> Iterator[Chapter]:
    """The declarations of all chapters, in the order of their slugs."""
    return map(chapter, slugs())
