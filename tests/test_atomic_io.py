from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from gan_ablate.atomic_io import lease, write_atomically
from gan_ablate.execution.executors.worker import start_process


def test_a_link_stays_and_its_file_is_written(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "scores.csv", tmp_path / "scores.csv"
    target.write_text("old")
    link.symlink_to(target)
    write_atomically(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["scores.csv"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_atomically(pipe, "content")
        assert os.read(reader, 100) == b"content"
    finally:
        os.close(reader)
    assert pipe.is_fifo()


def test_a_folder_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path / "scores.csv", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]


def test_lease_has_one_holder_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "run" / ".lease"
    with lease(path) as mine:
        with lease(path) as theirs:
            assert (mine, theirs) == (True, False)
        with lease(path) as still_not:
            assert not still_not
    with lease(path) as afterwards:
        assert afterwards


def hold_until_killed(path: Path, sign: Path) -> None:
    with lease(path) as is_ours:
        sign.write_text(str(is_ours))
        os.kill(os.getpid(), 9)


def test_lease_ends_with_its_holder(tmp_path: Path) -> None:
    holder = start_process(hold_until_killed, tmp_path / ".lease", tmp_path / "sign")
    holder.join()
    assert (tmp_path / "sign").read_text() == "True"
    with lease(tmp_path / ".lease") as is_ours:
        assert is_ours


def refuse_with(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_lease_without_file_locks_is_granted_to_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    refuse_with(monkeypatch, number)
    with lease(tmp_path / ".lease") as mine, lease(tmp_path / ".lease") as theirs:
        assert (mine, theirs) == (True, True)


def test_other_errors_of_a_lease_are_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_with(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)), lease(tmp_path / ".lease"):
        raise AssertionError("it was given")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "record.json"
    write_atomically(path, "old")

    def full(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["record.json"]  # noqa: PTH208 (hidden files too)


def test_files_can_be_read_by_others(tmp_path: Path) -> None:
    """A temporary file is its owner's alone; a results folder is shared."""
    write_atomically(tmp_path / "record.json", "x")
    assert (tmp_path / "record.json").stat().st_mode & 0o777 == 0o644
