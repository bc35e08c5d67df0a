"""Grounded-SAM with tiny networks of random weights, against its parts called by hand; no network is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from erasebench.errors import EraseBenchError
from erasebench.judges import grounded_sam
from erasebench.judges.grounded_sam import GROUNDING_DINO, SAM, GroundedSAM
from erasebench.registry import JUDGES


def build_grounding_dino(folder: Path) -> None:
    from transformers import (
        BertConfig,
        BertTokenizer,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        SwinConfig,
    )

    # The network knows the full stop and the question mark, which end phrases, by their ids in BERT's vocabulary.
    words = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: ".", 1029: "?", 999: "dog"}
    vocabulary = [words.get(k, f"[unused{k}]") for k in range(1030)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    tokenizer = BertTokenizer(vocab={word: k for k, word in enumerate(vocabulary)})
    images = GroundingDinoImageProcessor(size={"shortest_edge": 32, "longest_edge": 64})
    GroundingDinoProcessor(images, tokenizer).save_pretrained(folder)
    images.save_pretrained(folder)
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(
            image_size=32,
            embed_dim=8,
            depths=[1, 1, 1],
            num_heads=[1, 1, 1],
            window_size=2,
            out_features=["stage2", "stage3"],
        ),
        text_config=BertConfig(
            vocab_size=1030, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
        ),
        num_queries=6,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        num_feature_levels=3,
        d_model=32,
    )
    GroundingDinoForObjectDetection(config).save_pretrained(folder)


def build_sam(folder: Path) -> None:
    from transformers import (
        SamConfig,
        SamImageProcessor,
        SamMaskDecoderConfig,
        SamModel,
        SamPromptEncoderConfig,
        SamVisionConfig,
    )

    config = SamConfig(
        vision_config=SamVisionConfig(
            hidden_size=16,
            output_channels=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=64,
            window_size=2,
            global_attn_indexes=[0],
            num_pos_feats=8,
            mlp_dim=16,
        ),
        prompt_encoder_config=SamPromptEncoderConfig(hidden_size=16, image_size=64),
        mask_decoder_config=SamMaskDecoderConfig(
            hidden_size=16, mlp_dim=16, num_attention_heads=2, iou_head_hidden_dim=16
        ),
    )
    SamModel(config).save_pretrained(folder)
    size = {"height": 64, "width": 64}
    SamImageProcessor(size={"longest_edge": 64}, pad_size=size).save_pretrained(folder)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for model, build in ((GROUNDING_DINO, build_grounding_dino), (SAM, build_sam)):
            target = place / model.repository.rpartition("/")[2]
            target.mkdir()
            build(target)
    return place


@pytest.fixture
def tiny(built: Path, folder: Path) -> Path:
    """Both models in the folder of weights."""
    for path in built.iterdir():
        (folder / path.name).mkdir()
        for file in path.iterdir():
            (folder / path.name / file.name).symlink_to(file)
    return folder


def test_missing_weights_say_how_to_get_them_and_nothing_is_downloaded(
    folder: Path, images: NDArray[np.uint8], built: Path
) -> None:
    for act in (GroundedSAM().identity, lambda: GroundedSAM().scores(images, ["dog"] * 3)):
        with pytest.raises(EraseBenchError) as error:
            act()
        assert f"{folder / 'grounding-dino-base' / 'config.json'} is missing" in str(error.value)
        assert "hf download IDEA-Research/grounding-dino-base config.json model.safetensors" in str(error.value)
    (folder / "grounding-dino-base").symlink_to(built / "grounding-dino-base")
    with pytest.raises(EraseBenchError, match="weights of facebook/sam-vit-huge are needed"):
        GroundedSAM().identity()


def test_identity_depends_on_every_file(tiny: Path) -> None:
    judge = JUDGES.get("grounded-sam").make()
    before = judge.identity()
    file = tiny / "sam-vit-huge" / "preprocessor_config.json"
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content + b"\n")
    after = judge.identity()
    assert before["threshold"] == after["threshold"] == "0.3"
    assert before["weights"].partition("+")[0] == after["weights"].partition("+")[0]
    assert before["weights"] != after["weights"]


def test_masks_are_the_union_of_what_sam_finds_in_the_boxes(
    tiny: Path, images: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import SamModel, SamProcessor

    judge = GroundedSAM()
    reader, _, _, _ = judge._models
    boxes = torch.tensor([[2.0, 3.0, 30.0, 40.0], [20.0, 5.0, 60.0, 45.0]])
    asked: list[str] = []

    def found(outputs: Any, input_ids: Any, threshold: float, target_sizes: Any) -> list[dict[str, Any]]:
        assert threshold == 0.3 and target_sizes == [(48, 64)]
        assert outputs.pred_boxes.shape[-1] == 4
        asked.append(reader.tokenizer.decode(input_ids[0]))
        # Nothing in the second picture.
        return [{"boxes": boxes[: 0 if len(asked) == 2 else 2]}]

    monkeypatch.setattr(reader, "post_process_grounded_object_detection", found)
    scores = judge.scores(images, ["Dog.", "dog", "dog"])
    assert asked == ["[CLS] dog. [SEP]"] * 3
    masks = scores.arrays["mask"]
    assert masks.shape == (3, 48, 64) and masks.dtype == np.float32
    assert not masks[1].any()
    network, processor = (made.from_pretrained(tiny / "sam-vit-huge") for made in (SamModel, SamProcessor))
    union = np.zeros((48, 64), dtype=bool)
    for box in boxes.tolist():
        read = processor(images=images[0], input_boxes=[[box]], return_tensors="pt")
        read["input_boxes"] = read["input_boxes"].float()
        with torch.no_grad():
            logits = network(
                pixel_values=read["pixel_values"], input_boxes=read["input_boxes"], multimask_output=False
            ).pred_masks
        large = torch.nn.functional.interpolate(logits[0], (64, 64), mode="bilinear")[..., :48, :64]
        union |= (torch.nn.functional.interpolate(large, (48, 64), mode="bilinear")[0, 0] > 0).numpy()
    assert 0 < union.mean() < 1
    assert np.array_equal(masks[0], union)
    assert scores.columns["area"] == pytest.approx(masks.mean((1, 2)))


def test_real_boxes_of_the_tiny_network(tiny: Path, images: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grounded_sam, "THRESHOLD", 0.0)
    every = GroundedSAM().scores(images[:1], ["dog"]).arrays["mask"]
    monkeypatch.setattr(grounded_sam, "THRESHOLD", 1.0)
    assert not GroundedSAM().scores(images[:1], ["dog"]).arrays["mask"].any()
    assert every.any()
    assert set(np.unique(every)) <= {0.0, 1.0}


def test_nothing_and_bad_pictures(tiny: Path, images: NDArray[np.uint8]) -> None:
    assert GroundedSAM().scores(images[:0], []).arrays["mask"].shape == (0, 48, 64)
    with pytest.raises(ValueError, match="uint8 images"):
        GroundedSAM().scores(images[..., :2], ["dog"] * 3)
