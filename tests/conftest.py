"""How tests run, and the fixtures of several folders.

One thread for each process: tests run side by side, and threads of OpenMP that share a core wait by spinning.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: some tests wait for processes, servers or a browser."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Tests and what they import stay: looking through them for garbage takes an eighth of the time of collecting."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


LONGEST = tuple(
    Path(__file__).parent / name
    for name in (
        "whole/test_docs.py",
        "whole/test_examples.py",
        "whole/test_gate.py",
        "engine/test_objects.py",
        "test_verify.py",
    )
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, then whole runs: the last to begin has a process to itself, while others do nothing."""
    items.sort(key=lambda item: (item.path not in LONGEST, item.path.parent.name != "whole"))


TWO_CONCEPTS = ("--concepts", "church,nudity", "--images-per-prompt", "2", "--retain-prompts", "12")


@pytest.fixture(scope="session", autouse=True)
def unsynced() -> Iterator[None]:
    """Files are not forced to the disk: waiting for that takes longer than the rest of a small run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a finished run of two concepts, its store beside the run folder, on stages that take no time."""
    from tests.engine.runs import fast_stages, forget_plugins, run_tiny

    folder = tmp_path_factory.mktemp("finished")
    (folder / "failing.py").write_text(
        "from dataclasses import dataclass\nfrom erasebench.errors import NotApplicable\n"
        "from erasebench.plugins import Method\nfrom erasebench.registry import METHODS\n"
        "@METHODS.register('failing')\n@dataclass(frozen=True)\nclass Failing(Method):\n"
        "    def check(self, domain, concepts):\n"
        "        if concepts[0].name == 'nudity':\n            raise NotApplicable('no nudity')\n"
        "    def erase(self, model, concepts, context):\n        raise FloatingPointError('diverged')\n"
    )
    methods = ("--plugins", folder / "failing.py", "--methods", "uce,failing")
    with pytest.MonkeyPatch.context() as patch:
        fast_stages(patch)
        assert run_tiny(folder, *TWO_CONCEPTS, *methods) == 3
    forget_plugins()
    yield folder


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages take no time."""
    from tests.engine.runs import fast_stages

    fast_stages(monkeypatch)


@pytest.fixture(scope="session")
def fast_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished run with fast stages, to be copied."""
    from tests.engine.runs import fast_stages, run_tiny

    folder = tmp_path_factory.mktemp("fast")
    with pytest.MonkeyPatch.context() as patch:
        fast_stages(patch)
        assert run_tiny(folder) == 0
    yield folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a window; tests that need it are skipped where there is none."""
    from playwright.sync_api import expect, sync_playwright

    from tests.browser import CHROMIUM, FLAGS

    if CHROMIUM is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    expect.set_options(timeout=30_000)  # as all else that is waited for
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()
