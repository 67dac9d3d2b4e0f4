"""What people get wrong, and the one line that each gets: it names what is wrong and what would be valid."""

# ruff: noqa: E501 (a row a line)

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import plan
from gan_ablate.errors import UserError
from gan_ablate.execution.store import Store
from gan_ablate.scoring.extractors import InceptionExtractor
from gan_ablate.training.data import load_dataset
from tests.calls import call
from tests.synthetic import save_runs

GRID = """title = "T"
base = "mlp"
[factors.smoothing]
baseline = "off"
levels.off = {}
levels.on = { loss.real_label = 0.9 }
"""
CLAIM = '[[claims]]\nsentence = "x"\n'
ON = 'levels = { smoothing = "on" }\n'

IN_A_FILE = [
    ('base = "mlp"', "", "mine.toml: base is missing"),
    ('"mlp"', '"mpl"', "base = 'mpl': no such preset; did you mean mlp?"),
    ('"mlp"', "3", "base = 3: should be a valid string"),
    ('baseline = "off"', "", "factors.smoothing.baseline is missing"),
    ('baseline = "off"', 'baseline = "of"', "factors.smoothing.baseline = 'of': no such level; did you mean off?"),
    ("levels.on = {", "levels.off = {", "not TOML: Cannot overwrite a value (at line 6"),
    ("levels.on = { loss.real_label = 0.9 }", "", "factors.smoothing.levels = {\"off\": {}}: valid: at least 2, not 1"),
    ("0.9", "1.9", "level smoothing.on: loss.real_label = 1.9: should be less than or equal to 1"),
    ("0.9", '"high"', 'loss.real_label = "high": should be a valid number'),
    ("loss.real_label", "loss.reel_label", "loss (bce) has no such field; did you mean real_label?"),
    ("loss.real_label", "los.real_label", "a run has no such field; did you mean loss?"),
    ("{ loss.real_label = 0.9 }", "5", "factors.smoothing.levels.on = 5: should be a valid dictionary"),
    ("{ loss.real_label = 0.9 }", "{}", "'smoothing off' and 'smoothing on' are the same configuration"),
    ("{ loss.real_label = 0.9 }", '{ preset = "dcgan-29" }', "no such preset; did you mean dcgan-28?"),
    ("= 0.9 }", "= 0.9, loss.real_label = 0.8 }", "not TOML: Duplicate inline table key"),
    ('title = "T"', "title = 3", "title = 3: should be a valid string"),
    ('title = "T"', 'titel = "T"', "titel = \"T\": a grid has no such field; did you mean title?"),
    ('title = "T"', f'title = "{"x" * 2_000}"', "valid: one line of at most"),
    ('"T"', '"T', "not TOML: Illegal character"),
    ("smoothing]", "]", "not TOML: Invalid initial character"),
    ("levels.on = {", "levels.on = {{", "not TOML: Invalid initial character"),
    ('title = "T"', "a" + ".b" * 30 + " = 1", "more than 20 tables deep"),
    ('title = "T"', 'margin = "200 %"', 'margin = "200 %": should be less than or equal to 1'),
    ('title = "T"', 'margin = "-5 %"', 'margin = "-5 %": should be a valid number'),
    ('title = "T"', 'design = "latin"', "design = \"latin\": should be 'factorial' or 'one-at-a-time'"),
    ("smoothing]", "seed]", "factors.seed: results have a column of that name; rename the factor"),
    ("smoothing]", "variant]", "factors.variant: results have a column of that name; rename the factor"),
    ("smoothing]", f'"{"x" * 100}"]', "valid: at most 80 characters"),
    ("levels.on", f'levels."{"y" * 100}"', "valid: at most 80 characters"),
    ("[factors", "[budget.huge]\nsteps=3\n[factors", "budget.huge = {\"steps\": 3}: should be 'smoke', 'standard'"),
    ("[factors", "[budget.smoke]\nsteps=0\n[factors", "budget.smoke.steps = 0: should be greater than 0"),
    ("[factors", "[budget.smoke]\nseeds=1.5\n[factors", "budget.smoke.seeds = 1.5: should be a valid integer"),
    ("[factors", "[set]\nbatch_size = 1\n[factors", "[set]: batch_size = 1: should be greater than or equal to 2"),
    ("[factors", "[set]\nbatch_sise = 64\n[factors", "a run has no such field; did you mean batch_size?"),
    ("[factors", "[set]\nbeta1 = nan\n[factors", "beta1 = NaN: should be a finite number"),
    ("[factors", "[set]\nlr_g = -1.0\n[factors", "lr_g = -1.0: should be greater than 0"),
    ("[factors", "[set]\nsteps = 7\n[factors", "seed and steps are the same in every run of a grid"),
    ("[factors", "[set]\nseed = 7\n[factors", "seed and steps are the same in every run of a grid"),
    ("[factors", '[set]\nscoring.features = "objects"\n[factors', "takes colour images, and mnist-10k is grey; valid: digits"),
    ("[factors", '[set]\nscoring.features = "fashion"\n[factors', "'fashion': cannot judge mnist-10k; valid: inception"),
    ("[factors", "[set]\nscoring.num_samples = 1\n[factors", "num_samples = 1: should be greater than or equal to 2"),
    ("[factors", "[blocks]\ndataset = []\n[factors", "blocks.dataset = []: valid: at least 1, not 0"),
    ("[factors", '[blocks]\ndataset = ["mnits"]\n[factors', "[blocks]: dataset = 'mnits': did you mean mnist?"),
    ("[factors", "[blocks]\nseed = [1, 2]\n[factors", "seed and steps are the same in every run of a grid"),
    ("[factors", f"{CLAIM}[factors", "claims.0.direction is missing"),
    ("[factors", f'{CLAIM}levels = {{ smoothing = "up" }}\ndirection = "lower"\n[factors', "claims.0.levels.smoothing = 'up'"),
    ("[factors", f'{CLAIM}levels = {{ smothing = "on" }}\ndirection = "lower"\n[factors', "did you mean smoothing?"),
    ("[factors", f'{CLAIM}{ON}direction = "down"\n[factors', "direction = \"down\": should be 'lower', 'higher' or 'none'"),
    ("[factors", f'{CLAIM}{ON}direction = "lower"\noutcome = "fdi"\n[factors', "outcome = \"fdi\": should be 'fid'"),
]  # fmt: skip

ON_THE_LINE = [
    (["plan", "--grid", "bn_label_smoth"], "--grid bn_label_smoth: ", "did you mean bn_label_smooth?"),
    (["plan", "--grid", "absent.toml"], "--grid absent.toml", "No such file"),
    (["plan", "--grid", "broken.toml"], "broken.toml: not TOML", "line 1"),
    (["plan", "--grid", "bytes.toml"], "--grid bytes.toml", "can't decode byte 0xff"),
    (["plan", "--grid", "a/../b.toml"], "--grid a/../b.toml", "No such file"),
    (["plan", "--grid", "empty"], "--grid empty", "or the path of a .toml file"),
    (["plan", "--grid", ""], "--grid", "or the path of a .toml file"),
    (["plan", "--grid", "x" * 5_000], "xxxxxx", "File name too long"),
    (["plan", "--grid", "dropout", "--seeds", "0"], "--seeds 0", "from 1"),
    (["plan", "--grid", "dropout", "--steps", "0"], "--steps 0", "from 1"),
    (["plan", "--grid", "dropout", "--base", "x"], "--base = 'x': no such preset", "valid: dcgan-28"),
    (["plan", "--grid", "dropout", "--dataset", "mnits"], "mnits", "did you mean mnist?"),
    (["plan", "--grid", "dropout", "--dataset", "folder:empty"], "folder:empty", "no image in it"),
    (["plan", "--grid", "dropout", "--dataset", "folder:/nope"], "--dataset folder:/nope", "no such folder"),
    (["plan", "--grid", "dropout", "--until", "settled", "--seeds", "3"], "--seeds 3", "valid: --max-seeds"),
    (["plan", "--grid", "dropout", "--max-seeds", "3"], "--max-seeds 3", "valid: with --until settled"),
    (["plan", "--grid", "dropout", "--max-hours", "3"], "--max-hours 3", "valid: with --until settled"),
    (["plan", "--grid", "dropout", "--until", "settled", "--max-seeds", "1"], "--max-seeds 1", "from 2"),
    (["plan", "--grid", "dropout", "--until", "settled", "--max-seeds", "99999"], "--max-seeds 99999", "from 2 to 10000"),
    (["plan", "--grid", "dropout", "--until", "settled", "--max-hours", "0"], "--max-hours 0", "above 0"),
    (["plan", "--grid", "dropout", "--jobs", "0"], "--jobs 0", "from 1"),
    (["run", "--grid", "dropout", "--jobs", "9" * 25], "--jobs 99999", "from 1 to 1,024"),
    (["run", "--grid", "dropout", "--device", "tpu"], "--device tpu: not supported", "valid: cpu, cuda"),
    (["run", "--grid", "dropout", "--inception-weights", "absent.pth"], "--inception-weights absent.pth", "no such file"),
    (["run", "--grid", "dropout", "--set", "bta1=0.5"], "bta1 = 0.5", "did you mean beta1?"),
    (["run", "--grid", "dropout", "--set", "generator.hidden_sizes=[5]"], "generator (dcgan)", "base_channels"),
    (["run", "--grid", "dropout", "--set", "beta1"], "--set beta1", "valid: path=value"),
    (["run", "--grid", "dropout", "--set", "steps=0"], "--set seed or steps", "use --seeds"),
    (["run", "--grid", "dropout", "--checkpoint-every", "-1"], "--checkpoint-every -1", "a number of seconds from 0"),
    (["run", "--grid", "dropout", "--ray-address", "x:1"], "--ray-address x:1", "valid: with --executor ray"),
    (["run", "--grid", "dropout", "--slurm", "a=b"], "--slurm a", "valid: with --executor slurm"),
    (["plan", "--grid", "dropout", "--slurm", "a=b"], "--slurm a", "valid: with --executor slurm"),
    (["run", "--grid", "dropout", "--executor", "slurm", "--slurm", "nokey"], "--slurm nokey", "valid: key=value"),
    (["train", "mpl"], "preset = 'mpl': no such preset", "did you mean mlp?"),
    (["train", "mlp", "--steps", "3", "--epochs", "2"], "--epochs 2", "valid: epochs or --steps, not both"),
    (["train", "mlp", "--features", "mine:embed"], "scoring.features.path = 'mine:embed'", "valid: with --allow-code"),
    (["train", "mlp", "--features-size", "8"], "--features-size 8", "valid: with --features MODULE:NAME or FILE.pt"),
    (["train", "mlp", "--set", "x"], "--set x", "valid: path=value"),
    (["train", "mlp", "--dataset", "mnits"], "--dataset mnits", "did you mean mnist?"),
    (["train", "mlp", "--epochs", "10000000"], "--epochs 10000000: 1,562,500,000 steps", "from 1 to 6,400,000"),
    (["train", "mlp", "--steps", "1000000001"], "--steps 1000000001", "from 1 to 1,000,000,000"),
    (["train", "mlp", "--seed", "9" * 19], "--seed 9999999999999999999", "from 0 to 9,223,372,036,854,775,807"),
    (["train", "mlp", "--set", "scoring.curve_points=99999"], "scoring.curve_points = 99999", "or equal to 10000"),
    (["train", "mlp", "--steps", "99999999", "--set", "sheet_every=1"], "sheet_every = 1: 99,999,999 sample", "at most 10,000"),
    (["train", "mlp", "--epochs", "99999", "--set", "sheet_every=1"], "sheet_every = 1: 15,624,843 sample", "at most 10,000"),
    (["run", "--grid", "dropout", "--checkpoint-every", "inf"], "--checkpoint-every inf", "a number of seconds from 0"),
    (["run", "--grid", "dropout", "--checkpoint-every", "nan"], "--checkpoint-every nan", "a number of seconds from 0"),
    (["report"], "--out results: no grid was run into this folder yet", "gan-ablate run --grid NAME"),
    (["report", "--out", "nope"], "--out nope: no grid was run into this folder yet", "gan-ablate run --grid NAME"),
    (["status", "--out", "broken.toml"], "--out broken.toml", "not a folder"),
    (["cite", "--out", "nope"], "--out nope: no run is finished in this folder yet", "gan-ablate run --grid NAME"),
    (["archive", "to", "--out", "nope"], "--out nope", "nothing to archive"),
    (["verify", "--out", "nope"], "--out nope", "no such folder"),
    (["clean", "--out", "nope"], "--out nope", "no such folder"),
    (["sample", "zzz"], "zzz: no finished run of that id", "runs.csv lists them"),
    (["sample", "../../etc"], "../../etc: no finished run of that id", "runs.csv lists them"),
    (["list", "nofield"], "nofield", "valid: "),
]  # fmt: skip


def assert_one_line(capsys: pytest.CaptureFixture[str], *words: str) -> None:
    output = capsys.readouterr()
    (line,) = output.err.splitlines()
    assert line.startswith("gan-ablate: ")
    for word in words:
        assert word in line
    assert output.out in ("", "Writing the report …\n")  # which report says first


@pytest.mark.parametrize(("old", "new", "words"), IN_A_FILE)
def test_a_grid_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], old: str, new: str, words: str
) -> None:
    assert old in GRID
    Path("mine.toml").write_text(GRID.replace(old, new), "utf-8")
    assert call(monkeypatch, "plan", "--grid", "mine.toml") == 2
    assert_one_line(capsys, "mine.toml", words)
    assert not Path("results").exists()


@pytest.mark.parametrize(("arguments", "what", "valid"), ON_THE_LINE)
def test_a_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], what: str, valid: str
) -> None:
    Path("broken.toml").write_text("base = mlp\n", "utf-8")
    Path("bytes.toml").write_bytes(b"\xff\xfe\x00")
    Path("empty").mkdir()
    assert call(monkeypatch, *arguments) == 2
    assert_one_line(capsys, what, valid)
    assert not Path("results").exists()
    assert not Path("nope").exists()


def test_there_are_as_many_as_were_promised() -> None:
    assert len(IN_A_FILE) + len(ON_THE_LINE) >= 80


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "Expecting value"),
        (b"[" * 100_000, "maximum recursion depth"),
        (b'{"run_id": 3}', "run_id = 3"),
        (b"{}", "run_id is missing"),
        (b"\xff", "can't decode byte 0xff"),
    ],
)
def test_a_record(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: bytes, words: str
) -> None:
    planned = plan(load_grid("beta1"), seeds=1)
    save_runs(Store(Path("results")), planned, lambda *_: 20.0)
    path = Path("results/runs") / planned.baseline.run_id(0) / "record.json"
    path.write_bytes(content)
    for command in ("report", "status"):
        assert call(monkeypatch, command) == 2
        assert_one_line(capsys, f"{path}: ", words, "delete its folder to run it again")


def test_a_record_of_another_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    planned = plan(load_grid("beta1"), seeds=2)
    save_runs(Store(Path("results")), planned, lambda *_: 20.0)
    runs = [Path("results/runs") / planned.baseline.run_id(seed) / "record.json" for seed in (0, 1)]
    shutil.copy(*runs)
    assert call(monkeypatch, "report") == 2
    assert_one_line(capsys, f"{runs[1]}: its configuration is that of run {planned.baseline.run_id(0)}")


@pytest.mark.parametrize("part", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("content", ["empty", "cut", "magic"])
def test_an_idx_file(tmp_path: Path, shared_data: Path, part: str, content: str) -> None:
    raw = tmp_path / "MNIST" / "raw"
    shutil.copytree(shared_data / "MNIST" / "raw", raw)
    whole = (raw / part).read_bytes()
    (raw / part).write_bytes({"empty": b"", "cut": whole[:1_000], "magic": b"\0\0\0\0" + whole[4:]}[content])
    with pytest.raises(UserError, match="a file of it is empty, cut short or of another kind") as refused:
        load_dataset("mnist", 28, tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"hello world\n", "it is no file of weights alone"),
        (b"PK\x03\x04" + b"0" * 50, "it is no file of weights alone"),
    ],
)
def test_a_file_of_inception_weights(tmp_path: Path, content: bytes, words: str) -> None:
    pytest.importorskip("torch_fidelity")
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(UserError, match=words) as refused:
        InceptionExtractor(tmp_path / "weights.pth", torch.device("cpu"))
    assert "\n" not in str(refused.value)
    assert "weights_only" not in str(refused.value)
