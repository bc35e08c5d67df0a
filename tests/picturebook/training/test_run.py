"""Stages of a training: what they need is checked before any work, and what they ship can be loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from erasebench.cli import main
from erasebench.errors import EraseBenchError
from erasebench.picturebook.training import unet as unet_stage
from erasebench.picturebook.training.run import _shipped_vae, train
from erasebench.picturebook.weights import WeightsError, write_manifest
from tests.marks import first_quick


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stage": "vea"}, "unknown stage 'vea'; stages: vae, unet, judges, all"),
        ({"steps": 5}, "--steps needs --stage vae or --stage unet"),
        ({"stage": "vae", "processes": 2}, "--processes is for the U-Net"),
        ({"start": "anew"}, "unknown start 'anew'; scratch or shipped"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(tmp_path: Path, arguments: dict[str, str], message: str) -> None:
    with pytest.raises(EraseBenchError, match=message):
        train(folder=tmp_path / "work", out=tmp_path / "out", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "work").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_a_missing_gpu_is_named(tmp_path: Path) -> None:
    with pytest.raises(EraseBenchError, match="no CUDA device"):
        train(device="cuda", folder=tmp_path)


def test_the_unet_stage_asks_for_the_vae(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erasebench.picturebook.training.run.SCENES", 8)
    with pytest.raises(EraseBenchError, match="train --stage vae"):
        train(stage="unet", folder=tmp_path / "work", out=tmp_path / "out")
    assert not (tmp_path / "work").exists()


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a manifest and the names of shipped weights, for checks that come before any rendering."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("rendered before the check")

    monkeypatch.setattr("erasebench.picturebook.training.run.cached_renders", refuse)
    out = tmp_path / "out"
    for name in ("model_index.json", "unet/model.safetensors", "vae/config.json", "vae/model.safetensors"):
        path = out / "pipeline" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    for name in ("detector", "clip", "q16"):
        (out / f"{name}.safetensors").write_bytes(name.encode())
    write_manifest(out)
    return out


@pytest.mark.parametrize(
    ("stage", "start", "name"),
    [
        ("vae", "shipped", "pipeline/vae/model.safetensors"),
        ("unet", "scratch", "pipeline/vae/model.safetensors"),
        ("unet", "shipped", "pipeline/unet/model.safetensors"),
        ("judges", "scratch", "pipeline/model_index.json"),
        ("judges", "shipped", "clip.safetensors"),
        ("all", "shipped", "pipeline/unet/model.safetensors"),
        ("all", "shipped", "detector.safetensors"),
    ],
)
def test_weights_that_a_stage_needs_are_verified_before_any_work(
    shipped: Path, tmp_path: Path, stage: str, start: str, name: str
) -> None:
    work = tmp_path / "work"
    with pytest.raises(AssertionError, match="rendered before the check"):
        train(stage, folder=work, out=shipped, start=start)
    work.rmdir()
    content = (shipped / name).read_bytes()
    (shipped / name).write_bytes(content + b"!")
    with pytest.raises(WeightsError, match=f"{name} is corrupt"):
        train(stage, folder=work, out=shipped, start=start)
    (shipped / name).unlink()
    with pytest.raises(WeightsError, match=f"{name} is missing"):
        train(stage, folder=work, out=shipped, start=start)
    assert not work.exists()


def test_a_corrupt_vae_is_not_loaded(shipped: Path) -> None:
    (shipped / "pipeline/vae/model.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"vae/model\.safetensors is corrupt"):
        _shipped_vae(shipped)


@pytest.mark.parametrize("option", ["--out", "--folder"])
def test_a_folder_that_cannot_be_written_is_found_before_any_work(
    shipped: Path, tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("not a folder")
    folders = {"--out": shipped, "--folder": tmp_path / "work", option: tmp_path / "file" / "new"}
    with pytest.raises(SystemExit) as stop:
        main(["picturebook", "train", *(str(word) for pair in folders.items() for word in pair)])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: the output folder {tmp_path / 'file' / 'new'} cannot be written")


def test_shipped_weights_are_not_passed_over_for_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erasebench.picturebook.training.run.SCENES", 8)
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "checkpoint.pt").write_bytes(b"")
    with pytest.raises(EraseBenchError, match=r"checkpoint\.pt would be resumed, not the shipped weights"):
        train(stage="unet", folder=tmp_path, out=tmp_path / "out", start="shipped")


@pytest.mark.slow
def test_the_number_of_processes_does_not_change_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erasebench.picturebook.training.run.SCENES", 80)
    train(stage="vae", device="cpu", folder=tmp_path / "work", out=tmp_path / "out", steps=1)
    trained = []
    for processes in (1, 2):
        train(
            stage="unet", device="cpu", folder=tmp_path / "work", out=tmp_path / "out", steps=3, processes=processes,
            resume=False,
        )  # fmt: skip
        state = torch.load(tmp_path / "work" / "unet" / "checkpoint.pt", weights_only=True)
        trained.append(torch.cat([v.flatten().float() for v in state["model"].values()]))
    # A weight moves by at most the sum of the rates; half-precision rounding may differ by a few per cent of it.
    moved = sum(unet_stage.RECIPE.rate(step) for step in range(3))
    assert (trained[0] - trained[1]).abs().mean() < 0.03 * moved


@pytest.mark.parametrize("further", first_quick([False, True]), ids=["anew", "further"])
def test_every_stage_runs_and_ships_a_loadable_pipeline(
    further: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import StableDiffusionPipeline

    from erasebench.picturebook.weights import pipeline_path

    monkeypatch.setattr("erasebench.picturebook.training.run.SCENES", 40)
    monkeypatch.setattr(unet_stage, "BATCH", 8)
    work, out = tmp_path / "work", tmp_path / "out"
    for stage in ("vae", "unet"):
        train(stage=stage, device="cpu", folder=work, out=out, steps=1)
        if further:
            train(stage=stage, device="cpu", folder=work, out=out, steps=2, start="shipped", resume=False)
    assert not [path for path in out.rglob("*.json") if str(tmp_path) in path.read_text(encoding="utf-8")]
    # As a user of diffusers loads it, with no word about precision.
    pipeline = StableDiffusionPipeline.from_pretrained(pipeline_path(out))
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a photo of a church", num_inference_steps=2, output_type="np").images[0]
    assert image.shape == (64, 64, 3)
    names = {name for name, _ in pipeline.unet.named_modules()}
    blocks = "down_blocks.1.attentions.0", "mid_block.attentions.0", "up_blocks.0.attentions.1"
    for block in blocks:
        for attention in ("attn1", "attn2"):
            for projection in ("to_q", "to_k", "to_v", "to_out.0"):
                assert f"{block}.transformer_blocks.0.{attention}.{projection}" in names
