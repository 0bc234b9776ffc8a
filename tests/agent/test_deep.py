"""`vigia check --deep` on machines made of files, and on answers made by hand."""

import ast
import signal
import socket
import struct
import threading
import time
from pathlib import Path

import pytest

from agent import (
    check,
    deep,
    deepbroker,
    deepcamera,
    deepclock,
    deephost,
    deeprights,
    deepversions,
)
from agent.capture import rtsp_reason
from agent.capture.packets import Stream
from agent.check import Finding
from agent.config import Config
from agent.deep import deep_check, probes
from agent.deepfix import completed, fix_for
from agent.deepmachine import MAX_FILE_BYTES, Machine, Ran
from agent.deepmatrix import RELEASES, judge, release_of
from agent.doctor_host import Host, HostFiles, Zone
from agent.jetson import BoardFiles, Readings
from tests.fakes import jetson

JETPACK_6 = {"python": "3.10.12", "cuda": "12.6.11", "tensorrt": "10.3.0", "opencv": "4.8.0",
             "pycuda": "2025.1"}  # fmt: skip


class Another(Machine):
    """The files of another machine, and what its programs say."""

    def __init__(self, root, answers=None):
        super().__init__(root)
        self.answers = answers or {}

    def run(self, command, timeout_s=0.0):
        del timeout_s
        return self.answers.get(command[-1], self.answers.get(command[0]))


def write(root: Path, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def by_name(findings):
    return {f.name: f for f in findings}


def bad(findings):
    return {f.name: f.status for f in findings if f.status != "ok"}


def test_every_release_of_the_table_has_a_source_and_follows_the_one_before():
    assert all(r.source and r.python and r.tensorrt for r in RELEASES)
    ends = [end for r in RELEASES for end in r.l4t]
    assert ends == sorted(ends)


@pytest.mark.parametrize(
    ("l4t", "jetpack"),
    [("36.4.3", "6.1 to 6.2"), ("36.3.0", "6.0"), ("35.4.1", "5.1"), ("38.2", "7.0 to 7.1"),
     ("39.2.1", "7.2")],
)  # fmt: skip
def test_jetpack_is_told_by_its_linux(l4t, jetpack):
    assert release_of(l4t).jetpack == jetpack


def test_versions_that_belong_together_are_good():
    assert not bad(judge("36.4.3", JETPACK_6))


@pytest.mark.parametrize(
    ("change", "name", "status", "fix"),
    [
        ({"python": "3.11.2"}, "python", "fail", "python3.10 -m venv"),
        ({"tensorrt": "10.30.1"}, "tensorrt", "fail", "nvidia-tensorrt"),
        ({"tensorrt": None}, "tensorrt", "warn", "nvidia-tensorrt"),
        ({"cuda": "13.0"}, "cuda", "fail", "nvidia-cuda"),
        ({"opencv": "5.0.0"}, "opencv", "warn", "--system-site-packages"),
        ({"pycuda": None}, "pycuda", "warn", "pycuda"),
    ],
)
def test_one_version_that_does_not_belong_is_told_alone_with_its_fix(change, name, status, fix):
    findings = list(judge("36.4.3", {**JETPACK_6, **change}))
    assert bad(findings) == {name: status}
    assert fix in by_name(findings)[name].fix


def test_an_old_jetpack_is_refused_and_an_unknown_one_is_not():
    assert bad(judge("35.4.1", JETPACK_6)) == {"jetpack": "fail"}
    assert bad(judge("40.1", JETPACK_6)) == {"jetpack": "warn"}
    assert not bad(judge("", {}))


def test_the_versions_of_a_board_are_read_from_its_files(tmp_path):
    write(tmp_path, {**jetson.FILES, "usr/local/cuda/version.json":
          '{"cuda": {"name": "SDK", "version": "12.6.11"}, "x": {"version": "1"}}'})  # fmt: skip
    answers = dict.fromkeys((*deepversions.NEEDED, *deepversions.OPTIONAL), Ran(0, "1.0\n"))
    answers["cv2"] = Ran(0, "4.8.0\ngstreamer\n")
    answers["tensorrt"] = Ran(0, "8.6.2\n")
    found = by_name(deepversions.look(Another(tmp_path, answers)))
    assert found["cuda"].what.startswith("12.6.11, as JetPack 6.1")
    assert (found["tensorrt"].status, found["opencv"].status) == ("fail", "ok")
    assert found["wheels"].status == "ok"


@pytest.mark.parametrize(
    ("ran", "status", "what", "fix"),
    [
        (Ran(-signal.SIGILL, ""), "fail", "instruction", "OPENBLAS_CORETYPE"),
        (Ran(-signal.SIGSEGV, ""), "fail", "signal 11", "anew"),
        (Ran(1, "", "ImportError: numpy.core.multiarray failed to import"), "fail", "numpy",
         "numpy<2"),
        (Ran(1, "", "ImportError: libGL.so.1: cannot open"), "fail", "libGL", "headless"),
        (None, "fail", "60 s", "disk"),
    ],
)  # fmt: skip
def test_a_library_that_cannot_be_imported_says_why(ran, status, what, fix):
    (finding,) = [f for f in deepversions.wheels({"cv2": ran}, jetson=False) if f.status != "ok"]
    assert (finding.name, finding.status) == ("wheels.cv2", status)
    assert what in finding.what
    assert fix in finding.fix


def test_an_optional_library_that_is_not_there_is_no_finding_but_a_broken_one_is():
    absent = Ran(1, "", "ModuleNotFoundError: No module named 'tensorrt'")
    broken = Ran(1, "", "ImportError: libnvdla_compiler.so: cannot open shared object file")
    assert not bad(deepversions.wheels({"tensorrt": absent}, jetson=False))
    assert bad(deepversions.wheels({"tensorrt": broken}, jetson=False)) == {
        "wheels.tensorrt": "warn"
    }


def test_opencv_without_gstreamer_is_told_on_a_jetson_only():
    ran = {"cv2": Ran(0, "5.0.0\n-\n")}
    assert bad(deepversions.wheels(ran, jetson=True)) == {"wheels.cv2": "warn"}
    assert not bad(deepversions.wheels(ran, jetson=False))


def test_a_jetson_below_its_fastest_mode_is_told_how_to_change_it(tmp_path):
    write(tmp_path, jetson.FILES)
    host = HostFiles(tmp_path).read()
    assert not bad(deephost.power(host))
    write(tmp_path, {"var/lib/nvpmodel/status": "pmode:0000 fmode:cool\n"})
    found = by_name(deephost.power(HostFiles(tmp_path).read()))["power"]
    assert (found.status, "nvpmodel -m 2" in found.fix) == ("warn", True)


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        (Readings(zones=(Zone("cpu", 50.0, 99.0),)), {}),
        (Readings(zones=(Zone("cpu", 95.0, 99.0),)), {"thermal": "warn"}),
        (Readings(capping=("cpufreq-cpu0",)), {"thermal": "fail"}),
        (Readings(overcurrent={"oc3": 4}), {"power.overcurrent": "warn"}),
        (Readings(hot_events=3), {"thermal.events": "warn"}),
    ],
)
def test_heat_and_over_current_are_told_with_a_fix(readings, expected):
    findings = list(deephost.heat(readings))
    found = {f.name: f.status for f in findings if f.status != "ok"}
    assert found == expected
    assert all(f.fix for f in findings if f.status != "ok")


def test_little_memory_is_told():
    host = Host(memory_total=2**31, memory_available=2**28)
    assert bad(deephost.memory(host)) == {"memory": "warn"}


def test_a_small_disk_is_told_also_for_a_folder_that_is_still_to_be_made(tmp_path, monkeypatch):
    place = tmp_path / "not" / "there"
    assert bad(deephost.disks({"state": place})) == {}
    monkeypatch.setattr(deephost, "FULL_DISK_BYTES", 2**60)
    assert bad(deephost.disks({"state": place})) == {"disk.state": "fail"}


def stream(**changes):
    values = {"codec": "h264", "claimed_fps": 25.0, "seconds": 6.0, "packets": 151, "size": 10**6,
              "keys": (0, 50, 100, 150)}  # fmt: skip
    return Stream(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, set()),
        ({"keys": (0, 149)}, {"cameras.a.gop"}),
        ({"keys": (0,)}, {"cameras.a.gop"}),
        ({"keys": (0,), "seconds": 1.0, "packets": 26}, set()),
        ({"delay": 2}, {"cameras.a.b_frames"}),
        ({"packets": 61, "keys": (0, 20, 40)}, {"cameras.a.fps"}),
        ({"claimed_fps": 90_000.0}, set()),
        ({"size": 10**8}, {"cameras.a.rate"}),
    ],
)
def test_what_a_camera_sends_is_judged(changes, expected):
    findings = list(deepcamera.judge("a", stream(**changes)))
    assert set(bad(findings)) == expected
    assert all(f.fix for f in findings if f.status != "ok")


def test_a_codec_without_a_hardware_decoder_is_told_on_a_jetson_only():
    assert bad(deepcamera.judge("a", stream(codec="mpeg4"), jetson=True))
    assert not bad(deepcamera.judge("a", stream(codec="mpeg4")))


def packet(ahead_s, mode=4, stratum=2):
    when = time.time() + ahead_s + deepclock.NTP_EPOCH_S
    seconds, fraction = int(when), int((when % 1) * 2**32)
    return struct.pack(">BB30xIIII", 0x20 | mode, stratum, seconds, fraction, seconds, fraction)


@pytest.mark.parametrize("ahead_s", [0.0, 120.0, -3600.0])
def test_a_time_server_is_asked_how_far_our_clock_is_off(ahead_s):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)

        def answer():
            _, whom = server.recvfrom(100)
            server.sendto(packet(ahead_s), whom)

        thread = threading.Thread(target=answer)
        thread.start()
        skew = deepclock.ask("127.0.0.1", server.getsockname()[1], 5.0)
        thread.join()
    assert skew == pytest.approx(ahead_s, abs=1.0)


@pytest.mark.parametrize(
    "answer",
    [b"", bytes(48), packet(0, mode=3), packet(0, stratum=16)],
    # Packets hold the time; what a test is called must not.
    ids=["empty", "zeros", "client", "unsynchronised"],
)
def test_what_is_no_answer_of_a_time_server_is_none(answer):
    assert deepclock.offset(answer, 0.0, 0.0) is None


@pytest.mark.parametrize(
    ("skew_s", "status"), [(0.01, "ok"), (-0.01, "ok"), (5.0, "warn"), (-5.0, "warn"), (90, "fail")]
)
def test_a_clock_that_is_wrong_is_told_by_how_much(skew_s, status):
    assert deepclock.judge("ntp", skew_s).status == status


def test_the_clock_cannot_be_before_the_agent_was_made():
    assert deepclock.not_before(2e9, 1e9).status == "fail"
    assert deepclock.not_before(1e9, 2e9).status == "ok"


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("NTP=yes\nNTPSynchronized=yes\n", "ok"),
        ("NTP=yes\nNTPSynchronized=no\n", "warn"),
        ("NTP=no\nNTPSynchronized=no\n", "warn"),
    ],
)
def test_systemd_says_whether_the_clock_is_kept(said, status, tmp_path):
    finding = deepclock.synchronised(Another(tmp_path, {"timedatectl": Ran(0, said)}))
    assert (finding.status, bool(finding.fix)) == (status, status != "ok")


def test_without_timedatectl_the_clock_is_unknown(tmp_path):
    assert deepclock.synchronised(Another(tmp_path)).status == "warn"


@pytest.mark.parametrize(
    ("end", "status"),
    [("Jan  1 00:00:00 2030 GMT", "ok"), ("Jun 10 00:00:00 2026 GMT", "warn"), ("", "warn")],
)
def test_a_certificate_that_ends_soon_is_told(end, status):
    now = 1_780_272_000.0  # 2026-06-01
    assert deepbroker.expiry(end, now).status == status


def test_secrets_that_everybody_may_read_are_told(tmp_path):
    file = tmp_path / "agent.yaml"
    file.write_text("password: hunter22")
    config = Config.model_validate(
        {"mqtt": {"host": "h", "password": "hunter22", "username": "u"},
         "cameras": {"a": {"source": "synthetic://64x64@30"}}}
    )  # fmt: skip
    file.chmod(0o644)
    assert bad(deeprights.secrets(config, file)) == {"permissions.secrets": "warn"}
    file.chmod(0o600)
    assert not bad(deeprights.secrets(config, file))


def test_folders_and_devices_that_cannot_be_used_are_told(tmp_path):
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    assert deeprights.folder("state", open_to_all).status == "fail"
    assert deeprights.folder("state", tmp_path / "new").status == "ok"
    (tmp_path / "file").write_text("")
    assert deeprights.folder("state", tmp_path / "file").status == "fail"
    assert deeprights.node("x", str(tmp_path / "video0"), "video").status == "fail"


SOURCES = sorted([*Path(deepclock.__file__).parent.glob("deep*.py"), Path(check.__file__)])


def made(source: Path):
    """Every call of `Finding` in a file, by line, with the arguments as written."""
    for node in ast.walk(ast.parse(source.read_text("utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding":
            yield node.lineno, [ast.unparse(a) for a in node.args]


def without_fix(source: Path):
    """Those of them that are not good, or need not be, and do not say what to do."""
    return [
        (line, args)
        for line, args in made(source)
        if args[1] != "'ok'"
        # What is given by `*` is what to do, too.
        and not any(a.startswith("*") for a in args)
        and (len(args) < 4 or args[3] == "''")
    ]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_nothing_is_found_wrong_in_the_code_without_saying_what_to_do(source):
    assert not without_fix(source)


def test_the_search_for_findings_without_a_fix_finds_one(tmp_path):
    file = tmp_path / "x.py"
    file.write_text('Finding("a", "warn", "hot")\nFinding("b", "ok", "cool")\n')
    assert without_fix(file) == [(1, ["'a'", "'warn'", "'hot'"])]


@pytest.mark.parametrize(
    ("what", "fix"),
    [
        ("rtsp://u:***@cam/1: wrong user or password", "%40"),
        ("rtsp://cam/1: the camera has no stream of this name", "manual"),
        ("rtsp://cam/1: what answers at cam:554 does not speak RTSP", "port"),
        ("rtsp://cam/1: no answer from cam:554", "ping"),
        ("rtsp://cam/1: something new", "vigia cameras probe"),
    ],
)
def test_a_camera_that_fails_has_a_fix_that_fits(what, fix):
    (finding,) = completed([Finding("cameras.a", "fail", what)])
    assert fix in finding.fix


def test_every_reason_of_an_rtsp_camera_has_a_fix_of_its_own():
    for reason in rtsp_reason.REASONS.values():
        assert "cameras probe" not in fix_for(Finding("cameras.a", "fail", reason)), reason


def test_every_finding_that_is_not_good_has_something_to_do():
    (finding,) = completed([Finding("x", "fail", "broken")])
    assert "troubleshoot" in finding.fix
    assert completed([Finding("x", "ok", "good")])[0].fix == ""


def test_what_cannot_be_reached_is_not_looked_into_and_not_told_twice(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(deep, "run_probes", lambda tried, _limit: ran.extend(tried) or [])
    config = Config.model_validate(
        {"mqtt": {"host": "broker"}, "cameras": {n: {"source": "rtsp://cam/1"} for n in "ab"}}
    )
    deep_check(config, tmp_path / "c", failed={"mqtt", "cameras.a"}, machine=Another(tmp_path))
    names = {name for name, _ in ran}
    assert "cameras.b.stream" in names
    assert not {"cameras.a.stream", "mqtt.acl"} & names


@pytest.mark.parametrize(
    ("kept", "status", "words"),
    [(True, "ok", "kernel"), (False, "warn", "nobody"), (None, "warn", "not known")],
)
def test_without_systemd_the_kernel_is_asked_about_the_clock(tmp_path, kept, status, words):
    finding = deepclock.synchronised(Another(tmp_path), lambda: kept)
    assert (finding.status, words in finding.what) == (status, True)


def test_the_kernel_of_this_machine_answers_or_is_not_known():
    assert deepclock.kernel_keeps() in (True, False, None)


def test_a_file_is_told_to_be_open_only_if_a_secret_stands_in_it(tmp_path):
    path, other = tmp_path / "agent.yaml", tmp_path / "password"
    other.write_text("hunter22")
    path.write_text("mqtt: {host: h, username: u, password: hunter22}\n")
    path.chmod(0o644)
    other.chmod(0o644)
    config = Config.model_validate(
        {
            "mqtt": {"host": "h", "username": "u", "password": "hunter22"},
            "cameras": {"a": {"source": "synthetic://64x64@30"}},
        }
    )
    (found,) = deeprights.secrets(config, path)
    assert (found.status, str(path) in found.fix) == ("warn", True)
    path.write_text("mqtt: {host: h, username: u, password: '${file:password}'}\n")
    (found,) = deeprights.secrets(config, path)
    assert (found.status, str(other) in found.fix) == ("warn", True)
    other.chmod(0o600)
    assert not bad(deeprights.secrets(config, path))


@pytest.mark.parametrize(
    ("days", "status", "words"),
    [(400, "ok", "399 more days"), (20, "warn", "19 more days"), (0.5, "warn", "12 more hours")],
)
def test_how_long_a_certificate_lasts_is_told_in_words(days, status, words):
    now_s = 1_000_000_000.0
    end = time.strftime("%b %d %H:%M:%S %Y GMT", time.gmtime(now_s + days * 86_400 - 1))
    finding = deepbroker.expiry(end, now_s)
    assert (finding.status, words in finding.what) == (status, True), finding


def test_without_network_nothing_is_asked_of_cameras_and_broker(tmp_path):
    config = Config.model_validate(
        {"mqtt": {"host": "broker"}, "cameras": {"a": {"source": "rtsp://cam/1"}}}
    )
    names = [n for n, _ in probes(config, tmp_path / "c", False, 1.0, Another(tmp_path))]
    assert not any(n.startswith(("cameras", "mqtt")) for n in names)


def test_a_program_that_is_missing_or_hangs_is_none_and_files_are_bounded(tmp_path):
    machine = Machine(tmp_path)
    assert machine.run(["no-such-program-at-all"]) is None
    assert machine.run(["sleep", "60"], timeout_s=0.05) is None
    assert machine.run(["printf", "a"]) == Ran(0, "a")
    (tmp_path / "big").write_bytes(b"a" * (MAX_FILE_BYTES + 1))
    assert len(machine.text("big")) == MAX_FILE_BYTES
    assert machine.text("none") == ""


def test_a_board_of_files_has_no_bad_heat(tmp_path):
    write(tmp_path, jetson.FILES)
    assert "fail" not in {f.status for f in deephost.heat(BoardFiles(tmp_path).look())}
