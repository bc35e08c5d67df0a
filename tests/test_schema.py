from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from erasebench.config import RunConfig, read_layer
from erasebench.named_files import preset_files
from erasebench.results.entry import Entry
from erasebench.schema import ENTRY_SCHEMA, SCHEMA, config_schema, entry_schema, schema_text


@pytest.mark.parametrize(("path", "schema"), [(SCHEMA, config_schema()), (ENTRY_SCHEMA, entry_schema())])
def test_the_file_is_up_to_date(path: Path, schema: dict[str, Any]) -> None:
    assert path.read_text(encoding="utf-8") == schema_text(schema), "run: python -m erasebench.schema"
    assert json.loads((files("erasebench") / path.name).read_text(encoding="utf-8")) == schema


def test_every_field_of_an_entry_is_there_and_nothing_else_may_be() -> None:
    schema = entry_schema()
    assert set(schema["properties"]) == set(Entry.model_fields) and schema["additionalProperties"] is False
    assert all(part["additionalProperties"] is False for part in schema["$defs"].values())


def test_every_key_is_there_and_explained() -> None:
    properties = config_schema()["properties"]
    assert set(properties) == {"preset", *RunConfig.model_fields}
    assert all(rule["description"] for rule in properties.values())
    assert config_schema()["additionalProperties"] is False
    assert all(set(read_layer(path)) <= set(properties) for path in preset_files().values())


def test_lists_may_be_written_as_text() -> None:
    methods = config_schema()["properties"]["methods"]
    assert [rule["type"] for rule in methods["anyOf"]] == ["array", "string"]
    assert methods["anyOf"][0]["minItems"] == 1 and "default" not in methods
    assert config_schema()["properties"]["prompts"]["minimum"] == 1
