from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from erasebench.errors import EraseBenchError
from erasebench.methods.checkpoint import Checkpoint
from erasebench.models.diffusion import DiffusionModel
from tests.models.checkpoints import (
    CONVOLUTION,
    KEY,
    OUT,
    QUERY,
    erase,
    factors,
    kohya,
    outputs,
    store,
    with_lora,
)
from tests.models.stock import stock_pipeline
from tests.tiny import differing, state, tiny_model, tiny_pipeline

NAMES = f"unet.{KEY}", f"unet.{OUT}", f"unet.{CONVOLUTION}", f"text_encoder.{QUERY}"


@pytest.fixture
def model() -> DiffusionModel:
    return tiny_model()


@pytest.mark.parametrize(
    ("up_key", "down_key"),
    [
        ("{0}.lora_B.weight", "{0}.lora_A.weight"),
        ("{0}.lora.up.weight", "{0}.lora.down.weight"),
        ("base_model.model.{0}.lora_B.default.weight", "base_model.model.{0}.lora_A.default.weight"),
    ],
)
def test_loras_without_alpha(up_key: str, down_key: str, model: DiffusionModel, tmp_path: Path) -> None:
    tensors = {}
    for name in NAMES:
        tensors[up_key.format(name)], tensors[down_key.format(name)] = factors(model, name)
    erasure = erase(store(tensors, tmp_path / "lora.safetensors"), model)
    assert set(erasure.low_rank) == {f"{name}.weight" for name in NAMES}
    expected = with_lora(model, dict.fromkeys(NAMES, 1.0))
    torch.testing.assert_close(outputs(model, erasure), outputs(model, expected))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_kohya_loras_with_alpha(suffix: str, model: DiffusionModel, tmp_path: Path) -> None:
    tensors = {}
    for name in NAMES:
        tensors[f"{kohya(name)}.lora_up.weight"], tensors[f"{kohya(name)}.lora_down.weight"] = factors(model, name)
        tensors[f"{kohya(name)}.alpha"] = torch.tensor(0.5)
    erasure = erase(store(tensors, tmp_path / f"spm{suffix}"), model)
    expected = with_lora(model, dict.fromkeys(NAMES, 0.25))
    torch.testing.assert_close(outputs(model, erasure), outputs(model, expected))


def test_kohya_loras_are_what_diffusers_makes_of_them(tmp_path: Path) -> None:
    """Linear layers, convolutions with kernels of 1 and 3, a text encoder; ranks and alphas of their own."""
    pipeline = stock_pipeline()
    model = DiffusionModel(tiny_pipeline())
    convolution = "unet.up_blocks.0.resnets.0.conv_shortcut"
    attention = next(n for n in model.parameters() if n.endswith("layers.1.self_attn.out_proj.weight"))
    names = [f"unet.{KEY}", f"unet.{OUT}", f"unet.{CONVOLUTION}", convolution, attention.removesuffix(".weight")]
    tensors: dict[str, Tensor] = {}
    for rank, name in enumerate(names, 2):
        up, down = factors(model, name, rank)
        tensors |= {f"{kohya(name)}.lora_up.weight": up, f"{kohya(name)}.lora_down.weight": down}
        tensors[f"{kohya(name)}.alpha"] = torch.tensor(1.5)
    path = store(tensors, tmp_path / "lora.safetensors")
    pipeline.load_lora_weights(tmp_path, weight_name=path.name)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    wanted = state(DiffusionModel(pipeline))
    erasure = erase(path, model)
    assert set(erasure.low_rank) == {f"{name}.weight" for name in names}
    before = state(model)
    with model.erased(erasure):
        found = state(model)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)
    assert differing(before, found) == set(erasure.low_rank)


def test_kohya_loras_with_the_original_names_of_blocks(model: DiffusionModel, tmp_path: Path) -> None:
    """As those for Stable Diffusion XL have them."""
    stems = {KEY: "input_blocks_1_1_transformer_blocks_0_attn2_to_k", CONVOLUTION: "middle_block_0_in_layers_2"}
    tensors: dict[str, Tensor] = {}
    for name, stem in stems.items():
        up, down = factors(model, f"unet.{name}")
        tensors |= {f"lora_unet_{stem}.lora_up.weight": up, f"lora_unet_{stem}.lora_down.weight": down}
    erasure = erase(store(tensors, tmp_path / "lora.safetensors"), model)
    expected = with_lora(model, {f"unet.{name}": 1.0 for name in stems})
    torch.testing.assert_close(outputs(model, erasure), outputs(model, expected))


def test_loras_of_old_attention_processors(model: DiffusionModel, tmp_path: Path) -> None:
    tensors: dict[str, Tensor] = {}
    for name in (KEY, OUT):
        stem, _, own = name.removesuffix(".0").rpartition(".")
        up, down = factors(model, f"unet.{name}")
        tensors |= {f"{stem}.processor.{own}_lora.up.weight": up, f"{stem}.processor.{own}_lora.down.weight": down}
    erasure = erase(store(tensors, tmp_path / "lora.bin"), model)
    expected = with_lora(model, {f"unet.{KEY}": 1.0, f"unet.{OUT}": 1.0})
    torch.testing.assert_close(outputs(model, erasure), outputs(model, expected))


@pytest.mark.parametrize("where", ["header", "beside"])
def test_alpha_from_metadata(where: str, model: DiffusionModel, tmp_path: Path) -> None:
    up, down = factors(model, f"unet.{KEY}")
    stem = f"unet.{KEY}" if where == "header" else f"base_model.model.{KEY}"
    tensors = {f"{stem}.lora_B.weight": up, f"{stem}.lora_A.weight": down}
    path = tmp_path / "adapter_model.safetensors"
    if where == "header":
        save_file(tensors, path, {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 6, "unet.r": 2})})
    else:
        save_file(tensors, path)
        settings = {"lora_alpha": 6, "r": 2, "alpha_pattern": {}, "use_rslora": False}
        (tmp_path / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    before = Checkpoint(str(path)).identity()
    expected = with_lora(model, {f"unet.{KEY}": 3.0})
    torch.testing.assert_close(outputs(model, erase(path, model)), outputs(model, expected))
    if where == "beside":
        (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 6, "use_rslora": true}', encoding="utf-8")
        assert Checkpoint(str(path)).identity() != before
        with pytest.raises(EraseBenchError, match="a LoRA with use_rslora is not supported; merge it"):
            erase(path, model)


def test_an_alpha_that_is_too_large_is_one_clear_line(model: DiffusionModel, tmp_path: Path) -> None:
    up, down = factors(model, f"unet.{KEY}")
    path = store({f"{KEY}.lora_B.weight": up, f"{KEY}.lora_A.weight": down}, tmp_path / "lora.safetensors")
    (tmp_path / "adapter_config.json").write_text(f'{{"lora_alpha": {10**400}}}', encoding="utf-8")
    with pytest.raises(EraseBenchError, match=r"the settings of the LoRA .* cannot be read: OverflowError"):
        erase(path, model)


def test_parts_of_a_folder_have_one_alpha(model: DiffusionModel, tmp_path: Path) -> None:
    names = {"unet": KEY, "text_encoder": QUERY}
    for part, name in names.items():
        up, down = factors(model, f"{part}.{name}")
        (tmp_path / part).mkdir()
        store({f"{name}.lora_B.weight": up, f"{name}.lora_A.weight": down}, tmp_path / part / "lora.safetensors")
        (tmp_path / part / "adapter_config.json").write_text('{"lora_alpha": 6}', encoding="utf-8")
    expected = with_lora(model, {f"{part}.{name}": 3.0 for part, name in names.items()})
    torch.testing.assert_close(outputs(model, erase(tmp_path, model)), outputs(model, expected))
    (tmp_path / "text_encoder" / "adapter_config.json").unlink()
    with pytest.raises(EraseBenchError, match="the LoRAs of its parts record different alphas"):
        erase(tmp_path, model)
