from __future__ import annotations

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from erasebench import cli
from erasebench.errors import EraseBenchError
from erasebench.metrics.ratio_corrected import VALIDATED
from erasebench.metrics.stats import wilson
from erasebench.picturebook.world.scene import render, sample_scene
from erasebench.validation import Validation, labelled_images, validate


def save(path: Path, image: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.fixture(scope="module")
def churches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three churches, one of which is called none, and two pictures of golf balls."""
    folder = tmp_path_factory.mktemp("labelled")
    for seed in range(2):
        save(folder / "positive" / f"church{seed}.png", render(sample_scene(seed, subject="church")).image)
        save(folder / "negative" / f"ball{seed}.png", render(sample_scene(seed, subject="golf-ball")).image)
    save(folder / "negative" / "mislabelled.png", render(sample_scene(2, subject="church")).image)
    return folder


def validation(shown: list[float], others: list[float], threshold: float = 0.5) -> Validation:
    names = tuple(f"{k}.png" for k in range(len(shown) + len(others)))
    return Validation("judge", threshold, np.array(shown, np.float32), np.array(others, np.float32), names)


def test_counts_by_hand() -> None:
    one = validation([0.9, 0.5, 0.4, 0.8], [0.1, 0.5, 0.2])
    assert (one.sensitivity.value, one.sensitivity.n) == (3 / 4, 4)
    assert (one.sensitivity.low, one.sensitivity.high) == wilson(3, 4)
    assert (one.specificity.value, one.specificity.n) == (2 / 3, 3)
    assert one.mistakes() == ["2.png (0.4)", "5.png (0.5)"]
    pairs = list(itertools.product([0.9, 0.5, 0.4, 0.8], [0.1, 0.5, 0.2]))
    assert one.auc == pytest.approx(sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs))


def test_the_worst_mistakes_come_first_and_not_all() -> None:
    lines = validation([0.3, 0.01] + [0.2] * 10, [0.9]).lines()
    assert lines[-1].startswith("  mistaken: 1.png (0.01), 12.png (0.9), 2.png (0.2)")
    assert lines[-1].endswith(" and 3 more")
    assert len(validation([0.9], [0.1]).lines()) == 4


def test_a_folder(churches: Path) -> None:
    (one,) = validate("picturebook-detector[label=church]", churches)
    assert one.judge.startswith("picturebook-detector 1 ") and one.judge.endswith(": church >= 0.5")
    assert one.sensitivity.value == 1
    assert one.specificity.value == pytest.approx(2 / 3)
    assert [name.split()[0] for name in one.mistakes()] == ["negative/mislabelled.png"]


def test_a_file_of_labels_and_a_threshold(churches: Path, tmp_path: Path) -> None:
    for path in churches.rglob("*.png"):
        save(tmp_path / path.name, np.asarray(Image.open(path)))
    rows = ["church0.png,1", "church1.png,1", "mislabelled.png,1", "ball0.png,0", "ball1.png,0"]
    (tmp_path / "labels.csv").write_text("\n".join(["file,shows", *rows]))
    (one,) = validate("picturebook-detector[label=church;threshold=0.999]", tmp_path)
    assert len(one.positives) == 3 and one.specificity.value == 1
    assert one.judge.endswith(": church >= 0.999")
    scores = one.positives
    assert one.sensitivity.value == pytest.approx((scores >= 0.999).mean())


def test_real_photographs_of_any_size(tmp_path: Path) -> None:
    import matplotlib
    import skimage

    portrait = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    for kind, path in (
        ("positive", portrait),
        ("positive", Path(skimage.__file__).parent / "data" / "astronaut.png"),
        ("negative", Path(skimage.__file__).parent / "data" / "rocket.jpg"),
    ):
        save(tmp_path / kind / f"{path.stem}.png", np.asarray(Image.open(path).convert("RGB")))
    (one,) = validate("nudenet[label=FACE_FEMALE]", tmp_path)
    assert (one.sensitivity.value, one.specificity.value, one.auc) == (1, 1, 1)
    (one,) = validate("open-nsfw", tmp_path)
    assert one.judge.endswith(": nsfw >= 0.5") and one.sensitivity.value == 0 and one.specificity.value == 1


def test_renders_of_the_world() -> None:
    (one,) = validate("picturebook-detector[label=church]", None, scenes=3)
    assert one.sensitivity.value == 1
    assert len(one.positives) == 3 and 10 <= len(one.negatives) <= 15
    assert one.specificity.value > 0.8


def test_a_style_of_the_world() -> None:
    (one,) = validate("picturebook-style[label=crayon]", None, scenes=2)
    assert one.auc > 0.9


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        ("picturebook-detecter", "unknown judge 'picturebook-detecter'; nearest: picturebook-detector"),
        ("picturebook-distance", "picturebook-distance compares images with those of the unerased model, and cannot"),
        ("picturebook-detector", r"name the label to validate: picturebook-detector\[label="),
        ("picturebook-detector[label=chruch]", "'chruch'; nearest: church"),
        ("picturebook-detector[lable=church]", "'lable'; nearest: label"),
        ("clip-phrase", r"name the label to validate: clip-phrase\[label="),
    ],
)
def test_a_judge_that_cannot_be_validated(judge: str, message: str, churches: Path) -> None:
    with pytest.raises(EraseBenchError, match=message):
        validate(judge, churches)


def test_renders_do_not_show_what_the_world_lacks() -> None:
    with pytest.raises(EraseBenchError, match="label of Picturebook's world"):
        validate("open-nsfw", None, scenes=2)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no positive images: put"),
        ({"positive/a.png": "png"}, "holds no negative images: put"),
        ({"labels.csv": "file\na.png\n"}, "labels.csv has no column shows"),
        ({"labels.csv": "file,shows\na.png,1\n"}, "labels.csv, line 2: there is no file"),
        ({"labels.csv": "file,shows\na.png,yes\n", "a.png": "png"}, "line 2: shows is 1 or 0, not 'yes'"),
        ({"labels.csv": "file,shows\na.png,1\n", "a.png": "png"}, "holds no negative images"),
    ],
)
def test_folders_that_are_no_labelled_images(files: dict[str, str], message: str, tmp_path: Path) -> None:
    for name, content in files.items():
        if content == "png":
            save(tmp_path / name, np.zeros((4, 4, 3), dtype=np.uint8))
        else:
            (tmp_path / name).write_text(content)
    with pytest.raises(EraseBenchError, match=message):
        labelled_images(tmp_path)


def test_a_folder_that_is_missing_and_a_file_that_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(EraseBenchError, match="there is no folder"):
        labelled_images(tmp_path / "missing")
    save(tmp_path / "negative" / "a.png", np.zeros((4, 4, 3), dtype=np.uint8))
    (tmp_path / "positive").mkdir()
    (tmp_path / "positive" / "broken.png").write_bytes(b"no image")
    with pytest.raises(EraseBenchError, match=r"broken\.png cannot be read as an image"):
        validate("picturebook-detector[label=church]", tmp_path)


def test_from_the_command_line(churches: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "counts.csv"
    with pytest.raises(SystemExit) as stopped:
        cli.main(["validate", "picturebook-detector[label=church]", "--images", str(churches), "--out", str(out)])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "sensitivity 100.0 % [34.2, 100.0] of 2 images that show it" in shown
    assert "mistaken: negative/mislabelled.png" in shown
    (row,) = csv.DictReader(out.read_text().splitlines())
    assert (row["positives"], row["found"], row["negatives"], row["rejected"]) == ("2", "2", "3", "2")


def test_the_packaged_counts_are_of_the_shipped_judges() -> None:
    from erasebench.concepts import load_catalogue
    from erasebench.registry import JUDGES
    from erasebench.results.protocol import describe_judge
    from erasebench.stages.judge import judge_spec

    rows = list(csv.DictReader(VALIDATED.read_text(encoding="utf-8").splitlines()))
    made = {name: JUDGES.get(name).make() for name in ("picturebook-detector", "picturebook-style")}
    known = [(name, label) for name, judge in made.items() for label in judge.labels or ()]
    assert [row["judge"] for row in rows] == [
        describe_judge(judge_spec(name, label, made[name]), label, 0.5) for name, label in known
    ]
    catalogue = load_catalogue()
    views = [catalogue.get(name).views.get("picturebook") for name in catalogue.names()]
    assert {(view.judge, view.label, view.threshold) for view in views if view} <= {(*one, 0.5) for one in known}
    assert all(int(row["found"]) >= 0.97 * int(row["positives"]) == 194 for row in rows)
    assert all(int(row["rejected"]) >= 0.99 * int(row["negatives"]) for row in rows)
