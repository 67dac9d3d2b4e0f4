from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from gan_ablate.design.config import RunConfig
from gan_ablate.design.datasets import folder_identity
from gan_ablate.design.user_code import UserCode
from gan_ablate.errors import UserError
from gan_ablate.execution import final_scores
from gan_ablate.execution import run as run_module
from gan_ablate.execution.context import Progress, RunContext
from gan_ablate.execution.environment import check_inputs
from gan_ablate.execution.executors.worker import check, list_inputs
from gan_ablate.execution.recorder import TrainingObserver, draw_samples
from gan_ablate.execution.records import Record
from gan_ablate.execution.run import execute
from gan_ablate.execution.store import Store
from gan_ablate.scoring.scorer import NonFiniteImagesError, Scorer, sample_images, scoring_latents
from gan_ablate.training.models import build_generator
from gan_ablate.training.runtime import check_precision, find_device
from gan_ablate.training.user_code import allow_code
from tests.configs import make_config
from tests.features import warm


def ignore(_: Progress) -> None:
    pass


def test_a_run_leaves_everything_that_its_folder_promises(context: RunContext) -> None:
    config = make_config(steps=12)
    progress: list[Progress] = []
    record = execute(config, context, progress.append)
    store = Store(Path(context.out))
    folder = store.run_dir(config.run_id)
    assert store.load_record(config.run_id) == record
    assert record.status == "completed"
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "generator.safetensors", "log.txt", "record.json", "samples",
    }  # fmt: skip
    assert [path.name for path in sorted((folder / "samples").iterdir())] == ["step-000000.png", "step-000012.png"]
    assert record.history["step"] == [10, 12]
    assert record.scoring is not None
    assert record.scoring.final is not None
    assert record.scoring.curve_steps == [12]
    assert record.scoring.final.num_samples == 1_280
    assert record.scoring.floor.fid < 1 < record.scoring.final.fid
    assert record.throughput is not None
    assert record.throughput.num_timed_steps == 9
    assert record.num_parameters_g == sum(p.numel() for p in build_generator(config).parameters())
    assert 0 < record.train_sec < record.total_sec
    assert record.environment["torch"] == torch.__version__.split("+")[0]
    assert progress[-1].step == 12
    assert "completed" in (folder / "log.txt").read_text()


def test_the_saved_generator_draws_the_saved_sample_grid(context: RunContext) -> None:
    config = make_config()
    execute(config, context, ignore)
    folder = Path(context.out) / "runs" / config.run_id
    generator = build_generator(config)
    generator.load_state_dict(load_file(folder / "generator.safetensors"))
    images = sample_images(generator, scoring_latents(config, 64)[0], torch.device("cpu"))
    sample_grid = np.asarray(Image.open(folder / "samples" / "step-000003.png").convert("L"))
    assert sample_grid.shape == (242, 242)  # eight by eight images of 28 pixels, two pixels between
    assert np.abs(sample_grid[2:30, 32:60].astype(int) - images[1, 0].numpy().astype(int)).max() <= 1


def test_the_same_configuration_leaves_the_same_record_wherever_it_runs(tmp_path: Path) -> None:
    records = []
    for place in ("a", "b"):
        torch.rand(3)
        record = execute(make_config(), RunContext(out=str(warm(tmp_path / place)), data_dir="data"), ignore)
        assert record.scoring is not None
        assert record.scoring.final is not None
        final = record.scoring.final.model_copy(update={"seconds": 0})
        records.append((record.history, final, record.scoring.curve_fid, record.dataset_sha256))
    assert records[0] == records[1]


def test_a_divergence_is_recorded_with_its_step_and_without_a_score(context: RunContext) -> None:
    record = execute(make_config(steps=30, lr_g=1e30, lr_d=1e30), context, ignore)
    assert (record.status, record.diverged_at) == ("diverged", 10)
    assert record.message == "not a finite number at step 10"
    assert record.scoring is not None
    assert record.scoring.final is None
    assert record.throughput is not None


def test_pixels_that_are_no_numbers_are_a_divergence(context: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise NonFiniteImagesError

    monkeypatch.setattr(Scorer, "score", refuse)
    assert execute(make_config(), context, ignore).status == "diverged"


def test_an_error_is_recorded_and_logged(context: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(run_module, "train", explode)
    record = execute(make_config(), context, ignore)
    assert (record.status, record.message) == ("failed", "ZeroDivisionError: planted")
    log = (Path(context.out) / "runs" / record.run_id / "log.txt").read_text()
    assert "Traceback" in log
    assert "planted" in log


def test_colour_pictures_are_trained_on_and_left_unscored_without_inception(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(24):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(tmp_path / f"{i}.png")
    name = folder_identity(tmp_path)
    config = make_config(dataset=name, scoring={"features": "none", "curve_points": 1}, batch_size=8)
    context = RunContext(out=str(tmp_path / "out"), data_dir="data", folders={name: str(tmp_path)})
    record = execute(config, context, ignore)
    assert record.status == "completed"
    assert record.scoring is None
    assert "--inception-weights PATH scores it" in record.unscored_reason
    assert record.dataset_origin.startswith("image folder")


@pytest.mark.parametrize(
    ("device", "words"),
    [("gpu", "device='gpu': not supported; valid: cpu, cuda"), ("mps", "not supported"), ("cuda:99", "use cpu")],
)
def test_a_device_that_is_not_there_is_named(context: RunContext, device: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_inputs(make_config(), context.model_copy(update={"device": device}))


@pytest.mark.parametrize(("precision", "is_native"), [("bf16", True), ("fp32", False)])
def test_a_precision_that_the_processor_has_is_accepted(
    context: RunContext, precision: str, is_native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gan_ablate.training.runtime.has_native_bf16", lambda: is_native)
    check_inputs(make_config(precision=precision), context)


def test_bfloat16_on_a_processor_without_it_is_refused_before_training(
    context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gan_ablate.training.runtime.has_native_bf16", lambda: False)
    configs = [make_config(precision=precision) for precision in ("bf16", "fp32")]
    words = "precision = bf16: this processor has no bfloat16 arithmetic; valid: fp32, or a machine with AVX-512 BF16"
    assert any(words in str(check(config, context)) for config in list_inputs(configs))
    assert words in execute(configs[0], context, lambda _: None).message


@pytest.mark.parametrize(
    ("device", "capability", "is_there"), [("cpu", (9, 0), False), ("cuda:0", (7, 5), False), ("cuda:0", (8, 0), True)]
)
def test_tf32_is_accepted_where_a_gpu_has_it(
    device: str, capability: tuple[int, int], is_there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: capability)
    refused = nullcontext() if is_there else pytest.raises(UserError, match="only NVIDIA GPUs have it, from Ampere on")
    with refused:
        check_precision("tf32", torch.device(device))


@pytest.mark.parametrize(("device", "index"), [("cuda", 0), ("cuda:1", 1)])
def test_a_gpu_is_made_the_current_one(
    context: RunContext, device: str, index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events are recorded on the current device, whichever computes."""
    current: list[int] = []
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", current.append)
    assert find_device(device) == torch.device(device)
    assert current == [index]


def test_runs_compute_float32_as_such(context: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def look(*_: object) -> None:
        cudnn = torch.backends.cudnn
        seen.append((torch.backends.cuda.matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.enabled))
        raise ZeroDivisionError

    monkeypatch.setattr(run_module, "train", look)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
        execute(make_config(), context, ignore)
    assert seen == [(False, False, True, True)]


def test_a_conditional_run_is_scored_by_its_labels_and_an_average_beside_its_weights(context: RunContext) -> None:
    config = make_config(conditional=True, num_classes=10, ema_decay=0.5, steps=12, sheet_every=5)
    record = execute(config, context, ignore)
    scoring = record.scoring
    assert scoring is not None
    assert scoring.final is not None
    assert scoring.final.label_accuracy is not None
    assert 0 <= scoring.final.label_accuracy <= 1
    assert scoring.fid_ema is not None
    assert scoring.fid_ema != scoring.final.fid
    assert scoring.curve_steps == [12]
    folder = Store(Path(context.out)).run_dir(config.run_id)
    sample_grids = [path.name for path in sorted((folder / "samples").iterdir())]
    assert sample_grids == [f"step-{step:06d}.png" for step in (0, 5, 10, 12)]
    names = [load_file(folder / f"generator{suffix}.safetensors").keys() for suffix in ("", "-ema")]
    assert names[0] == names[1]


def keep_best(context: RunContext, monkeypatch: pytest.MonkeyPatch, **scoring: object) -> Record:
    """Execute a run whose FID along training is 30, 10 and 20, at steps 2, 4 and 6."""
    fids = iter((30.0, 10.0, 20.0))
    monkeypatch.setattr(TrainingObserver, "_fid", lambda *_: next(fids))
    counts = {"features": "digits", "num_samples": 1_280, "curve_samples": 1_280, "curve_points": 3}
    return execute(make_config("mlp", steps=6, scoring={**counts, "keep_best": True, **scoring}), context, ignore)


def test_the_weights_of_the_lowest_fid_along_training_are_kept_and_scored_on_other_latents(
    context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorter, record = execute(make_config("mlp", steps=4), context, ignore), keep_best(context, monkeypatch)
    scoring, store = record.scoring, Store(Path(context.out))
    assert isinstance(record.config, RunConfig)
    assert scoring is not None
    assert scoring.best is not None
    assert scoring.final is not None
    assert (scoring.curve_fid, scoring.best_step) == ([30, 10, 20], 4)
    at_best = store.run_dir(record.run_id) / "generator-best.safetensors"
    assert record.weights_sha256.keys() == {"generator.safetensors", at_best.name}
    found, expected = load_file(at_best), load_file(store.run_dir(shorter.run_id) / "generator.safetensors")
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert shorter.scoring is not None
    assert shorter.scoring.final is not None
    assert shorter.scoring.best is None
    assert scoring.best.fid != shorter.scoring.final.fid  # of the same weights, on the curve's latents and more
    assert scoring.best.fid == pytest.approx(shorter.scoring.final.fid, rel=0.1)
    assert scoring.best.fid != pytest.approx(scoring.final.fid, rel=1e-3)
    latents, others = (scoring_latents(record.config, 8, purpose=name)[0] for name in ("latent", "latent/best"))
    assert not (latents[:, None] == others).all(2).any()


def test_samples_are_drawn_from_the_best_weights_if_asked(
    context: RunContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    record, store = keep_best(context, monkeypatch), Store(Path(context.out))
    for best in (False, True):
        draw_samples(store, record.run_id, 4, 0, tmp_path / f"{best}.png", best=best)
    assert (tmp_path / "True.png").read_bytes() != (tmp_path / "False.png").read_bytes()
    with pytest.raises(UserError, match="--best: valid: --best or --averaged, not both"):
        draw_samples(store, record.run_id, 4, 0, tmp_path / "both.png", averaged=True, best=True)
    plain = execute(make_config("mlp", scoring={"features": "none"}), context, ignore)
    with pytest.raises(UserError, match=f"--best: run {plain.run_id} keeps no best weights; valid: with scoring"):
        draw_samples(store, plain.run_id, 4, 0, tmp_path / "plain.png", best=True)


@pytest.mark.slow
def test_best_weights_are_scored_again_as_they_would_have_been(
    context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = keep_best(context, monkeypatch)
    expected = keep_best(context, monkeypatch, num_samples=1_300)
    assert isinstance(expected.config, RunConfig)
    found = rescored(context, trained, expected.config)
    assert found.scoring is not None
    assert expected.scoring is not None
    assert found.scoring.best is not None
    assert expected.scoring.best is not None
    seconds = {"seconds": 0}
    assert found.scoring.best.model_copy(update=seconds) == expected.scoring.best.model_copy(update=seconds)
    assert found.scoring.best_step == 4
    assert found.weights_sha256 == expected.weights_sha256


def test_samples_are_drawn_from_the_average_if_asked(context: RunContext, tmp_path: Path) -> None:
    config, store = make_config("mlp", ema_decay=0.5), Store(Path(context.out))
    execute(config, context, ignore)
    for averaged in (False, True):
        draw_samples(store, config.run_id, 4, 0, tmp_path / f"{averaged}.png", averaged=averaged)
    assert (tmp_path / "True.png").read_bytes() != (tmp_path / "False.png").read_bytes()
    weights = store.run_dir(config.run_id)
    (weights / "generator-ema.safetensors").replace(weights / "generator.safetensors")
    record = store.load_record(config.run_id)
    assert record is not None
    store.save_record(record.model_copy(update={"weights_sha256": {}}))  # as before there were checksums
    draw_samples(store, config.run_id, 4, 0, tmp_path / "moved.png")
    assert (tmp_path / "moved.png").read_bytes() == (tmp_path / "True.png").read_bytes()
    plain = make_config("mlp")
    execute(plain, context, ignore)
    with pytest.raises(UserError, match=f"--averaged: run {plain.run_id} keeps no average"):
        draw_samples(store, plain.run_id, 4, 0, tmp_path / "plain.png", averaged=True)


def test_a_conditional_generator_draws_the_class_asked_for(context: RunContext, tmp_path: Path) -> None:
    config = make_config("mlp", conditional=True, num_classes=10)
    execute(config, context, ignore)
    store = Store(Path(context.out))
    sample_grids = {}
    for label in (None, 3, 7):
        draw_samples(store, config.run_id, 10, 0, tmp_path / "sheet.png", label)
        sample_grids[label] = np.asarray(Image.open(tmp_path / "sheet.png"))
    mixed, threes = sample_grids[None], sample_grids[3]
    side = 30  # 28 pixels and two between, four images to a row; the fourth is a three in both
    assert np.array_equal(mixed[2:30, 2 + 3 * side : 30 + 3 * side], threes[2:30, 2 + 3 * side : 30 + 3 * side])
    assert not np.array_equal(mixed[2:30, 2:30], threes[2:30, 2:30])
    assert not np.array_equal(threes, sample_grids[7])
    with pytest.raises(UserError, match="--label 10: valid: 0 to 9"):
        draw_samples(store, config.run_id, 4, 0, tmp_path / "sheet.png", 10)
    plain = make_config("mlp")
    execute(plain, context, ignore)
    with pytest.raises(UserError, match=f"--label 3: run {plain.run_id} is not conditional"):
        draw_samples(store, plain.run_id, 4, 0, tmp_path / "sheet.png", 3)


def test_a_users_extractor_scores_a_run_and_needs_two_images_a_feature(tmp_path: Path) -> None:
    (tmp_path / "run_eyes.py").write_text(
        "from torch.nn import functional\n"
        "def embed(images, side=4):\n"
        "    return functional.adaptive_avg_pool2d(images, side).flatten(1)\n"
    )
    code = UserCode(tmp_path, is_allowed=True)
    allow_code(code.paths)

    def extractor(**settings: object) -> dict[str, object]:
        given = {"kind": "module", "path": "run_eyes:embed", **settings}
        return code.complete_extractor(given, "test")  # type: ignore[no-any-return]

    counts = {"num_samples": 200, "curve_samples": 100, "curve_points": 1}
    config = make_config("mlp", scoring={"features": extractor(), **counts})
    context = RunContext(out=str(tmp_path / "out"), data_dir="data", folders=code.paths)
    assert check(config, context) is None
    record = execute(config, context, ignore)
    assert record.status == "completed"
    assert record.scoring is not None
    assert record.scoring.extractor == "run_eyes:embed"
    assert len(record.scoring.extractor_sha256) == 64
    wide = make_config("mlp", scoring={"features": extractor(side=10), **counts})
    assert str(check(wide, context)) == (
        "scoring.curve_samples = 100: too few for the 100 features of run_eyes:embed; "
        "valid: at least 200, 2 for each feature; FID compares covariances, which need more images than features"
    )
    broken = make_config("mlp", scoring={"features": extractor(side=0), **counts})
    assert "run_eyes:embed" in str(check(broken, context))


def rescored(context: RunContext, trained: Record, config: RunConfig) -> Record:
    folder = Store(Path(context.out)).run_dir(trained.run_id)
    return execute(config, context.model_copy(update={"trained": {config.run_id: str(folder)}}), ignore)


def test_a_diverged_run_has_diverged_when_it_is_scored_again(context: RunContext) -> None:
    trained = execute(make_config(steps=30, lr_g=1e30, lr_d=1e30), context, ignore)
    scoring = trained.config.scoring.model_copy(update={"num_samples": 1_300})
    found = rescored(context, trained, make_config(steps=30, lr_g=1e30, lr_d=1e30, scoring=scoring.model_dump()))
    assert (found.status, found.diverged_at, found.message) == ("diverged", 10, trained.message)
    assert found.scoring is not None
    assert found.scoring.final is None
    assert found.scoring.floor.num_samples == 1_300


def test_an_unscored_run_is_scored_later_and_a_damaged_generator_is_named(context: RunContext) -> None:
    trained = execute(make_config("mlp", scoring={"features": "none", "curve_points": 1}), context, ignore)
    assert trained.scoring is None
    found = rescored(context, trained, make_config("mlp"))
    assert found.scoring is not None
    assert found.scoring.final is not None
    assert found.scoring.curve_fid == []
    assert found.notes == (final_scores.WITHOUT_CURVES,)
    assert found.unscored_reason == ""
    weights = Store(Path(context.out)).run_dir(trained.run_id) / "generator.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    scoring = found.config.scoring.model_copy(update={"num_samples": 1_300})
    broken = rescored(context, trained, make_config("mlp", scoring=scoring.model_dump()))
    assert broken.status == "failed"
    assert "generator.safetensors: cannot be read (it does not match its record's checksum)" in broken.message
