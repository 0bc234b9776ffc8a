from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines import plan as plan_module
from engines.errors import PlanError
from engines.plan import PlanCache, PlanKey
from engines.seal import FileKey, Sealer
from engines.sidecar import MAX_BYTES
from tests.engines.test_canonical import SCALARS, VALUES, typed

MEBIBYTE = 1 << 20
NOBODY = 65534
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
BLOB = bytes(range(256)) * 4


def make(folder: Path, max_bytes: int = 64 * MEBIBYTE) -> PlanCache:
    return PlanCache(folder / "plans", Sealer(FileKey(folder / "device.key")), max_bytes)


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    return make(tmp_path)


def key(number: int = 0) -> PlanKey:
    return PlanKey({"model": "sha256:00", "number": number})


def files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "plans").iterdir())


# Keys


@settings(deadline=None)
@given(st.dictionaries(st.text(), VALUES, min_size=1), st.data())
def test_changing_any_one_value_makes_another_key(parts, data):
    name = data.draw(st.sampled_from(sorted(parts)))
    value = data.draw(SCALARS.filter(lambda new: typed(new) != typed(parts[name])))
    changed = PlanKey({**parts, name: value})
    assert changed.hex != PlanKey(parts).hex
    assert changed != PlanKey(parts)


@settings(deadline=None)
@given(st.dictionaries(st.text(), VALUES))
def test_equal_parts_in_any_order_make_the_same_key(parts):
    other = PlanKey(dict(reversed(parts.items())))
    assert other.hex == PlanKey(parts).hex
    assert other == PlanKey(parts)
    assert typed(other.parts) == typed(parts)


def test_a_key_does_not_follow_later_changes_of_what_it_was_made_of():
    parts = {"nested": [1]}
    made = PlanKey(parts)
    parts["nested"].append(2)
    assert made.parts == {"nested": [1]}


# Keeping and finding


def test_what_was_put_is_found_with_its_facts_and_is_private(cache, tmp_path: Path):
    assert cache.get(key()) is None
    facts = {"route": "strong", "timings": {"p50_ms": 1.5}, "reasons": ("a", "b"), "cos": [1, None]}
    assert cache.put(key(), BLOB, facts)
    found = cache.get(key())
    assert (found.hex, found.blob) == (key().hex, BLOB)
    assert found.sidecar == {**facts, "reasons": ["a", "b"]}
    assert cache.get(key(1)) is None
    assert files(tmp_path) == [f"{key().hex}.json", f"{key().hex}.plan"]
    for path in (tmp_path / "plans").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        assert BLOB[:32] not in path.read_bytes()
    assert (tmp_path / "plans").stat().st_mode & 0o777 == 0o700


def test_another_process_or_a_later_start_finds_it(cache, tmp_path: Path):
    cache.put(key(), BLOB, {})
    assert make(tmp_path).get(key()).blob == BLOB


def test_an_empty_plan_is_kept_too(cache):
    assert cache.put(key(), b"", {})
    assert cache.get(key()).blob == b""


def test_putting_again_replaces_plan_and_facts(cache, tmp_path: Path):
    cache.put(key(), b"old", {"route": "old"})
    cache.put(key(), b"new", {"route": "new"})
    assert (cache.get(key()).blob, cache.get(key()).sidecar) == (b"new", {"route": "new"})
    assert len(files(tmp_path)) == 2


def test_figures_that_are_no_numbers_are_kept_as_unknown(cache):
    assert cache.put(key(), BLOB, {"cosine": float("nan"), "all": [float("inf"), 1.0]})
    assert cache.get(key()).sidecar == {"cosine": None, "all": [None, 1.0]}


def test_facts_that_json_cannot_say_are_the_callers_mistake(cache):
    with pytest.raises(TypeError, match="path"):
        cache.put(key(), BLOB, {"path": Path("x")})


def test_the_sidecar_can_be_read_by_people(cache, tmp_path: Path):
    cache.put(key(), BLOB, {"route": "strong"})
    document = json.loads((tmp_path / "plans" / f"{key().hex}.json").read_text())
    assert document["schema"] == "vigia.plan/1"
    assert document["key"] == {"model": "sha256:00", "number": 0}
    assert document["facts"] == {"route": "strong"}
    assert abs(document["created_s"] - time.time()) < 60
    assert document["sealed"]["bytes"] == (tmp_path / "plans" / f"{key().hex}.plan").stat().st_size


def test_a_description_that_is_too_long_is_not_kept(cache, tmp_path: Path, caplog):
    assert not cache.put(key(), BLOB, {"log": "x" * MAX_BYTES})
    assert "description has" in caplog.text
    assert cache.put(key(), BLOB, {"log": "x" * (MAX_BYTES // 2)})


# Damage


def damaged(tmp_path: Path, cache: PlanCache, caplog) -> str:
    """Look a damaged plan up: it must be refused, removed, said once, and can be made anew."""
    caplog.clear()
    assert cache.get(key()) is None
    assert files(tmp_path) == []
    warnings = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert cache.put(key(), BLOB, {})
    assert cache.get(key()).blob == BLOB
    return warnings[0].getMessage()


@pytest.mark.parametrize("suffix", ["plan", "json"])
@settings(deadline=None)
@given(data=st.data())
def test_a_flipped_bit_anywhere_in_either_file_is_refused(data, suffix, tmp_path_factory):
    folder = tmp_path_factory.mktemp("flip")
    cache = make(folder)
    cache.put(key(), BLOB, {"route": "x", "gate": {"passed": True}})
    path = folder / "plans" / f"{key().hex}.{suffix}"
    content = bytearray(path.read_bytes())
    place = int(data.draw(st.floats(0, 1, exclude_max=True)) * len(content))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    assert cache.get(key()) is None
    assert files(folder) == []


@pytest.mark.parametrize("suffix", ["plan", "json"])
@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_truncated_file_is_refused(cache, tmp_path: Path, caplog, suffix, keep):
    cache.put(key(), BLOB, {})
    path = tmp_path / "plans" / f"{key().hex}.{suffix}"
    path.write_bytes(path.read_bytes()[:keep])
    damaged(tmp_path, cache, caplog)


@pytest.mark.parametrize("suffix", ["plan", "json"])
def test_a_file_that_is_missing_or_too_long_is_refused(cache, tmp_path: Path, caplog, suffix):
    path = tmp_path / "plans" / f"{key().hex}.{suffix}"
    cache.put(key(), BLOB, {})
    path.unlink()
    assert "interrupted" in damaged(tmp_path, cache, caplog)
    with path.open("ab") as file:
        file.truncate(path.stat().st_size + 2 * MAX_BYTES)
    damaged(tmp_path, make(tmp_path), caplog)


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"null", b"[]", b'"x"', b"{}", b"[" * 100_000, b'{"schema":"vigia.plan/2"}',
     b'{"schema":"vigia.plan/1","sealed":[]}'],
)  # fmt: skip
def test_a_sidecar_of_another_form_is_refused(cache, tmp_path: Path, caplog, content):
    cache.put(key(), BLOB, {})
    (tmp_path / "plans" / f"{key().hex}.json").write_bytes(content)
    assert "description" in damaged(tmp_path, cache, caplog)


@settings(deadline=None)
@given(garbage=st.binary(max_size=300))
def test_garbage_never_raises(garbage, tmp_path_factory):
    folder = tmp_path_factory.mktemp("garbage")
    (folder / "plans").mkdir()
    for suffix in ("plan", "json"):
        (folder / "plans" / f"{key().hex}.{suffix}").write_bytes(garbage)
    assert make(folder).get(key()) is None


def test_a_plan_replaced_by_another_valid_one_is_refused(cache, tmp_path: Path, caplog):
    plans = tmp_path / "plans"
    for number in (0, 1):
        cache.put(key(number), b"plan %d" % number, {})
    # Both files, so that digest and size agree; the description still says whose it is.
    for suffix in ("plan", "json"):
        (plans / f"{key(1).hex}.{suffix}").replace(plans / f"{key().hex}.{suffix}")
    assert "another plan's" in damaged(tmp_path, cache, caplog)


def test_a_plan_moved_with_a_forged_sidecar_is_refused(cache, tmp_path: Path, caplog):
    plans = tmp_path / "plans"
    for number in (0, 1):
        cache.put(key(number), b"plan %d" % number, {})
    (plans / f"{key(1).hex}.plan").replace(plans / f"{key().hex}.plan")
    sidecars = [plans / f"{key(number).hex}.json" for number in (0, 1)]
    own, other = (json.loads(path.read_text()) for path in sidecars)
    sidecars[0].write_text(json.dumps({**own, "sealed": other["sealed"]}, indent=1) + "\n")
    sidecars[1].unlink()
    assert "altered" in damaged(tmp_path, cache, caplog)


def test_a_plan_moved_with_a_sidecar_that_names_the_other_key_is_refused(
    cache, tmp_path: Path, caplog
):
    plans = tmp_path / "plans"
    cache.put(key(1), b"plan 1", {})
    (plans / f"{key(1).hex}.plan").rename(plans / f"{key().hex}.plan")
    sidecar = (plans / f"{key(1).hex}.json").rename(plans / f"{key().hex}.json")
    sidecar.write_text(sidecar.read_text().replace(key(1).hex, key().hex))
    assert "altered" in damaged(tmp_path, cache, caplog)


def test_a_sidecar_that_claims_another_result_is_refused(cache, tmp_path: Path, caplog):
    cache.put(key(), BLOB, {"gate": "failed"})
    path = tmp_path / "plans" / f"{key().hex}.json"
    path.write_text(path.read_text().replace("failed", "passed"))
    assert "altered" in damaged(tmp_path, cache, caplog)


def test_after_the_devices_key_is_lost_every_plan_is_foreign_and_rebuilt(
    cache, tmp_path: Path, caplog
):
    cache.put(key(), BLOB, {})
    (tmp_path / "device.key").unlink()
    assert "another key" in damaged(tmp_path, cache, caplog)


def test_a_key_that_cannot_be_used_costs_no_plan(cache, tmp_path: Path, caplog):
    cache.put(key(), BLOB, {})
    (tmp_path / "device.key").chmod(0o644)
    for _ in range(3):
        assert cache.get(key()) is None
        assert not cache.put(key(1), BLOB, {})
    assert [r.getMessage().count("chmod 600") for r in caplog.records] == [1, 1]
    (tmp_path / "device.key").chmod(0o600)
    assert cache.get(key()).blob == BLOB


# The disk


def test_a_folder_that_is_a_file_is_no_reason_to_stop(tmp_path: Path, caplog):
    (tmp_path / "plans").write_text("not a folder")
    cache = make(tmp_path)
    for _ in range(3):
        assert cache.get(key()) is None
        assert not cache.put(key(), BLOB, {})
        with cache.lock(key(), 1) as held:
            assert not held
    assert len(caplog.records) == 3
    with pytest.raises(PlanError, match="cannot be used"):
        cache.entries()


def test_without_a_folder_there_is_nothing_and_nothing_is_wrong(cache, tmp_path: Path, caplog):
    assert cache.get(key()) is None
    assert cache.entries() == cache.remove("") == cache.prune(0) == []
    assert caplog.records == []
    assert not (tmp_path / "plans").exists()


def as_nobody(folder: Path, code: str) -> str:
    """Run `code` with the cache `cache` and the key `key` as a user without rights."""
    prelude = (
        "import sys, pathlib, logging; logging.basicConfig(format='%(message)s');"
        "from engines.plan import *; from engines.seal import *;"
        "from tests.engines.test_plan import FixedKey, key\n"
        f"cache = PlanCache(pathlib.Path({str(folder)!r}), Sealer(FixedKey()), 1 << 26)\n"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", prelude + "import os; os.setgroups([]);"
         f"os.setgid({NOBODY}); os.setuid({NOBODY})\n" + code],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


class FixedKey:
    def key(self) -> bytes:
        return bytes(32)


@ROOT_ONLY
def test_a_folder_that_may_only_be_read_still_gives_plans(tmp_path: Path):
    tmp_path.chmod(0o755)
    for above in tmp_path.parents:
        # Folders of pytest, and of its worker processes.
        if above.stat().st_uid == os.getuid() and above.name.startswith(("pytest", "popen")):
            above.chmod(0o755)
    folder = tmp_path / "plans"
    cache = PlanCache(folder, Sealer(FixedKey()), MEBIBYTE)
    cache.put(key(), BLOB, {})
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)
    told = as_nobody(
        folder,
        "assert cache.get(key()).blob == bytes(range(256)) * 4\n"
        "for _ in range(3):\n"
        "    assert cache.put(key(1), b'x', {}) is False\n"
        "    with cache.lock(key(1), 1) as held: assert not held\n",
    )
    assert told.count("Permission denied") == 2
    # A damaged one cannot be removed there, and is still not used.
    path = folder / f"{key().hex}.plan"
    path.write_bytes(path.read_bytes()[:-1])
    told = as_nobody(folder, "for _ in range(3): assert cache.get(key()) is None")
    assert len(told.splitlines()) == 2
    assert path.exists()


@ROOT_ONLY
def test_a_folder_of_another_user_that_may_not_be_read_is_no_reason_to_stop(tmp_path: Path):
    tmp_path.chmod(0o755)
    for above in tmp_path.parents:
        # Folders of pytest, and of its worker processes.
        if above.stat().st_uid == os.getuid() and above.name.startswith(("pytest", "popen")):
            above.chmod(0o755)
    folder = tmp_path / "plans"
    PlanCache(folder, Sealer(FixedKey()), MEBIBYTE).put(key(), BLOB, {})
    told = as_nobody(
        folder,
        "for _ in range(3):\n"
        "    assert cache.get(key()) is None\n"
        "    assert cache.put(key(), b'x', {}) is False\n"
        "    with cache.lock(key(), 1) as held: assert not held\n",
    )
    assert len(told.splitlines()) == 3


def test_a_full_disk_keeps_what_was_there_and_leaves_nothing_behind(tmp_path: Path):
    """A file size limit makes the kernel refuse the bytes half way, as a full disk does."""
    cache = make(tmp_path)
    cache.put(key(), BLOB, {"route": "old"})
    before = files(tmp_path)
    code = (
        "import resource, sys, pathlib\n"
        "from tests.engines.test_plan import make, key\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        f"cache = make(pathlib.Path({str(tmp_path)!r}))\n"
        "for number in (0, 1): assert cache.put(key(number), b'x' * 100_000, {}) is False\n"
        "assert cache.put(key(2), b'small', {}) is True\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stderr
    assert set(files(tmp_path)) == {*before, f"{key(2).hex}.plan", f"{key(2).hex}.json"}
    assert cache.get(key()).blob == BLOB


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 256 KiB; skipped where none may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("no file system may be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_really_full_refuses_and_recovers(small_disk: Path, caplog):
    cache = make(small_disk)
    assert cache.put(key(), b"x" * 100_000, {})
    for _ in range(3):
        assert not cache.put(key(1), b"y" * 200_000, {})
    assert [r.getMessage().count("No space left") for r in caplog.records] == [1]
    assert cache.get(key()).blob == b"x" * 100_000
    assert len(files(small_disk)) == 2
    assert cache.put(key(1), b"y" * 50_000, {})


# The size limit


def test_the_least_recently_used_plan_goes_first(tmp_path: Path):
    cache = make(tmp_path, max_bytes=35_000)
    for number in range(3):
        assert cache.put(key(number), bytes(10_000), {})
    assert cache.get(key(0)) is not None
    assert cache.put(key(3), bytes(10_000), {})
    assert [cache.get(key(n)) is not None for n in range(4)] == [True, False, True, True]


def test_the_order_of_use_survives_any_clock(tmp_path: Path, monkeypatch):
    cache = make(tmp_path)
    for number, now_s in enumerate([2e9, 0.0, 1.5e9, -1.0]):
        monkeypatch.setattr(plan_module.time, "time", lambda now_s=now_s: now_s)
        cache.put(key(number), BLOB, {})
    cache.get(key(1))
    order = [1, 3, 2, 0]
    assert [entry.hex for entry in cache.entries()] == [key(n).hex for n in order]
    # A restored copy has the clock's times; the next use puts the order right again.
    newest = tmp_path / "plans" / f"{key(0).hex}.plan"
    os.utime(newest, (4e9, 4e9))
    cache.get(key(2))
    assert [entry.hex for entry in cache.entries()] == [key(n).hex for n in (2, 0, 1, 3)]


def test_a_plan_larger_than_the_cache_is_not_kept_and_costs_no_other(tmp_path: Path, caplog):
    cache = make(tmp_path, max_bytes=20_000)
    cache.put(key(), BLOB, {})
    assert not cache.put(key(1), bytes(30_000), {})
    assert "allow it more" in caplog.text
    assert cache.get(key()) is not None


def test_pruning_removes_to_the_size_asked_for_and_all_rubbish(cache, tmp_path: Path):
    plans = tmp_path / "plans"
    for number in range(3):
        cache.put(key(number), bytes(10_000), {})
    (plans / "tmp-0123").write_bytes(b"half")
    (plans / f"{key(8).hex}.plan").write_bytes(b"without a description")
    (plans / f"{key(9).hex}.lock").write_bytes(b"")
    (plans / "note.txt").write_text("of somebody else")
    assert cache.prune(25_000) == [key(0).hex]
    assert len(files(tmp_path)) == 5
    assert cache.prune(0) == [key(1).hex, key(2).hex]
    assert files(tmp_path) == ["note.txt"]


def test_a_held_lock_is_no_rubbish(cache, tmp_path: Path):
    with cache.lock(key(), 1) as held:
        assert held
        cache.put(key(1), BLOB, {})
        assert f"{key().hex}.lock" in files(tmp_path)
        with cache.lock(key(), 0) as again:
            assert not again


# Looking and removing


def test_entries_tell_what_there_is_and_what_is_wrong_with_it(cache, tmp_path: Path):
    for number in range(3):
        cache.put(key(number), BLOB, {"number": number})
    (tmp_path / "plans" / f"{key(1).hex}.json").write_text("damaged")
    (tmp_path / "plans" / f"{key(2).hex}.plan").write_bytes(b"short")
    third, second, first = cache.entries()
    assert (first.hex, first.sidecar, first.problem) == (key(0).hex, {"number": 0}, "")
    assert first.key == key(0).parts
    assert first.bytes > len(BLOB)
    assert "description is damaged" in second.problem
    assert "5 bytes instead of" in third.problem
    assert len(files(tmp_path)) == 6


def test_removing_takes_every_plan_that_begins_so(cache):
    for number in range(20):
        cache.put(key(number), BLOB, {})
    first = key(7).hex
    expected = sorted(key(n).hex for n in range(20) if key(n).hex.startswith(first[0]))
    assert cache.remove(first) == [first]
    assert sorted(cache.remove(first[0])) == [h for h in expected if h != first]
    assert cache.get(key(7)) is None
    assert len(cache.remove("")) == 20 - len(expected)


# Several processes


BUILDER = """
import sys, pathlib, os
from tests.engines.test_plan import make, key
folder = pathlib.Path(sys.argv[1])
cache = make(folder)
sys.stdin.read(1)
with cache.lock(key(), 30) as held:
    assert held
    found = cache.get(key())
    if found is None:
        (folder / f"built-{os.getpid()}").touch()
        cache.put(key(), b"blob" * 1000, {"by": os.getpid()})
        found = cache.get(key())
    print(found.sidecar["by"])
"""

WRITER = """
import sys, pathlib
from tests.engines.test_plan import make, key
cache = make(pathlib.Path(sys.argv[1]))
print("ready", flush=True)
number = int(sys.argv[2])
while True:
    number += 1
    assert cache.put(key(number % 3), bytes([number % 256]) * 200_000, {"number": number % 256})
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_two_processes_that_want_the_same_plan_build_it_once(tmp_path: Path):
    children = [start(BUILDER, tmp_path) for _ in range(3)]
    for child in children:
        child.stdin.write("g")
        child.stdin.flush()
    by = {child.communicate(timeout=50)[0] for child in children}
    assert [child.returncode for child in children] == [0, 0, 0]
    assert len(by) == 1
    assert len(list(tmp_path.glob("built-*"))) == 1
    assert files(tmp_path) == [f"{key().hex}.json", f"{key().hex}.plan"]


def test_killed_at_any_moment_nothing_wrong_is_ever_read(tmp_path: Path, caplog):
    """Writers are killed at different moments while this process reads along."""
    cache = make(tmp_path)
    hits = 0
    for round_ in range(8):
        child = start(WRITER, tmp_path, round_)
        assert child.stdout.readline() == "ready\n"
        killer = threading.Timer(0.05 + 0.013 * round_, child.kill)
        killer.start()
        while child.poll() is None:
            for number in range(3):
                found = cache.get(key(number))
                if found is not None:
                    assert found.blob == bytes([found.sidecar["number"]]) * 200_000
                    hits += 1
        killer.join()
        child.communicate()
        assert child.returncode == -9
    assert hits > 20
    # All that a kill may leave is a plan that was half replaced; never one that is not as written.
    assert {r.getMessage().rpartition(": ")[2] for r in caplog.records} <= {
        "writing it was interrupted; going on without"
    }
    cache.put(key(9), BLOB, {})
    names = files(tmp_path)
    assert not [name for name in names if not name.endswith((".plan", ".json"))]
    assert len({name[:64] for name in names}) * 2 == len(names)


def test_threads_of_one_process_may_use_it_together(cache):
    failures: list[object] = []

    def work(number: int) -> None:
        for turn in range(15):
            cache.put(key(number % 2), bytes([turn]) * 1000, {"turn": turn})
            found = cache.get(key(number % 2))
            if found is None or found.blob != bytes([found.sidecar["turn"]]) * 1000:
                failures.append(found)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert failures == []
