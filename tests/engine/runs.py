"""Runs for tests: the command line in this process, and stages that take no time."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from erasebench.cli import main
from erasebench.config import make_config
from erasebench.engine.cells import Cell
from erasebench.engine.ledger import read_ledger
from erasebench.engine.markers import MARKER
from erasebench.engine.store import Store
from erasebench.files import hash_file, remove, write_durably
from erasebench.images import read_images, read_index, write_images
from erasebench.judging import Scores, write_scores
from erasebench.plan import Plan
from erasebench.planning import make_plan
from erasebench.registry import KINDS, PLUGIN_PREFIX, _all_entry_points
from erasebench.stages import erase
from erasebench.stages.session import Session
from tests.forks import in_a_child

TINY = (
    *("--preset", "smoke", "--concepts", "church", "--methods", "negative-prompt,uce", "--device", "cpu"),
    *("--prompts", "2", "--retain-prompts", "4", "--reference-images", "4", "--steps", "1", "--workers", "1"),
)
"""A run of 17 cells, in this process; options that come later win."""
CELLS = 17
COMPUTED = ("ok", "failed")
PROMPT_SET_CONCEPT = """prompt_sets:
  mine:
    title: my prompts
    url: https://example.org/mine
    domain: picturebook
    prompt: [text]
    seeds: [seed]
    concepts: {mine: {where: {tags: dark}}}
concepts:
  mine:
    kind: object
    phrase: mine
    views:
      picturebook:
        judge: picturebook-detector
        label: church
        prompt_set: mine
"""
"""A concept whose prompts are in a file of the user's."""


def command(*args: str | Path) -> int:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in args])
    code = stop.value.code
    assert code is None or isinstance(code, int)
    return code or 0


def with_packages(folder: Path, *args: str | Path) -> CompletedProcess[str]:
    """What a command does where the packages of a folder are installed.

    It is a copy of this process, which has torch already; nothing that trains can be run there.
    """
    output, errors = (folder.with_name(f"{folder.name}.{name}") for name in ("stdout", "stderr"))

    def act() -> int:
        sys.path.insert(0, str(folder))
        _all_entry_points.cache_clear()
        for registry in KINDS.values():
            vars(registry).pop("_elsewhere", None)
        with open(output, "w") as out, open(errors, "w") as err, redirect_stdout(out), redirect_stderr(err):
            return command(*args)

    code = in_a_child(act)
    return CompletedProcess(args, code, output.read_text(), errors.read_text())


def places(folder: Path) -> tuple[str | Path, ...]:
    return ("--store", folder / "store", "--out", folder / "out")


def run_tiny(folder: Path, *more: str | Path) -> int:
    return command("run", *TINY, *places(folder), *more)


def plan_of(**options: object) -> Plan:
    """The plan of uce on church, or of what the options say."""
    return make_plan(make_config({"methods": ["uce"], "concepts": ["church"], "device": "cpu", **options}))


def done(folder: Path, *events: str) -> list[dict[str, Any]]:
    """What the last run of a folder did, from its ledger."""
    ledger = read_ledger(folder / "out" / "ledger.jsonl")
    last = max(k for k, line in enumerate(ledger) if line["event"] == "run")
    return [line for line in ledger[last + 1 :] if line["event"] in (events or COMPUTED)]


def table(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "out" / "table.csv").read_bytes(), (folder / "out" / "table.md").read_bytes()


def copy_of(finished: Path, to: Path) -> Path:
    shutil.copytree(finished, to, dirs_exist_ok=True)
    return to


def forget_plugins() -> None:
    """Undo what the plug-in files of a test registered."""
    for registry in KINDS.values():
        for name, plugin in list(registry.loaded.items()):
            if plugin.make.__module__.startswith(PLUGIN_PREFIX):
                del registry.loaded[name]
    for name in [name for name in sys.modules if name.startswith(PLUGIN_PREFIX)]:
        del sys.modules[name]


def fast_stages(patch: pytest.MonkeyPatch) -> None:
    """Pictures and scores that a hash makes, where a model and judges would; everything around them is real."""
    patch.setattr("erasebench.stages.session.load_model", lambda *_: SimpleNamespace(recorder=SimpleNamespace()))
    patch.setattr("erasebench.stages.erase.run", fast_erase)
    patch.setattr("erasebench.stages.generate.run", fast_generate)
    patch.setattr("erasebench.stages.generate.divide", lambda cell, at_once, workers: [None])
    patch.setattr("erasebench.stages.reference.run", fast_generate)
    patch.setattr("erasebench.stages.judge.run", fast_judge)


_erase = erase.run


def fast_erase(cell: Cell, session: Session, folder: Path) -> dict[str, Any]:
    if cell.spec["method"] != "uce":
        return _erase(cell, session, folder)
    (folder / "erasure.safetensors").write_bytes(cell.key.encode())
    (folder / "guidance.json").write_text("{}")
    return {"parameters_changed": 1}


def fast_generate(cell: Cell, session: Session, folder: Path) -> dict[str, Any]:
    for read in cell.reads.values():
        session.store.read(read.key)
    count = cell.units
    images = np.random.default_rng(int(cell.key[:8], 16)).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    none, zeros = [""] * count, list(range(count))
    write_images(
        folder, images, cell.spec.get("ids", none), cell.spec.get("prompts", none), cell.spec.get("seeds", zeros)
    )
    return {"images": count}


def fast_judge(cell: Cell, session: Session, folder: Path) -> dict[str, Any]:
    images = read_images(session.store.read(cell.reads["images"].key))
    seed = int(hashlib.sha256(images.tobytes()).hexdigest()[:8], 16)
    values = np.random.default_rng(seed).random((len(images), 4), dtype=np.float32)
    ids, _, seeds = read_index(session.store.read(cell.reads["images"].key))
    columns = {"church": values[:, 0], "clip": values[:, 1], "nudity": values[:, 2]}
    write_scores(folder, Scores(columns, {"features": values}), ids, seeds)
    return {"images": len(images)}


@cache
def loaded_model(*args: Any) -> Any:
    from erasebench.models.loading import load_model

    return load_model(*args)


def load_once(patch: pytest.MonkeyPatch) -> None:
    """Real stages, but the model and each judge are loaded once for all tests."""
    patch.setattr("erasebench.stages.session.load_model", loaded_model)
    patch.setattr("erasebench.stages.session.Session.judge", _judge)


@cache
def _loaded_judge(name: str, label: str, domain: str) -> Any:
    from erasebench.stages.judge import make_judge

    return make_judge(name, label, domain)


def _judge(session: Session, name: str, label: str = "") -> Any:
    return _loaded_judge(name, label, session.source.domain)


@contextmanager
def marker_first(store: Store, cell: Cell, cost: Mapping[str, Any]) -> Iterator[Path]:
    """A commit in the wrong order."""
    target = store.folder(cell.key)
    partial = target.with_name(f"{target.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    yield partial
    files = {path.name: (path.stat().st_size, hash_file(path)) for path in partial.iterdir()}
    target.mkdir(parents=True, exist_ok=True)
    write_durably(target / MARKER, json.dumps({"identity": cell.identity, "files": files, "cost": dict(cost)}))
    time.sleep(0.01)
    for path in list(partial.iterdir()):
        path.rename(target / path.name)
    partial.rmdir()
    remove(store.root / "work" / cell.key)
