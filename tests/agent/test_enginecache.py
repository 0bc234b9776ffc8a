"""`vigia engine list`, `show` and `prune` on a cache with plans in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent.cli import app
from agent.errors import ConfigError
from agent.plans import PLANS_FOLDER, open_cache
from engines.plan import PlanKey

REPORT = {
    "chosen": {"backend": "openvino", "precision": "int8", "route": "r", "speedup": 2.5},
    "rows": [],
}


def key(number: int) -> PlanKey:
    return PlanKey({"model": {"digest": "sha256:00"}, "number": number})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A cache folder with three plans of a megabyte; number 0 was used last."""
    cache = open_cache(tmp_path)
    for number in range(3):
        sidecar = {
            "model": f"model-{number}",
            "backend": "openvino",
            "precision": "int8",
            "route": "unsigned q/dq graph",
            "report": REPORT,
        }
        assert cache.put(key(number), bytes(1 << 20), sidecar)
    assert cache.get(key(0)) is not None
    return tmp_path


def vigia(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["engine", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done.stdout


def test_plans_are_listed_most_recently_used_first(folder: Path):
    rows = json.loads(vigia("list", "--cache-dir", folder, "--json"))
    assert [row["model"] for row in rows] == ["model-0", "model-2", "model-1"]
    assert rows[0]["plan"] == key(0).hex
    assert (rows[0]["backend"], rows[0]["precision"]) == ("openvino", "int8")
    assert rows[0]["speedup"] == 2.5
    assert rows[0]["bytes"] > 1 << 20
    assert rows[0]["problem"] == ""


def test_the_list_for_people_has_a_line_for_each(folder: Path):
    told = vigia("list", "--cache-dir", folder)
    lines = told.splitlines()
    assert len(lines) == 4
    for word in (key(0).hex[:12], "model-0", "openvino", "int8", "2.50"):
        assert word in lines[1]


def test_a_damaged_plan_is_listed_with_what_is_wrong(folder: Path):
    (folder / PLANS_FOLDER / f"{key(1).hex}.plan").write_bytes(b"short")
    rows = json.loads(vigia("list", "--cache-dir", folder, "--json"))
    problems = {row["plan"]: row["problem"] for row in rows}
    assert "5 bytes instead of" in problems[key(1).hex]
    assert problems[key(0).hex] == ""
    assert "5 bytes instead of" in vigia("list", "--cache-dir", folder)


def test_markup_and_control_characters_of_a_model_name_are_not_obeyed(tmp_path: Path):
    open_cache(tmp_path).put(key(0), b"x", {"model": "[bold]x[/bold]\x1b[31m"})
    told = vigia("list", "--cache-dir", tmp_path)
    assert "[bold]x[/bold]" in told
    assert "\x1b" not in told


def test_an_empty_cache_says_so(tmp_path: Path):
    assert "no engine has been built" in vigia("list", "--cache-dir", tmp_path)
    assert json.loads(vigia("list", "--cache-dir", tmp_path, "--json")) == []
    assert "removed 0" in vigia("prune", "--cache-dir", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_plan_is_shown_by_any_beginning_that_is_its_own(folder: Path):
    for prefix in (key(1).hex, key(1).hex[:12], key(1).hex[:8].upper()):
        shown = json.loads(vigia("show", prefix, "--cache-dir", folder, "--json"))
        assert shown["plan"] == key(1).hex
        assert shown["key"] == key(1).parts
        assert shown["sidecar"]["route"] == "unsigned q/dq graph"
    told = vigia("show", key(1).hex[:12], "--cache-dir", folder)
    assert key(1).hex in told
    assert '"number": 1' in told


@pytest.mark.parametrize(("prefix", "count"), [("", 3), ("zz", 0)])
def test_a_beginning_of_none_or_of_several_is_refused(folder: Path, prefix, count):
    done = CliRunner().invoke(app, ["engine", "show", prefix, "--cache-dir", str(folder)])
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception).startswith(f"{count} plans begin with {prefix!r}")


def test_pruning_keeps_what_was_used_last(folder: Path):
    told = json.loads(vigia("prune", "--max-mb", 2, "--cache-dir", folder, "--json"))
    # Sealed and described, two plans of a megabyte take a little more than two.
    assert told["removed"] == [key(1).hex, key(2).hex]
    assert [row["model"] for row in json.loads(vigia("list", "--cache-dir", folder, "--json"))] == [
        "model-0"
    ]


def test_pruning_all_leaves_none(folder: Path):
    assert "removed 3 engines; 0 are kept" in vigia("prune", "--all", "--cache-dir", folder)
    assert list((folder / PLANS_FOLDER).iterdir()) == []


def test_pruning_without_a_size_removes_only_what_is_too_much_or_rubbish(folder: Path):
    rubbish = folder / PLANS_FOLDER / "tmp-0123"
    rubbish.write_bytes(b"half")
    assert "removed 0 engines; 3 are kept" in vigia("prune", "--cache-dir", folder)
    assert not rubbish.exists()


def test_place_and_size_come_from_the_configuration(folder: Path):
    config = folder / "agent.yaml"
    config.write_text(
        "mqtt: {host: h}\ncameras: {a: {source: 'synthetic://64x64@30'}}\n"
        f"pipeline: {{cache_dir: '{folder}', cache_max_mb: 16}}\n"
    )
    open_cache(folder).put(key(3), bytes(14 << 20), {})
    assert len(json.loads(vigia("list", "-c", config, "--json"))) == 4
    assert "removed 2 engines; 2 are kept" in vigia("prune", "-c", config)
