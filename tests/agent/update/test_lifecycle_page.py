"""The page on the life cycle agrees with the table. Mend it: run this file as a program."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.update import machine
from agent.update.machine import DEADLINES_S, TABLE, Stopped
from agent.update.record import State

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "update-lifecycle.md"
PART = re.compile(r"(<!-- (\w+), from the table -->\n).*?(<!-- end -->)", re.DOTALL)
TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def diagram():
    """Every step that leads to another state."""
    lines = ["    [*] --> IDLE"]
    for (start, event), end in TABLE.items():
        if start is end and event is Stopped:
            continue
        lines.append(f"    {start.value} --> {end.value}: {event.__name__}")
    return "```mermaid\nstateDiagram-v2\n" + "\n".join(lines) + "\n```\n"


def limits():
    """Budgets, and how long each state may last."""
    rows = [
        ("opening and building begun without an end", machine.MAX_UNFINISHED_BUILDS),
        ("gate and shadow begun", machine.MAX_TRIALS),
        ("trials begun", machine.MAX_CANARIES),
        ("steps of one assignment", machine.MAX_TRANSITIONS),
        *(
            (f"time in {state.value}", f"{seconds / 3600:g} h")
            for state, seconds in DEADLINES_S.items()
        ),
    ]
    return "| what | at most |\n|---|---|\n" + "".join(f"| {a} | {b} |\n" for a, b in rows)


def updated(page):
    parts = {"diagram": diagram, "limits": limits}
    return PART.sub(lambda found: found[1] + parts[found[2]]() + found[3], page)


def test_the_page_is_up_to_date():
    page = PAGE.read_text("utf-8")
    assert PART.search(page)
    assert page == updated(page), f"run python {Path(__file__).relative_to(ROOT)}"


def test_every_state_and_event_is_explained():
    prose = PART.sub("", PAGE.read_text("utf-8"))
    assert [s.value for s in State if f"`{s.value}`" not in prose] == []
    events = {event.__name__ for _, event in TABLE}
    assert {event for event in events if f"`{event}`" not in prose} == set()


@pytest.mark.parametrize(("path", "name"), TEST.findall(PAGE.read_text("utf-8")))
def test_the_tests_it_names_exist(path, name):
    text = (ROOT / path).read_text("utf-8")
    assert not name or f"def {name}(" in text


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text("utf-8")), "utf-8")
