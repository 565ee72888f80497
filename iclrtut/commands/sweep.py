"""Sweeps: chapters x profiles x seeds, handed to Dask and gathered as they finish."""

import asyncio
import hashlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from iclrtut import records
from iclrtut.commands.execute import TREE
from iclrtut.errors import BadRequest, RunFailed
from iclrtut.files import write_atomic
from iclrtut.repository import commit

if TYPE_CHECKING:
    from distributed import Client

PATIENCE = 5  # seconds that a scheduler or its first worker may take to answer


class Job(NamedTuple):
    """One run of a chapter."""

    slug: str
    profile: str
    seed: int

    def __str__(self) -> str:
        return f"{self.slug}, profile {self.profile}, seed {self.seed}"

    @property
    def notebook(self) -> Path:
        """Where the executed notebook goes, below a folder of builds."""
        return Path("_build") / "runs" / f"{self.slug}-{self.profile}-{self.seed}.ipynb"


class Code(NamedTuple):
    """What runs in a process: whose code, on which kind of device."""

    commit: str
    files: str
    device: str


def code() -> Code:
    """What this process would run."""
    found = hashlib.sha256()
    for kind in ("iclrtut/**/*.py", "book/chapters/*.md"):
        for file in sorted(TREE.glob(kind)):
            found.update(file.read_bytes())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Code(commit(), found.hexdigest()[:8], device)


# On the caller's side


@contextmanager
def connected(scheduler: str | None, processes: int) -> Iterator["Client"]:
    """A client of a scheduler, or of a cluster of processes made for the purpose.

    Args:
        scheduler: its address; None starts workers on this machine.
        processes: how many.

    Raises:
        BadRequest: Dask is not installed, or nobody answers at that address.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise BadRequest(
            "runs are handed out by Dask, which is missing: pip install distributed."
        ) from None
    if scheduler is None:
        with (
            LocalCluster(
                n_workers=processes,
                threads_per_worker=1,
                memory_limit=None,
                preload=__name__,
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client
        return
    try:
        with ThreadPoolExecutor(1) as apart:  # here a loop may be running
            apart.submit(asyncio.run, _greeted(scheduler)).result()
    except ValueError as error:
        raise BadRequest(
            f"{scheduler!r} is no address of a scheduler ({error}): write it like "
            "tcp://192.168.0.7:8786."
        ) from None
    except OSError:
        raise BadRequest(
            f"no scheduler answers at {scheduler} within {PATIENCE} s: start one with "
            "'dask scheduler', which prints its address."
        ) from None
    with Client(scheduler) as client:
        yield client


async def _greeted(scheduler: str) -> None:
    """Greet a scheduler; a client would wait for ever for one that does not speak."""
    from distributed import Security
    from distributed.comm.core import connect

    secrets = Security().get_connection_args("client")
    async with asyncio.timeout(PATIENCE):
        comm = await connect(scheduler, timeout=PATIENCE, **secrets)
        await comm.close()


def devices(client: "Client") -> set[str]:
    """The kinds of device that the workers have.

    Raises:
        BadRequest: there is no worker, or one of them has other code than the caller.
    """
    address = client.scheduler.address  # type: ignore[union-attr]
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
    except TimeoutError:
        raise BadRequest(
            f"no worker is connected to {address}: start one in a clone of the book, "
            f"with 'dask worker {address} --nthreads 1'."
        ) from None
    here, kinds = code(), set()
    for worker, found in client.run(code, on_error="return").items():
        if isinstance(found, BaseException):
            raise BadRequest(
                f"worker {worker} cannot run this version of iclrtut ({found}): start "
                f"it in a clone at commit {here.commit}."
            )
        if found[:2] != here[:2]:
            raise BadRequest(
                f"worker {worker} has iclrtut at commit {found.commit} (files "
                f"{found.files}) and this is {here.commit} (files {here.files}): "
                "check out the same commit on both."
            )
        kinds.add(found.device)
    return kinds


def run(
    client: "Client",
    jobs: Sequence[Job],
    work: Callable[[Job], Any],
    keep: Callable[[Job, Any], None],
) -> list[str]:
    """Hand out jobs, and keep what comes back as it comes.

    A job whose worker is lost goes to another, a few times; a job that fails is not
    repeated. When a worker dies, every job that it had counts as lost, so those that
    were lost too often are tried again, each alone, before they are given up.

    Args:
        client: of the scheduler.
        jobs: what to do.
        work: what a worker does with a job.
        keep: what the caller does with a job and its result.

    Returns:
        What went wrong, a text a failed job; empty when all went well.
    """
    from distributed import CancelledError, KilledWorker, as_completed
    from tqdm import tqdm

    futures = {client.submit(work, job, pure=False): job for job in jobs}
    failed, accused = [], []
    with tqdm(total=len(jobs), desc="chapters", disable=None) as bar:
        for future in as_completed(list(futures)):
            job, said = futures.pop(future), ""
            try:
                keep(job, future.result())
            except (BadRequest, RunFailed) as error:
                said = str(error)
            except KilledWorker as error:
                lost = error.allowed_failures + 1
                said = f"{job}: {lost} workers died over it: look at their memory."
                if len(jobs) > 1:
                    accused.append(job)
                    continue
            except CancelledError:
                said = f"{job}: the scheduler is gone: start it and run this again."
            except Exception as error:
                said = f"{job}: {type(error).__name__}: {error}"
            finally:
                future.release()  # or it is made again when its worker dies
            bar.write(f"{job}: {'failed' if said else 'done'}")
            bar.update()
            failed += [said] if said else []
    return failed + [text for job in accused for text in run(client, [job], work, keep)]


def record(client: "Client", jobs: Sequence[Job], root: Path, again: bool) -> None:
    """Run the jobs that have no record yet, and write records and notebooks here.

    Args:
        client: of the scheduler.
        jobs: chapters, profiles and seeds.
        root: the folder of records.
        again: measure anew what this commit has measured already.

    Raises:
        BadRequest: the workers do not fit.
        RunFailed: some jobs failed; it says which, and why.
    """
    kinds, here = devices(client), commit()
    new = [job for job in jobs if again or not recorded(job, root, kinds, here)]
    if len(new) < len(jobs):
        print(
            f"{len(jobs) - len(new)} of {len(jobs)} are recorded already in {root}, at "
            "this commit; --again measures them anew."
        )

    def keep(job: Job, result: tuple[dict[str, Any], bytes]) -> None:
        made, notebook = result
        if made["commit"] != here:
            raise RunFailed(
                f"{job}: a worker measured it at commit {made['commit']}, not at "
                f"{here}, so it is not kept: check out the same commit there."
            )
        write_atomic(job.notebook, notebook)
        records.write(root, made)

    failed = run(client, new, measured, keep)
    if failed:
        raise RunFailed(
            "\n".join([f"{len(failed)} of {len(new)} runs failed.", *failed])
        )


def recorded(job: Job, root: Path, kinds: set[str], by: str) -> bool:
    """Whether a valid record of this job, made by this commit, is there.

    Files that were changed since the commit (`+`) may have changed again since.
    """
    if by.endswith("+"):
        return False
    for kind in kinds:
        file = records.path(
            root, {**job._asdict(), "chapter": job.slug, "device": kind}
        )
        try:
            if records.read(file)["commit"] == by:
                return True
        except (BadRequest, RunFailed):
            continue
    return False


# On the worker's side


def dask_setup(worker: Any) -> None:
    """Leave Ctrl+C to the caller, whose workers are told to end; Dask calls this."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def measured(job: Job) -> tuple[dict[str, Any], bytes]:
    """Execute a chapter here: its record and its notebook."""
    with tempfile.TemporaryDirectory() as folder:
        notebook = executed(job, ICLRTUT_RECORDS=folder)
        (made,) = records.read_all(Path(folder))
    return made, notebook


def executed(job: Job, **extra: str) -> bytes:
    """Execute a chapter here, in a process of its own with one thread: its notebook.

    The process ends when its input is closed: when this one dies, or leaves the block
    because the scheduler no longer wants the job.

    Args:
        job: what to execute.
        extra: environment variables to add.

    Raises:
        RunFailed: a cell failed, or the job was called off.
    """
    target = TREE / job.notebook
    words = [sys.executable, "-m", "iclrtut.commands.execute", *map(str, job)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | extra
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        with subprocess.Popen(
            [*words, str(target)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
        ) as process:
            while _running(process):
                if not _wanted():
                    raise RunFailed(f"{job}: called off.")
        if process.returncode:
            said.seek(0)
            raise RunFailed(said.read().strip() or f"{job}: its process died.")
    return target.read_bytes()


def _running(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process runs; waits for its end a little."""
    try:
        process.wait(0.3)
    except subprocess.TimeoutExpired:
        return True
    return False


def _wanted() -> bool:
    """Whether the scheduler still wants what this thread of a worker is at."""
    from distributed import get_worker

    worker = get_worker()
    task = worker.state.tasks.get(worker.get_current_task())
    return task is not None and task.state == "executing"
