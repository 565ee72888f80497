"""A run: what it seeds, what it refuses, what it keeps."""

import math
import subprocess
import sys
import types

import IPython
import numpy as np
import pytest
import torch
import toy

import iclrtut
from iclrtut import checks, data, records, run
from iclrtut.errors import BadRequest, RunFailed


@pytest.fixture(autouse=True)
def _toy(monkeypatch, tmp_path):
    toy.install(monkeypatch)
    monkeypatch.delenv("ICLRTUT_PROFILE", raising=False)
    monkeypatch.setenv("ICLRTUT_RECORDS", "")
    monkeypatch.setenv("ICLRTUT_CHECKPOINTS", str(tmp_path / "checkpoints"))
    checks.passed.clear()
    yield
    checks.passed.clear()


def measure(run, but=()):
    """Measure every claim of the toy."""
    for id, numbers in toy.MEASURED.items():
        if id not in but:
            run.claim(id, **numbers)


def sentence(error):
    """Whether an error's message is one sentence."""
    text = str(error.value)
    return "\n" not in text and text.endswith(".") and len(text) < 300


# Start


def test_start_is_exported_and_says_what_it_opened(capsys):
    opened = iclrtut.start("toy", "smoke", 3)
    said = capsys.readouterr().out
    assert said == f"toy: profile smoke, seed 3, on {opened.device.type}.\n"
    assert (opened.slug, opened.profile, opened.seed) == ("toy", "smoke", 3)
    assert opened.settings == toy.Settings(1)


def test_a_name_that_the_package_lacks_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'begin'"):
        _ = iclrtut.begin


@pytest.mark.parametrize("slug", ["to", "", None, 7])
def test_an_unknown_chapter_is_refused(slug):
    with pytest.raises(BadRequest, match="there is no chapter") as error:
        run.start(slug, "smoke")
    assert sentence(error)


@pytest.mark.parametrize("profile", ["Quick", "fast", 3, None, [], ["smoke"], "smoke "])
def test_an_unknown_profile_is_refused(profile):
    with pytest.raises(BadRequest, match="use smoke, quick, full") as error:
        run.start("toy", profile)
    assert sentence(error)


@pytest.mark.parametrize(
    "seed", ["0", 0.0, 1.5, True, None, -1, 2**31, math.nan, (0,), "zero"]
)
def test_a_seed_that_is_no_whole_number_is_refused(seed):
    with pytest.raises(BadRequest, match="is no whole number") as error:
        run.start("toy", "smoke", seed)
    assert sentence(error)


def test_the_environment_overrides_the_profile(monkeypatch):
    monkeypatch.setenv("ICLRTUT_PROFILE", "full")
    assert run.start("toy", "smoke").settings == toy.Settings(100)
    monkeypatch.setenv("ICLRTUT_PROFILE", "fastest")
    with pytest.raises(BadRequest, match="'fastest' is unknown"):
        run.start("toy", "smoke")
    monkeypatch.setenv("ICLRTUT_PROFILE", "")
    assert run.start("toy", "smoke").profile == "smoke"


CELL = "# Parameters\nprofile = 'smoke'\n{}"


@pytest.mark.parametrize("line", ["sed = 3", "profil = 'quick'", "Seed = 1"])
def test_a_misspelt_papermill_parameter_is_refused(monkeypatch, line):
    shell = types.SimpleNamespace(user_ns={"In": ["", "import x", CELL.format(line)]})
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    with pytest.raises(BadRequest, match="use profile or seed") as error:
        run.start("toy", "smoke")
    assert line.split()[0] in str(error.value)
    shell.user_ns["In"][2] = CELL.format("seed = 3")
    run.start("toy", "smoke")


# Random numbers


def draw(opened, name):
    """A few numbers of a generator of that name, by both libraries."""
    made = opened.generator(name)
    return torch.rand(3, generator=made).tolist() + list(opened.rng(name).random(3))


def test_generators_do_not_depend_on_the_order_of_calls():
    one, other = run.start("toy", "smoke", 5), run.start("toy", "smoke", 5)
    first = {name: draw(one, name) for name in ("a", "b", "c")}
    assert first == {name: draw(other, name) for name in ("c", "a", "b")} and first


def test_generators_of_other_names_seeds_and_chapters_differ():
    opened = run.start("toy", "smoke", 5)
    numbers = [draw(opened, "a"), draw(opened, "b"), draw(run.start("toy"), "a")]
    other = run.Run(toy.CHAPTER, "smoke", 5)
    other.slug = "another"
    numbers.append(draw(other, "a"))
    flat = [number for each in numbers for number in each]
    assert len(set(flat)) == len(flat)


def test_profiles_share_their_random_numbers():
    quick, smoke = run.start("toy", "quick", 5), run.start("toy", "smoke", 5)
    assert draw(quick, "a") == draw(smoke, "a")


def test_start_seeds_the_global_generators_too():
    def globally(seed):
        run.start("toy", "smoke", seed)
        return torch.rand(2).tolist() + list(np.random.rand(2))

    assert globally(1) == globally(1) != globally(2)


def test_a_generator_lives_where_it_is_asked_for():
    opened = run.start("toy", "smoke")
    assert opened.generator("a", "cpu").device.type == "cpu"
    assert opened.generator("a").device.type == opened.device.type


# Claims


def test_a_claim_that_is_not_declared_is_refused():
    opened = run.start("toy", "smoke")
    with pytest.raises(BadRequest, match="declares no claim 'fast'") as error:
        opened.claim("fast", 1.0)
    assert sentence(error)
    assert opened.measured == {}


@pytest.mark.parametrize("numbers", [{"value": math.nan}, {"value": 1, "more": -1e999}])
def test_a_claim_that_is_not_finite_is_refused(numbers):
    opened = run.start("toy", "smoke")
    with pytest.raises(BadRequest, match="not finite") as error:
        opened.claim("faster", **numbers)
    assert sentence(error) and opened.measured == {}


def test_a_share_needs_its_trials():
    opened = run.start("toy", "smoke")
    with pytest.raises(BadRequest, match="lacks successes, trials") as error:
        opened.claim("often", 0.5)
    assert sentence(error) and opened.measured == {}


def test_a_measurement_of_several_claims_is_recorded_whole_or_not_at_all():
    opened, other = run.start("toy", "smoke"), run.start("toy", "smoke")
    table = opened.claim_all(toy.MEASURED)
    for id, numbers in toy.MEASURED.items():
        other.claim(id, **numbers)
    assert opened.measured == other.measured == toy.MEASURED
    assert table.rows == other.claims().rows and len(table.rows) == 3
    empty = run.start("toy", "smoke")
    for wrong, why in (
        ({"faster": {"value": 1}, "fast": {"value": 2}}, "declares no claim 'fast'"),
        ({"faster": {"value": 1}, "better": {"before": 2}}, "lacks value"),
        ({"faster": {"value": 1}, "better": {"value": math.inf}}, "not finite"),
        ({}, "measures no claim"),
    ):
        with pytest.raises(BadRequest, match=why) as error:
            empty.claim_all(wrong)
        assert sentence(error) and empty.measured == {}


def test_a_claim_takes_tensors_and_shows_its_row():
    opened = run.start("toy", "smoke")
    table = opened.claim("better", torch.tensor(2.0), before=np.float32(1.0))
    assert opened.measured["better"] == {"value": 2.0, "before": 1.0}
    text, markdown = repr(table), table._repr_markdown_()
    for part in ("Is better", "3 (table 1)", "mean is above 0", "not judged (smoke)"):
        assert part in text and part in markdown
    assert "points" in markdown
    assert "\n| --- | --- | --- | --- | --- |\n" in markdown


def test_a_bar_in_a_cell_makes_no_new_column():
    shown = run.Table(["claim"], [["by p(y|x)"]])._repr_markdown_()
    assert shown.endswith(r"| by p(y\|x) |")


def test_the_table_shows_interval_and_verdict_once_there_are_records(
    monkeypatch, tmp_path
):
    opened = run.start("toy", "quick")
    monkeypatch.setenv("ICLRTUT_RECORDS", str(tmp_path))
    assert "no records yet" in repr(opened.claim("better", 9.0))
    kind = opened.device.type
    for seed in (1, 2, 3):
        measured = {"better": {"value": float(seed)}}
        made = toy.record(seed=seed, device=kind, claims=measured)
        records.write(tmp_path, made)
        records.write(tmp_path, made | {"profile": "full"})
    row = repr(opened.claim("better", 9.0))
    told = "2.0 [−0.5, 4.5], n = 3 (sign-flip p = 0.25, 10 seeds would see"
    assert told in row.replace("\u00a0", " ")
    assert "undecided" in row
    assert "9" in row.split(" · ")
    assert "0.9 (table 2)" in repr(opened.claim("often", **toy.MEASURED["often"]))
    assert "The paper" not in repr(opened.claims("faster"))
    assert len(opened.claims().rows) == 2 and len(opened.claims("better").rows) == 1
    assert opened.claims("faster").rows[0][-1] == "–", "not measured in this run"


# The card


def test_the_card_keeps_a_valid_record_only_when_asked(monkeypatch, tmp_path):
    opened = run.start("toy", "smoke", 4)
    measure(opened)
    with opened.timer("training"):
        pass
    assert "set ICLRTUT_RECORDS" in repr(opened.card())
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("ICLRTUT_RECORDS", str(tmp_path))
    name = f"smoke-{opened.device.type}-4.json"
    assert name in repr(opened.card())
    kept = records.read(tmp_path / "toy" / name)
    assert kept["claims"] == toy.MEASURED
    assert kept["settings"] == {"steps": 1}
    assert kept["seconds"] > kept["timings"]["training"] >= 0
    # Torch adds its build, such as "+cu132".
    assert kept["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert kept["peak_memory_bytes"] is None or kept["peak_memory_bytes"] > 2**20
    assert len(kept["commit"]) >= 7


def test_a_record_has_the_fingerprints_of_the_data_that_its_run_loaded():
    """Of this run alone, and of the settings that it ran with."""
    opened = run.start("toy", "smoke")
    assert opened.record()["data"] == {}
    opened.settings = toy.Settings(3)
    digits = data.load("digits")
    record = opened.record()
    assert record["data"] == {"digits": data.fingerprint(digits)}
    assert record["settings"] == {"steps": 3}
    assert run.start("toy", "smoke").record()["data"] == {}


def test_the_table_leaves_out_runs_of_other_settings(monkeypatch, tmp_path):
    opened = run.start("toy", "quick")
    monkeypatch.setenv("ICLRTUT_RECORDS", str(tmp_path))
    kind = opened.device.type
    for seed, steps in enumerate((10, 11, 11)):
        made = toy.record(seed=seed, device=kind, settings={"steps": steps})
        records.write(tmp_path, made)
    assert "n = 1" in repr(opened.claim("better", 9.0))
    opened.settings = toy.Settings(11)
    assert "n = 2" in repr(opened.claims("better"))


def test_a_run_out_of_order_is_named_on_the_card_and_never_recorded(
    monkeypatch, tmp_path
):
    """A reader may play; where a record is wanted, the card refuses."""
    orders = {
        "claims better are missing": (("better",), "1 2"),
        "checks ran twice, or out of order": ((), "1 2 9a 9b 10 2"),
    }
    for disorder, (left_out, numbers) in orders.items():
        opened = run.start("toy", "smoke")
        measure(opened, but=left_out)
        for number in numbers.split():
            checks.close(number, "one", 1, 1, tol=0)
        assert opened.card().rows[-1] == ["run from top to bottom", f"no: {disorder}"]
        monkeypatch.setenv("ICLRTUT_RECORDS", str(tmp_path))
        with pytest.raises(BadRequest, match="top to bottom") as error:
            opened.card()
        monkeypatch.setenv("ICLRTUT_RECORDS", "")
        assert sentence(error) and disorder in str(error.value)
    assert not list(tmp_path.iterdir())
    again = run.start("toy", "smoke")
    measure(again)
    for number in ("1", "2", "9a", "9b", "10", "10"):
        checks.close(number, "one", 1, 1, tol=0)
    assert "top to bottom" not in repr(again.card())


def test_the_card_tells_where_it_cannot_write(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ICLRTUT_RECORDS", str(tmp_path / "file"))
    opened = run.start("toy", "smoke")
    measure(opened)
    with pytest.raises(RunFailed) as error:
        opened.card()
    assert sentence(error)


# Exercises


def test_an_exercise_says_right_or_not_yet_and_stops_nothing(capsys):
    opened = run.start("toy", "smoke")
    capsys.readouterr()
    checks.close("3", "one", 1, 1, tol=0)
    with opened.exercise(2):
        checks.close("1", "one", 1, 1, tol=0)
    with opened.exercise(2):
        checks.close("1", "one", 1, 2, tol=0)
    with opened.exercise(2):
        raise NotImplementedError("your code")
    lines = capsys.readouterr().out.splitlines()[1:]
    assert lines[1] == "✓ exercise 2: right."
    assert lines[2].startswith("○ exercise 2: not yet. CheckFailed: ✗ (1) one: 1.0 and")
    assert lines[3] == "○ exercise 2: not yet. NotImplementedError: your code"
    assert checks.passed == [(3, "3")]


def test_nbgrader_hears_of_a_wrong_answer(monkeypatch):
    opened = run.start("toy", "smoke")
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    with pytest.raises(checks.CheckFailed), opened.exercise(2):
        checks.close("1", "one", 1, 2, tol=0)
    assert checks.passed == []


# Import


@pytest.mark.parametrize(
    "module",
    ["records", "ledger", "claims", "checks", "commands.cli", "commands.student"],
)
def test_what_the_command_line_needs_loads_no_large_library(module):
    large = {"torch", "scipy", "sklearn", "matplotlib", "sympy", "pandas", "dask"}
    code = f"import sys, iclrtut.{module}; print({large} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done
