"""Make notebooks/<slug>.ipynb from book/chapters/<slug>.md by executing it.

Run as `python tools/notebooks.py [SLUG ...]`; without a name it makes every chapter.
"""

import copy
import hashlib
import re
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import nbformat

from iclrtut import claims
from iclrtut.commands import execute, sweep
from iclrtut.files import write_atomic

TREE = sweep.TREE
WORK = TREE / "_build" / "executed"
CHECK = "nbval-check-output"
TIMES = "times"  # the tag of a cell whose output depends on the clock
PIN = re.compile(r"(git\+https://github\.com/\S+@)[0-9a-f]{40}")
RATE = re.compile(r"\[[\d:]+<[\d:?]+, *[\d.?]+ *(it/s|s/it)")  # of a progress bar
CARD = re.compile(r"(?m)^(\| )?(commit|seconds|peak memory) (\||·) .*$")


def sources() -> list[str]:
    """The chapters that have a source, by name."""
    return sorted(file.stem for file in (TREE / "book" / "chapters").glob("*.md"))


def digest(slug: str, profile: str) -> str:
    """A fingerprint of all that a chapter's outputs depend on."""
    found = hashlib.sha256(profile.encode())
    for file in inputs(slug):
        found.update(file.read_bytes())
    return found.hexdigest()


def inputs(slug: str) -> list[Path]:
    """The files that a chapter's outputs depend on, also in chapters it builds on."""
    package = TREE / "iclrtut"
    files = [
        f for end in ("*.py", "*.js", "*.css", "*.mplstyle") for f in package.glob(end)
    ]
    files += (package / "shipped").glob("*.npz")
    for each in (slug, *claims.chapter(slug).builds_on):
        files += (package / "chapters" / each).glob("*.*")
    # Prose and tables say what the records of runs say.
    files += (TREE / "records" / slug).glob("*-*.json")
    files += [TREE / "book" / "chapters" / f"{slug}.md", TREE / "requirements.txt"]
    return sorted(files)


def published(slug: str) -> Path:
    """Where a chapter's notebook stands."""
    return TREE / "notebooks" / f"{slug}.ipynb"


def fresh(slug: str, profile: str) -> bool:
    """Whether this clone made the notebook from what stands here now."""
    stamp, notebook = WORK / f"{slug}.stamp", published(slug)
    if not (stamp.is_file() and notebook.is_file()):
        return False
    output = hashlib.sha256(notebook.read_bytes()).hexdigest()
    return stamp.read_text().split() == [digest(slug, profile), output]


def tidy(notebook: Any) -> Any:
    """An executed notebook as it is published: the cells of its source, with outputs.

    Identifiers and counts are those of a first run; cells with checks are tagged.
    """
    keep = {
        "kernelspec": notebook.metadata["kernelspec"],
        "language_info": {"name": "python"},
    }
    notebook.metadata = nbformat.from_dict(keep)
    notebook.cells = [
        cell
        for cell in notebook.cells
        if "injected-parameters" not in cell.metadata.get("tags", [])
    ]
    count = 0
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if cell.cell_type != "code":
            continue
        count += 1
        cell.execution_count = count
        cell.outputs = join_streams(cell.outputs)
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count
        if any(output.get("text", "").startswith("✓ ") for output in cell.outputs):
            tags = cell.metadata.get("tags", [])
            cell.metadata["tags"] = sorted({*tags, CHECK})
    return notebook


def join_streams(outputs: list[Any]) -> list[Any]:
    """Join neighbouring outputs of one stream; of a progress bar keep the end."""
    joined: list[Any] = []
    for output in outputs:
        last = joined[-1] if joined else {}
        same = output.output_type == "stream" and last.get("name") == output.name
        if same:
            last.text += output.text
        else:
            joined.append(output)
    for output in joined:
        if output.output_type == "stream":
            lines = output.text.split("\n")
            output.text = "\n".join(line.rstrip("\r").split("\r")[-1] for line in lines)
    return joined


def make(profile: str = "quick", slugs: Sequence[str] = ()) -> list[str]:
    """Execute the chapters that are not fresh, two at a time.

    Args:
        profile: of the runs.
        slugs: which chapters; none stands for all.

    Returns:
        What went wrong, a sentence for each chapter that failed.
    """
    if unknown := sorted(set(slugs) - set(sources())):
        known = ", ".join(sources())
        return [f"notebooks: there is no chapter {unknown[0]!r}: use {known}."]
    asked = slugs or sources()
    stale = [slug for slug in asked if not fresh(slug, profile)]
    done = len(asked) - len(stale)
    print(f"{len(stale)} chapters to execute ({profile}), {done} unchanged", flush=True)
    if not stale:
        return []
    if remark := execute.unpinned():
        print(remark, flush=True)
    jobs = [sweep.Job(slug, profile, 0) for slug in stale]
    for job in jobs:  # what is published comes from one undisturbed run
        shutil.rmtree(TREE / job.notebook.with_suffix(".checkpoints"), True)
    work = partial(sweep.execute, ICLRTUT_RECORDS="")  # verdicts of the book alone
    with sweep.connect(None, processes=2) as client:
        return sweep.run(client, jobs, work, publish)


def publish(job: sweep.Job, executed: bytes) -> str:
    """Put an executed notebook in its place, and note what it was made from.

    The notebook in its place is left as it is when only times differ, or the commit
    that installs the package.

    Returns:
        What was done.
    """
    notebook, place = tidy(nbformat.reads(executed.decode(), 4)), published(job.slug)
    same = False
    with suppress(OSError, ValueError):  # missing, or no notebook any more
        same = without_times(nbformat.read(place, 4)) == without_times(notebook)
    if not same:
        write_atomic(place, (nbformat.writes(notebook) + "\n").encode())
    output = hashlib.sha256(place.read_bytes()).hexdigest()
    stamp = f"{digest(job.slug, job.profile)} {output}"
    write_atomic(WORK / f"{job.slug}.stamp", stamp.encode())
    return "nothing changed but times, notebook left as it was" if same else "done"


def without_times(notebook: Any) -> Any:
    """A published notebook without what the clock and the commit decide.

    That is: the rates of progress bars, three rows of the run card, the outputs of
    cells with the tag `times`, and the commit that the set-up cell installs.
    """
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        cell.source = PIN.sub(r"\1", cell.source)
        if cell.cell_type != "code":
            continue
        if TIMES in cell.metadata.get("tags", []):
            cell.outputs = []
        for output in cell.outputs:
            if output.output_type == "stream":
                lines = RATE.sub("", output.text).split("\n")
                output.text = "\n".join(line.rstrip() for line in lines)
            elif "run.card()" in cell.source:
                for kind, text in output.data.items():
                    output.data[kind] = CARD.sub("", text)
    return notebook


if __name__ == "__main__":
    try:
        failures = make(slugs=sys.argv[1:])
    except KeyboardInterrupt:
        failures = ["notebooks: interrupted: chapters that were done are kept."]
    if failures:
        sys.exit("\n".join(failures))
