"""Files of a user's code: found by import statements, without running anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from gan_ablate.design.source_files import list_module_files, list_script_files, name_files, refuse_shadows
from gan_ablate.errors import UserError

FILES = {
    "nets.py": "import torch\nimport helpers.layers\nfrom blocks import Block\nimport absent",
    "helpers/layers.py": "from . import sizes\nfrom .deep.more import width",  # a folder without an __init__.py
    "helpers/sizes.py": "",
    "helpers/deep/more.py": "from .. import top",
    "helpers/top.py": "",
    "helpers/unused.py": "",
    "blocks/__init__.py": "from .block import Block",
    "blocks/block.py": "class Block:\n def __init__(self):\n  import late\n  from importlib import import_module\n"
    "  import_module('named')\n  x = '\\d'",
    "blocks/other.py": "import cycle_a",
    "late.py": "",
    "named.py": "",
    "cycle_a.py": "import cycle_b",
    "cycle_b.py": "import cycle_a",
    "unused.py": "",
    "broken.py": "this is no Python",
    "scripts/train.py": "import beside, nets, broken\nif __name__ == '__main__': pass",
    "scripts/beside.py": "from ..outside import x",
}

NETS = [
    "blocks/__init__.py", "blocks/block.py", "blocks/other.py", "cycle_a.py", "cycle_b.py", "helpers/deep/more.py",
    "helpers/layers.py", "helpers/sizes.py", "helpers/top.py", "late.py", "named.py", "nets.py",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    return tmp_path


def relative(files: list[Path], folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in files]


def test_a_module_counts_with_all_that_it_imports_from_its_folder(folder: Path) -> None:
    assert relative(list_module_files("nets", folder), folder) == NETS
    assert relative(list_module_files("helpers.sizes", folder), folder) == ["helpers/sizes.py"]
    assert list_module_files("absent", folder) == []


def test_a_script_counts_with_what_it_imports_from_its_folder_and_those_above(folder: Path) -> None:
    found = relative(list_script_files(folder / "scripts" / "train.py", folder), folder)
    assert found == sorted([*NETS, "broken.py", "scripts/beside.py", "scripts/train.py"])


@pytest.mark.parametrize("name", NETS)
def test_a_change_of_any_file_that_counts_is_another_name(folder: Path, name: str) -> None:
    def compute() -> str:
        return name_files(folder, list_module_files("nets", folder), "nets")

    before = compute()
    (folder / "unused.py").write_text("x = 2", "utf-8")
    assert compute() == before
    (folder / name).write_text(FILES[name] + "\nx = 2", "utf-8")
    assert compute() != before


def test_a_name_of_another_module_is_refused_where_the_code_imports_it(folder: Path) -> None:
    (folder / "queue.py").write_text("", "utf-8")
    refuse_shadows(list_module_files("nets", folder), folder, "g.toml: generator.path = 'nets'")
    (folder / "late.py").write_text("import queue", "utf-8")
    files = list_module_files("nets", folder)
    with pytest.raises(UserError) as wrong:
        refuse_shadows(files, folder, "g.toml: generator.path = 'nets'")
    assert str(wrong.value) == (
        f"g.toml: generator.path = 'nets': imports {folder}/queue.py: its name is that of a module of the standard "
        "library; valid: another name"
    )
    (folder / "numpy").mkdir()
    (folder / "numpy" / "__init__.py").write_text("", "utf-8")
    (folder / "late.py").write_text("import numpy", "utf-8")
    with pytest.raises(UserError, match=r"imports .*/numpy/__init__.py: its name is that of a module at .*site-packag"):
        refuse_shadows(list_module_files("nets", folder), folder, "g.toml")


def test_a_file_that_a_module_names_counts(folder: Path) -> None:
    (folder / "reader.py").write_text(
        "from pathlib import Path\nA = Path(__file__).parent / 'random.json'\nB = '../x.txt'"
    )
    for name in ("random.json", "other.json", "../x.txt"):
        (folder / name).write_text("{}")
    files = list_module_files("reader", folder)
    assert relative(files, folder) == ["random.json", "reader.py"]
    refuse_shadows(files, folder, "path")  # data, so no module of that name
    before = name_files(folder, files, "reader")
    (folder / "random.json").write_text("[]")
    assert name_files(folder, list_module_files("reader", folder), "reader") != before
