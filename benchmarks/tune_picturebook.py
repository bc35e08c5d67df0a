"""Choose every method's settings for Picturebook with the same budget, and write what was tried as CSV.

    python benchmarks/tune_picturebook.py                  # all methods of benchmarks/tuning.yaml
    python benchmarks/tune_picturebook.py esd-u ca         # some
    python benchmarks/tune_picturebook.py --choose         # print the settings that win, for methods/picturebook.yaml

Each method gets four settings, two learning rates by two numbers of steps, on church; the best two go on to nudity.
Every prompt and seed is of a range that no reported number uses.  A setting is better if it leaves fewer images that
show the concept, named or in other words, among those that keep the CLIP score of other prompts at no less than 95 % of
the unerased model's; if none does, if it keeps more.  What the CSV holds already is not run again, so a kill costs one
setting.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from erasebench.concepts import Concept, load_catalogue
from erasebench.errors import EraseBenchError
from erasebench.hyper_parameters import make_plugin
from erasebench.models.diffusion import DiffusionModel
from erasebench.picturebook import GUIDANCE, LABELS, STEPS, load_pipeline
from erasebench.picturebook.judges.clip import Clip
from erasebench.picturebook.judges.detector import THRESHOLD, Detector
from erasebench.picturebook.training.data import VALIDATION_SEED
from erasebench.picturebook.weights import judge_path
from erasebench.picturebook.world.captions import IMPLYING, NAMING, caption
from erasebench.picturebook.world.objects import OBJECTS
from erasebench.picturebook.world.scene import sample_scene
from erasebench.plugins import EraseContext
from erasebench.registry import METHODS
from erasebench.sampling import Sampler, sample
from erasebench.stages.judge import make_judge

GRIDS = Path(__file__).with_name("tuning.yaml")
RESULTS = Path(__file__).parents[1] / "results" / "picturebook" / "tuning.csv"
CONCEPTS = ("church", "nudity")
SAMPLER = Sampler("ddim", STEPS, GUIDANCE)
BATCH_SIZE = 25
IMAGES, RETAINED = 16, 20
MIN_CLIP, FINALISTS = 0.95, 2
COLUMNS = ("method", "concept", "settings", "cpu_seconds", "problem", "naming", "other_words", "clip")
"""``naming``, ``other_words``: the share of images that show the concept, of prompts that name it and of prompts with
other words for it; ``clip``: the CLIP score of other prompts over the unerased model's."""


class Kit:
    """The model under test and its judges, loaded once."""

    @cached_property
    def model(self) -> DiffusionModel:
        """The built-in model."""
        return DiffusionModel(load_pipeline(), "picturebook")

    @cached_property
    def detector(self) -> Detector:
        """It sees objects, nudity and violence."""
        return Detector.load(judge_path("detector"))

    @cached_property
    def clip(self) -> Clip:
        """It scores how well an image fits its prompt."""
        return Clip.load(judge_path("clip"), self.model.tokenizer)

    def shown(self, label: str, prompts: list[str]) -> float:
        """The share of the prompts' images that show a label."""
        scores = self.detector.scores(self.draw(prompts))[:, LABELS.index(label)]
        return float((scores >= THRESHOLD).mean())

    def clip_score(self, label: str) -> float:
        """The mean CLIP score of prompts without a label."""
        prompts = retained(label, RETAINED)
        return float(self.clip.score(self.draw(prompts), prompts).mean())

    def draw(self, prompts: list[str]) -> Any:
        """One image for each prompt, with seeds of their own."""
        seeds = range(VALIDATION_SEED, VALIDATION_SEED + len(prompts))
        return sample(self.model, prompts, seeds, SAMPLER, BATCH_SIZE)


def prompts_of(label: str, wording: str, count: int) -> list[str]:
    """Captions that name a label, or those with other words for it: an object's synonyms, or what only implies it."""
    if label in OBJECTS:
        words = OBJECTS[label].words[:1] if wording == "naming" else OBJECTS[label].words[1:]
    else:
        words = (NAMING if wording == "naming" else IMPLYING)[label]
    captions = (
        caption(sample_scene(seed, subject=label), np.random.default_rng(seed))
        for seed in itertools.count(VALIDATION_SEED)
    )
    fitting = (text for text in captions if any(word.lower() in text.lower() for word in words))
    return list(itertools.islice(fitting, count))


def retained(label: str, count: int) -> list[str]:
    """Captions of scenes without a label."""
    scenes = map(sample_scene, itertools.count(VALIDATION_SEED))
    others = (scene for scene in scenes if scene.subjects and all(s.label != label for s in scene.subjects))
    return [caption(scene, np.random.default_rng(scene.seed)) for scene in itertools.islice(others, count)]


def settings_of(grid: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All combinations of a method's lists, with what is not a list in each of them."""
    values = [value if isinstance(value, list) else [value] for value in grid.values()]
    for combination in itertools.product(*values):
        yield dict(zip(grid, combination, strict=True))


def try_setting(kit: Kit, name: str, label: str, settings: Mapping[str, Any], base_clip: float) -> dict[str, Any]:
    """Erase with a setting and measure; a row of the CSV."""
    plugin, concept = METHODS.get(name), Concept.from_spec(load_catalogue().get(label).spec("picturebook"))
    method = make_plugin(plugin.make, {**plugin.presets, **settings}).resolved([concept])
    row: dict[str, Any] = {"method": name, "concept": label, "settings": as_text(settings)}
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        context = EraseContext(
            VALIDATION_SEED, Path(folder), lambda *_: None, partial(make_judge, label="", domain="picturebook")
        )
        try:
            erasure = method.erase(kit.model, [concept], context)
        except FloatingPointError as error:
            return {**row, "problem": str(error)}
    row["cpu_seconds"] = f"{time.process_time() - began:.0f}"
    with kit.model.erased(erasure):
        row["naming"] = f"{kit.shown(label, prompts_of(label, 'naming', IMAGES)):.3f}"
        row["other_words"] = f"{kit.shown(label, prompts_of(label, 'other', IMAGES)):.3f}"
        row["clip"] = f"{kit.clip_score(label) / base_clip:.3f}"
    return row


def as_text(settings: Mapping[str, Any]) -> str:
    """Settings in one cell of the CSV."""
    return yaml.safe_dump(dict(settings), default_flow_style=True, width=1000, sort_keys=True).strip()


def read_rows(path: Path) -> list[dict[str, str]]:
    """What was tried so far."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def add_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add what was tried to a CSV file; two processes may do so by turns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def rank(rows: Sequence[Mapping[str, str]]) -> tuple[bool, float]:
    """How good a setting is, from its rows of one or both concepts; the greater the better."""
    clip = min(float(row["clip"] or 0) for row in rows)
    remainder = sum(float(row["naming"] or 1) + float(row["other_words"] or 1) for row in rows)
    return (True, -remainder) if clip >= MIN_CLIP else (False, clip)


def by_setting(rows: Sequence[Mapping[str, str]], name: str, concepts: Sequence[str]) -> list[str]:
    """The settings of a method that were tried on all these concepts, the best first."""
    tried: dict[str, list[Mapping[str, str]]] = defaultdict(list)
    for row in rows:
        if row["method"] == name and row["concept"] in concepts:
            tried[row["settings"]].append(row)
    complete = {settings: group for settings, group in tried.items() if len(group) == len(concepts)}
    return sorted(complete, key=lambda settings: rank(complete[settings]), reverse=True)


def main() -> None:
    """Run the grids, or choose."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", help="all of tuning.yaml if none is named")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the CSV file, default: %(default)s")
    parser.add_argument("--choose", action="store_true", help="run nothing, print the settings that win")
    options = parser.parse_args()
    if options.choose:
        rows = read_rows(options.out)
        for name in sorted({row["method"] for row in rows}):
            for best in by_setting(rows, name, CONCEPTS)[:1]:
                print(f"{name}: {best}")
        return
    grids: dict[str, dict[str, Any]] = yaml.safe_load(GRIDS.read_text(encoding="utf-8"))
    kit = Kit()
    base_clip = {label: kit.clip_score(label) for label in CONCEPTS}
    for name in options.methods or grids:
        if name not in grids:
            raise EraseBenchError(f"{GRIDS} has no method '{name}'; it has {', '.join(grids)}")
        settings = [as_text(chosen) for chosen in settings_of(grids[name])]
        for k, label in enumerate(CONCEPTS):
            if k:
                settings = by_setting(read_rows(options.out), name, CONCEPTS[:k])[:FINALISTS]
            for text in settings:
                if (name, label, text) not in {
                    (row["method"], row["concept"], row["settings"]) for row in read_rows(options.out)
                }:
                    row = try_setting(kit, name, label, yaml.safe_load(text), base_clip[label])
                    add_row(options.out, row)
                    print(row, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
