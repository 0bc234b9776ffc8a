from __future__ import annotations

import json
import threading

import jsonschema
import numpy as np
import pytest

from agent.capture.camera import Camera
from agent.configcamera import CameraConfig
from agent.configgovernor import GovernorConfig
from agent.events import Events
from agent.governorrun import Governor
from agent.jetson import BoardFiles
from agent.wire.events import event_body
from agent.wire.messages import encode_telemetry
from agent.wire.schema import TELEMETRY, schema
from tests.fakes import jetson

TEMPERATURE = f"{jetson.THERMAL}/thermal_zone0/temp"


class FakeCamera:
    def __init__(self, rate, wanted_fps=None, *, live=True):
        self.rate, self.wanted_fps, self.live = rate, wanted_fps, live
        self.arrived = 0
        self.limit = None
        self.sets = 0

    def set_limit(self, fps):
        self.limit = fps
        self.sets += 1


class FakeLighter:
    def __init__(self, slots=()):
        self.slots = slots
        self.calls = []

    def engage(self):
        self.calls.append("engage")
        return self.slots

    def release(self):
        self.calls.append("release")


class Board:
    """A governor over a folder of files, with a clock that is turned by hand."""

    def __init__(self, root, cameras, slots=(), **settings):
        self.root = jetson.write(root)
        self.cameras = cameras
        self.sent = []
        self.events = Events(self.sent.append)
        self.lighter = FakeLighter(slots)
        self.now = 0.0
        self.governor = Governor(
            GovernorConfig(**settings),
            BoardFiles(self.root).look,
            lambda: self.cameras,
            self.lighter,
            self.events,
            lambda: self.now,
        )

    def run(self, seconds, celsius=None, **files):
        if celsius is not None:
            files[TEMPERATURE] = f"{celsius * 1000:.0f}\n"
        jetson.write_files(self.root, files)
        steps = []
        for _ in range(int(seconds / 2)):
            self.now += 2
            for camera in self.cameras.values():
                camera.arrived += int(camera.rate * 2)
            if step := self.governor.step():
                steps.append(step)
        return steps


@pytest.fixture
def board(tmp_path):
    return Board(tmp_path, {"gate": FakeCamera(30), "file": FakeCamera(90, live=False)})


def test_a_cool_board_is_left_alone(board):
    assert board.run(300, 50) == []
    assert board.sent == []
    assert board.cameras["gate"].sets == 0


def test_heat_slows_live_cameras_by_shares_of_what_they_deliver(board):
    board.run(20, 50)
    board.run(2, 92)
    assert board.cameras["gate"].limit == pytest.approx(22.5, rel=0.02)
    board.run(16, 92)
    assert board.cameras["gate"].limit == pytest.approx(15, rel=0.02)
    assert board.cameras["file"].limit is None, "of a file every frame is wanted"


def test_each_step_is_told_with_its_reason_and_figures(board):
    board.run(20, 50)
    board.run(2, 92)
    (event,) = board.sent
    assert (event.kind, event.severity) == ("governor", "warning")
    assert event.what == (
        "does less: gate at 22.5 fps (cpu-thermal at 92.0 °C, 7.0 below slowing down)"
    )
    data = json.loads(b"{" + event_body(event))["data"]
    assert (data["step"], data["level_before"], data["level"]) == ("down", 0, 1)
    assert data["host"]["thermal"]["cpu-thermal"] == 92.0
    assert data["host"]["power"]["total_w"] == pytest.approx(8.346, abs=0.001)


def test_when_it_is_cool_again_all_is_done_again(board):
    board.run(20, 50)
    board.run(40, 92)
    assert board.governor.state()["level"] == 3
    assert set(board.run(3 * 130, 60)) == {"up"}
    assert board.cameras["gate"].limit is None
    assert board.governor.state()["level"] == 0
    assert "reason" not in board.governor.state()
    assert board.sent[-1].severity == "info"


def test_a_configured_rate_is_what_shares_are_taken_of(tmp_path):
    board = Board(tmp_path, {"gate": FakeCamera(30, wanted_fps=10.0)})
    board.run(20, 92)
    assert board.cameras["gate"].limit == pytest.approx(5.0)


def test_no_camera_is_slowed_below_the_least_rate(tmp_path):
    board = Board(tmp_path, {"gate": FakeCamera(30), "slow": FakeCamera(0.5)}, min_fps=8)
    board.run(200, 95)
    assert board.cameras["gate"].limit == pytest.approx(8)
    assert board.cameras["slow"].limit == pytest.approx(0.5)


def test_a_camera_that_comes_later_is_slowed_too_and_one_that_goes_is_forgotten(board):
    board.run(20, 50)
    board.run(4, 92)
    board.cameras = {"yard": FakeCamera(10)}
    board.run(4, 92)
    assert board.cameras["yard"].limit == pytest.approx(7.5)
    assert list(board.governor.state()["fps_limits"]) == ["yard"]


def test_after_the_last_step_a_lighter_engine_serves_until_it_is_cool(tmp_path):
    board = Board(tmp_path, {"gate": FakeCamera(30)}, slots=("main",), steps=[0.5])
    board.run(20, 50)
    board.run(20, 95)
    assert board.lighter.calls == ["engage"]
    assert board.governor.state()["light_engines"] == ["main"]
    assert "lighter engines in main" in board.sent[-1].what
    board.run(130, 50)
    assert board.lighter.calls == ["engage", "release"]
    assert board.governor.state()["level"] == 1


def test_without_lighter_engines_the_last_step_is_not_taken_again(tmp_path):
    board = Board(tmp_path, {"gate": FakeCamera(30)}, steps=[0.5])
    board.run(300, 95)
    assert board.lighter.calls == ["engage"]
    assert (board.governor.state()["level"], board.governor.state()["levels"]) == (1, 1)
    assert len(board.sent) == 1


def test_slowing_down_is_told_when_it_begins_and_ends_even_where_nothing_may_be_done(tmp_path):
    alert = f"{jetson.THERMAL}/cooling_device1/cur_state"
    board = Board(tmp_path, {"gate": FakeCamera(30)}, enabled=False)
    board.run(10, 50, **{alert: "1\n"})
    board.run(10, 50, **{alert: "0\n"})
    assert [e.severity for e in board.sent] == ["warning", "info"]
    assert "gpu-throttle-alert" in board.sent[0].what
    assert board.cameras["gate"].sets == 0


def test_an_alarm_of_over_current_is_a_reason_to_do_less(board):
    board.run(10, 50, **{f"{jetson.OVERCURRENT}/oc3_event_cnt": "7\n"})
    assert board.governor.state()["level"] == 0, "what was counted before it began is not news"
    assert board.run(10, 50, **{f"{jetson.OVERCURRENT}/oc3_event_cnt": "8\n"}) == ["down"]


def test_a_power_budget_is_kept_by_the_mean_of_some_looks(tmp_path):
    board = Board(tmp_path, {"gate": FakeCamera(30)}, power_w=9)
    current = f"{jetson.POWER}/curr1_input"
    assert board.run(20, 50) == []
    assert board.run(2, 50, **{current: "2000\n"}) == [], "one peak is not too much"
    assert board.run(8, 50) == ["down"]
    assert "of 9 W" in board.sent[0].what


def test_its_state_fits_the_schema_of_telemetry(board):
    board.run(20, 50)
    board.run(20, 92)
    payload = encode_telemetry(
        "d1", "b1", {"cpu_percent": 1, "process_cpu_percent": 1, "process_rss_bytes": 1,
        "memory_available_bytes": 1}, {}, {"published": 0, "dropped": {}, "withheld": {},
        "outbox_messages": 0, "outbox_bytes": 0}, governor=board.governor.state(),
    )  # fmt: skip
    message = json.loads(payload)
    jsonschema.validate(message, schema(TELEMETRY))
    assert message["governor"]["reason"]


def test_other_settings_begin_with_doing_everything(tmp_path):
    camera = FakeCamera(30)
    board = Board(tmp_path, {"gate": camera}, interval_s=0.01)
    board.run(20, 50)
    board.run(4, 92)
    assert camera.limit is not None
    freed = threading.Event()
    board.cameras["gate"].set_limit = lambda fps: freed.set() if fps is None else None
    board.governor.start()
    board.governor.configure(GovernorConfig(enabled=False, interval_s=0.01))
    assert freed.wait(10)
    assert board.governor.close(10)
    assert board.governor.state()["level"] == 0


def test_a_real_camera_delivers_less_when_the_files_say_hot(tmp_path):
    """Real files, real threads; the camera's device gives as many pictures as are taken."""

    class Device:
        fps = None

        def read(self):
            return None if stop.wait(0.002) else np.zeros((4, 4, 3), "u1")

        def close(self):
            pass

    stop, seen = threading.Event(), []
    cooler = threading.Event()

    def deliver(frame):
        seen.append(frame.index)
        share = (seen[-1] - seen[-20]) / 19 if len(seen) > 20 else 1
        if share > 4:
            cooler.set()
        return True

    config = CameraConfig(source="synthetic://64x64@500")
    camera = Camera("gate", config, opener=lambda _config: Device())
    root = jetson.write(tmp_path, **{TEMPERATURE: "98000\n"})
    governor = Governor(
        GovernorConfig(interval_s=0.05, hold_s=0.05),
        BoardFiles(root).look,
        lambda: {"gate": camera},
        FakeLighter(),
        Events(lambda _event: None),
    )
    thread = threading.Thread(target=camera.run, args=(deliver, stop), daemon=True)
    thread.start()
    governor.start()
    try:
        assert cooler.wait(20), "at a share of a fifth, every fifth frame passes"
    finally:
        stop.set()
        assert governor.close(10)
        thread.join(10)
    assert governor.state()["level"] == 4


@pytest.mark.parametrize("steps", [[0.5, 0.5], [0.2, 0.5], [1.0], [0.0]])
def test_steps_must_fall_between_everything_and_nothing(steps):
    with pytest.raises(ValueError, match=r"steps"):
        GovernorConfig(steps=steps)


def test_a_camera_whose_settings_change_while_it_is_hot_is_slowed_too(board):
    board.run(20, 50)
    board.run(2, 92)
    board.cameras["gate"] = FakeCamera(30)
    board.run(2, 92)
    assert board.cameras["gate"].limit is not None


def test_a_sensor_that_flaps_costs_no_swinging(board):
    """Hot at one look and cool at the next, for ten minutes."""
    board.run(20, 50)
    steps = []
    for _ in range(150):
        steps += board.run(2, 92) + board.run(2, 50)
    assert set(steps) == {"down"}
    assert [event.severity for event in board.sent] == ["warning"] * 4, "each step once"
    assert board.governor.state()["steps_up"] == 0
    assert "up" in board.run(300, 50)


@pytest.mark.parametrize(
    "absurd", ["4294967295", "200000", "0", "-40000", "nan", "", "hot"], ids=str
)
def test_an_absurd_temperature_is_no_heat(board, absurd):
    board.run(20, 50)
    assert board.run(60, **{TEMPERATURE: f"{absurd}\n"}) == []
    assert board.cameras["gate"].limit is None


@pytest.mark.parametrize("absurd", ["0", "-1", "20000", "900000"])
def test_an_absurd_limit_of_a_zone_is_none(tmp_path, absurd):
    board = Board(tmp_path, {"gate": FakeCamera(30)})
    trip = f"{jetson.THERMAL}/thermal_zone0/trip_point_1_temp"
    assert board.run(60, 52, **{trip: f"{absurd}\n"}) == []
    assert board.run(4, 84, **{trip: f"{absurd}\n"}) == ["down"], "limit_c counts: 90"


def test_sensors_that_go_away_while_it_is_hot_change_nothing_and_are_told(board):
    board.run(20, 50)
    board.run(4, 92)
    limit = board.cameras["gate"].limit
    for path in (board.root / "sys/class/thermal").glob("thermal_zone*"):
        # Unreadable for root too: where a file was, there is a folder.
        (path / "temp").unlink()
        (path / "temp").mkdir()
    for path in (board.root / jetson.POWER).glob("*_input"):
        path.unlink()
    assert board.run(600) == []
    assert board.cameras["gate"].limit == limit
    told = [event.what for event in board.sent if "no sensor" in event.what]
    assert len(told) == 1
    assert board.governor.state()["level"] == 1


def test_a_machine_that_never_had_sensors_is_told_nothing(tmp_path):
    board = Board(tmp_path, {"gate": FakeCamera(30)})
    for path in (board.root / "sys").rglob("temp"):
        path.unlink()
    for path in (board.root / jetson.POWER).glob("*_input"):
        path.unlink()
    assert board.run(600) == []
    assert board.sent == []


class Sensors:
    """Answers as told; hangs while it is to."""

    def __init__(self, root):
        self.files = BoardFiles(jetson.write(root))
        self.hangs = threading.Event()
        self.released, self.entered, self.looked = (threading.Event() for _ in range(3))
        self.faults = 0

    def look(self):
        if self.hangs.is_set():
            self.hangs.clear()
            self.entered.set()
            assert self.released.wait(10)
        elif self.faults:
            self.faults -= 1
            raise RuntimeError("a mistake")
        else:
            self.looked.set()
        return self.files.look()


def governed(sensors, lighter=None):
    return Governor(
        GovernorConfig(interval_s=0.01),
        sensors.look,
        dict,
        lighter or FakeLighter(),
        Events(lambda _event: None),
    )


def test_a_sensor_that_hangs_is_left_behind_and_the_governor_goes_on(tmp_path):
    sensors = Sensors(tmp_path)
    sensors.hangs.set()
    governor = governed(sensors)
    governor.start()
    assert sensors.entered.wait(10)
    assert governor.activity.age_s is not None
    assert governor.renew()
    assert sensors.looked.wait(10)
    sensors.looked.clear()
    # The one that hung comes back: it ends, and the other goes on.
    sensors.released.set()
    assert sensors.looked.wait(10)
    assert governor.close(10)
    assert governor.activity.age_s is None


def test_engines_that_are_being_changed_are_not_changed_by_two(tmp_path):
    sensors = Sensors(tmp_path)
    jetson.write_files(tmp_path, {TEMPERATURE: "98000\n"})
    engaged, released = threading.Event(), threading.Event()

    class Slow(FakeLighter):
        def engage(self):
            engaged.set()
            assert released.wait(10)
            return ("main",)

    governor = Governor(
        GovernorConfig(interval_s=0.01, hold_s=0.01, steps=()),
        sensors.look,
        dict,
        Slow(),
        Events(lambda _event: None),
    )
    governor.start()
    assert engaged.wait(10)
    assert governor.activity.age_s == 0.0, "it has deadlines of its own"
    assert not governor.renew()
    released.set()
    assert governor.close(10)


def test_a_mistake_at_one_look_does_not_end_the_governor(tmp_path):
    sensors = Sensors(tmp_path)
    sensors.faults = 3
    governor = governed(sensors)
    governor.start()
    assert sensors.looked.wait(10)
    assert governor.close(10)
