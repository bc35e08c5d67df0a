"""JSON Schemas, by which editors complete and check a run's configuration and an entry of the leaderboard.

They are in the package as ``config.schema.json`` and ``entry.schema.json``; ``python -m erasebench.schema`` writes them
anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from erasebench.config import RunConfig
from erasebench.results.entry import Entry

SCHEMA, ENTRY_SCHEMA = (Path(__file__).with_name(name) for name in ("config.schema.json", "entry.schema.json"))
_DIALECT = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
PRESET = {"description": "smoke, quick, paper or one of another package.", "type": "string"}


def config_schema() -> dict[str, Any]:
    """The schema of what ``--config`` reads: a run's keys and ``preset``; lists may be written as text with commas."""
    schema = RunConfig.model_json_schema()
    properties = {"preset": PRESET}
    for key, value in schema["properties"].items():
        annotations = {
            name: value[name] for name in ("description", "default") if value.get(name) not in (None, [], {})
        }
        rules = {name: rule for name, rule in value.items() if name not in ("title", "description", "default")}
        properties[key] = annotations | (
            {"anyOf": [rules, {"type": "string"}]} if rules.get("type") == "array" else rules
        )
    return {
        **_DIALECT,
        "title": "erasebench run",
        **{name: rule for name, rule in schema.items() if name not in ("title", "description")},
        "properties": properties,
    }


def entry_schema() -> dict[str, Any]:
    """The schema of an entry of the leaderboard."""
    return {**_DIALECT, **Entry.model_json_schema(), "title": "erasebench entry"}


def schema_text(schema: dict[str, Any]) -> str:
    """A schema as its file holds it."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(schema_text(config_schema()), encoding="utf-8")
    ENTRY_SCHEMA.write_text(schema_text(entry_schema()), encoding="utf-8")
