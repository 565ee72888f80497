"""What workers do in the tests of sweeps; they import it by its name."""

import os
import time
import uuid
from pathlib import Path

import psutil
import toy

from iclrtut.errors import RunFailed


def measure(folder: Path, job):
    """Note that the job was begun and by whom, wait while it is held, bring a record.

    A job whose seed has a file `fail-<seed>` fails, `die-<seed>` kills its worker, and
    `hold-<seed>` makes it wait until that file is gone.
    """
    (folder / f"begun-{job.seed}-{os.getpid()}-{uuid.uuid4().hex[:6]}").touch()
    if (folder / f"die-{job.seed}").exists():
        psutil.Process().kill()
    if (folder / f"fail-{job.seed}").exists():
        raise RunFailed(f"{job}: cell 7 raised ValueError: no")
    while (folder / f"hold-{job.seed}").exists():
        time.sleep(0.02)
    return toy.record(profile=job.profile, seed=job.seed), b"a notebook"


def stumble(job):
    """Raise what no work should."""
    raise KeyError(job.seed)
