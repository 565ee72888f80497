"""A course plan: any number of chapters, weeks and hours makes one, or a sentence."""

from itertools import groupby

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from iclrtut.commands import cli, minutes, plan, timetable
from iclrtut.errors import BadRequest

CLOSING = (
    plan.Session("The project", (plan.Slot(15, "a"), plan.Slot(45, "b")), home="Run"),
    plan.Session("The ledger", (plan.Slot(45, "c"), plan.Slot(45, "d"))),
)
SLOTS = (10, 15, 15, 10, 20, 5, 15)  # ninety minutes
every_size = pytest.mark.parametrize("size", [1, 4, 5, 8, 14])


def made_up(size, needs=None):
    """A book of so many chapters, two to a part; `needs` by number."""
    homework = (minutes.Exercise(2, "20 min", "medium"),)
    return {
        f"c{k}": plan.Session(
            f"Chapter {k}",
            tuple(plan.Slot(m, f"{k}.{at}") for at, m in enumerate(SLOTS)),
            slug=f"c{k}",
            part=f"part {k // 2}",
            needs=tuple(f"c{n}" for n in (needs or {}).get(k, ())),
            reading=100,
            homework=homework,
        )
        for k in range(size)
    }


def taught(course):
    """Each session of a plan with its slots from all weeks, in their order."""
    stretches = [stretch for week in course for stretch in week]
    return [
        (session, [slot for stretch in group for slot in stretch.slots])
        for session, group in groupby(stretches, key=lambda stretch: stretch.session)
    ]


@every_size
@pytest.mark.parametrize("hours", [0.75, 1.5, 3, 5])
def test_a_term_teaches_every_minute_of_its_chapters_once(size, hours):
    book = made_up(size)
    course = plan.term(book, CLOSING, hours=hours)
    chosen = [session for session, _ in taught(course)]
    assert len(chosen) == min(size, 8) + 2 and chosen[-2:] == list(CLOSING)
    assert all(slots == list(session.slots) for session, slots in taught(course))
    spent = [plan.length(s for each in week for s in each.slots) for week in course]
    assert sum(spent) == 90 * min(size, 8) + 150
    assert max(spent) <= 1.1 * 60 * hours


@every_size
def test_a_plan_as_a_table_says_what_is_read_taught_and_done_at_home(size):
    weeks = timetable.weekly(plan.term(made_up(size), CLOSING, hours=0.75))
    rows = [row.split(" | ") for row in weeks.split("\n") if row.startswith("| ")][1:]
    assert sum("100\u00a0min" in row[2] for row in rows) == min(size, 8)
    assert sum("exercise 2 (20\u00a0min)" in row[3] for row in rows) == min(size, 8)
    chapters = f"{size} chapter{'s' * (size > 1)}" if size < 8 else "8 chapters"
    assert f"\n\n{chapters} in {rows[-1][0][2:]} weeks: " in weeks


@every_size
def test_a_new_chapter_leaves_the_others_as_they_are(size):
    before, after = made_up(size), made_up(size + 1)
    names = list(before)
    assert plan.term(before, CLOSING, names) == plan.term(after, CLOSING, names)
    for hours in (0.75, 1.5):
        old, new = (
            [stretch for week in plan.term(book, (), hours=hours) for stretch in week]
            for book in (before, after)
        )
        both = {s.session for s in old} & {s.session for s in new}
        assert len(both) >= min(size, 7)
        assert [s for s in old if s.session in both] == [
            s for s in new if s.session in both
        ]


def test_a_default_course_takes_one_chapter_of_each_part_first():
    book = made_up(14)
    assert plan.default(book, 7) == [f"c{k}" for k in range(0, 14, 2)]
    assert plan.default(book, 8) == ["c0", "c1", *(f"c{k}" for k in range(2, 14, 2))]


def test_a_default_course_leaves_out_what_builds_on_too_much():
    book = made_up(14, {12: range(10), 4: [3]})
    chosen = plan.default(book, 8)
    assert "c12" not in chosen and len(chosen) == 8
    assert chosen.index("c3") < chosen.index("c4")


@given(st.data())
def test_a_chapter_comes_after_all_that_it_builds_on(data):
    numbers = st.lists(st.integers(0, 13), unique=True)
    order = data.draw(st.permutations(range(14)))
    needs = {
        k: [n for n in data.draw(numbers) if order.index(n) < order.index(k)]
        for k in range(14)
    }
    book = made_up(14, needs)
    slugs = [f"c{k}" for k in data.draw(numbers)]
    found = plan.ordered(book, slugs)
    assert len(found) == len(set(found)) and set(slugs) <= set(found)
    for slug in found:
        assert all(found.index(n) < found.index(slug) for n in book[slug].needs)
    wanted, more = set(slugs), set()
    while wanted != more:
        wanted, more = wanted | {n for s in wanted for n in book[s].needs}, wanted
    assert set(found) == wanted


@given(
    st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=9), max_size=6),
    st.floats(0.05, 9),
)
def test_sessions_of_any_length_are_divided_or_refused(lengths, hours):
    sessions = [
        plan.Session(f"{k}", tuple(plan.Slot(m, "") for m in each))
        for k, each in enumerate(lengths)
    ]
    most = round(60 * hours)
    too_long = [s for s in sessions if sum(slot.minutes for slot in s.slots) > most]
    if any(slot.minutes > 1.1 * most for s in too_long for slot in s.slots):
        with pytest.raises(BadRequest, match="give more hours"):
            plan.divide(sessions, hours)
        return
    weeks = plan.divide(sessions, hours)
    assert [(s, tuple(slots)) for s, slots in taught(weeks)] == [
        (s, s.slots) for s in sessions
    ]
    cut = {
        each.session for w in weeks for each in w if each.slots != each.session.slots
    }
    assert cut <= set(too_long)
    assert all(each.start == 0 or each.session in cut for w in weeks for each in w)
    for week in weeks:
        spent = plan.length(slot for each in week for slot in each.slots)
        assert spent <= (1.1 * most if len(week) == 1 else most)


@every_size
@pytest.mark.parametrize("days", [1, 2, 5, None])
def test_a_workshop_has_lunch_and_breaks_and_ends_by_five(size, days):
    book = made_up(size)
    course = plan.workshop(book, CLOSING, days=days)
    assert days is None or len(course) <= days
    chapters = len(taught(course)) - 1
    # Three chapters fill a day; the last one has the project, too.
    assert chapters == min(size, 8, 3 * days - 1 if days else 8)
    for day in course:
        rows = timetable.hourly(day)
        times = [start for start, _ in rows]
        assert times[0] == 9 * 60 and times[-1] <= 17 * 60 and times == sorted(times)
        what = [said.split(" | ")[0] for _, said in rows]
        lasts = {"Lunch": 60, "Break": 15}
        pauses = [at for at, said in enumerate(what) if said in lasts]
        assert what.count("Lunch") == (times[-2] >= 12 * 60)
        for at in pauses:
            assert times[at + 1] - times[at] == lasts[what[at]]
            assert what[at] == "Break" or 12 * 60 <= times[at] <= 12 * 60 + 20
        for start, end in zip([-1, *pauses], [*pauses, len(rows) - 1], strict=True):
            assert times[end] - times[start + 1] <= 120
        class_ = times[-1] - times[0] - sum(lasts[what[at]] for at in pauses)
        assert class_ == plan.length(slot for each in day for slot in each.slots)


@given(st.integers(1, 14), st.sampled_from([0.75, 1.5, 2.5, 4]), st.integers(1, 20))
def test_a_course_without_names_fits_the_weeks_that_there_are(size, hours, weeks):
    book = made_up(size)
    try:
        course = plan.term(book, CLOSING, hours=hours, weeks=weeks)
    except BadRequest:
        least = plan.term(book, CLOSING, ["c0"], hours)
        assert len(least) > weeks
        return
    assert len(course) <= weeks
    chapters = len(taught(course)) - 2
    assume(chapters < min(size, 8))
    more = plan.default(book, chapters + 1)
    assert len(plan.term(book, CLOSING, more, hours)) > weeks


# The command


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nope"], "there is no chapter 'nope': use one of "),
        (["--weeks", "2"], "take 3 weeks, not 2: give more weeks"),
        (["--weeks", "0"], "not 0: give more weeks"),
        (
            ["meta_transfer", "differentiable_dsp", "--weeks", "3"],
            "take 4 weeks, not 3",
        ),
        (["--days", "0"], "take 1 day, not 0: give more days"),
        (["--hours", "0.1"], "give more hours"),
        (["--hours", "0"], "0 hours of class make no plan"),
        (["--hours", "nan"], "nan hours of class make no plan"),
        (["--hours", "1000"], "1000 hours of class make no plan"),
    ],
)
def test_an_impossible_plan_is_refused_in_one_sentence(words, sentence, capsys):
    assert cli.main(["plan", *words]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and sentence in said.err


def test_the_command_plans_the_chapters_that_it_is_given(capsys):
    named = ["differentiable_dsp", "meta_transfer"]
    assert cli.main(["plan", *named, "--hours", "3"]) == 0
    rows = capsys.readouterr().out.split("\n")
    titles = [plan.book()[slug].title for slug in named]
    assert [row.split(" (90")[0] for row in rows[2:4]] == [
        f"| 1 | {title}" for title in titles
    ]
    assert "](" not in "".join(rows)
    assert cli.main(["plan", *named, "--days", "3"]) == 0
    days = capsys.readouterr().out
    assert days.count("| 9:00 | ") == days.count("## Day ") <= 3


def test_a_package_without_the_book_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(plan, "TREE", tmp_path)
    assert cli.main(["plan"]) == 2
    assert "plan.yml is missing: run this in a clone" in capsys.readouterr().err
