"""Whatever a file holds, reading it gives a valid object or one clear line: thousands of mutated inputs."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gan_ablate.atomic_io import seal_json
from gan_ablate.design.config import RunConfig
from gan_ablate.design.grid import list_grids, load_grid, load_preset
from gan_ablate.design.plan import Plan, plan
from gan_ablate.design.validation import validate
from gan_ablate.errors import UserError
from gan_ablate.execution.records import Record
from gan_ablate.execution.store import Store
from tests.configs import make_config
from tests.synthetic import make_record

many = settings(
    max_examples=400, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20)
    | st.sampled_from(["inf", "../..", "a/b", "\x00", "🙂", "[bold]", "=1+1", "<b>", "adam", "leaky_relu", "none"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def assert_one_line(refused: UserError, name: str = "") -> None:
    """A message names something, and is a line that a person reads."""
    text = str(refused)
    assert text
    assert name in text
    assert len(text) < 5_000


@st.composite
def mutated(draw: st.DrawFn, content: dict[str, Any]) -> Any:
    """Change, delete or add a few things anywhere in nested dictionaries and lists."""
    content = json.loads(json.dumps(content))
    for _ in range(draw(st.integers(1, 3))):
        place: Any = content
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            inner = place[key]
            if isinstance(inner, dict | list) and inner and draw(st.booleans()):
                place = inner
                continue
            match draw(st.sampled_from(["change", "delete", "add", "twist"])):
                case "change":
                    place[key] = draw(VALUES)
                case "delete":
                    del place[key]
                case "add" if isinstance(place, dict):
                    place[draw(st.text(max_size=12))] = draw(VALUES)
                case _:
                    if isinstance(inner, int | float) and not isinstance(inner, bool):
                        place[key] = -inner
                    elif isinstance(inner, str):
                        place[key] = inner + draw(st.text(max_size=5))
            break
    return content


@many
@given(data=mutated({**load_preset("dcgan-28", "test"), "steps": 3, "seed": 0, "scoring": {"features": "digits"}}))
def test_any_configuration(data: Any) -> None:
    try:
        config = validate(RunConfig, data, "test")
    except UserError as refused:
        assert_one_line(refused)
    else:
        assert len(config.run_id) == 12
        assert validate(RunConfig, json.loads(config.model_dump_json()), "test") == config


RECORD = json.loads(
    make_record(plan(load_grid("beta1"), seeds=1).baseline, 0, 20.0).model_dump_json(exclude={"history"})
)


@many
@given(data=mutated(RECORD), is_sealed=st.booleans(), is_packed=st.booleans())
def test_any_record(tmp_path: Path, data: Any, is_sealed: bool, is_packed: bool) -> None:
    store, run_id = Store(tmp_path), str(RECORD["run_id"])
    path = store.archived_record(run_id) if is_packed else store.run_dir(run_id) / "record.json"
    for old in (store.archived_record(run_id), store.run_dir(run_id) / "record.json"):
        old.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(data)
    content = seal_json(text) if is_sealed and len(text) > 2 else text.encode()
    path.write_bytes(gzip.compress(content) if is_packed else content)
    record = read_record(store, run_id, path)
    assert record is None or record.config.run_id == run_id


def read_record(store: Store, run_id: str, path: Path) -> Record | None:
    """Read a record; an error is one line that names the file."""
    try:
        return store.load_record(run_id)
    except UserError as refused:
        assert_one_line(refused, str(path))
        return None


@many
@given(content=st.binary(max_size=200), place=st.integers(0, 10**6), is_inserted=st.booleans())
def test_any_bytes_in_a_record(tmp_path: Path, content: bytes, place: int, is_inserted: bool) -> None:
    store, record = Store(tmp_path), Record(run_id=make_config().run_id, status="completed", config=make_config())
    store.save_record(record)
    path = store.run_dir(record.run_id) / "record.json"
    whole = path.read_bytes()
    place %= len(whole)
    changed = whole[:place] + content + whole[place if is_inserted else place + len(content) :]
    path.write_bytes(changed)
    assert read_record(store, record.run_id, path) in (None, record)  # as it was only where nothing has changed


GRIDS = {name: (Path(__file__).parents[2] / "gan_ablate" / "design" / "grids" / f"{name}.toml").read_text("utf-8")
         for name in list_grids()}  # fmt: skip


@many
@given(data=st.data())
def test_any_grid_file(tmp_path: Path, data: st.DataObject) -> None:
    """Lines deleted, doubled, swapped; characters put in anywhere; whole files of noise."""
    text = GRIDS[data.draw(st.sampled_from(sorted(GRIDS)))]
    lines = text.splitlines()
    for _ in range(data.draw(st.integers(0, 3))):
        number = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["delete", "double", "noise", "value"])):
            case "delete":
                lines[number] = ""
            case "double":
                lines.insert(number, lines[number])
            case "noise":
                at = data.draw(st.integers(0, len(lines[number])))
                lines[number] = lines[number][:at] + data.draw(st.text(max_size=6)) + lines[number][at:]
            case _:
                key, equals, _ = lines[number].partition("=")
                if equals:
                    lines[number] = f"{key}= {data.draw(st.sampled_from(WRONG_TOML))}"
    path = tmp_path / "mine.toml"
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    assert read_grid(path) in ("a plan", "one line")


WRONG_TOML = (
    "nan", "-inf", "1e400", "-1", "0", "9999999999999999999999", '""', "[]", "{}", "true",
    '"../../etc/passwd"', "[[[[]]]]",
    '{ a = { b = { c = 1 } } }', "1979-05-27", '"\\u0000"', '["x", 1]', "0x_", "'''",
)  # fmt: skip


@many
@given(content=st.binary(max_size=300))
def test_any_bytes_as_a_grid_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    assert read_grid(path) in ("a plan", "one line")


def read_grid(path: Path) -> str:
    """Say what came of a grid's file; anything else is raised."""
    try:
        planned = plan(load_grid(path), budget="smoke")
    except UserError as refused:
        assert_one_line(refused)
        return "one line"
    assert isinstance(planned, Plan)
    assert planned.variants
    return "a plan"


def test_a_record_of_brackets_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.run_dir("0" * 12) / "record.json"
    path.parent.mkdir(parents=True)
    path.write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"record\.json: cannot be read"):
        store.load_record("0" * 12)
