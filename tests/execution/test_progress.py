from __future__ import annotations

import dataclasses
import io
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from gan_ablate.execution import progress as progress_module
from gan_ablate.execution.context import Progress
from gan_ablate.execution.progress import Display, PhaseDisplay, format_duration
from gan_ablate.execution.records import Record
from tests.configs import make_config

CONFIG = make_config(steps=100)
PROGRESS = Progress(CONFIG.run_id, 50, 12.5, 0.7, 1.4, 33.0, 40)


def display_on(console: Console, num_done: int) -> Display:
    display = Display(console, "A grid: 4 runs", {CONFIG.run_id: "batch norm on"}, num_done=num_done, jobs=2)
    display.expect({CONFIG.run_id: 60.0})
    return display


def show(console: Console, *, failed: bool = False) -> None:
    with display_on(console, num_done=3) as display:
        display.started(CONFIG)
        display.tick()
        display.progressed(PROGRESS)
        display.tick()
        status = "failed" if failed else "completed"
        message = "RuntimeError: [planted]" if failed else ""
        display.finished(
            Record(run_id=CONFIG.run_id, status=status, message=message, config=CONFIG)  # type: ignore[arg-type]
        )


def test_plain_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "PLAIN_EVERY_SEC", 0.0)
    output = io.StringIO()
    show(Console(file=output, width=50))
    lines = output.getvalue().splitlines()
    assert "batch norm on, seed 0: starting" in lines
    samples = CONFIG.scoring.curve_samples
    fid = f"FID 33.0 at 40 on {samples:,} images"
    assert f"batch norm on, seed 0: step 50/100, 12.5 it/s, D 0.700, G 1.400, {fid}" in lines
    assert lines[-1].startswith("[4/4] completed batch norm on, seed 0: not scored")
    assert "\x1b" not in output.getvalue()


def test_advice_stays_above_the_runs() -> None:
    output = io.StringIO()
    with display_on(Console(file=output), num_done=3) as display:
        display.advised(["In bfloat16 it takes half."])
    assert output.getvalue().splitlines() == ["A grid: 4 runs", "In bfloat16 it takes half."]


def test_a_quiet_log_stays_short() -> None:
    output = io.StringIO()
    show(Console(file=output))
    assert len(output.getvalue().splitlines()) == 2


def test_a_terminal_sees_the_bar() -> None:
    output = io.StringIO()
    show(Console(file=output, force_terminal=True, width=140))
    for words in ("runs", "4/4", "completed batch norm on"):
        assert words in output.getvalue()


def test_the_live_table_has_a_line_per_running_variant() -> None:
    output = io.StringIO()
    console = Console(file=output, width=140)
    display = display_on(console, num_done=0)
    display.started(CONFIG)
    display.progressed(PROGRESS)
    console.print(display.render())
    for words in ("0/1", "batch norm on, seed 0", "step 50/100", "12.5 it/s", "D 0.700", "G 1.400", "FID 33.0", "left"):
        assert words in output.getvalue()


def test_a_run_whose_training_is_over_is_being_scored() -> None:
    output = io.StringIO()
    console = Console(file=output, width=140)
    display = display_on(console, num_done=0)
    display.started(CONFIG)
    display.progressed(dataclasses.replace(PROGRESS, step=100))
    console.print(display.render())
    assert "scoring" in output.getvalue()
    assert "it/s" not in output.getvalue()


def test_a_failure_is_told_with_its_words() -> None:
    output = io.StringIO()
    show(Console(file=output), failed=True)
    assert "failed    batch norm on, seed 0: RuntimeError: [planted]" in output.getvalue()


@pytest.mark.parametrize(("seconds", "words"), [(45, "45 s"), (480, "8 min"), (7_800, "2 h 10 min")])
def test_durations_read_as_people_say_them(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words


@pytest.mark.parametrize(("is_calibrated", "words"), [(True, "30 s left"), (False, "")])
def test_no_time_is_told_before_there_is_one(words: str, *, is_calibrated: bool) -> None:
    console = Console(file=io.StringIO(), width=140)
    display = Display(console, "", {}, num_done=0, jobs=2, is_calibrated=is_calibrated)
    display.expect({CONFIG.run_id: 60.0})
    display.started(CONFIG)
    console.print(display.render())
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().count(words or "left") == (1 if words else 0)


class Output:
    """Stands in for an output of a notebook."""

    def __init__(self) -> None:
        self.pages: list[str] = []

    def update(self, page: str) -> None:
        self.pages.append(page)


@pytest.fixture
def outputs(monkeypatch: pytest.MonkeyPatch) -> list[Output]:
    """Stand in for a notebook, and keep its outputs."""
    outputs: list[Output] = []

    def display(*_: object, **options: object) -> Output | None:
        if not options.get("display_id"):  # a line that stays
            return None
        outputs.append(Output())
        return outputs[-1]

    ipython = SimpleNamespace(display=SimpleNamespace(HTML=str, display=display))
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython.display)
    return outputs


def test_a_notebook_sees_one_bar_that_is_replaced(monkeypatch: pytest.MonkeyPatch, outputs: list[Output]) -> None:
    monkeypatch.setattr(progress_module, "NOTEBOOK_EVERY_SEC", -1.0)
    show(Console(force_jupyter=True, width=100))
    (output,) = outputs
    assert output.pages[0].startswith("<pre>")
    assert "batch norm on, seed 0" in output.pages[0]
    assert "step 50/100" in output.pages[1]
    assert "4/4" in output.pages[-1]


def test_the_header_comes_at_once_and_what_is_prepared_once_without_a_terminal() -> None:
    output = io.StringIO()
    with display_on(Console(file=output), num_done=0) as display:
        assert output.getvalue() == "A grid: 4 runs\n"
        for done in range(3):
            display.preparing("Timing steps", done, 2)
        display.preparing("Loading mnist", 0, 1)
        assert output.getvalue().splitlines() == ["A grid: 4 runs", "Timing steps …", "Loading mnist …"]


def test_a_terminal_sees_how_far_the_preparations_are() -> None:
    output = io.StringIO()
    with PhaseDisplay(Console(file=output, force_terminal=True, width=80)) as display:
        display.preparing("Timing [steps]", 0, 7)
        display.preparing("Timing [steps]", 3, 7)
        display._bar.refresh()
    assert "Timing [steps]" in output.getvalue()
    assert "3/7" in output.getvalue()


def test_a_notebook_sees_how_far_the_preparations_are(outputs: list[Output]) -> None:
    with PhaseDisplay(Console(force_jupyter=True, width=100)) as display:
        display.preparing("Timing [steps]", 0, 7)
        display.preparing("Timing [steps]", 3, 7)  # less than half a second later
        display.preparing("Timing [steps]", 7, 7)
        display.preparing("Loading mnist", 0, 1)
    (output,) = outputs
    assert ["Timing [steps]" in page for page in output.pages] == [True, True, False, False]
    assert ["0/7" in output.pages[0], "7/7" in output.pages[1], "Loading mnist" in output.pages[2]] == [True] * 3
    assert output.pages[-1] == ""


def test_a_notebook_s_runs_follow_its_preparations(outputs: list[Output]) -> None:
    with display_on(Console(force_jupyter=True, width=100), num_done=3) as display:
        display.preparing("Timing steps", 0, 7)
        display.started(CONFIG)
        display.preparing("Timing steps", 1, 7)
    preparations, runs = outputs
    assert "Timing steps" in preparations.pages[0]
    assert preparations.pages[1:] == [""]
    assert len(runs.pages) == 1


@pytest.mark.parametrize(("step", "share"), [(50, 0.5), (100, 0.95)])
def test_the_bar_moves_within_a_run(step: int, share: float) -> None:
    display = display_on(Console(file=io.StringIO()), num_done=3)
    display.started(CONFIG)
    display.progressed(dataclasses.replace(PROGRESS, step=step))
    display.render()
    assert display._bar.tasks[0].completed == pytest.approx(3 + share)
    display.finished(Record(run_id=CONFIG.run_id, status="completed", config=CONFIG))
    display.render()
    assert display._bar.tasks[0].completed == 4
