from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from erasebench.picturebook.weights import (
    WEIGHTS,
    WeightsError,
    judge_path,
    pipeline_path,
    total_bytes,
    vae_path,
    write_manifest,
)

FILES = {
    "pipeline/model_index.json": b"{}",
    "pipeline/unet/diffusion_pytorch_model.safetensors": b"unet" * 1000,
    "detector.safetensors": b"detector",
    "clip.safetensors": b"clip",
    "q16.safetensors": b"q16",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "CARD.md").write_text("Reworded freely.")
    write_manifest(tmp_path)
    return tmp_path


def assert_helpful(error: WeightsError, path: Path, problem: str) -> None:
    message = str(error)
    assert str(path) in message and problem in message
    assert "pip install --force-reinstall --no-deps erasebench" in message
    assert f"git checkout -- {path}" in message
    assert "erasebench picturebook train" in message


def test_the_manifest_lists_what_is_loaded(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest) == set(FILES)
    # From `sha256sum`, so that the hash is really SHA-256.
    assert manifest["q16.safetensors"] == {
        "sha256": "e963db004a65ce6050d7e93ff490342b1e20235fc0ec9e37c8df1a82db194352",
        "bytes": 3,
    }
    assert total_bytes(folder) == sum(map(len, FILES.values()))


def test_intact_files_are_found(folder: Path) -> None:
    assert pipeline_path(folder) == folder / "pipeline"
    assert judge_path("clip", folder).read_bytes() == FILES["clip.safetensors"]


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("pipeline/")])
def test_a_corrupt_file_of_the_pipeline(folder: Path, name: str) -> None:
    path = folder / name
    expected = json.loads((folder / "manifest.json").read_text())[name]["sha256"]
    path.write_bytes(FILES[name][:-1] + b"!")
    with pytest.raises(WeightsError) as caught:
        pipeline_path(folder)
    assert_helpful(caught.value, path, f"corrupt (expected SHA-256 {expected}, found ")
    assert judge_path("clip", folder)


def test_a_file_that_goes_bad_after_it_was_read(folder: Path) -> None:
    path = judge_path("q16", folder)
    path.write_bytes(b"truncated")
    with pytest.raises(WeightsError, match="corrupt"):
        judge_path("q16", folder)


def test_a_missing_file(folder: Path) -> None:
    for name in FILES:
        (folder / name).unlink()
    for name, load in (("pipeline/model_index.json", pipeline_path), ("clip.safetensors", None)):
        with pytest.raises(WeightsError) as caught:
            load(folder) if load else judge_path("clip", folder)
        assert_helpful(caught.value, folder / name, "is missing")


def test_a_missing_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    for check in (pipeline_path, total_bytes, lambda f: judge_path("q16", f)):
        with pytest.raises(WeightsError) as caught:
            check(folder)
        assert_helpful(caught.value, folder / "manifest.json", "is missing")


@pytest.mark.parametrize(
    "content",
    [
        '{"pipeline/',
        "\xff",
        "[]",
        '{"pipeline/model_index.json": 3}',
        '{"x": {"sha256": 1}}',
        '{"x": {"sha256": "00"}}',
        '{"x": {"sha256": 1, "bytes": 1}}',
    ],
)
def test_a_corrupt_manifest(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_text(content, encoding="latin-1")
    for check in (pipeline_path, total_bytes):
        with pytest.raises(WeightsError) as caught:
            check(folder)
        assert_helpful(caught.value, folder / "manifest.json", "is corrupt")


def test_a_file_that_the_manifest_does_not_list(folder: Path) -> None:
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"does not list pipeline/model_index\.json"):
        pipeline_path(folder)
    with pytest.raises(WeightsError, match=r"does not list segmenter\.safetensors"):
        judge_path("segmenter", folder)


def test_a_part_of_a_pipeline_is_no_pipeline(folder: Path) -> None:
    (folder / "pipeline" / "model_index.json").unlink()
    write_manifest(folder)
    with pytest.raises(WeightsError, match=r"does not list pipeline/model_index\.json"):
        pipeline_path(folder)


def test_a_vae_is_verified_without_the_rest_of_the_pipeline(tmp_path: Path) -> None:
    vae = tmp_path / "pipeline" / "vae"
    vae.mkdir(parents=True)
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        (vae / name).write_bytes(b"vae")
    write_manifest(tmp_path)
    assert vae_path(tmp_path) == vae
    (vae / "diffusion_pytorch_model.safetensors").write_bytes(b"truncated")
    with pytest.raises(WeightsError, match=r"vae/diffusion_pytorch_model\.safetensors is corrupt"):
        vae_path(tmp_path)


def test_writing_again_follows_the_files(folder: Path) -> None:
    (folder / "clip.safetensors").write_bytes(b"a better clip")
    shutil.rmtree(folder / "pipeline/unet")
    write_manifest(folder)
    assert pipeline_path(folder) and judge_path("clip", folder)
    assert total_bytes(folder) == len(b"a better clip") + sum(
        len(FILES[name]) for name in ("pipeline/model_index.json", "detector.safetensors", "q16.safetensors")
    )
    assert not list(folder.glob("*.partial"))


def test_the_remedy_for_a_shipped_file_is_relative_to_the_checkout() -> None:
    with pytest.raises(WeightsError, match=r"git checkout -- erasebench/picturebook/weights/"):
        judge_path("no-such-judge", WEIGHTS)
