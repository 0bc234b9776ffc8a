"""Where these tests can run, and where they say why not."""

from __future__ import annotations

import os

import pytest

from tests.system import container

ASKED = "VIGIA_TEST_SYSTEM"
"""Set by scripts/test-system: a container is minutes of work, and not for every test run."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    why = container.missing()
    if why is None and not os.environ.get(ASKED):
        why = "run by scripts/test-system"
    for item in items:
        if "tests/system/" in str(item.path):
            item.add_marker(pytest.mark.system)
            item.add_marker(pytest.mark.slow)
            if why is not None:
                item.add_marker(pytest.mark.skip(reason=why))
