"""Documentation that can be checked is."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from tests.bench.report import RESULTS, markdown

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
TEST = re.compile(r"`(tests/[\w/]+\.py)::([\w:]+)`")
LINK = re.compile(r"\]\(([^)#]+?)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path):
    for target in LINK.findall(page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_tests_that_pages_name_exist():
    named = {name for page in PAGES for name in TEST.findall(page.read_text("utf-8"))}
    assert named
    assert [f"{path}::{name}" for path, name in named if name not in _tests(ROOT / path)] == []


def _tests(path: Path) -> set[str]:
    """Names of a file's tests, those of classes as `Class::test`."""
    tree = ast.parse(path.read_text("utf-8"))
    found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    for group in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        found |= {f"{group.name}::{n.name}" for n in group.body if isinstance(n, ast.FunctionDef)}
    return found


def test_the_readmes_table_is_the_committed_measurement():
    assert markdown(json.loads(RESULTS.read_text())) in (ROOT / "README.md").read_text("utf-8")


def test_the_readmes_scripts_exist_and_can_be_run():
    text = (ROOT / "README.md").read_text("utf-8")
    for script in set(re.findall(r"scripts/[a-z-]+", text)):
        assert (ROOT / script).stat().st_mode & 0o100, script
