"""Executing a chapter: from its source, through papermill, to a notebook."""

import base64
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from iclrtut import claims, ledger, records, repository
from iclrtut.errors import BadRequest, RunFailed
from iclrtut.files import write_atomic

TREE = repository.TREE
AGAIN = "run it again, and training goes on from its checkpoints"


def source(slug: str) -> Any:
    """A chapter's source as a notebook without outputs, its placeholders replaced.

    `OWNER/REPO@COMMIT` becomes the public address of the package, `{{claim}}` and
    `{{claim.verdict}}` the mean and the verdict over the records, `{{seconds}}` the
    measured times, `{{difficulty}}` and `{{prerequisites}}` what the chapter declares.
    Pictures are embedded, so that the notebook needs no other file.

    Raises:
        BadRequest: the source is missing, as it is from an installed package, or it
            has a placeholder that is none of these.
    """
    import jupytext

    file = TREE / "book" / "chapters" / f"{slug}.md"
    if not file.is_file():
        raise BadRequest(f"{file} is missing: run this in a clone of the book.")
    text = file.read_text(encoding="utf-8").replace("OWNER/REPO@COMMIT", address())
    facts = _facts(slug)

    def fill(match: re.Match[str]) -> str:
        if match[1] not in facts:
            raise BadRequest(f"{file.name} says {match[0]}, which is no claim of it.")
        return facts[match[1]]

    def embed(match: re.Match[str]) -> str:
        picture = (file.parent / match[1]).read_bytes()
        return f"(data:image/svg+xml;base64,{base64.b64encode(picture).decode()})"

    text = re.sub(r"\{\{([a-z0-9_.]+)\}\}", fill, text)
    return jupytext.reads(re.sub(r"\((\S+\.svg)\)", embed, text), fmt="md:myst")


def _facts(slug: str) -> dict[str, str]:
    """Placeholder -> text, from the book's records of the quick profile."""
    root = TREE / "records"
    chapter = claims.chapter(slug)
    times = ledger.running_times(slug, records.read_all(root))
    facts = {"seconds": ledger.in_words(times), "difficulty": chapter.difficulty}
    facts["prerequisites"] = chapter.prerequisites
    for claim in chapter.claims:
        facts |= {claim.id: "not yet measured", f"{claim.id}.verdict": "is undecided"}
    for row in ledger.rows(root):
        if (row["chapter"], row["profile"], row["device"]) == (slug, "quick", "cpu"):
            verb = "is " if row["verdict"] == claims.UNDECIDED else ""
            facts[row["claim"]] = ledger.measured(row)
            facts[row["claim"] + ".verdict"] = verb + row["verdict"]
    return facts


def address() -> str:
    """Owner, repository and commit from which a page installs the package.

    The commit is public and holds the package as it is here; where there is none yet,
    the public branch stands in its place.

    Raises:
        BadRequest: `_config.yml` names no repository.
    """
    name, branch = repository.public_address()
    if not name:
        raise BadRequest("_config.yml names no repository: set repository.url in it.")
    return f"{name}@{repository.public_commit() or branch}"


def unpinned() -> str:
    """Why pages made here would install a branch rather than a commit; empty if not."""
    if repository.public_commit():
        return ""
    name, branch = repository.public_address()
    return (
        f"On Colab these notebooks install the branch {branch} of {name}: this clone "
        "knows no public commit with the same package, so push or fetch, and make them "
        "again to pin one."
    )


def execute(
    slug: str,
    profile: str,
    seed: int,
    target: Path,
    report: Callable[[str], None] = lambda position: None,
) -> None:
    """Execute a chapter with papermill and write the notebook to `target`.

    Checkpoints are kept until it is finished, below `ICLRTUT_CHECKPOINTS` where that
    is set, else beside the target; the same call goes on from them.

    Args:
        slug: the chapter.
        profile: "smoke", "quick" or "full".
        seed: of the run.
        target: the notebook to write.
        report: called with "cell 3 of 74" when that cell begins.

    Raises:
        RunFailed: a cell failed, the kernel died or could not be reached; it names
            chapter, profile, seed and cell.
    """
    import jupytext
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError

    target = target.resolve()  # the kernel runs elsewhere
    target.parent.mkdir(parents=True, exist_ok=True)
    own = target.with_suffix(".checkpoints")
    checkpoints = Path(os.environ.get("ICLRTUT_CHECKPOINTS") or own).resolve()
    written, job = source(slug), f"{slug}, profile {profile}, seed {seed}"
    total = 1 + sum(cell.cell_type == "code" for cell in written.cells)  # parameters
    number = 0

    def begin(**_: Any) -> None:
        nonlocal number
        number += 1
        report(f"cell {number} of {total}")

    variables = {"ICLRTUT_PROFILE": profile, "ICLRTUT_CHECKPOINTS": str(checkpoints)}
    with tempfile.TemporaryDirectory() as scratch, _environment(variables):
        draft = Path(scratch) / f"{slug}.ipynb"
        jupytext.write(written, draft)
        try:
            # Without an output, which papermill would write twice a cell.
            done = papermill.execute_notebook(
                draft,
                None,
                parameters={"profile": profile, "seed": seed},
                kernel_name="python3",
                cwd=target.parent,
                progress_bar=False,
                extra_arguments=["--log-level=CRITICAL"],
                on_cell_execute=begin,
            )
        except papermill.PapermillExecutionError as error:
            raise RunFailed(
                f"{job}: cell {error.exec_count} raised {error.ename}: {error.evalue}\n"
                f"The cell reads:\n{error.source}"
            ) from None
        except DeadKernelError:
            raise RunFailed(
                f"{job}: its kernel died at cell {number}: it may have needed more "
                f"memory than this machine has; {AGAIN}."
            ) from None
        except Exception as error:
            raise RunFailed(
                f"{job}: stopped at cell {number} ({type(error).__name__}: {error}): "
                f"{AGAIN}."
            ) from None
    write_atomic(target, nbformat.writes(done).encode())
    for folder in (own, *(checkpoints / slug).glob(f"{profile}-*-{seed}")):
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set variables for the kernels that are started in this block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ |= variables
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def pulse() -> None:
    """Write an empty line every half second, for as long as anybody reads.

    When nobody does, the process that wanted this run is gone, and this one ends with
    its kernel.
    """
    import psutil

    try:
        while True:
            print(flush=True)
            time.sleep(0.5)
    except OSError:
        for child in psutil.Process().children(recursive=True):
            child.kill()
        os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=pulse, daemon=True).start()
    slug, profile, seed, target = sys.argv[1:]
    try:
        execute(slug, profile, int(seed), Path(target), partial(print, flush=True))
    except (BadRequest, RunFailed) as error:
        sys.exit(str(error))
