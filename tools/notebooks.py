"""Make notebooks/<slug>.ipynb from book/chapters/<slug>.md by executing it."""

import hashlib
import sys
from pathlib import Path
from typing import Any

import nbformat

from iclrtut import claims
from iclrtut.commands import execute, sweep
from iclrtut.files import write_atomic

TREE = sweep.TREE
WORK = TREE / "_build" / "executed"
CHECK = "nbval-check-output"


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
    for each in (slug, *claims.chapter(slug).builds_on):
        files += (package / "chapters" / each).glob("*.*")
    # Prose and tables say what the records say.
    files += (TREE / "records" / slug).glob("*.json")
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
    """An executed notebook as it is published: as its source, with calm outputs."""
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
        if any(output.get("text", "").startswith("✓ (") for output in cell.outputs):
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


def make(profile: str = "quick") -> list[str]:
    """Execute every chapter that is not fresh, two at a time.

    Returns:
        What went wrong, a text a failed chapter.
    """
    stale = [slug for slug in sources() if not fresh(slug, profile)]
    done = len(sources()) - len(stale)
    print(f"{len(stale)} chapters to execute ({profile}), {done} unchanged", flush=True)
    if not stale:
        return []
    if remark := execute.unpinned():
        print(remark, flush=True)
    jobs = [sweep.Job(slug, profile, 0) for slug in stale]
    with sweep.connected(None, processes=2) as client:
        return sweep.run(client, jobs, sweep.executed, publish)


def publish(job: sweep.Job, executed: bytes) -> None:
    """Put an executed notebook in its place, and note what it was made from."""
    notebook = tidy(nbformat.reads(executed.decode(), as_version=4))
    write_atomic(published(job.slug), (nbformat.writes(notebook) + "\n").encode())
    output = hashlib.sha256(published(job.slug).read_bytes()).hexdigest()
    stamp = f"{digest(job.slug, job.profile)} {output}"
    write_atomic(WORK / f"{job.slug}.stamp", stamp.encode())


if __name__ == "__main__":
    problems = make()
    if problems:
        sys.exit("\n".join(problems))
