from __future__ import annotations

import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

import gan_ablate
from gan_ablate.errors import UserError, describe_exit, option


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "exit code 0"),
        (3, "exit code 3"),
        (None, "exit code None"),
        (-signal.SIGTERM, "signal SIGTERM"),
        (-signal.SIGKILL, "signal SIGKILL; out of memory?"),
        (-500, "signal SIGRTMIN+466"),
    ],
)
def test_an_exit_is_described_by_its_code_or_its_signal(code: int | None, words: str) -> None:
    assert describe_exit(code) == words


@pytest.mark.skipif(not hasattr(signal, "SIGRTMIN"), reason="this system has no real-time signals")
def test_every_signal_of_the_system_has_a_name() -> None:
    """Python has no name for most real-time signals; a shell has."""
    for number in (*range(1, signal.SIGRTMIN + 1), *range(signal.SIGRTMIN, signal.NSIG)):
        assert describe_exit(-number).startswith("signal ")
    named = subprocess.run(["bash", "-c", "kill -l 37"], capture_output=True, text=True, check=True).stdout.strip()
    assert describe_exit(-37) == f"signal SIG{named.removeprefix('SIG')}"


def test_a_process_that_a_real_time_signal_ends_is_described() -> None:
    script = "import os, signal; os.kill(os.getpid(), signal.SIGRTMIN + 3)"
    ended = subprocess.run([sys.executable, "-c", script], check=False)
    assert describe_exit(ended.returncode) == "signal SIGRTMIN+3"


def test_a_message_names_parameters_in_python_and_options_on_the_command_line() -> None:
    error = UserError(f"{option('seeds', 0)}: valid: from 1; or {option('data_dir')}, {option('overrides', 'a=b')}")
    for same in (error, pickle.loads(pickle.dumps(error))):  # a worker sends it
        assert str(same) == "seeds=0: valid: from 1; or data_dir, overrides='a=b'"
        assert same.with_options == "--seeds 0: valid: from 1; or --data-dir, --set a=b"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gan_ablate.plan(gan_ablate.load_grid("beta1"), seeds=0), "seeds=0: valid: a whole number"),
        (lambda: gan_ablate.plan(gan_ablate.load_grid("beta1"), dataset="mnits"), "dataset='mnits': dataset = 'mnits'"),
        (lambda: gan_ablate.plan(gan_ablate.load_grid("beta1"), overrides=["x"]), "overrides='x': valid: path=value"),
        (lambda: gan_ablate.plan("beta1"), "grid='beta1': valid: what load_grid returns"),  # type: ignore[arg-type]
        (lambda: gan_ablate.load_grid("beta2"), "name='beta2': no such grid; did you mean beta1"),
        (lambda: gan_ablate.Compute(jobs=0), "jobs=0: valid"),
        (lambda: gan_ablate.write_report("nowhere"), "out='nowhere': no grid was run"),
    ],
)
def test_public_functions_name_their_parameters(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        call()
    assert "--" not in str(caught.value).replace("--grid NAME", "")
