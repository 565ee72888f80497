"""The student edition: no solution in it, room for answers, and nbgrader takes it."""

import json
import os
import re
import sys
import sysconfig

import classroom
import form
import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nbgrader.apps import NbGraderAPI
from nbgrader.nbgraderformat.v3 import MetadataValidatorV3
from nbgrader.preprocessors import CheckCellMetadata, ComputeChecksums, LockCells
from traitlets.config import Config

from iclrtut import claims
from iclrtut.commands import cli, execute, student
from iclrtut.commands.exercises import exercises
from iclrtut.errors import BadRequest

SLUGS = claims.slugs()
SECRET = st.text(st.characters(min_codepoint=0xE000, max_codepoint=0xF8FF), min_size=1)


def edition(slug):
    """A chapter's student edition."""
    return student.edition(execute.source(slug), slug)


# No character of a solution


SHAPES = [
    "{}",
    "```python\n{}\n```",
    "## {}",
    "![{}](data:image/png;base64,{})",
    "[{}](#solution-1)",
    "<b>{}</b> <!-- {} -->",
    "> **Exercise 9 (5 min, easy).** {}",
    "$${} \\tag{{1}}$$",
    "| {} | {} |\n|---|---|\n| {} | {} |",
]
PLAIN = "<details><summary><b>Solution {}</b></summary>"
ODD = [
    "<details open><summary>Solution {}</summary>",
    "<DETAILS>\n<summary><b>SOLUTION {}</b></summary>",
    '<details class="x"> <summary>The solution</summary>',
    PLAIN + "\n\n<details><summary>A hint</summary>\n\nIt is so.\n\n</details>",
]


@st.composite
def solutions(draw, heads):
    """A folded solution in an alphabet that nothing else uses."""
    parts = draw(st.lists(st.tuples(st.sampled_from(SHAPES), SECRET), min_size=1))
    inside = "\n\n".join(shape.replace("{}", secret) for shape, secret in parts)
    head = draw(st.sampled_from(heads)).replace("{}", str(draw(st.integers(1, 9))))
    return f"{head}\n\n{inside}\n\n</details>"


@st.composite
def documents(draw, *heads):
    """The toy chapter with other solutions, some side by side, some in odd places."""
    pieces = classroom.CHAPTER.split("<details><summary><b>Solution")
    text = pieces[0]
    for piece in pieces[1:]:
        text += draw(solutions([PLAIN])) + piece.split("</details>", 1)[1]
    more = draw(st.lists(solutions([PLAIN, *heads]), max_size=2))
    place = draw(st.sampled_from(["## Set-up", "## Exercises", "## Run card", "Why?"]))
    return text.replace(place, "\n\n".join([*more, place]), 1)


def secrets_of(text):
    return [c for c in text if "\ue000" <= c <= "\uf8ff"]


@settings(max_examples=100)
@given(documents())
def test_no_character_of_a_solution_is_in_the_edition(text):
    source = classroom.book(text)
    assert secrets_of(text)
    for cell in source.cells:  # whatever a source's metadata may hold
        cell.metadata["about"] = "\ue000"
        cell["attachments"] = {"\ue000.png": {"image/png": "\ue000"}}
        cell.id = "\ue000"
        if cell.cell_type == "code":
            cell.outputs = [nbformat.v4.new_output("stream", text="\ue000")]
    source.metadata["solution"] = "\ue000"
    source.cells.append(nbformat.v4.new_raw_cell("\ue000"))
    notebook = student.edition(source, "toy")
    written = nbformat.writes(notebook)
    assert not secrets_of(json.dumps(notebook, ensure_ascii=False))
    assert not secrets_of(written) and "\\ue" not in written.lower()
    # Nothing else is lost: the public text of the toy is all there.
    shown = "\n".join(cell.source for cell in notebook.cells)
    for words in ("Write `double(x)`", "Why?", "Write `cube(x)`", "print(run)"):
        assert words in shown


@settings(max_examples=50)
@given(documents(*ODD))
def test_a_solution_folded_otherwise_is_refused_or_left_out(text):
    try:
        notebook = student.edition(classroom.book(text), "toy")
    except BadRequest:
        return
    assert not secrets_of(nbformat.writes(notebook))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SOLUTION\n\n</details>", "SOLUTION\n\n"),
        ("SOLUTION\n\n</details>", "SOLUTION\n</details>\nSOLUTION\n</details>"),
        ("SOLUTION\n\n</details>", "```{code-cell} ipython3\n1\n```\n\n</details>"),
        *(("<details><summary><b>Solution 2</b></summary>", odd) for odd in ODD),
    ],
)
def test_a_solution_without_a_clear_end_is_refused(old, new):
    assert old in classroom.CHAPTER
    text = classroom.CHAPTER.replace(old, new, 1)
    with pytest.raises(BadRequest, match=r"fold of toy .*</details>"):
        student.edition(classroom.book(text), "toy")


def test_a_fold_that_is_no_solution_stays():
    fold = "<details><summary>A proof</summary>\n\nIt is so.\n\n</details>"
    text = classroom.CHAPTER.replace("See [the", f"{fold}\n\nSee [the")
    shown = "\n".join(
        c.source for c in student.edition(classroom.book(text), "t").cells
    )
    assert fold in shown and "SOLUTION" not in shown
    assert "See the solution and [exercise 2](#exercise-2)." in shown


@pytest.mark.parametrize("slug", SLUGS)
def test_no_line_of_a_chapters_solution_is_in_its_edition(slug):
    """Unless it stands in the stub, or in the chapter's public text anyhow."""
    document = form.load(form.TREE / "book" / "chapters" / f"{slug}.md")
    public = {line.strip() for line in form.SOLUTION.sub("", document.text).split("\n")}
    shown = {
        line.strip() for cell in edition(slug).cells for line in cell.source.split("\n")
    }
    solved = form.SOLUTION.findall(document.part("Exercises"))
    assert len(solved) == len(exercises(execute.source(slug)))
    hidden = {line.strip() for _, text in solved for line in text.split("\n")}
    assert len(hidden - public) > 2 * len(solved)
    assert not (hidden - public) & shown
    assert not [line for line in shown if "<b>Solution" in line or "#solution-" in line]


# What students get


@pytest.mark.parametrize("slug", SLUGS)
def test_each_exercise_of_a_chapter_has_a_place_and_its_check(slug):
    notebook = edition(slug)
    nbformat.validate(notebook)
    tagged = {tag: c for c in notebook.cells for tag in c.metadata.get("tags", [])}
    known = exercises(execute.source(slug))
    answered = form.answers(form.load(form.TREE / "book" / "chapters" / f"{slug}.md"))
    assert {str(each.number) for each in known if each.check} == set(answered)
    for each in known:
        if each.check:
            number = str(each.number)
            assert tagged[f"exercise-{number}"].source == answered[number]["stub"]
            assert tagged[f"check-{number}"].source == answered[number]["check"]
        else:
            assert tagged[f"answer-{each.number}"].source == "Your answer:"
    places = [each for each in tagged if each.startswith(("exercise-", "answer-"))]
    assert places == [
        f"{'exercise' if each.check else 'answer'}-{each.number}" for each in known
    ]
    assert all(not c.outputs for c in notebook.cells if c.cell_type == "code")


@pytest.mark.parametrize("slug", SLUGS)
def test_code_and_text_outside_the_solutions_are_the_chapters(slug):
    source, notebook = execute.source(slug), edition(slug)
    codes = [
        [c.source for c in n.cells if c.cell_type == "code"] for n in (source, notebook)
    ]
    assert codes[0] == codes[1]
    texts = [
        "\n".join(c.source for c in n.cells if c.cell_type == "markdown")
        for n in (source, notebook)
    ]
    words = [
        re.sub(r"\s+", " ", text)
        for text in (
            form.SOLUTION.sub("", texts[0]),
            texts[1].removeprefix(student.NOTE).replace("Your answer:", ""),
        )
    ]
    assert words[0].strip() == words[1].strip()


def test_two_editions_are_the_same_to_the_letter():
    first, second = (nbformat.writes(edition(SLUGS[0])) for _ in range(2))
    assert first == second


# The command


@pytest.fixture
def toy(monkeypatch, tmp_path):
    classroom.install(monkeypatch)
    monkeypatch.chdir(tmp_path)


def test_the_command_writes_notebooks_and_says_where(capsys, toy, tmp_path):
    assert cli.main(["student", "out"]) == 0
    assert capsys.readouterr().out.split() == [str(classroom.Path("out", "toy.ipynb"))]
    about = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "DIR/<student>/<slug>.ipynb" in about and "DIR/ada/toy.ipynb" in about
    assert "SOLUTION" not in (tmp_path / "out" / "toy.ipynb").read_text()
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_a_file_that_is_there_is_never_overwritten(capsys, toy, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    assert cli.main(["student", "."]) == 0
    assert (tmp_path / "README.md").read_text() == "mine"
    (tmp_path / "toy.ipynb").write_text("a student's work")
    assert cli.main(["student", "."]) == 2
    err = capsys.readouterr().err
    assert "toy.ipynb is there already" in err and "another folder" in err
    assert (tmp_path / "toy.ipynb").read_text() == "a student's work"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [(["out", "tory"], 2, "tory"), (["file"], 1, "in the way")],
)
def test_a_bad_request_is_refused(capsys, toy, tmp_path, words, code, message):
    (tmp_path / "file").write_text("")
    assert cli.main(["student", *words]) == code
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["student", "grade"])
def test_a_missing_package_is_named(capsys, tmp_path, monkeypatch, command):
    """After `pip install .` in a clone."""
    classroom.hand_in(tmp_path, "ada", "", SLUGS[0])
    monkeypatch.setitem(sys.modules, "jupytext", None)
    monkeypatch.setattr(sys, "prefix", str(form.TREE / ".venv"))
    assert cli.main([command, str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "'jupytext'" in err and "pip install jupytext" in err
    assert err.count("\n") == 1


# nbgrader


@pytest.mark.parametrize("slug", SLUGS)
def test_nbgrader_takes_a_chapters_metadata(slug):
    notebook = edition(slug)
    MetadataValidatorV3().validate_nb(notebook)
    CheckCellMetadata().preprocess(notebook, {})
    notebook, _ = ComputeChecksums().preprocess(notebook, {})
    notebook, _ = LockCells().preprocess(notebook, {})
    kinds = {
        c.metadata.nbgrader.grade_id: c
        for c in notebook.cells
        if "nbgrader" in c.metadata
    }
    for each in exercises(execute.source(slug)):
        if each.check:
            check = kinds[f"check-{each.number}"].metadata
            assert check.nbgrader.points == each.points > 0
            assert check.nbgrader.checksum and check.editable is False
            assert kinds[f"exercise-{each.number}"].metadata.nbgrader.solution
        else:
            assert kinds[f"answer-{each.number}"].metadata.nbgrader.grade


@pytest.fixture
def course(toy, tmp_path, monkeypatch):
    """An nbgrader course whose assignment is the edition, with two submissions."""
    scripts = sysconfig.get_path("scripts")  # nbgrader calls alembic by its name
    monkeypatch.setenv("PATH", scripts + os.pathsep + os.environ["PATH"])
    config = Config()
    config.CourseDirectory.root = str(tmp_path / "course")
    config.ClearSolutions.enabled = False
    api = NbGraderAPI(config=config)
    source = tmp_path / "course" / "source" / "toys"
    student.write(source)
    result = api.generate_assignment("toys")
    assert result["success"], result
    right = classroom.filled(classroom.RIGHT)
    wrong = classroom.filled({1: "def double(x):\n    return x", 3: classroom.RIGHT[3]})
    for who, notebook in {"ada": right, "bob": wrong}.items():
        file = tmp_path / "course" / "submitted" / who / "toys" / "toy.ipynb"
        file.parent.mkdir(parents=True)
        file.write_text(nbformat.writes(notebook), encoding="utf-8")
    return api


def test_nbgrader_releases_and_grades_the_edition(course, tmp_path):
    released = tmp_path / "course" / "release" / "toys" / "toy.ipynb"
    cells = nbformat.read(released, as_version=4).cells
    assert "def double(x):\n    return ..." in [cell.source for cell in cells]
    reached = {}
    for who in ("ada", "bob"):
        result = course.autograde("toys", who)
        assert result["success"], result
        with course.gradebook as book:
            notebook = book.find_submission_notebook("toy", "toys", who)
            reached[who] = (
                notebook.score,
                notebook.max_score,
                notebook.needs_manual_grade,
            )
    assert reached == {"ada": (4, 4, True), "bob": (3, 4, True)}
