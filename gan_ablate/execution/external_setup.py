"""What a run of a user's script starts from: its folders, the patched code, the command and its environment."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gan_ablate.design.external import fill_word
from gan_ablate.design.resolve_external import complete_path, find_linked, list_links, patch_files, path_exists
from gan_ablate.design.user_code import find_script
from gan_ablate.errors import UserError
from gan_ablate.execution import saved_generator as saved
from gan_ablate.execution.external_samples import write_order
from gan_ablate.execution.kept import SAMPLED_FILE, forget_training, work_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gan_ablate.design.external import ExternalConfig
    from gan_ablate.execution.context import RunContext

CODE_FOLDER = "code"
"""In a run's folder: the patched copy of the script's files, and links to all that lies beside them."""

_QUOTED = re.compile(r"(?<!\w)['\"]([^'\"]+)['\"]")


@dataclass(frozen=True)
class Setup:
    """Where a run's script works, and with what.

    Attributes:
        folder: the run's folder.
        work: ``{out}``, the script's working folder.
        here: the grid's folder, or its patched copy.
        values: of the names in braces.
        words: the command, filled in.
    """

    folder: Path
    work: Path
    here: Path
    values: Mapping[str, str]
    words: Sequence[str]


def set_up(config: ExternalConfig, context: RunContext, folder: Path, *, is_new: bool) -> Setup:
    """Prepare a run's folder: the patched code, the working folder and links into it.

    Args:
        config: the run.
        context: where and how the run is computed.
        folder: the run's folder.
        is_new: whether the script will run, so that the working folder begins empty.
    """
    work, here = work_folder(config, folder), find_here(config, context)
    if is_new:
        forget_training(folder)
        work.mkdir(parents=True)
    values = _name_values(config, context, work, here)
    here = _lay_out_code(config, here, folder, values)
    words = fill_command(config, context, work, here)
    for name in list_links(config, words, here) if is_new else ():
        target = config.link_targets.get(name, name)
        linked = find_linked(target, values, here)
        if "{data_dir}" in target and not linked.exists():  # scripts download to it
            linked.mkdir(parents=True)
        place = Path(os.path.normpath(work.resolve() / name))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(linked)
    return Setup(folder, work, here, values, words)


def _lay_out_code(config: ExternalConfig, here: Path, folder: Path, values: Mapping[str, str]) -> Path:
    """Copy a script's files to its run's folder and patch them there; beside them lie links to all else.

    Args:
        config: the run.
        here: the grid's folder.
        folder: the run's folder.
        values: of the names in braces.

    Returns:
        The copy that stands for the grid's folder; that folder itself where nothing is patched.
    """
    if not config.patches:
        return here
    code = (folder / CODE_FOLDER).resolve()
    shutil.rmtree(code, ignore_errors=True)
    code.mkdir(parents=True)
    patched = patch_files(config, here, {**values, "here": str(code)})
    for name in [name for name in config.files if Path(name).suffix == ".py" and not Path(name).is_absolute()]:
        (code / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(here / name, code / name)
    for name, text in patched.items():
        (code / name).parent.mkdir(parents=True, exist_ok=True)
        (code / name).write_bytes(text.encode())
    for copied in [code, *(path for path in code.rglob("*") if path.is_dir())]:
        for entry in (here / copied.relative_to(code)).iterdir():
            holds_run = code.is_relative_to(entry.resolve())
            if not (holds_run or entry.name == "__pycache__" or os.path.lexists(copied / entry.name)):
                (copied / entry.name).symlink_to(entry.resolve())
    return code


def find_here(config: ExternalConfig, context: RunContext) -> Path:
    """Return the folder of the grid's file.

    Raises:
        UserError: if the folder is not on this machine.
    """
    here = context.folders.get(config.code)
    if here is None or not Path(here).is_dir():
        raise UserError(f"{config.code}: the folder of this program is not on this machine; valid: run its grid there")
    return Path(here)


def _name_values(config: ExternalConfig, context: RunContext, work: Path, here: Path) -> dict[str, str]:
    """Return the value of every name in braces."""
    return {
        **config.parameters,
        "seed": str(config.seed),
        "out": str(work.resolve()),
        "steps": str(config.steps),
        "num_samples": str(config.scoring.num_samples),
        "dataset": config.dataset,
        "image_size": str(config.image_size),
        "data_dir": str(Path(context.data_dir).resolve()),
        # ``make_environment`` shows a script one GPU, as the first.
        "device": "cuda:0" if context.device.startswith("cuda") else context.device,
        "python": sys.executable,
        "here": str(here),
    }


def fill_command(config: ExternalConfig, context: RunContext, work: Path, here: Path | None = None) -> list[str]:
    """Fill in a command's placeholders word by word, and make paths to files beside the grid absolute.

    Args:
        config: the run.
        context: where and how the run is computed.
        work: the script's working folder, ``{out}``.
        here: the grid's folder, or its patched copy; by default the folder that the context names.

    Raises:
        UserError: if the grid's folder is not on this machine.
    """
    here = find_here(config, context) if here is None else here
    values = _name_values(config, context, work, here)
    words = (fill_word(word, values) for word in config.command)
    filled = ["=".join(complete_path(part, config, here) for part in word.split("=")) for word in words]
    if filled[0] in ("python", "python3"):  # this process's Python has the packages
        filled[0] = sys.executable
    return filled


def add_launcher(config: ExternalConfig, words: Sequence[str], work: Path) -> list[str]:
    """Let a launcher run a Python script, where its globals are seeded or sampled; see ``saved_generator.launch``.

    Args:
        config: the run.
        words: the command, from ``fill_command``.
        work: the script's working folder.
    """
    if not (config.generator or config.seed_globals):
        return list(words)
    index = find_script(words)
    assert index is not None, "external checks it"
    seed = config.seed if config.seed_globals else None
    order = {"seed": seed, "generator": config.generator, **write_order(config, work.resolve() / SAMPLED_FILE)}
    return [*words[:index], saved.__file__, json.dumps(order), *words[index:]]


def make_environment(context: RunContext, here: Path, words: Sequence[str]) -> dict[str, str]:
    """Return a script's environment variables: number of threads, visible GPU, and Python path.

    Args:
        context: its device; ``cuda:1`` is the second GPU of ``CUDA_VISIBLE_DEVICES``, where a scheduler set that.
        here: the grid's folder, from which ``python -m`` imports modules.
        words: the command.
    """
    environment = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(torch.get_num_threads()))}
    environment["PYTHONUNBUFFERED"] = "1"  # otherwise lines come at the end only
    if context.device.startswith("cuda:"):
        index = context.device.removeprefix("cuda:")
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        environment["CUDA_VISIBLE_DEVICES"] = visible[int(index)].strip() if visible != [""] else index
    if "-m" in words:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(here), os.environ.get("PYTHONPATH"))))
    return environment


def advise(line: str, here: Path, work: Path) -> str:
    """Advise on a script's last line, where it names a missing folder, or a missing file that lies beside the grid.

    Args:
        line: what the script printed last.
        here: the grid's folder.
        work: the script's working folder.

    Returns:
        What would be valid, with a semicolon; empty where nothing is known.
    """
    for name in _QUOTED.findall(line.replace(f"{work.resolve()}{os.sep}", "")):
        first = Path(name).parts[0] if name and not Path(name).is_absolute() else ""
        if first == ".." and "No such file" in line:
            return f'{name} lies above {{out}}: valid: external.cwd = "a/b", external.links = {{ "{name}" = "PATH" }}; '
        if first in ("", ".", "..") or path_exists(work / first):
            continue
        if path_exists(here / name):
            return f'{first} lies beside the grid: valid: external.links = ["{first}"]; '
        if "No such file" in line and (parent := Path(name).parent.as_posix()) != ".":
            advice = f'os.makedirs("{parent}", exist_ok=True) in the program'
            return f"there is no folder {parent} in {{out}}: valid: {advice}; "
    return ""
