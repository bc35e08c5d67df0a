"""The JSON Schema of a run's configuration, by which editors complete and check a YAML file.

It is in the package as ``config.schema.json``, which ``python -m erasebench.schema`` writes anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from erasebench.config import RunConfig

SCHEMA = Path(__file__).with_name("config.schema.json")
PRESET = {"description": "smoke, quick, paper or one of another package.", "type": "string"}


def config_schema() -> dict[str, Any]:
    """The schema of what ``--config`` reads: a run's keys and ``preset``; lists may be written as text with commas."""
    schema = RunConfig.model_json_schema()
    properties = {"preset": PRESET}
    for key, value in schema["properties"].items():
        said = {name: value[name] for name in ("description", "default") if value.get(name) not in (None, [], {})}
        rules = {name: rule for name, rule in value.items() if name not in ("title", "description", "default")}
        properties[key] = said | ({"anyOf": [rules, {"type": "string"}]} if rules.get("type") == "array" else rules)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "erasebench run",
        **{name: rule for name, rule in schema.items() if name not in ("title", "description")},
        "properties": properties,
    }


def schema_text() -> str:
    """The schema as its file holds it."""
    return json.dumps(config_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(schema_text(), encoding="utf-8")
