"""The fake's serialised engine: a header, the graph, and a digest over both."""

from __future__ import annotations

import hashlib
import json

MAGIC = b"fake tensorrt plan\n"


def write(header, model):
    head = json.dumps(header).encode()
    body = MAGIC + len(head).to_bytes(8, "big") + head + model
    return body + hashlib.sha256(body).digest()


def read(plan):
    """Header and graph; ValueError in the words TensorRT logs."""
    body, digest = plan[:-32], plan[-32:]
    if not body.startswith(MAGIC) or hashlib.sha256(body).digest() != digest:
        raise ValueError(
            "Serialization assertion magicTagRead == kMAGIC_TAG failed. Magic tag does not match"
        )
    start = len(MAGIC) + 8
    end = start + int.from_bytes(body[len(MAGIC) : start], "big")
    return json.loads(body[start:end]), body[end:]
