"""The program's own process: it ends with its code, and what waits for its end still runs."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

START = "import gan_ablate.__main__ as program\nprogram.main = main\nprogram.start()\n"


def end_of(main: str) -> subprocess.CompletedProcess[str]:
    """Run a program whose command line is replaced by some lines of code."""
    return subprocess.run([sys.executable, "-c", main + START], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.slow
def test_exit_functions_run_and_all_output_is_there() -> None:
    ended = end_of("""
import atexit, sys
atexit.register(print, "the last line")
def main():
    print("x" * 100_000)
    sys.exit(3)
""")
    assert (ended.returncode, ended.stderr) == (3, "")
    assert ended.stdout == "x" * 100_000 + "\nthe last line\n"


@pytest.mark.slow
def test_a_thread_is_waited_for() -> None:
    ended = end_of("""
import threading, time
def late():
    time.sleep(0.3)
    print("late")
def main():
    threading.Thread(target=late).start()
""")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "late\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("way", ["open", "gzip.open"])
def test_open_files_get_what_was_written_to_them(way: str, tmp_path: Path) -> None:
    """Such as the log of a user's extractor; a compressed one has a last line of its own."""
    log = tmp_path / "log"
    ended = end_of(f"import gzip\nlog = {way}({str(log)!r}, 'wb')\ndef main():\n    log.write(b'a line')\n")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (log.read_bytes() if way == "open" else gzip.decompress(log.read_bytes())) == b"a line"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["sys.stdout = None", "sys.stderr = None", "sys.stdout.close()"])
def test_a_stream_that_is_closed_changes_no_exit_code(how: str) -> None:
    """As cron and daemons start programs."""
    ended = end_of(f"import sys\ndef main():\n    {how}\n    sys.exit(2)\n")
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", "")


@pytest.mark.slow
@pytest.mark.parametrize("watcher", [["cProfile", "-o", "seen"], ["trace", "--count", "--coverdir=seen"]])
def test_what_watches_a_program_writes_what_it_saw(watcher: list[str], tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("def main():\n    pass\n" + START)
    subprocess.run([sys.executable, "-m", *watcher, "program.py"], capture_output=True, check=True, timeout=60)
    assert (tmp_path / "seen").exists()


@pytest.mark.slow
def test_an_error_of_ours_keeps_its_traceback() -> None:
    ended = end_of("def main():\n    raise ZeroDivisionError\n")
    assert ended.returncode == 1
    assert ended.stderr.endswith("ZeroDivisionError\n")


@pytest.mark.slow
def test_what_was_imported_is_not_taken_apart() -> None:
    """A module's objects are deleted where a program ends in Python's own way, which takes a second with PyTorch."""
    ended = end_of("""
class Loud:
    def __del__(self):
        print("taken apart")
loud = Loud()
def main():
    pass
""")
    assert (ended.returncode, ended.stdout) == (0, "")
