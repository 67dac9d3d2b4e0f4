from __future__ import annotations

from pathlib import Path

import pytest

from gan_ablate.design import grids as shipped
from gan_ablate.design.grid import (
    list_grids,
    list_presets,
    list_studies,
    load_grid,
    load_grids,
    load_study,
)
from gan_ablate.design.plan import plan
from gan_ablate.errors import UserError

FACTORIAL = """
base = "dcgan-28"
[factors.a]
baseline = "x"
levels.x = {}
levels.y = { beta1 = 0.0 }
levels.z = { beta1 = 0.9 }
[factors.b]
baseline = "n"
levels.m = { "init.std" = 0.05 }
levels.n = { init.std = 0.02 }
"""


def write(tmp_path: Path, text: str, name: str = "mine.toml") -> Path:
    path = tmp_path / name
    path.write_text(text, "utf-8")
    return path


def test_the_shipped_grids_are_those_of_the_design() -> None:
    assert set(list_grids()) >= {"bn_label_smooth", "architecture", "dropout", "activation", "beta1", "essentials"}
    assert set(list_presets()) >= {"mlp", "dcgan-28"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("base = mlp\n", ["mine.toml", "not TOML", "line 1"]),
        (FACTORIAL.replace('baseline = "x"', 'baseline = "q"'), ["factors.a.baseline = 'q'", "valid: x, y, z"]),
        (FACTORIAL.replace("dcgan-28", "dcgan-82"), ["base = 'dcgan-82'", "did you mean dcgan-28?"]),
        (FACTORIAL.replace("beta1 = 0.0", "beta = 0.0"), ["beta = 0.0", "a.y", "did you mean beta"]),
        (FACTORIAL.replace("baseline = ", "base_line = "), ["factors.a.base_line", "did you mean baseline?"]),
        (FACTORIAL.replace("beta1 = 0.0", "seed = 3"), ["mine.toml", "seed and steps are the same in every run"]),
        (FACTORIAL.replace("beta1 = 0.0", "beta1 = 0.5"), ["'a x, b n' and 'a y, b n' are the same configuration"]),
        (FACTORIAL.replace("levels.y = { beta1 = 0.0 }\nlevels.z = { beta1 = 0.9 }", ""), ["factors.a.levels"]),
        ('base = "mlp"', ["factors is missing"]),
        (FACTORIAL.replace("factors", "factor"), ["factor = ", "a grid has no such field; did you mean factors?"]),
        ('design = "latin"\n' + FACTORIAL, ['design = "latin"', "'factorial' or 'one-at-a-time'"]),
        (FACTORIAL.replace("factors.a", "factors.fid"), ["factors.fid", "a column of that name"]),
        (FACTORIAL.replace("levels.y", 'levels."y|z"'), ["'y|z'", "use letters"]),
        (FACTORIAL.replace("beta1 = 0.0", "preset = 3"), ["no such preset; valid: "]),
        ("[set]\nsteps = 7" + FACTORIAL.replace("base", "#"), ["base is missing"]),
        (FACTORIAL + "[set]\nsteps = 7", ["seed and steps are the same in every run"]),
        (FACTORIAL + "[set]\nscoring = 5", ["scoring = 5"]),
        ("x = " + "[" * 3000, ["not TOML"]),
        (FACTORIAL + "[budget.large]\nsteps = 3", ["budget", "'smoke', 'standard' or 'full'"]),
    ],
)
def test_a_wrong_grid_file_is_named_with_what_is_wrong(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(UserError) as wrong:
        plan(load_grid(write(tmp_path, text)))
    for word in ["mine", *words]:
        assert word in str(wrong.value)
    assert "\n" not in str(wrong.value)


def test_a_grid_may_start_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(FACTORIAL, "utf-8-sig")
    assert load_grid(tmp_path / "mine.toml").name == "mine"


def test_a_grid_may_not_be_called_like_the_folders_beside_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="becomes a folder beside runs, plans"):
        load_grid(write(tmp_path, FACTORIAL, "runs.toml"))


def test_a_misspelt_grid_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"name='bn_label_smoth': no such grid; did you mean bn_label_smooth\?"):
        load_grid("bn_label_smoth")


GRID = """
base = "mlp"
[factors.smoothing]
baseline = "off"
levels.off = {}
levels.on = { loss.real_label = 0.9 }
"""


def test_level_has_its_label_or_its_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GRID + 'labels.on = "0.9 instead of 1"\n', "utf-8")
    factor = load_grid(path).factors["smoothing"]
    assert (factor.label_of("on"), factor.label_of("off")) == ("0.9 instead of 1", "off")


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ('labels.no = "x"', "factors.smoothing.labels.no: no such level; valid: off, on"),
        ('labels.on = ""', "factors.smoothing.labels.on = '': valid: one line of at most 80 characters"),
        (f'labels.on = "{"x" * 81}"', "valid: one line of at most 80 characters"),
    ],
)
def test_wrong_label_is_named(tmp_path: Path, label: str, words: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"{GRID}{label}\n", "utf-8")
    with pytest.raises(UserError) as refused:
        load_grid(path)
    assert words in str(refused.value)


def test_shipped_grids_have_short_names_of_levels_and_the_documents_default_as_baseline() -> None:
    """One direction for a factor everywhere: grids that share a factor share its baseline."""
    factors = [(name, factor) for grid in list_grids() for name, factor in load_grid(grid).factors.items()]
    for name, factor in factors:
        assert all(len(level) <= 20 for level in factor.levels)
        shared = [other for of, other in factors if of == name and factor.baseline in other.levels]
        assert {other.baseline for other in shared} == {factor.baseline}, name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"big = {'1' * 5_000}\n" + GRID, "not TOML"),
        (GRID + ".".join(["a"] * 3_000) + " = 1\n", "factors: more than 20 tables deep"),
        (GRID + "[set]\n" + ".".join(["a"] * 50) + " = 1\n", "more than 20 tables deep"),
        (GRID + f"[set]\nbeta1 = {'[' * 500}{']' * 500}\n", "deep"),
        (GRID + f'[set]\n"{".".join(["a"] * 3_000)}" = 1\n', "more than 20 tables deep"),
        (f'title = "{"x" * 10**7}"\n' + GRID, "characters; valid: at most 1,000,000"),
        (f'{"x" * 10**5} = "{"y" * 10**5}"\n' + GRID, "no such field"),
        (GRID + f'[factors.other]\nbaseline = "{"x" * 10**5}"\nlevels.a = {{}}\nlevels.b = {{}}\n', "no such level"),
        (GRID.replace("off", "o" * 81), "valid: at most 80 characters"),
    ],
)
def test_what_is_too_large_is_one_short_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "large.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(UserError) as refused:
        plan(load_grid(path))
    message = str(refused.value)
    assert words in message
    assert str(path) in message
    assert len(message) < 1_000
    assert "\n" not in message


def test_a_study_stands_for_its_grids_and_a_grid_counts_once() -> None:
    (study,) = list_studies()
    grids = load_study(study).grids
    assert len(set(grids)) == len(grids) > 10
    assert [grid.name for grid in load_grids([study])] == grids
    assert [grid.name for grid in load_grids(["latent", study, "dropout"])] == ["latent", *grids]


def test_documents_study_has_all_twenty_claims() -> None:
    numbers = {
        int(claim.id[1:].rstrip("abcd")) for grid in load_grids(["documents"]) for claim in grid.claims if claim.id
    }
    assert numbers == set(range(1, 21))


def test_two_grids_of_one_name_are_refused(tmp_path: Path) -> None:
    mine = tmp_path / "beta1.toml"
    mine.write_text((Path(shipped.__path__[0]) / "beta1.toml").read_text("utf-8"), "utf-8")
    with pytest.raises(UserError, match="named like name='beta1'; rename"):
        load_grids(["beta1", str(mine)])


LOOKALIKES = [
    ("levels.y", "levels.X", "factors.a.levels: 'x' and 'X' look alike"),
    ("levels.y", 'levels." x"', "factors.a.levels: 'x' and ' x' look alike"),
    ("levels.y", 'levels."\uff58"', "factors.a.levels: 'x' and '\uff58' look alike"),
    ("factors.b", "factors.A", "factors: 'a' and 'A' look alike"),
    ("factors.b", "factors.Seed", "factors.Seed: results have a column of that name"),
]


def test_a_sign_is_no_separator(tmp_path: Path) -> None:
    grid = load_grid(write(tmp_path, FACTORIAL.replace("levels.x", 'levels."-1"').replace('"x"', '"-1"')
                           .replace("levels.y", 'levels."1"')))  # fmt: skip
    assert list(grid.factors["a"].levels) == ["-1", "1", "z"]


@pytest.mark.parametrize(("old", "new", "words"), LOOKALIKES)
def test_names_that_look_alike_are_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(UserError) as refused:
        load_grid(write(tmp_path, FACTORIAL.replace(old, new)))
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("levels", "baseline", "names"),
    [
        ("levels = { 0.2 = {}, 0.5 = { beta1 = 0.0 } }", "0.2", ["0.2", "0.5"]),
        ('levels."0.2" = {}\nlevels.none = { beta1 = 0.0 }', "0.2", ["0.2", "none"]),
        ("levels.0.25 = {}\nlevels.0.5e-1 = { beta1 = 0.0 }", "0.050", ["0.25", "0.5e-1"]),
        ("levels.1e-4 = {}\nlevels.2e-4 = { lr_g = 0.1 }", "0.0002", ["1e-4", "2e-4"]),
        ("levels.64 = {}\nlevels.128 = { batch_size = 128 }", "64", ["64", "128"]),
        ("levels.-0.5 = {}\nlevels.0.5 = { beta1 = 0.0 }", "-0.5", ["-0.5", "0.5"]),
        ("levels.true = {}\nlevels.false = { beta1 = 0.0 }", "true", ["true", "false"]),
    ],
)
def test_levels_may_be_numbers(tmp_path: Path, levels: str, baseline: str, names: list[str]) -> None:
    text = f'base = "dcgan-28"\n[factors.a]\nbaseline = {baseline}\n{levels}\n'
    factor = load_grid(write(tmp_path, text)).factors["a"]
    assert list(factor.levels) == names
    assert factor.baseline in names
    other = next(name for name in names if name != factor.baseline)
    assert bool(factor.levels[other]) is not bool(factor.levels[factor.baseline])
    named = text.replace(f"baseline = {baseline}", f'baseline = "{factor.baseline}"')
    assert plan(load_grid(write(tmp_path, named))) == plan(load_grid(write(tmp_path, text)))


def test_claims_and_labels_name_levels_by_numbers_too(tmp_path: Path) -> None:
    claim = (
        '[[claims]]\nsentence = "A"\nlevels = { a = 0.5 }\ndirection = "lower"\n'
        'beside = [{ levels = { a = 0.5 }, direction = "lower" }]\n'
    )
    head = 'base = "mlp"\n[factors.a]\nbaseline = 0.2\nlevels = { 0.2 = {}, 0.5 = { beta1 = 0.0 } }\n'
    grid = load_grid(write(tmp_path, f'{head}labels.0.5 = "a half"\n{claim}'))
    assert grid.factors["a"].label_of("0.5") == "a half"
    assert grid.claims[0].levels == [{"a": "0.5"}]
    assert grid.claims[0].beside[0].levels == {"a": "0.5"}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "baseline = 0.2",
            "baseline = 0.3",
            "factors.a.baseline = '0.3': no such level; did you mean 0.5? valid: 0.2, 0.5",
        ),
        ("0.2 = {}", "0 = {}, 0.2 = {}", 'a level such as 0.2 beside a level 0 needs quotes: "0.2"'),
        ("0.5 = { beta1 = 0.0 }", "0.5 = 3", "factors.a.levels.0.5 = 3"),
    ],
)
def test_a_number_that_is_no_level_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    text = 'base = "mlp"\n[factors.a]\nbaseline = 0.2\nlevels = { 0.2 = {}, 0.5 = { beta1 = 0.0 } }\n'
    with pytest.raises(UserError) as wrong:
        load_grid(write(tmp_path, text.replace(old, new)))
    assert words in str(wrong.value)
