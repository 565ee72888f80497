"""Grading: every disaster costs its own exercise its points, and nothing else."""

import json
import os
import re
import time
import warnings

import class_of
import form
import psutil
import pytest
from test_form import CHAPTERS, exercise_ids, wrong_answers

from iclrtut import claims
from iclrtut.commands import cli, execute, grade, trial
from iclrtut.commands.exercises import POINTS, exercises, opening

SECONDS = 2
KNOWN = exercises(class_of.book())
RIGHT = class_of.RIGHT
posix = pytest.mark.skipif(os.name != "posix", reason="the system has no such limit")


def tried(cell, *more, setup=None):
    """What a process of its own says to an answer to exercise 1."""
    cells = opening(class_of.book()) if setup is None else setup
    answer = grade.Answer([cell, *more])
    return grade.score(cells, KNOWN[0], answer, SECONDS)


def left_running():
    """Processes of trials that are still alive."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if trial.__file__ in words and process.info["status"] != "zombie":
            found.append(process)
    return found


# One answer


@pytest.mark.parametrize(
    ("cells", "points", "said"),
    [
        ([RIGHT[1]], 1, "✓ exercise 1: right."),
        (
            ["def double(x):\n    return x"],
            0,
            "○ exercise 1: not yet. AssertionError: 2",
        ),
        (["import sys", RIGHT[1], "sys.exit()"], 0, "ended the process"),
        ([RIGHT[1], "import os\nos._exit(0)"], 0, "ended the process"),
        ([RIGHT[1], "raise KeyboardInterrupt"], 0, "ended the process"),
        (["x = input()"], 0, "EOFError"),
        (["def double(x:"], 0, "SyntaxError"),
        (["two = 2", "def double(x):\n    return two * x"], 1, "right"),
        # Names of the set-up that an answer spoils are its own.
        ([RIGHT[1], "del run, close"], 1, "right"),
        (["def double(x):\n    return x", "close = max"], 0, "AssertionError: 2"),
        (["def double(x):\n    return x", "run.exercise = 3"], 0, "AssertionError: 2"),
        # A cell that fails does not undo what another one defined.
        (["plot(history)", RIGHT[1]], 1, "right"),
        (["plot(history)"], 0, "NameError: name 'plot' is not defined"),
        # What is printed is no verdict.
        (["print('✓ exercise 1: right.')"], 0, "name 'double' is not defined"),
        (
            ["import sys\nprint('{\"right\": true}', flush=True)\nsys.stdout.close()"],
            0,
            "name 'double' is not defined",
        ),
        (["raise ValueError('✓ exercise 1: right.')"], 0, "○ exercise 1: not yet."),
        (["class E(Exception):\n    __str__ = None\nraise E"], 0, "not yet. E"),
        (["raise ValueError('x' * 10**6)"], 0, "ValueError: xxx"),
        # What only IPython reads.
        (["%%time\n" + RIGHT[1]], 1, "right"),
        (["!ls\n%matplotlib inline\n" + RIGHT[1] + "\ndouble?"], 1, "right"),
        (["import IPython\ndisplay(3)\n" + RIGHT[1]], 1, "right"),
        (["def double(x):\n    return (x\n        % 7 * 2)"], 1, "right"),
    ],
)
def test_an_answer_is_told_its_line(cells, points, said):
    found = tried(*cells)
    assert (found.points, said in found.said) == (points, True), found.said
    assert len(found.said) <= trial.LONGEST and "\n" not in found.said


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("while True:\n    pass", f"took more than {SECONDS} s"),
        (
            RIGHT[1] + "\nwhile True:\n    print('x' * 10**6)",
            f"took more than {SECONDS} s",
        ),
        (
            "import time\ndef double(x):\n    time.sleep(60)",
            f"took more than {SECONDS} s",
        ),
        (
            "def double(x):\n    while True:\n        print('✓ exercise 1: right.')",
            f"took more than {SECONDS} s",
        ),
        (
            "import signal\nsignal.signal(signal.SIGTERM, lambda *a: 0)\n"
            "while True:\n    try:\n        while True: pass\n"
            "    except BaseException: pass",
            f"took more than {SECONDS} s",
        ),
    ],
)
def test_a_loop_ends_with_the_time_limit(cell, said):
    began = time.monotonic()
    found = tried(cell)
    assert (found.points, found.said, found.of) == (0, said, 1)
    assert time.monotonic() - began < 4 * SECONDS
    assert not left_running()


@posix
@pytest.mark.parametrize(
    ("cell", "points", "said"),
    [
        ("x = [0]\nwhile True:\n    x = x + x", 0, "took more memory than it may"),
        ("x = []\nwhile True:\n    x.append(bytes(10**7))", 0, "took more memory"),
        ("x = bytearray(10**12)", 0, "took more memory than it may"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", 0, "(SIGSEGV)"),
        ("import os\nos.killpg(0, 9)", 0, "ended the process"),
        ("open('big', 'wb').write(bytes(2**27))", 0, "File too large"),
        # Whatever still runs afterwards is ended with it.
        (RIGHT[1] + "\nimport os, time\nif not os.fork(): time.sleep(60)", 1, "right"),
        (RIGHT[1] + "\nimport os\nos.fork()", 1, "right"),
        (
            RIGHT[1] + "\nimport threading, time\n"
            "threading.Thread(target=time.sleep, args=(60,)).start()",
            1,
            "right",
        ),
    ],
)
def test_what_an_answer_takes_is_bounded(cell, points, said, monkeypatch):
    monkeypatch.setattr(grade, "MEMORY", 2**28)
    began = time.monotonic()
    found = tried(cell)
    assert (found.points, said in found.said) == (points, True), found.said
    assert time.monotonic() - began < 4 * SECONDS
    assert not left_running()


def test_a_verdict_without_its_number_does_not_count():
    """Even one that finds the channel, if it speaks before it is asked."""
    forged = """
import os
for number in range(3, 30):
    try:
        os.write(number, b'{"ran": true}\\n{"right": true, "said": "fine"}\\n')
    except OSError:
        pass
"""
    assert tried(forged).points == 0


def test_the_check_is_asked_for_when_the_answer_has_run():
    order = []
    space = trial.opened(opening(class_of.book())) | {"order": order}

    def ask():
        order.append("check")
        return KNOWN[0].check

    trial.judge(space, 1, ["order.append('answer')"], ask)
    assert order == ["answer", "check"]


def test_a_trial_has_a_folder_of_its_own_that_goes(tmp_path):
    cell = f"open('left', 'w').close()\nimport os\nopen({str(tmp_path / 'at')!r}, 'w')"
    tried(cell + ".write(os.getcwd())")
    where = (tmp_path / "at").read_text()
    assert where and not os.path.exists(where)


def test_a_setup_that_fails_is_the_books_fault():
    found = tried(RIGHT[1], setup=["1 / 0"])
    assert found.broken and "set-up failed: ZeroDivisionError" in found.said
    assert found.points == 0


# What is handed in


def answers_of(notebook):
    return grade.answers(notebook, class_of.book())


def test_answers_are_found_by_their_tags():
    found = answers_of(class_of.filled(RIGHT, "Because it *is*."))
    assert found[1] == grade.Answer([RIGHT[1]])
    assert found[3] == grade.Answer([RIGHT[3]])
    assert found[2].text == "Because it *is*." and not found[2].cells


def place(notebook, tag):
    """Where a tagged cell stands."""
    tagged = [tag in c.metadata.get("tags", []) for c in notebook.cells]
    return tagged.index(True)


def new(source, **metadata):
    """A code cell."""
    return class_of.nbformat.v4.new_code_cell(source, metadata=metadata)


def test_cells_between_answer_and_check_belong_to_the_answer():
    notebook = class_of.filled({1: "half = 1", 3: RIGHT[3]})
    notebook.cells.insert(place(notebook, "check-1"), new(RIGHT[1]))
    notebook.cells.insert(place(notebook, "check-1") + 1, new("later = 1"))
    found = answers_of(notebook)
    assert found[1].cells == ["half = 1", RIGHT[1]]
    assert found[3].cells == [RIGHT[3]]


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


def shuffled(notebook):
    notebook.cells.reverse()


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        (untag, True),
        (keep_names, False),
        (without_checks, False),
        (split, False),
        (shuffled, False),
    ],
)
def test_answers_are_found_in_notebooks_that_were_changed(change, lost):
    notebook = class_of.filled(RIGHT)
    change(notebook)
    found = answers_of(notebook)
    assert found[1].cells[-1] == RIGHT[1] and found[3].cells[-1] == RIGHT[3]
    assert [each.lost for each in found.values()] == [lost] * 3
    assert "Because." in found[2].text


def test_a_text_may_have_headings_and_cells_of_its_own():
    notebook = class_of.filled({}, "Because.\n\n## My reasons\n\nMany.")
    at = place(notebook, "answer-2")
    more = class_of.nbformat.v4.new_markdown_cell("## And more\n\nYes.")
    notebook.cells[at + 1 : at + 1] = [new("x = 1"), more]
    wanted = "Because.\n\n## My reasons\n\nMany.\n\nx = 1\n\n## And more\n\nYes."
    assert answers_of(notebook)[2].text == wanted


def test_an_answer_typed_into_another_cell_below_the_text_is_found():
    notebook = class_of.filled(RIGHT)
    at = place(notebook, "exercise-1")
    notebook.cells[at] = new(RIGHT[1])
    found = answers_of(notebook)[1]
    assert found == grade.Answer([RIGHT[1]], lost=True)
    said = grade.score(opening(class_of.book()), KNOWN[0], found, SECONDS).said
    assert said.startswith("✓ exercise 1: right.") and "its tag was lost" in said


@pytest.mark.parametrize(
    ("cells", "said"),
    [([], "no answer cell"), (["  \n"], "no answer cell"), ([KNOWN[0].stub], "stub")],
)
def test_nothing_is_run_where_nothing_was_answered(cells, said, monkeypatch):
    monkeypatch.setattr(grade, "attempt", None)
    found = grade.score([], KNOWN[0], grade.Answer(cells), SECONDS)
    assert (found.points, found.of) == (0, 1) and said in found.said


# A class

BROKEN = {
    "a text": ("I solved it, see my mail.", "does not appear to be JSON"),
    "nothing": ("", "is empty"),
    "a list": ("[]", "not in a notebook's format"),
    "no cells": ("{}", "not in a notebook's format"),
    "cut off": (class_of.nbformat.writes(class_of.filled(RIGHT))[:700], "no notebook"),
    "a number": ("3", "not in a notebook's format"),
    "odd cells": (
        '{"nbformat": 4, "nbformat_minor": 5, "cells": [1]}',
        "no notebook: ",
    ),
    "deep": ("[" * 100_000, "not in a notebook's format"),
}


@pytest.fixture
def toy(monkeypatch):
    class_of.install(monkeypatch)


def test_a_class(toy, tmp_path, capsys):
    """One run: whoever hands in rubbish, the others keep their points."""
    folder = tmp_path / "class"
    disasters = {
        "ada": (RIGHT, 4),
        "eve": ({1: RIGHT[1], 3: "while True:\n    print('x' * 999)"}, 1),
        "ida": ({1: "import os\nos._exit(0)", 3: RIGHT[3]}, 3),
        "tim": ({}, 0),
    }
    for who, (answered, _) in disasters.items():
        class_of.hand_in(folder, who, class_of.filled(answered, f"Says {who}\x1b[2J."))
    for who, (text, _) in BROKEN.items():
        class_of.hand_in(folder, who, text)
    odd = json.dumps(class_of.filled({1: "raise ValueError('\ud800')"}, "\ud800!"))
    class_of.hand_in(folder, "lea", odd)
    misnamed = class_of.hand_in(folder, "max", class_of.filled(RIGHT))
    misnamed.rename(misnamed.with_name("toy (1).ipynb"))
    (folder / "absent").mkdir()
    (folder / "folder" / "toy.ipynb").mkdir(parents=True)
    (folder / "bytes").mkdir()
    (folder / "bytes" / "toy.ipynb").write_bytes(b"\xff\xfe\x00")
    (folder / ".hidden").mkdir()
    (folder / "grades.txt").write_text("")
    cheat = class_of.filled({3: RIGHT[3]})
    for cell in cheat.cells:
        if "check-1" in cell.metadata.get("tags", []):
            cell.source = "print('✓ exercise 1: right.')"
    class_of.hand_in(folder, "uwe", cheat)

    words = ["grade", str(folder), "--seconds", str(SECONDS), "--processes", "2"]
    code = cli.main([*words, "--json", str(tmp_path / "scores.json")])
    out = capsys.readouterr().out
    assert code == 0

    made = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert [sheet["student"] for sheet in made] == sorted(
        [*disasters, *BROKEN, "absent", "bytes", "folder", "lea", "max", "uwe"]
    )
    by_name = {sheet["student"]: sheet for sheet in made}
    for who, (_, points) in disasters.items():
        assert (by_name[who]["points"], by_name[who]["of"]) == (points, 4), who
    assert by_name["uwe"]["points"] == 3
    said = {who: [e["said"] for e in s["exercises"]] for who, s in by_name.items()}
    assert said["eve"][2] == f"took more than {SECONDS} s"
    assert said["ida"][0] == "ended the process"
    assert said["tim"] == [grade.UNTOUCHED, grade.TO_READ, grade.UNTOUCHED]
    for who, (_, words) in BROKEN.items():
        assert len(set(said[who])) == 1 and words in said[who][0], said[who]
        assert by_name[who]["points"] == 0
    assert "was not handed in" in said["absent"][0]
    assert "was not handed in" in said["folder"][0]
    assert said["max"][0].endswith("; toy (1).ipynb is no chapter's name")
    assert "not yet. UnicodeEncodeError" in said["lea"][0]
    assert by_name["lea"]["exercises"][1]["text"] == "?!"
    assert "no notebook" in said["bytes"][0]

    rows = out.split("\n\n")[0].splitlines()
    assert rows[0].split() == ["student", "chapter", "points", "exercises"]
    words = [" ".join(row.split()) for row in rows]
    assert "ada toy 4 of 4 1✓ 2… 3✓" in words
    assert "absent toy 0 of 4 1○ 2– 3○" in words
    assert f"eve, toy, exercise 3: took more than {SECONDS} s" in out
    assert "For you to read:\nada, toy, exercise 2: Says ada?[2J." in out
    assert "\x1b" not in out
    assert "nothing, toy, exercises 1, 3: no notebook: toy.ipynb is empty\n" in out
    assert "uwe, toy, exercise 1: not answered" in out
    assert not left_running()


def test_a_failing_set_up_is_said_at_the_end(toy, tmp_path, capsys, monkeypatch):
    broken = class_of.CHAPTER.replace("run = Run()", "run = Run(3)")
    monkeypatch.setattr(execute, "source", lambda slug: class_of.book(broken))
    class_of.hand_in(tmp_path, "ada", class_of.filled(RIGHT))
    code = cli.main(["grade", str(tmp_path)])
    out, err = capsys.readouterr()
    assert code == 1 and "2 answers were not tried" in err and "TypeError" in err
    assert "ada" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "there is no folder nowhere"),
        (["."], "holds no submission"),
        ([".", "--seconds", "0"], "0 seconds"),
        ([".", "--seconds", "inf"], "inf seconds"),
        ([".", "--seconds", "nan"], "nan seconds"),
        ([".", "--processes", "0"], "0 processes"),
    ],
)
def test_a_bad_request_is_refused(toy, tmp_path, capsys, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["grade", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err and err.count("\n") == 1


# The chapters' own exercises


@pytest.mark.parametrize("file", CHAPTERS, ids=lambda file: file.stem)
def test_every_solution_is_right_and_every_wrong_answer_is_not(file, monkeypatch):
    """All through the function that a trial calls."""
    monkeypatch.setenv("ICLRTUT_PROFILE", "smoke")
    book = execute.source(file.stem)
    space = trial.opened(opening(book))
    answered = form.answers(form.load(file))
    checked = [each for each in exercises(book) if each.check]
    assert len(checked) == len(exercise_ids([file]))
    for each in checked:
        texts = {answered[str(each.number)]["solution"]: True, each.stub: False}
        texts |= dict.fromkeys(wrong_answers(file.stem)[each.number], False)
        assert len(texts) >= 4
        for text, wanted in texts.items():
            with warnings.catch_warnings():
                # nbgrader takes a line on stderr for a failure.
                warnings.simplefilter("error" if wanted else "ignore")
                judged = trial.judge(space, each.number, [text], lambda e=each: e.check)
            begins = f"✓ exercise {each.number}: right."
            if not wanted:
                begins = f"○ exercise {each.number}: not yet. "
            assert (judged[0], judged[1].startswith(begins)) == (wanted, True), judged


def test_answers_to_a_chapter_in_processes_of_their_own(monkeypatch):
    """The solution, a wrong one and an endless one, with torch and the limits."""
    monkeypatch.setattr(grade, "MEMORY", 2**30)
    slug = claims.slugs()[0]
    file = form.TREE / "book" / "chapters" / f"{slug}.md"
    book = execute.source(slug)
    each = next(e for e in exercises(book) if e.check)
    solution = form.answers(form.load(file))[str(each.number)]["solution"]
    wrong = wrong_answers(slug)[each.number][0]
    loop = "hog = []\nwhile True:\n    hog.append(torch.ones(10**8))"
    said = [
        grade.score(opening(book), each, grade.Answer([answer]), 60)
        for answer in (solution, wrong, loop)
    ]
    assert [each.points > 0 for each in said] == [True, False, False]
    assert "right" in said[0].said and "not yet" in said[1].said
    assert "memory" in said[2].said


# The page


def test_the_page_says_what_the_commands_do():
    said = (form.TREE / "book" / "teach" / "grading.md").read_text(encoding="utf-8")
    lines = re.findall(r"(?m)^python -m iclrtut (.+)$", said)
    parsed = [cli.parser().parse_args(line.split()) for line in lines]
    assert [p.command for p in parsed] == [cli.write_students, cli.grade_students]
    words = " ".join(said.split())
    assert f"may take {parsed[1].seconds:g} seconds (`--seconds`)" in words
    assert f"{grade.MEMORY >> 30} GiB of memory" in words
    assert f"{trial.FILE >> 20} MiB for a file" in words
    assert "easy exercise gives 1 point, a medium one 2, a hard one 3" in words
    assert POINTS == {"easy": 1, "medium": 2, "hard": 3, "open": 0}
    assert "c.ClearSolutions.enabled = False" in said
    contents = (form.TREE / "_toc.yml").read_text(encoding="utf-8")
    assert "book/teach/grading\n" in contents
