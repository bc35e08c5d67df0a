"""The documentation: built as ``make docs`` builds it, and complete."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import pytest
from bs4 import BeautifulSoup, Tag
from filelock import FileLock
from markdown_it import MarkdownIt
from sphinx.cmd.build import main as sphinx

import erasebench
from docs.generated import escape, included, prose
from erasebench.cli import cli
from erasebench.listing import LISTED, names
from erasebench.registry import BUILT_IN, KINDS
from erasebench.results import attacks, costs, flags, ranking, scores, seeds, transfers
from tests.engine.runs import fast_stages, run_tiny
from tests.forks import in_a_child
from tests.pages import ROOT


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site, which all test processes of a session share."""
    session = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    shared = tmp_path_factory.getbasetemp().parent / f"docs-{session}" if session else tmp_path_factory.mktemp("docs")
    shared.mkdir(exist_ok=True)
    with FileLock(shared / "lock"):
        if not (shared / "site").exists():
            build(shared)
    return shared / "site"


def build(folder: Path) -> None:
    """Build the site by the Makefile's own command, with nothing to connect to, in a copy of this process."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = re.search(r"^docs:.*\n\t\$\(BIN\)/python -m sphinx (.*) build/docs$", makefile, re.MULTILINE)
    assert recipe
    words, said = [*recipe[1].split(), str(folder / "partial")], folder / "said"

    def refuse(*args: object) -> None:
        raise OSError("the network is not to be used")

    def act() -> int:
        os.chdir(ROOT)
        warnings.simplefilter("ignore")  # of Python; its own are errors
        with pytest.MonkeyPatch.context() as patch, open(said, "w") as out, redirect_stdout(out), redirect_stderr(out):
            patch.setattr("socket.socket.connect", refuse)
            patch.setattr("socket.getaddrinfo", refuse)
            return int(sphinx(words))

    assert in_a_child(act) == 0, said.read_text(encoding="utf-8")
    shutil.move(folder / "partial", folder / "site")


@cache
def page(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@cache
def ids(path: Path) -> set[str]:
    """What a link to a page can lead to."""
    return {str(tag["id"]) for tag in page(path).select("[id]")}


def reference(site: Path, name: str) -> BeautifulSoup:
    return page(site / "reference" / f"{name}.html")


def sections(soup: BeautifulSoup) -> dict[str, Tag]:
    """The sections below the title, by each name that stands as code in their headings."""
    return {
        code.get_text(): heading.parent
        for heading in soup.select("article h2")
        for code in heading.select("code")
        if heading.parent
    }


def all_commands(command: click.Command, context: click.Context) -> Iterator[click.Context]:
    if not isinstance(command, click.Group):
        yield context
        return
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        assert inner
        yield from all_commands(inner, click.Context(inner, info_name=name, parent=context))


def test_every_command_and_option_is_there(site: Path) -> None:
    found = sections(reference(site, "command-line"))
    contexts = list(all_commands(cli, click.Context(cli, info_name="erasebench")))
    assert set(found) == {context.command_path for context in contexts}
    for context in contexts:
        text = {term.get_text() for term in found[context.command_path].select("dt code")}
        for parameter in context.command.get_params(context):
            if isinstance(parameter, click.Option):
                for option in (*parameter.opts, *parameter.secondary_opts):
                    assert any(option in re.split(r"[ ,/]+", term) for term in text), (context.command_path, option)


@pytest.mark.parametrize("kind", KINDS)
def test_every_plugin_is_there_with_its_hyper_parameters(site: Path, kind: str) -> None:
    found, registry = sections(reference(site, kind)), KINDS[kind]
    own = {name for name in registry.names() if registry.origin(name) == BUILT_IN}
    assert set(found) == own
    for name in own:
        make = registry.get(name).make
        if dataclasses.is_dataclass(make):
            fields = [field.name for field in dataclasses.fields(make) if field.init]
            assert [cell.get_text() for cell in found[name].select("td:first-child")] == fields


def test_every_other_thing_that_is_listed_is_there(site: Path) -> None:
    expected = {"concepts", "prompt-sets", "presets", "suites"}
    assert set(LISTED) - set(KINDS) == expected
    for kind in expected:
        code = {code.get_text() for code in reference(site, kind).select("article code")}
        assert set(names(kind)) <= code


def test_every_public_name_is_there(site: Path) -> None:
    soup = reference(site, "python")
    found = {tag.get("id") for tag in soup.select("dt[id]")} | {tag.get_text() for tag in soup.select("td code")}
    assert {f"erasebench.{name}" for name in erasebench.__all__ if name != "__version__"} <= found


def test_every_flag_is_there(site: Path) -> None:
    soup = page(site / "reading-a-table.html")
    found = {
        row.select("td")[0].get_text(): {cell.get_text() for cell in row.select("td")}
        for row in soup.select("#flags tbody tr")
    }
    known: dict[str, flags.Flag | flags.AttackFlag] = {**flags.FLAGS, **flags.ATTACK_FLAGS}
    assert list(found) == list(known)
    assert all({flag.cause, flag.meaning, flag.remedy} <= found[name] for name, flag in known.items())


def test_every_column_of_a_run_folder_is_there(site: Path) -> None:
    soup = page(site / "run-folders.html")
    columns = {
        "ranks-csv": list(ranking.COLUMNS),
        "seeds-csv": list(seeds.COLUMNS),
        "scores-csv": list(scores.COLUMNS),
        "attacks-csv": list(attacks.COLUMNS),
        "transfer-csv": list(transfers.COLUMNS),
        "costs-csv": [field.name for field in dataclasses.fields(costs.Cost)],
    }
    for section, expected in columns.items():
        code = [code.get_text() for code in soup.select(f"#{section} td:first-child code")]
        assert sorted(code) == sorted(expected)


def test_every_file_of_a_run_folder_is_there(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soup = page(site / "run-folders.html")
    named = {code.get_text().rstrip("/") for code in soup.select("table")[0].select("td:first-child code")}
    fast_stages(monkeypatch)
    assert run_tiny(tmp_path) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} <= named


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    loads = {"script": "src", "img": "src", "iframe": "src", "source": "src", "object": "data", "link": "href"}
    seen = 0
    for path in site.rglob("*.html"):
        for tag in page(path).select(",".join(f"{name}[{attribute}]" for name, attribute in loads.items())):
            seen += 1
            assert not urlsplit(str(tag[loads[tag.name]])).netloc, (path, tag)
    assert seen
    for path in site.rglob("*.css"):
        assert not re.search(r"@import|url\(\s*['\"]?(?:https?:)?//", path.read_text(encoding="utf-8")), path


def test_every_link_within_the_site_leads_somewhere(site: Path) -> None:
    seen = 0
    # A report that can be downloaded says itself which folder of images belongs beside it.
    for path in (path for path in site.rglob("*.html") if "_downloads" not in path.parts):
        for tag in page(path).select("a[href]"):
            link = urlsplit(str(tag["href"]))
            if link.scheme or link.netloc:
                continue
            goal = (path.parent / unquote(link.path)).resolve() if link.path else path
            seen += 1
            assert goal.is_file() and goal.is_relative_to(site), (path, tag)
            if link.fragment and goal.suffix == ".html" and path.name != "search.html":
                assert unquote(link.fragment) in ids(goal), (path, tag)
    assert seen


@pytest.mark.parametrize("text", ["a_b_c *x* [0, 1] <tag> `code`", r"|x| \ ~~no~~ $5$", "N_iter: the [default: 1]"])
def test_text_is_shown_as_it_is(text: str) -> None:
    html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(f"| a |\n| --- |\n| {escape(text)} |")
    assert BeautifulSoup(html, "html.parser").select("td")[0].get_text() == text


def test_docstrings_become_markdown() -> None:
    docstring = """First, of :class:`~a.b.Thing` and ``x_y``.

    * ``c``: p(c) * 2
    * other

    Args:
        a: not this.
    """
    assert prose(docstring) == "First, of `Thing` and `x_y`.\n\n* `c`: p(c) \\* 2\n* other"


def test_a_section_is_included_with_its_links_and_headings() -> None:
    text = included("README.md#using-it", "reference/methods")
    assert "\n## The methods\n" in text and "\n### " not in text and "## Picturebook" not in text
    assert "](../project/results.md)" in text and "](path:../../benchmarks/gpu/README.md)" not in text
    assert (
        "![What attacks bring back" in text and "](../../results/picturebook/attacks/attacked-ca-church.webp)" in text
    )
    with pytest.raises(KeyError):
        included("README.md#nowhere", "index")
