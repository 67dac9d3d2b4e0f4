"""What the READMEs show must be true."""

from __future__ import annotations

import itertools
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from PIL import Image
from torchvision.models import resnet18

from gan_ablate import score_images
from gan_ablate.analysis.table import load_results
from gan_ablate.cli.app import app
from gan_ablate.design.claims import Claim
from gan_ablate.design.datasets import IMAGES_PER_FEATURE
from gan_ablate.design.external import External
from gan_ablate.design.grid import DEFAULT_BUDGETS, Grid, list_grids, list_presets, load_grid
from gan_ablate.design.plan import plan
from gan_ablate.design.user_code import ModuleExtractor
from gan_ablate.scoring.extractors import build_extractor
from gan_ablate.training.data import load_dataset
from gan_ablate.training.user_code import allow_code
from gan_ablate.training.user_code_check import check_user_code
from tests.calls import call
from tests.features import warm
from tests.quick_worker import QUICK_START

ROOT = Path(__file__).parents[1]
FRONT, PACKAGE, GRIDS, RUNNING = (
    ROOT / name
    for name in (
        "README.md", "gan_ablate/README.md", "gan_ablate/design/grids/README.md", "gan_ablate/execution/README.md",
    )
)  # fmt: skip
PAGES = [
    *(FRONT, PACKAGE, GRIDS, RUNNING, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"),
    *(
        ROOT / folder / "README.md"
        for folder in ("results", "bench", "tests", "gan_ablate/assets", "gan_ablate/examples")
    ),
]
TEXTS = {page: page.read_text("utf-8") for page in PAGES}
MAX_BYTES = 9_000
MAX_WORDS = 25
"""Of a sentence."""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


every_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


def section(page: Path, title: str) -> str:
    """The text below a heading, up to the next one of any level."""
    _, text = re.split(rf"^##+ {re.escape(title)}$", TEXTS[page], flags=re.MULTILINE)
    return re.split(r"^##+ ", text, maxsplit=1, flags=re.MULTILINE)[0]


def blocks(page: Path, title: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", section(page, title), re.DOTALL)


def commands(page: Path, title: str, start: str) -> list[list[str]]:
    """The lines of a section that a user would type, without what is said of them."""
    lines = [line.strip().partition("  #")[0] for line in section(page, title).splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith(start)]


def rows(page: Path, title: str, number: int = 0) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    tables = re.findall(r"(?:^\|.*\n)+", section(page, title), re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in tables[number].splitlines()[2:]]


def code_in(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def prose(text: str) -> str:
    """A page's words: no code blocks, no pictures, links by their text."""
    text = re.sub(r"```.*?```|^    .*$|!\[[^\]]*\]\([^)]*\)", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"\[((?:\\.|[^\]\\])*)\]\([^)]*\)", r"\1", text)


def sentences(text: str) -> list[str]:
    """Sentences, each item of a list and each cell of a table for itself."""
    parts = re.split(r"\n\s*\n|\n(?=[-#|\d])|\s\|\s", prose(text))
    return [sentence for part in parts for sentence in re.split(r"(?<=[.!?])(?:\*\*)?\s+", " ".join(part.split()))]


def test_the_front_page_is_short() -> None:
    assert len(FRONT.read_bytes()) <= MAX_BYTES


@every_page
def test_no_sentence_is_long(page: Path) -> None:
    assert [sentence for sentence in sentences(TEXTS[page]) if len(sentence.split()) > MAX_WORDS] == []


def test_the_two_commands_are_on_the_first_screen() -> None:
    first_screen = "\n".join(TEXTS[FRONT].splitlines()[:24])
    assert 'python -m pip install "nox[uv]" && nox -s ablate -- --grid bn_label_smooth' in first_screen
    assert 'python -m pip install "nox[uv]" && nox -s tests' in first_screen


def slug(heading: str) -> str:
    """The anchor that forges give a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@every_page
def test_every_place_that_it_links_to_is_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", TEXTS[page]):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", place.read_text("utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), target


def typed_lines() -> list[str]:
    """Every command that a page shows, in a block or in a sentence."""
    found: dict[str, None] = {}
    for text in TEXTS.values():
        for line in [*re.findall(r"^    (.*)$", text, re.MULTILINE), *code_in(prose(text))]:
            found |= dict.fromkeys(part for part in line.partition("  #")[0].split(" && "))
    return list(found)


@pytest.mark.parametrize(
    "line", [line for line in typed_lines() if re.match(r"nox -s ablate --|gan-ablate [a-z]", line)]
)
def test_every_command_has_the_options_that_are_shown(line: str) -> None:
    words = shlex.split(line)
    words = ["run", *words[4:]] if words[0] == "nox" else words[1:]
    known = typer.main.get_command(app).commands[words[0]]  # type: ignore[attr-defined]
    options = {name for parameter in known.params for name in parameter.opts}
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options
    shipped = {*list_grids(), "documents"}
    named = [value for option, value in itertools.pairwise(words) if option == "--grid"]
    assert {name for name in named if not name.endswith(".toml") and name != "NAME"} <= shipped


def test_every_session_that_is_named_is_there() -> None:
    sessions = set(re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text("utf-8"), re.MULTILINE))
    for line in typed_lines():
        if line.startswith("nox -s "):
            words = line.removeprefix("nox -s ").partition(" --")[0].split()
            assert words
            assert set(words) <= sessions, line


@pytest.mark.parametrize(
    "code", [code for text in TEXTS.values() for code in re.findall(r"```toml\n(.*?)```", text, re.DOTALL)]
)
def test_every_grid_file_that_is_shown_plans(code: str, tmp_path: Path) -> None:
    (tmp_path / "shown.toml").write_text(code, "utf-8")
    Path("mynets.py").write_text(MYNETS, "utf-8")
    Path("myeyes.py").touch()
    Path("train.py").touch()
    for module in blocks(RUNNING, "Your module", "python"):
        Path("mypenalty.py").write_text(module, "utf-8")
    planned = plan(load_grid("shown.toml"), allow_code=True)
    assert len(planned.variants) >= 2


def test_the_example_of_the_front_page_asks_two_questions(tmp_path: Path) -> None:
    path = tmp_path / "latent.toml"
    (shown,) = blocks(FRONT, "Your own question", "toml")
    assert len(shown.splitlines()) <= 15
    path.write_text(shown, "utf-8")
    variants = plan(load_grid(path)).variants
    assert [(c.trained.latent_dim, c.trained.init.kind) for c in variants] == [
        (100, "normal"), (100, "default"), (10, "normal"), (10, "default"),
    ]  # fmt: skip


def test_every_key_of_a_grid_file_is_described() -> None:
    def first_words(title: str, number: int = 0) -> set[str]:
        return {
            re.split(r"[.\]]", code.strip("["))[0] for row in rows(GRIDS, title, number) for code in code_in(row[0])
        }

    assert first_words("Every key") | first_words("Every key", 1) == Grid.model_fields.keys() - {"name", "source"}
    assert first_words("Claims") == set(Claim.model_fields)
    assert {code_in(row[0])[0] for row in rows(RUNNING, "Your script")} == set(External.model_fields)
    budgets = {
        code_in(name)[0]: [int(cell.replace(",", "")) for cell in cells] for name, *cells in rows(GRIDS, "Budgets")
    }
    assert budgets == {name: list(budget.model_dump().values()) for name, budget in DEFAULT_BUDGETS.items()}


def test_every_shipped_grid_and_preset_is_listed() -> None:
    table = re.findall(r"(?:^\|.*\n)+", TEXTS[GRIDS], re.MULTILINE)[0]
    assert sorted(code_in("\n".join(line.split(" | ")[0] for line in table.splitlines()))) == sorted(list_grids())
    (presets,) = (row[1] for row in rows(GRIDS, "Every key") if row[0] == "`base`")
    assert sorted(code_in(presets)) == sorted(list_presets())


@pytest.mark.parametrize("row", rows(PACKAGE, "What to touch to add what"), ids=lambda row: row[0][:30])
def test_every_place_to_touch_is_there(row: list[str]) -> None:
    """Each path exists, and what stands beside the paths in code is in one of those files."""
    paths: list[str] = []
    names: list[str] = []
    for code in code_in(row[1]):
        if " " in code or "[" in code:
            continue
        (paths if "/" in code else names).append(code)
    places = [ROOT / ("" if path.startswith(("bench/", "tests/")) else "gan_ablate") / path for path in paths]
    for place in places:
        assert (place.parent if place.stem == "NAME" else place).exists(), place
    content = "".join(place.read_text("utf-8") for place in places if place.is_file())
    for name in names:
        assert re.search(rf"\b{name}\b", content), name


@pytest.mark.parametrize(
    "row", [*rows(PACKAGE, "Where things are"), *rows(PACKAGE, "The path of `run_grid`")], ids=lambda row: row[-2][:30]
)
def test_every_name_is_in_the_file_beside_it(row: list[str]) -> None:
    for text in row[-1].split("; "):
        files = [PACKAGE.parent / target for target in re.findall(r"\]\(([^)]+)\)", text)]
        content = "".join(file.read_text("utf-8") for file in files)
        for code in code_in(text):
            if code.endswith("/"):
                assert (PACKAGE.parent / code).is_dir(), code
                continue
            for name in code.split("."):
                assert re.search(rf"(def|class) {name}\b|^{name} = ", content, re.MULTILINE), code


@pytest.mark.slow
def test_the_python_example_runs(tmp_path: Path) -> None:
    (shown,) = blocks(PACKAGE, "From Python", "python")
    assert len(shown.splitlines()) <= 12
    warm(tmp_path / "results")
    narrow = 'budget="smoke", steps=3, overrides=["generator.base_channels=4", "discriminator.base_channels=4"]'
    code = QUICK_START + shown.replace('budget="smoke"', narrow)
    (tmp_path / "example.py").write_text(code, "utf-8")
    done = subprocess.run([sys.executable, "example.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^0\.9 +[\d.]+ +[\d.]+$", done.stdout, re.MULTILINE)


MYNETS = """
from torch import nn

class Generator(nn.Sequential):
    def __init__(self, width):
        super().__init__(nn.Linear(100, width), nn.ReLU(), nn.Linear(width, 784), nn.Tanh())
        self.append(nn.Unflatten(1, (1, 28, 28)))
"""

SMALL = "\n[budget.standard]\nsteps = 5\nseeds = 2\nnum_samples = 1280\ncurve_samples = 1280\ncurve_points = 1\n"


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_a_users_network_is_ablated_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warm(tmp_path / "results")
    Path("mynets.py").write_text(MYNETS, "utf-8")
    Path("mynets.toml").write_text(blocks(RUNNING, "Your module", "toml")[0] + SMALL, "utf-8")
    (command,) = commands(RUNNING, "Your module", "gan-ablate run --grid mynets.toml")
    assert call(monkeypatch, *command) == 0
    runs = load_results("results", "mynets")
    assert list(runs["status"]) == ["completed"] * 4
    assert "generator mine" in Path("results/mynets/report.md").read_text("utf-8")


def test_a_users_penalty_passes_the_checks_as_shown(tmp_path: Path) -> None:
    (module,) = blocks(RUNNING, "Your module", "python")
    Path("mypenalty.py").write_text(module, "utf-8")
    Path("penalty.toml").write_text(blocks(RUNNING, "Your module", "toml")[1], "utf-8")
    planned = plan(load_grid("penalty.toml"), allow_code=True)
    allow_code(planned.folders)
    check_user_code(planned.variants[1].trained)
    assert planned.variants[1].trained.penalty.kind == "module"


def test_a_users_extractor_gives_features_as_shown(tmp_path: Path) -> None:
    (module,) = blocks(RUNNING, "Your extractor", "python")
    Path("myeyes.py").write_text(module, "utf-8")
    torch.save(resnet18().state_dict(), "resnet18.pth")
    (shown,) = blocks(RUNNING, "Your extractor", "toml")
    Path("beta1.toml").write_text(shown, "utf-8")
    planned = plan(load_grid("beta1.toml"), allow_code=True)
    assert [sorted(files) for files in planned.sources.values()] == [["myeyes.py", "resnet18.pth"]]
    allow_code(planned.folders)
    features = planned.baseline.config.scoring.features
    assert isinstance(features, ModuleExtractor)
    images = load_dataset("mnist-10k", 28, tmp_path).reference[:8]
    small = features.model_copy(update={"size": 64})  # of 224 pixels, it takes seconds
    extractor = build_extractor(small, torch.device("cpu"), images=images)
    assert extractor.num_features == 512
    assert planned.baseline.config.scoring.num_samples >= IMAGES_PER_FEATURE * extractor.num_features


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_a_users_script_is_ablated_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop in the style of the tutorials, over two factors and two seeds: scored, timed and reported."""
    warm(tmp_path / "results")
    shutil.copyfile(Path(__file__).with_name("tutorial_script.py"), "train.py")
    Path("mine.toml").write_text(blocks(RUNNING, "Your script", "toml")[0] + SMALL, "utf-8")
    (command,) = commands(RUNNING, "Your script", "gan-ablate run --grid mine.toml")
    assert call(monkeypatch, *command) == 0
    runs = load_results("results", "mine")
    assert list(runs["status"]) == ["completed"] * 8
    assert runs["fid"].notna().all()
    assert (runs["peak_memory_mib"] > 100).all()
    assert (runs["step_ms_median"].dropna() > 0).all()  # on a busy machine all lines may come at once
    page = Path("results/mine/report.md").read_text("utf-8")
    assert "**lr 0.001**" in page
    assert "train.py" in page
    # The script by itself, as its author would start it, draws the same images.
    (tmp_path / "alone").mkdir()
    arguments = ["--bn", "off", "--lr", "0.001", "--seed", "1", "--num", "1280"]
    script = [sys.executable, str(tmp_path / "train.py"), *arguments]
    subprocess.run(script, cwd=tmp_path / "alone", check=True, capture_output=True)
    of_run = runs.query("batch_norm == 'off' and lr == '0.001' and seed == 1")["fid"].item()
    assert score_images(tmp_path / "alone" / "samples", out="results").fid == pytest.approx(of_run, rel=1e-3)


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_a_table_is_judged_and_samples_are_scored_as_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    warm(tmp_path / "results")
    lines = [
        f"{norm},{lr},{seed},{(20 + seed) * (1.5 if norm == 'off' else 1) + 0.01 * seed},{0.7 - 0.001 * seed}"
        for seed in range(5)
        for norm in ("on", "off")
        for lr in ("0.0002", "0.001")
    ]
    Path("runs.csv").write_text("\n".join(["batch_norm,lr,seed,fid,accuracy", *lines]), "utf-8")
    runs = pd.read_csv("runs.csv").query("lr == 0.001").assign(dataset="one", epoch=1)
    pd.concat([runs, runs.assign(dataset="two", fid=9.5)]).to_csv("both.csv", index=False)
    pd.concat([runs, runs.assign(epoch=2)]).to_csv("epochs.csv", index=False)
    names = {"batch_norm": "params.beta1", "seed": "params.seed", "fid": "metrics.fid"}
    runs.rename(columns=names).to_csv("mlflow.csv", index=False)
    digits = load_dataset("mnist-10k", 28, tmp_path).images[:1_280, 0].numpy()
    np.save("samples.npy", digits)
    Path("samples").mkdir()
    for number, digit in enumerate(digits):
        Image.fromarray(digit).save(f"samples/{number}.png")
    first, *others = commands(RUNNING, "Your table", "gan-ablate judge")
    assert call(monkeypatch, *first) == 0
    assert "**Harms (raises FID)**: **batch norm off** +50" in Path("judged/report.md").read_text("utf-8")
    for command in [*others, *commands(RUNNING, "Your samples", "gan-ablate score")]:
        assert call(monkeypatch, *command) == 0
    assert Path("scores.csv").is_file()
    (code,) = blocks(RUNNING, "Your samples", "python")
    assert len(code.splitlines()) <= 10
    Path("example.py").write_text(code, "utf-8")
    capsys.readouterr()
    runpy.run_path("example.py")
    shown = capsys.readouterr().out
    assert re.search(r"batch norm off +(49|50)\.\d+ +higher +5", shown)
    assert shown.endswith("judged/report.md\n")


def add_to_package(package: Path, code: str) -> None:
    """Do what a block of code says: put each chunk into its file, at the place that its first line names."""
    for file, header, chunk in re.findall(
        r"^# gan_ablate/(\S+), (.*)\n((?:(?!# gan_ablate).*\n)*)", code, re.MULTILINE
    ):
        path = package / file
        text = path.read_text("utf-8")
        union = re.search(r'above "(\w+) ="; in that union, behind (\w+): (\| \w+)', header)
        if union is not None:
            name, neighbour, member = union.groups()
            head, anchor, tail = text.partition(f"\n{name} = Annotated[")
            assert anchor, header
            text = f"{head}\n{chunk}\n{anchor}{tail.replace(neighbour, f'{neighbour} {member}', 1)}"
        else:
            (function,) = re.findall(r"in (\w+)'s match", header)
            head, anchor, tail = text.partition(f"\ndef {function}(")
            assert anchor, header
            text = head + anchor + tail.replace("        case _:", f"{chunk}        case _:", 1)
        path.write_text(text, "utf-8")


PROGRAM = """
import torch
from gan_ablate.design.plan import plan
from gan_ablate.design.grid import load_grid
from gan_ablate.training.trainer import Trainer
for variant in plan(load_grid("new.toml"), budget="smoke").variants:
    config = variant.config.model_copy(update={"batch_size": 4})
    row = Trainer(config, torch.zeros(9, 1, 28, 28, dtype=torch.uint8)).step()
    print(variant.label, config.run_id, bool(row.loss_d.isfinite() and row.loss_g.isfinite()))
"""


@pytest.fixture
def package_with_mechanisms(tmp_path: Path) -> Path:
    """A copy of the package with the penalty and the activation that the page on it adds."""
    package = tmp_path / "gan_ablate"
    shutil.copytree(ROOT / "gan_ablate", package, ignore=shutil.ignore_patterns("__pycache__"))
    added = blocks(PACKAGE, "Two mechanisms, added", "py")
    assert len(added) == 2
    for code in added:
        assert len(code.splitlines()) <= 10
        add_to_package(package, code)
    return package


@pytest.mark.slow
def test_a_level_a_penalty_and_an_activation_are_added_as_shown(package_with_mechanisms: Path) -> None:
    folder = package_with_mechanisms.parent
    (level,) = re.findall(r"One more level is one more line: `(.*?)`", TEXTS[GRIDS])
    said = [code for code in code_in(prose(section(PACKAGE, "Two mechanisms, added"))) if " = " in code]
    assert len(said) == 2
    (folder / "new.toml").write_text(
        f"""
        base = "dcgan-28"
        design = "one-at-a-time"
        [factors.new]
        baseline = "none"
        levels.none = {{}}
        levels.first = {{ {said[0]} }}
        levels.second = {{ {said[1]} }}
        {level}
        """,
        "utf-8",
    )
    (folder / "program.py").write_text(PROGRAM, "utf-8")
    done = subprocess.run([sys.executable, "program.py"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.rsplit(" ", 2) for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == ["baseline", "new first", "new second", "new uniform"]
    assert all(row[2] == "True" for row in rows)
    assert len({row[1] for row in rows}) == 4


TYPE_CHECK = """
[mypy]
strict = True
follow_imports = silent
plugins = pydantic.mypy
disallow_subclassing_any = False
disallow_untyped_decorators = False
warn_return_any = False
warn_unused_ignores = False
[mypy-torch.*,torchvision.*,numpy.*,pandas.*,PIL.*,safetensors.*]
follow_imports = skip
ignore_missing_imports = True
"""
"""As the project's, without reading PyTorch's types: they take half a minute."""


@pytest.mark.slow
def test_added_mechanisms_pass_the_type_check(package_with_mechanisms: Path) -> None:
    folder = package_with_mechanisms.parent
    (folder / "mypy.ini").write_text(TYPE_CHECK, "utf-8")
    files = ["gan_ablate/training/losses.py", "gan_ablate/training/models/layers.py"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", *files],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
