"""What is said of the machine that a run was made on, and what is not."""

from __future__ import annotations

import json
import os
import platform
import socket
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from erasebench.environment import PACKAGES, hostless_environment, processor


def test_versions_are_those_that_are_installed() -> None:
    found = hostless_environment()
    assert list(found["packages"]) == list(PACKAGES)
    assert found["packages"]["numpy"] == version("numpy") and found["packages"]["torch"] == version("torch")
    assert found["python"] == platform.python_version() and found["cpus"] == os.cpu_count()


def test_a_package_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> str:
        if name == "peft":
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr("erasebench.environment.version", find)
    packages = hostless_environment()["packages"]
    assert packages.pop("peft") == "missing" and set(packages.values()) == {"1.0"}


def test_neither_the_machine_nor_the_user_is_named() -> None:
    text = json.dumps(hostless_environment())
    assert socket.gethostname() not in text and str(Path.home()) not in text and str(Path.cwd()) not in text


def test_the_processor_has_its_name_or_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path, encoding: str) -> str:
        assert path == Path("/proc/cpuinfo")
        return "processor\t: 0\nmodel name\t: Some CPU @ 2: 3 GHz\nmodel name\t: Another\n"

    monkeypatch.setattr(Path, "read_text", read)
    assert processor() == "Some CPU @ 2: 3 GHz"
    monkeypatch.setattr(Path, "read_text", lambda path, encoding: "processor\t: 0\n")
    assert processor() == platform.machine()

    def fail(path: Path, encoding: str) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", fail)
    assert processor() == platform.machine()
