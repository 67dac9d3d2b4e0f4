"""Generators of users' scripts: sample a saved one, a checkpoint, or a global of a script that this process runs.

This file runs in processes of its own, also of other Pythons, so it imports the standard library alone at its start.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import functools
import importlib
import importlib.util
import json
import os
import pickle
import random
import symtable
import sys
import types
import warnings
import zipfile
from typing import Any

BATCH = 250

_REFUSED_EVENTS = frozenset(
    ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect")
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class RefusedError(Exception):
    """A file is no generator, or would run code."""


def main(order: dict[str, Any]) -> None:
    """Sample a saved generator or a checkpoint; see ``sample``.

    Args:
        order: what ``sample`` needs, ``path``, the generator's file, ``device``, and for a checkpoint what
            ``build_generator`` needs.
    """
    import torch

    device = torch.device(order["device"])
    if "module" in order:
        generator = build_generator(order).to(device).eval()
    else:
        generator = load_generator(order["path"], order["target"], device)
    sample(generator, torch.empty(0, device=device), order)


def sample(generator: Any, like: Any, order: dict[str, Any]) -> None:
    """Sample a generator, and write the images to an ``.npy`` file, (N, C, S, S) float32.

    Args:
        generator: maps latents to images.
        like: a tensor of the device and type that latents have.
        order: ``target``, the ``.npy`` file; ``num_images``; ``latent_shape`` of one latent, ``latent_distribution``
            and ``latent_seed``.
    """
    import numpy as np
    import torch

    num_images, shape = order["num_images"], order["latent_shape"]
    stream = torch.Generator().manual_seed(order["latent_seed"])
    is_uniform = order["latent_distribution"] == "uniform"
    draw = torch.rand if is_uniform else torch.randn
    latents = draw(num_images, *shape, generator=stream, dtype=torch.float32, device="cpu")  # whatever a script set
    latents = latents * 2 - 1 if is_uniform else latents
    images: Any = None
    done = 0
    # An exported program may refuse a batch of one.
    parts = latents.split(BATCH) if num_images % BATCH != 1 else latents.tensor_split(num_images // BATCH + 1)
    with torch.inference_mode():
        for z in parts:
            batch = generator(z.to(like)).float().cpu().numpy()
            if images is None:
                images = np.lib.format.open_memmap(order["target"], "w+", np.float32, (num_images, *batch.shape[1:]))
            images[done : done + len(z)] = batch
            done += len(z)
    images.flush()


def load_generator(path: str, target: str, device: Any) -> Any:
    """Load what ``torch.jit.save`` or ``torch.export.save`` wrote.

    Args:
        path: the generator's file.
        target: the file of the images; loading may write files in its folder only.
        device: the device that samples.

    Raises:
        RefusedError: if the file is of another kind, or holds more than tensors.
    """
    import torch

    if not path.endswith(".pt2"):
        if not _has_script(path):
            advice = "torch.jit.trace(netG, z).save(PATH), torch.export.save, or samples = { checkpoint = …"
            raise RefusedError(f"no TorchScript; valid: {advice}")
        return torch.jit.load(path, map_location=device).eval()
    from torch.export.passes import move_to_device_pass
    from torch.export.pt2_archive import PT2ArchiveReader

    with PT2ArchiveReader(path) as archive:
        if any("aotinductor" in name for name in archive.get_file_names()):
            raise RefusedError("it holds compiled code; valid: what torch.export.save writes")
    # Without these, torch.export.load unpickles any object, and SymPy evaluates any text in the place of a size.
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    sys.addaudithook(functools.partial(_refuse_code, os.path.dirname(target)))  # noqa: PTH120 (text, as events have it)
    try:
        return move_to_device_pass(torch.export.load(path), device).module()
    except pickle.UnpicklingError:
        raise RefusedError("it holds a pickle of more than tensors, which may run code") from None


def _has_script(path: str) -> bool:
    """Whether a file holds TorchScript, and not a pickle that ``torch.save`` wrote."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def _refuse_code(folder: str, event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse an audit event that only hidden code causes, such as changing a file outside a folder."""
    is_change = event in ("os.remove", "os.rename") or (event == "open" and (arguments[2] or 0) & _WRITES)
    is_outside = is_change and isinstance(arguments[0], str) and not arguments[0].startswith(folder)
    if event in _REFUSED_EVENTS or is_outside:
        raise PermissionError(f"it would run code when it is loaded: {event}")


def build_generator(order: dict[str, Any]) -> Any:
    """Build a generator from a class in a file, and load a checkpoint's weights.

    Args:
        order: ``path``, the checkpoint; ``file`` and ``name``, the class and where it is; ``module``, the name under
            which the file runs; ``arguments``; ``key``; ``argv``, of the script; ``roots``, folders to import from.

    Raises:
        RefusedError: if the class cannot be made, or the weights are not its own.
    """
    import torch

    sys.path[:0] = order["roots"]
    sys.argv = order["argv"]
    file, first = os.path.basename(order["file"]), order["name"].partition(".")[0]  # noqa: PTH119 (needed once)
    module = types.ModuleType(order["module"])
    module.__file__, module.__package__ = order["file"], order["module"].rpartition(".")[0]
    sys.modules[order["module"]] = module
    try:
        with open(order["file"], "rb") as source:  # noqa: PTH123 (needed once)
            tree = slice_module(ast.parse(source.read()), first)
        exec(compile(tree, order["file"], "exec", dont_inherit=True), module.__dict__)
        make: Any = functools.reduce(getattr, order["name"].split("."), module)
        generator = make(**order["arguments"])
    except (Exception, SystemExit) as wrong:
        advice = "only what the class names is run, and no loop; valid: more arguments, or external.generator"
        raise RefusedError(f"{file}: {order['name']}: {type(wrong).__name__}: {wrong}; {advice}") from None
    if not isinstance(generator, torch.nn.Module):
        raise RefusedError(f"{file}: {order['name']} gives a {type(generator).__name__}; valid: an nn.Module")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # options, which scripts keep beside weights
            saved = torch.load(order["path"], map_location="cpu", weights_only=True)
    except Exception as wrong:
        what = "it holds more than tensors" if isinstance(wrong, pickle.UnpicklingError) else str(wrong)
        raise RefusedError(f"{what.partition(chr(10))[0]}; valid: torch.save(netG.state_dict(), PATH)") from None
    generator.load_state_dict(find_weights(saved, generator.state_dict(), order["key"]))
    return generator


def slice_module(tree: ast.Module, wanted: str) -> ast.Module:
    """Keep the statements of a module that a name needs: what sets the name, and the names that this uses, and so on.

    Loops are left out, so no training runs. Of ``if``, ``try`` and ``with``, what is needed inside is kept. Calls of
    methods are kept for names that are set in the module, such as a parser, and for ``sys.path``.

    Args:
        tree: the module.
        wanted: the name of a class or function.
    """
    imports = (node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom)))
    imported = {(alias.asname or alias.name).partition(".")[0] for node in imports for alias in node.names}
    needed, known = {wanted}, 0
    body: list[ast.stmt] = []
    while len(needed) > known:
        known = len(needed)
        body = _keep(tree.body, needed, imported)
    return ast.fix_missing_locations(ast.Module(body, []))


def _keep(statements: list[ast.stmt], needed: set[str], imported: set[str]) -> list[ast.stmt]:
    """Return the statements that set or change needed names, and add the names that they use."""
    kept: list[ast.stmt] = []
    for statement in statements:
        if isinstance(statement, (ast.For, ast.While)):
            continue
        if isinstance(statement, (ast.If, ast.Try, ast.With)):
            part = _keep_inside(statement, needed, imported)
            kept += [] if part is None else [part]
            continue
        sets, uses = _names(statement)
        is_always = ast.unparse(statement).startswith("sys.path.")
        if isinstance(statement, ast.ImportFrom):
            is_always = statement.module == "__future__" or statement.names[0].name == "*"
        if is_always or sets & needed or _changed(statement) & (needed - imported):
            needed |= uses
            kept.append(statement)
    return kept


def _keep_inside(statement: ast.If | ast.Try | ast.With, needed: set[str], imported: set[str]) -> ast.stmt | None:
    """Return a compound statement with what is needed of its blocks; None if that is nothing."""
    part = copy.copy(statement)
    blocks = [name for name in ("body", "orelse", "finalbody") if getattr(statement, name, None)]
    kept = {name: _keep(getattr(statement, name), needed, imported) for name in blocks}
    handlers = [copy.copy(handler) for handler in getattr(statement, "handlers", ())]
    for handler in handlers:
        handler.body = _keep(handler.body, needed, imported)
    is_needed = any(kept.values()) or any(handler.body for handler in handlers)
    if not is_needed:
        return None
    for name, block in kept.items():
        setattr(part, name, block or ([ast.Pass()] if name == "body" else []))
    for handler in handlers:
        handler.body = handler.body or [ast.Pass()]
    if isinstance(part, ast.Try):
        part.handlers = handlers
    heads: list[ast.AST] = [part.test] if isinstance(part, ast.If) else list(getattr(part, "items", ()))
    heads += [handler.type for handler in handlers if handler.type is not None]
    needed |= {node.id for head in heads for node in ast.walk(head) if isinstance(node, ast.Name)}
    return part


def _changed(statement: ast.stmt) -> set[str]:
    """Return the names of what a statement changes: of ``a`` in ``a.add_argument(…)``, ``a.b = 1`` and ``a[0] = 1``."""
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        targets = [statement.value.func]
    elif isinstance(statement, ast.Assign):
        targets = statement.targets
    roots = set()
    for target in targets:
        node: Any = target
        while isinstance(node, (ast.Attribute, ast.Subscript)):
            node = node.value
        if isinstance(node, ast.Name) and node is not target:
            roots.add(node.id)
    return roots


def _names(statement: ast.stmt) -> tuple[set[str], set[str]]:
    """Return the names that a statement of a module sets, and the global names that it uses, in its functions, too."""
    table = symtable.symtable(ast.unparse(statement), "", "exec")
    sets = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    uses = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_referenced()}
    tables = list(table.get_children())
    while tables:
        inner = tables.pop()
        is_class = inner.get_type() == "class"  # whose body may read a global before it sets its own
        of_inner = [one for one in inner.get_symbols() if one.is_global() or (is_class and one.is_referenced())]
        uses |= {symbol.get_name() for symbol in of_inner}
        tables += inner.get_children()
    return sets, uses


def find_weights(saved: Any, own: dict[str, Any], key: str = "") -> dict[str, Any]:
    """Find a module's weights in a checkpoint: whole, in a table of it, or behind a prefix such as ``module.``.

    Args:
        saved: what ``torch.load`` returned.
        own: the module's own ``state_dict``.
        key: the table or prefix to take, where several fit.

    Raises:
        RefusedError: if no part of the checkpoint fits the module, or several do.
    """
    fitting: dict[str, dict[str, Any]] = {}
    shapes = {name: tuple(value.shape) for name, value in own.items()}
    todo: list[tuple[str, Any]] = [("", saved)]
    while todo:
        place, table = todo.pop()
        if not isinstance(table, dict):
            continue
        todo += [(f"{place}{name}.", value) for name, value in table.items() if isinstance(value, dict)]
        tensors = {str(name): value for name, value in table.items() if hasattr(value, "shape")}
        last = next(iter(own), "")
        for prefix in {name[: len(name) - len(last)] for name in tensors if name.endswith(last)}:
            part = {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
            if {name: tuple(value.shape) for name, value in part.items()} == shapes:
                fitting[place + prefix] = part
    names = [name for name in fitting if not key or key in (name.rstrip("."), *name.rstrip(".").split("."))]
    if len(names) == 1:
        return fitting[names[0]]
    if names:
        shown = ", ".join(repr(name.rstrip(".")) for name in sorted(names))
        raise RefusedError(f"the weights {shown} all fit the module; valid: external.samples.key = one of them")
    tops = ", ".join(list(map(str, saved))[:3]) if isinstance(saved, dict) else type(saved).__name__
    needs = ", ".join(f"{name} {'×'.join(map(str, shape))}" for name, shape in list(shapes.items())[:2])
    wanted = f" at {key!r}" if key else ""
    raise RefusedError(f"no weights{wanted} of the module's names and shapes ({needs}, …); the file has {tops}, …")


def launch(order: dict[str, Any], words: list[str]) -> None:
    """Run a script as Python would, seeded if asked, and sample a global of it when it ends.

    Args:
        order: ``seed``, or None; ``generator``, the global's name, or empty; for that what ``sample`` needs.
        words: the script and its arguments; ``-m`` and a module instead of a file.

    Raises:
        RefusedError: if the script has no such global, or it is no module.
        SystemExit: as the script does.
    """
    if order["seed"] is not None:
        random.seed(order["seed"])
        with contextlib.suppress(ImportError):
            importlib.import_module("numpy").random.seed(order["seed"] % 2**32)
        with contextlib.suppress(ImportError):
            importlib.import_module("torch").manual_seed(order["seed"])
    module, code = _load_script(words)
    sys.modules["__main__"] = module
    try:
        exec(code, module.__dict__)
    except SystemExit as end:
        if end.code not in (None, 0):
            raise
    if order["generator"]:
        _sample_global(module, order)


def _load_script(words: list[str]) -> tuple[types.ModuleType, Any]:
    """Return a script's module, empty yet, and its code; paths and arguments are set as Python sets them."""
    module = types.ModuleType("__main__")
    if words[0] == "-m":
        sys.path.insert(0, os.getcwd())  # noqa: PTH109 (as Python does)
        name = words[1]
        spec: Any = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
        if spec is None:
            raise RefusedError(f"No module named {name}")
        module.__spec__, module.__package__, module.__file__ = spec, spec.parent, spec.origin
        sys.argv = [spec.origin, *words[2:]]
        return module, spec.loader.get_code(spec.name)
    sys.path.insert(0, os.path.dirname(os.path.realpath(words[0])))  # noqa: PTH120 (text, as Python has it)
    sys.argv = words
    module.__file__ = words[0]
    with open(words[0], "rb") as source:  # noqa: PTH123 (needed once)
        return module, compile(source.read(), words[0], "exec", dont_inherit=True)


def _sample_global(module: types.ModuleType, order: dict[str, Any]) -> None:
    import torch

    try:
        generator: Any = functools.reduce(getattr, order["generator"].split("."), module)
    except AttributeError:
        generator = None
    if not isinstance(generator, torch.nn.Module):
        known = [name for name, value in vars(module).items() if isinstance(value, torch.nn.Module)]
        valid = ", ".join(known) or "a module that is a global, and there is none; or samples = { checkpoint = …"
        where = f"external.generator = {order['generator']}"
        raise RefusedError(f"{where}: no module of this name at the end; valid: {valid}")
    tensors = [tensor for tensor in generator.state_dict().values() if tensor.is_floating_point()]
    sample(generator.eval(), next(iter(tensors), torch.empty(0)), order)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    if "seed" in given:
        if sys.path and os.path.dirname(os.path.abspath(__file__)) == os.path.abspath(sys.path[0]):  # noqa: PTH100, PTH120
            sys.path.pop(0)  # this file's folder, which a script does not import from
        try:
            launch(given, sys.argv[2:])
        except RefusedError as refused:
            print(refused)
            sys.exit(1)
    else:
        warnings.simplefilter("ignore")  # TorchScript warns that it is deprecated
        try:
            main(given)
        except Exception as broken:  # a user's generator may raise anything
            print(str(broken).strip().partition("\n")[0][:500] or type(broken).__name__)
            sys.exit(1)
