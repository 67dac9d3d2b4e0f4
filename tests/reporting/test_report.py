from __future__ import annotations

import json
import math
import re
import shutil
from html import escape
from importlib import metadata
from pathlib import Path

import pandas as pd
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from gan_ablate.analysis.results import GridResults
from gan_ablate.analysis.table import load_results
from gan_ablate.design.grid import list_presets, load_document, load_grid, load_grids
from gan_ablate.design.plan import Plan, Variant, plan
from gan_ablate.errors import UserError
from gan_ablate.execution.records import Record
from gan_ablate.execution.store import Store
from gan_ablate.reporting.formats import heading_anchor
from gan_ablate.reporting.front_page import make_front_page
from gan_ablate.reporting.report import DocumentPage, cite, make_document_pages, write_citation, write_report
from tests.reporting.conftest import PIXEL
from tests.reporting.example import check_golden
from tests.synthetic import make_record, make_results, save_runs


def batch_norm_halves(variant: Variant, seed: int) -> float:
    noise = math.sin(7 * seed + 3 * len(variant.label))
    return (20.0 if variant.levels["batch_norm"] == "on" else 40.0) * math.exp(0.1 * seed + 0.005 * noise)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with a whole report, figures included, also as PDF; one run diverged, and one failed."""
    store, planned = Store(tmp_path_factory.mktemp("whole")), plan(load_grid("bn_label_smooth"))

    def fid(variant: Variant, seed: int) -> float | None:
        is_victim = variant.label == "batch norm off, label smoothing on" and seed == 0
        return None if is_victim else batch_norm_halves(variant, seed)

    save_runs(store, planned, fid)
    broken = planned.variants[0].with_seed(3)
    store.save_record(Record(run_id=broken.run_id, status="failed", message="planted", config=broken))
    write_report(store.root)
    return store.root


def write(out: Path, fid: object = batch_norm_halves, grid: str = "bn_label_smooth", seeds: int = 5) -> str:
    save_runs(Store(out), plan(load_grid(grid), seeds=seeds), fid)  # type: ignore[arg-type]
    return read(write_report(out))


def read(front: Path) -> str:
    """The front page, and below it the pages of all grids."""
    return "\n".join(path.read_text("utf-8") for path in (front, *sorted(front.parent.glob("*/report.md"))))


def save_equal_runs(out: Path) -> tuple[Store, Plan]:
    """Two seeds of three variants that score nearly the same."""
    store, planned = Store(out), plan(load_grid("beta1"), seeds=2)
    save_runs(store, planned, lambda variant, seed: 20.0 + 0.01 * math.sin(7 * seed + sum(map(ord, variant.label))))
    return store, planned


def test_page_on_methods_is_golden(example: Path) -> None:
    """``RENEW_GOLDEN=1 python -m pytest tests/reporting -k golden`` writes the golden files anew."""
    check_golden("methods_page.md", (example / "methods.md").read_text("utf-8"))


def test_every_link_leads_to_a_file(whole: Path) -> None:
    for path in (whole / "report.md", whole / "bn_label_smooth" / "report.md"):
        targets = re.findall(r"\]\(([^)]+)\)", path.read_text("utf-8"))
        assert len(targets) >= 5
        for target in (target.partition("#")[0] for target in targets):
            assert (path.parent / target).is_file(), target
            if target.endswith((".png", ".webp")):
                with Image.open(path.parent / target) as picture:
                    assert picture.width <= 1000


def test_words_in_table_heads_lead_to_headings_of_the_page_on_methods(example: Path) -> None:
    headings = re.findall(r"^##+ (.+)$", (example / "methods.md").read_text("utf-8"), re.MULTILINE)
    anchors = [heading_anchor(heading) for heading in headings]
    assert len(set(anchors)) == len(anchors)
    known, plain = set(), set()
    for name in ("bn_label_smooth", "dropout", "precision", "representation"):
        text = (example / name / "report.md").read_text("utf-8")
        known |= set(re.findall(r"\]\(\.\./methods\.md#([^)]+)\)", text))
        for head in re.findall(
            r"^(\|.+)\n\|-", re.sub(r"## Training.+?\n## ", "", text, flags=re.DOTALL), re.MULTILINE
        ):
            plain |= {cell.strip() for cell in head.strip("|").split("|") if "](" not in cell}
    assert known <= set(anchors)
    assert {"decisions", "adjusted-intervals", "collapse", "kid", "step-time", "trajectories"} <= known
    # These say what they are.
    assert plain <= {
        "", "variant", "what", "value", "claim", "measured", "control", "labelled images", "D's features",
        "untrained D's", "raw pixels", "images/s", "training s", "final scores s",
    }  # fmt: skip


def test_the_page_shows_the_same_figures_and_sections(whole: Path) -> None:
    text = read(whole / "report.md") + (whole / "methods.md").read_text("utf-8")
    shown = (whole / "report.html").read_text("utf-8")
    assert shown.count("<img ") == text.count("![")
    assert shown.count("<h2 ") == text.count("\n## ")
    assert shown.count("<h1>") == 3
    assert shown.count('src="data:image/') == shown.count("<img ")


def test_figures_alone_are_drawn_as_pdf_for_papers(whole: Path) -> None:
    drawn = [whole / "effects.png", *(whole / "bn_label_smooth").glob("*.png")]
    assert len(drawn) == 10
    times = {path: path.stat().st_mtime_ns for path in whole.rglob("*.*")}
    write_report(whole, figures_as_pdf=True)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    for picture in drawn:
        assert picture.with_suffix(".pdf").read_bytes().startswith(b"%PDF")


def test_it_is_restored_byte_for_byte_from_the_records(whole: Path) -> None:
    files = (*whole.glob("*.*"), *(whole / "bn_label_smooth").iterdir())
    made = [path for path in files if path.suffix != ".pdf"]
    before = {path: path.read_bytes() for path in made}
    assert len(before) == 4 + 1 + 5 + 9 + 4  # of all; a page, tables, figures and animations of the grid
    for path in made:
        path.unlink()
    write_report(whole)
    assert {path: path.read_bytes() for path in made} == before


def test_progress_names_every_page_and_figure(tmp_path: Path, no_figures: None) -> None:
    store, _ = save_equal_runs(tmp_path)
    names: list[str] = []
    write_report(store.root, progress=names.append)
    assert names.count("beta1") == 1
    written = {
        path.relative_to(store.root).as_posix() for path in store.root.glob("**/*.png") if "runs" not in path.parts
    }
    assert written == {name for name in names if name.endswith(".png")}
    assert len(set(names)) == len(names)


def test_an_animation_shows_every_sample_grid_of_a_run(whole: Path) -> None:
    with Image.open(whole / "bn_label_smooth" / "training-0.webp") as animation:
        assert getattr(animation, "n_frames", 1) == 2


def test_a_sample_grid_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    store, planned = save_equal_runs(tmp_path)
    (sample_grid, *_) = (store.run_dir(planned.baseline.config.run_id) / "samples").iterdir()
    sample_grid.write_bytes(b"not a picture")
    with pytest.raises(UserError, match=r"step-.*png: cannot be read .* delete .* to run it again"):
        write_report(tmp_path)


def test_two_grids_are_two_sections(tmp_path: Path, no_figures: None) -> None:
    write(tmp_path)
    text = write(tmp_path, lambda *_: 20.0, grid="essentials", seeds=2)
    assert text.count("\n# ") == 2
    assert set(load_results(tmp_path, "essentials")["beta1"]) == {"0.0", "0.5", "0.9"}


def test_an_empty_folder_says_how_to_fill_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gan-ablate run --grid NAME"):
        write_report(tmp_path)


def test_grid_with_a_diverged_and_a_failed_run_says_so_everywhere(whole: Path) -> None:
    text = read(whole / "report.md")
    assert "1 of 20 runs diverged: 1× batch norm off, label smoothing on." in text
    assert "1 of 20 runs failed with an error, and will be tried again: 1× batch norm on, label smoothing off." in text
    runs = pd.read_csv(whole / "bn_label_smooth" / "runs.csv")
    assert runs["status"].value_counts().to_dict() == {"completed": 18, "diverged": 1, "failed": 1}
    for figure in ("quality", "effects", "interactions", "curves", "cost", "stability", "losses", "samples"):
        assert (whole / "bn_label_smooth" / f"{figure}.png").is_file()


def test_a_report_of_runs_that_compare_nothing_yet_is_written(tmp_path: Path) -> None:
    """One run of the baseline, and nothing else: no effect is finite, and nothing can be drawn of any."""
    store, planned = Store(tmp_path), plan(load_grid("beta1"))
    store.save_plan(planned)
    (tmp_path / "effects.png").write_bytes(PIXEL)  # of an earlier report
    store.save_record(make_record(planned.baseline, 0, 20.0))
    front = write_report(tmp_path).read_text("utf-8")
    assert "![" not in front
    assert not (tmp_path / "effects.png").exists()
    assert "1 of 15 runs are finished" in front


HOSTILE = ["![x](../../secret.png)", "a ] b", "[u](https://evil.example) x", "is $_$ <b>safe</b> | or `not`"]


@pytest.mark.parametrize("title", HOSTILE)
def test_a_title_is_text_whatever_it_holds(tmp_path: Path, title: str, no_figures: None) -> None:
    grid = load_grid("beta1").model_copy(update={"title": title, "question": title})
    planned = plan(grid, seeds=2)
    store = Store(tmp_path / "out")
    save_runs(store, planned, lambda variant, seed: 20.0 + seed + len(variant.label) / 9)
    Image.new("RGB", (2, 2)).save(tmp_path / "secret.png")
    write_report(tmp_path / "out")
    for path in (tmp_path / "out" / "report.md", tmp_path / "out" / "beta1" / "report.md"):
        html = MarkdownIt("commonmark").render(path.read_text("utf-8"))
        assert 'evil.example"' not in html
        assert 'secret.png"' not in html
        assert "<b>" not in html
        assert escape(title, quote=False) in html.replace("&quot;", '"')
    front = (tmp_path / "out" / "report.md").read_text("utf-8")
    assert "](beta1/report.md)." in front


def save_script(tmp_path: Path, name: str, fid: float, *, recall: float) -> None:
    """Save a grid of a user's script: batch norm off is 30 % better, and all images are of so much recall."""
    command = f'command = ["{name}", "{{norm}}", "{{seed}}"]\nsamples = "*.png"'
    path = tmp_path / f"{name}.toml"
    factor = 'baseline = "on"\nlevels.on = {}\nlevels.off = {}'
    path.write_text(f"[external]\n{command}\n[factors.norm]\n{factor}", "utf-8")
    store, planned = Store(tmp_path / "out"), plan(load_grid(path), allow_code=True)

    def score(variant: Variant, seed: int) -> float:
        return (
            fid * (0.7 if variant.levels["norm"] == "off" else 1.0) * (1 + 0.01 * math.sin(seed + len(variant.label)))
        )

    save_runs(store, planned, score)
    for _, _, record in list(store.records(planned)):
        assert record.scoring is not None
        assert record.scoring.final is not None
        final = record.scoring.final.model_copy(update={"recall": recall})
        scoring = record.scoring.model_copy(update={"final": final})
        store.save_record(record.model_copy(update={"scoring": scoring}))


def test_two_scripts_with_the_same_factors_are_told_apart(tmp_path: Path, no_figures: None) -> None:
    save_script(tmp_path, "mine", 20.0, recall=0.5)
    save_script(tmp_path, "other", 90.0, recall=0.5)
    front = write_report(tmp_path / "out").read_text("utf-8")
    ranked = front.split("## Grids")[0]
    assert ranked.count("**norm** off rather than on") == 2
    assert "Each line changes one thing in `mine` and `other`" in front
    assert "The default" not in front  # they share none


def test_collapsed_runs_are_neither_to_be_used_nor_without_effect(tmp_path: Path, no_figures: None) -> None:
    save_script(tmp_path, "mine", 200.0, recall=0.01)
    text = read(write_report(tmp_path / "out"))
    assert re.search(r"^- \*\*Use\*\* .*: nothing$", text, re.MULTILINE)
    assert re.search(r"^- \*\*Does not matter\*\* .*: nothing$", text, re.MULTILINE)
    assert re.search(
        r"\*\*Not known yet\*\* .*\n  - \*\*norm\*\* off .* seeds; (\d+) of \1 runs still collapsed\n", text
    )
    assert "FID decides nothing where most runs collapsed, with the level and without it: **norm off**." in text


def fid(variant: Variant, seed: int) -> float:
    worse = sum(level != variant.config.dataset for level in variant.levels.values()) * (len(variant.label) % 5)
    return (60.0 if variant.trained.generator.kind == "mlp" else 20.0) * math.exp(0.1 * worse + 0.01 * math.sin(seed))


def make_results_of(grids: list[str]) -> dict[str, GridResults]:
    results = (make_results(plan(grid, seeds=2), fid) for grid in load_grids(grids))
    return {of_grid.name: of_grid for of_grid in results}


@pytest.fixture(scope="module")
def results() -> dict[str, GridResults]:
    return make_results_of(["documents"])


@pytest.fixture(scope="module")
def pages(results: dict[str, GridResults]) -> dict[str, DocumentPage]:
    return {page.preset: page for page in make_document_pages(results)}


def test_page_of_the_mlp_is_golden(pages: dict[str, DocumentPage]) -> None:
    """``RENEW_GOLDEN=1 python -m pytest tests/reporting -k golden`` writes the golden file anew."""
    check_golden("document_page.md", pages["mlp"].markdown)


def test_each_document_has_a_page_with_its_command_and_verdicts(pages: dict[str, DocumentPage]) -> None:
    documents = {preset: document for preset in list_presets() if (document := load_document(preset)) is not None}
    assert pages.keys() == documents.keys()
    for preset, document in documents.items():
        page = pages[preset]
        assert page.path == f"documents/{preset}/report.md"
        assert f"    {document.command(preset)}\n" in page.markdown
        assert document.repaired in page.markdown
        assert all(f"{claim}: " in page.verdicts for claim in document.claims if claim[:3] not in ("C16", "C17", "C18"))


def test_pages_say_what_differs_from_the_printed_code(pages: dict[str, DocumentPage]) -> None:
    assert "`--set loss.computed_from=probabilities` computes it as printed" in pages["mlp"].markdown
    assert "`--set generator_gradient=accumulated` steps along the sum, as printed" in pages["dcgan-faces"].markdown
    assert "batches of 100, Adam at 0.0002 with β1 = 0.9" in pages["mlp-dropout"].markdown


def test_front_page_lists_every_claim_of_the_documents_and_their_pages(
    results: dict[str, GridResults], pages: dict[str, DocumentPage]
) -> None:
    front = make_front_page(results, dict.fromkeys(results, ""), [], list(pages.values()), has_figure=False).markdown
    rows = [line for line in front.splitlines() if line.startswith("| C")]
    assert len(rows) == 24  # C12 in two parts, C20 in four
    assert all(f"(documents/{preset}/report.md)" in front for preset in pages)


def test_score_is_that_of_the_model_at_its_own_settings(
    results: dict[str, GridResults], pages: dict[str, DocumentPage]
) -> None:
    score = pages["mlp"].score
    assert score is not None
    assert (score["steps"], score["dataset"], score["completed"]) == (1_500, "mnist-10k", 2)
    summary = results["architecture"].summary.set_index("variant")
    assert score["fid"] == summary.loc["architecture mlp", "fid"]


def test_few_grids_have_no_pages_on_documents() -> None:
    assert make_document_pages(make_results_of(["dropout", "beta1"])) == []


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    save_runs(store, plan(load_grid("beta1")), lambda variant, seed: 20.0 + seed + len(variant.label) / 9)
    return store


def test_citation_of_the_example_is_golden(example: Path) -> None:
    """``RENEW_GOLDEN=1 python -m pytest tests/reporting -k golden`` writes the golden file anew."""
    check_golden("citation.tex", cite(example).methods.replace(metadata.version("gan-ablate"), "VERSION"))


def test_citation_names_what_was_done_and_no_more(store: Store) -> None:
    methods, _ = cite(store.root)
    for words in (
        "3 variants, 15 runs, 5 seeds",
        "1,500 generator steps",
        "dddddddddddd",
        "eeeeeeeeeeee",
        "protocol 5",
        "batches of 64 images",
        "latents of 100 normal numbers",
        "learning rates 0.0002 of G and 0.0002 of D",
        r"$\beta_1 = 0.5$, $\beta_2 = 0.999$",
        "binary cross-entropy loss",
        "initial weights from $N(0, 0.02^2)$",
    ):
        assert words in methods
    assert "Student's $t$" in methods
    assert "lindon2022anytime" not in methods
    store.save_plan(store.load_plan("beta1").model_copy(update={"intervals": "sequential"}))
    assert "lindon2022anytime" in cite(store.root).methods
    assert "Student" not in cite(store.root).methods


def test_every_cited_work_has_an_entry_and_no_other_has_one(store: Store) -> None:
    methods, references = cite(store.root)
    cited = re.findall(r"\\cite\{(.+?)\}", methods)
    assert re.findall(r"^@\w+\{(.+?),", references, re.MULTILINE) == list(dict.fromkeys(cited))
    assert {"ganablate", "radford2016dcgan", "lecun1998mnist", "holm1979"} <= set(cited)
    assert f"version {metadata.version('gan-ablate')}" in references


def test_citation_files_can_be_typeset(store: Store, tmp_path: Path) -> None:
    """Without LaTeX: the paragraph holds no BibTeX, and braces and mathematics are closed."""
    methods, references = (path.read_text("utf-8") for path in write_citation(store.root, tmp_path / "paper"))
    text = "".join(line for line in methods.splitlines() if not line.startswith("%"))
    assert "@" not in text
    assert not re.search(r"(?<!\\)[%#&_](?![^$]*\$)", re.sub(r"\\cite\{.*?\}", "", text))
    for part in (text, references):
        assert part.count("{") == part.count("}")
    assert text.count("$") % 2 == 0


def test_what_grids_share_is_said_once(store: Store) -> None:
    save_runs(store, plan(load_grid("essentials"), seeds=2), lambda *_: 20.0)
    save_runs(store, plan(load_grid("collapse"), seeds=2), lambda *_: 20.0)
    methods, _ = cite(store.root)
    for words in ("mnist-10k", "1,500 generator steps", "batches of 64 images", "scored on"):
        assert methods.count(words) == 1
    assert re.search(r"\(remedy for collapse: .*; preset mlp; ", methods)


def test_smoke_runs_are_not_cited(tmp_path: Path) -> None:
    store = Store(tmp_path)
    save_runs(store, plan(load_grid("beta1"), budget="smoke"), lambda *_: 20.0)
    with pytest.raises(UserError, match=r"only smoke runs, which answer nothing \(beta1\)"):
        cite(tmp_path)
    save_runs(store, plan(load_grid("learning_rate"), seeds=2), lambda *_: 20.0)
    methods, _ = cite(tmp_path)
    assert "% Left out, as smoke runs answer nothing: beta1." in methods
    assert "Adam's" not in methods


def test_citation_that_cannot_be_written_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written to"):
        write_citation(store.root, tmp_path / "file" / "paper")


def test_runs_without_scores_cite_no_metric(store: Store) -> None:
    for number, (_, config) in enumerate(store.load_plan("beta1").runs):
        record = store.load_record(config.run_id)
        assert record is not None
        environment = {"torch": "2.11.0", "cpu": "A_1 & co", "revision": f"abc{number % 2}"}
        store.save_record(record.model_copy(update={"scoring": None, "environment": environment}))
    text = cite(store.root).methods
    assert "(commits abc0 and abc1), protocol 5, on PyTorch 2.11.0~\\cite{paszke2019pytorch}" in text
    assert ", on A\\_1 \\& co. " in text
    assert "; not scored; " in text
    assert "heusel2017fid" not in text


def test_many_commits_are_counted(store: Store) -> None:
    for number, (_, config) in enumerate(store.load_plan("beta1").runs):
        record = store.load_record(config.run_id)
        assert record is not None
        store.save_record(record.model_copy(update={"environment": {"revision": f"abc{number % 3}"}}))
    assert "(3 commits, named in the records)" in cite(store.root).methods


def test_empty_folder_has_nothing_to_cite(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run is finished in this folder yet"):
        cite(tmp_path)


def test_other_study_is_remembered_and_linked(tmp_path: Path, no_figures: None) -> None:
    """Named once; written anew without naming it, the page is the same, and a folder that is gone is left out."""
    for out, steps in (("short", 99), ("long", 999)):
        save_runs(Store(tmp_path / out), plan(load_grid("beta1"), steps=steps), lambda _, seed: 20.0 + seed)
    short, long = tmp_path / "short", tmp_path / "long"
    text = write_report(short, beside=[long]).read_text("utf-8")
    assert "- **After 999 steps of mnist-10k** ([long](../long/report.md))\n" in text
    assert json.loads((short / "beside.json").read_text("utf-8")) == ["../long"]
    assert write_report(short).read_text("utf-8") == text
    assert "short" not in write_report(long).read_text("utf-8")  # found only where it is named
    shutil.rmtree(long)
    assert "../long" not in write_report(short).read_text("utf-8")


def test_wrong_other_study_is_named(tmp_path: Path, no_figures: None) -> None:
    save_runs(Store(tmp_path / "out"), plan(load_grid("beta1"), steps=99), lambda *_: 20.0)
    with pytest.raises(UserError, match=r"--beside .*none: no grid was run into this folder"):
        write_report(tmp_path / "out", beside=[tmp_path / "none"])
    with pytest.raises(UserError, match=r"--beside .*: the same folder as --out"):
        write_report(tmp_path / "out", beside=[tmp_path / "out"])
    (tmp_path / "out" / "beside.json").write_text("{}", "utf-8")
    with pytest.raises(UserError, match=r"beside\.json: valid: a list of paths"):
        write_report(tmp_path / "out")
