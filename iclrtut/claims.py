"""What chapters declare: claims, each with its kind and rule, and settings."""

import importlib
import math
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from iclrtut.errors import BadRequest
from iclrtut.intervals import (
    ALPHA,
    Interval,
    normal_test,
    score_test,
    sign_flip,
    smallest_effect,
    t_interval,
    t_test,
    wilson_interval,
)

# claim id -> what was measured of it; "value" is the declared statistic.
Measurements = Mapping[str, Mapping[str, float]]
Measured = Sequence[Mapping[str, float]]  # of one claim, an entry a seed

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
PROFILES = ("smoke", "quick", "full")
SEEDS = 10  # that a claim of `quick` is judged over, at least

# What a claim says of the paper's number where the paper has none to set beside ours.
NO_NUMBER = "no number"
OURS = f"{NO_NUMBER}, since the claim is this book's own"
UNCHECKED = f"{NO_NUMBER}, since none of the paper's for this has been checked"

Kind = Literal["mean", "share", "always", "count"]
SAYS: dict[Kind, str] = {
    "mean": "mean",
    "share": "share",
    "always": "worst value",
    "count": "number",
}


class Rule(NamedTuple):
    """A side of a bound, both fixed beforehand."""

    side: Literal["above", "below"]
    bound: float

    def __str__(self) -> str:
        return f"{self.side} {self.bound:g}".replace("-", "−")

    def met(self, value: float) -> bool:
        """Whether a value lies on that side; the bound itself does not."""
        return value > self.bound if self.side == "above" else value < self.bound

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
    """The rule that a statistic lies above `bound`."""
    return Rule("above", bound)


def below(bound: float) -> Rule:
    """The rule that a statistic lies below `bound`."""
    return Rule("below", bound)


class Judgement(NamedTuple):
    """What the seeds say of a claim; nan where a number has no meaning.

    Attributes:
        interval: of the statistic; of the kinds always and count the worst value, with
            no bounds.
        sign_flip: two-sided p of the sign-flip test against the bound.
        p: one-sided p of the rule, by the test that the interval inverts; 1 where
            there is no interval, nan where the kind has none.
        smallest: the smallest distance from the bound (on a log scale the smallest
            factor) that ten seeds would have seen, where it is undecided.
        verdict: HOLDS, FAILS or UNDECIDED.
    """

    interval: Interval
    sign_flip: float
    p: float
    smallest: float
    verdict: str


@dataclass(frozen=True)
class Claim:
    """One claim of a paper.

    Attributes:
        id: name of the claim, unique in its chapter.
        sentence: the claim in the paper's terms.
        source: where the paper says it.
        statistic: what is measured here, with its unit.
        rule: what decides.
        paper: the paper's own number with its table or figure, or "no number" and
            why.
        kind: how the seeds speak. "mean": t interval and sign-flip test over seeds,
            which must agree. "share": of trials; the wider of the t interval over the
            seeds' shares and Wilson's over all trials. "always": the worst value of
            all seeds; the bound allows for rounding. "count": an exact number, on
            which all seeds agree.
        log: whether a mean, of a quantity that is always above 0, is judged on a log
            scale; the mean is then the geometric one.
        same_inputs: whether all seeds judge on the same inputs. Each then measures
            also `low` and `high`, its own 95 % interval over these inputs, and the
            interval is the wider of the mean of theirs and that over seeds.
    """

    id: str
    sentence: str
    source: str
    statistic: str
    rule: Rule
    paper: str
    kind: Kind = "mean"
    log: bool = False
    same_inputs: bool = False

    @property
    def paper_has_one(self) -> bool:
        """Whether the paper has a number to set beside ours."""
        return not self.paper.startswith(NO_NUMBER)

    @property
    def number(self) -> str:
        """What the seeds' values become, in words: "mean", "geometric mean"."""
        return f"geometric {self.kind}" if self.log else SAYS[self.kind]

    @property
    def holds_when(self) -> str:
        """The rule in words, such as "mean is above 0"."""
        return f"{self.number} is {self.rule}"

    @property
    def needed(self) -> set[str]:
        """The names of the numbers that a measurement of this claim must hold."""
        more = {"successes", "trials"} if self.kind == "share" else set()
        return {"value"} | more | ({"low", "high"} if self.same_inputs else set())

    def fault(self, numbers: Mapping[str, float]) -> str:
        """Why these numbers are no measurement of this claim; empty if they are one."""
        if missing := self.needed - set(numbers):
            return f"lacks {', '.join(sorted(missing))}"
        if self.kind == "share" and not (
            0 <= numbers["successes"] <= numbers["trials"] >= 1
        ):
            return f"is no share of trials: {dict(numbers)}"
        if self.log and not numbers["value"] > 0:
            return f"is {numbers['value']:g}, which has no logarithm"
        return ""

    def judge(self, measured: Measured, overlap: float = 0.0) -> Judgement:
        """The verdict of the rule over several seeds.

        Args:
            measured: the numbers of each seed, one at least.
            overlap: see `iclrtut.intervals.standard_error`.
        """
        if self.kind == "mean":
            return self._mean(measured, overlap)
        if self.kind == "share":
            return self._share(measured, overlap)
        return self._exact([each["value"] for each in measured])

    def _mean(self, measured: Measured, overlap: float) -> Judgement:
        bound = self.rule.bound

        def distances(key: str) -> list[float]:
            values = [each[key] for each in measured]
            return [math.log(v / bound) if self.log else v - bound for v in values]

        def back(distance: float) -> float:
            return bound * math.exp(distance) if self.log else bound + distance

        seeds = distances("value")
        interval, p = t_interval(seeds, overlap), t_test(seeds, overlap)
        smallest = smallest_effect(seeds, max(SEEDS, len(seeds)), overlap)
        if self.same_inputs:
            keys = ("value", "low", "high")
            inner = Interval(*(t_interval(distances(key)).mean for key in keys))
            if inner.width >= interval.width:
                interval, p, smallest = inner, normal_test(inner), math.nan
        flip = sign_flip(seeds) if interval.width else math.nan
        shown = Interval(*map(back, interval))
        verdict = self.rule.verdict(shown) if flip <= ALPHA else UNDECIDED
        if verdict != UNDECIDED:
            smallest = math.nan
        elif self.log:
            smallest = math.exp(smallest)
        return Judgement(shown, flip, self._one_sided(shown, p), smallest, verdict)

    def _share(self, measured: Measured, overlap: float) -> Judgement:
        bound, nan = self.rule.bound, math.nan
        successes, trials = (
            sum(each[key] for each in measured) for key in ("successes", "trials")
        )
        shares = [each["successes"] / each["trials"] for each in measured]
        if len(shares) < 2:
            none = Interval(shares[0], nan, nan)
            return Judgement(none, nan, 1.0, nan, UNDECIDED)
        away = [share - bound for share in shares]
        interval, p = max(
            (t_interval(shares, overlap), t_test(away, overlap)),
            (
                wilson_interval(successes, trials),
                score_test(successes, trials, bound),
            ),
            key=lambda route: route[0].width,
        )
        verdict, smallest = self.rule.verdict(interval), nan
        if verdict == UNDECIDED:
            smallest = smallest_effect(shares, max(SEEDS, len(shares)), overlap)
        shown = Interval(interval.mean, max(interval.low, 0.0), min(interval.high, 1.0))
        return Judgement(shown, nan, self._one_sided(shown, p), smallest, verdict)

    def _exact(self, values: Sequence[float]) -> Judgement:
        worst = max(values) if self.rule.side == "below" else min(values)
        verdict = HOLDS if self.rule.met(worst) else FAILS
        if self.kind == "count" and len(set(values)) > 1:
            verdict = UNDECIDED
        nan = math.nan
        return Judgement(Interval(worst, nan, nan), nan, nan, nan, verdict)

    def _one_sided(self, interval: Interval, p: float) -> float:
        if math.isnan(p):
            return 1.0
        return p / 2 if self.rule.met(interval.mean) else 1 - p / 2


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
        overlap: profile -> m / (N - m) where the seeds of a profile test on m inputs
            drawn anew from one set of N; see `iclrtut.intervals.standard_error`.
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
    overlap: Mapping[str, float] = field(default_factory=dict, repr=False)

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
