from __future__ import annotations

import pytest

from gan_ablate.cli.inspect import NOT_IN_LEVELS, find_field, find_levels, list_fields
from gan_ablate.design.config import RunConfig
from gan_ablate.errors import UserError


def test_every_field_of_a_run_is_listed_but_those_that_levels_cannot_set() -> None:
    paths = {field.path.split(".")[0] for field in list_fields()}
    assert paths == set(RunConfig.model_fields) - set(NOT_IN_LEVELS)
    assert ("generator.norm", "none | batch") in [(field.path, field.valid) for field in list_fields()]


def test_every_field_says_what_it_means() -> None:
    assert [field.path for field in list_fields() if not field.meaning] == []
    assert [field.path for field in list_fields() for what in field.kinds.values() if not what] == []


def test_a_field_is_found_by_the_end_of_its_path_where_that_is_one_alone() -> None:
    assert find_field("weight_clip").path == "loss.weight_clip"
    assert find_field("loss").kinds["hinge"].startswith("D's output above 1")
    assert find_field("discriminator.spectral_norm").default == "false"
    with pytest.raises(UserError, match=r"valid: generator\.norm, discriminator\.norm"):
        find_field("norm")
    with pytest.raises(UserError, match="did you mean batch_size"):
        find_field("bach_size")


def test_the_levels_of_shipped_grids_that_set_a_field_are_found() -> None:
    levels = [(level.grid, level.level, level.value) for level in find_levels("generator_fakes")]
    assert ("update_rule", "fresh", '"fresh"') in levels
    losses = {level.level: level.value for level in find_levels("loss") if level.grid == "remedies"}
    assert losses["WGAN"] == '{ kind = "wasserstein", weight_clip = 0.01 }'
