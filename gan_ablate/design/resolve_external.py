"""Resolve a run of a user's script: fill in its command, list its files, and check that it may run."""

from __future__ import annotations

import ast
import glob
import itertools
import re
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan_ablate.design.datasets import default_features
from gan_ablate.design.external import GIVEN, ExternalConfig, fill_word, list_placeholders, write_value
from gan_ablate.design.resolve import list_layers, name_dataset
from gan_ablate.design.script_logs import LogFile
from gan_ablate.design.settings import find_origin, merge
from gan_ablate.design.source_files import list_module_files, list_script_files, name_files
from gan_ablate.design.validation import choices, shorten, validate
from gan_ablate.errors import UserError, option

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gan_ablate.design.external import AnyConfig, External
    from gan_ablate.design.grid import Grid
    from gan_ablate.design.resolve import Shared
    from gan_ablate.design.settings import Block

_FIELDS = ("dataset", "image_size", "scoring")
"""Fields that levels may set beside the names in the command."""


def resolve_script(grid: Grid, levels: Mapping[str, str], block: Block, shared: Shared) -> ExternalConfig:
    """Resolve one variant of a grid that runs a user's script.

    A name in braces in the command stands for what ``[set]``, a block, a level or an option sets under that name, or
    else for the level of the factor of that name.

    Args:
        grid: the grid, with ``[external]``.
        levels: a level for every factor.
        block: the block of the variant.
        shared: what all variants have in common.

    Raises:
        UserError: if a name stands for nothing, if something is set that the command does not name, or if the whole is
            not valid.
    """
    external = grid.external
    assert external is not None
    source, layers = list_layers(grid, levels, block)
    layers += [*block.above, *shared.options]
    data: dict[str, Any] = {}
    for place, change in layers:
        for name in ("seed", "steps", "preset"):
            if name in change:
                raise UserError(
                    f"{place}: {name}: valid: {option('seeds')} and {option('steps')}, or [budget.standard]; "
                    "no presets here"
                )
        data = merge(data, change)
    fields = {name: value for name, value in data.items() if name in _FIELDS}
    words = {
        name: _write_parameter(external, name, value, find_origin([name], layers) or source)
        for name, value in data.items()
        if name not in _FIELDS
    }
    filled = {**levels, **words}
    for name, field in external.names.items():
        if name not in filled and name not in GIVEN:
            raise UserError(f"{grid.source}: {field}: {{{name}}}: {choices(name, [*filled, *GIVEN])}")
    given = fields.get("dataset", ExternalConfig.model_fields["dataset"].default)
    dataset = name_dataset(given, layers, source, shared.folders)
    scoring = fields.get("scoring", {})
    if isinstance(scoring, dict):
        scoring = {"features": default_features(str(dataset)), "num_samples": shared.budget.num_samples, **scoring}
        scoring["features"] = shared.code.complete_extractor(scoring["features"], source)
    content = {
        **external.model_dump(exclude={"files", "paired", "samples"}),
        "links": list(external.links),
        "link_targets": external.links if isinstance(external.links, dict) else {},
        "samples": external.pattern,
        "checkpoint": None if external.checkpoint is None else external.checkpoint.model_dump(),
        "code": grid.name,
        "parameters": {name: value for name, value in filled.items() if name in external.names},
        "steps": shared.budget.steps if "steps" in external.names else 0,
        **fields,
        "dataset": dataset,
        "scoring": scoring,
        "seed": 0,
    }
    config = validate(ExternalConfig, content, lambda wrong: find_origin(wrong, layers) or source)
    return _name_code(grid, external, config)


def _name_code(grid: Grid, external: External, config: ExternalConfig) -> ExternalConfig:
    """Add the name of the script's files to a run, and check its patches and the class of its checkpoint.

    Raises:
        UserError: if a file is missing, or a patch or the class does not fit.
    """
    here = grid.folder
    files = list_files(external, config, here, grid.source)
    try:
        patch_files(config, here)
        if config.checkpoint is not None:
            check_class(find_module(config, here), config.checkpoint.module)
    except UserError as wrong:
        raise UserError(f"{grid.source}: {wrong}") from None
    names = tuple(path.relative_to(here).as_posix() if path.is_relative_to(here) else str(path) for path in files)
    trained = list_files(external, config.model_copy(update={"checkpoint": None}), here, grid.source)
    update = {"code": name_files(here, files, grid.name), "training_code": name_files(here, trained, "script")}
    return config.model_copy(update={**update, "files": names})


def _write_parameter(external: External, name: str, value: Any, origin: str) -> str:
    """Write the value of a name in the command.

    Raises:
        UserError: if the command does not have the name, or the value is a table or a list.
    """
    if name not in external.names:
        known = [known for known in external.names if known not in GIVEN] + list(_FIELDS)
        raise UserError(f"{origin}: {shorten(name)}: the command does not name it; {choices(name, known)}")
    try:
        return write_value(value)
    except ValueError as odd:
        raise UserError(f"{origin}: {shorten(name)}: {odd}; valid: a text, a number, true or false") from None


def check_external(grid: Grid, external: External, steps: int | None, base: Sequence[str], *, allow_code: bool) -> None:
    """Check that a user's script may run, takes the options and has the files that it links to.

    Args:
        grid: the grid.
        external: the grid's ``[external]``.
        steps: generator steps of a run, if an option sets them.
        base: base presets, if an option sets them.
        allow_code: whether user code may be run.

    Raises:
        UserError: naming the option, or the link.
    """
    if not allow_code:
        command = shorten(" ".join(external.command))
        raise UserError(
            f"{grid.source}: [external] runs a program of yours: {command}; valid: with {option('allow_code')}"
        )
    if base:
        raise UserError(f"{option('base', ', '.join(base))}: {grid.source} has [external] instead of a preset")
    if steps is not None and "steps" not in external.names:
        raise UserError(f"{option('steps', steps)}: external.command does not name {{steps}}; valid: what it does name")
    targets = external.links if isinstance(external.links, dict) else {name: name for name in external.links}
    for name, target in targets.items():
        is_later = "data_dir" in list_placeholders(target, "")  # scripts download to it
        if not is_later and not find_linked(target, {"here": str(grid.folder)}, grid.folder).exists():
            where = f"{grid.source}: external.links = {shorten(repr(name))}"
            where += "" if target == name else f": {shorten(repr(target))}"
            raise UserError(f"{where}: no such file or folder in {grid.folder}")
    if isinstance(external.log, LogFile) and external.log.tensorboard and find_spec("tensorboard") is None:
        advice = "needs the package tensorboard; valid: pip install 'gan-ablate[tensorboard]'"
        raise UserError(
            f"{grid.source}: external.log.tensorboard = {shorten(repr(external.log.tensorboard))}: {advice}"
        )


def find_linked(target: str, values: Mapping[str, str], folder: Path) -> Path:
    """Return the place of a link: its names in braces filled in, ``~`` expanded, relative to the grid's folder.

    Args:
        target: as the grid has it.
        values: of the names in braces.
        folder: the grid's folder.
    """
    return folder / Path(fill_word(target, values)).expanduser()


def patch_notes(grid: Grid) -> list[str]:
    """Say what patches change, for a look before the first run."""
    patches = [] if grid.external is None else grid.external.patches
    return [
        f"Patch of {patch.file}: {shorten(' '.join(patch.find.split()))} → {shorten(' '.join(patch.replace.split()))}"
        for patch in patches
    ]


def folder_notes(grid: Grid, configs: Iterable[AnyConfig]) -> list[str]:
    """Say which folders a command names whose files are not part of the run ids."""
    scripts = [config for config in configs if isinstance(config, ExternalConfig)]
    names = dict.fromkeys(name for config in scripts for name in _list_uncounted_folders(config, grid.folder))
    return [
        f'{name}: a folder, whose files are no part of the runs\' names; external.files = ["{name}/**"] adds them'
        for name in names
    ]


def unpaired_notes(grid: Grid) -> list[str]:
    """Say that runs of one seed share nothing, where the grid says so."""
    if grid.external is None or grid.external.paired:
        return []
    return ["external.paired is false: runs of one seed share nothing, so means of runs are compared (Welch's t test)."]


_RUN_PATHS = frozenset({"out", "data_dir", "device", "python"})
"""Names in the command whose values name no file beside the grid."""

_SEED = "\0"
"""Stands for any seed in paths: no path contains it."""


def list_files(external: External, config: ExternalConfig, folder: Path, source: str) -> list[Path]:
    """List a script's files: those that its command names, what Python scripts among them import, and ``files``.

    Args:
        external: the grid's ``[external]``.
        config: the configuration of one variant, which fills in the command.
        folder: the grid's folder.
        source: the name of the grid's file, for the message.

    Raises:
        UserError: if a pattern of ``files`` matches no file.
    """
    words = _fill_words(config, folder)
    found = [path for name in _list_names(words) for path in _find_named(folder, name) if path.is_file()]
    scripts = [path for path in found if path.suffix == ".py"]
    found += [path for script in scripts for path in list_script_files(script, folder)]
    for flag, module in itertools.pairwise(words):
        if flag == "-m":  # Python's: a module, or a package with a __main__.py
            found += list_module_files(module, folder)
    found += [path for patch in external.patches if (path := folder / patch.file).is_file()]
    if config.checkpoint is not None:
        root, name = _split_module(config, folder)
        found += list_module_files(name, root)
    for pattern in external.files:
        matched = [] if Path(pattern).is_absolute() else _glob(f"{glob.escape(str(folder))}/{pattern}")
        matched = [path for path in matched if path.is_file()]
        if not matched:
            raise UserError(f"{source}: external.files = {shorten(repr(pattern))}: no such file in {folder}")
        found += matched
    return list(dict.fromkeys(found))


def _list_uncounted_folders(config: ExternalConfig, folder: Path) -> list[str]:
    """List the folders beside the grid that a command names and whose files are not part of the run's id."""
    found = [path for name in _list_names(_fill_words(config, folder)) for path in _find_named(folder, name)]
    below = [path.relative_to(folder).as_posix() for path in found if path.is_dir() and folder in path.parents]
    return [name for name in dict.fromkeys(below) if not any(file.startswith(f"{name}/") for file in config.files)]


def is_unchanged(config: ExternalConfig, folder: Path) -> bool:
    """Whether a script's files, below a folder, are still those that the run's id is made of."""
    try:
        now = name_files(folder, [folder / name for name in config.files], config.code.rpartition("@")[0])
    except UserError:  # a file is gone
        return False
    return now == config.code or not config.files


def _fill_words(config: ExternalConfig, folder: Path) -> list[str]:
    """Fill in the words of a command, with one mark for all seeds; words with ``_RUN_PATHS`` become empty."""
    known = {
        **config.parameters,
        "here": str(folder),
        "seed": _SEED,
        "steps": str(config.steps),
        "num_samples": str(config.scoring.num_samples),
        "dataset": config.dataset,
        "image_size": str(config.image_size),
    }
    return ["" if _RUN_PATHS & {*list_placeholders(word, "")} else fill_word(word, known) for word in config.command]


def _list_names(words: Sequence[str]) -> list[str]:
    """List words that may be paths, and what follows an option's "=", as in --config=configs/bn.yaml."""
    return [name for word in words for name in (word, word.partition("=")[2]) if name]


def _find_named(folder: Path, name: str) -> list[Path]:
    """List the paths that a word of the command names; one for each seed, if a seed is in it."""
    parts = str(folder / name).split(_SEED)
    found = _glob("*".join(map(glob.escape, parts)))
    return [path for path in found if re.fullmatch("[0-9]+".join(map(re.escape, parts)), str(path))]


def _glob(pattern: str) -> list[Path]:
    try:
        found = glob.glob(pattern, recursive=True, include_hidden=True)  # noqa: PTH207 (Path.glob takes no full paths)
    except (OSError, ValueError, re.error):  # not a path
        return []
    return [Path(path) for path in sorted(found)]


def _split_module(config: ExternalConfig, folder: Path) -> tuple[Path, str]:
    """Return the folder that a checkpoint's module is imported from, the grid's or a script's, and its dotted name."""
    assert config.checkpoint is not None
    name = config.checkpoint.module.partition(":")[0]
    found = [path for word in _list_names(_fill_words(config, folder)) for path in _find_named(folder, word)]
    roots = [folder, *(path.parent for path in found if path.suffix == ".py" and path.is_file())]
    return next(((root, name) for root in roots if list_module_files(name, root)), (folder, name))


def find_module(config: ExternalConfig, folder: Path) -> Path:
    """Find the file of a checkpoint's module, beside the grid or beside a script that the command names.

    Raises:
        UserError: if there is no such file.
    """
    root, name = _split_module(config, folder)
    stem = root.joinpath(*name.split("."))
    path = next((path for path in (stem.with_name(f"{stem.name}.py"), stem / "__init__.py") if path.is_file()), None)
    if path is None:
        where = f"external.samples.module = {shorten(repr(name))}"
        raise UserError(f"{where}: no {stem.name}.py in {folder}, nor beside the script; valid: FILE:CLASS")
    return path


def check_class(path: Path, name: str) -> None:
    """Check that a file has a class or function, without running it.

    Args:
        path: the file.
        name: ``main:Generator``.

    Raises:
        UserError: naming those that it has.
    """
    first = name.partition(":")[2].partition(".")[0]
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError) as wrong:
        raise UserError(f"external.samples.module = {shorten(repr(name))}: {path.name}: {wrong}") from None
    defined = [node.name for node in ast.walk(tree) if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
    valid = [node.name for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
    stored = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    imports = [alias for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names]
    imported = {alias.asname or alias.name for alias in imports}
    if first not in {*defined, *stored, *imported, *({first} if "*" in imported else ())}:
        where = f"external.samples.module = {shorten(repr(name))}"
        raise UserError(f"{where}: {path.name} has no {shorten(first)}; {choices(first, valid)}")


def patch_files(config: ExternalConfig, folder: Path, given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Apply a run's patches, one after the other, to the text of its files; the files stay as they are.

    Args:
        config: the run.
        folder: the grid's folder.
        given: values of the names that only a run knows; by default stand-ins, to check the patches.

    Returns:
        The name of each patched file → its new text.

    Raises:
        UserError: if a text is not found, or more than once, or if a Python file would not be one any more.
    """
    values = {**dict.fromkeys(GIVEN, "0"), **config.parameters, **(given or {})}
    texts: dict[str, str] = {}
    for number, patch in enumerate(config.patches):
        where = f"external.patches.{number}"
        try:
            text = texts[patch.file] if patch.file in texts else (folder / patch.file).read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError) as wrong:
            reason = getattr(wrong, "strerror", None) or "no text of UTF-8"
            advice = f"{reason}; valid: a text file in {folder}"
            raise UserError(f"{where}.file = {shorten(repr(patch.file))}: {advice}") from None
        find, replace = patch.find, fill_word(patch.replace, values)
        if "\r\n" in text:
            find, replace = ("\r\n".join(part.splitlines()) for part in (find, replace))
        count = text.count(find)
        if count != 1:
            advice = f"found {count:,} times in {patch.file}; valid: a text that stands there exactly once"
            raise UserError(f"{where}.find = {shorten(repr(patch.find))}: {advice}")
        texts[patch.file] = text.replace(find, replace)
        if Path(patch.file).suffix == ".py":
            try:
                ast.parse(texts[patch.file])
            except (SyntaxError, ValueError) as wrong:
                advice = f"{patch.file} would be no Python any more ({wrong}); valid: code in its place"
                raise UserError(f"{where}.replace = {shorten(repr(replace))}: {advice}") from None
    return texts


def complete_path(part: str, config: ExternalConfig, here: Path) -> str:
    """Make a path to a file beside the grid absolute, or to a folder there that is written with a slash.

    A folder's plain name stays: it may be the name of a data set; see ``list_links``. A path that begins like
    ``external.samples`` stays: the script writes there.
    """
    path = Path(part)
    if not path.parts or path.is_absolute() or path.parts[0] == _first_part(config.samples):
        return part
    is_path = path_exists(here / path) and ("/" in part or (here / path).is_file())
    return str(here / path) if is_path else part


def list_links(config: ExternalConfig, words: Sequence[str], here: Path) -> list[str]:
    """List the names that are linked from the grid's folder to the script's: ``external.links``, and named folders.

    Args:
        config: the run.
        words: the command, as ``fill_command`` returns it.
        here: the grid's folder.
    """
    named = [part for word in words for part in word.split("=")]
    folders = [
        name
        for name in named
        if name and "/" not in name and name not in (".", "..", _first_part(config.samples))
        if path_exists(here / name) and (here / name).is_dir()
    ]
    return list(dict.fromkeys([*config.links, *folders]))


def path_exists(path: Path) -> bool:
    """Whether there is a file or folder; False for a text that is no path, or longer than a path may be."""
    with suppress(OSError, ValueError):
        return path.exists()
    return False


def _first_part(pattern: str) -> str:
    return next(iter(Path(pattern).parts), "")
