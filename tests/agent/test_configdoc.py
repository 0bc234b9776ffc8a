"""The page on configuration agrees with the settings."""

import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from agent.configdoc import updated
from agent.configfile import load, schema

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)


def test_reference_is_up_to_date():
    page = PAGE.read_text("utf-8")
    assert page == updated(page), "run scripts/config-docs"


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_can_be_loaded(tmp_path, example):
    (tmp_path / "password").write_text("p")
    example = example.replace("/etc/vigia/mqtt.password", "password")
    if "cameras:" not in example:
        example += "cameras: {a: {source: 0}}"
    path = tmp_path / "agent.yaml"
    path.write_text(example)
    assert load(path, {"DOOR_PASSWORD": "p"}).cameras
    jsonschema.validate(yaml.safe_load(example), schema())
