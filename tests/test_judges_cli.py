"""The commands of judges pass on what they are told, and refuse the rest in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.engine.runs import command


def test_a_training_gets_its_options_and_the_judges_own_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr("erasebench.judges.yolov8_imagenette.train", lambda *args: calls.append(args[:5]))
    monkeypatch.setenv("ERASEBENCH_WEIGHTS", str(tmp_path / "weights"))
    train = ("train-judge", "yolov8-imagenette", "--images", tmp_path)
    assert command(*train) == 0
    own = tmp_path / "weights" / "yolov8-imagenette.safetensors"
    assert capsys.readouterr().out.replace("\n", "") == f"wrote {own}"
    assert command(*train, "--out", tmp_path / "mine.pt", "--epochs", "3", "--seed", "5", "--device", "cpu") == 0
    assert calls == [(tmp_path, own, 100, 0, "auto"), (tmp_path, tmp_path / "mine.pt", 3, 5, "cpu")]


def test_each_judge_is_validated_as_asked_and_all_counts_are_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Counted:
        def __init__(self, *asked: object) -> None:
            self.asked = asked

        def lines(self) -> list[str]:
            return [f"{self.asked[0]}:", "  of 3 images"]

    written: list[tuple[Path, list[Any]]] = []
    monkeypatch.setattr("erasebench.validation.validate", lambda *asked: [Counted(*asked)])
    monkeypatch.setattr("erasebench.validation.write_validations", lambda *args: written.append(args))
    assert command("validate", "nudenet", "clip", "--scenes", "7", "--out", tmp_path / "c.csv", "--device", "cpu") == 0
    assert capsys.readouterr().out == "nudenet:\n  of 3 images\nclip:\n  of 3 images\n"
    [(path, found)] = written
    assert path == tmp_path / "c.csv"
    assert [one.asked for one in found] == [("nudenet", None, 7, "cpu"), ("clip", None, 7, "cpu")]
    assert command("validate", "clip", "--images", tmp_path) == 0
    assert len(written) == 1, "nobody asked for a file"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train-judge", "yolov8-imagenete", "--images", "."), "nearest: yolov8-imagenette"),
        (("train-judge", "nudenet", "--images", "."), "unknown judge that can be trained 'nudenet'"),
        (("fetch", "--into", "x"), "--into needs a judge or a prompt set to fetch"),
        (("validate", "nudnet"), "unknown judge 'nudnet'; nearest: nudenet"),
    ],
)
def test_what_cannot_be_done_is_one_line(words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*words) == 2
    out, error = capsys.readouterr()
    assert not out and said in error and error.count("error: ") == 1
