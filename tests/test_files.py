"""Files are the old one whole or the new one whole."""

import errno
import hashlib
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iclrtut.errors import RunFailed
from iclrtut.files import check_writable, replacing, sha256, write_atomic

MEGABYTE = 2**20


def names(folder):
    return sorted(file.name for file in folder.iterdir())


@given(st.binary(max_size=1000))
@settings(max_examples=20)
def test_what_was_written_is_read_and_hashed(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("files") / "deep" / "er" / "file"
    write_atomic(path, b"older")
    write_atomic(path, data)
    assert path.read_bytes() == data
    assert sha256(path) == hashlib.sha256(data).hexdigest()
    assert names(path.parent) == ["file"]


def test_permissions_are_those_of_an_ordinary_file(tmp_path):
    (tmp_path / "plain").touch()
    write_atomic(tmp_path / "file", b"x")
    modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert len(modes) == 1


def test_a_block_that_raises_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"old")
    with pytest.raises(KeyError), replacing(path) as draft:
        draft.write_bytes(b"half")
        raise KeyError
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_full_disk_leaves_the_old_file_and_names_the_bytes(full_disk):
    path = full_disk / "file"
    write_atomic(path, b"old")
    with pytest.raises(RunFailed, match=r"file needs 1,048,576 bytes and .* free"):
        write_atomic(path, b"x" * MEGABYTE)
    with (
        pytest.raises(RunFailed, match="does not fit and"),
        replacing(path) as draft,
    ):
        draft.write_bytes(b"x" * MEGABYTE)
    assert path.read_bytes() == b"old"
    assert names(full_disk) == ["file"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_quotas_and_limits_count_as_a_full_disk(tmp_path, code):
    with pytest.raises(RunFailed, match="free some space"), replacing(tmp_path / "f"):
        raise OSError(code, os.strerror(code))


def test_no_permission_is_told(locked_folder):
    with pytest.raises(RunFailed, match=r"locked/file cannot be written \(Permission"):
        write_atomic(locked_folder / "file", b"x")
    with pytest.raises(RunFailed, match=r"cannot be read \(Permission"):
        sha256(locked_folder / "file")


def test_what_is_in_the_way_is_told(tmp_path):
    (tmp_path / "folder").mkdir()
    named = r"folder cannot be written because a folder of that name is in the way"
    with pytest.raises(RunFailed, match=named):
        write_atomic(tmp_path / "folder", b"x")
    with pytest.raises(RunFailed, match="is in the way"):
        sha256(tmp_path / "folder")
    (tmp_path / "file").touch()
    with pytest.raises(RunFailed, match=f"because {tmp_path / 'file'} is in the way"):
        write_atomic(tmp_path / "file" / "below", b"x")
    assert names(tmp_path) == ["file", "folder"]


def test_a_folder_is_tried_before_it_is_needed(tmp_path):
    check_writable(tmp_path / "new" / "folder")
    assert names(tmp_path / "new" / "folder") == []
    (tmp_path / "file").touch()
    with pytest.raises(RunFailed, match="is in the way"):
        check_writable(tmp_path / "file")


def test_a_locked_folder_is_found_before_it_is_needed(locked_folder):
    with pytest.raises(RunFailed, match=r"cannot be written \(Permission"):
        check_writable(locked_folder)


def test_missing_file_is_told(tmp_path):
    with pytest.raises(RunFailed, match="nothing cannot be read"):
        sha256(tmp_path / "nothing")


def test_a_download_that_breaks_off_is_not_taken_for_the_disk(tmp_path):
    from requests import ConnectionError

    with pytest.raises(ConnectionError), replacing(tmp_path / "file"):
        raise ConnectionError("gone")


def _write_many(path, letter):
    for _ in range(100):
        write_atomic(path, letter * MEGABYTE)


def test_two_writers_at_once_leave_a_whole_file(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"a" * MEGABYTE)
    context = multiprocessing.get_context("spawn")
    writers = [
        context.Process(target=_write_many, args=(path, letter))
        for letter in (b"a", b"b")
    ]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        data = path.read_bytes()
        assert (len(data), len(set(data))) == (MEGABYTE, 1)
        seen.add(data[:1])
    assert seen == {b"a", b"b"}
    assert names(tmp_path) == ["file"]
    assert [writer.exitcode for writer in writers] == [0, 0]


WRITER = """
import itertools, sys
from pathlib import Path
from iclrtut.files import write_atomic
for i in itertools.count():
    write_atomic(Path(sys.argv[1]), bytes([i % 251]) * 2**20)
"""


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL there")
def test_sigkill_at_any_moment_leaves_a_whole_file(tmp_path):
    path = tmp_path / "file"
    for round in range(6):
        path.unlink(missing_ok=True)
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)])
        while not path.exists():
            time.sleep(0.005)
        time.sleep(0.0137 * round)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        data = path.read_bytes()
        assert (len(data), len(set(data))) == (MEGABYTE, 1)
