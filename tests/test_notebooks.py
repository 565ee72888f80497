"""Every chapter through papermill in smoke, and what happens when a run goes wrong."""

import os
import re
import subprocess
import sys

import jupytext
import nbformat
import papermill
import pytest
from conftest import NIGHTLY, sample

from iclrtut import claims, data, records
from iclrtut.commands import execute
from iclrtut.errors import RunFailed

CHAPTERS = sorted((execute.TREE / "book" / "chapters").glob("*.md"))
SLUGS = [file.stem for file in CHAPTERS]
FIRST = SLUGS[0]
SEED = 3


@pytest.fixture(scope="module", params=SLUGS)
def executed(request, tmp_path_factory):
    """A chapter executed in smoke: its slug, its notebook, the folder of its record."""
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ICLRTUT_RECORDS", str(folder / "records"))
        patch.setenv("ICLRTUT_PROFILE", "smoke")
        patch.setenv("ICLRTUT_CHECKPOINTS", "")
        patch.setenv("OMP_NUM_THREADS", "1")
        execute.execute(request.param, "smoke", SEED, folder / "done.ipynb")
    notebook = nbformat.read(folder / "done.ipynb", as_version=4)
    return request.param, notebook, folder


def test_every_cell_ran(executed):
    _, notebook, folder = executed
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
    assert len(cells) > 12
    assert [f.name for f in folder.iterdir() if f.suffix != ".ipynb"] == ["records"]


def test_the_record_is_valid_and_holds_every_claim(executed):
    slug, _, folder = executed
    (record,) = records.read_all(folder / "records")
    declared = [claim.id for claim in claims.chapter(slug).claims]
    assert sorted(record["claims"]) == sorted(declared)
    assert (record["profile"], record["seed"]) == ("smoke", SEED)
    sources = [data.info(name) for name in record["data"]]
    assert all(data.place(source).startswith("comes with ") for source in sources)
    assert record["seconds"] > 0
    assert all(seconds > 0 for seconds in record["timings"].values())
    assert record["peak_memory_bytes"] is None or record["peak_memory_bytes"] > 0


def test_the_checks_printed_their_lines(executed):
    _, notebook, _ = executed
    prose = "".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    numbers = set(re.findall(r"\\tag\{(\d+\w*)\}", prose))
    text = "".join(
        out.get("text", "")
        for cell in notebook.cells
        if cell.cell_type == "code"
        for out in cell.outputs
    )
    lines = re.findall(r"^✓ ((?:\(\w+\) )+)", text, re.MULTILINE)
    assert numbers and numbers == set(re.findall(r"\w+", "".join(lines)))
    tags = [tag for cell in notebook.cells for tag in cell.metadata.get("tags", [])]
    stubs = sorted(tag[6:] for tag in tags if re.fullmatch(r"check-\d+", tag))
    assert stubs == sorted(re.findall(r"(?m)^○ exercise (\d+): not yet\. ", text))
    assert f"{executed[0]}: profile smoke, seed {SEED}, on " in text


# What goes wrong


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A chapter's notebook with its set-up and its end only, and a way to run it."""
    for name in ("ICLRTUT_RECORDS", "ICLRTUT_CHECKPOINTS"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("ICLRTUT_PROFILE", "smoke")
    written = execute.source(FIRST)
    opening = []
    for cell in written.cells:
        opening.append(cell)
        if "iclrtut.start(" in cell.source:
            break
    declared = [claim.id for claim in claims.chapter(FIRST).claims]
    code = nbformat.v4.new_code_cell

    def measure(id):
        needed = claims.chapter(FIRST).claim(id).needed
        numbers = {name: 2 if name == "trials" else 0.5 for name in sorted(needed)}
        return code(f"run.claim({id!r}, **{numbers})")

    check = "from iclrtut.checks import close\nclose({!r}, 'one', 1, 1, tol=0)"
    notebook = nbformat.v4.new_notebook(metadata=written.metadata)
    notebook.cells = [
        *opening,
        *(code(check.format(number)) for number in ("1", "2")),
        *(measure(id) for id in declared),
        code("run.card()"),
    ]

    def run(cells=None, **parameters):
        if cells is not None:
            notebook.cells = cells
        jupytext.write(notebook, tmp_path / "in.ipynb")
        papermill.execute_notebook(
            tmp_path / "in.ipynb",
            tmp_path / "out.ipynb",
            parameters=parameters,
            kernel_name="python3",
            cwd=tmp_path,
            progress_bar=False,
        )

    kept = tmp_path / "ICLRTUT_RECORDS" / FIRST / "smoke-cpu-0.json"
    return notebook.cells, run, kept


def test_in_order_it_keeps_a_record(small):
    _, run, kept = small
    run(profile="smoke", seed=0)
    assert kept.is_file() and records.read(kept)


@NIGHTLY
def test_a_misspelt_parameter_stops_the_run(small):
    """papermill itself lets it pass and runs the defaults."""
    _, run, kept = small
    words = "parameter 'sed' is unknown: use profile or seed"
    with pytest.raises(papermill.PapermillExecutionError, match=words):
        run(sed=3)
    assert not kept.exists()


def again(cells):
    """The first check once more at the end, as a reader may run it."""
    at = next(i for i, cell in enumerate(cells) if "close('1'" in cell.source)
    return [*cells[:-1], nbformat.v4.new_code_cell(cells[at].source), cells[-1]]


def skipped(cells):
    """Without one of the claims."""
    return [*cells[:-2], cells[-1]]


def swapped(cells):
    """Two checks in the other order."""
    first = next(i for i, cell in enumerate(cells) if "close('1'" in cell.source)
    moved = list(cells)
    moved[first], moved[first + 1] = moved[first + 1], moved[first]
    return moved


@pytest.mark.parametrize("change", sample([again, skipped, swapped]))
def test_a_notebook_out_of_order_keeps_no_record(small, change):
    cells, run, kept = small
    words = "not run from top to bottom"
    with pytest.raises(papermill.PapermillExecutionError, match=words):
        run(change(cells))
    assert not kept.exists()


def replace_source(monkeypatch, *cells):
    """Let a chapter consist of these cells, and nothing be kept outside of a test."""
    code = nbformat.v4.new_code_cell
    parameters = code("profile, seed = 'quick', 0", metadata={"tags": ["parameters"]})
    made = nbformat.v4.new_notebook(
        cells=[parameters, *map(code, cells)], metadata=execute.source(FIRST).metadata
    )
    monkeypatch.setattr(execute, "source", lambda slug: made)
    monkeypatch.setenv("ICLRTUT_PROFILE", "smoke")
    monkeypatch.setenv("ICLRTUT_CHECKPOINTS", "")


@pytest.mark.parametrize(
    ("last", "sentence"),
    [
        ("1 / 0", "raised ZeroDivisionError: division by zero\nThe cell reads:\n1 / 0"),
        ("import os; os._exit(1)", "its kernel died at cell 4: it may have needed"),
    ],
)
def test_a_failing_cell_is_reported_in_a_sentence(
    monkeypatch, tmp_path, last, sentence
):
    """`execute` names chapter, seed and cell, and leaves no notebook behind."""
    replace_source(monkeypatch, "x = 1", last)
    target, positions = tmp_path / "new" / "done.ipynb", []
    with pytest.raises(RunFailed) as caught:
        execute.execute(FIRST, "smoke", 1, target, positions.append)
    assert str(caught.value).startswith(f"{FIRST}, profile smoke, seed 1: ")
    assert sentence in str(caught.value)
    assert positions == [f"cell {number} of 4" for number in (1, 2, 3, 4)]
    assert not list(target.parent.iterdir())


def test_whatever_stops_a_run_is_told_in_a_sentence(monkeypatch, tmp_path):
    def unreachable(*_, **__):
        raise RuntimeError("Kernel didn't respond in 60 seconds")

    replace_source(monkeypatch)
    monkeypatch.setattr(papermill, "execute_notebook", unreachable)
    with pytest.raises(RunFailed, match="seed 1: stopped at cell 0") as caught:
        execute.execute(FIRST, "smoke", 1, tmp_path / "done.ipynb")
    assert "in 60 seconds): run it again" in str(caught.value)


def test_checkpoints_are_kept_where_the_reader_wants_them(monkeypatch, tmp_path):
    """They outlive a run that fails, and a run that ends removes its own alone."""
    keep = f"""
import os, pathlib
root = pathlib.Path(os.environ["ICLRTUT_CHECKPOINTS"], "{FIRST}")
for name in ("smoke-cpu-1", "smoke-cpu-11"):
    (root / name).mkdir(parents=True, exist_ok=True)"""
    kept, target = tmp_path / "kept", tmp_path / "done.ipynb"
    replace_source(monkeypatch, keep, "1 / 0")
    monkeypatch.setenv("ICLRTUT_CHECKPOINTS", str(kept))
    with pytest.raises(RunFailed):
        execute.execute(FIRST, "smoke", 1, target)
    assert sorted(f.name for f in (kept / FIRST).iterdir()) == [
        "smoke-cpu-1",
        "smoke-cpu-11",
    ]
    replace_source(monkeypatch, keep)
    monkeypatch.setenv("ICLRTUT_CHECKPOINTS", str(kept))
    execute.execute(FIRST, "smoke", 1, target)
    assert [f.name for f in (kept / FIRST).iterdir()] == ["smoke-cpu-11"]
    assert os.environ["ICLRTUT_CHECKPOINTS"] == str(kept)


@pytest.fixture
def alone():
    """A process that executes a chapter which does not exist; its input stays open."""
    words = [sys.executable, "-m", "iclrtut.commands.execute", "nothing", "smoke", "0"]
    with subprocess.Popen(
        [*words, "done.ipynb"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


def test_as_a_process_it_tells_what_failed_in_a_sentence(alone):
    """Without a trace; its exit code says the rest."""
    told = alone.stderr.read()
    assert alone.wait() == 1
    assert told.count("\n") == 1 and "nothing.md is missing" in told
