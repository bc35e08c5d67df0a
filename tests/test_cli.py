from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

from erasebench import EraseBenchError, __version__
from erasebench.cli import cli, main
from erasebench.config import RunConfig
from erasebench.judges.weights_files import FOLDER
from erasebench.picturebook import render, sample_scene


def run(*args: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(args)
    assert isinstance(stop.value.code, int)
    return stop.value.code


def commands(group: click.Group, above: Sequence[str] = ()) -> list[list[str]]:
    found: list[list[str]] = []
    for name, command in group.commands.items():
        found.append([*above, name])
        if isinstance(command, click.Group):
            found += commands(command, [*above, name])
    return found


def test_the_picturebook_has_its_commands() -> None:
    expected = {"train", "measure", "path", "grid", "render"}
    assert {names[1] for names in commands(cli) if names[0] == "picturebook" and len(names) > 1} >= expected


@pytest.mark.parametrize("names", [[], *commands(cli)], ids=" ".join)
def test_every_command_explains_itself(names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*names, "--help") == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: {' '.join(['erasebench', *names])}")
    assert "..." not in text.partition("Commands:")[2], "a summary is too long for one line"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    "code",
    [
        "import erasebench, erasebench.picturebook",
        "from erasebench.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass",
        "from erasebench.picturebook import LABELS, render",
    ],
)
def test_torch_is_not_imported_before_it_is_needed(code: str) -> None:
    slow = {"torch", "diffusers", "ultralytics", "pandas", "scipy", "statsmodels"}
    check = f"{code}\nimport sys; assert not {slow} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True, stdout=subprocess.DEVNULL)


def test_an_error_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise EraseBenchError("the reason")

    monkeypatch.setattr("erasebench.picturebook.weights.pipeline_path", fail)
    assert run("picturebook", "path") == 2
    assert capsys.readouterr() == ("", "error: the reason\n")


@pytest.mark.parametrize(
    ("option", "name", "nearest"),
    [("--subject", "chuch", "church"), ("--style", "van gogh", "van-gogh"), ("--background", "beech", "beach")],
)
def test_an_unknown_name_gets_the_nearest(
    option: str, name: str, nearest: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "picture.png"
    assert run("picturebook", "render", "--seed", "1", option, name, "--out", str(out)) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1
    assert f"'{name}'" in message and nearest in message.partition("nearest:")[2]
    assert not out.exists()


def test_options_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    read: list[RunConfig] = []

    def make_plan(config: RunConfig) -> None:
        read.append(config)
        raise EraseBenchError("enough")

    importlib.import_module("erasebench.runs")  # imported later, it would keep the stand-in for good
    monkeypatch.setattr("erasebench.planning.make_plan", make_plan)
    (tmp_path / "own.yaml").write_text("seed: 7\nsteps: 3\n")
    variables = {
        "CONFIG": tmp_path / "own.yaml", "PRESET": "smoke", "STORE": "/elsewhere", "METHODS": "uce,esd-u[steps=2]",
        "CONCEPTS": "church", "COMPILE": "1", "SEED": "8", "IMAGES_PER_PROMPT": "3", "SETTINGS": "uce.lamb=1",
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(f"ERASEBENCH_PLAN_{name}", str(value))
    monkeypatch.setenv("ERASEBENCH_RUN_DEVICE", "cuda")
    monkeypatch.setenv("ERASEBENCH_VERSION", "9")
    assert run("plan", "--store", "given") == 2
    config = read[0]
    assert (config.store, config.methods, config.concepts) == (Path("given"), ("uce", "esd-u[steps=2]"), ("church",))
    assert (config.seed, config.steps, config.images_per_prompt, config.compile) == (8, 3, 3, True)
    assert (config.prompts, config.device, config.settings["uce"]) == (4, "auto", {"lamb": 1})
    monkeypatch.setenv("ERASEBENCH_PLAN_COMPILE", "off")
    monkeypatch.setenv("ERASEBENCH_PLAN_STORE", "")
    assert run("plan") == 2
    assert (read[1].compile, read[1].store) == (False, Path("erasebench-store"))


def test_commands_of_groups_have_variables_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ERASEBENCH_PICTUREBOOK_RENDER_SUBJECT", "chuch")
    assert run("picturebook", "render", "--seed", "1", "--out", str(tmp_path / "a.png")) == 2
    assert "nearest: church" in capsys.readouterr().err


def test_no_option_takes_a_variable_that_means_something_else() -> None:
    with click.Context(cli, info_name="erasebench", auto_envvar_prefix="ERASEBENCH") as context:
        taken = {
            f"ERASEBENCH_{(option.name or '').upper()}"
            for option in cli.get_params(context)
            if isinstance(option, click.Option) and option.allow_from_autoenv
        }
    assert FOLDER not in taken and not {
        name for name in cli.commands if FOLDER.startswith(f"ERASEBENCH_{name}".upper())
    }


def test_render_writes_the_worlds_pixels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new folder" / "pictures.png"
    args = ["picturebook", "render", "--seed", "7", "--seed", "8", "--subject", "church", "--style", "crayon"]
    assert run(*args, "--out", str(out)) == 0
    first, captions = out.read_bytes(), capsys.readouterr().out
    scenes = [sample_scene(seed, subject="church", style="crayon") for seed in (7, 8)]
    expected = np.concatenate([render(scene).image for scene in scenes], axis=1)
    assert np.array_equal(np.asarray(Image.open(out)), expected)
    assert [line.partition(": ")[0] for line in captions.splitlines()] == ["7", "8"]
    assert run(*args, "--out", str(out)) == 0
    assert (out.read_bytes(), capsys.readouterr().out) == (first, captions)


@pytest.mark.parametrize(("met", "code"), [(True, 0), (False, 1)])
def test_measure_tells_by_its_exit_code(monkeypatch: pytest.MonkeyPatch, met: bool, code: int) -> None:
    asked: list[dict[str, object]] = []

    def measure(**arguments: object) -> bool:
        asked.append(arguments)
        return met

    monkeypatch.setattr("erasebench.picturebook.measure.measure", measure)
    assert run("picturebook", "measure", "--images", "12") == code
    assert asked == [{"images": 12, "out": None}]


def test_a_file_that_cannot_be_written_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert run("picturebook", "grid", "--world", "--out", str(tmp_path / "file" / "grid.png")) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert str(tmp_path / "file") in captured.err


def test_the_world_sheet(tmp_path: Path) -> None:
    from PIL import Image

    assert run("picturebook", "grid", "--world", "--out", str(tmp_path / "new" / "world.png")) == 0
    with Image.open(tmp_path / "new" / "world.png") as sheet:
        assert min(sheet.size) > 1000
