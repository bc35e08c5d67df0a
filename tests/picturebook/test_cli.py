"""The ``erasebench picturebook`` commands."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from erasebench.cli import main
from erasebench.picturebook.training.run import train
from erasebench.picturebook.weights import WEIGHTS


@pytest.mark.parametrize(("arguments", "folder"), [([], WEIGHTS), (["--out", "elsewhere"], Path("elsewhere"))])
def test_the_command_trains_into_the_folder_that_it_is_given(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], folder: Path
) -> None:
    seen: list[inspect.BoundArguments] = []
    signature = inspect.signature(train)
    monkeypatch.setattr(
        "erasebench.picturebook.training.run.train", lambda *args, **named: seen.append(signature.bind(*args, **named))
    )
    with pytest.raises(SystemExit) as stop:
        main(["picturebook", "train", *arguments])
    assert stop.value.code == 0
    assert [call.arguments["out"] for call in seen] == [folder]


def test_the_help_says_where_the_weights_go(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["picturebook", "train", "--help"])
    assert "the package's own weights folder" in " ".join(capsys.readouterr().out.split())
