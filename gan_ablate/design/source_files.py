"""Source files: list the files of a user's module or script, and hash their content."""

from __future__ import annotations

import ast
import hashlib
import os
import sys
import sysconfig
import warnings
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    PathFinder,
    SourceFileLoader,
)
from pathlib import Path
from typing import TYPE_CHECKING

from gan_ablate.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MAX_SOURCE_BYTES = 100_000_000

_PACKAGES = frozenset({"site-packages", "dist-packages"})
"""Names of folders that packages are installed in."""


def find_in(folder: Path) -> FileFinder:
    """Return a finder of modules in one folder, as Python has one for each folder of its path."""
    return FileFinder(str(folder), (ExtensionFileLoader, EXTENSION_SUFFIXES), (SourceFileLoader, SOURCE_SUFFIXES))


def list_module_files(module: str, folder: Path) -> list[Path]:
    """List the files of a module in a folder, and of the modules in that folder that it imports.

    No code is run: import statements are read anywhere in a file. All files of a package count.

    Args:
        module: its dotted name.
        folder: the folder that contains its first part.

    Returns:
        The files; empty if there is no such module.
    """
    search = _Search([folder], with_data=True)
    return search.follow(search.locate(module.split("."), folder))


def list_script_files(script: Path, folder: Path) -> list[Path]:
    """List a script, and the modules that it imports from its folder and those above it, up to a grid's folder."""
    above = [parent for parent in script.parents if parent.is_relative_to(folder)]
    return _Search(above or [script.parent]).follow([script])


def is_installed(file: Path) -> bool:
    """Whether a file is part of Python or of an installed package."""
    return file.is_relative_to(sysconfig.get_path("stdlib")) or not _PACKAGES.isdisjoint(file.parts)


def is_module(file: Path) -> bool:
    """Whether Python can import a file."""
    return file.name.endswith((*SOURCE_SUFFIXES, *EXTENSION_SUFFIXES))


def refuse_shadows(files: Iterable[Path], folder: Path, source: str) -> None:
    """Refuse files in a folder that have the name of a module of another folder of Python's path.

    Python would import one of the two for all code: the user's, PyTorch's and the standard library's.

    Args:
        files: the files of user code.
        folder: the folder that contains them.
        source: the field that names the code, for the message.

    Raises:
        UserError: naming the file and the other module.
    """
    others = [entry for entry in sys.path if Path(entry or ".").resolve() != folder.resolve()]
    files = list(filter(is_module, files))
    for name in sorted({path.relative_to(folder).parts[0].partition(".")[0] for path in files}):
        file = next(path for path in files if path.relative_to(folder).parts[0].partition(".")[0] == name)
        other = "of the standard library" if name in sys.stdlib_module_names else ""
        found = None if other else PathFinder.find_spec(name, others)
        if found is not None and found.origin is not None:
            other = f"at {found.origin}"
        if other:
            raise UserError(f"{source}: imports {file}: its name is that of a module {other}; valid: another name")


def name_files(folder: Path, files: Sequence[Path], stem: str) -> str:
    """Name files by their content and their paths below a folder: ``STEM@HASH``.

    Raises:
        UserError: if a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in sorted(dict.fromkeys(files)):
        name = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
        try:
            if path.stat().st_size > MAX_SOURCE_BYTES:
                raise UserError(f"{path}: larger than {MAX_SOURCE_BYTES:,} bytes; valid: name source files")
            content = path.read_bytes()
        except OSError as unreadable:
            raise UserError(f"{path}: {unreadable.strerror or unreadable}") from None
        digest.update(f"{name}\0{len(content)}\n".encode("utf-8", "surrogateescape") + content)
    return f"{stem}@{digest.hexdigest()[:8]}"


def name_file(file: Path) -> str:
    """Name a file of any size by its content: ``NAME@HASH``.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256")
    except OSError as unreadable:
        raise UserError(f"{file}: {unreadable.strerror or unreadable}") from None
    return f"{file.name}@{digest.hexdigest()[:8]}"


class _Search:
    """Follows import statements from file to file, within some folders.

    Args:
        roots: the folders in which modules are looked for, in this order; modules outside them do not count.
        with_data: whether files count whose names are strings in a module, such as ``"nets.json"``.
    """

    def __init__(self, roots: Sequence[Path], *, with_data: bool = False) -> None:
        self._roots = roots
        self._with_data = with_data
        self._finders: dict[Path, FileFinder] = {}

    def follow(self, files: Iterable[Path]) -> list[Path]:
        """Return files and the files that they import, each once, sorted."""
        found: set[Path] = set()
        todo = list(files)
        while todo:
            file = todo.pop()
            if file in found:
                continue
            found.add(file)
            if file.name == "__init__.py":
                todo += file.parent.rglob("*.py")
            if file.suffix == ".py":
                nodes = _parse(file)
                for level, parts in _read_imports(nodes):
                    todo += self._resolve(file, level, parts)
                if self._with_data:
                    todo += self._list_data(file, nodes)
        return sorted(found)

    def locate(self, parts: Sequence[str], folder: Path) -> list[Path]:
        """Return the files that importing a dotted name runs: those of its packages, then that of the module."""
        files: list[Path] = []
        for part in parts:
            if folder not in self._finders:
                self._finders[folder] = find_in(folder)
            spec = self._finders[folder].find_spec(part)
            if spec is None:
                break
            if spec.origin is not None:  # a folder without an __init__.py has none
                files.append(Path(spec.origin))
            if not spec.submodule_search_locations:
                break
            folder = Path(spec.submodule_search_locations[0])
        return files

    def _list_data(self, file: Path, nodes: Iterable[ast.AST]) -> list[Path]:
        """List files, beside a module or in a root, whose names are strings in the module: it may open them.

        Files larger than ``MAX_SOURCE_BYTES`` are data sets and do not count.
        """
        texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        names = [text for text in texts if Path(text).suffix]
        paths = [Path(os.path.normpath(folder / name)) for name in names for folder in (file.parent, *self._roots)]
        found = [path for path in paths if any(map(path.is_relative_to, self._roots)) and os.path.isfile(path)]  # noqa: PTH113 (any text is a path to it)
        return [path for path in found if path.stat().st_size <= MAX_SOURCE_BYTES]

    def _resolve(self, file: Path, level: int, parts: Sequence[str]) -> list[Path]:
        """Return the files of an import statement; a relative one starts from the file's folder."""
        if level == 0:
            return next((files for root in self._roots if (files := self.locate(parts, root))), [])
        parents = list(file.parents)[level - 1 :]
        is_inside = bool(parents) and any(parents[0].is_relative_to(root) for root in self._roots)
        return self.locate(parts, parents[0]) if is_inside else []


def _parse(file: Path) -> list[ast.AST]:
    """Return the nodes of a file's syntax tree; empty where Python cannot parse it."""
    try:
        with warnings.catch_warnings(action="ignore"):  # about invalid escapes in strings
            return list(ast.walk(ast.parse(file.read_bytes())))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def _read_imports(nodes: Iterable[ast.AST]) -> Iterator[tuple[int, list[str]]]:
    """Yield the imports of a file: the number of leading dots, and the names between dots.

    Calls of ``import_module`` and ``__import__`` count where the name is a string.
    """
    for node in nodes:
        match node:
            case ast.Import(names=names):
                yield from ((0, alias.name.split(".")) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = module.split(".") if module else []
                yield from ((level, [*base, alias.name]) for alias in names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                bare = name.lstrip(".")
                yield len(name) - len(bare), bare.split(".")
