"""Files that are whole: the old one or the new one, whatever happens in between."""

import errno
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from iclrtut.errors import RunFailed

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


def write_atomic(path: Path, data: bytes) -> None:
    """Put `data` at `path`, over an older file if there is one, whole or not at all.

    Missing folders are made.

    Raises:
        RunFailed: the disk is full, or the place cannot be written.
    """
    with replacing(path, len(data)) as draft:
        draft.write_bytes(data)


@contextmanager
def replacing(path: Path, size: int | None = None) -> Iterator[Path]:
    """A draft beside `path` that takes its place when the block ends well.

    The draft is on the disk (fsync) before it replaces the file in one step, and is
    removed when the block raises. Two writers at once leave the file of the later one.

    Args:
        path: the file to replace or to make; missing folders are made.
        size: bytes to be written, where known, for the sentence about a full disk.

    Raises:
        RunFailed: the disk is full, or the place cannot be written.
    """
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
    with explained(path, "written", size):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield draft
            _to_disk(draft)
            os.replace(draft, path)
            _to_disk(path.parent)
        finally:
            draft.unlink(missing_ok=True)


@contextmanager
def explained(path: Path, done: str, size: int | None = None) -> Iterator[None]:
    """Turn what the system says against a file into one sentence with the remedy.

    Args:
        path: the file at stake.
        done: what is done to it: "read" or "written".
        size: bytes to be written, where known.

    Raises:
        RunFailed: in place of any OSError of the system's.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise RunFailed(_sentence(error, path, done, size)) from error


def check_writable(folder: Path) -> None:
    """Make a folder where it is missing, and try whether a file can be made in it.

    Raises:
        RunFailed: it cannot.
    """
    with explained(folder, "written"):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        RunFailed: the file cannot be read.
    """
    with explained(path, "read"), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _to_disk(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sentence(error: OSError, path: Path, done: str, size: int | None) -> str:
    if error.errno in FULL:
        needs = f"needs {size:,} bytes" if size else "does not fit"
        return (
            f"{path} {needs} and {_free(path):,} are free: free some space on that "
            "disk, or name a folder on another one."
        )
    if error.errno in FORBIDDEN:
        return (
            f"{path} cannot be {done} ({error.strerror}): allow it for this user, "
            "or name another folder."
        )
    if error.errno in {errno.EISDIR, errno.ENOTDIR, errno.EEXIST}:
        blocker = str(error.filename2 or error.filename)
        what = "a folder of that name" if blocker == str(path) else blocker
        return (
            f"{path} cannot be {done} because {what} is in the way ({error.strerror}): "
            "move that away, or name another folder."
        )
    return (
        f"{path} cannot be {done} ({error.strerror}): look at its folder, or name "
        "another one."
    )


def _free(path: Path) -> int:
    try:
        return shutil.disk_usage(path.parent).free
    except OSError:
        return 0
