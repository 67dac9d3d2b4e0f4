from pathlib import Path

import pytest

from gan_ablate.design.grid import load_grid
from gan_ablate.errors import UserError

GRID = """
base = "dcgan-28"
design = "DESIGN"
[factors.beta1]
baseline = "0.5"
levels."0.5" = { beta1 = 0.5 }
levels."0.9" = { beta1 = 0.9 }
[factors.latent]
baseline = "100"
levels."100" = { latent_dim = 100 }
levels."10" = { latent_dim = 10 }
"""
GOOD = {"sentence": '"It helps"', "levels": '{ beta1 = "0.9" }', "direction": '"lower"'}


def write(folder: Path, *claims: dict[str, str], design: str = "factorial") -> Path:
    path = folder / "mine.toml"
    lines = [f"[[claims]]\n{chr(10).join(f'{field} = {value}' for field, value in claim.items())}" for claim in claims]
    path.write_text(GRID.replace("DESIGN", design) + "\n".join(lines))
    return path


def test_a_claim_may_name_one_level_several_or_an_interaction(tmp_path: Path) -> None:
    several = {**GOOD, "levels": '[{ beta1 = "0.9" }, { beta1 = "0.9", latent = "10" }]', "outcome": '"kid"'}
    one, two = load_grid(write(tmp_path, GOOD, several)).claims
    assert [expectation.levels for expectation in one.decisive] == [{"beta1": "0.9"}]
    assert [expectation.levels for expectation in two.decisive] == [{"beta1": "0.9"}, {"beta1": "0.9", "latent": "10"}]
    assert {expectation.outcome for expectation in two.decisive} == {"kid"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"levels": '{ beta2 = "0.9" }'}, "claims.0.levels: 'beta2': no such factor; did you mean beta1"),
        ({"levels": '{ beta1 = "0.8" }'}, "claims.0.levels.beta1 = '0.8': no such level; did you mean 0.9"),
        ({"levels": '{ beta1 = "0.5" }'}, "claims.0.levels.beta1 = '0.5': the baseline;"),
        ({"levels": "{}"}, "claims"),
        ({"levels": "[]"}, "claims"),
        ({"outcome": '"fidd"'}, "claims.0.outcome"),
        ({"direction": '"better"'}, "claims.0.direction"),
        ({"sentence": '""'}, "claims.0.sentence = ''"),
        ({"sentence": '"a\\u0007b"'}, "claims.0.sentence"),
        ({"id": '"C 1"'}, "claims.0.id = 'C 1'"),
        ({"beside": '[{ levels = { latent = "11" }, direction = "none" }]'}, "claims.0.levels.latent = '11'"),
        ({"id": '"²"'}, "claims.0.id = '²'"),
        ({"grid": '"beta1"'}, "claims.0.grid"),
    ],
)
def test_a_claim_on_what_is_not_compared_is_refused(tmp_path: Path, change: dict[str, str], words: str) -> None:
    with pytest.raises(UserError) as refused:
        load_grid(write(tmp_path, {**GOOD, **change}))
    assert words in str(refused.value)
    assert str(refused.value).startswith(str(tmp_path / "mine.toml"))


def test_two_claims_have_two_ids(tmp_path: Path) -> None:
    claim = {**GOOD, "id": '"C1"'}
    with pytest.raises(UserError, match=r"claims\.1\.id = 'C1': another claim has it"):
        load_grid(write(tmp_path, claim, claim))


def test_an_interaction_needs_a_factorial_design(tmp_path: Path) -> None:
    both = {**GOOD, "levels": '{ beta1 = "0.9", latent = "10" }'}
    with pytest.raises(UserError, match='valid: with design = "factorial"'):
        load_grid(write(tmp_path, both, design="one-at-a-time"))


AGAINST = {"sentence": '"It ends there"', "outcome": '"d_fake_end"', "against": "0.5", "direction": '"higher"'}


def test_a_claim_may_compare_the_baseline_with_a_value(tmp_path: Path) -> None:
    there = {**AGAINST, "direction": '"none"', "margin": "0.05"}
    above, near = load_grid(write(tmp_path, AGAINST, there, design="one-at-a-time")).claims
    assert [(e.levels, e.against, e.margin) for e in above.decisive] == [({}, 0.5, None)]
    assert [(e.levels, e.against, e.margin) for e in near.decisive] == [({}, 0.5, 0.05)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"levels": '{ beta1 = "0.9" }'}, "claims.0.levels: compared with each other or with a value"),
        ({"against": "nan"}, "claims.0.against = NaN: should be a finite number"),
        ({"outcome": '"fid"'}, "claims.0.outcome = 'fid': valid with against: kid, precision"),
        ({"direction": '"none"'}, "claims.0.margin = None: valid: a number"),
        ({"margin": "0.1"}, "claims.0.margin = 0.1: valid: a number"),
        ({"margin": "-0.1"}, "claims.0.margin"),
        ({"against": "ABSENT", "margin": "0.1"}, "claims.0.margin = 0.1: valid: with against"),
    ],
)
def test_a_comparison_with_a_value_is_whole(tmp_path: Path, change: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_grid(write(tmp_path, {at: value for at, value in {**AGAINST, **change}.items() if value != "ABSENT"}))
