"""Sweeps: chapters x profiles x seeds, distributed by Dask and recorded one by one."""

import hashlib
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from distributed import CancelledError, Client, KilledWorker, as_completed, get_worker

from iclrtut import records
from iclrtut.commands.execute import TREE
from iclrtut.commands.progress import Progress
from iclrtut.errors import BadRequest, RunFailed
from iclrtut.files import check_writable, write_atomic
from iclrtut.repository import commit

TIMEOUT = 30  # seconds that a scheduler or its first worker may take to answer
TOPIC = "iclrtut"  # of the events by which workers report their progress


class Job(NamedTuple):
    """One run of a chapter."""

    slug: str
    profile: str
    seed: int

    def __str__(self) -> str:
        return f"{self.slug}, profile {self.profile}, seed {self.seed}"

    @property
    def notebook(self) -> Path:
        """Where the executed notebook goes, below the current folder."""
        return Path("_build") / "runs" / f"{self.slug}-{self.profile}-{self.seed}.ipynb"


def version() -> tuple[str, str]:
    """The code that this process runs, and the kind of its device."""
    import torch  # here, since a scheduler needs this module too

    content = hashlib.sha256()  # a commit says nothing of files that changed since
    for pattern in ("iclrtut/**/*.py", "book/chapters/*.md"):
        for file in sorted(TREE.glob(pattern)):
            content.update(file.read_bytes())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return f"commit {commit()}, files {content.hexdigest()[:8]}", device


# In the process that calls


@contextmanager
def connect(scheduler: str | None, processes: int) -> Iterator[Client]:
    """A client of a scheduler, or of worker processes started for the purpose.

    Args:
        scheduler: its address; None starts workers on this machine.
        processes: how many workers to start.

    Raises:
        BadRequest: no scheduler answers at that address.
    """
    local = {
        "n_workers": processes,
        "threads_per_worker": 1,
        "memory_limit": None,
        "dashboard_address": "127.0.0.1:0",
        "silence_logs": logging.CRITICAL,
    }
    try:
        client = Client(
            scheduler, timeout=TIMEOUT, **(local if scheduler is None else {})
        )
    except (OSError, ValueError) as error:
        raise BadRequest(
            f"no scheduler answers at {scheduler!r} ({error}): start one with 'dask "
            "scheduler', and give the address that it prints, like tcp://10.0.0.7:8786."
        ) from None
    with client:
        yield client


def check_workers(client: Client) -> set[str]:
    """The kinds of device that the workers have.

    Raises:
        BadRequest: there is no worker, or one of them has other code than the caller.
    """
    address = client.scheduler.address  # type: ignore[union-attr]
    try:
        client.wait_for_workers(1, timeout=TIMEOUT)
    except TimeoutError:
        raise BadRequest(
            f"no worker is connected to {address}: start one in a clone of the book, "
            f"with 'dask worker {address} --nthreads 1'."
        ) from None
    (here, _), devices = version(), set()
    for worker, reply in client.run(version, on_error="return").items():
        # A worker whose package has no sweeps replies with an exception.
        code, device = reply if isinstance(reply, tuple) else (reply, "")
        if code != here:
            raise BadRequest(
                f"worker {worker} has other code ({code}) than this ({here}): start it "
                "in a clone at the same commit."
            )
        devices.add(device)
    return devices


def run(
    client: Client,
    jobs: Sequence[Job],
    work: Callable[[Job], Any],
    save: Callable[[Job, Any], str | None],
) -> list[str]:
    """Distribute jobs, and save each result as it arrives.

    A job whose worker died goes to another, as often as the scheduler's setting
    `allowed-failures` says; a job that failed is not repeated.

    Args:
        client: of the scheduler.
        jobs: what to do.
        work: called on a worker with a job.
        save: called here with a job and its result; may return what there is to say.

    Returns:
        The failures, a sentence a job; empty when all went well.
    """
    futures = dict(zip(client.map(work, jobs, pure=False), jobs, strict=True))
    failures = []
    with Progress(len(jobs), "runs") as progress:

        def update(event: tuple[float, tuple[str, int, int]]) -> None:
            item, cell, cells = event[1]
            if item in map(str, list(futures.values())):
                progress.update(item, f"cell {cell} of {cells}", (cell - 1) / cells)

        client.subscribe_topic(TOPIC, update)
        for future in as_completed(list(futures)):
            job = futures.pop(future)
            try:
                outcome = save(job, future.result()) or "done"
            except Exception as error:
                failures.append(_sentence(job, error))
                outcome = "failed"
            future.release()  # or it runs again when the worker that holds it dies
            progress.finish(str(job), f"{job}: {outcome}")
    return failures


def _sentence(job: Job, error: Exception) -> str:
    """What went wrong with a job, and what to do about it."""
    match error:
        case BadRequest() | RunFailed():
            return str(error)
        case KilledWorker():
            deaths = error.allowed_failures + 1
            return f"{job}: {deaths} workers died during it: look at their memory."
        case CancelledError():
            return f"{job}: the scheduler is gone: start it and run this again."
        case _:
            return f"{job}: {type(error).__name__}: {error}"


def record(client: Client, jobs: Sequence[Job], root: Path, again: bool) -> None:
    """Run the jobs that have no record yet, and write records and notebooks here.

    Args:
        client: of the scheduler.
        jobs: chapters, profiles and seeds.
        root: the folder of records.
        again: repeat also what this commit has recorded already.

    Raises:
        BadRequest: the workers do not fit.
        RunFailed: a folder cannot be written, or some jobs failed; it says which, why.
    """
    devices, here = check_workers(client), commit()
    for folder in (root, *{job.notebook.parent for job in jobs}):
        check_writable(folder)
    new = [job for job in jobs if again or not is_recorded(job, root, devices, here)]
    if len(new) < len(jobs):
        print(
            f"{len(jobs) - len(new)} of {len(jobs)} are recorded already in {root}, at "
            "this commit; --again measures them anew."
        )

    def save(job: Job, result: tuple[dict[str, Any], bytes]) -> None:
        measured, notebook = result
        if measured["commit"] != here:  # by a worker that joined after the check
            raise RunFailed(
                f"{job}: a worker measured it at commit {measured['commit']}, not at "
                f"{here}: start workers at the same commit, and run this again."
            )
        write_atomic(job.notebook, notebook)
        records.write(root, measured)

    failures = run(client, new, measure, save)
    if failures:
        raise RunFailed(
            "\n".join([f"{len(failures)} of {len(new)} runs failed.", *failures])
        )


def is_recorded(job: Job, root: Path, devices: set[str], by: str) -> bool:
    """Whether there is a valid record of a job, made by this commit.

    Files that were changed since the commit (`+`) may have changed again since.
    """
    if by.endswith("+"):
        return False
    for device in devices:
        file = records.path(
            root, {"chapter": job.slug, **job._asdict()} | {"device": device}
        )
        with suppress(BadRequest, RunFailed):  # missing, or not valid any more
            if records.read(file)["commit"] == by:
                return True
    return False


# On a worker


def measure(job: Job) -> tuple[dict[str, Any], bytes]:
    """Execute a chapter on this worker: its record and its notebook."""
    with tempfile.TemporaryDirectory() as folder:
        notebook = execute(job, ICLRTUT_RECORDS=folder)
        (measured,) = records.read_all(Path(folder))
    return measured, notebook


def execute(job: Job, **variables: str) -> bytes:
    """Execute a chapter on this worker, in a process with one thread: its notebook.

    That process writes two lines a second, and ends when nobody reads them: when this
    one dies, or leaves the block because the job was cancelled.

    Args:
        job: what to execute.
        variables: additions to the environment.

    Raises:
        RunFailed: a cell failed, or the job was cancelled.
    """
    target = TREE / job.notebook
    words = [sys.executable, "-m", "iclrtut.commands.execute", *map(str, job)]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        with subprocess.Popen(
            [*words, str(target)],
            env=os.environ | {"OMP_NUM_THREADS": "1"} | variables,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process:
            for line in process.stdout or ():
                _report(job, line)
        if process.returncode:
            errors.seek(0)
            raise RunFailed(errors.read().strip() or f"{job}: its process died.")
    return target.read_bytes()


def _report(job: Job, line: str) -> None:
    """Send the cell at which a run is to the client.

    Raises:
        RunFailed: the scheduler has cancelled the job. Dask itself lets a task run on.
    """
    worker = get_worker()
    task = worker.state.tasks.get(worker.get_current_task())
    if task is None or task.state != "executing":
        raise RunFailed(f"{job}: cancelled.")
    if position := re.fullmatch(r"cell (\d+) of (\d+)\n", line):
        worker.log_event(TOPIC, (str(job), int(position[1]), int(position[2])))
