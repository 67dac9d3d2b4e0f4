"""Grids of users' scripts: what is refused, and what a run id is made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from gan_ablate.design.external import ExternalConfig
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import Plan, plan
from gan_ablate.design.resolve_external import is_unchanged, patch_files
from gan_ablate.design.script_logs import LogFile
from gan_ablate.errors import UserError

GRID = """
title = "Mine"
[external]
command = ["python", "train.py", "--bn", "{batch_norm}", "--lr", "{lr}", "--seed", "{seed}"]
samples = "samples/*.png"
[factors.batch_norm]
baseline = "on"
levels.on = {}
levels.off = {}
[factors.rate]
baseline = "low"
levels.low = { lr = 0.0002 }
levels.high = { lr = 1e-3 }
"""


def write(folder: Path, text: str = GRID, script: str = "print()") -> Path:
    (folder / "train.py").write_text(script, "utf-8")
    path = folder / "mine.toml"
    path.write_text(text, "utf-8")
    return path


def resolve(folder: Path, text: str = GRID, script: str = "print()", **options: object) -> Plan:
    return plan(load_grid(write(folder, text, script)), allow_code=True, **options)  # type: ignore[arg-type]


def test_factors_fill_in_their_levels_or_what_these_set(tmp_path: Path) -> None:
    planned = resolve(tmp_path)
    configs = [variant.config for variant in planned.variants]
    assert [config.parameters for config in configs if isinstance(config, ExternalConfig)] == [
        {"batch_norm": "on", "lr": "0.0002"},
        {"batch_norm": "on", "lr": "0.001"},
        {"batch_norm": "off", "lr": "0.0002"},
        {"batch_norm": "off", "lr": "0.001"},
    ]
    assert planned.folders == {configs[0].code: str(tmp_path)} if isinstance(configs[0], ExternalConfig) else False
    assert Plan.model_validate_json(planned.model_dump_json()) == planned


def test_nothing_is_planned_that_is_not_allowed_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\[external\] runs a program of yours: python train.py .*: with allow_code"):
        plan(load_grid(write(tmp_path)))


def test_a_run_is_named_by_its_command_its_files_and_its_scoring_and_not_by_its_patience(tmp_path: Path) -> None:
    def name(text: str = GRID, script: str = "print()", **options: object) -> str:
        return resolve(tmp_path, text, script, **options).baseline.config.run_id

    same = name()
    assert name(GRID.replace('samples = "s', 'timeout_sec = 9\nsamples = "s')) == same
    assert name(GRID.replace('title = "Mine"', 'title = "Other"')) == same
    others = {
        name(script="print(1)"),
        name(GRID.replace("--lr", "--rate")),
        name(GRID.replace("lr = 0.0002", "lr = 0.0003")),
        name(overrides=["scoring.num_samples=2000"]),
        name(dataset="fashion-mnist"),
    }
    assert len(others) == 5
    assert same not in others
    (tmp_path / "elsewhere").mkdir()
    assert resolve(tmp_path / "elsewhere").baseline.config.run_id == same


def counted(planned: Plan) -> list[tuple[str, ...]]:
    return [variant.config.files for variant in planned.variants if isinstance(variant.config, ExternalConfig)]


def test_files_add_to_those_that_the_command_names(tmp_path: Path) -> None:
    text = GRID.replace('samples = "s', 'files = ["*.txt"]\nsamples = "s')
    (tmp_path / "sizes.txt").write_text("1")
    first = resolve(tmp_path, text)
    assert counted(first) == [("train.py", "sizes.txt")] * 4
    (tmp_path / "sizes.txt").write_text("2")
    second = resolve(tmp_path, text)
    third = resolve(tmp_path, text, script="print(1)")
    assert len({planned.baseline.config.run_id for planned in (first, second, third)}) == 3
    with pytest.raises(UserError, match=r"external.files = '\*\.c': no such file in"):
        resolve(tmp_path, text.replace("*.txt", "*.c"))
    for pattern in (".", "**x", "/etc/*", "a" * 5000):
        with pytest.raises(UserError, match=r"external\.files\.0 = '.*: valid: "):
            resolve(tmp_path, text.replace("*.txt", pattern))


def test_what_a_script_imports_counts(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text("width = 1")
    first = resolve(tmp_path, script="from nets import width")
    assert first.sources == {first.baseline.config.code: ("train.py", "nets.py")}  # type: ignore[union-attr]
    (tmp_path / "nets.py").write_text("width = 2")
    assert resolve(tmp_path, script="from nets import width").baseline.config.run_id != first.baseline.config.run_id


def test_files_of_a_level_count_for_its_variants(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    for name in ("on", "off", "seed1", "seed2", "seedx"):
        (tmp_path / "configs" / f"{name}.yaml").write_text(name)
    words = '"--config=configs/{batch_norm}.yaml", "{here}/configs/seed{seed}.yaml", "{seed}", "{out}/train.py"]'
    text = GRID.replace('"{seed}"]', f'"{{seed}}", {words}')
    before = resolve(tmp_path, text)
    always = ("configs/seed1.yaml", "configs/seed2.yaml")
    assert counted(before) == [("train.py", f"configs/{level}.yaml", *always) for level in ("on", "on", "off", "off")]
    (tmp_path / "configs" / "off.yaml").write_text("changed")
    after = resolve(tmp_path, text)
    changed = [old.run_id(0) != new.run_id(0) for old, new in zip(before.variants, after.variants, strict=True)]
    assert changed == [False, False, True, True]
    old, new = before.variants[2].config, after.variants[2].config
    assert isinstance(old, ExternalConfig)
    assert isinstance(new, ExternalConfig)
    assert not is_unchanged(old, tmp_path)
    assert is_unchanged(new, tmp_path)


def test_a_module_that_the_command_runs_counts(tmp_path: Path) -> None:
    (tmp_path / "trainer").mkdir()
    for name in ("__init__", "__main__", "nets"):
        (tmp_path / "trainer" / f"{name}.py").write_text("")
    planned = resolve(tmp_path, GRID.replace('"train.py"', '"-m", "trainer"'))
    assert counted(planned)[0] == ("trainer/__init__.py", "trainer/__main__.py", "trainer/nets.py")


def test_folder_in_the_command_has_a_note_that_it_is_not_hashed(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "1.png").write_text("1")
    text = GRID.replace('"{seed}"]', '"{seed}", "--root", "data"]')
    assert resolve(tmp_path, text).notes == (
        'data: a folder, whose files are no part of the runs\' names; external.files = ["data/**"] adds them',
    )
    text = text.replace('samples = "s', 'files = ["data/**"]\nsamples = "s')
    planned = resolve(tmp_path, text)
    assert planned.notes == ()
    assert counted(planned)[0] == ("train.py", "data/1.png")


def test_steps_are_passed_on_where_the_command_names_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"steps=7: external.command does not name \{steps\}"):
        resolve(tmp_path, steps=7)
    planned = resolve(tmp_path, GRID.replace('"{seed}"]', '"{seed}", "{steps}"]'), steps=7)
    assert planned.baseline.config.steps == 7


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"--bn"', '"{rat}"', r"external.command.2: \{rat\}: did you mean rate\? valid: batch_norm, rate"),
        ("{lr}", "{lr!r}", "external.command.5 = .*: valid: {name} with nothing else in the braces"),
        ("{lr}", "{lr.__class__}", "external.command.5 = .*: valid: {name}"),
        ("{lr}", "{lr", "external.command.5 = .*: expected '}' before end of string"),
        ("lr = 0.0002", "lr = [1]", r"level batch_norm.on, rate.low: lr: a table or a list; valid: a text, a number"),
        ("lr = 0.0002", "lr = 0.0002, depth = 3", "depth: the command does not name it; .*valid: batch_norm, lr, data"),
        ("lr = 0.0002", "lr = 0.0002, seed = 3", "seed: valid: seeds and steps"),
        ("lr = 0.0002", 'lr = 0.0002, preset = "mlp"', "preset: valid: seeds and steps.* no presets here"),
        ("lr = 0.0002", 'lr = 0.0002, dataset = "mnst"', "dataset = 'mnst': did you mean mnist"),
        ("lr = 0.0002", "lr = 0.0002, image_size = 0", "image_size = 0: should be greater than 0"),
        ("lr = 0.0002", 'lr = 0.0002, dataset = "cifar10", scoring.features = "digits"', "cannot judge cifar10"),
        ("lr = 0.0002", "lr = 0.0002, scoring.num_samples = 9", "num_samples = 9: too few for the 64 features of"),
        ("lr = 0.0002", "lr = 0.0002, scoring.curves = 9", "scoring.curves = 9: scoring has no such field"),
        ('"samples/*.png"', '"../*.png"', r"external.samples = '../\*.png': valid: a path or pattern below \{out\}"),
        ('"samples/*.png"', '"/tmp/a.npy"', r"external.samples = '/tmp/a.npy': valid: a path"),
        ('"samples/*.png"', '"g.pt"', "external.latent_shape = None: a generator needs it"),
        ('"samples/*.png"', '"a.npy"\nlatent_shape = [9]', r"external.latent_shape = \[9\]: valid with generator, a"),
        ('"samples/*.png"', '"a.npy"\nlog = "("', r"external.log = '\(': .*valid: a regular expression with"),
        ('"samples/*.png"', '"a.npy"\nlog = "Loss"', "external.log = 'Loss': valid: a regular expression with the"),
        ('"samples/*.png"', '"a.npy"\nlog = "(?P<fid>.)"', "external.log = .*: valid: a regular expression with the"),
        ('"samples/*.png"', '"a.npy"\ntimeout_sec = 0', "external.timeout_sec = 0: should be greater than 0"),
        ('"samples/*.png"', '"a.npy"\nshell = true', "external.shell = true: external has no such field"),
        ('title = "Mine"', 'base = "mlp"', "base = 'mlp': valid: a base preset, or .external., not both"),
        ('"{seed}"', '"7"', r"external.command = .*: {seed} is not in it, so runs of one seed .* or paired = false"),
        ('"samples/*.png"', '"**x"', r"external.samples = '\*\*x': valid: \*\* as a whole folder, such as \*\*/\*.py"),
        ('"samples/*.png"', '"."', "external.samples = '.': valid: a path or pattern below {out}"),
        ('"samples/*.png"', f'"{"x" * 300}"', "external.samples = .*: valid: names of at most 255 bytes"),
        ('"samples/*.png"', '"a.npy"\nfiles = ["*.py", "**x"]', r"external.files.1 = '\*\*x': valid: \*\* as a whole"),
        ('"samples/*.png"', '"a.npy"\nfiles = ["."]', "external.files.0 = '.': valid: a path or pattern beside the"),
        ('"samples/*.png"', '"a.npy"\nfiles = ["a\\u0000"]', "external.files.0 = .*: valid: names of at most 255"),
        ('"samples/*.png"', f'"a.npy"\nfiles = ["{"x" * 9_999}"]', "external.files.0 = 'x.*: valid: names of at"),
        ('"samples/*.png"', '"a/x.npy"\nlinks = ["a"]', "external.links.0 = 'a': what the program leaves would be"),
        ('"samples/*.png"', '"a.npy"\nlinks = ["data"]', "external.links = 'data': no such file or folder in "),
        ('"samples/*.png"', '"a.npy"\nlinks = ["../x"]', "external.links.0 = '../x': valid: a path or pattern beside"),
        ('"--bn"', '"a\\u0000"', "external.command.2 = .*: valid: a word without the character NUL"),
        ('"samples/*.png"', f'"a.npy"\nlog = "{"(" * 4_000}"', "external.log = .*: groups too deep in one another"),
        ('"samples/*.png"', '"a.npy"\nlog = "a{99999999999999999999}"', "external.log = .*: the repetition number is"),
        ("[external]", 'base = "mlp"\n[outside]', "outside = .*: a grid has no such field; .*external"),
        ("[factors.batch_norm]", '[blocks]\npreset = ["mlp"]\n[factors.batch_norm]', "base = '': valid: a base preset"),
    ],
)  # fmt: skip
def test_what_would_not_run_is_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GRID
    with pytest.raises(UserError, match=message) as wrong:
        resolve(tmp_path, GRID.replace(old, new, 1))
    assert "\n" not in str(wrong.value)
    assert str(tmp_path) in str(wrong.value) or "--" in str(wrong.value)


def test_event_files_are_refused_without_the_package_that_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = GRID.replace("[factors.b", 'log = { tensorboard = "runs/*" }\n[factors.b')
    monkeypatch.setattr("gan_ablate.design.resolve_external.find_spec", lambda _: None)
    with pytest.raises(
        UserError, match=r"external.log.tensorboard = 'runs/\*': needs the package tensorboard; valid: "
    ):
        resolve(tmp_path, text)
    monkeypatch.setattr("gan_ablate.design.resolve_external.find_spec", lambda name: name)
    config = resolve(tmp_path, text).baseline.config
    assert isinstance(config, ExternalConfig)
    assert config.log == LogFile(tensorboard="runs/*")
    assert ExternalConfig.model_validate(config.model_dump(mode="json")) == config


def test_where_a_link_leads_is_no_part_of_a_run_but_the_surroundings_are(tmp_path: Path) -> None:
    def run_id(more: str) -> str:
        return resolve(tmp_path, GRID.replace("[factors.b", f"{more}\n[factors.b", 1)).baseline.config.run_id

    (tmp_path / "data").mkdir()
    (tmp_path / "other").mkdir()
    as_list = run_id('links = ["data"]')
    assert run_id('links = { "data" = "data" }') == run_id('links = { "data" = "other" }') == as_list
    assert run_id('links = { "data" = "{data_dir}/mnist" }') == as_list
    assert (
        len({as_list, run_id(""), run_id('cwd = "a"'), run_id('env = { A = "1" }'), run_id('env = { A = "2" }')}) == 5
    )


def test_a_factor_may_be_a_variable_of_the_environment(tmp_path: Path) -> None:
    text = GRID.replace(', "--lr", "{lr}"', "").replace("[factors.b", 'env = { LR = "x{lr}" }\n[factors.b', 1)
    configs = [variant.config for variant in resolve(tmp_path, text).variants]
    assert [config.parameters["lr"] for config in configs if isinstance(config, ExternalConfig)] == [
        "0.0002", "0.001", "0.0002", "0.001",
    ]  # fmt: skip
    assert len({config.run_id for config in configs}) == 4


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('log = "pytorch-gans"', "external.log = .*; a name .pytorch-dcgan, pytorch-gan"),
        ("log = 3", "external.log = 3: should be a valid string"),
        ("log = {}", "external.log = .*: valid: one of csv = .FILE., jsonl = "),
        ('log = { csv = "a", jsonl = "b" }', "external.log = 'csv, jsonl': valid: one of csv"),
        ('log = { csv = "../a" }', "external.log = '../a': valid: a path or pattern below"),
        ('log = { csv = "a", los_d = "b" }', "external.log.los_d = .*did you mean loss_d"),
        ('log = { csv = "a", step = "" }', "external.log.step = .*: String should have at least 1"),
        ('log = { tensorboard = "a", step = "b" }', "external.log.step = 'b': event files have"),
        ("links = 3", "external.links = 3: should be a valid list"),
        ('links = { "data" = "no" }', "external.links = 'data': 'no': no such file or"),
        ('links = { "/data" = "no" }', "external.links = '/data': valid: a path as"),
        ('links = { "../../d" = "." }', "links = '../../d': it leads out .* external.cwd = 'a/b', or"),
        ('links = { "d" = "{seed}" }', "external.links = '{seed}': valid: a path, ~/…, or {data_dir}"),
        ('links = { "d" = ".", "d/e" = "." }', "external.links = 'd/e': it lies in d, which is"),
        ('cwd = "a/b"\nlinks = { "../../a" = "." }', "the working folder itself; valid: another"),
        ('cwd = "a/b"\nlinks = { "../.." = "." }', "links = '../..': valid: a path as"),
        ('cwd = "../b"', "external.cwd = '../b': valid: a path or pattern of folders"),
        ('env = { "A B" = "" }', "external.env.A B = '': valid: NAME = .value."),
        ("env = { A = 1 }", "external.env.A = 1: should be a valid string"),
        ('env = { A = "{rat}" }', "external.env.A: {rat}: did you mean rate. valid: batch"),
    ],
)
def test_a_log_or_surroundings_that_would_not_do_are_one_line(tmp_path: Path, more: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as wrong:
        resolve(tmp_path, GRID.replace('"samples/*.png"', f'"a.npy"\n{more}', 1))
    assert "\n" not in str(wrong.value)


def test_a_base_preset_is_refused_beside_a_program(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"base='mlp': .*mine.toml has \[external\] instead of a preset"):
        resolve(tmp_path, base="mlp")


def test_a_grid_without_either_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[factors.a]\nbaseline = "x"\nlevels.x = {}\nlevels.y = { beta1 = 0.9 }', "utf-8")
    with pytest.raises(UserError, match="base is missing"):
        load_grid(path)


def test_blocks_of_data_sets_have_different_names(tmp_path: Path) -> None:
    planned = resolve(tmp_path, dataset=["mnist-10k", "fashion-mnist"])
    assert [block.name for block in planned.blocks] == ["mine", "mine@fashion-mnist"]
    assert {variant.config.dataset for variant in planned.blocks[1].variants} == {"fashion-mnist"}


def test_only_runs_whose_images_come_in_an_order_have_new_names(tmp_path: Path) -> None:
    pictures = resolve(tmp_path).baseline.config
    generator = resolve(tmp_path, GRID.replace('"samples/*.png"', '"g.pt"\nlatent_shape = [9]')).baseline.config
    assert (pictures.revisions, generator.revisions) == (("samples_in_any_order",), ())


def test_a_script_without_a_seed_is_planned_as_unpaired(tmp_path: Path) -> None:
    text = GRID.replace('"{seed}"', '"7"').replace("[external]", "[external]\npaired = false")
    planned = resolve(tmp_path, text)
    assert planned.notes == (
        "external.paired is false: runs of one seed share nothing, so means of runs are compared (Welch's t test).",
    )


def test_a_very_long_word_is_no_path(tmp_path: Path) -> None:
    assert resolve(tmp_path, GRID.replace('"--bn"', f'"{"x" * 9_999}"')).num_runs == 20


PATCHED = """
[[external.patches]]
file = "train.py"
find = "nn.BatchNorm2d"
replace = "{norm}"
"""
SCRIPT = "layer = nn.BatchNorm2d(8)\nother = {}\n"


def patched(patch: str = PATCHED, level: str = 'norm = "nn.InstanceNorm2d"') -> str:
    """A grid whose second factor is a text in the script."""
    text = GRID.replace("[factors.batch_norm]", f"{patch}\n[factors.batch_norm]", 1)
    return text.replace("lr = 0.0002", f"lr = 0.0002, {level}").replace("lr = 1e-3", 'lr = 1e-3, norm = "nn.Identity"')


def test_a_level_is_filled_into_a_patch_and_the_file_stays(tmp_path: Path) -> None:
    planned = resolve(tmp_path, patched(), SCRIPT)
    texts = [
        patch_files(variant.config, tmp_path)["train.py"]
        for variant in planned.variants
        if isinstance(variant.config, ExternalConfig)
    ]
    assert [text.splitlines()[0] for text in texts] == ["layer = nn.InstanceNorm2d(8)", "layer = nn.Identity(8)"] * 2
    assert (tmp_path / "train.py").read_text() == SCRIPT
    assert Plan.model_validate_json(planned.model_dump_json()) == planned
    assert planned.notes == ("Patch of train.py: nn.BatchNorm2d → {norm}",)


def test_patches_are_part_of_a_runs_name_and_so_is_what_they_change(tmp_path: Path) -> None:
    def name(text: str, script: str = SCRIPT) -> str:
        return resolve(tmp_path, text, script).baseline.config.run_id

    names = [
        name(patched()),
        name(patched(level='norm = "nn.Identity"')),
        name(patched(PATCHED.replace("{norm}", "{norm} "))),
        name(patched(), SCRIPT + "1"),
        name(patched(PATCHED.replace("train.py", "nets.py")).replace('"--bn"', '"train.py", "--bn"'))
        if (tmp_path / "nets.py").write_text(SCRIPT)
        else "",
    ]
    assert len({*names}) == len(names)
    before = names[-1]
    (tmp_path / "nets.py").write_text(SCRIPT + "1")
    after = name(patched(PATCHED.replace("train.py", "nets.py")).replace('"--bn"', '"train.py", "--bn"'))
    assert after != before  # although no command names the file


def test_patches_of_one_file_apply_one_after_the_other(tmp_path: Path) -> None:
    second = PATCHED.replace("nn.BatchNorm2d", "other = {}").replace('"{norm}"', "'other = {{\"a\": 1}}'")
    planned = resolve(tmp_path, patched(PATCHED + second), SCRIPT.replace("\n", "\r\n"))
    assert isinstance(planned.baseline.config, ExternalConfig)
    changed = patch_files(planned.baseline.config, tmp_path)["train.py"]
    assert changed == 'layer = nn.InstanceNorm2d(8)\r\nother = {"a": 1}\r\n'


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("nn.BatchNorm2d", "nn.BatchNorm3d", r"patches.0.find = 'nn.BatchNorm3d': found 0 times in train.py; valid: a"),
        ("nn.BatchNorm2d", "nn", r"patches.0.find = 'nn': found 2 times in train.py; valid: a text that stands"),
        ("{norm}", "{norm}(", r"patches.0.replace = 'nn.InstanceNorm2d\(': train.py would be no Python any more \("),
        ("{norm}", "{nrm}", r"norm: the command does not name it; did you mean nrm\? valid: batch_norm, lr, nrm"),
        ("{norm}", "{norm!r}", r"external.patches.0.replace = .*: valid: {name} with nothing else"),
        ('"train.py"\nfind', '"nets.py"\nfind', "patches.0.file = 'nets.py': No such file or directory; valid: a text"),
        ('"train.py"\nfind', '"../a.py"\nfind', r"patches.0.file = '../a.py': valid: a path or pattern"),
        ("find =", "search =", "external.patches.0.search = .*: external.patches.0 has no such field"),
    ],
)  # fmt: skip
def test_a_patch_that_does_not_fit_is_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = patched()
    assert old in text
    with pytest.raises(UserError, match=message) as wrong:
        resolve(tmp_path, text.replace(old, new, 1), SCRIPT.replace("other", "nn_other"))
    assert "\n" not in str(wrong.value)
    assert str(tmp_path / "mine.toml") in str(wrong.value)


CHECKPOINT = (
    'samples = { checkpoint = "G_*.pth", module = "train:G", arguments = { n = "{batch_norm}" } }\nlatent_shape = [9]'
)
NET = "class G: pass"


def test_a_checkpoints_class_is_beside_the_grid_or_the_script_and_its_file_counts(tmp_path: Path) -> None:
    text = GRID.replace('samples = "samples/*.png"', CHECKPOINT.replace("train:", "nets:"))
    (tmp_path / "nets.py").write_text("import layers\n" + NET)
    (tmp_path / "layers.py").write_text("")
    assert counted(resolve(tmp_path, text))[0] == ("train.py", "layers.py", "nets.py")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text(NET)
    text = GRID.replace('samples = "samples/*.png"', CHECKPOINT).replace('"train.py"', '"code/train.py"')
    (tmp_path / "train.py").unlink()
    (tmp_path / "mine.toml").write_text(text)
    planned = plan(load_grid(tmp_path / "mine.toml"), allow_code=True)
    assert counted(planned)[0] == ("code/train.py",)
    assert Plan.model_validate_json(planned.model_dump_json()) == planned


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (CHECKPOINT.replace("train:G", "nets:G"), r"samples.module = 'nets': no nets.py in .*, nor beside the script"),
        (CHECKPOINT.replace("train:G", "train:F"), r"samples.module = 'train:F': train.py has no F; .*valid: G"),
        (CHECKPOINT.replace("train:G", "train"), "external.samples.module = 'train': valid: FILE:CLASS, such as"),
        (CHECKPOINT.replace("module", "modul"), "external.samples.modul = .*: external.samples has no such field; did"),
        (CHECKPOINT.replace("{batch_norm}", "{bn}"), r"external.samples.arguments.n: {bn}: .*valid: batch_norm"),
        (CHECKPOINT.partition("\n")[0], "external.latent_shape = None: a generator needs it; valid: the shape of one"),
        ('generator = "G"', "external.latent_shape = None: a generator needs it; valid: the shape of one latent"),
        ('generator = "G()"\nlatent_shape = [9]', r"external.generator = 'G\(\)': valid: a global's name"),
        ('generator = "G"\nsamples = "a.npy"\nlatent_shape = [9]', "samples = 'a.npy': valid: what the script saves"),
        ("", "external.samples = '': valid: what the script saves: images, generator or checkpoint; or else"),
        ('samples = "a.npy"\nlatent_distribution = "uniform"', "latent_distribution = 'uniform': valid with generator"),
        ('samples = "a.npy"\nsamples_grid = { rows = 5 }', "external.samples_grid = 5: valid with pictures"),
        ('samples = "*.png"\nsamples_grid = { rows = 0 }', "external.samples_grid.rows = 0: should be greater than 0"),
        ('samples = "*.png"\nsamples_grid = { nrow = 5 }', "external.samples_grid.nrow = 5: .*valid: rows, columns"),
        ("samples = 3", "external.samples = 3: should be a valid string"),
    ],
)  # fmt: skip
def test_samples_that_cannot_be_had_are_one_line(tmp_path: Path, samples: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as wrong:
        resolve(tmp_path, GRID.replace('samples = "samples/*.png"', samples), NET)
    assert "\n" not in str(wrong.value)
    assert "mine.toml" in str(wrong.value)


@pytest.mark.parametrize("launched", ['samples = "x.npy"\nseed_globals = true', 'generator = "G"\nlatent_shape = [9]'])
@pytest.mark.parametrize(
    "command", ['"./train.sh"', '"python", "-c", "1"', '"bash", "train.py"', '"torchrun", "train.py"']
)
def test_a_launcher_runs_scripts_of_python_only(tmp_path: Path, launched: str, command: str) -> None:
    text = GRID.replace('samples = "samples/*.png"', launched).replace('"python", "train.py"', command)
    with pytest.raises(
        UserError, match=r"(seed_globals = True|generator = 'G'): a launcher runs Python scripts; valid"
    ):
        resolve(tmp_path, text)


@pytest.mark.parametrize("command", ['"python", "-u", "train.py"', '"python3.11", "-W", "error", "-m", "train"'])
def test_a_seed_from_outside_pairs_runs(tmp_path: Path, command: str) -> None:
    text = GRID.replace(', "--seed", "{seed}"', "").replace('"python", "train.py"', command)
    with pytest.raises(UserError, match=r"valid: {seed} in it, seed_globals = true, or paired = false"):
        resolve(tmp_path, text)
    planned = resolve(tmp_path, text.replace("samples =", "seed_globals = true\nsamples ="))
    assert planned.notes == ()
    assert isinstance(planned.baseline.config, ExternalConfig)
    assert planned.baseline.config.seed_globals


def test_ways_to_take_a_script_that_are_not_used_rename_no_run(tmp_path: Path) -> None:
    """The id of a run that was computed before there were patches, launchers and checkpoints."""
    assert resolve(tmp_path).baseline.config.run_id == "3197d96a4b79"
