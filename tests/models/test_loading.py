"""Finding and loading models: what is found, what identifies it, and what is said when there is nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NoReturn, get_args

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from erasebench.errors import EraseBenchError
from erasebench.models.families import STABLE_DIFFUSION, STABLE_DIFFUSION_XL
from erasebench.models.loading import (
    copy_model,
    describe_pipeline,
    find_model,
    load_model,
    resolve_device,
    resolve_dtype,
)
from erasebench.picturebook import GUIDANCE, STEPS
from tests.models.stock import stock_pipeline
from tests.tiny import Layout, differing, state, tiny_model

LAYOUTS: tuple[Layout, ...] = get_args(Layout)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders as save_pretrained writes them, by layout."""
    folders: dict[str, Path] = {}
    for layout in LAYOUTS:
        folders[layout] = tmp_path_factory.mktemp(layout)
        stock_pipeline(layout).save_pretrained(folders[layout])
    return folders


@pytest.fixture
def folder(saved: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the SD 1.x folder that a test may spoil."""
    return Path(shutil.copytree(saved["sd1"], tmp_path / "model"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_saved_pipeline_loads_with_its_own_weights(saved: dict[str, Path], layout: Layout) -> None:
    source = find_model(str(saved[layout]))
    model = load_model(source, "cpu", "auto")
    assert (source.domain, source.steps, source.guidance_scale) == ("photo", 50, 7.5)
    assert source.family is model.family is (STABLE_DIFFUSION_XL if layout == "sdxl" else STABLE_DIFFUSION)
    assert model.prediction_type == ("v_prediction" if layout == "sd2" else "epsilon")
    assert differing(state(model), state(tiny_model(layout))) == set()
    assert not any(parameter.requires_grad for parameter in model.parameters().values())


@pytest.mark.parametrize("layout", ["sd1", "sdxl"])
def test_a_pipeline_in_half_precision_is_loaded_in_full(layout: Layout, tmp_path: Path) -> None:
    stock_pipeline(layout).to(dtype=torch.float16).save_pretrained(tmp_path)
    model = load_model(find_model(str(tmp_path)), "cpu")
    assert {p.dtype for p in [*model.parameters().values(), *model.vae.parameters()]} == {torch.float32}
    assert torch.equal(model.unet.conv_in.weight, tiny_model(layout).unet.conv_in.weight.half().float())


def test_a_copy_may_be_elsewhere_than_what_is_copied() -> None:
    given = stock_pipeline()
    model = copy_model(given, describe_pipeline(given), "meta", "bfloat16")
    assert {p.device.type for p in [*model.parameters().values(), *model.vae.parameters()]} == {"meta"}
    assert (given.device.type, given.vae.device.type, model.dtype) == ("cpu", "cpu", torch.bfloat16)


def test_the_built_in_model_brings_its_recommended_settings() -> None:
    source = find_model("picturebook")
    assert (source.domain, source.steps, source.guidance_scale) == ("picturebook", STEPS, GUIDANCE)
    model = load_model(source, "cpu")
    assert (model.domain, model.dtype, model.scale_factor) == ("picturebook", torch.float32, 4)
    assert model.latent_shape[1:] == (16, 16)


def test_the_fingerprint_does_not_depend_on_the_place(saved: dict[str, Path], folder: Path) -> None:
    assert find_model(str(folder)).fingerprint == find_model(str(saved["sd1"])).fingerprint
    assert find_model(str(saved["sd2"])).fingerprint != find_model(str(saved["sd1"])).fingerprint


@pytest.mark.parametrize(
    "name", ["unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json", "tokenizer/tokenizer.json"]
)
def test_the_fingerprint_depends_on_every_byte(folder: Path, name: str) -> None:
    before = find_model(str(folder)).fingerprint
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    assert find_model(str(folder)).fingerprint != before


def test_the_fingerprint_depends_on_names_but_not_on_parts_that_are_not_loaded(folder: Path) -> None:
    before = find_model(str(folder)).fingerprint
    (folder / "safety_checker").mkdir()
    (folder / "safety_checker" / "config.json").write_text("{}")
    assert find_model(str(folder)).fingerprint == before
    (folder / "vae" / "config.json").rename(folder / "vae" / "configuration.json")
    assert find_model(str(folder)).fingerprint != before


def test_a_folder_that_is_no_pipeline(tmp_path: Path) -> None:
    with pytest.raises(EraseBenchError, match=r"no diffusers pipeline: it has no model_index\.json.* single"):
        find_model(str(tmp_path))


@pytest.mark.parametrize("content", ["{", "\ufffe", "[]", "3"])
def test_a_corrupt_index(folder: Path, content: str) -> None:
    (folder / "model_index.json").write_text(content, encoding="utf-16")
    with pytest.raises(EraseBenchError, match=r"model_index\.json is corrupt"):
        find_model(str(folder))
    (folder / "model_index.json").write_text(content, encoding="utf-8")
    with pytest.raises(EraseBenchError, match=r"model_index\.json is corrupt"):
        find_model(str(folder))


@pytest.mark.parametrize("part", STABLE_DIFFUSION.parts)
def test_a_folder_that_lacks_a_part(folder: Path, part: str) -> None:
    shutil.rmtree(folder / part)
    with pytest.raises(EraseBenchError, match=f"no Stable-Diffusion-shaped pipeline: it lacks {part}$"):
        find_model(str(folder))


def test_an_index_that_does_not_list_a_part(folder: Path) -> None:
    index = folder / "model_index.json"
    index.write_text(json.dumps({k: v for k, v in json.loads(index.read_text()).items() if k not in ("unet", "vae")}))
    with pytest.raises(EraseBenchError, match=r"it lacks unet, vae$"):
        find_model(str(folder))


def test_a_pipeline_of_another_class_is_called_by_its_name(folder: Path) -> None:
    index = folder / "model_index.json"
    listed = {k: v for k, v in json.loads(index.read_text()).items() if k != "unet"}
    index.write_text(json.dumps(listed | {"_class_name": "FluxPipeline"}))
    with pytest.raises(
        EraseBenchError, match=r"pipeline \(its model_index\.json says 'FluxPipeline'\): it lacks unet$"
    ):
        find_model(str(folder))


@pytest.mark.parametrize("keep", [0, 7, 5000])
def test_weights_that_were_cut_off(folder: Path, keep: int) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(EraseBenchError, match=f"diffusers cannot load {folder}"):
        load_model(find_model(str(folder)), "cpu")


def test_missing_weights(folder: Path) -> None:
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(EraseBenchError, match=rf"^{folder}/vae holds no \.safetensors file"):
        find_model(str(folder))


def test_pickles_are_not_loaded_and_the_error_says_how_to_convert_them(folder: Path) -> None:
    for weights in sorted(folder.rglob("*.safetensors")):
        stem = weights.stem if weights.parent.name != "text_encoder" else "pytorch_model"
        torch.save(load_file(weights), weights.with_name(f"{stem}.bin"))
        weights.unlink()
    with pytest.raises(
        EraseBenchError, match=rf"^{folder}/unet holds no \.safetensors file.* run code.*: python"
    ) as told:
        find_model(str(folder))
    command = str(told.value).split('python -c "')[1].rstrip('"')
    exec(command.replace("'NEW'", f"'{folder}-new'"))
    assert differing(state(load_model(find_model(f"{folder}-new"), "cpu")), state(tiny_model())) == set()
    # One that has both is read as far as it is safetensors.
    save_file({"weight": torch.zeros(1)}, folder / "unet" / "other.safetensors")
    for part in ("vae", "text_encoder"):
        save_file({"weight": torch.zeros(1)}, folder / part / "other.safetensors")
    with pytest.raises(EraseBenchError, match=f"diffusers cannot load {folder}: .*safetensors"):
        load_model(find_model(str(folder)), "cpu")


def test_a_variant_alone_is_not_loaded(tmp_path: Path) -> None:
    stock_pipeline().save_pretrained(tmp_path, variant="fp16")
    wanted = r"unet holds its weights only as the variant fp16; .*StableDiffusionPipeline.*, variant='fp16'\)\.save"
    with pytest.raises(EraseBenchError, match=wanted):
        find_model(str(tmp_path))


@pytest.mark.parametrize("name", ["picturebok", "no/such/folder", "models dir/sd"])
def test_an_unknown_name(name: str) -> None:
    with pytest.raises(EraseBenchError, match=f"no model '{name}': neither 'picturebook', nor a folder, nor a hub id"):
        find_model(name)


@pytest.mark.parametrize("error", [LocalEntryNotFoundError("offline"), OSError("no route"), ConnectionError("down")])
def test_a_hub_model_without_a_network(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> NoReturn:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    wanted = rf"'org/name' is not on this machine.*\({type(error).__name__}\).*`hf download org/name`.*--model FOLDER"
    with pytest.raises(EraseBenchError, match=wanted):
        find_model("org/name")


def test_a_hub_id_that_the_hub_would_refuse() -> None:
    with pytest.raises(EraseBenchError, match="'org/-name'"):
        find_model("org/-name")


def test_a_hub_model_is_a_folder_once_it_is_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, list[str]]] = []

    def download(name: str, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    source = find_model("org/name")
    assert (source.name, source.folder) == ("org/name", folder)
    (name, patterns), *more = asked
    assert name == "org/name" and not more
    assert set(patterns) == {"model_index.json", *(f"{part}/*" for part in STABLE_DIFFUSION_XL.parts)}


def test_devices() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    for unknown in ("gpu", "mps", "meta", "cuda:x", "cpu:0", ""):
        with pytest.raises(EraseBenchError, match=f"unknown device '{unknown}'; auto, cpu or cuda"):
            resolve_device(unknown)


def test_a_gpu_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [resolve_device(device) for device in ("cuda", "cuda:0", "cuda:1")] == ["cuda", "cuda:0", "cuda:1"]
    with pytest.raises(EraseBenchError, match="there is no device 'cuda:2': the machine's are cuda:0 to cuda:1"):
        resolve_device("cuda:2")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_that_is_not_there(device: str) -> None:
    with pytest.raises(EraseBenchError, match="no CUDA device is available; use --device cpu"):
        resolve_device(device)


def test_precision_follows_the_device_unless_given() -> None:
    assert [resolve_dtype("auto", device) for device in ("cpu", "cuda", "cuda:1")] == ["float32", *["bfloat16"] * 2]
    assert resolve_dtype("float32", "cuda") == "float32"
    assert resolve_dtype("bfloat16", "cpu") == "bfloat16"


def change(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_parts_that_the_index_lists_and_that_were_not_downloaded_are_not_missed(folder: Path) -> None:
    """As in a model of the hub, of which only what is needed is fetched."""
    absent = {
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    }
    change(folder / "model_index.json", **absent)
    assert differing(state(load_model(find_model(str(folder)), "cpu")), state(tiny_model())) == set()


def test_pipelines_of_another_shape(folder: Path) -> None:
    shape = "is not of the shape of Stable Diffusion 1.x, 2.x or XL: "
    unet = folder / "unet" / "config.json"
    change(unet, in_channels=9)
    with pytest.raises(EraseBenchError, match=f"{shape}its U-Net reads 9 channels and gives 4, as those for inpaint"):
        find_model(str(folder))
    unet.write_text("{")
    with pytest.raises(EraseBenchError, match=f"{unet} is missing or corrupt"):
        find_model(str(folder))
    change(folder / "model_index.json", text_encoder_2=["transformers", "CLIPTextModelWithProjection"])
    with pytest.raises(EraseBenchError, match=r"it lacks text_encoder_2, tokenizer_2$"):
        find_model(str(folder))


def test_a_refiner_of_stable_diffusion_xl_lacks_a_text_encoder(saved: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved["sdxl"], tmp_path / "refiner"))
    for part in ("text_encoder", "tokenizer"):
        shutil.rmtree(folder / part)
    change(folder / "model_index.json", text_encoder=[None, None], tokenizer=[None, None])
    with pytest.raises(EraseBenchError, match=r"it lacks text_encoder, tokenizer$"):
        find_model(str(folder))


def test_the_fingerprint_depends_on_the_second_text_encoder(saved: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved["sdxl"], tmp_path / "model"))
    before = find_model(str(folder)).fingerprint
    change(folder / "text_encoder_2" / "config.json", hidden_act="quick_gelu")
    assert find_model(str(folder)).fingerprint != before
