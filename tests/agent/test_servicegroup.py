from pathlib import Path

import pytest

from agent.servicegroup import BUILD_WEIGHT, claim, put_aside

UNIT = "system.slice/vigia-agent.service"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What the kernel would show: files that are there, and are never made by a write."""
    for group in ("", "main", "build"):
        folder = tmp_path / "tree" / UNIT / group
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("cgroup.procs", "cgroup.subtree_control", "cpu.weight"):
            (folder / name).touch()
    return tmp_path / "tree"


def own(tmp_path: Path, group: str) -> Path:
    path = tmp_path / "own"
    path.write_text(f"4:memory:/elsewhere\n0::/{group}\n")
    return path


def text(tree: Path, name: str) -> str:
    return (tree / UNIT / name).read_text()


def test_agent_moves_into_its_own_group_and_builds_weigh_less(tree, tmp_path):
    assert claim(tree, own(tmp_path, UNIT))
    assert text(tree, "main/cgroup.procs") == "0"
    assert text(tree, "build/cpu.weight") == str(BUILD_WEIGHT)
    assert text(tree, "main/cpu.weight") == ""


def test_controller_that_is_not_given_is_done_without(tree, tmp_path):
    (tree / UNIT / "cgroup.subtree_control").unlink()
    assert claim(tree, own(tmp_path, UNIT))
    assert not (tree / UNIT / "cgroup.subtree_control").exists()
    assert not (tree / UNIT / "build/io.weight").exists()


@pytest.mark.parametrize("group", ["user.slice/session-1.scope", "", f"{UNIT}/main"])
def test_nobody_elses_group_is_touched(tree, tmp_path, group):
    assert not claim(tree, own(tmp_path, group))
    assert text(tree, "main/cgroup.procs") == ""


def test_without_version_two_of_groups_nothing_happens(tree, tmp_path):
    path = tmp_path / "own"
    path.write_text(f"1:name=systemd:/{UNIT}\n")
    assert not claim(tree, path)
    assert not claim(tree, tmp_path / "absent")


def test_group_that_cannot_be_written_costs_only_the_weight(tmp_path):
    assert not claim(tmp_path / "no tree", own(tmp_path, UNIT))


def test_child_is_put_aside_once_the_groups_are_there(tree, tmp_path):
    assert not put_aside(17, tree, own(tmp_path, UNIT))
    assert put_aside(17, tree, own(tmp_path, f"{UNIT}/main"))
    assert text(tree, "build/cgroup.procs") == "17"


def test_child_stays_where_the_group_refuses_it(tree, tmp_path):
    (tree / UNIT / "build/cgroup.procs").unlink()
    assert not put_aside(17, tree, own(tmp_path, f"{UNIT}/main"))
