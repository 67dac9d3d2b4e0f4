"""The project's menu: ``nox -s ablate -- --grid NAME``, ``nox -s tests``, and what else a developer runs."""

import os
import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "typecheck", "tests"]

ENVIRONMENT = Path(".nox", "gan-ablate")
BIN = ENVIRONMENT / ("Scripts" if sys.platform == "win32" else "bin")


def run_in_environment(session: nox.Session, program: str, *arguments: str) -> None:
    """Run a program in the one environment that all sessions with PyTorch share: it fills gigabytes."""
    uv = (sys.executable, "-m", "uv")
    if not BIN.is_dir():
        session.run(*uv, "venv", "--quiet", "--python", sys.executable, str(ENVIRONMENT))
    session.run(*uv, "pip", "install", "--quiet", "--python", str(BIN / "python"), "-e", ".", "--group", "dev")
    session.run(str(BIN / program), *arguments)


def install_extra(session: nox.Session, extra: str) -> None:
    """Add what one of the package's extras needs to the environment that all sessions share."""
    run_in_environment(session, "python", "-c", "")
    uv = (sys.executable, "-m", "uv")
    session.run(*uv, "pip", "install", "--quiet", "--python", str(BIN / "python"), "-e", f".[{extra}]")


@nox.session(python=False)
def ablate(session: nox.Session) -> None:
    """Train, score and report a grid: nox -s ablate -- --grid bn_label_smooth."""
    run_in_environment(session, "gan-ablate", "run", *session.posargs)


@nox.session(python=False)
def tests(session: nox.Session) -> None:
    """Run the tests, a process per core; arguments go to pytest, as in nox -s tests -- -m "not slow"."""
    # A thread each: more would wait for one another.
    os.environ["OMP_NUM_THREADS"] = "1"
    run_in_environment(
        session, "pytest", "--numprocesses=auto", "--dist=worksteal", "--benchmark-disable", *session.posargs
    )


@nox.session(python=False)
def typecheck(session: nox.Session) -> None:
    """Check types, strictly."""
    run_in_environment(session, "mypy")


@nox.session(python=False)
def bench(session: nox.Session) -> None:
    """Time every preset's training step against the loop that tutorials print; write results/speed.md."""
    run_in_environment(session, "python", "-m", "bench.speed", *session.posargs)


@nox.session(python=False)
def bench_gpu(session: nox.Session) -> None:
    """Time every preset's training step on a GPU; write results/gpu.md."""
    run_in_environment(session, "python", "-m", "bench.gpu", *session.posargs)


@nox.session(python=False)
def simulations(session: nox.Session) -> None:
    """Put the statistics to the test on data whose truth is known; write results/statistics.md."""
    run_in_environment(session, "python", "-m", "bench.simulations", *session.posargs)


@nox.session(python=False)
def extractors(session: nox.Session) -> None:
    """Score a grid's generators with retrained classifiers: nox -s extractors -- --data-dir DIR."""
    run_in_environment(session, "python", "-m", "bench.extractors", *session.posargs)


@nox.session(python=False)
def certainty(session: nox.Session) -> None:
    """Draw studies from many finished seeds of a grid and count what certainty costs; write results/certainty.md."""
    run_in_environment(session, "python", "-m", "bench.certainty", *session.posargs)


@nox.session(python=False)
def ray(session: nox.Session) -> None:
    """Compute runs on a Ray cluster of two nodes on this host, and lose one."""
    install_extra(session, "ray")
    run_in_environment(session, "pytest", "--benchmark-disable", "tests/execution/test_ray.py", *session.posargs)


@nox.session(python=False)
def slurm(session: nox.Session) -> None:
    """Compute runs on a Slurm of one node, set up for it; needs root, and Debian's slurm-wlm and munge."""
    install_extra(session, "slurm")
    tests = ("pytest", "--benchmark-disable", "tests/execution/test_slurm.py")
    run_in_environment(session, "python", "-m", "bench.single_node_slurm", *tests, *session.posargs)


@nox.session(python=False)
def chaos(session: nox.Session) -> None:
    """Kill, crowd and fill up a grid at random, and compare its records with those of one left in peace."""
    os.environ["GAN_ABLATE_KILLS"] = "20"
    run_in_environment(session, "pytest", "--benchmark-disable", "tests/execution/test_checkpoint.py", "-k", "killed")
    run_in_environment(session, "python", "-m", "bench.chaos", *session.posargs)


@nox.session(python=False)
def mutation(session: nox.Session) -> None:
    """Change code in thousands of small ways, list what no test notices: nox -s mutation -- "*losses*"; takes hours."""
    run_in_environment(session, "python", "-c", "")
    uv = (sys.executable, "-m", "uv")
    session.run(*uv, "pip", "install", "--quiet", "--python", str(BIN / "python"), "--group", "mutation")
    os.environ["OMP_NUM_THREADS"] = "1"
    run_in_environment(session, "mutmut", "run", *session.posargs)
    run_in_environment(session, "mutmut", "results")


@nox.session(python=False)
def assets(session: nox.Session) -> None:
    """Rebuild the embedded digits and classifiers: nox -s assets -- --data-dir DIR [--download]."""
    run_in_environment(session, "python", "-m", "bench.assets", *session.posargs)


@nox.session(python=False)
def latex(session: nox.Session) -> None:
    """Typeset the tables for papers with Debian's texlive-latex-extra, which is installed where it is missing."""
    if shutil.which("pdflatex") is None:
        session.run("apt-get", "install", "-qq", "-y", "--no-install-recommends", "texlive-latex-extra", external=True)
    run_in_environment(session, "pytest", "tests/reporting/test_exports.py", "-k", "typeset", *session.posargs)


@nox.session(reuse_venv=True)
def lint(session: nox.Session) -> None:
    """Check style, formatting and which module may import which; with -- --fix, mend style and formatting."""
    session.install("--group", "lint")
    fix = "--fix" in session.posargs
    session.run("ruff", "check", *(["--fix"] if fix else []), ".")
    session.run("ruff", "format", *([] if fix else ["--check"]), ".")
    session.run("lint-imports", "--no-cache")
