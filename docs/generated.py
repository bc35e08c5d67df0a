"""What pages say that the code knows: filled in where a page has ``<!-- generated: NAME -->``.

A page that has ``<!-- included: FILE -->`` holds a Markdown file of this repository there; one that has
``<!-- included: FILE#heading -->`` what stands there under a heading.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel

import erasebench
from erasebench.cli import cli
from erasebench.concepts import load_catalogue
from erasebench.description import ADAPTED, concept_details, describe_hyper_parameters, plugin_details
from erasebench.docstrings import SECTIONS, attributes
from erasebench.metrics.metric import describe_metrics
from erasebench.named_files import preset_files, suite_files
from erasebench.prompt_sets import prompt_set_details
from erasebench.registry import KINDS, Plugin, Registry
from erasebench.results import flags, protocol, record
from erasebench.results.costs import Cost
from erasebench.suites import parse_suite, suite_details

DOCS = Path(__file__).parent
ROOT = DOCS.parent
RECORDED: tuple[type[BaseModel], ...] = (
    record.Record,
    record.RowRecord,
    record.AttackRecord,
    record.ProbeRecord,
    record.JudgedImages,
    protocol.Protocol,
)
"""What ``plan.json`` is made of."""
_MARK = re.compile(r"^<!-- (generated|included): (\S+) -->$", re.MULTILINE)


def fill_in(page: str, text: str) -> str:
    """Fill in the marked places of a page.

    Args:
        page: its path below ``docs/`` without the suffix, as Sphinx names it.
        text: Markdown.

    Raises:
        KeyError: a mark names nothing that is generated.
        OSError: a mark names no file.
    """

    def filled(mark: re.Match[str]) -> str:
        return GENERATED[mark[2]]() if mark[1] == "generated" else included(mark[2], page)

    return _MARK.sub(filled, text)


def command_line() -> str:
    """Every command with what it does, its arguments and its options."""
    parts = []
    for name, command, context in commands():
        usage = context.command.get_usage(context).removeprefix("Usage: ")
        parts += [f"## `{name}`", prose(command.help), f"```text\n{usage}\n```"]
        records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
        parts += [f"`{option}`\n: {escape(text)}" for option, text in filter(None, records)]
    return "\n\n".join(parts)


def commands() -> Iterator[tuple[str, click.Command, click.Context]]:
    """The commands with their full names, such as ``erasebench picturebook grid``, those of groups last."""
    pending: list[tuple[str, click.Command, click.Context]] = [
        ("erasebench", cli, click.Context(cli, info_name="erasebench", **cli.context_settings))
    ]
    while pending:
        name, command, context = pending.pop(0)
        if isinstance(command, click.Group):
            pending += [
                (f"{name} {word}", each, click.Context(each, info_name=word, parent=context))
                for word, each in command.commands.items()
            ]
        else:
            yield name, command, context


def plugins(kind: str) -> str:
    """All built-in plug-ins of a kind, those of one class together, with their hyper-parameters as tables."""
    parts = []
    for together in _classes(KINDS[kind]):
        make = together[0].make
        module = sys.modules[make.__module__]
        paper, _, notes = prose(module.__doc__).partition("\n\n") if kind in ("methods", "attacks") else ("", "", "")
        parts += [f"## {', '.join(f'`{plugin.name}`' for plugin in together)}", paper, prose(make.__doc__)]
        details = [
            f"{heading}\n: {escape(_sentences(texts))}"
            for heading, texts in plugin_details(kind, together[0])
            if any(texts)
        ]
        parts += [*details, _hyper_parameter_table(together)] if dataclasses.is_dataclass(make) else details
        parts.append(notes)
    return "\n\n".join(filter(None, parts))


def _classes(registry: Registry[Any]) -> list[list[Plugin[Any]]]:
    """The built-in plug-ins of a registry, those of one class together."""
    classes: dict[Callable[..., Any], list[Plugin[Any]]] = {}
    for name in registry.names():
        plugin = registry.get(name)
        classes.setdefault(plugin.make, []).append(plugin)
    return list(classes.values())


def _sentences(texts: Sequence[str]) -> str:
    return "; ".join(text for text in texts if text)


def _hyper_parameter_table(together: Sequence[Plugin[Any]]) -> str:
    """The hyper-parameters of plug-ins of one class; a cell in which they differ names each of them."""
    described = [describe_hyper_parameters(plugin, catalogue()) for plugin in together]
    rows = []
    for same in zip(*described, strict=True):
        defaults = [one.default.removeprefix("default ").removesuffix(" by this name") for one in same]
        defaults = [default.replace(" by this name", "") for default in defaults]
        adapted = [[one.adapted[domain.title] for one in same] for domain in ADAPTED]
        cells = [_cell(together, texts) for texts in (defaults, *adapted)]
        rows.append([f"`{same[0].name}`", escape(same[0].type), *cells, escape(same[0].meaning)])
    if not rows:
        return "No hyper-parameters."
    return "{.hyper-parameters}\n" + table(
        ("hyper-parameter", "type and range", "default", *(f"on {domain.title}" for domain in ADAPTED), "meaning"), rows
    )


def _cell(together: Sequence[Plugin[Any]], texts: Sequence[str]) -> str:
    if len(set(texts)) == 1:
        return escape(texts[0])
    return "; ".join(f"`{plugin.name}`: {escape(text)}" for plugin, text in zip(together, texts, strict=True) if text)


def metrics() -> str:
    """Every metric: its column, what it measures, which way is better, and how."""
    parts = []
    for name, description in describe_metrics().items():
        unit = f" ({description.unit})" if description.unit else ""
        make = KINDS["metrics"].get(name).make
        parts += [f"## `{name}`: {escape(description.title + unit)}", f"{_sentence(description.meaning)}"]
        probes = " and ".join(f"`{probe}`" for probe in make.probes)  # type: ignore[attr-defined]
        facts = [f"Better: **{description.direction}**", f"images: {probes}", escape(description.caveat)]
        facts.append("on request" if make.on_request else "")  # type: ignore[attr-defined]
        facts.append("in files only, not in the printed table" if description.details else "")
        parts.append("; ".join(filter(None, facts)) + ".")
        parts.append(prose(make.__doc__))
    return "\n\n".join(parts)


def _sentence(text: str) -> str:
    return escape(text[:1].upper() + text[1:].rstrip(".")) + "."


def concepts() -> str:
    """Every concept of the catalogue, by kind."""
    known = sorted((catalogue().get(name) for name in catalogue().names()), key=lambda concept: concept.kind)
    parts = []
    for kind, some in groupby(known, key=lambda concept: concept.kind):
        parts.append(f"## {kind}")
        rows = []
        for concept in some:
            details = {name: _sentences(texts) for name, texts in concept_details(concept)}
            own = ("phrase", "synonyms", "anchor", "neighbours")
            seen = [f"**{domain}**: {escape(text)}" for domain, text in details.items() if domain not in own]
            rows.append([f"`{concept.name}`", *(escape(details[name]) for name in own), "<br>".join(seen)])
        header = ("concept", "phrase", "synonyms", "anchor", "neighbours", "seen by, prompts")
        parts.append("{.concepts}\n" + table(header, rows))
    parts.append("## Groups\n\nConcepts that are erased together under one name.")
    groups = catalogue().groups().items()
    parts.append(table(("group", "concepts"), [[f"`{name}`", escape(", ".join(own))] for name, own in groups]))
    return "\n\n".join(parts)


def prompt_sets() -> str:
    """Every public prompt set: what it is and holds, but not whether it is there."""
    parts = []
    for prompt_set in catalogue().prompt_sets.values():
        rows = [
            [name, "<br>".join(escape(text) for text in texts)]
            for name, texts in prompt_set_details(prompt_set)
            if any(texts) and name not in ("title", "here", "note")
        ]
        parts += [f"## `{prompt_set.name}`: {escape(prompt_set.title)}", escape(prompt_set.note), table(("", ""), rows)]
    return "\n\n".join(filter(None, parts))


def presets() -> str:
    """Every preset, as its file has it."""
    files = sorted(preset_files().items())
    return "\n\n".join(f"## `{name}`\n\n```yaml\n{path.read_text(encoding='utf-8')}```" for name, path in files)


def suites() -> str:
    """Every suite, with what its paper did and what is run."""
    parts = []
    for name, path in sorted(suite_files().items()):
        parts.append(f"## `{name}`")
        parts += [
            f"{heading}\n: {escape(_sentences(texts))}" for heading, texts in suite_details(parse_suite(path)) if texts
        ]
    return "\n\n".join(parts)


def flag_tables() -> str:
    """Every flag with cause and remedy."""
    kinds: dict[str, Mapping[str, Any]] = {"Rows of methods": flags.FLAGS, "Rows of attacks": flags.ATTACK_FLAGS}
    parts = []
    for title, known in kinds.items():
        kind = type(next(iter(known.values())))
        names = [field.name for field in dataclasses.fields(kind) if field.type == "str"]
        rows = [[f"`{name}`", *(escape(getattr(flag, each)) for each in names)] for name, flag in known.items()]
        parts += [f"### {title}", "{.flags}\n" + table(("flag", *names), rows)]
    return "\n\n".join(parts)


def record_tables() -> str:
    """What ``plan.json`` holds."""
    parts = []
    for model in RECORDED:
        members = _fields(model.model_fields, attributes(model.__doc__))
        parts += [f"**{model.__name__}**: {prose(model.__doc__)}", members]
    return "\n\n".join(parts)


def cost_table() -> str:
    """The columns of ``costs.csv``."""
    return _fields([field.name for field in dataclasses.fields(Cost)], attributes(Cost.__doc__))


def _fields(names: Iterable[str], meanings: Mapping[str, str]) -> str:
    """A table of fields; one that is explained with the one before it stands in its row."""
    rows: list[list[str]] = []
    for name in names:
        if name in meanings:
            rows.append([f"`{name}`", escape(meanings[name])])
        else:
            rows[-1][0] += f", `{name}`"
    return table(("field", "what it is"), rows)


def python() -> str:
    """The public names of erasebench, by what they are."""
    bases = (erasebench.Method, erasebench.Attack, erasebench.Judge, erasebench.Metric, erasebench.EraseContext)
    sections: dict[str, list[str]] = {"Functions": [], "Results and data": [], "Plug-ins": [], "Errors": []}
    for name in erasebench.__all__:
        member = getattr(erasebench, name)
        if inspect.isfunction(member):
            sections["Functions"].append(f".. autofunction:: erasebench.{name}")
        elif isinstance(member, type) and issubclass(member, Exception):
            sections["Errors"].append(f".. autoexception:: erasebench.{name}")
        elif isinstance(member, type):
            section = "Plug-ins" if issubclass(member, bases) else "Results and data"
            sections[section].append(f".. autoclass:: erasebench.{name}\n   :members:")
    registries = [name for name in erasebench.__all__ if isinstance(getattr(erasebench, name), Registry)]
    rows = [[f"`erasebench.{name}`", f"every {getattr(erasebench, name).what}"] for name in registries]
    parts = []
    for title, directives in sections.items():
        parts += [f"## {title}", "```{eval-rst}\n" + "\n\n".join(directives) + "\n```"]
    parts += ["## Registries", table(("name", "holds"), rows)]
    parts.append("```{eval-rst}\n.. autoclass:: erasebench.registry.Registry\n   :members:\n```")
    return "\n\n".join(parts)


def included(name: str, page: str) -> str:
    """A Markdown file of this repository, or a section of it, its relative links as seen from a page.

    Links to files that are included as a whole by a page lead there.

    Args:
        name: the file; with ``#heading`` what stands under this heading, its own headings from the second level on.
        page: as in :func:`fill_in`.

    Raises:
        KeyError: the file has no such heading.
    """
    file, _, heading = name.partition("#")
    path, here = ROOT / file, (DOCS / page).parent

    def link(match: re.Match[str]) -> str:
        target, hash_mark, anchor = match[2].partition("#")
        if not target or "://" in target:
            return match[0]
        goal = (path.parent / target).resolve()
        page_of_goal = _pages().get(goal, goal if goal.is_relative_to(DOCS) else None)
        # Of what is no page, Sphinx copies images by itself, and files that are said to be such.
        scheme = "" if page_of_goal or match[1].startswith("!") else "path:"
        relative = Path(os.path.relpath(page_of_goal or goal, here)).as_posix()
        return f"{match[1]}({scheme}{relative}{hash_mark}{anchor})"

    text = path.read_text(encoding="utf-8")
    return re.sub(r"(!?\[[^\]]*\])\(([^)\s]+)\)", link, _section(text, heading) if heading else text)


def _section(text: str, heading: str) -> str:
    """What stands under a heading, which is given as in a link to it."""
    code = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
    blank = code.sub(lambda block: " " * len(block[0]), text)
    headings = [(match, len(match[1])) for match in re.finditer(r"^(#+) (.*)$", blank, re.MULTILINE)]
    for place, (match, level) in enumerate(headings):
        if re.sub(r"[^\w-]", "", match[2].lower().replace(" ", "-")) == heading:
            # Of the title, what comes before the first section.
            ends = [after.start() for after, other in headings[place + 1 :] if other <= max(level, 2)]
            section = text[match.end() : min([*ends, len(text)])]
            return re.sub(rf"^#{{{level - 1}}}(?=#+ )", "", section, flags=re.MULTILINE)
    raise KeyError(heading)


@cache
def _pages() -> dict[Path, Path]:
    """The pages that include a file, by the file."""
    pages = {}
    for page in DOCS.rglob("*.md"):
        for kind, name in _MARK.findall(page.read_text(encoding="utf-8")):
            if kind == "included":
                pages[(ROOT / name).resolve()] = page
    return pages


def prose(docstring: str | None) -> str:
    """What a docstring says before its sections, as Markdown."""
    text = inspect.cleandoc(docstring or "")
    text = re.split(rf"^(?:{'|'.join(SECTIONS)})", text, maxsplit=1, flags=re.MULTILINE)[0]
    lines = []
    for line in text.rstrip().splitlines():
        if line.startswith("    "):
            lines.append(line)
            continue
        bullet = re.match(r" *[*-] ", line)
        start = bullet[0] if bullet else ""
        lines.append(start + _inline(line[len(start) :]))
    return "\n".join(lines)


def _inline(line: str) -> str:
    """A line of reStructuredText as Markdown: literals and roles as code, all else as it is."""
    parts = re.split(r"``(.+?)``|:\w+:`~?(?:[\w.]+\.)?([^`]+)`", line)
    return "".join(
        escape(text) + (f"`{literal or role}`" if literal or role else "")
        for text, literal, role in zip(parts[::3], [*parts[1::3], None], [*parts[2::3], None], strict=True)
    ).replace("::", ":")


def escape(text: str) -> str:
    """Text without what Markdown would read."""
    return re.sub(r"([\\`*_\[\]<>|~$])", r"\\\1", text)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of cells in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@cache
def catalogue() -> Any:
    """The concepts that ship with erasebench."""
    return load_catalogue()


GENERATED: Mapping[str, Callable[[], str]] = {
    "command-line": command_line,
    "methods": lambda: plugins("methods"),
    "attacks": lambda: plugins("attacks"),
    "judges": lambda: plugins("judges"),
    "rules": lambda: plugins("rules"),
    "metrics": metrics,
    "concepts": concepts,
    "prompt-sets": prompt_sets,
    "presets": presets,
    "suites": suites,
    "flags": flag_tables,
    "record": record_tables,
    "costs": cost_table,
    "python": python,
}
"""The texts, by the names that pages have for them."""
