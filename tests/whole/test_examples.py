"""Every example in the documentation, tried.

The blocks of a page are one session, from top to bottom, in an empty folder: a block below a line that names a file is
saved as that file; Python is run; commands are run, at the smallest scale.  A block below ``<!-- not run: reason -->``
needs weights, data or time: its commands are parsed by the command line, and planned where Picturebook is their model.
So are those of pages that only ``make test-slow`` runs, of pages that record how results were made, and of
configuration files of other tools.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
from diffusers import StableDiffusionPipeline

from docs.generated import commands as all_commands
from erasebench.config_options import read_erase_options, read_options
from erasebench.engine.store import Store
from erasebench.erasures import plan_erasure
from erasebench.planning import make_plan
from tests.engine.runs import command, forget_plugins, load_once
from tests.pages import DOCS, ROOT, Block, blocks, pages

ELSEWHERE = (DOCS / "extending.md",)
"""Pages whose examples a test of their own tries: ``tests/whole/test_extending.py``."""
RUN_LANGUAGES = ("", "bash", "console", "python")
DATA_LANGUAGES = ("csv", "json", "markdown", "text", "toml", "xml", "yaml")
"""Languages of blocks that are run, and of those in which commands are parsed."""
RECORDS = ROOT / "results"
"""Pages that say how something was made, in hours."""
SMALL = {
    "preset": "smoke", "device": "cpu", "workers": "1", "steps": "1", "prompts": "1", "images-per-prompt": "1",
    "retain-prompts": "2", "reference-images": "4", "attack-prompts": "1", "floor-prompts": "0",
}  # fmt: skip
"""Options that are put behind those of each command that has them."""
RUN = [page for page in pages() if page not in ELSEWHERE and not page.is_relative_to(RECORDS) and blocks(page)]
SLOW = tuple(DOCS / name for name in ("first-steps.md", "gate.md", "leaderboard.md", "robustness.md", "suites.md"))
"""Pages that are run by ``make test-slow``; ``make test`` parses and plans their commands."""
FEW_STEPS = {"num_inference_steps": 2}
"""Of pipelines that pages call."""
LEAVE = {"README.md": ("church.png", "erasebench-results/table.csv"), "docs/run-folders.md": ("church/erase.yaml",)}
"""What the examples of a page leave."""
COMMANDS = {tuple(name.split()[1:]): (made, context) for name, made, context in all_commands()}


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def is_run(page: Path, block: Block) -> bool:
    """Whether a block is run, rather than parsed."""
    return page in RUN and not block.reason and block.language in RUN_LANGUAGES


def parsed_only() -> list[Any]:
    return [
        pytest.param(page, words, id=f"{name_of(page)}:{block.line}")
        for page in pages()
        for block in blocks(page)
        if (page in SLOW or not is_run(page, block)) and page not in ELSEWHERE
        for words in block.commands
    ]


def small(words: list[str]) -> list[str]:
    """The options that make a command small."""
    made, context = next(found for name, found in COMMANDS.items() if tuple(words[: len(name)]) == name)
    known = {option for parameter in made.get_params(context) for option in parameter.opts}
    return [f"--{name}={value}" for name, value in SMALL.items() if f"--{name}" in known]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The store of all pages; the model and judges are loaded once, all work is done in this process."""
    with pytest.MonkeyPatch.context() as patch:
        load_once(patch)
        patch.setattr("erasebench.runs.count_workers", lambda *_: 1)
        patch.setattr(StableDiffusionPipeline, "__call__", partialmethod(StableDiffusionPipeline.__call__, **FEW_STEPS))
        yield Store(tmp_path_factory.mktemp("examples") / "store").root


@pytest.fixture
def session(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder but for the store."""
    (tmp_path / "erasebench-store").symlink_to(store)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    forget_plugins()


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.slow if page in SLOW else (), id=name_of(page)) for page in RUN],
)
def test_the_examples_of_a_page_run(page: Path, session: Path) -> None:
    names: dict[str, Any] = {"__name__": "__example__"}
    for block in blocks(page):
        if block.file:
            (session / block.file).write_text(block.text, encoding="utf-8")
        elif is_run(page, block) and block.language == "python":
            exec(compile(block.text, f"{page}:{block.line}", "exec"), names)
        elif is_run(page, block):
            for words in block.commands:
                assert command(*words, *small(words)) == 0, words
    assert all((session / left).exists() for left in LEAVE.get(name_of(page), ()))


@pytest.mark.parametrize(("page", "words"), parsed_only())
def test_the_other_commands_are_right(
    page: Path, words: list[str], session: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for block in blocks(page):
        if block.file:
            (session / block.file).write_text(block.text, encoding="utf-8")
    given: list[tuple[str, dict[str, Any]]] = []
    for name, (made, _) in COMMANDS.items():
        monkeypatch.setattr(made, "callback", lambda _name=name, **options: given.append((_name[0], options)))
    assert command(*words) == 0
    [(used, options)] = given
    if used == "erase":
        own = {key: options.pop(key) for key in ("method", "concept", "out")}
        export = options.pop("export")
        plan_erasure(read_erase_options(**own, options=options), export)
    elif used in ("run", "plan", "attack"):
        of_one = {f"{key}s": options.pop(key) for key in ("method", "attack", "concept") if key in options}
        for of_plan in ("precision", "speeds_of"):
            options.pop(of_plan, None)
        config = read_options({**options, **of_one})
        if config.model == "picturebook":
            make_plan(config)


def test_every_option_that_pages_name_is_known() -> None:
    parameters = [parameter for made, context in COMMANDS.values() for parameter in made.get_params(context)]
    known = {option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)}
    for page in pages():
        if page.is_relative_to(ROOT / "benchmarks"):
            continue  # its scripts have options of their own
        prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        code = re.findall(r"`((?:erasebench |--)[^`]*)`", prose)
        named = {option for words in code for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", words)}
        assert named <= known, name_of(page)


def test_no_example_is_left_out() -> None:
    """Whatever is neither run nor a command would be checked by nobody."""
    for page in pages():
        for block in blocks(page):
            assert block.language in (*RUN_LANGUAGES, *DATA_LANGUAGES), (name_of(page), block.line)
            if block.language == "python" and page not in ELSEWHERE:
                assert is_run(page, block), (name_of(page), block.line)
