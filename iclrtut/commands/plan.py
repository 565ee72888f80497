"""A course plan: which chapter is taught when, computed from what the chapters bring.

Each chapter brings one session, in `book/teach/chapters/<slug>.yml`: what happens in
class, minute by minute, and the exercises that are homework. A plan puts the sessions
of the chosen chapters, each after those that it builds on, into weeks or days of so
many hours. The book's own sessions close it (`book/teach/closing.yml`).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

from iclrtut import claims
from iclrtut.commands import minutes
from iclrtut.commands.minutes import Exercise
from iclrtut.errors import BadRequest
from iclrtut.repository import TREE

CHAPTERS = 8  # of a course, where nobody names them
WEEK, DAY = 1.5, 6.0  # hours of class
OVER = 1.1  # how much longer a part of a session may be than its week


class Slot(NamedTuple):
    """Some minutes of a session; `where` names headings and equations."""

    minutes: int
    do: str
    where: tuple[str, ...] = ()
    exercises: tuple[Exercise, ...] = ()


class Session(NamedTuple):
    """What one chapter brings; without a slug, a session of the book's own.

    Attributes:
        part: the part of the book.
        needs: slugs of the chapters that it builds on.
        know: what students should know.
        reading: minutes at home before class.
        before, after: advice to the teacher.
        homework: the exercises after class.
        home: what else is done after class.
    """

    title: str
    slots: tuple[Slot, ...]
    slug: str = ""
    part: str = ""
    needs: tuple[str, ...] = ()
    know: str = ""
    reading: int = 0
    before: str = ""
    after: str = ""
    homework: tuple[Exercise, ...] = ()
    home: str = ""


class Stretch(NamedTuple):
    """A session, or what one week has of it: some slots, from so many minutes on."""

    session: Session
    slots: tuple[Slot, ...]
    start: int

    @property
    def end(self) -> int:
        """Minutes from the beginning of the session."""
        return self.start + length(self.slots)


Book = Mapping[str, Session]
Plan = list[list[Stretch]]


def term(
    book: Book,
    closing: Sequence[Session],
    slugs: Sequence[str] = (),
    hours: float = WEEK,
    weeks: int | None = None,
) -> Plan:
    """The weeks of a term: the chapters, then each closing session in its own week.

    Args:
        book: the sessions of all chapters, in the order of the book.
        closing: the book's own sessions.
        slugs: the chapters; without them, as many as fit, at most about eight.
        hours: of class in a week.
        weeks: how many there are at most.

    Raises:
        BadRequest: a chapter is unknown, or the plan cannot be made in that time.
    """

    def arrange(chosen: list[Session]) -> Plan:
        ends = [week for session in closing for week in divide([session], hours)]
        return divide(chosen, hours) + ends

    return _fit(book, slugs, arrange, weeks, "week")


def workshop(
    book: Book,
    closing: Sequence[Session],
    slugs: Sequence[str] = (),
    hours: float = DAY,
    days: int | None = None,
) -> Plan:
    """The days of a workshop: homework is done in class, one closing session ends it.

    Arguments and errors are those of `term`, for days.
    """

    def arrange(chosen: list[Session]) -> Plan:
        return divide([*map(_practised, chosen), *closing[:1]], hours)

    return _fit(book, slugs, arrange, days, "day")


def divide(sessions: Iterable[Session], hours: float) -> Plan:
    """Divide sessions, in their order, among weeks of so many hours.

    A week takes the whole sessions for which it has time. A session longer than a week
    goes on in the next ones, cut between activities; a part of it may take a tenth more
    than a week has.

    Raises:
        BadRequest: one activity is longer than a week.
    """
    if not 0 < hours <= 24:
        raise BadRequest(f"{hours:g} hours of class make no plan: use 1.5.")
    most = round(60 * hours)
    weeks: Plan = []
    room = 0
    for session in sessions:
        stretches = _cut(session, most)
        if len(stretches) == 1 and stretches[0].end <= room:
            weeks[-1] += stretches
        else:
            weeks += [[stretch] for stretch in stretches]
            room = most
        room -= length(stretches[-1].slots)
    return weeks


def ordered(book: Book, slugs: Iterable[str]) -> list[str]:
    """Chapters in the given order, each after all that it builds on.

    Raises:
        BadRequest: there is no such chapter.
    """
    found: dict[str, None] = {}
    for slug in slugs:
        if slug not in book:
            raise BadRequest(
                f"there is no chapter {slug!r}: use one of {', '.join(book)}."
            )
        found |= dict.fromkeys([*ordered(book, book[slug].needs), slug])
    return list(found)


def default(book: Book, most: int) -> list[str]:
    """At most so many chapters: one of each part, then a second one, and so on."""
    parts: dict[str, list[str]] = {}
    for session in book.values():
        parts.setdefault(session.part, []).append(session.slug)
    chosen: list[str] = []
    for slug in filter(None, (s for row in zip_longest(*parts.values()) for s in row)):
        more = ordered(book, [*chosen, slug])
        chosen = more if len(more) <= most else chosen
    return ordered(book, [slug for slug in book if slug in chosen])


def _fit(
    book: Book,
    slugs: Sequence[str],
    arrange: Callable[[list[Session]], Plan],
    most: int | None,
    unit: str,
) -> Plan:
    """The named chapters, or as many as fit, arranged in so many weeks or days."""
    counts = [0] if slugs else range(max(1, min(CHAPTERS, len(book))), 0, -1)
    for size in counts:
        chosen = ordered(book, slugs) if slugs else default(book, size)
        plan = arrange([book[slug] for slug in chosen])
        if most is None or len(plan) <= most:
            return plan
    raise BadRequest(
        f"{count(len(chosen), 'chapter')} and what closes the course take "
        f"{count(len(plan), unit)}, not {most}: give more {unit}s, more hours each, "
        "or fewer chapters."
    )


def _cut(session: Session, most: int) -> list[Stretch]:
    """A session in as few stretches as have time, as even as its activities allow."""
    total = length(session.slots)
    for pieces in range(math.ceil(total / most), total + 1):
        stretches: list[Stretch] = []
        start = 0
        for slot in session.slots:
            middle = start + slot.minutes / 2
            if not stretches or middle * pieces > total * len(stretches):
                stretches.append(Stretch(session, (), start))
            last = stretches[-1]
            stretches[-1] = last._replace(slots=(*last.slots, slot))
            start += slot.minutes
        if all(length(stretch.slots) <= OVER * most for stretch in stretches):
            return stretches
    raise BadRequest(
        f"{session.title} has an activity of {max(s.minutes for s in session.slots)} "
        f"minutes, too long for {most} minutes of class: give more hours."
    )


def _practised(session: Session) -> Session:
    """A session whose homework is done in class, and that nobody reads before."""
    more = [Slot(e.minutes, "In pairs.", (), (e,)) for e in session.homework]
    slots = (*session.slots, *more)
    return session._replace(slots=slots, homework=(), reading=0)


def length(slots: Iterable[Slot]) -> int:
    """The minutes of some slots."""
    return sum(slot.minutes for slot in slots)


def count(number: int, what: str) -> str:
    """Such as `1 week` or `2 weeks`."""
    return f"{number} {what}{'s' * (number != 1)}"


# What people wrote


def book() -> dict[str, Session]:
    """The sessions of all declared chapters, in the order of the book.

    Raises:
        BadRequest: a file of the book is not there.
    """
    declared = {chapter.slug: chapter for chapter in claims.chapters()}
    return {
        slug: _session(declared[slug], part)
        for part, slugs in _data("plan.yml").items()
        for slug in slugs
        if slug in declared
    }


def closing() -> list[Session]:
    """The book's own sessions.

    Raises:
        BadRequest: their file is not there.
    """
    return [
        Session(**{**entry, "slots": _slots(entry["slots"], {})})
        for entry in _data("teach/closing.yml")
    ]


def _session(chapter: claims.Chapter, part: str) -> Session:
    """What a chapter brings."""
    source = _text(f"chapters/{chapter.slug}.md")
    exercises = minutes.exercises(source)
    brought = _data(f"teach/chapters/{chapter.slug}.yml")
    return Session(
        title=chapter.title,
        slots=_slots(brought["slots"], exercises),
        slug=chapter.slug,
        part=part,
        needs=chapter.builds_on,
        know=chapter.prerequisites,
        reading=minutes.reading(minutes.portions(source)),
        before=brought.get("before", ""),
        after=brought.get("after", ""),
        homework=tuple(exercises[n] for n in brought["homework"]),
    )


def _slots(
    entries: list[dict[str, Any]], exercises: Mapping[int, Exercise]
) -> tuple[Slot, ...]:
    """The slots of a session."""
    return tuple(
        Slot(
            entry["minutes"],
            entry["do"],
            tuple(entry.get("where", ())),
            tuple(exercises[n] for n in entry.get("exercises", ())),
        )
        for entry in entries
    )


def _text(name: str) -> str:
    """A file of the book."""
    file = TREE / "book" / name
    if not file.is_file():
        raise BadRequest(f"{file} is missing: run this in a clone of the book.")
    return file.read_text(encoding="utf-8")


def _data(name: str) -> Any:
    """A YAML file of the book."""
    import yaml

    return yaml.safe_load(_text(name))
