"""Documentation that can be checked is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.bench.report import RESULTS, markdown

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
LINK = re.compile(r"\]\(([^)#]+?)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path):
    for target in LINK.findall(page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readmes_table_is_the_committed_measurement():
    assert markdown(json.loads(RESULTS.read_text())) in (ROOT / "README.md").read_text("utf-8")


def test_the_readmes_scripts_exist_and_can_be_run():
    text = (ROOT / "README.md").read_text("utf-8")
    for script in set(re.findall(r"scripts/[a-z-]+", text)):
        assert (ROOT / script).stat().st_mode & 0o100, script
