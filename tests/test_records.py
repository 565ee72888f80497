"""Records: whole, valid, or refused with the file's name; and the ledger over them."""

import importlib
import json
import math
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import toy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iclrtut import claims, ledger, records
from iclrtut.errors import BadRequest, RunFailed

TREE = Path(__file__).resolve().parents[1]
NAME = Path("toy") / "quick-cpu-0.json"


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    toy.install(monkeypatch)


def keep(root, text, name=NAME):
    """Put a text where a record is expected."""
    (root / name).parent.mkdir(exist_ok=True, parents=True)
    (root / name).write_text(text, encoding="utf-8")
    return root / name


def test_a_record_comes_back_as_it_was_written(tmp_path):
    file = records.write(tmp_path, toy.record())
    assert file == tmp_path / NAME
    assert records.read(file) == toy.record()
    assert [f.name for f in file.parent.iterdir()] == [file.name]


def test_a_file_name_without_a_folder_is_refused_and_not_a_crash(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("quick-cpu-0.json").write_text(json.dumps(toy.record()))
    with pytest.raises(BadRequest, match=r"quick-cpu-0\.json"):
        records.read(Path("quick-cpu-0.json"))


CHANGES = {
    "schema": {"schema": records.SCHEMA + 1},
    "no schema": {"schema": None},
    "an added key": {"colour": "red"},
    "another chapter": {"chapter": "nothing"},
    "another profile": {"profile": "huge"},
    "another seed than the name": {"seed": 1},
    "a folder in the device": {"device": "../cpu"},
    "an unknown claim": {"claims": {"slower": {"value": 1.0}}},
    "a list of settings": {"settings": [1]},
    "a word for data": {"data": "digits"},
    "a claim without value": {"claims": {"faster": {"seconds": 1.0}}},
    "a share without trials": {"claims": {"often": {"value": 1.0, "successes": 1}}},
    "a share of nothing": {
        "claims": {"often": {"value": 0.0, "successes": 0, "trials": 0}}
    },
    "more successes than trials": {
        "claims": {"often": {"value": 2.0, "successes": 2, "trials": 1}}
    },
    "nan": {"claims": {"faster": {"value": math.nan}}},
    "infinity": {"claims": {"faster": {"value": 1.0, "more": math.inf}}},
    "a word for a number": {"claims": {"faster": {"value": "fast"}}},
    "nothing for a number": {"claims": {"faster": {"value": None}}},
    "a list for a claim": {"claims": {"faster": [1.0]}},
    "a list of claims": {"claims": [1.0]},
    "no seconds": {"seconds": math.nan},
    "a word for seconds": {"seconds": "long"},
    "a word for timings": {"timings": {"training": "long"}},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_record_that_does_not_fit_is_refused_with_its_file_name(tmp_path, change):
    file = keep(tmp_path, json.dumps(toy.record(**change)))
    with pytest.raises(BadRequest, match=r"quick-cpu-0\.json") as caught:
        records.read(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(set(CHANGES) - {"another seed than the name"}))
def test_and_it_is_not_written_either(tmp_path, name):
    with pytest.raises(BadRequest):
        records.write(tmp_path, toy.record(**CHANGES[name]))
    assert not [f for f in tmp_path.rglob("*") if f.is_file()]


@pytest.mark.parametrize("key", sorted(records.KEYS))
def test_a_record_that_lacks_a_key_is_refused(tmp_path, key):
    made = toy.record()
    del made[key]
    with pytest.raises(BadRequest, match=r"quick-cpu-0\.json"):
        records.read(keep(tmp_path, json.dumps(made)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "3",
        '"toy"',
        "\x00",
        "[" * 10**5,
        '{"schema": [' + "1," * 999,
    ],
    ids=lambda text: repr(text[:15]),
)
def test_what_is_no_record_is_refused(tmp_path, text):
    with pytest.raises(BadRequest, match=r"quick-cpu-0\.json") as caught:
        records.read(keep(tmp_path, text))
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("schema", [list(range(999)), {"a": [1] * 999}, "x" * 999])
def test_another_schema_is_named_in_short(tmp_path, schema):
    with pytest.raises(BadRequest, match="its schema is") as caught:
        records.read(keep(tmp_path, json.dumps({"schema": schema})))
    assert len(str(caught.value)) < 300


def test_a_number_beyond_those_of_a_machine_is_refused(tmp_path):
    made = toy.record(seconds=10**400)
    with pytest.raises(BadRequest, match="no number"):
        records.read(keep(tmp_path, json.dumps(made)))


def test_a_file_that_is_not_text_is_refused(tmp_path):
    file = keep(tmp_path, "")
    file.write_bytes(b"\x80\x04\x95pickle")
    with pytest.raises(BadRequest, match="not JSON"):
        records.read(file)


def test_a_file_that_cannot_be_read_is_told_in_a_sentence(tmp_path):
    with pytest.raises(RunFailed, match=r"quick-cpu-0\.json cannot be read"):
        records.read(tmp_path / NAME)


JUNK = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(records.KEYS)), JUNK)
def test_whatever_stands_under_a_key_is_read_or_refused(tmp_path, key, junk):
    file = keep(tmp_path, json.dumps(toy.record(**{key: junk})))
    try:
        records.read(file)
    except BadRequest as error:
        assert "quick-cpu-0.json" in str(error)


def old(**changes):
    """A record as schema 1 had it."""
    made = toy.record(schema=1, **changes)
    del made["settings"], made["data"]
    return made


def test_a_record_of_schema_1_is_read_and_says_that_it_knows_less(tmp_path):
    found = records.read(keep(tmp_path, json.dumps(old())))
    assert found == toy.record(settings=None, data=None)
    records.write(tmp_path, found)
    assert records.read(tmp_path / NAME) == found


def test_what_was_the_end_of_an_interval_becomes_its_middle(tmp_path):
    """Schema 1 kept the lower end of an accuracy's interval as the value."""
    measured = {"value": 0.4, "low": 0.4, "accuracy": 0.6, "high": 0.7}
    made = old(claims={"better": dict(measured)})
    read = records.read(keep(tmp_path, json.dumps(made)))
    assert read["claims"]["better"] == measured | {"value": 0.6}
    now = toy.record(claims={"better": dict(measured)})
    assert records.read(keep(tmp_path, json.dumps(now))) == now


def test_every_record_of_the_book_is_read(monkeypatch):
    monkeypatch.undo()
    files = list(TREE.glob("records/*/quick-*.json"))
    read = records.read_all(TREE / "records")
    assert len(read) == len(files) > 0
    assert {r["chapter"] for r in read} <= {file.parent.name for file in files}


def test_settings_become_what_json_gives_back():
    class Part(NamedTuple):
        sizes: tuple[int, ...] = (1, 2)
        name: str = "a"

    class Whole(NamedTuple):
        part: Part = Part()
        rates: tuple[float, float] = (0.1, 1e-3)
        at: None = None

    plain = records.plain(Whole())
    part = {"sizes": [1, 2], "name": "a"}
    assert plain == {"part": part, "rates": [0.1, 0.001], "at": None}
    for slug in ("meta_transfer", "energy_based_classifier"):
        module = importlib.import_module(f"iclrtut.chapters.{slug}")
        settings = records.plain(module.CHAPTER.settings["quick"])
        assert json.loads(json.dumps(settings)) == settings


def test_a_failed_write_leaves_the_old_record(tmp_path):
    file = records.write(tmp_path, toy.record())
    before = file.read_bytes()
    with pytest.raises(BadRequest):
        records.write(tmp_path, toy.record(claims={"faster": {"value": math.nan}}))
    assert file.read_bytes() == before


WRITER = """
import sys
from pathlib import Path
import pytest, toy
from iclrtut import records
toy.install(pytest.MonkeyPatch())
mine = toy.record(commit=sys.argv[2] * 200_000)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(40):
    records.write(Path(sys.argv[1]), mine)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps a file that is being read")
def test_two_processes_writing_at_once_leave_one_whole_record(tmp_path):
    """Whoever reads meanwhile sees the record of one of them, never a mixture."""
    records.write(tmp_path, toy.record(commit="a" * 200_000))
    tests = Path(__file__).parent
    words = [sys.executable, "-c", WRITER, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([*words, name], cwd=tests, **pipes) for name in "ab"]
    for each in both:
        assert each.stdout.readline() == "ready\n"
    done = threading.Event()
    seen: set[str] = set()

    def watch() -> None:
        while not done.is_set():
            commit = records.read(tmp_path / NAME)["commit"]
            seen.add(commit[:1] if len(set(commit)) == 1 else "mixture")

    watcher = threading.Thread(target=watch)
    watcher.start()
    for each in both:
        each.communicate("go\n", timeout=900)
    done.set()
    watcher.join()
    assert [each.returncode for each in both] == [0, 0]
    assert seen and seen <= {"a", "b"}
    assert len(records.read(tmp_path / NAME)["commit"]) == 200_000
    assert [f.name for f in (tmp_path / "toy").iterdir()] == [NAME.name]


def test_read_all_leaves_other_counts_out_and_names_what_it_refuses(tmp_path):
    for seed in (1, 0):
        records.write(tmp_path, toy.record(seed=seed))
    for name in ("bench-cpu.json", "mutants.json"):
        keep(tmp_path, "[1, 2]", NAME.with_name(name))
    assert [r["seed"] for r in records.read_all(tmp_path)] == [0, 1]
    keep(tmp_path, "[1, 2]", NAME.with_name("quick-cpu-7.json"))
    with pytest.raises(BadRequest, match=r"quick-cpu-7\.json"):
        records.read_all(tmp_path)


def test_records_of_ones_own_join_the_books_and_replace_the_same_run(
    tmp_path, monkeypatch
):
    """Whoever names a folder for records still reads the verdicts of the book."""
    book, own = tmp_path / "book", tmp_path / "own"
    monkeypatch.setattr(records, "published", lambda: [book])
    monkeypatch.setenv("ICLRTUT_RECORDS", "")
    for seed in (0, 1):
        records.write(book, toy.record(seed=seed, commit="theirs"))
    for seed in (1, 2):
        records.write(own, toy.record(seed=seed, commit="mine"))
    assert records.folders() == [book]
    monkeypatch.setenv("ICLRTUT_RECORDS", str(own))
    assert records.folders() == [own, book]
    found = [(r["seed"], r["commit"]) for r in records.read_all(*records.folders())]
    assert found == [(0, "theirs"), (1, "mine"), (2, "mine")]
    rows = ledger.rows(*records.folders())
    assert [row["seeds"] for row in rows] == [3, 3, 3]
    few = records.read_all(own, book, names="toy/quick-*-2.json")
    assert [record["seed"] for record in few] == [2]


def test_a_readers_records_have_a_folder_in_the_home(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(records, "published", lambda: [tmp_path / "book"])
    monkeypatch.delenv("ICLRTUT_RECORDS", raising=False)
    own = records.kept()
    assert own.is_relative_to(tmp_path)
    assert records.folders() == [own, tmp_path / "book"]
    records.write(own, toy.record())
    assert len(records.read_all(*records.folders())) == 1
    monkeypatch.setenv("ICLRTUT_RECORDS", "")
    assert records.folders() == [tmp_path / "book"] and records.kept() == own


def test_an_installed_copy_comes_before_a_folder_that_may_be_anybodys(
    tmp_path, monkeypatch
):
    monkeypatch.undo()
    assert records.published() == [TREE / "records"]
    package = tmp_path / "iclrtut"
    monkeypatch.setattr(records, "__file__", str(package / "records.py"))
    (package / "recorded").mkdir(parents=True)
    assert records.published() == [package / "recorded"]
    monkeypatch.setattr(records, "TREE", tmp_path)
    (package / "recorded").rmdir()
    assert records.published() == []


# The ledger


def fill(root, seeds, profile="quick", device="cpu", shift=0.0, **changes):
    """Records of several seeds: `better` is seed + 1 + shift."""
    settings = {"steps": toy.CHAPTER.settings[profile].steps}
    for seed in seeds:
        measured = toy.record()["claims"]
        measured["better"]["value"] = seed + 1 + shift
        kind = {"profile": profile, "device": device, "seed": seed}
        made = toy.record(**kind, claims=measured, settings=settings)
        records.write(root, made | changes)


def judged(root):
    """(profile, device) -> the row of `better`."""
    rows = [row for row in ledger.rows(root) if row["claim"] == "better"]
    return {(row["profile"], row["device"]): row for row in rows}


def test_the_ledger_judges_each_profile_and_device_apart(tmp_path):
    fill(tmp_path, range(8))
    fill(tmp_path, range(7), device="cuda", shift=-20)
    fill(tmp_path, range(1), profile="full")
    fill(tmp_path, range(4), profile="smoke")
    rows = ledger.rows(tmp_path)
    kinds = [("full", "cpu"), ("quick", "cpu"), ("quick", "cuda")]
    ids = [claim.id for claim in toy.CHAPTER.claims]
    found = [((r["profile"], r["device"]), r["claim"]) for r in rows]
    assert found == [(kind, id) for kind in kinds for id in ids]
    better = judged(tmp_path)
    row, values = better["quick", "cpu"], list(range(1, 9))
    expected = toy.CHAPTER.claim("better").judge([{"value": v} for v in values])
    assert (row["mean"], row["low"], row["high"]) == expected.interval
    assert row["values"] == values and row["sign_flip"] == expected.sign_flip
    assert (row["seeds"], row["apart"], row["verdict"]) == (8, 0, claims.HOLDS)
    assert better["quick", "cuda"]["verdict"] == claims.FAILS
    assert better["full", "cpu"]["verdict"] == claims.UNDECIDED


OTHER = {"data": {"digits": "1" * 64}}
TUNED = {"settings": {"steps": 11}}
UNKNOWN = {"settings": None, "data": None}


@pytest.mark.parametrize(
    ("groups", "seeds"),
    [
        ([({}, 3), (OTHER, 2)], [0, 1, 2]),
        ([({}, 2), (OTHER, 3)], [2, 3, 4]),
        ([({}, 2), (TUNED, 5)], [0, 1]),
        ([({}, 2), (UNKNOWN, 3)], [2, 3, 4]),
        ([({}, 3), (UNKNOWN, 3)], [0, 1, 2]),
        ([(UNKNOWN, 1), (TUNED, 4)], [0]),
        ([(UNKNOWN, 2), (TUNED, 2), (OTHER, 2), ({"data": {}}, 3)], [6, 7, 8]),
    ],
)
def test_records_of_other_data_or_settings_are_never_pooled(tmp_path, groups, seeds):
    """The larger pool counts, that of the declared settings first."""
    start = 0
    for changes, many in groups:
        fill(tmp_path, range(start, start + many), **changes)
        start += many
    (row,) = judged(tmp_path).values()
    assert row["values"] == [seed + 1 for seed in seeds]
    assert row["apart"] == start - len(seeds)


def test_a_strangers_records_change_no_verdict(tmp_path):
    """Seven runs of the book hold; five of other data, far off, stand apart."""
    fill(tmp_path / "book", range(7))
    before = judged(tmp_path / "book")["quick", "cpu"]
    fill(tmp_path / "own", range(20, 25), shift=-500, **OTHER)
    roots = tmp_path / "own", tmp_path / "book"
    (after,) = (row for row in ledger.rows(*roots) if row["claim"] == "better")
    assert after == before | {"apart": 5} and after["verdict"] == claims.HOLDS


def test_seeds_that_overlap_are_corrected_and_said_to_be(monkeypatch, tmp_path):
    fill(tmp_path, range(8))
    plain = judged(tmp_path)["quick", "cpu"]
    overlapping = replace(toy.CHAPTER, overlap={"quick": 0.5})
    monkeypatch.setattr(claims, "chapter", lambda slug: overlapping)
    wide = judged(tmp_path)["quick", "cpu"]
    factor = (wide["high"] - wide["low"]) / (plain["high"] - plain["low"])
    assert factor == pytest.approx(math.sqrt((1 / 8 + 0.5) / (1 / 8)))
    assert ledger.corrected(wide) and not ledger.corrected(plain)


def rows_of(*pairs):
    """Rows of a ledger, from one-sided p and verdict."""
    return [{"p": p, "verdict": verdict} for p, verdict in pairs]


def test_what_holds_by_luck_is_counted_over_all_claims_with_an_interval():
    hold, fails, none = claims.HOLDS, claims.FAILS, math.nan
    rows = rows_of((0.001, hold), (0.02, hold), (0.999, fails), (none, hold), (1, "?"))
    found = ledger.luck(rows)
    assert found == (4, pytest.approx(0.1), 2, 1)
    assert ledger.luck([]) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1.0, -2.0, 0.5], ["sign-flip p", "10 seeds would see a distance of"]),
        ([1.0, 1.0], ["all seeds read the same"]),
        ([1.0, 1.4, 0.7, 2.0, 0.9, 1.1, 1.6], ["sign-flip p"]),
        ([1.0], []),
    ],
)
def test_beside_an_interval_stands_what_the_seeds_could_tell(values, said):
    measured = [{"value": v} for v in values]
    row = ledger.row(toy.CHAPTER, toy.CHAPTER.claim("better"), "quick", measured)
    notes = [note for note in ledger.beside(row).split(", ") if note]
    assert len(notes) == len(said)
    assert all(note.startswith(word) for note, word in zip(notes, said, strict=True))


def test_the_ledger_leaves_out_what_nobody_measured(tmp_path):
    records.write(tmp_path, toy.record(claims={"faster": {"value": 1.0}}))
    assert [row["claim"] for row in ledger.rows(tmp_path)] == ["faster"]
    assert ledger.rows(tmp_path / "nothing") == []


def test_a_row_says_everything_that_its_claim_says():
    claim = toy.CHAPTER.claim("often")
    row = ledger.row(toy.CHAPTER, claim, "quick", [toy.MEASURED["often"]])
    said = {k: row[k] for k in ("sentence", "source", "paper", "statistic", "rule")}
    assert said == {
        "sentence": claim.sentence,
        "source": claim.source,
        "paper": claim.paper,
        "statistic": claim.statistic,
        "rule": claim.holds_when,
    }


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.12345, "0.123"),
        (-1.0, "−1"),
        (0.0, "0"),
        (12345.6, "12,346"),
    ],
)
def test_a_number_is_printed_with_three_digits(value, shown):
    assert ledger.number(value) == shown


@pytest.mark.parametrize(
    ("mean", "low", "high", "shown"),
    [
        (4.378, 3.998, 4.758, "4.38 [4.00, 4.76]"),
        (-0.0194, -0.0303, -0.00855, "−0.019 [−0.030, −0.009]"),
        (0.9712, 0.951, 0.982, "0.971 [0.951, 0.982]"),
        (1234.0, 1034.0, 1434.0, "1,234 [1,034, 1,434]"),
        (0.5, float("nan"), float("nan"), "0.5"),
        (1.0, 1.0, 1.0, "1.000 [1.000, 1.000]"),
    ],
)
def test_numbers_have_the_digits_that_their_interval_bears_out(mean, low, high, shown):
    assert ledger.measured({"mean": mean, "low": low, "high": high}) == shown
