"""`vigia update`, as people and programs use it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from agent.cli import app
from agent.commands.update import app as update
from agent.errors import ConfigError, StoreError
from agent.update.machine import Failed
from agent.update.requests import waiting
from agent.update.store import Store
from tests.fakes.updates import digest_of, drive, way

NOW = 1_800_000_000.0


@pytest.fixture
def state(tmp_path):
    folder = tmp_path / "state"
    store = Store(folder, lambda: NOW)
    drive(store, "main", way(1))
    drive(store, "main", way(2))
    drive(store, "main", (*way(3)[:7], Failed("score 0.2 is below 0.8", '{"score":0.2}')))
    store.set_paused(True)
    store.close()
    return folder


def run(*arguments):
    return CliRunner().invoke(app, ["update", *map(str, arguments)])


def test_status_says_what_serves_and_why_the_last_one_does_not(state):
    done = run("status", "--state", state)
    assert done.exit_code == 0
    for words in ("line 2", "line 1", "line 3", "REJECTED", "score 0.2 is below 0.8"):
        assert words in done.output
    assert "floor of line: release 2" in done.output
    assert f"never again: {digest_of(3)[:12]}" in done.output
    assert "3 reports wait for the broker" in done.output
    assert "updates are paused" in done.output


def test_status_for_programs(state):
    shown = json.loads(run("status", "--state", state, "--json").stdout)
    (slot,) = shown["slots"]
    assert (slot["slot"], slot["state"], slot["version"]) == ("main", "REJECTED", "3")
    assert slot["active"]["digest"] == digest_of(2)
    assert slot["previous"]["version"] == "1"
    assert slot["way_back"] is True
    assert shown["floors"] == {"line": 2}
    assert [b["digest"] for b in shown["quarantine"]] == [digest_of(3)]
    assert (shown["reports_waiting"], shown["paused"], shown["problem"]) == (3, True, None)
    assert "grant" not in json.dumps(shown)


def test_status_works_beside_a_running_agent(state):
    store = Store(state, lambda: NOW)
    drive(store, "main", way(4)[:4])
    (slot,) = json.loads(run("status", "--state", state, "--json").stdout)["slots"]
    assert slot["state"] == "SEALED"
    assert slot["way_back"] is False
    store.close()


def test_status_of_a_damaged_state_says_what_serves_nevertheless(state):
    (state / "state.db").write_bytes(b"garbage" * 1000)
    done = run("status", "--state", state)
    assert done.exit_code == 1
    assert "state.db: damaged: file is not a database" in done.output
    assert "line 2" in done.output
    assert "unknown" in done.output
    (state / "fallback.json").write_bytes(b"garbage")
    done = run("status", "--state", state, "--json")
    assert done.exit_code == 1
    problem = json.loads(done.stdout)["problem"]
    assert "state.db: damaged" in problem
    assert "fallback.json: damaged" in problem


def test_status_before_anything_was_assigned(tmp_path):
    Store(tmp_path, lambda: NOW).close()
    assert "nothing was ever assigned" in run("status", "--state", tmp_path).output


def test_status_where_nothing_is(tmp_path):
    done = run("status", "--state", tmp_path)
    assert isinstance(done.exception, StoreError)
    assert "no state of updates is kept there" in str(done.exception)


def test_history_has_the_newest_first(state):
    done = run("history", "--state", state, "--limit", 2)
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert "REJECTED" in lines[1]
    assert "line 3" in lines[1]
    assert "COMMITTED" in lines[2]
    assert len(lines) == 3
    shown = json.loads(run("history", "--state", state, "--json").stdout)
    assert [p["counter"] for p in shown] == [3, 2, 1]
    assert shown[0]["figures"]["shadow"] == {"score": 0.2}


def test_history_may_be_empty(tmp_path):
    Store(tmp_path, lambda: NOW).close()
    assert "no update has ended yet" in run("history", "--state", tmp_path).output


def test_rollback_leaves_a_request(state):
    done = run("rollback", "main", "--reason", "misses parts", "--state", state)
    assert done.exit_code == 0
    assert "slot main goes back from line 2 to line 1" in done.output
    (found,) = waiting(state)
    assert found.request is not None
    assert (found.request.slot, found.request.digest) == ("main", digest_of(2))
    assert found.request.reason == "misses parts"


def test_rollback_finds_the_one_slot_itself(state):
    done = run("rollback", "--state", state, "--json")
    assert json.loads(done.stdout) == {"slot": "main", "from": digest_of(2), "to": digest_of(1)}


def test_rollback_works_while_the_agent_holds_the_state(state):
    store = Store(state, lambda: NOW)
    assert run("rollback", "--state", state).exit_code == 0
    (found,) = waiting(state)
    assert found.request is not None
    assert store.active("main").digest == found.request.digest
    store.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nosuch"], "nosuch serves its configured model"),
        (["main", "--reason", "two\nlines"], "one line of printable text"),
    ],
)
def test_rollback_refuses_what_cannot_be(state, arguments, words):
    done = run("rollback", *arguments, "--state", state)
    assert isinstance(done.exception, ConfigError)
    assert words in str(done.exception)
    assert waiting(state) == ()


def test_rollback_refuses_when_nothing_is_kept(state):
    store = Store(state, lambda: NOW)
    store.roll_back("main", "worse")
    store.close()
    for arguments, words in ((["main"], "not kept any more"), ([], "those that can go back: none")):
        done = run("rollback", *arguments, "--state", state)
        assert isinstance(done.exception, ConfigError)
        assert words in str(done.exception)


def configuration(tmp_path, updates):
    path = tmp_path / "agent.yaml"
    path.write_text(
        "mqtt: {host: h}\ncameras: {a: {source: 'synthetic://64x64@30', model: other}}\n"
        f"models: {{other: {{path: m.onnx}}}}\n{updates}"
    )
    return path


def test_the_configuration_says_where_the_state_is_and_which_slots_there_are(tmp_path, state):
    config = configuration(tmp_path, f"updates: {{state_dir: {state}}}\n")
    shown = json.loads(run("status", "-c", config, "--json").stdout)
    assert [(s["slot"], s["state"]) for s in shown["slots"]] == [
        ("main", "REJECTED"),
        ("other", "IDLE"),
    ]


def test_a_configuration_without_updates_is_told(tmp_path):
    done = run("status", "-c", configuration(tmp_path, ""))
    assert isinstance(done.exception, ConfigError)
    assert "model updates are not configured (key `updates`)" in str(done.exception)


def test_all_commands_are_there():
    assert {c.name for c in update.registered_commands} == {"status", "history", "rollback"}
