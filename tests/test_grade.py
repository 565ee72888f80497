"""Grading: whatever goes wrong costs that exercise its points, and nothing else."""

import json
import os
import re
import subprocess
import sys
import warnings

import classroom
import form
import psutil
import pytest
from test_form import CHAPTERS, wrong_answers

from iclrtut import claims
from iclrtut.commands import cli, execute, grade, progress, student, worker
from iclrtut.commands.exercises import POINTS, exercises, setup
from iclrtut.errors import RunFailed

KNOWN = exercises(classroom.book())
SETUP = setup(classroom.book())
RIGHT = classroom.RIGHT
WRONG = "def double(x):\n    return x"


def attempt(*cells, seconds=900, setup=SETUP):
    """Why an answer to exercise 1 of the toy is wrong."""
    answer = grade.Answer("ada", "toy", KNOWN[0], cells, "")
    return grade.attempt(answer, setup, seconds)


def left_running():
    """Processes of answers that are still alive a moment after the grader's kill."""
    processes = [
        process
        for process in psutil.process_iter(["cwd"])
        if grade.FOLDER in (process.info["cwd"] or "")
    ]
    return psutil.wait_procs(processes, timeout=900)[1]


# One answer


@pytest.mark.parametrize(
    "cells",
    [
        [RIGHT[1]],
        ["two = 2", "def double(x):\n    return two * x"],
        # As in a notebook, no exception stops the cells below.
        ["plot(history)", RIGHT[1]],
        [RIGHT[1], "raise KeyboardInterrupt"],
        ["import sys", RIGHT[1], "sys.exit()"],
        [RIGHT[1], "import sys\nsys.stdout.close()"],
        # The check has the set-up's variables.
        [RIGHT[1], "del run, close"],
        # What only IPython reads.
        ["%%time\n" + RIGHT[1]],
        ["!ls\n%matplotlib inline\n" + RIGHT[1] + "\ndouble?\ndisplay(3)"],
        ["def double(x):\n    return (x\n        % 7 * 2)"],
    ],
)
def test_a_right_answer_is_right(cells):
    assert attempt(*cells) == ""


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (WRONG, "AssertionError: 2"),
        ("def double(x:", "SyntaxError"),
        ("plot(history)", "NameError: name 'plot' is not defined"),
        ("x = input()", "EOFError"),
        ("import sys\nsys.exit()", "SystemExit"),
        ("import os\nos._exit(0)", "ended the process"),
        ("print('✓ exercise 1: right.')", "name 'double' is not defined"),
        ("raise ValueError('x' * 10**6)", "ValueError: xxx"),
        ("raise ValueError('two\\nlines \\ud800')", "ValueError: two lines \ud800"),
        ("class E(Exception):\n    __str__ = None\nraise E", "E"),
        # The set-up's names are the book's, and so is what silences an exception.
        (WRONG + "\nclose = lambda *numbers: True", "AssertionError: 2"),
        (WRONG + "\nrun.exercise = 3", "AssertionError: 2"),
        (
            WRONG + "\nimport contextlib\n"
            "run.exercise = lambda number: contextlib.suppress(Exception)",
            "AssertionError: 2",
        ),
    ],
)
def test_a_wrong_answer_has_a_reason(cell, expected):
    reason = attempt(cell)
    assert expected in reason
    assert len(reason) <= worker.REASON_LENGTH and "\n" not in reason


@pytest.mark.parametrize(
    "cell",
    [
        "import time\ndef double(x):\n    time.sleep(600)",
        "def double(x):\n    while True:\n        print('✓ exercise 1: right.')",
        "import signal\nsignal.signal(signal.SIGTERM, lambda *a: 0)\n"
        "while True:\n    try:\n        while True: print('x' * 10**6)\n"
        "    except BaseException: pass",
    ],
)
def test_an_endless_answer_ends_with_its_time(cell):
    assert attempt(cell, seconds=1) == "took more than 1 s"
    assert not left_running()


@pytest.mark.skipif(os.name != "posix", reason="the system has no such limits")
@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("x = []\nwhile True:\n    x.append(bytes(10**7))", "took more memory"),
        ("x = bytearray(10**12)", "took more memory than it may"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "(Segmentation"),
        ("import os\nos.killpg(0, 9)", "ended the process"),
        ("open('big', 'wb').write(bytes(2**27))", "File too large"),
        # Whatever still runs afterwards is ended with it.
        (RIGHT[1] + "\nimport os, time\nif not os.fork(): time.sleep(600)", ""),
        (RIGHT[1] + "\nimport os\nos.fork()", ""),
        (
            RIGHT[1] + "\nimport threading, time\n"
            "threading.Thread(target=time.sleep, args=(600,)).start()",
            "",
        ),
    ],
)
def test_what_an_answer_takes_is_bounded(cell, expected, monkeypatch):
    monkeypatch.setattr(grade, "MEMORY", 2**28)
    reason = attempt(cell)
    assert expected in reason and bool(expected) == bool(reason)
    assert not left_running()


def test_an_answer_cannot_send_its_own_result():
    """Not even where it finds the connection: a result repeats the check's number."""
    forged = """
import os
for number in range(3, 30):
    try:
        os.write(number, b'{"ran": true}\\n{"reason": ""}\\n')
    except OSError:
        pass
"""
    assert attempt(forged).startswith("ended the process")
    assert attempt(RIGHT[1]) == ""


def test_the_check_arrives_when_the_answer_has_run():
    order = []
    names = worker.run_setup(SETUP) | {"order": order}

    def request_check():
        order.append("check")
        return KNOWN[0].check

    worker.evaluate(names, ["order.append('answer')"], request_check)
    assert order == ["answer", "check"]


def test_an_answer_runs_in_a_folder_that_is_deleted(tmp_path):
    path = tmp_path / "path"
    attempt(f"import os\nopen({str(path)!r}, 'w').write(os.getcwd())")
    assert grade.FOLDER in path.read_text() and not os.path.exists(path.read_text())


def test_a_set_up_that_fails_is_the_books_fault():
    with pytest.raises(RunFailed, match="set-up of toy fails: ZeroDivisionError"):
        attempt(RIGHT[1], setup=["1 / 0"])


# What is handed in


def read(notebook, tmp_path):
    """The answers in a notebook, by exercise."""
    file = classroom.hand_in(tmp_path, "ada", notebook)
    return {a.exercise.number: a for a in grade.read(file, classroom.book())}


def place(notebook, tag):
    """The index of a tagged cell."""
    tagged = [tag in c.metadata.get("tags", []) for c in notebook.cells]
    return tagged.index(True)


def new(source, **metadata):
    """A code cell."""
    return classroom.nbformat.v4.new_code_cell(source, metadata=metadata)


def untag(notebook):
    for cell in notebook.cells:
        cell.metadata.clear()


def keep_names(notebook):
    for cell in notebook.cells:
        cell.metadata.pop("tags", None)


def without_checks(notebook):
    for number in (1, 3):
        del notebook.cells[place(notebook, f"check-{number}")]


def split(notebook):
    at = place(notebook, "exercise-1")
    copy = new(RIGHT[1], **notebook.cells[at].metadata)
    notebook.cells[at].source = "half = 1"
    notebook.cells.insert(at + 1, copy)


def add_cells(notebook):
    at = place(notebook, "check-1")
    notebook.cells[at - 1 : at] = [new("half = 1"), new(RIGHT[1])]
    notebook.cells.insert(place(notebook, "check-1") + 1, new("later = 1"))


def type_elsewhere(notebook):
    notebook.cells[place(notebook, "exercise-1")] = new(RIGHT[1])


def reverse(notebook):
    notebook.cells.reverse()


@pytest.mark.parametrize(
    "change",
    [
        lambda notebook: None,
        untag,
        keep_names,
        without_checks,
        split,
        add_cells,
        type_elsewhere,
        reverse,
    ],
)
def test_answers_are_found_in_notebooks_that_were_changed(change, tmp_path):
    notebook = classroom.filled(RIGHT, "Because it *is*.")
    change(notebook)
    answers = read(notebook, tmp_path)
    assert answers[1].cells[-1] == RIGHT[1] and answers[3].cells == [RIGHT[3]]
    assert "Because it *is*." in answers[2].text and not answers[1].text
    assert [answer.reason for answer in answers.values()] == ["", "", ""]


def test_a_text_may_have_headings_and_cells_of_its_own(tmp_path):
    notebook = classroom.filled({}, "Because.\n\n## My reasons\n\nMany.")
    at = place(notebook, "answer-2")
    more = classroom.nbformat.v4.new_markdown_cell("## And more\n\nYes.")
    notebook.cells[at + 1 : at + 1] = [new("x = 1"), more]
    wanted = "Because.\n\n## My reasons\n\nMany.\n\nx = 1\n\n## And more\n\nYes."
    assert read(notebook, tmp_path)[2].text == wanted


def test_a_stub_or_nothing_is_not_answered(tmp_path):
    answers = read(classroom.filled({3: " \n"}, ""), tmp_path)
    assert {answer.reason for answer in answers.values()} == {"not answered"}


INVALID = {
    "a text": "I solved it, see my mail.",
    "nothing": "",
    "a list": "[]",
    "no cells": "{}",
    "cut off": classroom.nbformat.writes(classroom.filled(RIGHT))[:700],
    "a number": "3",
    "odd cells": '{"nbformat": 4, "nbformat_minor": 5, "cells": [1]}',
    "deep": "[" * 100_000,
    "bytes": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("text", INVALID.values(), ids=INVALID)
def test_an_invalid_notebook_has_a_reason(text, tmp_path):
    answers = read(text, tmp_path)
    assert len(answers) == 3
    assert all("toy.ipynb is no notebook: " in a.reason for a in answers.values())


# A class


@pytest.fixture
def toy(monkeypatch):
    classroom.install(monkeypatch)


def test_a_class(toy, tmp_path, capsys, monkeypatch):
    """One run: whoever hands in rubbish, the others keep their points."""
    folder = tmp_path / "class"
    handed_in = {
        "ada": (classroom.filled(RIGHT, "Says ada\x1b[2J."), 4),
        "eve": (classroom.filled({1: "while True:\n    print(1)", 3: RIGHT[3]}), 3),
        "ida": (classroom.filled({1: RIGHT[1], 3: "import os\nos._exit(0)"}), 1),
        "lea": (json.dumps(classroom.filled({1: RIGHT[1]}, "\ud800!")), 1),
        "tim": (INVALID["cut off"], 0),
        "uwe": (classroom.filled({3: RIGHT[3]}), 3),
    }
    for cell in handed_in["uwe"][0].cells:  # an overwritten check
        if "check-1" in cell.metadata.get("tags", []):
            cell.source = "print('✓ exercise 1: right.')"
    for name, (notebook, _) in handed_in.items():
        classroom.hand_in(folder, name, notebook)
    misnamed = classroom.hand_in(folder, "max", classroom.filled(RIGHT))
    misnamed.rename(misnamed.with_name("toy (1).ipynb"))
    (folder / "sam" / "toy.ipynb").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    (folder / "grades.txt").write_text("")

    monkeypatch.setattr(progress, "SILENCE", 0.5)
    words = ["grade", str(folder), "--seconds", "5", "--processes", "2"]
    assert cli.main([*words, "--json", str(tmp_path / "points.json")]) == 0
    rows = json.loads((tmp_path / "points.json").read_text(encoding="utf-8"))
    names = sorted([*handed_in, "max", "sam"])
    assert [(r["student"], r["exercise"]) for r in rows] == [
        (name, number) for name in names for number in (1, 2, 3)
    ]
    for name in names:
        results = [row for row in rows if row["student"] == name]
        wanted = handed_in.get(name, ("", 0))[1]
        assert sum(row["points"] for row in results) == wanted, results
        assert sum(row["of"] for row in results) == 4

    out, err = capsys.readouterr()
    assert "of 24 answers; eve, toy, 1" in err
    lines = out.splitlines()
    assert "ada, toy: 4 of 4 points" in lines
    assert "  2: for you to read: Says ada?[2J." in lines
    assert "  2: for you to read: ?!" in lines
    assert "  1: took more than 5 s" in lines
    assert "  3: ended the process" in lines
    assert "  1, 2, 3: toy.ipynb was not handed in, but toy (1).ipynb" in lines
    assert lines[lines.index("uwe, toy: 3 of 4 points") + 1] == "  1: not answered"
    assert not left_running()


def test_a_failing_set_up_ends_the_command(toy, tmp_path, capsys, monkeypatch):
    text = classroom.CHAPTER.replace("run = Run()", "run = Run(3)")
    monkeypatch.setattr(execute, "source", lambda slug: classroom.book(text))
    classroom.hand_in(tmp_path, "ada", classroom.filled(RIGHT))
    assert cli.main(["grade", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert not out and "iclrtut: the set-up of toy fails: TypeError" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "there is no folder nowhere"),
        (["."], "holds no submission"),
        ([".", "--seconds", "0"], "0 seconds"),
        ([".", "--seconds", "inf"], "inf seconds"),
        ([".", "--seconds", "nan"], "nan seconds"),
        ([".", "--processes", "0"], "0 processes"),
    ],
)
def test_a_bad_request_is_refused(toy, tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["grade", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err and err.count("\n") == 1


# The chapters' own exercises


@pytest.mark.parametrize("file", CHAPTERS, ids=lambda file: file.stem)
def test_every_solution_is_right_and_every_wrong_answer_is_not(file, monkeypatch):
    """Nor is a stub. All through the function that a worker calls, after one set-up."""
    monkeypatch.setenv("ICLRTUT_PROFILE", "smoke")
    book = execute.source(file.stem)
    names = worker.run_setup(setup(book))
    known = form.answers(form.load(file))
    checked = {str(each.number): each for each in exercises(book) if each.check}
    assert set(checked) == set(known)
    for number, each in checked.items():
        wrong = wrong_answers(file.stem)[each.number]
        assert len(wrong) >= 2
        for text in [each.stub, *wrong]:
            assert worker.evaluate(names, [text], lambda e=each: e.check), text
        with warnings.catch_warnings():
            # nbgrader takes a line on stderr for a failure.
            warnings.simplefilter("error")
            solution = known[number]["solution"]
            assert worker.evaluate(names, [solution], lambda e=each: e.check) == ""


def test_a_chapter_is_graded_from_a_shell(tmp_path):
    """A right answer, and one that wants more memory than there may be."""
    slug = claims.slugs()[0]
    book = execute.source(slug)
    document = form.load(form.TREE / "book" / "chapters" / f"{slug}.md")
    solution = form.answers(document)["1"]["solution"]
    for name, cell in {"ada": solution, "eve": "torch.empty(10**12)"}.items():
        notebook = classroom.filled({1: cell}, notebook=student.edition(book, slug))
        classroom.hand_in(tmp_path, name, notebook, slug)
    command = [sys.executable, "-m", "iclrtut", "grade", str(tmp_path)]
    out = subprocess.run(
        command, cwd=form.TREE, check=True, capture_output=True, text=True
    ).stdout
    first, most = (sum(e.points for e in exercises(book)[:n]) for n in (1, None))
    assert f"ada, {slug}: {first} of {most} points" in out
    assert f"eve, {slug}: 0 of {most} points" in out
    assert re.search("  1: .* memory", out)


# The page


def test_the_page_says_what_the_commands_do():
    page = (form.TREE / "book" / "teach" / "grading.md").read_text(encoding="utf-8")
    lines = re.findall(r"(?m)^python -m iclrtut (.+)$", page)
    parsed = [cli.parser().parse_args(line.split()) for line in lines]
    assert [p.command for p in parsed] == [cli.write_students, cli.grade_students]
    words = " ".join(page.split())
    assert f"may take {parsed[1].seconds:g} seconds (`--seconds`)" in words
    assert f"{grade.MEMORY >> 30} GiB of memory" in words
    assert f"{worker.FILE_SIZE >> 20} MiB for a file" in words
    assert "easy exercise gives 1 point, a medium one 2, a hard one 3" in words
    assert POINTS == {"easy": 1, "medium": 2, "hard": 3, "open": 0}
    assert "c.ClearSolutions.enabled = False" in page
    contents = (form.TREE / "_toc.yml").read_text(encoding="utf-8")
    assert "book/teach/grading\n" in contents
