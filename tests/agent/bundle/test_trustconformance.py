"""The cases of tests/vectors/trustcases.py, each step by a client that has just been started."""

from __future__ import annotations

import hashlib
import json

import pytest

from agent.bundle.trust import Trust
from agent.bundle.trustmessage import encode
from agent.errors import ExpiredError, ManifestError, RollbackError, SignatureError
from tests.fakes.tufrepository import NOW, MemoryStore
from tests.vectors.trustcases import CASES, SCRIPTS

KINDS = {
    SignatureError: "signature",
    RollbackError: "rollback",
    ExpiredError: "expired",
    ManifestError: "malformed",
}

FILE = json.loads(CASES.read_text())


class Client:
    """Keeps nothing but what it has saved."""

    def __init__(self, root: bytes) -> None:
        self.root = root
        self.store = MemoryStore()

    def refresh(self, files: dict[str, bytes], now: float) -> None:
        Trust(self.root, self.store, lambda: now).refresh(encode(files))

    def download(self, path: str, content: bytes) -> None:
        target = Trust(self.root, self.store, lambda: NOW).target(path)
        if (hashlib.sha256(content).hexdigest(), len(content)) != (target.sha256, target.length):
            raise ManifestError("not what was signed")

    def versions(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for data in self.store.files.values():
            signed = json.loads(data)["signed"]
            found[signed["_type"]] = max(signed["version"], found.get(signed["_type"], 0))
        return found


def test_there_is_a_case_for_each_script():
    assert [case["name"] for case in FILE["cases"]] == [write.__name__ for write in SCRIPTS]


@pytest.mark.parametrize("case", FILE["cases"], ids=lambda case: case["name"])
def test_case(case):
    texts = [text.encode() for text in FILE["texts"]]
    client = Client(texts[case["root"]])
    for step in case["steps"]:
        error = None
        try:
            if step["do"] == "refresh":
                files = {name: texts[number] for name, number in step["files"].items()}
                client.refresh(files, step["now"])
            else:
                client.download(step["path"], texts[step["content"]])
        except tuple(KINDS) as raised:
            error = KINDS[type(raised)]
        assert error == step["error"]
        if "versions" in step:
            assert client.versions() == step["versions"]
