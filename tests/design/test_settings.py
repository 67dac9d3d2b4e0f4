from pathlib import Path

import pytest
from PIL import Image

from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import name_blocks, plan
from gan_ablate.errors import UserError

GRID = """
base = "dcgan-28"
{head}
[factors.beta1]
baseline = "0.5"
levels."0.5" = {{ beta1 = 0.5 }}
levels."0.9" = {{ beta1 = 0.9 }}
{tail}
"""


def write_grid(folder: Path, head: str = "", tail: str = "") -> Path:
    path = folder / "mine.toml"
    path.write_text(GRID.format(head=head, tail=tail))
    return path


def test_a_block_has_the_runs_that_its_data_set_has_alone(tmp_path: Path) -> None:
    grid = load_grid(write_grid(tmp_path, tail='[blocks]\ndataset = ["mnist-10k", "fashion-mnist"]'))
    digits, fashion = plan(grid).blocks
    assert (digits.name, fashion.name) == ("mine", "mine@fashion-mnist")
    (alone,) = plan(load_grid(write_grid(tmp_path)), dataset="fashion-mnist").blocks
    assert [config.run_id for _, config in alone.runs] == [config.run_id for _, config in fashion.runs]
    assert alone.name == fashion.name
    assert {config.dataset for _, config in digits.runs} == {"mnist-10k"}
    assert {config.scoring.features for _, config in fashion.runs} == {"fashion"}


def test_options_take_the_place_of_a_grid_s_blocks(tmp_path: Path) -> None:
    grid = load_grid(write_grid(tmp_path, tail='[blocks]\ndataset = ["mnist-10k", "fashion-mnist"]'))
    assert [block.name for block in plan(grid, dataset=["mnist", "mnist-10k"]).blocks] == ["mine@mnist", "mine"]
    assert [block.name for block in plan(grid, dataset="fashion-mnist").blocks] == ["mine@fashion-mnist"]


def test_blocks_of_several_fields_are_crossed(tmp_path: Path) -> None:
    tail = '[blocks]\npreset = ["dcgan-28", "mlp"]\ndataset = ["mnist-10k", "fashion-mnist"]\n'
    blocks = plan(load_grid(write_grid(tmp_path, tail=tail))).blocks
    names = ["mine", "mine@fashion-mnist", "mine@mlp", "mine@mlp@fashion-mnist"]
    assert [block.name for block in blocks] == names
    assert name_blocks(blocks) == [
        "dcgan-28, mnist-10k",
        "dcgan-28, fashion-mnist",
        "mlp, mnist-10k",
        "mlp, fashion-mnist",
    ]
    assert {variant.trained.generator.kind for variant, _ in blocks[2].seeded_variants} == {"mlp"}


@pytest.mark.parametrize("tail", ["[blocks]\nbatch_size = [64, 128]", '[blocks]\n"batch_size" = [64, 128]'])
def test_any_field_makes_blocks(tmp_path: Path, tail: str) -> None:
    blocks = plan(load_grid(write_grid(tmp_path, tail=tail))).blocks
    assert [block.name for block in blocks] == ["mine", "mine@batch_size-128"]
    assert name_blocks(blocks) == ["batch size 64", "batch size 128"]


@pytest.mark.parametrize(
    "tail", ["[blocks.generator]\nbase_channels = [32, 64]", '[blocks]\n"generator.base_channels" = [32, 64]']
)
def test_a_field_of_a_table_makes_blocks(tmp_path: Path, tail: str) -> None:
    blocks = plan(load_grid(write_grid(tmp_path, tail=tail))).blocks
    assert [block.name for block in blocks] == ["mine", "mine@generator.base_channels-64"]
    assert name_blocks(blocks) == ["generator base channels 32", "generator base channels 64"]


def test_a_run_has_its_block_s_name_where_there_are_several(tmp_path: Path) -> None:
    grid = load_grid(write_grid(tmp_path))
    both = plan(grid, seeds=1, base=["dcgan-28", "mlp"])
    assert list(both.run_names.values()) == [
        "dcgan-28: beta1 0.5", "dcgan-28: beta1 0.9", "mlp: beta1 0.5", "mlp: beta1 0.9",
    ]  # fmt: skip
    assert list(plan(grid, seeds=1).run_names.values()) == ["beta1 0.5", "beta1 0.9"]


def test_a_folder_s_block_is_named_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    for number in range(2):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "cats" / f"{number}.png")
    (block,) = plan(load_grid(write_grid(tmp_path)), dataset=f"folder:{tmp_path / 'cats'}").blocks
    assert block.name == "mine@" + block.baseline.config.dataset.removeprefix("folder:").replace("@", "-")
    assert name_blocks([block]) == [block.baseline.config.dataset]


@pytest.mark.parametrize(
    ("tail", "words"),
    [
        ("[blocks]\ndataset = []", r"mine.toml: blocks.dataset"),
        ('[blocks]\ndataset = "mnist"', r"mine.toml: blocks.dataset"),
        ('[blocks]\ndataset = ["nothing"]', r"mine.toml, \[blocks\]: dataset = 'nothing'"),
        ('[blocks]\nbatchsize = [64]', r"mine.toml, \[blocks\]: batchsize"),
        ("[blocks]\nloss = { a = {} }", "mine.toml: blocks"),
        ('[blocks]\n"generator.norm" = ["none"]\ngenerator.norm = ["batch"]', "mine.toml: blocks"),
        ('[blocks]\npreset = ["dcgan"]', r"mine.toml: blocks.preset = 'dcgan': no such preset"),
        ("[blocks]\nseed = [1, 2]", r"mine.toml, \[blocks\]: seed and steps"),
        ("[blocks]\nbatch_size = [64, 64]", "blocks.batch_size: '64' stands there twice"),
        ("[blocks]\nbatch_size = [[64]]", r"mine.toml: blocks.batch_size"),
        ('[blocks]\nbeta1 = [0.5, 0.9]', "the same configuration"),  # the factor sets it too
    ],
)  # fmt: skip
def test_blocks_that_make_no_sense_are_refused(tmp_path: Path, tail: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        plan(load_grid(write_grid(tmp_path, tail=tail)))


def test_an_unknown_base_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="base = 'dcgan': no such preset"):
        plan(load_grid(write_grid(tmp_path)), base="dcgan")


def test_a_factor_may_not_be_called_block(tmp_path: Path) -> None:
    path = write_grid(tmp_path)
    path.write_text(path.read_text().replace("factors.beta1", "factors.block"))
    with pytest.raises(UserError, match=r"factors\.block: results have a column of that name"):
        load_grid(path)


def test_a_block_at_a_field_s_default_is_the_grid_itself(tmp_path: Path) -> None:
    """Whether a preset says it or nobody does: its runs are the same, and so is its name."""
    alone = plan(load_grid(write_grid(tmp_path)))
    grid = load_grid(write_grid(tmp_path, tail='[blocks]\nprecision = ["fp32", "bf16"]\ninit = ["normal", "default"]'))
    blocks = plan(grid).blocks
    assert blocks[0].name == "mine"
    assert [variant.config.run_id for variant in blocks[0].variants] == [
        variant.config.run_id for variant in alone.variants
    ]
    assert len({block.name for block in blocks}) == 4


def test_a_field_that_an_earlier_plan_does_not_have_is_none_there(tmp_path: Path) -> None:
    earlier = plan(load_grid(write_grid(tmp_path)))
    tail = '[set]\npenalty = "r1"\n"discriminator.norm" = "none"\n[blocks]\n"penalty.gamma" = [1.0, 5.0]'
    later = plan(load_grid(write_grid(tmp_path, tail=tail)))
    assert name_blocks([earlier, *later.blocks])[0] == "penalty gamma none"


def test_long_names_of_one_beginning_are_two_names(tmp_path: Path) -> None:
    names = set()
    for end in "ab":
        folder = tmp_path / ("n" * 100 + end)
        folder.mkdir()
        Image.new("RGB", (8, 8), (ord(end), 0, 0)).save(folder / "0.png")
        (block,) = plan(load_grid(write_grid(tmp_path)), dataset=f"folder:{folder}").blocks
        names.add(block.name)
        assert len(block.name) < 100
    assert len(names) == 2


def test_too_many_blocks_are_counted_before_they_are_made(tmp_path: Path) -> None:
    values = list(range(1, 41))
    tail = "[blocks]\n" + "\n".join(f"{name} = {values}" for name in ("batch_size", "latent_dim", "sheet_every"))
    tail += f'\n"generator.base_channels" = {values}\n"discriminator.base_channels" = {values}\n'
    with pytest.raises(UserError, match="204,800,000 variants; valid: at most 10,000"):
        plan(load_grid(write_grid(tmp_path, tail=tail)))
