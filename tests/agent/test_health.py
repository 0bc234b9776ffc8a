"""The watch: what the manager hears, what is told, how it recovers; on a fake clock."""

import threading

import pytest

from agent.confighealth import HealthConfig
from agent.health import EXIT_CODE, Health
from agent.healthready import CameraLook, awaited, status_line
from agent.progress import Stage


class Manager:
    def __init__(self, watchdog_s=30.0):
        self.watchdog_s = watchdog_s
        self.heard = []

    def ready(self, text):
        self.heard.append(("ready", text))

    def status(self, text):
        self.heard.append(("status", text))

    def alive(self):
        self.heard.append(("alive", ""))

    def stopping(self, text):
        self.heard.append(("stopping", text))

    def take(self, *kinds):
        found = [h for h in self.heard if h[0] in (kinds or {h[0]})]
        self.heard = []
        return found


class Told:
    def __init__(self):
        self.events = []

    def tell(self, kind, severity, what, **data):
        self.events.append((kind, severity, what, data))

    def kinds(self):
        return [(kind, data.get("action")) for kind, _, _, data in self.events]


class Vitals:
    def __init__(self):
        self.found = [Stage("publisher", None, 10.0)]
        self.looks = [CameraLook("a", "online", "", 1, 0.1, 0.05)]
        self.updates = []

    def stages(self):
        return self.found

    def cameras(self):
        return self.looks

    def broker(self):
        return ""

    def troubles(self):
        return []

    def updating(self):
        return self.updates

    def queues(self):
        return {"frames": {"main": 1}}

    def engines(self):
        return {"main": {"backend": "fake"}}


class Ground:
    def __init__(self):
        self.now = 100.0
        self.manager, self.told, self.vitals, self.left = Manager(), Told(), Vitals(), []
        self.health = Health(
            HealthConfig(),
            self.manager,
            self.vitals,
            self.told,
            self.left.append,
            lambda: self.now,
        )
        self.health.serving()

    def look(self, after_s=1.0):
        self.now += after_s
        self.health.look()


@pytest.fixture
def ground():
    return Ground()


def test_other_limits_count_from_the_next_look_on(ground):
    ground.vitals.looks = [CameraLook("a", "connecting", "", 0, None)]
    ground.health.configure(HealthConfig(ready_timeout_s=3, exit_after_s=2))
    ground.look(2.5)
    assert not ground.health.ready
    ground.look(1.0)
    assert ground.health.ready
    ground.vitals.found = [Stage("publisher", 2.0, 1.0)]
    ground.look()
    ground.look(1.5)
    assert ground.left == []
    ground.look(1.0)
    assert ground.left == [70]


def test_ready_comes_with_the_first_result_of_every_camera_that_can_be_reached(ground):
    ground.vitals.looks = [
        CameraLook("a", "online", "", 0, None),
        CameraLook("b", "connecting", "no route to host", 0, None),
    ]
    ground.look()
    assert ground.manager.take("ready") == []
    ground.vitals.looks[0] = CameraLook("a", "online", "", 1, 0.0)
    ground.look()
    assert ground.manager.take("ready") == [("ready", "ready")]
    assert ground.health.ready
    ground.look()
    assert ground.manager.take("ready") == []


def test_the_deadline_says_which_camera_gave_nothing(ground):
    ground.vitals.looks.append(CameraLook("dark", "online", "", 0, None))
    for _ in range(19):
        ground.look()
    assert ground.manager.take("ready") == []
    ground.look()
    ((_, text),) = ground.manager.take("ready")
    assert "dark" in text
    assert ground.told.events[-1][3]["missing"] == ["dark"]


def test_the_watchdog_is_fed_only_while_nothing_stalls(ground):
    ground.look()
    assert ground.manager.take("alive")
    ground.vitals.found = [Stage("publisher", 11.0, 10.0)]
    ground.health._awake_s -= 60
    ground.look()
    assert not ground.manager.take("alive")
    ground.vitals.found = [Stage("publisher", None, 10.0)]
    ground.look()
    assert ground.manager.take("alive")


def test_a_stall_is_told_with_all_that_explains_it_and_ends_the_process(ground):
    ground.health._awake_s -= 60
    ground.vitals.found = [Stage("publisher", 11.0, 10.0)]
    for _ in range(int(HealthConfig().exit_after_s)):
        ground.look()
    (event,) = [e for e in ground.told.events if e[0] == "stall"]
    data = event[3]
    assert data["stage"] == "publisher"
    assert data["age_s"] == 11.0
    assert data["queues"] == {"frames": {"main": 1}}
    assert data["engines"] == {"main": {"backend": "fake"}}
    assert data["cameras"]["a"] == {"state": "online", "frame_age_s": 0.05, "result_age_s": 0.1}
    assert any("test_health.py" in line for lines in data["stacks"].values() for line in lines)
    assert ground.left == []
    ground.look()
    assert ground.left == [EXIT_CODE]
    assert ("recovery", "process") in ground.told.kinds()


def test_a_stage_that_can_be_begun_anew_is_and_the_process_goes_on(ground):
    ground.health._awake_s -= 60
    begun = []

    def renew():
        begun.append(1)
        ground.vitals.found = [Stage("model main", None, 10.0)]
        return True

    ground.vitals.found = [Stage("model main", 11.0, 10.0, renew)]
    for _ in range(10):
        ground.look()
    assert begun == [1]
    assert ground.left == []
    kinds = [k for k in ground.told.kinds() if k[0] in ("stall", "recovery")]
    assert kinds == [("stall", None), ("recovery", "stage"), ("recovery", "over")]


def test_a_process_that_stood_still_blames_no_stage(ground):
    ground.look()
    ground.vitals.found = [Stage("publisher", 40.0, 10.0)]
    ground.look(after_s=40.0)
    assert [e for e in ground.told.events if e[0] == "stall"] == []
    for _ in range(11):
        ground.look()
    assert [e for e in ground.told.events if e[0] == "stall"]


def test_a_camera_that_hangs_is_told_once_and_costs_no_watchdog(ground):
    ground.vitals.looks = [CameraLook("a", "stalled", "no frame for 5 s", 3, 5.0)]
    ground.look()
    ground.look()
    kinds = [k for k in ground.told.kinds() if k[0] in ("stall", "recovery")]
    assert kinds == [("stall", None), ("recovery", "camera")]
    assert len(ground.manager.take("alive")) == 2


def test_after_the_end_began_nothing_is_fed_any_more(ground):
    ground.health.stopping()
    ground.manager.take()
    ground.look()
    assert ground.manager.take() == []
    assert not ground.health.ready


def test_cameras_that_ended_failed_or_answered_with_a_reason_are_not_awaited():
    def look(state, reason="", results=0):
        return CameraLook(f"{state}{reason}{results}", state, reason, results, None)

    assert awaited(
        [
            look("online"),
            look("online", results=1),
            look("connecting"),
            look("connecting", "refused"),
            look("stalled"),
            look("ended"),
            look("failed", "not a video"),
        ]
    ) == ["online0", "connecting0"]


MANY_AWAY = (
    "serving 1 of 6 cameras at 25.0 fps; "
    "degraded: cam1: refused, cam2: refused, cam3: refused, 2 more cameras away"
)


@pytest.mark.parametrize(
    ("states", "broker", "troubles", "updating", "line"),
    [
        (["online"], "", [], [], "serving 1 camera at 25.0 fps"),
        (["online", "online"], "", [], [], "serving 2 cameras at 25.0 fps"),
        ([], "", [], [], "serving no camera"),
        (
            ["online", "connecting"],
            "",
            [],
            [],
            "serving 1 of 2 cameras at 25.0 fps; degraded: cam1: refused",
        ),
        (
            ["online"],
            "refused",
            ["model main stalled"],
            [],
            "serving 1 camera at 25.0 fps; degraded: model main stalled, no broker: refused",
        ),
        (["online", "ended"], "", [], [], "serving 1 of 2 cameras at 25.0 fps; 1 at its end"),
        (
            ["online"],
            "",
            [],
            ["main: fetching 40 %"],
            "serving 1 camera at 25.0 fps; updating main: fetching 40 %",
        ),
        (
            ["online", *["stalled"] * 5],
            "",
            [],
            [],
            MANY_AWAY,
        ),
    ],
)
def test_the_status_line_says_what_is_served_then_what_is_wrong(
    states, broker, troubles, updating, line
):
    cameras = [
        CameraLook(f"cam{i}", state, "" if state == "online" else "refused", 9, 0.1)
        for i, state in enumerate(states)
    ]
    assert status_line(cameras, 24.96, broker, troubles, updating) == line


def test_the_start_is_told_step_by_step_and_then_the_end(ground):
    ground.vitals.looks = [CameraLook(name, "online", "", 0, None) for name in "abcde"]
    ground.health.starting("loading models")
    ground.look()
    ground.vitals.looks = [CameraLook("a", "online", "", 1, 0.0)]
    ground.look()
    ground.look()
    ground.vitals.updates = ["main: canary"]
    ground.look(6.0)
    ground.health.stopping()
    assert [text for _, text in ground.manager.take("status", "ready", "stopping")] == [
        "starting: loading models",
        "starting: waiting for the first result of a, b, c and 2 more",
        "ready",
        "serving 1 camera at 0.5 fps",
        "serving 1 camera at 0.0 fps; updating main: canary",
        "stopping: what waits is analysed, sent or kept",
    ]


def test_before_the_stages_run_a_stall_is_told_and_nothing_is_ready():
    ground = Ground()
    ground.health._serving = False
    ground.health._awake_s -= 600
    ground.vitals.found = [Stage("loading main", 121.0, 120.0)]
    for _ in range(7):
        ground.look()
    assert ground.manager.take("ready", "alive") == []
    assert ("stall", None) in ground.told.kinds()
    assert ground.left == [EXIT_CODE]


def test_what_is_not_essential_is_told_once_and_the_watchdog_goes_on(ground, caplog):
    ground.health._awake_s -= 60
    ground.vitals.found = [Stage("builder", 11.0, 10.0, essential=False)]
    for _ in range(20):
        ground.look()
    assert len(ground.manager.take("alive")) == 20
    assert [k for k in ground.told.kinds() if k[0] != "agent"] == [("stall", None)]
    assert ground.left == []
    assert ground.health.state()["stalled"] == ["builder"]
    assert ground.health.state()["holding"] == []
    logged = [r.getMessage() for r in caplog.records]
    assert any('"queues": {"frames"' in line and '"engines"' in line for line in logged)
    assert any("thread MainThread" in line and "test_health.py" in line for line in logged)


def test_a_look_that_fails_is_counted_and_the_next_one_is_taken(caplog):
    third = threading.Event()

    class Broken(Vitals):
        calls = 0

        def stages(self):
            self.calls += 1
            if self.calls == 3:
                third.set()
                return []
            raise RuntimeError("no")

    told = Told()
    health = Health(HealthConfig(), Manager(watchdog_s=0.04), Broken(), told, pytest.fail)
    health.start()
    assert third.wait(30)
    health.stopping()
    health.close(30)
    assert health.state()["failed_looks"] >= 2
    assert "the watch over the stages failed, 2 times by now" in caplog.text
