"""User code: import it, and build the networks, the loss and the penalty of a run with it."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import sys
from contextlib import contextmanager, suppress
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm, SpectralNormLoadStateDictPreHook
from torch.nn.utils.weight_norm import WeightNorm

from gan_ablate.design.source_files import find_in, is_installed, is_module, name_files
from gan_ablate.design.user_code import ModuleExtractor, find_source
from gan_ablate.errors import UserError
from gan_ablate.seeding import stream_seed
from gan_ablate.training.runtime import keeping_streams, read_streams, refusing_settings, seed_streams

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from importlib.machinery import ModuleSpec

    from gan_ablate.design.user_code import ScriptExtractor, Source, UserDiscriminator, UserGenerator, UserPart

_places: dict[str, str] = {}
"""``NAME@HASH`` → its folder, of the code that this process may run."""

_named: dict[Path, dict[Path, str]] = {}
"""The folder of a user's modules → each file that was imported from it, and the ``NAME@HASH`` that it is part of."""

_kept: dict[str, Any] = {}
"""The loss and the penalty of the run that was begun last, by what describes them."""


def allow_code(folders: Mapping[str, str]) -> None:
    """Let this process import the code that a plan names.

    Args:
        folders: of the plan: ``NAME@HASH`` → where it lies, nothing where it is installed.
    """
    _places.update(folders)


def find_place(part: UserPart | ScriptExtractor) -> str:
    """Return where a user's code lies, as ``allow_code`` was told.

    Raises:
        UserError: if this process may not run it.
    """
    place = _places.get(part.code)
    if place is None:
        raise UserError(f"{part.path}: user code, {part.code}, which this command was not allowed to run")
    return place


class WrappedGenerator(nn.Module):
    """A generator of a user's, called as ours are.

    Args:
        network: theirs.
        takes_maps: whether it wants latents as maps of 1×1 pixels.
    """

    def __init__(self, network: nn.Module, *, takes_maps: bool) -> None:
        super().__init__()
        self.network = network
        self._takes_maps = takes_maps

    def forward(self, z: Tensor) -> Tensor:
        """Draw images: (B, N) → (B, C, S, S)."""
        images: Tensor = self.network(z[:, :, None, None] if self._takes_maps else z)
        return images


class WrappedDiscriminator(nn.Module):
    """A discriminator of a user's, called as ours are.

    Args:
        network: theirs.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Judge images: (B, C, S, S) → (B,), or (B, 1 + num_classes)."""
        logits: Tensor = self.network(x)
        return logits.flatten() if logits.numel() == len(x) else logits.flatten(1)


def build_user_generator(part: UserGenerator, seed: int) -> nn.Module:
    """Build a generator of a user's, from the seed's streams; see ``build_user_part``."""
    return WrappedGenerator(_build_network(part, seed, "generator"), takes_maps=part.latents == "maps")


def build_user_discriminator(part: UserDiscriminator, seed: int) -> nn.Module:
    """Build a discriminator of a user's, from the seed's streams; see ``build_user_part``."""
    return WrappedDiscriminator(_build_network(part, seed, "discriminator"))


def _build_network(part: UserPart, seed: int, role: str) -> nn.Module:
    network = build_user_part(part, seed, role)
    if not isinstance(network, nn.Module):
        raise UserError(f"{role}.path = {part.path!r}: makes a {type(network).__name__}; valid: a torch.nn.Module")
    with keeping_streams():
        seed_streams(stream_seed(seed, f"init/{role}/parametrizations"))
        _replace_hooks(network)
    return network


def _replace_hooks(network: nn.Module) -> None:
    """Replace the older forms of spectral and weight norm, in place, by PyTorch's parametrizations of the same weights.

    The older ones hide a weight from ``init``, and a network with one cannot be copied once it was called.
    """
    for module in list(network.modules()):
        for hook in list(module._forward_pre_hooks.values()):  # noqa: SLF001 (PyTorch finds them in the same way)
            if isinstance(hook, SpectralNorm):
                weight = getattr(module, f"{hook.name}_orig").detach().clone()
                remove_spectral_norm(module, hook.name)
                _drop_loading_hooks(module)
                getattr(module, hook.name).data.copy_(weight)
                parametrizations.spectral_norm(module, hook.name, hook.n_power_iterations, hook.eps, hook.dim)
            elif isinstance(hook, WeightNorm):
                remove_weight_norm(module, hook.name)
                parametrizations.weight_norm(module, hook.name, hook.dim)


def _drop_loading_hooks(module: nn.Module) -> None:
    """Drop what ``remove_spectral_norm`` leaves where PyTorch wraps it: it asks for the removed tensors at loading."""
    hooks = module._load_state_dict_pre_hooks  # noqa: SLF001 (there is no other way)
    for key, hook in list(hooks.items()):
        if isinstance(getattr(hook, "hook", hook), SpectralNormLoadStateDictPreHook):
            del hooks[key]


def keep_user_parts(parts: Mapping[str, UserPart], seed: int, device: torch.device) -> list[nn.Module]:
    """Make a run's loss and penalty anew, where they are a user's: what they keep from step to step is that run's.

    Args:
        parts: field → part, of the run.
        seed: the run's.
        device: that trains.

    Returns:
        Those that are modules, whose state checkpoints hold.
    """
    _kept.clear()
    for role in ("loss", "penalty"):
        if role in parts:
            made = build_user_part(parts[role], seed, role)
            _kept[_as_json(parts[role])] = made.to(device) if isinstance(made, nn.Module) else made
    return [made for made in _kept.values() if isinstance(made, nn.Module)]


def find_user_part(part: UserPart) -> Any:
    """Return a loss or a penalty of a user's: that of the run that was begun last, where it has one."""
    name = _as_json(part)
    if name not in _kept:
        _kept[name] = build_user_part(part, 0, "loss or penalty")
    return _kept[name]


def _as_json(part: UserPart) -> str:
    known = {"kind": part.kind, "path": part.path, "code": part.code}
    return json.dumps({**known, **part.arguments}, sort_keys=True)


def build_user_part(part: UserPart, seed: int, role: str) -> Any:
    """Make a part of a run: what it draws depends on the run's seed and the field that it is for alone."""
    made, _ = make_user_part(part, stream_seed(seed, f"init/{role}/of its own"))
    return made


def make_user_part(part: UserPart, seed: int) -> tuple[Any, dict[str, Tensor]]:
    """Import a class or a function, seed all streams, and call it with its arguments.

    What was drawn before does not matter, nor when and where in this process the module was imported.

    Args:
        part: the code.
        seed: of the streams.

    Returns:
        What it made, and where the streams stood then.

    Raises:
        UserError: if it may not be run here, has changed since it was planned, cannot be imported or called, or changes
            settings of the process.
    """
    where = f"path = {part.path!r}"
    with watching(where):
        make = _find_object(part, where)
        seed_streams(seed)
        if isinstance(part, ModuleExtractor) and not isinstance(make, type):  # a function of images, or a network
            made = functools.partial(make, **part.arguments) if part.arguments else make
            return made, read_streams()
        try:
            return make(**part.arguments), read_streams()
        except (Exception, SystemExit) as broken:  # whatever a user's code raises
            arguments = ", ".join(f"{name}={value!r}" for name, value in part.arguments.items())
            raise UserError(f"{where}: cannot be called with ({arguments[:200]}) ({_reason(broken)})") from None


@contextmanager
def watching(code: str) -> Iterator[None]:
    """Undo what a user's code draws, and refuse it where it changes settings or loads files that name no run.

    Args:
        code: what runs inside, for messages.

    Raises:
        UserError: naming what was changed, or the file.
    """
    before = set(sys.modules)
    with keeping_streams(), refusing_settings(code):
        yield
    for name in sys.modules.keys() - before:
        file = _file_of(name)
        root = None if file is None else next((root for root in _named if file.is_relative_to(root)), None)
        if file is not None and root is not None and file not in _named[root] and not is_installed(file):
            advice = f"which no import statement names; valid: import {name}, so that its content is in the runs' names"
            raise UserError(f"{code}: loads {file}, {advice}")


def _find_object(part: UserPart, where: str) -> Any:
    """Import a module, if this process has not yet, and return what a part names in it."""
    folder = find_place(part)
    module_name, _, attribute = part.path.partition(":")
    source = find_source(module_name, Path(folder) if folder else None)
    if source is None or name_files(source.root, source.files, module_name) != part.code:
        what = f"module {module_name}" if source is None else ", ".join(str(path) for path in source.files[:3])
        raise UserError(f"{what}: it has changed since these runs were planned; run the same command again")
    if not source.is_installed:
        _prepare_import(source, part.code)
    seed_streams(0)  # so that what a module draws while it is imported is the same in every process
    try:
        made: Any = importlib.import_module(module_name)
        for name in attribute.split("."):
            made = getattr(made, name)
    except (Exception, SystemExit) as broken:  # whatever a user's module raises while it is imported
        raise UserError(f"{where}: cannot be imported ({_reason(broken)})") from None
    for name, path in _modules_of(source).items():
        if (file := _file_of(name)) not in (None, path.resolve()):
            raise UserError(f"{name}: another module of that name, {file}, is loaded already; rename yours")
    return made


class _Beside(MetaPathFinder):
    """Finds the modules of a user's folder where Python finds none elsewhere, so that they hide no other module.

    It stays for as long as the process: a class may import when it is made, or when it is called.
    """

    folder: Path | None = None
    names: frozenset[str] = frozenset()
    """Of the first parts of modules there, among them folders without an ``__init__.py``."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: object = None) -> ModuleSpec | None:
        """Find a module that lies in the folder itself."""
        del target
        if self.folder is None or path is not None:
            return None
        found = find_in(self.folder).find_spec(fullname)
        # Any folder would do for a package without an __init__.py, such as the one that a logger has left there.
        return found if found is None or found.origin is not None or fullname in self.names else None


_BESIDE = _Beside()


def _prepare_import(source: Source, code: str) -> None:
    """Make a user's folder the one that is searched, and forget what was imported before its files changed."""
    files = [path.resolve() for path in source.files]
    named = _named.setdefault(source.root.resolve(), {})
    stem = code.rpartition("@")[0]
    if any(known != code and known.rpartition("@")[0] == stem for known in named.values()):
        for name in [name for name in sys.modules if _file_of(name) in named]:
            del sys.modules[name]
        named.clear()
    named.update(dict.fromkeys(files, code))
    _BESIDE.folder, _BESIDE.names = source.root, frozenset(name.partition(".")[0] for name in _modules_of(source))
    if _BESIDE not in sys.meta_path:
        sys.meta_path.append(_BESIDE)
    # Python takes compiled code for that of a file of the same size and second: an edit may be of both.
    sys.dont_write_bytecode = True
    with suppress(OSError):  # a folder that nobody may write to
        for path in (path for path in files if path.suffix == ".py"):
            Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
    importlib.invalidate_caches()


def _modules_of(source: Source) -> dict[str, Path]:
    """Name the modules that a source's files are, when they are imported from its root."""
    modules: dict[str, Path] = {}
    for path in filter(is_module, source.files):
        *packages, file = path.relative_to(source.root).parts
        name = file.partition(".")[0]
        modules[".".join(packages if name == "__init__" else [*packages, name])] = path
    return modules


def _file_of(name: str) -> Path | None:
    """Return the file that a loaded module came from, where it has one."""
    file = getattr(sys.modules.get(name), "__file__", None)
    return Path(file).resolve() if isinstance(file, str) else None


def _reason(broken: BaseException) -> str:
    text = str(broken).strip().partition("\n")[0][:300]
    return f"{type(broken).__name__}: {text}" if text else type(broken).__name__
