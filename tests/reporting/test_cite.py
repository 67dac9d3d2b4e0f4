from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest

from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import plan
from gan_ablate.errors import UserError
from gan_ablate.execution.store import Store
from gan_ablate.reporting.cite import cite
from tests.reporting.example import check_golden
from tests.synthetic import save_runs


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    save_runs(store, plan(load_grid("beta1")), lambda cell, seed: 20.0 + seed + len(cell.label) / 9)
    return store


def test_citation_of_the_example_is_golden(example: Path) -> None:
    """``RENEW_GOLDEN=1 python -m pytest tests/reporting -k golden`` writes the golden file anew."""
    check_golden("citation.tex", cite(example).replace(metadata.version("gan-ablate"), "VERSION"))


def test_citation_names_what_was_done_and_no_more(store: Store) -> None:
    paragraph, *entries = cite(store.root).split("\n\n")
    for words in (
        "3 variants",
        "15 runs over at most 5 seeds",
        "1,500 generator steps",
        "dddddddddddd",
        "eeeeeeeeeeee",
        "protocol 5",
    ):
        assert words in paragraph
    cited = re.findall(r"\\cite\{(.+?)\}", paragraph)
    assert [re.findall(r"@\w+\{(.+?),", entry)[0] for entry in entries] == list(dict.fromkeys(cited))
    assert "holm1979" in cited
    assert "lindon2022anytime" not in cited
    assert "Student's $t$" in paragraph
    store.save_plan(store.load_plan("beta1").model_copy(update={"intervals": "sequential"}))
    assert "lindon2022anytime" in cite(store.root)
    assert "Student" not in cite(store.root)


def test_runs_without_scores_cite_no_metric(store: Store) -> None:
    for _, config in store.load_plan("beta1").runs:
        record = store.load_record(config.run_id)
        assert record is not None
        environment = {"torch": "2.11.0", "cpu": "A_1 & co", "revision": "abc"}
        store.save_record(record.model_copy(update={"scoring": None, "environment": environment}))
    text = cite(store.root)
    assert "(commit abc), protocol 5, on PyTorch 2.11.0~\\cite{paszke2019pytorch}" in text
    assert ", on A\\_1 \\& co. In \\emph{Adam's $\\beta$1}, " in text
    assert "They were not scored." in text
    assert "heusel2017fid" not in text


def test_empty_folder_has_nothing_to_cite(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run is finished in this folder yet"):
        cite(tmp_path)
