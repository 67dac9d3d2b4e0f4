"""The progress displays: a bar and a line for every run under way, and a bar for what comes before and after."""

from __future__ import annotations

import io
import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from gan_ablate.design.external import ExternalConfig
from gan_ablate.execution.context import RunObserver

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from rich.console import RenderableType

    from gan_ablate.design.external import AnyConfig
    from gan_ablate.design.plan import Plan
    from gan_ablate.execution.context import Progress as RunProgress
    from gan_ablate.execution.records import Record


def open_console() -> Console:
    """Open a console that prints titles, labels and paths as they are: brackets in them are no markup."""
    return Console(markup=False, emoji=False)


NOTEBOOK_EVERY_SEC = 0.5
NOTEBOOK_COLUMNS = 110
"""Characters in a line of a notebook's output; a longer one wraps."""

PLAIN_EVERY_SEC = 15.0
"""Seconds between two lines where there is no terminal: a log of a ten-minute grid stays a page long."""


class NotebookView:
    """What ``rich.live.Live`` is in a terminal, in a notebook: one output that is replaced, without ipywidgets.

    Args:
        console: the notebook's; lines that stay are printed on it, below the output.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._handle: Any = None
        self._shown_at = 0.0

    def start(self) -> None:
        """Show an empty output."""
        from IPython.display import HTML, display  # a notebook has it

        self._handle = display(HTML(""), display_id=True)

    def update(self, renderable: RenderableType, *, at_once: bool = False) -> None:
        """Replace the output, at most twice a second unless ``at_once``."""
        if self._handle is not None and (at_once or time.monotonic() - self._shown_at > NOTEBOOK_EVERY_SEC):
            self._show(renderable)

    def stop(self, renderable: RenderableType) -> None:
        """Replace the output for the last time."""
        if self._handle is not None:
            self._show(renderable)

    def clear(self) -> None:
        """Empty the output and leave it."""
        from IPython.display import HTML

        if self._handle is not None:
            self._handle.update(HTML(""))
        self._handle = None

    def _show(self, renderable: RenderableType) -> None:
        from IPython.display import HTML

        self._shown_at = time.monotonic()
        page = Console(record=True, file=io.StringIO(), width=NOTEBOOK_COLUMNS, force_jupyter=False)
        page.print(renderable)
        self._handle.update(HTML(page.export_html(inline_styles=True, code_format="<pre>{code}</pre>")))


MOST_OF_A_RUN = 0.95
"""The share of a run that is done when its steps are and its scores are not."""


class PhaseDisplay(RunObserver):
    """An observer that shows what is prepared before runs, and what is written after them: words and a bar.

    Args:
        console: the console; the bar moves, and goes away at the end, if it is a terminal or a notebook.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._notebook = NotebookView(console) if console.is_jupyter else None
        self._task: TaskID | None = None
        self._what = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Remove the bar."""
        if self._task is not None:
            if self._notebook is not None:
                self._notebook.clear()
            else:
                self._bar.stop()
            self._bar.remove_task(self._task)
        self._task, self._what = None, ""

    def preparing(self, what: str, done: int, total: int) -> None:
        """Show how far something is; without a terminal or a notebook, print only what it is, once."""
        is_new, self._what = what != self._what, what
        if self._notebook is None and not self._console.is_terminal:
            if is_new:
                self._console.print(f"{what} …", highlight=False, soft_wrap=True)
            return
        if self._task is None and self._notebook is not None:
            self._notebook.start()
        if is_new and self._task is not None:
            self._bar.remove_task(self._task)
        if is_new or self._task is None:
            self._task = self._bar.add_task(what)
        self._bar.update(self._task, completed=done, total=total or None)
        if self._notebook is not None:
            self._notebook.update(self._bar, at_once=is_new or done == total)
        else:
            self._bar.start()


class Display(RunObserver):
    """An observer that shows the progress of runs: a bar with the time left, and a line for every run under way.

    Args:
        console: the console; the display moves if it is a terminal.
        header: lines that are printed at once.
        labels: run id → the name of its variant.
        num_done: the number of runs that were finished before.
        jobs: how many runs are computed at once.
        is_calibrated: whether the runs' seconds were measured on this machine; if not, the time left is shown only
            after the first runs.
    """

    def __init__(
        self,
        console: Console,
        header: str,
        labels: Mapping[str, str],
        num_done: int,
        jobs: int,
        *,
        is_calibrated: bool = True,
    ) -> None:
        self._console, self._header = console, header
        self._labels, self._jobs, self._is_calibrated = labels, jobs, is_calibrated
        self._seconds: dict[str, float] = {}
        self._running: dict[str, tuple[AnyConfig, RunProgress | None]] = {}
        self._started_at = self._printed_at = time.monotonic()
        self._total_sec = 0.0
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self._task = self._bar.add_task("runs", total=num_done, completed=num_done, left="")
        self._live = _open_view(console)
        self._phase = PhaseDisplay(console)
        self._has_begun = False
        self._num_finished = num_done

    def __enter__(self) -> Self:
        if self._header:
            self._console.print(self._header, highlight=False, markup=False, soft_wrap=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exception: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._phase.stop()
        if self._live is not None and self._has_begun:
            self._live.stop(self._bar)

    def _begin(self) -> None:
        if self._has_begun:
            return
        self._has_begun = True
        self._phase.stop()
        if self._live is not None:
            self._live.start()

    def preparing(self, what: str, done: int, total: int) -> None:
        """Show what is measured or loaded before the first run."""
        if not self._has_begun:
            self._phase.preparing(what, done, total)

    def expect(self, seconds: Mapping[str, float]) -> None:
        """Add runs to the bar."""
        self._seconds |= seconds
        self._total_sec += sum(seconds.values())
        self._bar.update(self._task, total=(self._bar.tasks[0].total or 0) + len(seconds))

    def show(self, lines: Sequence[str], style: str | None = None) -> None:
        """Print lines that stay, above the bar."""
        self._begin()
        console = self._live.console if self._live else self._console
        for line in lines:
            console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)

    def advised(self, notes: Sequence[str]) -> None:
        """Print what would save time."""
        self.show(notes)

    def started(self, config: AnyConfig) -> None:
        """Add a line for a run."""
        self._begin()
        self._running[config.run_id] = (config, None)

    def noted(self, config: AnyConfig, words: str) -> None:
        """Print what happened to a run, and remove its line until it starts again."""
        self._running.pop(config.run_id, None)
        self.show([f"{self._name(config)}: {words}"])

    def progressed(self, progress: RunProgress) -> None:
        """Update a run's line."""
        if progress.run_id in self._running:  # a cluster may report progress after the run's end
            config, _ = self._running[progress.run_id]
            self._running[progress.run_id] = (config, progress)

    def finished(self, record: Record) -> None:
        """Replace a run's line by one that says how it ended."""
        self._running.pop(record.run_id, None)
        self._seconds.pop(record.run_id, None)
        self._num_finished += 1
        self._bar.update(self._task, completed=self._num_finished)
        final = record.scoring.final if record.scoring else None
        outcome = f"FID {final.fid:.2f}" if final else record.message or "not scored"
        task = self._bar.tasks[0]
        line = f"{record.status:9} {self._name(record.config)}: {outcome}, {record.total_sec:.0f} s"
        line += "".join(f"; {note}" for note in record.notes)
        if self._live is None:
            line = f"[{task.completed:.0f}/{task.total:.0f}] {line}{self._left_text(' · {} left')}"
            self._printed_at = time.monotonic()
        self.show([line], {"completed": "green", "diverged": "yellow", "failed": "red"}[record.status])

    def tick(self) -> None:
        """Redraw, or print a line for every running variant if the last ones are old."""
        if self._live is not None:
            self._live.update(self.render())
        elif time.monotonic() - self._printed_at > PLAIN_EVERY_SEC:
            self._printed_at = time.monotonic()
            for config, progress in self._running.values():
                line = f"{self._name(config)}: {', '.join(_texts(config, progress))}"
                self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def render(self) -> RenderableType:
        """Lay out the bar and a line for every run under way."""
        under_way = sum(self._share_done(config, progress) for config, progress in self._running.values())
        self._bar.update(self._task, completed=self._num_finished + under_way, left=self._left_text("{} left"))
        table = Table.grid(padding=(0, 2))
        for config, progress in self._running.values():
            table.add_row(self._name(config), *_texts(config, progress))
        return Group(self._bar, table)

    def _name(self, config: AnyConfig) -> str:
        return f"{self._labels.get(config.run_id, config.run_id)}, seed {config.seed}"

    @staticmethod
    def _share_done(config: AnyConfig, progress: RunProgress | None) -> float:
        """Return the share of a run that is done: its steps, of which scoring leaves a little."""
        return 0.0 if progress is None else min(MOST_OF_A_RUN, progress.step / (config.steps or math.inf))

    def _left_text(self, template: str) -> str:
        """Estimate the time left: the runs' expected seconds, scaled by the pace so far."""
        left_sec = sum(self._seconds.values())
        for config, progress in self._running.values():
            left_sec -= self._seconds.get(config.run_id, 0) * self._share_done(config, progress)
        done_sec, elapsed = self._total_sec - left_sec, time.monotonic() - self._started_at
        is_under_way = done_sec > 0.05 * self._total_sec
        if left_sec <= 0 or not (is_under_way or self._is_calibrated):
            return ""
        pace = elapsed / done_sec if is_under_way else 1 / self._jobs
        return template.format(format_duration(left_sec * pace))


class TerminalView(Live):
    """A live display in a terminal, whose last state stays."""

    def stop(self, renderable: RenderableType | None = None) -> None:
        """End with something to show."""
        if renderable is not None:
            self.update(renderable)
        super().stop()


def _open_view(console: Console) -> TerminalView | NotebookView | None:
    """Return what can be redrawn in a terminal or a notebook; None where there is neither."""
    if console.is_jupyter:
        return NotebookView(console)
    return TerminalView(console=console, refresh_per_second=4) if console.is_terminal else None


def format_duration(seconds: float) -> str:
    """Format a duration: ``45 s``, ``8 min``, ``2 h 10 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _texts(config: AnyConfig, progress: RunProgress | None) -> list[str]:
    if isinstance(config, ExternalConfig):
        return _texts_of_external(config, progress)
    if progress is None:
        return ["starting"]
    if progress.step == config.steps:
        return ["scoring"]
    samples = config.scoring.curve_samples
    fid = "" if progress.fid is None else f"FID {progress.fid:.1f} at {progress.fid_step:,} on {samples:,} images"
    return [
        f"step {progress.step}/{config.steps}",
        f"{progress.steps_per_sec:.1f} it/s",
        f"D {progress.loss_d:.3f}",
        f"G {progress.loss_g:.3f}",
        fid,
    ]


def _texts_of_external(config: ExternalConfig, progress: RunProgress | None) -> list[str]:
    """List the steps and losses that a script's log has."""
    if progress is None:
        return ["running"]
    losses = (("D", progress.loss_d), ("G", progress.loss_g))
    step = f"step {progress.step}/{config.steps}" if config.steps else f"step {progress.step}"
    known = [f"{name} {loss:.3f}" for name, loss in losses if math.isfinite(loss)]
    return [step, f"{progress.steps_per_sec:.1f} it/s", *known]


@contextmanager
def open_display(plans: Sequence[Plan], show: bool | None, num_jobs: int, device: str) -> Iterator[Display | None]:
    """Open a progress display.

    Args:
        plans: whose runs.
        show: whether to; None for where there is a terminal or a notebook.
        num_jobs: how many runs are computed at once.
        device: where; on a GPU the runs' seconds are not measured before.

    Yields:
        The display, or None where there is none.
    """
    console = open_console()
    if show is False or (show is None and not (console.is_terminal or console.is_jupyter)):
        yield None
        return
    title = ", ".join(plan.grid.title for plan in plans)
    with Display(console, title, name_runs(plans), 0, num_jobs, is_calibrated=device == "cpu") as display:
        yield display


def name_runs(plans: Sequence[Plan]) -> dict[str, str]:
    """Map the id of every run to its variant's label, with its grid's name before it where there are several plans."""
    names: dict[str, str] = {}
    for plan in plans:
        for run_id, words in plan.run_names.items():
            names.setdefault(run_id, f"{plan.grid.name}: {words}" if len(plans) > 1 else words)
    return names
