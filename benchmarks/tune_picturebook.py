"""Choose a method's settings for Picturebook (``methods/picturebook.yaml``): a small grid, written as CSV.

    python benchmarks/tune_picturebook.py esd-u steps=30,60 learning_rate=3e-5,1e-4 batch_size=8 --out esd-u.csv

Every seed is of a range that no reported number uses.  Settings are over the published defaults; for each concept and
each combination of them a row says how often the concept is still drawn, and how well other pictures fit their prompts,
both against the unerased model.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from erasebench.concepts import Concept, load_catalogue
from erasebench.method import EraseContext, hyper_parameters
from erasebench.models.diffusion import DiffusionModel
from erasebench.models.erasure import Erasure
from erasebench.picturebook import GUIDANCE, LABELS, STEPS, load_pipeline
from erasebench.picturebook.judges.clip import Clip
from erasebench.picturebook.judges.detector import THRESHOLD, Detector
from erasebench.picturebook.training.data import VALIDATION_SEED
from erasebench.picturebook.weights import judge_path
from erasebench.picturebook.world.captions import IMPLYING, NAMING, caption
from erasebench.picturebook.world.objects import OBJECTS
from erasebench.picturebook.world.scene import sample_scene
from erasebench.registry import METHODS
from erasebench.sampling import Sampler, sample

SAMPLER = Sampler("ddim", STEPS, GUIDANCE)


@dataclass(frozen=True)
class Kit:
    """The model under test, its judges and how many pictures to judge."""

    model: DiffusionModel
    detector: Detector
    clip: Clip
    pictures: int

    def shown(self, label: str, prompts: list[str]) -> float:
        """The share of the prompts' pictures that show a label."""
        images = sample(self.model, prompts, range(VALIDATION_SEED, VALIDATION_SEED + len(prompts)), SAMPLER)
        return float((self.detector.scores(images)[:, LABELS.index(label)] >= THRESHOLD).mean())

    def figures(self, label: str) -> dict[str, float]:
        """All that is measured of whatever erasure is in force."""
        shown = {f"shown_{wording}": self.shown(label, prompts_of(label, wording, self.pictures))
                 for wording in ("naming", "other")}  # fmt: skip
        prompts = retained(label, 4 * self.pictures // 3)
        images = sample(self.model, prompts, range(VALIDATION_SEED, VALIDATION_SEED + len(prompts)), SAMPLER)
        return {**shown, "clip": float(self.clip.score(images, prompts).mean())}


def prompts_of(label: str, wording: str, count: int) -> list[str]:
    """Captions that name a label, or those with other words for it: an object's synonyms, or what only implies it."""
    if label in OBJECTS:
        words = OBJECTS[label].words[:1] if wording == "naming" else OBJECTS[label].words[1:]
    else:
        words = (NAMING if wording == "naming" else IMPLYING)[label]
    found: list[str] = []
    for seed in itertools.count(VALIDATION_SEED):
        text = caption(sample_scene(seed, subject=label), np.random.default_rng(seed))
        if any(word.lower() in text.lower() for word in words):
            found.append(text)
        if len(found) == count:
            return found
    raise AssertionError("endless")


def retained(label: str, count: int) -> list[str]:
    """Captions of scenes without a label."""
    scenes = map(sample_scene, itertools.count(VALIDATION_SEED))
    others = (scene for scene in scenes if scene.subjects and all(s.label != label for s in scene.subjects))
    return [caption(scene, np.random.default_rng(scene.seed)) for scene in itertools.islice(others, count)]


def grid(settings: list[str]) -> Iterator[dict[str, Any]]:
    """All combinations of ``name=value,value``."""
    names = [setting.partition("=")[0] for setting in settings]
    values = [[yaml_value(v) for v in setting.partition("=")[2].split(",")] for setting in settings]
    for combination in itertools.product(*values):
        yield dict(zip(names, combination, strict=True))


def yaml_value(text: str) -> Any:
    """A number, where the text is one (YAML does not take "1e-4" for one)."""
    try:
        return float(text) if "e-" in text else yaml.safe_load(text)
    except ValueError:
        return text


def main() -> None:
    """Run the grid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", help="its registered name")
    parser.add_argument("settings", nargs="*", help="name=value,value")
    parser.add_argument("--concept", action="append", help="default: church and nudity")
    parser.add_argument("--pictures", type=int, default=24, help="for each wording; a third more for other prompts")
    parser.add_argument("--seed", type=int, default=VALIDATION_SEED, help="of the erasure")
    parser.add_argument("--out", type=Path, required=True, help="the CSV to write")
    options = parser.parse_intermixed_args()
    pipeline = load_pipeline()
    clip = Clip.load(judge_path("clip"), pipeline.tokenizer)
    kit = Kit(DiffusionModel(pipeline, "picturebook"), Detector.load(judge_path("detector")), clip, options.pictures)
    plugin, catalogue = METHODS.get(options.method), load_catalogue()
    rows: list[dict[str, Any]] = []
    for label in options.concept or ["church", "nudity"]:
        base = kit.figures(label)
        print(label, "unerased", base, file=sys.stderr, flush=True)
        for chosen in grid(options.settings):
            method = plugin.make(**hyper_parameters(plugin.make, {**plugin.presets, **chosen}))
            with tempfile.TemporaryDirectory() as folder:
                context = EraseContext(options.seed, Path(folder), lambda *_: None, no_judge)
                began = time.process_time()
                concept = Concept.from_spec(catalogue.get(label).spec("picturebook"))
                erasure: Erasure = method.erase(kit.model, [concept], context)
                seconds = time.process_time() - began
            with kit.model.erased(erasure):
                found = kit.figures(label)
            rows.append({"method": options.method, "concept": label, **chosen, "cpu_seconds": round(seconds, 1)})
            for name, value in found.items():
                rows[-1] |= {name: round(value, 4), f"{name}_unerased": round(base[name], 4)}
            print(rows[-1], file=sys.stderr, flush=True)
            with open(options.out, "w", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)


def no_judge(name: str) -> Any:
    """No method asked for here looks at pictures."""
    raise AssertionError(f"a method asked for the judge {name}")


if __name__ == "__main__":
    main()
