"""Training of the judges: the detector, the CLIP and the Q16 vectors.

Every batch is a pure function of (seed, step), so training resumes where it stopped.  The judges see clean
renders, degraded renders, reconstructions by the autoencoder and images that show nothing
(:mod:`erasebench.picturebook.training.distortions`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from transformers import CLIPTokenizer

from erasebench.errors import EraseBenchError
from erasebench.picturebook.judges.clip import Clip, build_clip, encode_text, pixel_values, style_prompts, tokenize
from erasebench.picturebook.judges.detector import build_detector, prepare_images
from erasebench.picturebook.judges.q16 import INITIAL_PROMPTS, Q16, TEMPERATURE, initial_vectors
from erasebench.picturebook.judges.weights import load_single, save_half
from erasebench.picturebook.training.data import Renders
from erasebench.picturebook.training.distortions import degrade, negatives
from erasebench.picturebook.training.loop import Recipe, fit, mixed_precision
from erasebench.picturebook.world.captions import IMPLYING, NAMING, PERSON_NOUNS
from erasebench.picturebook.world.objects import OBJECTS
from erasebench.picturebook.world.people import CHARACTERS
from erasebench.picturebook.world.scene import LABELS
from erasebench.picturebook.world.styles import STYLES

DETECTOR_STAGE, CLIP_STAGE, Q16_STAGE = 11, 12, 13
"""Keep the random streams of the models apart."""


DETECTOR_RECIPE = Recipe(
    steps=4500, learning_rate=2e-3, decay=0.6, weight_decay=0.02, betas=(0.9, 0.98), clip=10.0, ema=0.998
)
DETECTOR_BATCH = 32
CLIP_RECIPE = Recipe(
    steps=2200, learning_rate=1.2e-3, warmup=100, decay=0.6, weight_decay=0.05, betas=(0.9, 0.98), ema=0.99
)
CLIP_BATCH = 64
"""Batches include the images of nothing."""
Q16_IMAGES, Q16_STEPS, Q16_RATE = 12_000, 500, 2e-3
VIOLENT_WEIGHT = 4.0
"""The relative weight of a violent image for Q16: one in twelve is violent; a miss is as bad as a false alarm."""
PEOPLE = 6000
"""More clothed people that the judges are shown: they look so various that the ones of the world, 6 % of its scenes,
leave too many to be taken for a character."""

NEGATIVE_SHARE = 0.15
"""Share of a batch that shows nothing."""
RECONSTRUCTED_SHARE, DEGRADED_SHARE = 0.4, 0.4
"""The share of the other images that went through the VAE, and of all (of either sort) that are degraded."""
NOTHING = ("nothing", "noise", "a blur", "a smear", "nothing to see")
"""Names of images that show nothing."""
CLASS_SCALE = 10.0
"""The factor on cosines to classify CLIP's subjects and styles: so low that an image has to turn far towards
its subject and its style, whatever else it shows.  Changes of features (Dark Miner's eq. 6) then tell what changed."""
MASK_SIZE = 32
"""Side of the detector's mask targets: the 16 x 16 prototypes are interpolated to it, so that they learn where
between their pixels an edge runs."""


class ImageSource:
    """Draws the images of a batch.

    Args:
        renders: training scenes.
        reconstructions: uint8 ``[m, 64, 64, 3]``, the first ``m`` renders after a round trip through the VAE.
        seed: of all batches.
        stage: keeps the random numbers of the models apart.
    """

    def __init__(self, renders: Renders, reconstructions: NDArray[np.uint8] | None, seed: int, stage: int) -> None:
        if reconstructions is not None and len(reconstructions) > len(renders):
            raise ValueError(f"{len(reconstructions)} reconstructions of {len(renders)} renders")
        self.renders, self.reconstructions = renders, reconstructions
        self.seed, self.stage = seed, stage

    def generator(self, step: int) -> np.random.Generator:
        """The random numbers of a step."""
        return np.random.default_rng([self.seed, self.stage, step])

    def draw(
        self, batch: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.uint8]]:
        """Indices ``[k]`` of scenes, images ``[k, 64, 64, 3]`` of them, and ``[batch - k, ...]`` of nothing."""
        empty = round(batch * NEGATIVE_SHARE)
        indices = rng.choice(len(self.renders), size=batch - empty, replace=False)
        shown = [self.renders.images[i] for i in indices]
        if self.reconstructions is not None:
            through_vae = min(round(len(indices) * RECONSTRUCTED_SHARE), len(self.reconstructions))
            indices[:through_vae] = rng.choice(len(self.reconstructions), size=through_vae, replace=False)
            shown[:through_vae] = [self.reconstructions[i] for i in indices[:through_vae]]
        shown = [degrade(image, rng) if rng.random() < DEGRADED_SHARE else image for image in shown]
        return indices, np.stack(shown), negatives(self.renders.images, empty, rng)


class DetectorObjective:
    """The loss of the detector: ultralytics' box, class, DFL and mask losses."""

    def __init__(self, renders: Renders, reconstructions: NDArray[np.uint8] | None = None, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model: Any = build_detector().train()
        self.source = ImageSource(renders, reconstructions, seed, DETECTOR_STAGE)

    def batch(self, step: int) -> dict[str, torch.Tensor]:
        """The batch of a step in ultralytics' format.

        ``img`` float32 ``[n, 3, 64, 64]`` in [0, 1]; ``batch_idx``, ``cls`` and ``bboxes`` (centre and size as
        fractions of the image) one row per instance; ``masks`` ``[n, 32, 32]`` with instance numbers from 1.
        """
        rng = self.source.generator(step)
        indices, shown, empty = self.source.draw(DETECTOR_BATCH, rng)
        images = np.concatenate([shown, empty])
        masks = np.zeros((len(images), MASK_SIZE, MASK_SIZE), dtype=np.float32)
        instances: list[tuple[float, ...]] = []
        stride = images.shape[1] // MASK_SIZE
        for row, index in enumerate(indices):
            numbers = self.source.renders.instances[index]
            if rng.random() < 0.5:
                images[row], numbers = images[row, :, ::-1], numbers[:, ::-1]
            masks[row] = numbers[stride // 2 :: stride, stride // 2 :: stride]
            for number, subject in enumerate(self.source.renders.scene(int(index)).subjects, start=1):
                instances.append((row, LABELS.index(subject.label), *_box(numbers == number)))
        rows = torch.tensor(instances, dtype=torch.float32).reshape(-1, 6)
        return {
            "img": prepare_images(images),
            "batch_idx": rows[:, 0],
            "cls": rows[:, 1:2],
            "bboxes": rows[:, 2:],
            "masks": torch.from_numpy(masks),
        }

    def loss(self, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        """The loss of a step and its parts."""
        batch = self.batch(step)
        device = next(self.model.parameters()).device
        with mixed_precision(device):
            raw = self.model(batch["img"].to(device))
        # Assignment and losses need single precision.
        predictions = {k: [x.float() for x in v] if isinstance(v, list) else v.float() for k, v in raw.items()}
        parts, logged = self.model.loss(batch, predictions)
        # Ultralytics multiplies its loss by the batch size; AdamW does not care, gradient clipping would.
        return parts.sum() / DETECTOR_BATCH, {k: float(v) for k, v in logged.items()}


def _box(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """Centre x, centre y, width, height as fractions of the image; zeros (no target) for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return (0.0, 0.0, 0.0, 0.0)
    x0, x1, y0, y1 = columns[0], columns[-1] + 1, rows[0], rows[-1] + 1
    size = mask.shape[0]
    return ((x0 + x1) / 2 / size, (y0 + y1) / 2 / size, (x1 - x0) / size, (y1 - y0) / size)


class ClipObjective:
    """The loss of CLIP: symmetric cross-entropy over a batch of images and captions (Radford et al. 2021), and the
    same images classified by their subjects and styles.

    Images of nothing have no caption: they stand among the images that a caption has to be told from, which
    pushes their similarity with every text down, and are a class of their own among the subjects.

    Captions alone would do, with many more images than one CPU core can show: style and background tell most
    images of a batch apart, so subjects are learnt last.  The classifiers' weights are the features of texts that
    name each subject or style, worded differently in each step, so they add no parameters.  Two more texts, those that
    Q16's vectors start from, tell violent images from all others: without them no pair of vectors would.
    """

    def __init__(
        self, renders: Renders, tokenizer: Any, reconstructions: NDArray[np.uint8] | None = None, seed: int = 0
    ) -> None:
        torch.manual_seed(seed)
        self.model: Any = build_clip(len(tokenizer)).train()
        self.tokenizer = tokenizer
        self.source = ImageSource(renders, reconstructions, seed, CLIP_STAGE)

    def loss(self, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        """The loss of a step and its parts; the step also numbers the wordings of the captions."""
        rng = self.source.generator(step)
        indices, shown, empty = self.source.draw(CLIP_BATCH, rng)
        count = len(indices)
        texts = self.source.renders.captions(indices, epoch=step)
        texts += [_naming(label, rng) for label in LABELS] + [str(rng.choice(NOTHING))]
        texts += [str(rng.choice(style_prompts(style))) for style in STYLES]
        texts += [str(rng.choice(prompts)) for prompts in INITIAL_PROMPTS]
        subjects, styles = self._targets(indices, len(empty))
        device = next(self.model.parameters()).device
        pixels = pixel_values(np.concatenate([shown, empty])).to(device)
        ids = tokenize(self.tokenizer, texts).to(device)
        with mixed_precision(device):
            image, text = self.model.encode_image(pixels), encode_text(self.model, ids)
        image, text = (functional.normalize(x.float(), dim=-1) for x in (image, text))
        # The original CLIP clips the logit scale at 100, too.
        cosines = image @ text.T
        parts = [count, len(LABELS) + 1, len(STYLES), len(INITIAL_PROMPTS)]
        caption, label, style, violence = torch.split(cosines, parts, dim=1)
        caption = self.model.logit_scale.exp().clamp(max=100) * caption
        label, style, violence = CLASS_SCALE * label, CLASS_SCALE * style, CLASS_SCALE * violence
        target = torch.arange(count, device=device)
        paired = functional.cross_entropy(caption.T, target) + functional.cross_entropy(caption[:count], target)
        # Soft targets: an image without a subject has a row of zeros and no loss, one with two has halves.
        by_subject = functional.cross_entropy(label, subjects.to(device))
        by_style = functional.cross_entropy(style[:count], styles.to(device))
        by_violence = functional.cross_entropy(violence, (subjects[:, LABELS.index("violence")] > 0).long().to(device))
        accuracy = (caption.argmax(dim=0) == target).float().mean()
        return paired / 2 + 2 * by_subject + by_style + by_violence, {
            "pairs": paired.item() / 2,
            "subjects": by_subject.item(),
            "styles": by_style.item(),
            "violence": by_violence.item(),
            "accuracy": accuracy.item(),
            "scale": self.model.logit_scale.exp().item(),
        }

    def _targets(self, indices: NDArray[np.int64], empty: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Each image's share of each label and of nothing ``[n + empty, len(LABELS) + 1]``, and its style ``[n]``."""
        subjects = torch.zeros(len(indices) + empty, len(LABELS) + 1)
        subjects[len(indices) :, -1] = 1
        styles = torch.zeros(len(indices), dtype=torch.long)
        for row, index in enumerate(indices):
            scene = self.source.renders.scene(int(index))
            styles[row] = list(STYLES).index(scene.style)
            for subject in scene.subjects:
                subjects[row, LABELS.index(subject.label)] = 1 / len(scene.subjects)
        return subjects, styles


def _naming(label: str, rng: np.random.Generator) -> str:
    """A text that names, or for nudity and violence also implies, a label and nothing else."""
    if label in CHARACTERS:
        return CHARACTERS[label].name
    options = OBJECTS[label].words if label in OBJECTS else PERSON_NOUNS
    if label in NAMING:
        options = (*NAMING[label], *IMPLYING[label])
    return str(rng.choice(options))


def train_q16(clip: Clip, renders: Renders, reconstructions: NDArray[np.uint8] | None = None, seed: int = 0) -> Q16:
    """Tune the two prompt vectors on the frozen image tower: cross-entropy, violent or not."""
    source = ImageSource(renders, reconstructions, seed, Q16_STAGE)
    count = min(Q16_IMAGES, len(renders))
    indices, shown, empty = source.draw(count, source.generator(0))
    violent = [any(s.label == "violence" for s in renders.scene(int(i)).subjects) for i in indices]
    target = torch.tensor([*violent, *[False] * len(empty)], dtype=torch.long)
    features = torch.from_numpy(clip.image_features(np.concatenate([shown, empty])))
    vectors = nn.Parameter(torch.from_numpy(initial_vectors(clip)))
    optimizer = torch.optim.Adam([vectors], lr=Q16_RATE)
    weight = torch.tensor([1.0, VIOLENT_WEIGHT])
    for _ in range(Q16_STEPS):
        logits = TEMPERATURE * features @ functional.normalize(vectors, dim=1).T
        optimizer.zero_grad()
        functional.cross_entropy(logits, target, weight).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return Q16(clip, vectors.detach().numpy())


def train_judges(
    renders: Renders,
    reconstructions: NDArray[np.uint8] | None,
    work: Path,
    device: torch.device,
    out: Path,
    seed: int,
    further: bool = False,
) -> None:
    """Train all three judges and ship them.

    Args:
        renders: training scenes.
        reconstructions: uint8 ``[m, 64, 64, 3]``, the first ``m`` renders after a round trip through the VAE.
        work: receives a folder of checkpoints and logs for each network; training resumes from them.
        device: where to train.
        out: holds ``pipeline/tokenizer``; receives ``detector.safetensors``, ``clip.safetensors``, ``q16.safetensors``.
        seed: of weights and batches.
        further: start from the judges in ``out`` instead of from nothing.
    """
    needed = [out / "pipeline" / "tokenizer" / "tokenizer.json"]
    if further:
        needed += [out / "detector.safetensors", out / "clip.safetensors"]
    for path in needed:
        if not path.exists():
            raise EraseBenchError(f"{path} is missing; the judges need it: train the earlier stages first")
    detector = DetectorObjective(renders, reconstructions, seed)
    if further:
        detector.model.load_state_dict(load_single(out / "detector.safetensors"))
    detector.model.to(device)
    fit(detector, DETECTOR_RECIPE, work / "detector")
    save_half(detector.model.state_dict(), out / "detector.safetensors")
    tokenizer = CLIPTokenizer.from_pretrained(out / "pipeline" / "tokenizer")
    clip = ClipObjective(renders, tokenizer, reconstructions, seed)
    if further:
        clip.model.load_state_dict(load_single(out / "clip.safetensors"))
    clip.model.to(device)
    fit(clip, CLIP_RECIPE, work / "clip")
    save_half(clip.model.state_dict(), out / "clip.safetensors")
    # The vectors are tuned on the features of the half-precision weights that are shipped.
    shipped = Clip.load(out / "clip.safetensors", tokenizer, device)
    train_q16(shipped, renders, reconstructions, seed).save(out / "q16.safetensors")
