"""A page of all results in a folder: ``python -m benchmarks.gpu.table [FOLDER]`` writes its ``README.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.kit import KitError, read_json

RESULTS = Path(__file__).parents[2] / "results" / "gpu"


def write_table(folder: Path) -> Path:
    """Write ``README.md`` from the ``<card>.json`` files beside it, and return its path.

    Raises:
        KitError: a file is no result of the kit.
    """
    files = sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))
    lines = ["# On a GPU", "", "Made by `benchmarks/gpu/run.sh` from the JSON files beside this page.", ""]
    for path in files:
        lines += page(path.stem, read_json(path))
    page_path = folder / "README.md"
    page_path.write_text("\n".join(lines), encoding="utf-8")
    return page_path


def page(title: str, results: Mapping[str, Any]) -> Iterator[str]:
    """The lines of one card.

    Raises:
        KitError: the results have no machine or no parts.
    """
    try:
        machine, parts = dict(results["machine"]), dict(results["parts"])
    except (KeyError, TypeError, ValueError):
        raise KitError(f"{title}.json is no result of the kit: it has no machine and parts") from None
    yield from (f"## {title}", "")
    yield from (", ".join(f"{name} {value}" for name, value in machine.items() if value is not None), "")
    for name, part in parts.items():
        yield from (f"### {name}", "", f"{part['date']}, {part['seconds']} s.", "")
        yield from (f"- **Problem**: {problem}" for problem in part["problems"])
        yield from ([""] if part["problems"] else [])
        yield from section("", part["figures"])


def section(title: str, figures: Mapping[str, Any]) -> Iterator[str]:
    """Figures as Markdown: a table where they are rows of figures, otherwise a list, and a section for each table."""
    if title:
        yield from (f"#### {title}", "")
    if any(map(_is_row, figures.values())) and title:
        # What has no figures has a reason instead.
        yield from table({name: row if _is_row(row) else {"": row} for name, row in figures.items()})
        return
    lines = {name: value for name, value in figures.items() if not isinstance(value, Mapping) or _is_row(value)}
    for name, value in lines.items():
        yield f"- {name}: {_text(value)}"
    yield from ([""] if lines else [])
    for name, group in figures.items():
        if name not in lines:
            yield from section(f"{title}, {name}" if title else name, group)


def _is_row(value: Any) -> bool:
    """Whether these are figures of one thing; what has reasons only, or groups only, is a group."""
    return isinstance(value, Mapping) and any(isinstance(one, int | float) for one in value.values())


def table(rows: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A Markdown table: a line for each row, a column for each figure that any row has."""
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    yield _line(["", *columns])
    yield _line(["---"] * (1 + len(columns)))
    for name, row in rows.items():
        yield _line([name, *(_text(row.get(column, "")) for column in columns)])
    yield ""


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(one)}" for key, one in value.items())
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


if __name__ == "__main__":
    try:
        print(f"wrote {write_table(Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS)}")
    except (KitError, OSError) as error:
        sys.exit(f"error: {error}")
