from __future__ import annotations

import json
from importlib.resources import files

from erasebench.config import RunConfig, preset_files, read_layer
from erasebench.schema import SCHEMA, config_schema, schema_text


def test_the_file_is_up_to_date() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == schema_text(), "run: python -m erasebench.schema"
    assert json.loads((files("erasebench") / "config.schema.json").read_text(encoding="utf-8")) == config_schema()


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
    assert config_schema()["properties"]["batch_size"]["minimum"] == 1
