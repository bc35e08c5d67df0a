"""Every form of checkpoint gives what was put into it; every wrong one says what is wrong."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from erasebench.errors import EraseBenchError
from erasebench.methods.checkpoint import Checkpoint, check_base
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import Erasure
from tests.models.checkpoints import (
    CONVOLUTION,
    KEY,
    OUT,
    QUERY,
    changed,
    erase,
    factors,
    kohya,
    outputs,
    store,
)
from tests.models.stock import stock_pipeline
from tests.tiny import tiny_model, tiny_pipeline


@pytest.fixture
def model() -> DiffusionModel:
    return tiny_model()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".bin", ".pth"])
@pytest.mark.parametrize("prefix", ["", "unet."])
def test_partial_unet_files(suffix: str, prefix: str, model: DiffusionModel, tmp_path: Path) -> None:
    names = f"unet.{KEY}.weight", f"unet.{OUT}.bias"
    tensors = changed(model, *names)
    path = store({prefix + name.removeprefix("unet."): t for name, t in tensors.items()}, tmp_path / f"esd{suffix}")
    erasure = erase(path, model)
    assert set(erasure.weights) == set(names)
    assert torch.equal(outputs(model, erasure), outputs(model, Erasure(tensors)))
    assert not torch.equal(outputs(model, erasure), outputs(model))


def test_whole_state_dicts_keep_only_what_differs(model: DiffusionModel, tmp_path: Path) -> None:
    name = f"unet.{KEY}.weight"
    whole = {key: tensor.detach().clone() for key, tensor in model.unet.state_dict().items()}
    whole[f"{KEY}.weight"] += 0.5
    assert set(erase(store(whole, tmp_path / "unet.pt"), model).weights) == {name}


@pytest.mark.parametrize("prefix", ["", "text_model.", "text_encoder.", "text_encoder.text_model."])
def test_text_encoder_files(prefix: str, model: DiffusionModel, tmp_path: Path) -> None:
    """Older versions of transformers put ``text_model.`` in front, and store the numbers of the positions."""
    name = f"text_encoder.{QUERY}.weight"
    tensors = changed(model, name)
    own = name.removeprefix("text_encoder.").removeprefix("text_model.")
    stored = {prefix + own: tensors[name], f"{prefix}embeddings.position_ids": torch.arange(77)}
    erasure = erase(store(stored, tmp_path / "text.safetensors"), model)
    assert torch.equal(outputs(model, erasure), outputs(model, Erasure(tensors)))


@pytest.mark.parametrize("wrapper", ["state_dict", "unet"])
def test_pickles_with_a_wrapper(wrapper: str, model: DiffusionModel, tmp_path: Path) -> None:
    tensors = changed(model, f"unet.{KEY}.weight")
    torch.save({wrapper: {f"{KEY}.weight": tensors[f"unet.{KEY}.weight"]}, "epoch": 3}, tmp_path / "a.pt")
    assert torch.equal(outputs(model, erase(tmp_path / "a.pt", model)), outputs(model, Erasure(tensors)))


@pytest.mark.parametrize("inside", ["", "unet"])
@pytest.mark.parametrize("safe", [True, False])
def test_folders_of_diffusers(inside: str, safe: bool, model: DiffusionModel, tmp_path: Path) -> None:
    erased = tiny_pipeline()
    with torch.no_grad():
        erased.unet.conv_in.weight.add_(1)
        erased.text_encoder.get_input_embeddings().weight.mul_(2)
    erased.unet.save_pretrained(tmp_path / "pipeline" / "unet", safe_serialization=safe)
    erased.text_encoder.save_pretrained(tmp_path / "pipeline" / "text_encoder")
    erasure = erase(tmp_path / "pipeline" / inside, model)
    expected = {"unet.conv_in.weight"}
    if not inside:
        expected |= {name for name in model.parameters() if name.endswith("token_embedding.weight")}
        assert torch.equal(outputs(model, erasure), outputs(DiffusionModel(erased)))
    assert set(erasure.weights) == expected


def test_sharded_folders_and_other_precisions(model: DiffusionModel, tmp_path: Path) -> None:
    erased = tiny_pipeline()
    with torch.no_grad():
        erased.unet.conv_in.weight.add_(1)
        erased.unet.conv_out.weight.add_(1)
    erased.unet.save_pretrained(tmp_path / "unet", max_shard_size="50KB")
    assert len(list((tmp_path / "unet").glob("*.safetensors"))) > 1
    store({"conv_in.weight": torch.zeros(8, 4, 3, 3)}, tmp_path / "unet" / "model.fp16.safetensors")
    erasure = erase(tmp_path, model)
    assert set(erasure.weights) == {"unet.conv_in.weight", "unet.conv_out.weight"}
    assert torch.equal(erasure.weights["unet.conv_in.weight"], erased.unet.conv_in.weight)


def test_differences_are_added(model: DiffusionModel, tmp_path: Path) -> None:
    name = f"unet.{KEY}.weight"
    tensors = changed(model, name)
    path = store({f"{KEY}.weight": torch.full_like(tensors[name], 0.5)}, tmp_path / "delta.safetensors")
    assert torch.equal(outputs(model, erase(path, model, kind="delta")), outputs(model, Erasure(tensors)))
    assert not torch.equal(outputs(model, erase(path, model)), outputs(model, Erasure(tensors)))


def test_files_by_the_original_names(model: DiffusionModel, tmp_path: Path) -> None:
    """A part of the U-Net, with what such files hold besides."""
    tensors = changed(model, f"unet.{KEY}.weight")
    stored = {
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": tensors[f"unet.{KEY}.weight"],
        "first_stage_model.decoder.conv_in.weight": torch.zeros(1),
        "model_ema.num_updates": torch.tensor(3),
        "alphas_cumprod": torch.zeros(1000),
    }
    for name in ("esd.safetensors", "esd.pt"):
        erasure = erase(store(stored, tmp_path / name), model)
        assert set(erasure.weights) == set(tensors)
        assert torch.equal(outputs(model, erasure), outputs(model, Erasure(tensors)))


@pytest.mark.parametrize(("width", "base"), [(768, "1.x"), (1024, "2.x"), (2048, "XL")])
def test_files_for_another_base(width: int, base: str, model: DiffusionModel, tmp_path: Path) -> None:
    up, down = torch.zeros(8, 2), torch.zeros(2, width)
    files = {
        "kohya": {f"{kohya(f'unet.{KEY}')}.lora_up.weight": up, f"{kohya(f'unet.{KEY}')}.lora_down.weight": down},
        "peft": {f"unet.{KEY}.lora_B.weight": up, f"unet.{KEY}.lora_A.weight": down},
        "whole": {f"{KEY}.weight": torch.zeros(8, width)},
        "original": {f"model.diffusion_model.input_blocks.4.1.{KEY[29:]}.weight": torch.zeros(8, width)},
        "old": {f"{KEY[:-5]}.processor.to_k_lora.down.weight": down, f"{KEY[:-5]}.processor.to_k_lora.up.weight": up},
    }
    for name, tensors in files.items():
        path = store(tensors, tmp_path / f"{name}.safetensors")
        wanted = (
            rf"{name}\.safetensors: it was made for Stable Diffusion {base}: its cross-attention reads {width} numbers "
            "a token, the model's 16$"
        )
        with pytest.raises(EraseBenchError, match=wanted):
            erase(path, model)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("lora_unet_double_blocks_0_img_attn_proj.lora_down.weight", "it was made for FLUX or one like it"),
        ("transformer.single_transformer_blocks.0.attn.to_k.lora_A.weight", "it was made for FLUX or one like it"),
        (
            "transformer.transformer_blocks.0.attn.to_k.lora_A.weight",
            "it was made for Stable Diffusion 3, FLUX or one li",
        ),
        ("lora_unet_joint_blocks_0_x_block_mlp_fc1.lora_down.weight", "it was made for Stable Diffusion 3"),
        (f"{kohya(f'unet.{KEY}')}.hada_w1_a", "is of LoHa, which is not read; merge it"),
        (f"{kohya(f'unet.{KEY}')}.lokr_w1", "is of LoKr"),
        (f"{kohya(f'unet.{KEY}')}.dora_scale", "is of DoRA"),
        (f"{kohya(f'unet.{CONVOLUTION}')}.lora_mid.weight", "is of a Tucker decomposition"),
    ],
)
def test_adapters_that_are_not_read(key: str, message: str, model: DiffusionModel, tmp_path: Path) -> None:
    with pytest.raises(EraseBenchError, match=rf"a\.safetensors: .*{message}"):
        erase(store({key: torch.zeros(2, 2)}, tmp_path / "a.safetensors"), model)


DEEP = "input_blocks.7.1.transformer_blocks.9.attn1.to_q"


@pytest.mark.parametrize("key", [
    "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight",
    "lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight",
    f"lora_unet_{DEEP.replace('.', '_')}.lora_up.weight",
    f"unet.{DEEP}.lora_A.weight",
    "text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight",
])  # fmt: skip
def test_what_only_stable_diffusion_xl_has_tells_a_lora_for_it(key: str, model: DiffusionModel, tmp_path: Path) -> None:
    path = store({key: torch.zeros(2, 2)}, tmp_path / "a.safetensors")
    with pytest.raises(
        EraseBenchError, match=rf"a\.safetensors: its key '{key}' shows that it was made for Stable Diffusion XL"
    ):
        erase(path, model)
    deeper = {f"unet.{DEEP}.weight": torch.zeros(2, 2)}
    check_base({key: torch.zeros(2, 2)}, deeper)


@pytest.mark.parametrize(("recorded", "base"), [
    ({"modelspec.architecture": "stable-diffusion-v2-768-v/lora"}, "2.x"),
    ({"modelspec.architecture": "stable-diffusion-xl-v1-base"}, "XL"),
    ({"ss_base_model_version": "sd_v1"}, "1.x"),
    ({"ss_base_model_version": "sdxl_base_v1-0"}, "XL"),
])  # fmt: skip
@pytest.mark.parametrize(("width", "own"), [(768, "1.x"), (1024, "2.x")])
def test_a_header_tells_the_base_where_shapes_do_not(
    recorded: dict[str, str], base: str, width: int, own: str, tmp_path: Path
) -> None:
    parameters = {f"unet.{KEY}.weight": torch.zeros(8, width), f"unet.{OUT}.weight": torch.zeros(8, 8)}
    tensors = {f"unet.{OUT}.lora_B.weight": torch.zeros(8, 2), f"unet.{OUT}.lora_A.weight": torch.zeros(2, 8)}
    save_file(tensors, tmp_path / "a.safetensors", recorded)
    checkpoint = Checkpoint(str(tmp_path / "a.safetensors"))
    if own == base:
        assert set(checkpoint.read(parameters).low_rank) == {f"unet.{OUT}.weight"}
        return
    wanted = (
        rf"a\.safetensors: its header says .* for Stable Diffusion {base}, and the model is of Stable Diffusion {own}$"
    )
    with pytest.raises(EraseBenchError, match=wanted):
        checkpoint.read(parameters)


def test_a_model_without_safetensors_is_checked_by_its_configuration(tmp_path: Path) -> None:
    stock_pipeline().save_pretrained(tmp_path / "model")
    for weights in (tmp_path / "model").rglob("*.safetensors"):
        weights.unlink()
    good = store({f"{KEY}.weight": torch.zeros(8, 16)}, tmp_path / "good.safetensors")
    bad = store({f"{KEY}.weight": torch.zeros(8, 17)}, tmp_path / "bad.safetensors")
    Checkpoint(str(good)).check_model(tmp_path / "model")
    with pytest.raises(EraseBenchError, match=r"bad\.safetensors: .* has shape \[8, 17\], the model's \[8, 16\]"):
        Checkpoint(str(bad)).check_model(tmp_path / "model")
    (tmp_path / "model" / "unet" / "config.json").write_text("{")
    with pytest.raises(EraseBenchError, match=r"the configuration in .*unet cannot be read"):
        Checkpoint(str(store({"a": torch.zeros(1)}, tmp_path / "c.pt"))).check_model(tmp_path / "model")


def test_a_configuration_has_both_text_encoders_of_stable_diffusion_xl(tmp_path: Path) -> None:
    """As that of a single file, which is one without weights."""
    pipeline = stock_pipeline("sdxl")
    pipeline.save_pretrained(tmp_path / "model")
    for weights in (tmp_path / "model").rglob("*.safetensors"):
        weights.unlink()
    second = {f"text_encoder_2.{name}": value for name, value in pipeline.text_encoder_2.state_dict().items()}
    assert "text_encoder_2.text_projection.weight" in second
    good = store(second, tmp_path / "good.safetensors")
    bad = store({name: value[:1] for name, value in second.items()}, tmp_path / "bad.safetensors")
    Checkpoint(str(good)).check_model(tmp_path / "model")
    with pytest.raises(EraseBenchError, match=r"bad\.safetensors: the erasure's text_encoder_2\..* has shape"):
        Checkpoint(str(bad)).check_model(tmp_path / "model")


def test_identity_is_the_hash_and_needs_no_torch(model: DiffusionModel, tmp_path: Path) -> None:
    path = store({f"{KEY}.weight": torch.zeros(1)}, tmp_path / "a.safetensors")
    code = (
        f"from erasebench.methods.checkpoint import Checkpoint; print(Checkpoint({str(path)!r}).identity()['sha256'])\n"
        "import sys; assert 'torch' not in sys.modules"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    hashed = subprocess.run(["sha256sum", str(path)], capture_output=True, text=True, check=True).stdout.split()[0]
    assert found == hashed


def test_identity_of_a_folder_changes_with_any_file(tmp_path: Path) -> None:
    for part in ("unet", "text_encoder"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "model.safetensors").write_bytes(b"a")
    found = [Checkpoint(str(tmp_path)).identity()]
    for part in ("unet", "text_encoder"):
        (tmp_path / part / "model.safetensors").write_bytes(b"b")
        found.append(Checkpoint(str(tmp_path)).identity())
    assert len({identity["sha256"] for identity in found}) == 3


@dataclass
class Code:
    """A stand-in for an object whose loading would run code."""


def test_wrong_checkpoints_are_explained(model: DiffusionModel, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "torn.safetensors").write_bytes(b"12345678abc")
    torch.save({"unet": Code()}, tmp_path / "code.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    up, down = factors(model, f"unet.{KEY}")
    cases = {
        "nowhere.pt": "the checkpoint .*nowhere.pt does not exist",
        "empty": "the folder .*empty holds no weights",
        "notes.txt": r"a checkpoint ends in \.safetensors, \.pt, \.pth, \.bin",
        "torn.safetensors": r"torn\.safetensors cannot be read: Error while deserializing header",
        "code.pt": r"code\.pt holds more than tensors.*refused; save its state dict as safetensors",
        "list.pt": r"list\.pt holds no tensors",
        "names.pt": rf"names\.pt: the model has no parameter '{KEY}x\.weight'; the nearest is 'unet\.{KEY}\.weight'",
        "original.pt": r"no parameter 'model\.diffusion_model\.input_blocks\.9\.0.*or of the original code",
        "shape.pt": rf"shape\.pt: the erasure's unet\.{KEY}\.weight has shape \[1\], the model's \[8, 16\]",
        "lora-shape.pt": rf"unet\.{KEY}\.weight has shape \[8, 3\], the model's \[8, 16\]",
        "half.pt": rf"half\.pt: the LoRA of unet\.{KEY}\.weight lacks a half; it has only: up",
        "mixed.pt": r"mixed\.pt: 'conv_in\.weight' is among keys of a LoRA, but not one",
    }
    store({f"{KEY}x.weight": torch.zeros(1)}, tmp_path / "names.pt")
    store({"model.diffusion_model.input_blocks.9.0.weight": torch.zeros(1)}, tmp_path / "original.pt")
    store({f"{KEY}.weight": torch.zeros(1)}, tmp_path / "shape.pt")
    store({f"{KEY}.lora_B.weight": up, f"{KEY}.lora_A.weight": torch.zeros(2, 3)}, tmp_path / "lora-shape.pt")
    store({f"{KEY}.lora_B.weight": up}, tmp_path / "half.pt")
    store({f"{KEY}.lora_B.weight": up, "conv_in.weight": down}, tmp_path / "mixed.pt")
    for name, message in cases.items():
        with pytest.raises(EraseBenchError, match=message):
            erase(tmp_path / name, model)
    for name in ("nowhere.pt", "empty", "notes.txt"):
        with pytest.raises(EraseBenchError, match=cases[name]):
            Checkpoint(str(tmp_path / name)).identity()
