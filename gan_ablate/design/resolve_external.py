"""Resolve a run of a user's script: fill in its command, and refuse what may not be run."""

from __future__ import annotations

import glob
import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan_ablate.design.datasets import default_features
from gan_ablate.design.external import GIVEN, External, ExternalConfig, _names_in, check_links, fill_word, write_value
from gan_ablate.design.resolve import lay_levels, name_dataset
from gan_ablate.design.settings import Layer, find_origin, merge
from gan_ablate.design.source_files import list_module_files, list_script_files, name_files
from gan_ablate.design.validation import choices, shorten, validate
from gan_ablate.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gan_ablate.design.datasets import KnownFolders
    from gan_ablate.design.external import AnyConfig, External
    from gan_ablate.design.grid import Budget, Grid
    from gan_ablate.design.settings import Block

_FIELDS = ("dataset", "image_size", "scoring")
"""What levels set besides what the command is filled with."""


def resolve_program(
    grid: Grid, levels: Mapping[str, str], block: Block, budget: Budget, options: list[Layer], folders: KnownFolders
) -> ExternalConfig:
    """Fill in what a program is called with for one variant of a grid.

    A name in braces stands for what ``[set]``, a block, a level or an option sets under it, or else for the level of
    the factor of that name.

    Raises:
        UserError: if a name stands for nothing, something is set that the command does not name, or the whole is not
            valid.
    """
    external = grid.external
    assert external is not None
    source, layers = lay_levels(grid, levels, block)
    layers += [*block.above, *options]
    data: dict[str, Any] = {}
    for place, change in layers:
        for name in ("seed", "steps", "preset"):
            if name in change:
                raise UserError(f"{place}: {name}: valid: --seeds and --steps, or [budget.standard]; no presets here")
        data = merge(data, change)
    parameters = {name: value for name, value in data.items() if name not in _FIELDS}
    for name, value in parameters.items():
        origin = find_origin([name], layers) or source
        if name not in external.names:
            known = [known for known in external.names if known not in GIVEN] + list(_FIELDS)
            raise UserError(f"{origin}: {shorten(name)}: the command does not name it; {choices(name, known)}")
        try:
            parameters[name] = write_value(value)
        except ValueError as odd:
            raise UserError(f"{origin}: {shorten(name)}: {odd}; valid: a text, a number, true or false") from None
    filled = {**levels, **parameters}
    for name in external.names:
        if name not in filled and name not in GIVEN:
            raise UserError(f"{grid.source}: external.command: {{{name}}}: {choices(name, [*filled, *GIVEN])}")
    given = data.get("dataset", ExternalConfig.model_fields["dataset"].default)
    dataset = name_dataset(given, layers, source, folders)
    scoring = data.get("scoring", {})
    if isinstance(scoring, dict):
        features = default_features(dataset) if isinstance(dataset, str) else "none"
        scoring = {"features": features, "num_samples": budget.num_samples, **scoring}
    content = {
        **external.model_dump(exclude={"files", "paired"}),
        "code": grid.name,
        "parameters": {name: value for name, value in filled.items() if name in external.names},
        "steps": budget.steps if "steps" in external.names else 0,
        **{name: value for name, value in data.items() if name in _FIELDS},
        "dataset": dataset,
        "scoring": scoring,
        "seed": 0,
    }
    config = validate(ExternalConfig, content, lambda fields: find_origin(fields, layers) or source)
    here = grid_folder(grid)
    files = list_files(external, config, here, grid.source)
    names = tuple(path.relative_to(here).as_posix() if path.is_relative_to(here) else str(path) for path in files)
    return config.model_copy(update={"code": name_files(here, files, grid.name), "files": names})


def grid_folder(grid: Grid) -> Path:
    """Return the folder of a grid's file, beside which its program lies."""
    return Path(grid.source).parent.resolve()


def check_external(grid: Grid, external: External, steps: int | None, base: Sequence[str], *, allow_code: bool) -> None:
    """Refuse a script that the user has not allowed to run, and options that it does not take.

    Args:
        grid: with ``[external]``.
        external: of the grid.
        steps: that an option asks for.
        base: presets that an option asks for.
        allow_code: whether programs may be run.

    Raises:
        UserError: naming the option, or what is missing beside the grid.
    """
    if not allow_code:
        program = shorten(" ".join(external.command))
        raise UserError(f"{grid.source}: [external] runs a program of yours: {program}; valid: with --allow-code")
    if base:
        raise UserError(f"--base {', '.join(base)}: {grid.source} has [external] instead of a preset")
    if steps is not None and "steps" not in external.names:
        raise UserError(f"--steps {steps}: external.command does not name {{steps}}; valid: what it does name")
    check_links(external, grid_folder(grid), grid.source)


def folder_notes(grid: Grid, configs: Iterable[AnyConfig]) -> list[str]:
    """Say which folders a command names whose files may change without a run's name."""
    own = [config for config in configs if isinstance(config, ExternalConfig)]
    names = dict.fromkeys(name for config in own for name in list_uncounted_folders(config, grid_folder(grid)))
    return [
        f'{name}: a folder, whose files are no part of the runs\' names; external.files = ["{name}/**"] adds them'
        for name in names
    ]


def unpaired_notes(grid: Grid) -> list[str]:
    """Say that runs of a program are not paired, where the grid says so."""
    if grid.external is None or grid.external.paired:
        return []
    return ["external.paired is false: runs of one seed share nothing, and intervals are those of unpaired runs."]


_OF_RUN = frozenset({"out", "data_dir", "device", "python"})
"""Of these, those that name nothing beside the grid."""


_SEED = "\0"
"""Stands for any seed where files are looked for; no path holds it."""


def list_files(external: External, config: ExternalConfig, folder: Path, source: str) -> list[Path]:
    """List what a program is made of: files that its command names, what scripts among them import, and ``files``.

    Args:
        external: the program.
        config: of one variant, which fills in the command.
        folder: the grid's.
        source: the grid, for the message.

    Raises:
        UserError: if a pattern of ``files`` matches nothing, or is none.
    """
    words = _fill_words(config, folder)
    found = [path for name in _list_names(words) for path in _find_named(folder, name) if path.is_file()]
    scripts = [path for path in found if path.suffix == ".py"]
    found += [path for script in scripts for path in list_script_files(script, folder)]
    for option, module in itertools.pairwise(words):
        if option == "-m":  # Python's: a module, or a package with a __main__.py
            found += list_module_files(module, folder)
    for pattern in external.files:
        matched = [] if Path(pattern).is_absolute() else _glob(f"{glob.escape(str(folder))}/{pattern}")
        matched = [path for path in matched if path.is_file()]
        if not matched:
            raise UserError(f"{source}: external.files = {shorten(repr(pattern))}: no such file in {folder}")
        found += matched
    return list(dict.fromkeys(found))


def list_uncounted_folders(config: ExternalConfig, folder: Path) -> list[str]:
    """List the folders that a run's command names beside the grid and none of whose files count."""
    places = [path for name in _list_names(_fill_words(config, folder)) for path in _find_named(folder, name)]
    below = [path.relative_to(folder).as_posix() for path in places if path.is_dir() and folder in path.parents]
    return [name for name in dict.fromkeys(below) if not any(file.startswith(f"{name}/") for file in config.files)]


def is_unchanged(config: ExternalConfig, folder: Path) -> bool:
    """Whether a program's files, below a folder, are still those that name the run."""
    try:
        now = name_files(folder, [folder / name for name in config.files], config.code.rpartition("@")[0])
    except UserError:  # one is gone
        return False
    return now == config.code or not config.files


def _fill_words(config: ExternalConfig, folder: Path) -> list[str]:
    """Fill in the words of a command, one mark for all seeds; words that name a place of the run's own are empty."""
    known = {
        **config.parameters,
        "here": str(folder),
        "seed": _SEED,
        "steps": str(config.steps),
        "num_samples": str(config.scoring.num_samples),
        "dataset": config.dataset,
        "image_size": str(config.image_size),
    }
    return ["" if _OF_RUN & {*_names_in(word, "")} else fill_word(word, known) for word in config.command]


def _list_names(words: Sequence[str]) -> list[str]:
    """List what may be paths: words, and what stands behind an option's "=", as in --config=configs/bn.yaml."""
    return [name for word in words for name in (word, word.partition("=")[2]) if name]


def _find_named(folder: Path, name: str) -> list[Path]:
    """Return what a command names beside the grid, or by a full path: one for each seed, if a seed is in it."""
    parts = str(folder / name).split(_SEED)
    found = _glob("*".join(map(glob.escape, parts)))
    return [path for path in found if re.fullmatch("[0-9]+".join(map(re.escape, parts)), str(path))]


def _glob(pattern: str) -> list[Path]:
    try:
        found = glob.glob(pattern, recursive=True, include_hidden=True)  # noqa: PTH207 (Path.glob takes no full paths)
    except (OSError, ValueError, re.error):  # no path at all
        return []
    return [Path(path) for path in sorted(found)]
