"""Models in a single file: which kind they are of, what is refused, and that they draw what their folder draws."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from erasebench import erase
from erasebench.config import make_config
from erasebench.erasures import PIPELINE, Export
from erasebench.erasures import erase as erase_into
from erasebench.errors import EraseBenchError
from erasebench.methods.checkpoint import Checkpoint
from erasebench.models import single_file
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import Erasure
from erasebench.models.export import KOHYA_LORA, SINGLE_FILE, export_single_file
from erasebench.models.families import STABLE_DIFFUSION, STABLE_DIFFUSION_XL
from erasebench.models.loading import find_model, load_model
from erasebench.models.original_layout import (
    CLIP,
    CLIP_XL,
    OPEN_CLIP,
    OPEN_CLIP_XL,
    UNET,
    VAE,
    from_original_layout,
    to_original_layout,
)
from erasebench.models.single_file import KINDS, Kind, find_single_file, load_single_file, load_tokenizer
from erasebench.picturebook import pipeline_path
from erasebench.sampling import Sampler, sample
from tests.marks import first_quick
from tests.models.stock import stock_pipeline
from tests.tiny import Layout, as_model, concept, differing, erase_context, state, tiny_model, tiny_pipeline

TEXT_KEY = f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


def header(width: int = 768, text: tuple[str, ...] = (CLIP,), channels: int = 4) -> dict[str, Tensor]:
    """As little as tells the kind of a file."""
    shapes = {
        f"{UNET}input_blocks.0.0.weight": (1, channels, 1, 1),
        f"{UNET}out.2.weight": (4, 1, 1, 1),
        TEXT_KEY: (1, width),
        f"{VAE}decoder.conv_in.weight": (1, 1, 1, 1),
        **{f"{prefix}token_embedding.weight": (1, 1) for prefix in text},
    }
    return {key: torch.zeros(shape) for key, shape in shapes.items()}


SD2 = header(1024, (OPEN_CLIP,))
XL = header(2048, (CLIP_XL, OPEN_CLIP_XL))


def found(tensors: dict[str, Tensor], path: Path, name: str = "", metadata: dict[str, str] | None = None) -> str:
    """The name of the configuration of a file."""
    save_file(tensors, path / "a.safetensors", metadata)
    single = find_single_file(str(path / "a.safetensors") + name)
    assert single and single[0] == path / "a.safetensors"
    return single[1].name


def test_kinds_are_told_from_the_header(tmp_path: Path) -> None:
    assert found(header(), tmp_path) == "sd1"
    assert found(XL, tmp_path) == "sdxl"
    assert found(SD2, tmp_path, "[prediction=epsilon]") == "sd2-512"
    assert found(SD2, tmp_path, "[prediction=v_prediction]") == "sd2-768-v"
    assert found(SD2, tmp_path, metadata={"modelspec.prediction_type": "v"}) == "sd2-768-v"
    assert found(SD2, tmp_path, metadata={"modelspec.prediction_type": "epsilon"}) == "sd2-512"
    architecture = "modelspec.architecture"
    assert found(SD2, tmp_path, metadata={architecture: "stable-diffusion-v2-768-v"}) == "sd2-768-v"
    assert found(SD2, tmp_path, metadata={architecture: "stable-diffusion-v2-512"}) == "sd2-512"
    # Whole models may hold keys that merged LoRAs left behind.
    assert found(XL | {"a.alpha": torch.zeros(1), f"{LORA}.alpha": torch.zeros(1)}, tmp_path) == "sdxl"
    # The user's word goes over the file's.
    assert found(SD2, tmp_path, "[prediction=epsilon]", {"modelspec.prediction_type": "v"}) == "sd2-512"


def test_what_stable_diffusion_2_predicts_has_to_be_said(tmp_path: Path) -> None:
    wanted = (
        r"a\.safetensors is of Stable Diffusion 2\.x and does not tell what its U-Net predicts: write "
        r"'.*\[prediction=epsilon\]' \(those for 512 pixels\) or '.*\[prediction=v_prediction\]' \(those for 768 pixels"
    )
    with pytest.raises(EraseBenchError, match=wanted):
        found(SD2, tmp_path)


LORA = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (header(channels=9), "its U-Net reads 9 channels and gives 4, as those for inpainting and the like"),
        (header(1280, ("conditioner.embedders.0.model.",)), "it is a refiner of Stable Diffusion XL"),
        (
            SD2 | {f"{UNET}label_emb.0.0.weight": torch.zeros(1)},
            "it is of unCLIP, which draws from the embedding of an",
        ),
        (SD2 | {"noise_augmentor.data_mean": torch.zeros(1)}, "it is of unCLIP"),
        (XL | {"edm_mean": torch.zeros(1)}, r"it is of Playground 2\.5, whose noise levels are not those"),
        (header(160), r"of unknown kind: its cross-attention reads 160 numbers a token; known are 768 \(Stable"),
        (
            header(text=()),
            r"of Stable Diffusion 1\.x, but lacks a part: it has no weights cond_stage_model\.tr.*\*$",
        ),
        ({k: v for k, v in XL.items() if k[:5] != "first"}, r"lacks a part: it has no weights first_stage_model\.\*$"),
        ({k: v for k, v in header().items() if k != TEXT_KEY}, "its cross-attention reads no numbers a token"),
        (header() | {"v_pred": torch.zeros(0)}, r"1\.x and predicts v_prediction; of this kind only epsilon is known"),
        ({f"{LORA}.lora_up.weight": torch.zeros(1, 1)}, r"it is a LoRA; give the model .*checkpoint\[path=.*\]"),
        ({"unet.a.lora_A.weight": torch.zeros(1, 1)}, "it is a LoRA"),
        ({f"{LORA}.hada_w1_a": torch.zeros(1, 1)}, "it is a LoRA"),
        ({"down_blocks.0.resnets.0.conv1.weight": torch.zeros(1)}, r"it holds parts of a diffusers pipeline; give"),
        (
            {"model.diffusion_model.joint_blocks.0.x_block.mlp.fc1.weight": torch.zeros(1)},
            "it is of Stable Diffusion 3",
        ),
        ({"transformer_blocks.0.attn.to_q.weight": torch.zeros(1)}, "it is of Stable Diffusion 3, FLUX or one like th"),
        ({"double_blocks.0.img_attn.proj.weight": torch.zeros(1)}, "it is of FLUX"),
        ({"weight": torch.zeros(1)}, r"it has no weight model\.diffusion_model\.input_blocks\.0\.0\.weight"),
    ],
)
def test_what_is_no_such_model_is_refused(tensors: dict[str, Tensor], message: str, tmp_path: Path) -> None:
    with pytest.raises(EraseBenchError, match=rf"a\.safetensors .*{message}"):
        found(tensors, tmp_path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for name in ("torn.safetensors", "model.ckpt", "notes.txt"):
        (tmp_path / name).write_bytes(b"12345678abc")
    cases = {
        "torn.safetensors": r"torn\.safetensors cannot be read: Error while deserializing header",
        "model.ckpt": r"model\.ckpt is no \.safetensors file: .* to load a pickle may run code; convert it",
        "notes.txt": r"notes\.txt is no \.safetensors file",
        "nowhere.safetensors": r"the model .*nowhere\.safetensors does not exist",
        "torn.safetensors[prediction=v]": r"'\[prediction=v\]' in '.*' is not known; .* takes \[prediction=epsilon\]",
        "torn.safetensors[size=5]": r"'\[size=5\]' in '.*' is not known",
    }
    for name, message in cases.items():
        with pytest.raises(EraseBenchError, match=message):
            find_model(str(tmp_path / name))
    assert find_single_file("org/name") is None and find_single_file(str(tmp_path)) is None


def test_a_file_has_the_family_of_its_kind(tmp_path: Path) -> None:
    for name, tensors in {"sd": header(), "sdxl": XL}.items():
        save_file(tensors, tmp_path / f"{name}.safetensors")
        source = find_model(str(tmp_path / f"{name}.safetensors"))
        assert (source.family.name, source.file) == (name, tmp_path / f"{name}.safetensors")


def test_to_find_a_file_needs_no_torch(tmp_path: Path) -> None:
    save_file(header(), tmp_path / "a.safetensors")
    code = (
        "from erasebench.models.loading import find_model; print(find_model('a.safetensors').folder)\n"
        "import sys; assert 'torch' not in sys.modules"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert printed.strip() == str(KINDS[0].configuration)


UNETS = {"sd1": 859_520_964, "sd2-512": 865_910_724, "sd2-768-v": 865_910_724, "sdxl": 2_567_463_684}
CLIP_L, CLIP_H, CLIP_BIG_G = 123_060_480, 340_387_840, 694_659_840
TEXT_ENCODERS = {"sd1": [CLIP_L], "sd2-512": [CLIP_H], "sd2-768-v": [CLIP_H], "sdxl": [CLIP_L, CLIP_BIG_G]}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.folder)
def test_the_configurations_are_of_the_published_sizes(kind: Kind) -> None:
    """They have as many parameters as the published weights."""
    folder = kind.configuration
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder / "unet"))
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(folder / "vae"))
        encoders: list[Any] = [CLIPTextModel(CLIPTextConfig.from_pretrained(folder / "text_encoder"))]
        if kind.folder == "sdxl":
            encoders.append(CLIPTextModelWithProjection(CLIPTextConfig.from_pretrained(folder / "text_encoder_2")))
    assert (size(unet), size(vae)) == (UNETS[kind.folder], 83_653_863)
    assert [size(encoder) for encoder in encoders] == TEXT_ENCODERS[kind.folder]
    assert unet.config.sample_size * 8 == vae.config.sample_size == kind.resolution
    assert unet.config.cross_attention_dim == kind.text_width


def size(network: Any) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_tokenizer_is_clips() -> None:
    sd1, sd2 = (load_tokenizer(kind.configuration / "tokenizer") for kind in KINDS[:2])
    # The ids that OpenAI's CLIP gives.
    assert sd1("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert (len(sd1), sd1.pad_token_id, sd2.pad_token_id, sd2.model_max_length) == (49408, 49407, 0, 77)
    texts = ["Van Gogh's  starry\nnight, 1889", "日本の church", "a" * 300, ""]
    ids = sd2(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    assert torch.equal(ids, SimpleTokenizer()(texts))


@pytest.fixture(scope="module", params=get_args(Layout))
def layout(request: pytest.FixtureRequest) -> Layout:
    found: Layout = request.param
    return found


@pytest.fixture(scope="module")
def configuration(layout: Layout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder without its weights."""
    folder = tmp_path_factory.mktemp(layout)
    stock_pipeline(layout).save_pretrained(folder)
    for path in folder.rglob("*.safetensors"):
        path.unlink()
    return folder


@pytest.fixture
def tiny(layout: Layout, configuration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DiffusionModel:
    """A model whose kind is known for a test."""
    shutil.copytree(configuration, tmp_path / "configurations" / layout)
    model = tiny_model(layout)
    known = {"sd1": KINDS[0], "sd2": KINDS[2], "sdxl": KINDS[3]}[layout]
    kind = replace(known, folder=layout, text_width=int(model.unet.config.cross_attention_dim))
    monkeypatch.setattr(single_file, "KINDS", (kind,))
    monkeypatch.setattr(single_file, "_CONFIGURATIONS", tmp_path / "configurations")
    return model


def rule_out(model: DiffusionModel) -> Erasure:
    """A change of the U-Net and the text encoders."""
    own, rng = state(model), torch.Generator().manual_seed(0)
    names = [name for name in own if "attn2.to_v" in name or name.endswith("q_proj.weight")]
    return Erasure({name: own[name] + 0.2 * torch.randn(own[name].shape, generator=rng) for name in names})


def test_a_single_file_draws_what_the_erased_model_draws(tiny: DiffusionModel, tmp_path: Path) -> None:
    erasure, before = rule_out(tiny), state(tiny)
    export_single_file(tiny, erasure, tmp_path / SINGLE_FILE)
    assert differing(before, state(tiny)) == set()
    source = find_model(str(tmp_path / SINGLE_FILE))
    assert (source.domain, source.steps, source.file) == ("photo", 50, tmp_path / SINGLE_FILE)
    assert source.weight_files == [tmp_path / SINGLE_FILE]
    read = load_model(source, "cpu")
    assert (type(read), read.prediction_type) == (type(tiny), tiny.prediction_type)
    assert read.pipeline_options == tiny.pipeline_options
    sampler = Sampler("ddim", 3, 4.0)
    drawn = sample(read, ["a church", "art"], [3, 1], sampler)
    plain = sample(tiny, ["a church", "art"], [3, 1], sampler)
    with tiny.erased(erasure):
        assert differing(state(tiny), state(read)) == set()
        assert np.array_equal(drawn, sample(tiny, ["a church", "art"], [3, 1], sampler))
    assert not np.array_equal(drawn, plain)


def test_a_file_of_stable_diffusion_2_holds_a_layer_more_than_diffusers(tmp_path: Path) -> None:
    """Its text encoder has 24 layers, the last of which is not used, and a projection."""
    pipeline = stock_pipeline("sd2")
    config = CLIPTextConfig(**pipeline.text_encoder.config.to_dict() | {"num_hidden_layers": 23})
    pipeline.text_encoder = CLIPTextModel(config)
    pipeline.save_pretrained(tmp_path / "model")
    tensors = to_original_layout(pipeline)
    last = f"{OPEN_CLIP}transformer.resblocks.22."
    tensors |= {
        key.replace(".22.", ".23."): torch.zeros_like(value) for key, value in tensors.items() if key.startswith(last)
    }
    tensors |= {f"{OPEN_CLIP}text_projection": torch.zeros(24, 24), f"{OPEN_CLIP}logit_scale": torch.zeros(())}
    save_file(tensors, tmp_path / "a.safetensors")
    read = load_single_file(tmp_path / "a.safetensors", tmp_path / "model", STABLE_DIFFUSION)
    wanted, found = (one.text_encoder.state_dict() for one in (pipeline, read))
    assert set(wanted) == set(found) and all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("layout", first_quick(["sdxl", "sd1", "sd2"]), indirect=True)
def test_the_api_takes_a_single_file(tiny: DiffusionModel, tmp_path: Path) -> None:
    export_single_file(tiny, rule_out(tiny), tmp_path / SINGLE_FILE)
    pipeline = erase(tmp_path / SINGLE_FILE, "uce", "church")
    base = load_model(find_model(str(tmp_path / SINGLE_FILE)), "cpu")
    changed = differing(state(base), state(as_model(pipeline)))
    assert changed and all(name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")) for name in changed)


@pytest.mark.parametrize("layout", first_quick(["sdxl", "sd1", "sd2"]), indirect=True)
def test_a_model_in_a_single_file_is_erased_and_exported(tiny: DiffusionModel, tmp_path: Path) -> None:
    path, out = tmp_path / "base.safetensors", tmp_path / "out"
    export_single_file(tiny, rule_out(tiny), path)
    config = make_config({"model": str(path), "methods": ["uce"], "concepts": ["church"], "out": out})
    exports: tuple[Export, ...] = ("diffusers", "single-file", "kohya-lora")
    for export in exports:
        assert "; exported to " in erase_into(config, export)
    base = load_model(find_model(str(path)), "cpu")
    with base.erased(Erasure.load(out)):
        wanted = state(base)
    assert differing(state(base), wanted)
    for name in (PIPELINE, SINGLE_FILE):
        read = load_model(find_model(str(out / name)), "cpu")
        assert type(read) is type(base) and differing(state(read), wanted) == set()
        assert torch.equal(read.embed(["a church"]).embeddings, base.embed(["a church"]).embeddings)
    with base.erased(Checkpoint(str(out / KOHYA_LORA)).erase(base, [concept("church")], erase_context())):
        for name, value in state(base).items():
            torch.testing.assert_close(value, wanted[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", first_quick(["sdxl", "sd1", "sd2"]), indirect=True)
def test_half_precision_is_loaded_in_full(tiny: DiffusionModel, tmp_path: Path) -> None:
    for part in tiny.family.networks:
        torch.nn.Module.half(getattr(tiny, part))
    export_single_file(tiny, Erasure({"unet.conv_in.bias": tiny.unet.conv_in.bias + 1}), tmp_path / "a.safetensors")
    read = load_model(find_model(str(tmp_path / "a.safetensors")), "cpu")
    parameters = [*read.parameters().values(), *read.vae.parameters()]
    assert {parameter.dtype for parameter in parameters} == {torch.float32}


@pytest.mark.parametrize("layout", first_quick(["sd1", "sd2", "sdxl"]), indirect=True)
def test_the_fingerprint_is_of_the_bytes_and_of_the_configuration(tiny: DiffusionModel, tmp_path: Path) -> None:
    path, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    export_single_file(tiny, rule_out(tiny), path)
    shutil.copy(path, other)
    first = find_model(str(path)).fingerprint
    assert find_model(str(other)).fingerprint == first
    content = bytearray(other.read_bytes())
    content[-1] ^= 1
    other.write_bytes(content)
    assert find_model(str(other)).fingerprint != first
    configuration = next((tmp_path / "configurations").rglob("scheduler_config.json"))
    configuration.write_text(configuration.read_text() + "\n")
    assert find_model(str(path)).fingerprint != first


@pytest.mark.parametrize(
    ("suffix", "value", "message"),
    [
        ("out.2.bias", None, r"a\.safetensors lacks weights of its U-Net or its VAE$"),
        ("post_quant_conv.bias", None, r"a\.safetensors lacks weights of its U-Net or its VAE$"),
        ("ln_final.bias", None, r"a\.safetensors lacks weights of its text_encoder: .*final_layer_norm\.bias"),
        ("out.2.bias", torch.zeros(3), r"diffusers cannot load .*a\.safetensors: .*conv_out\.bias"),
    ],
)
def test_a_file_whose_weights_are_not_all_there(
    suffix: str, value: Tensor | None, message: str, tmp_path: Path
) -> None:
    folder, path = tmp_path / "model", tmp_path / "a.safetensors"
    stock_pipeline("sd2").save_pretrained(folder)
    tensors = to_original_layout(tiny_model("sd2"))
    key = next(key for key in tensors if key.endswith(suffix))
    del tensors[key]
    save_file(tensors | ({} if value is None else {key: value}), path)
    with pytest.raises(EraseBenchError, match=message):
        load_single_file(path, folder, STABLE_DIFFUSION)


def test_picturebook_goes_through_a_single_file(tmp_path: Path) -> None:
    model = load_model(find_model("picturebook"), "cpu")
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    erasure = Erasure({name: 2 * model.parameters()[name].detach()})
    export_single_file(model, erasure, tmp_path / SINGLE_FILE)
    pipeline = load_single_file(tmp_path / SINGLE_FILE, pipeline_path(), STABLE_DIFFUSION)
    read = DiffusionModel(pipeline, "picturebook")
    sampler = Sampler("ddim", 2, 5.0)
    with model.erased(erasure):
        wanted = sample(model, ["a photo of a church"], [0], sampler)
    assert np.array_equal(sample(read, ["a photo of a church"], [0], sampler), wanted)
    # Its sizes are no one else's.
    with pytest.raises(EraseBenchError, match="its cross-attention reads 160 numbers a token"):
        find_model(str(tmp_path / SINGLE_FILE))


def tiny_xl() -> Any:
    """Networks of the shape of Stable Diffusion XL's, with two text encoders and the second's projection."""
    parts = tiny_pipeline()
    text = {"hidden_size": 24, "hidden_act": "gelu", "projection_dim": 20}
    config = CLIPTextConfig(**parts.text_encoder.config.to_dict() | text)
    unet = UNet2DConditionModel.from_config(
        {
            **parts.unet.config,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": [1, 2],
            "cross_attention_dim": 40,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 20 + 6 * 8,
        }
    )
    return StableDiffusionXLPipeline(
        vae=parts.vae,
        text_encoder=parts.text_encoder,
        text_encoder_2=CLIPTextModelWithProjection(config),
        tokenizer=parts.tokenizer,
        tokenizer_2=parts.tokenizer,
        unet=unet,
        scheduler=parts.scheduler,
    )


def test_stable_diffusion_xl_goes_through_a_single_file(tmp_path: Path) -> None:
    pipeline = tiny_xl()
    pipeline.save_pretrained(tmp_path / "model")
    save_file(to_original_layout(pipeline), tmp_path / "xl.safetensors")
    read = load_single_file(tmp_path / "xl.safetensors", tmp_path / "model", STABLE_DIFFUSION_XL)
    known: dict[str, Tensor] = {}
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        wanted, found = (getattr(one, part).state_dict() for one in (pipeline, read))
        assert set(wanted) == set(found) and all(torch.equal(found[name], wanted[name]) for name in wanted)
        if part != "vae":
            known |= {f"{part}.{name}": value for name, value in wanted.items()}
    again = from_original_layout(to_original_layout(pipeline), list(known))
    assert {name.replace(".text_model.", ".") for name in known} == set(again)
    for name, value in known.items():
        assert torch.equal(again[name.replace(".text_model.", ".")], value)
