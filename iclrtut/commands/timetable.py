"""A course plan in Markdown; where the addresses of pages are known, with links."""

import math
import re
from collections.abc import Callable
from typing import Any

from iclrtut.commands.minutes import Exercise
from iclrtut.commands.plan import Plan, Session, Slot, Stretch, count, length

# A day of eight hours: minutes after midnight, and minutes of a pause.
MORNING, NOON = 9 * 60, 12 * 60
BREAK, LUNCH = 15, 60
STRETCH = 120  # minutes without a pause, at most

MENTION = re.compile(r"\((\d+[a-z]?)\)")
# The address of a page that is named as Sphinx does, such as `notebooks/<slug>`.
Address = Callable[[str], str]


def weekly(weeks: Plan, address: Address | None = None) -> str:
    """A term as a table, a row for what a week has of a session, and its sums."""
    rows = ["| Week | In class | Read before | At home after |", "|---|---|---|---|"]
    for number, stretches in enumerate(weeks, 1):
        for session, slots, start in stretches:
            first, end = start == 0, start + length(slots)
            last = end == length(session.slots)
            when = f"{end} min" if first and last else f"minutes {start} to {end}"
            what = f"{title(session, address)} ({unbroken(when)})"
            read = unbroken(f"{session.reading} min") if first and session.slug else ""
            after = homework(session, address) if last else ""
            rows.append(f"| {number} | {what} | {read or '–'} | {after or '–'} |")
    table = "\n".join(rows)
    return f"{table}\n\n{_sums(weeks, 'week')}"


def daily(days: Plan, address: Address | None = None) -> str:
    """A workshop as a table a day, hour by hour, and its sums."""
    made = [
        "\n".join(
            [
                f"## Day {number}\n\n| Time | What happens | Where |\n|---|---|---|",
                *(
                    f"| {clock(start)} | {what} |"
                    for start, what in hourly(day, address)
                ),
            ]
        )
        for number, day in enumerate(days, 1)
    ]
    return "\n\n".join([*made, _sums(days, "day")])


def hourly(day: list[Stretch], address: Address | None = None) -> list[tuple[int, str]]:
    """A day's rows, with lunch and breaks: minutes after midnight, what and where."""
    rows: list[tuple[int, str]] = []
    now, since, had_lunch = MORNING, 0, False
    for session, slots, _ in day:
        name = f"**{title(session, address)}.** "
        for slot in slots:
            lunch = not had_lunch and now >= NOON
            if lunch or (since and since + slot.minutes > STRETCH):
                had_lunch = had_lunch or lunch
                rows.append((now, f"{'Lunch' if lunch else 'Break'} | "))
                now, since = now + (LUNCH if lunch else BREAK), 0
            rows.append((now, name + row(slot, session, address)))
            now, since, name = now + slot.minutes, since + slot.minutes, ""
    return [*rows, (now, "End | ")]


def detailed(session: Session, address: Address | None = None) -> str:
    """A session as a section: what comes before, minute by minute, what comes after."""
    read = f"Everybody reads the chapter, about {unbroken(f'{session.reading} min')}. "
    opening = f"{read if session.reading else ''}{session.before}".strip()
    parts = [f"## {title(session, address)}"]
    parts += [f"Students know {session.know}."] if session.know else []
    parts += [f"**Before class.** {opening}"] if opening else []
    rows, now = ["| Minutes | What happens | Where |", "|---|---|---|"], 0
    for slot in session.slots:
        minutes = f"{now}–{now + slot.minutes}"
        rows.append(f"| {minutes} | {row(slot, session, address)} |")
        now += slot.minutes
    parts.append("\n".join(rows))
    home = homework(session, address)
    after = f"{home[:1].upper()}{home[1:]}. {session.after}".strip()
    return "\n\n".join([*parts, f"**After class.** {after}"])


def row(slot: Slot, session: Session, address: Address | None = None) -> str:
    """The last two cells of a slot: what happens, and where."""
    given = ", ".join(exercise(e, session.slug, address) for e in slot.exercises)
    what = mentions(slot.do, session.slug, address) + (f" {given}." if given else "")
    places = (place(name, session.slug, address) for name in slot.where)
    return f"{what} | {', '.join(places)}"


def title(chapter: Any, address: Address | None = None) -> str:
    """The title of a chapter, or of its session."""
    return link(chapter.title, chapter.slug, "", address)


def homework(session: Session, address: Address | None = None) -> str:
    """The exercises after class with their minutes, and what else there is to do."""
    if not session.homework:
        return session.home
    numbers = [
        link(str(e.number), session.slug, f"#exercise-{e.number}", address)
        for e in session.homework
    ]
    spent = unbroken(f"{sum(e.minutes for e in session.homework)} min")
    return f"exercise{'s' * (len(numbers) > 1)} {', '.join(numbers)} ({spent})"


def exercise(head: Exercise, slug: str, address: Address | None = None) -> str:
    """An exercise with its time and difficulty."""
    name = link(
        f"Exercise\u00a0{head.number}", slug, f"#exercise-{head.number}", address
    )
    return f"{name} ({unbroken(head.time)}, {head.difficulty})"


def mentions(text: str, slug: str, address: Address | None = None) -> str:
    """Text in which each `(3)` leads to that equation of a chapter."""
    return MENTION.sub(lambda m: link(m[0], slug, f"#eq-{m[1]}", address), text)


def place(name: str, slug: str, address: Address | None = None) -> str:
    """A heading of a chapter, its equations such as `(1) to (3)`, or the ledger."""
    if MENTION.search(name):
        return mentions(name, slug, address)
    if name == "The ledger":
        return f"[{name}]({address('book/ledger')})" if address else name
    anchor = re.sub(r"[^\w\- ]", "", name.lower()).replace(" ", "-")
    return link(name, slug, f"#{anchor}", address)


def link(text: str, slug: str, anchor: str, address: Address | None) -> str:
    """A link into a chapter, where there is one and its address is known."""
    return (
        f"[{text}]({address(f'notebooks/{slug}')}{anchor})"
        if slug and address
        else text
    )


def clock(minutes: int) -> str:
    """Minutes after midnight as a time of day."""
    return f"{minutes // 60}:{minutes % 60:02}"


def unbroken(time: str) -> str:
    """A time that no line breaks."""
    return time.replace(" ", "\u00a0")


def _sums(plan: Plan, unit: str) -> str:
    """How much a plan asks for, in a sentence."""
    sessions = {stretch.session for part in plan for stretch in part}
    taught = length(slot for part in plan for stretch in part for slot in stretch.slots)
    home = sum(s.reading + sum(e.minutes for e in s.homework) for s in sessions)
    chapters = sum(bool(session.slug) for session in sessions)
    return (
        f"{count(chapters, 'chapter')} in {count(len(plan), unit)}: "
        f"{_hours(taught)} of class"
        + (f", and {_hours(home)} of reading and exercises." if home else ".")
    )


def _hours(minutes: int) -> str:
    """Minutes in hours, rounded to half an hour."""
    return unbroken(f"{math.ceil(minutes / 30) / 2:g} h")
