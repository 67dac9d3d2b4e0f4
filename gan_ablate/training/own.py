"""Code of one's own, by its import path, in; the network, loss or penalty that it makes, out."""

from __future__ import annotations

import functools
import importlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gan_ablate.design.sources import list_source_files, name_files
from gan_ablate.errors import UserError
from gan_ablate.seeding import stream_seed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gan_ablate.design.own import OwnDiscriminator, OwnGenerator, OwnPart

_places: dict[str, str] = {}
"""``NAME@HASH`` → its folder, of the code that somebody has allowed this process to run."""


def allow_code(folders: Mapping[str, str]) -> None:
    """Let this process import the code that a plan names.

    Args:
        folders: of the plan: ``NAME@HASH`` → where it lies, nothing where it is installed.
    """
    _places.update(folders)


class WrappedGenerator(nn.Module):
    """A generator of somebody's, called as ours are.

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
    """A discriminator of somebody's, called as ours are.

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


def build_own_generator(part: OwnGenerator, seed: int) -> nn.Module:
    """Build a generator of somebody's, from the seed's streams; see ``build_own``."""
    return WrappedGenerator(_build_network(part, seed, "generator"), takes_maps=part.latents == "maps")


def build_own_discriminator(part: OwnDiscriminator, seed: int) -> nn.Module:
    """Build a discriminator of somebody's, likewise."""
    return WrappedDiscriminator(_build_network(part, seed, "discriminator"))


def _build_network(part: OwnPart, seed: int, role: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, f"init/{role}/of its own"))
        network = build_own(part)
    if not isinstance(network, nn.Module):
        raise UserError(f"{role}.path = {part.path!r}: makes a {type(network).__name__}; valid: a torch.nn.Module")
    return network


@functools.lru_cache(maxsize=64)
def _keep(part_as_json: str) -> Any:
    """Make a loss or a penalty once: it is asked for in every step."""
    from gan_ablate.design.own import OwnPart

    return build_own(OwnPart.model_validate_json(part_as_json))


def find_own(part: OwnPart) -> Any:
    """Return a loss or a penalty of somebody's; see ``build_own``."""
    return _keep(_as_json(part))


def _as_json(part: OwnPart) -> str:
    known = {"kind": part.kind, "path": part.path, "code": part.code}
    return json.dumps({**known, **part.arguments}, sort_keys=True)


def build_own(part: OwnPart) -> Any:
    """Import a class or a function and call it with its arguments.

    Raises:
        UserError: if it may not be run here, has changed since it was planned, or cannot be imported or called.
    """
    folder = _places.get(part.code)
    if folder is None:
        raise UserError(f"{part.path}: code of somebody's own, {part.code}, which this command was not allowed to run")
    module_name, _, attribute = part.path.partition(":")
    where = f"path = {part.path!r}"
    try:
        module = _import(module_name, folder)
        made: Any = module
        for name in attribute.split("."):
            made = getattr(made, name)
    except UserError:
        raise
    except (Exception, SystemExit) as broken:  # whatever somebody's module raises while it is imported
        raise UserError(f"{where}: cannot be imported ({_reason(broken)})") from None
    _check_unchanged(module_name, folder, part)
    try:
        return made(**part.arguments)
    except (Exception, SystemExit) as broken:  # likewise while it is called
        arguments = ", ".join(f"{name}={value!r}" for name, value in part.arguments.items())
        raise UserError(f"{where}: cannot be called with ({arguments[:200]}) ({_reason(broken)})") from None


def _import(name: str, folder: str) -> Any:
    if not folder:
        return importlib.import_module(name)
    sys.path.insert(0, folder)
    try:
        module = importlib.import_module(name)
    finally:
        sys.path.remove(folder)
    if not Path(str(module.__file__)).resolve().is_relative_to(Path(folder).resolve()):
        raise UserError(f"{name}: another module of that name, {module.__file__}, is loaded already; rename yours")
    return module


def _check_unchanged(name: str, folder: str, part: OwnPart) -> None:
    top = sys.modules[name.partition(".")[0]]
    origin = Path(str(top.__file__))
    files = list_source_files(origin)
    now = name_files(Path(folder) if folder else files[0].parent, files, name)
    if now != part.code:
        raise UserError(f"{origin}: it has changed since these runs were planned; run the same command again")


def _reason(broken: BaseException) -> str:
    text = str(broken).strip().partition("\n")[0][:300]
    return f"{type(broken).__name__}: {text}" if text else type(broken).__name__
