"""The examples in the docstrings of the public names run as they stand."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path

import pytest

import gan_ablate
from tests.features import warm

WITH_EXAMPLES = [
    name
    for name in gan_ablate.__all__
    if inspect.isfunction(getattr(gan_ablate, name)) or name in ("Compute", "RunObserver")
]


@pytest.mark.usefixtures("quick_kid")
@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_example_of_a_public_name_gives_what_it_shows(name: str, tmp_path: Path) -> None:
    warm(tmp_path / "results")
    found = doctest.DocTestFinder(recurse=False).find(getattr(gan_ablate, name), name, globs={})
    assert [len(one.examples) > 0 for one in found] == [True]
    shown: list[str] = []
    outcome = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(found[0], out=shown.append)
    assert outcome.failed == 0, "".join(shown)


def test_dir_lists_exactly_the_public_names() -> None:
    assert dir(gan_ablate) == sorted(gan_ablate.__all__)
