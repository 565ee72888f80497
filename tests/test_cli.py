"""The command line: every verb, for people and for machines, and its exit codes."""

import contextlib
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import toy

from iclrtut import data, records
from iclrtut.commands import cli, execute, sweep

TREE = Path(__file__).resolve().parents[1]
VERBS = ("list", "run", "ledger", "data")


@pytest.fixture(autouse=True)
def _toy(monkeypatch, tmp_path):
    toy.install(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ICLRTUT_RECORDS", str(tmp_path / "records"))
    (tmp_path / "records").mkdir()


def say(capsys, *words):
    """Run a command in this process: exit code, stdout, stderr."""
    try:
        code = cli.main(words)
    except SystemExit as end:
        code = end.code
    return code, *capsys.readouterr()


def refused(capsys, *words):
    """A bad request: 2, nothing on stdout, one sentence on stderr, which it returns."""
    code, out, err = say(capsys, *words)
    assert (code, out) == (2, "")
    assert err.startswith("iclrtut: ") and err.count("\n") == 1 and err.endswith(".\n")
    return err


def test_as_a_module_it_lists_the_chapters_of_the_book(tmp_path):
    words = [sys.executable, "-m", "iclrtut", "list", "--json"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    (chapter,) = (
        c for c in json.loads(done.stdout) if c["slug"] == "energy_based_classifier"
    )
    assert chapter["profiles"] == ["smoke", "quick", "full"]
    assert chapter["claims"] and chapter["title"] and chapter["paper"]


def test_as_a_module_it_passes_the_exit_code_on(tmp_path):
    words = [sys.executable, "-m", "iclrtut", "ledger", "--records", "nowhere"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", ["list", "run all", "ledger", "data list"])
def test_without_its_packages_a_command_works_or_says_what_is_missing(words):
    """Python with -S knows no package; only the list of chapters needs none."""
    command = [sys.executable, "-S", "-m", "iclrtut", *words.split()]
    done = subprocess.run(command, cwd=TREE, capture_output=True, text=True)
    if words == "list":
        assert (done.returncode, done.stderr) == (0, "") and done.stdout
        return
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(
        r"iclrtut: this Python \(.+\) has no module named '\w+': .+\.\n", done.stderr
    )


def test_a_missing_package_is_looked_for_in_the_books_environment(
    capsys, monkeypatch, tmp_path
):
    """The remedy depends on what there is: an environment, a clone, or neither."""

    def listing(arguments):
        raise ModuleNotFoundError("No module named 'torch'", name="torch.nn")

    monkeypatch.setattr(cli, "TREE", tmp_path)
    monkeypatch.setattr(cli, "list_chapters", listing)
    assert "in a clone" in refused(capsys, "list")
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "make.py").touch()
    remedy = refused(capsys, "list")
    assert "'torch'" in remedy and "make env" in remedy and "pip install ." in remedy
    (tmp_path / ".venv").mkdir()
    assert "activate" in refused(capsys, "list")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    assert "make env" in refused(capsys, "list")


def test_a_module_that_the_package_itself_lacks_is_no_bad_request(monkeypatch):
    def listing(arguments):
        import iclrtut.nothing  # noqa: F401

    monkeypatch.setattr(cli, "list_chapters", listing)
    with pytest.raises(ModuleNotFoundError, match="nothing"):
        cli.main(["list"])


def test_output_that_nobody_reads_to_its_end_is_no_error():
    """As in `python -m iclrtut list | head -1`."""
    command = [sys.executable, "-m", "iclrtut", "list"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=TREE, **pipes) as process:
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 0)


@pytest.mark.parametrize("words", [[], *([verb] for verb in VERBS)])
def test_help_is_given_for_everything(capsys, words):
    code, out, err = say(capsys, *words, "--help")
    assert (code, err) == (0, "")
    assert "usage: python -m iclrtut" in out
    if not words:
        assert all(verb in out for verb in VERBS)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["lst"],
        ["list", "--jsn"],
        ["run"],
        ["run", "toy", "--seeds", "x"],
        ["run", "toy", "--seeds", "3-1"],
        ["run", "toy", "--seeds", "5-2,7"],
        ["run", "toy", "--seeds", "0-99999999999"],
        ["run", "toy", "--seeds", "0-6000,7000-13000"],
        ["run", "toy", "--seeds", "-1"],
        ["run", "toy", "--seeds", ""],
        ["run", "toy", "--processes", "many"],
        ["run", "toy", "--processes", "0"],
        ["run", "toy", "--profile", "fast"],
        ["run", "toy", "--profile", "smoke,fast"],
        ["run", "toy", "--processes", "2", "--scheduler", "tcp://here:8786"],
        ["run", "another"],
        ["ledger", "--records", "nowhere"],
        ["data", "burn"],
        ["data", "fetch", "no_such_set"],
        ["data", "list", "no_such_set"],
    ],
    ids=" ".join,
)
def test_a_bad_request_is_refused_in_one_sentence_with_2(capsys, words):
    refused(capsys, *words)


def test_a_refusal_names_what_there_is(capsys):
    assert "use one of toy" in refused(capsys, "run", "another")
    assert "smoke, quick, full" in refused(capsys, "run", "toy", "--profile", "fast")
    assert "0-4" in refused(capsys, "run", "toy", "--seeds", "x")
    assert "'5-2' counts down" in refused(capsys, "run", "toy", "--seeds", "5-2,7")
    assert "over 10,000" in refused(capsys, "run", "toy", "--seeds", "0-10000")


@pytest.mark.parametrize("words", [[], ["--json"]], ids=["words", "json"])
def test_a_folder_without_a_record_is_refused(capsys, tmp_path, words):
    why = refused(capsys, "ledger", "--records", str(tmp_path), *words)
    assert f"{tmp_path} holds no record" in why


def test_a_list_of_ten_thousand_seeds_is_taken():
    assert len(cli.seeds("0-9999")) == 10_000


@pytest.mark.parametrize(
    ("text", "meant"),
    [("3", [3]), ("0-4", [0, 1, 2, 3, 4]), ("1,5,9", [1, 5, 9]), ("2,1-3", [2, 1, 3])],
)
def test_seeds(text, meant):
    assert cli.seeds(text) == meant


def test_list_shows_chapters_and_measured_times(capsys, tmp_path):
    code, out, _ = say(capsys, "list")
    assert (code, out) == (
        0,
        "toy: A toy\n  3 claims; profiles smoke, quick, full\n"
        "  median time: not yet measured\n",
    )
    for seed, seconds in enumerate((1.5, 90.0, 7.0)):
        made = toy.record(seed=seed, seconds=seconds)
        records.write(tmp_path / "records", made)
    records.write(tmp_path / "records", toy.record(device="cuda", seconds=2.0))
    words = "  median time: quick (CPU) 7 s, quick (CUDA) 2 s\n"
    assert say(capsys, "list")[1].endswith(words)
    (chapter,) = json.loads(say(capsys, "list", "--json")[1])
    assert chapter["seconds"] == [
        {"profile": "quick", "device": "cpu", "median": 7.0},
        {"profile": "quick", "device": "cuda", "median": 2.0},
    ]
    assert list(chapter["claims"]) == ["faster", "better", "often"]


def test_ledger_shows_every_verdict(capsys, tmp_path):
    for seed in range(3):
        records.write(tmp_path / "records", toy.record(seed=seed))
    code, out, _ = say(capsys, "ledger")
    lines = out.splitlines()
    assert code == 0 and len(lines) == 4
    assert lines[0] == (
        "toy quick-cpu faster: 1.5, 3 seeds (all seeds read the same); holds when the "
        "mean is below 2: undecided"
    )
    assert lines[2].startswith("toy quick-cpu often: 0.80 [0.")
    assert lines[2].endswith("3 seeds; holds when the share is above 0.5: holds")
    assert lines[3].startswith("3 claims are judged by an interval.")
    rows = json.loads(say(capsys, "ledger", "--json")[1])
    assert [row["verdict"] for row in rows] == ["undecided", "undecided", "holds"]
    assert (rows[0]["seeds"], rows[0]["values"]) == (3, [1.5] * 3)
    assert (rows[0]["kind"], rows[2]["kind"]) == ("mean", "share")
    other = toy.record(seed=3, data={"digits": "1" * 64})
    records.write(tmp_path / "records", other)
    said = "toy quick-cpu: 1 run with other data or settings left out."
    assert say(capsys, "ledger")[1].splitlines()[3] == said


def test_the_ledger_of_one_seed_is_json_without_nan(capsys, tmp_path):
    records.write(tmp_path / "other", toy.record())
    out = say(capsys, "ledger", "--records", "other", "--json")[1]

    def refuse(word):
        raise AssertionError(word)

    rows = json.loads(out, parse_constant=refuse)
    assert rows[0]["low"] is None and rows[0]["verdict"] == "undecided"


def test_a_record_that_does_not_fit_is_refused_by_name(capsys, tmp_path):
    file = tmp_path / "records" / "toy" / "quick-cpu-0.json"
    file.parent.mkdir()
    made = toy.record()
    made["claims"]["faster"]["value"] = math.inf
    file.write_text(json.dumps(made))
    for verb in ("list", "ledger"):
        assert "quick-cpu-0.json" in refused(capsys, verb)


def jobs_of(monkeypatch, failed=None):
    """Catch what `run` would hand out, and to whom."""
    seen = {}

    @contextlib.contextmanager
    def connect(scheduler, processes):
        yield (scheduler, processes)

    def record(client, jobs, root, again):
        seen.update(client=client, jobs=jobs, root=root, again=again)
        if failed:
            raise cli.RunFailed(failed)

    monkeypatch.setattr(sweep, "connect", connect)
    monkeypatch.setattr(sweep, "record", record)
    return seen


def test_run_hands_out_one_job_a_profile_and_seed(capsys, monkeypatch):
    seen = jobs_of(monkeypatch)
    words = ["toy", "--profile", "smoke,full", "--seeds", "1-3", "--processes", "2"]
    assert say(capsys, "run", *words, "--records", "kept", "--again")[0] == 0
    pairs = [(profile, seed) for profile in ("smoke", "full") for seed in (1, 2, 3)]
    assert seen["jobs"] == [("toy", *pair) for pair in pairs]
    assert len({job.notebook for job in seen["jobs"]}) == 6
    assert seen["client"] == (None, 2)
    assert (seen["root"], seen["again"]) == (Path("kept"), True)


def test_run_defaults_to_quick_seed_0_and_takes_all_chapters(capsys, monkeypatch):
    seen = jobs_of(monkeypatch)
    assert say(capsys, "run", "all", "--scheduler", "tcp://here:8786")[0] == 0
    assert seen["jobs"] == [("toy", "quick", 0)]
    assert seen["client"] == ("tcp://here:8786", 1)
    assert (seen["root"], seen["again"]) == (records.kept(), False)


def test_run_that_fails_ends_with_1_and_says_why(capsys, monkeypatch):
    jobs_of(monkeypatch, failed="1 of 2 runs failed.\ntoy, seed 1: cell 3 raised")
    code, out, err = say(capsys, "run", "toy", "--seeds", "0,1")
    assert (code, out) == (1, "")
    assert err == "iclrtut: 1 of 2 runs failed.\ntoy, seed 1: cell 3 raised\n"


def test_data_lists_with_licence_and_size(capsys):
    code, out, _ = say(capsys, "data", "list")
    assert code == 0
    assert len(out.splitlines()) == len(data.names()) and "digits" in out
    listed = json.loads(say(capsys, "data", "list", "--json")[1])
    assert [each["name"] for each in listed] == list(data.names())
    assert all(each["licence"] and each["bytes"] for each in listed)


def test_data_verifies_what_comes_with_the_libraries(capsys):
    code, out, _ = say(capsys, "data", "verify", "digits")
    assert code == 0 and out.startswith("verified: digits (")


def test_data_that_cannot_be_had_ends_with_1(capsys, monkeypatch):
    def fail(name):
        raise cli.RunFailed(f"{name} cannot be fetched: look at the network.")

    monkeypatch.setattr(data, "fetch", fail)
    code, out, err = say(capsys, "data", "fetch", "mnist")
    assert (code, out) == (1, "")
    assert err == "iclrtut: mnist cannot be fetched: look at the network.\n"


def test_the_package_alone_says_that_chapters_need_the_book(monkeypatch, tmp_path):
    """`run` needs the chapter's source, which an installation does not bring."""
    monkeypatch.setattr(execute, "TREE", tmp_path)
    with pytest.raises(cli.BadRequest, match="run this in a clone of the book"):
        execute.source("toy")
    assert not list(Path(tmp_path).glob("*.ipynb"))
