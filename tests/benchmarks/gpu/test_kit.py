"""The kit's runner: parts in processes of their own, and results that survive whatever happens to them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import kit
from benchmarks.gpu.__main__ import Asked, alone, main, missing_modules, parse, parse_limits
from benchmarks.gpu.kit import Kind, KitError, Part, read_json
from tests.waiting import wait_until

ROOT = Path(__file__).parents[3]
SLEEP = f"sleep {7_000_000 + os.getpid()}"
"""What a part leaves running; no other run of these tests starts the same."""
FIGURE = "part.record('rows.first', {'value': 1}); "
SOURCES = {
    "good": FIGURE,
    "bad": FIGURE + "raise ValueError('it broke')",
    "slow": FIGURE + f"import subprocess, time; subprocess.Popen({SLEEP.split()}); time.sleep(600)",
    "stubborn": FIGURE + "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)",
    "killed": FIGURE + "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "lacking": FIGURE + "import no_such_module",
}


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Parts of one line each, and a probe that does not import torch; gives the folder of results."""
    folder = tmp_path / "source" / "benchmarks" / "gpu" / "parts"
    folder.mkdir(parents=True)
    for name, line in SOURCES.items():
        (folder / f"{name}.py").write_text(f"def run(part):\n    {line}\n")
        monkeypatch.setitem(kit.PARTS, name, Kind(name, 30))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "source"), str(ROOT)]))
    monkeypatch.setattr("benchmarks.gpu.__main__.PROBE", 'print(\'{"card": "NVIDIA Test 80GB", "torch": "2"}\')')
    return tmp_path / "out"


def results(out: Path) -> dict[str, Any]:
    return read_json(out / "NVIDIA-Test-80GB.json")


def running(command: str) -> bool:
    """Whether a process has these words in its command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it ended in between
            if command in path.read_bytes().replace(b"\0", b" ").decode():
                return True
    return False


def check_ended(command: str) -> None:
    """Wait until no process has these words in its command line: one that was killed may not be gone yet."""
    wait_until(lambda: not running(command), f"{command} runs on")


def wait_for(path: Path, text: str) -> None:
    """Wait until a file holds a text."""
    wait_until(lambda: path.exists() and text in path.read_text(), f"{path} never held {text}")


def test_a_part_that_fails_does_not_stop_the_others(fakes: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bad", "killed", "lacking", "good", "--out", str(fakes)]) == 1
    parts = results(fakes)["parts"]
    assert {name: part["problems"] for name, part in parts.items()} == {
        "bad": ["ValueError: it broke"],
        "killed": ["ended by signal 9 (SIGKILL)"],
        "lacking": ["the module no_such_module is missing; where there is a network, benchmarks/gpu/wheels.sh"],
        "good": [],
    }
    assert all(part["figures"] == {"rows": {"first": {"value": 1}}} for part in parts.values())
    printed = capfd.readouterr().out
    assert "card NVIDIA Test 80GB" in printed
    assert printed.splitlines()[-1].startswith("PROBLEM lacking: the module no_such_module")
    assert "good: ok in" in printed
    page = (fakes / "README.md").read_text()
    assert "- **Problem**: ValueError: it broke" in page
    assert "| first | 1 |" in page
    left = {path.name for path in fakes.iterdir() if not path.is_dir()}
    assert left == {".lock", "NVIDIA-Test-80GB.json", "README.md"}


@pytest.mark.parametrize("name", ["slow", "stubborn"])
def test_a_part_that_overruns_its_limit_is_stopped(fakes: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.gpu.__main__.GRACE", 0.5)

    class Recording(subprocess.Popen[bytes]):
        """A process whose limit counts from its first figure on, however long that takes on a busy machine."""

        def wait(self, timeout: float | None = None) -> int:
            if timeout == 1.5:
                wait_for(fakes / f".{name}.json", '"value": 1')
            return super().wait(timeout)

    monkeypatch.setattr(subprocess, "Popen", Recording)
    began = time.monotonic()
    assert main([name, "good", "--limit", f"{name}=1.5", "--out", str(fakes)]) == 1
    assert time.monotonic() - began < 300
    parts = results(fakes)["parts"]
    assert parts[name]["problems"] == ["stopped at its limit of 1.5 s"]
    assert parts[name]["figures"] == {"rows": {"first": {"value": 1}}}
    assert not parts["good"]["problems"]
    # Nothing of it runs on, its children included.
    check_ended(SLEEP)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_its_results_and_no_process(
    fakes: Path, tmp_path: Path, number: signal.Signals
) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "import benchmarks.gpu.__main__ as runner\n"
        "from benchmarks.gpu.kit import PARTS, Kind\n"
        "PARTS |= {name: Kind(name, 30) for name in ('slow', 'good')}\n"
        """runner.PROBE = "print('{\\"card\\": \\"X\\"}')"\n"""
        "sys.exit(runner.main(sys.argv[1:]))\n"
    )
    kit_process = subprocess.Popen([sys.executable, str(program), "slow", "good", "--out", str(fakes)])
    wait_for(fakes / ".slow.json", '"value": 1')
    kit_process.send_signal(number)
    assert kit_process.wait(60) == 130
    parts = read_json(fakes / "X.json")["parts"]
    assert list(parts) == ["slow"]
    assert parts["slow"]["problems"] == ["interrupted"]
    assert parts["slow"]["figures"] == {"rows": {"first": {"value": 1}}}
    check_ended(SLEEP)


def test_a_part_ends_with_its_runner(fakes: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu.child", "stubborn", "", "tiny", str(fakes), "30"]
    runner = subprocess.Popen([sys.executable, "-c", f"import subprocess; subprocess.run({command!r})"])
    wait_for(fakes / ".stubborn.json", '"value": 1')
    runner.kill()
    runner.wait()
    check_ended(f"gpu.child stubborn  tiny {fakes}")


def test_two_runs_do_not_share_a_folder(fakes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fakes.mkdir()
    with alone(fakes):
        assert main(["good", "--out", str(fakes)]) == 2
    assert "another run of the kit is at work in" in capsys.readouterr().err
    assert main(["good", "--out", str(fakes)]) == 0


def test_what_an_earlier_run_left_does_not_stay(fakes: Path) -> None:
    (fakes / "bad" / "pipeline").mkdir(parents=True)
    assert main(["bad", "--out", str(fakes)]) == 1
    assert not (fakes / "bad" / "pipeline").exists()


def test_the_same_part_again_replaces_its_results_and_keeps_the_others(fakes: Path) -> None:
    assert main(["good", "--out", str(fakes)]) == 0
    assert main(["bad", "--out", str(fakes)]) == 1
    assert list(results(fakes)["parts"]) == ["good", "bad"]
    assert main(["good", "--out", str(fakes)]) == 0
    assert list(results(fakes)["parts"]) == ["good", "bad"]


def test_a_trial_never_stands_among_results(fakes: Path) -> None:
    assert main(["good", "--scale", "tiny", "--out", str(fakes)]) == 0
    assert not (fakes / "NVIDIA-Test-80GB.json").exists()
    assert (fakes / "NVIDIA-Test-80GB-tiny.json").exists()


def test_a_python_without_torch_is_a_problem(
    fakes: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.gpu.__main__.PROBE", "import no_such_torch")
    assert main(["good", "--out", str(fakes)]) == 1
    printed = capfd.readouterr().out
    assert "PROBLEM torch does not start: ModuleNotFoundError: No module named 'no_such_torch'" in printed
    assert (fakes / "unknown.json").exists()


def test_a_missing_wheel_is_a_problem(
    fakes: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wheels.txt").write_text("# needed\npyyaml-include>=1\nopen-clip-torch>=2.30  # CLIP\n")
    monkeypatch.setattr("benchmarks.gpu.__main__.WHEELS", tmp_path / "wheels.txt")
    assert missing_modules() == ["pyyaml-include"]
    assert main(["good", "--out", str(fakes)]) == 1
    assert "not installed: pyyaml-include; where there is a network, benchmarks/gpu/wheels.sh" in capfd.readouterr().out


def test_what_is_listed_as_wheels_is_importable_here() -> None:
    assert missing_modules() == []


def test_parts_and_their_arguments() -> None:
    assert parse(["check", "train", "never-saw", "church", "train", "distilled", "sd"]) == [
        Asked("check"),
        Asked("train", "sharper"),
        Asked("never-saw", "church"),
        Asked("train", "distilled"),
        Asked("sd"),
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["chekc"], "unknown part 'chekc'; parts: check, sd, passes, sdxl, attacks, judges, train, never-saw"),
        (["never-saw"], "never-saw needs a CONCEPT after it, such as: never-saw church"),
        (["never-saw", "train"], "never-saw needs a CONCEPT after it"),
        (["train", "sharp"], "unknown train 'sharp'; there are: sharper, anew, distilled"),
        (["check", "--limit", "check=fast"], "--limit takes PART=SECONDS, such as train=300, not 'check=fast'"),
        (["check", "--limit", "check=0"], "--limit takes PART=SECONDS"),
    ],
)
def test_bad_words_are_refused_before_any_work(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["check", "--out", str(tmp_path / "file" / "out")]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_limits() -> None:
    assert parse_limits(["train=300", "sd=2.5"]) == {"train": 300.0, "sd": 2.5}


def test_out_of_memory_and_other_errors_leave_the_part_going(tmp_path: Path) -> None:
    part = Part("sd", out=tmp_path)
    with part.going_on("batch 32"):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
    with part.going_on("batch 1"):
        raise RuntimeError("first line\nsecond line")
    part.record("sampling.eager.1.images_per_second", 2.5)
    part.record("sampling.eager.2.images_per_second", 4.5)
    kept = json.loads((tmp_path / ".sd.json").read_text())
    assert kept["problems"] == ["batch 32: out of memory", "batch 1: RuntimeError: first line"]
    assert kept["figures"] == {
        "sampling": {"eager": {"1": {"images_per_second": 2.5}, "2": {"images_per_second": 4.5}}}
    }


def test_results_that_are_no_json(tmp_path: Path) -> None:
    for content in ("{", "[]"):
        (tmp_path / "card.json").write_text(content)
        with pytest.raises(KitError, match=r"card\.json"):
            read_json(tmp_path / "card.json")


@pytest.mark.slow
def test_the_whole_kit_at_tiny_scale(tmp_path: Path) -> None:
    """As on the day when a GPU is there, but for the sizes; other parts and trainings have their own tests."""
    command = ["bash", str(ROOT / "benchmarks" / "gpu" / "run.sh"), "check", "train", "distilled"]
    began = time.monotonic()
    ended = subprocess.run(
        [*command, "--scale", "tiny", "--out", "results"],
        cwd=tmp_path,
        env={**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert time.monotonic() - began < 600
    out = tmp_path / "results"
    (path,) = out.glob("*.json")
    parts = read_json(path)["parts"]
    assert list(parts) == ["check", "train distilled"]
    assert not [problem for part in parts.values() for problem in part["problems"]]
    assert all(part["figures"] for part in parts.values())
    assert parts["train distilled"]["figures"]["flops_of_an_image"]["share_of_shipped"] <= 0.5
    assert parts["train distilled"]["figures"]["step"]["compiled"] is True
    assert "## CPU-tiny" in (out / "README.md").read_text()
    assert {"pipeline", "grid.png", "measure.md"} <= {path.name for path in (out / "train-distilled").iterdir()}
