from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gan_ablate.design.folders import folder_identity, list_images
from gan_ablate.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_folder_is_named_by_its_content_not_by_its_place(tmp_path: Path) -> None:
    for place in ("here/pets", "there/pets"):
        (tmp_path / place / "cats").mkdir(parents=True)
        (tmp_path / place / "cats" / "a.JPG").write_bytes(b"12345")
    here, there = (folder_identity(tmp_path / place / "pets") for place in ("here", "there"))
    assert here == there
    assert here.startswith("folder:pets@")
    (tmp_path / "there/pets/b.png").write_bytes(b"1")
    assert folder_identity(tmp_path / "there/pets") != here


def test_edited_pictures_are_another_data_set(tmp_path: Path) -> None:
    (tmp_path / "a.bmp").write_bytes(b"12345")
    before = folder_identity(tmp_path)
    (tmp_path / "a.bmp").write_bytes(b"54321")
    assert folder_identity(tmp_path) != before


def test_only_images_are_listed_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpeg", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in list_images(tmp_path)] == ["a.jpeg", "b.png"]


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no image in it; valid: .bmp, .jpeg"):
        list_images(tmp_path)
