"""Work for the tests of sweeps; workers import it by its name."""

import os
import time
import uuid
from pathlib import Path

import psutil
import toy

from iclrtut.commands import sweep
from iclrtut.errors import RunFailed


def measure(folder: Path, job):
    """Note which process began a job, and return a record and a notebook.

    With a file `hold-<seed>` it waits until that file is gone, with `die-<seed>` it
    kills its worker, and with `fail-<seed>` it fails.
    """
    (folder / f"begun-{job.seed}-{os.getpid()}-{uuid.uuid4().hex[:6]}").touch()
    sweep._report(job, "cell 2 of 9\n")
    while (folder / f"hold-{job.seed}").exists():
        time.sleep(0.02)
    if (folder / f"die-{job.seed}").exists():
        psutil.Process().kill()
    if (folder / f"fail-{job.seed}").exists():
        raise RunFailed(f"{job}: cell 7 raised ValueError: no")
    return toy.record(profile=job.profile, seed=job.seed), b"a notebook"


def older(caller: int):
    """A version that only the calling process knows."""
    if os.getpid() != caller:
        raise ModuleNotFoundError("No module named 'iclrtut.commands'")
    return "commit abc", "cpu"
