"""The ids of the messages' JSON Schemas, and the schemas themselves (draft 2020-12)."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import resources
from typing import Any

from agent.errors import WireError

DETECTIONS = "vigia.detections/1"
STATUS = "vigia.status/1"
INFO = "vigia.info/1"
TELEMETRY = "vigia.telemetry/1"
CAMERA_STATUS = "vigia.camera-status/1"
MODEL_STATE = "vigia.model-state/1"
UPDATE_STATE = "vigia.update-state/1"
UPDATE_REQUEST = "vigia.update-request/1"
COMMAND_REPLY = "vigia.command-reply/1"
EVENT = "vigia.event/1"
CONFIG_STATE = "vigia.config-state/1"

SCHEMAS = (
    DETECTIONS,
    STATUS,
    INFO,
    TELEMETRY,
    CAMERA_STATUS,
    MODEL_STATE,
    UPDATE_STATE,
    UPDATE_REQUEST,
    COMMAND_REPLY,
    EVENT,
    CONFIG_STATE,
)
"""Every message of the project; the number after the slash grows with an incompatible change."""


@lru_cache(maxsize=len(SCHEMAS))
def schema(schema_id: str) -> dict[str, Any]:
    """The JSON Schema of a message.

    Args:
        schema_id: what the message carries in `schema`.

    Raises:
        WireError: it is none of `SCHEMAS`.
    """
    if schema_id not in SCHEMAS:
        raise WireError(f"no schema {schema_id!r}; there are {', '.join(SCHEMAS)}")
    name = schema_id.removeprefix("vigia.").replace("/", "-") + ".json"
    text = (resources.files("agent.wire") / "schemas" / name).read_text("utf-8")
    return dict(json.loads(text))
