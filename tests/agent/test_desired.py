"""Settings from afar in a running agent: brought into force, refused, kept, cleared."""

from __future__ import annotations

import json
import stat
import threading
from pathlib import Path

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from agent.bundle.documents import SETTINGS, Settings
from agent.bundle.dsse import sign
from agent.commands.config import app
from agent.desired import TRIED, Afar, DesiredFile
from agent.desiredapply import Applier
from agent.lastgood import LastGood
from agent.reload import Reloader
from agent.startconfig import read_start
from agent.wire.configstate import ConfigState, encode_config_state
from agent.wire.schema import schema
from engines.errors import BackendError
from tests.agent.test_reload import Site, Tales, values
from tests.fakes.tufrepository import TufRepository

SIGNERS = [TufRepository().keys["operators"][0]]
SOON_S = 20.0


def signed(counter: int, settings: object) -> tuple[Settings, bytes]:
    text = settings if isinstance(settings, str) else json.dumps(settings)
    document = Settings(device="d1", counter=counter, issued=1, expires=2, settings=text)
    return document, sign(SETTINGS, document, SIGNERS)


class House:
    """An agent's settings; `start` is a new run on the same files."""

    def __init__(self, folder: Path, monkeypatch) -> None:
        monkeypatch.setenv("STATE_DIRECTORY", str(folder / "state"))
        self.path = folder / "agent.yaml"
        self.write()
        self.start()

    def write(self, **changes: object) -> None:
        self.path.write_text(yaml.safe_dump({**values(), "updates": {}, **changes}))

    def start(self) -> None:
        begin = read_start(self.path, service=True)
        self.begin = begin
        self.site, self.events = Site(), Tales()
        self.states: list[ConfigState] = []
        copy = LastGood(self.path)
        self.file = DesiredFile(copy.path)
        self.reloader = Reloader(
            self.path,
            begin.config,
            self.site,
            copy,
            self.events,
            self.told,
            Afar(self.file, begin.desired, begin.not_taken),
        )
        self.reloader.started(begin.mistake)

    def told(self, state: ConfigState) -> None:
        message = json.loads(encode_config_state("d1", "b1", state, ts=1.0))
        jsonschema.validate(message, schema("vigia.config-state/1"))
        self.states.append(state)
        self.last = message

    def take(self, counter: int, settings: object, *, proven: bool = True) -> None:
        self.reloader.take(*signed(counter, settings))
        if proven:
            self.reloader.proven()


@pytest.fixture
def house(tmp_path, monkeypatch):
    return House(tmp_path, monkeypatch)


CAMERA = {"cameras": {"c": {"source": "rtsp://cam/3"}}}


def test_a_camera_comes_from_afar_and_no_other_is_touched(house):
    house.take(1, CAMERA)
    assert house.site.done == ["add c"]
    assert house.last["state"] == "applied"
    assert house.last["source"] == "desired"
    assert house.last["desired"]["counter"] == 1
    assert "not_taken" not in house.last


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"device": {"id": "x"}}, "device: comes from the device's own file only"),
        ({"cameras": {"a": {"fps": -1}}}, "cameras.a.fps: must be more than 0"),
        ({"cameras": {"a": {"enabled": False}, "b": {"enabled": False}}}, "none is enabled"),
        ({"cameras": {"a": {"model": "more"}}}, "no such model"),
        ([], "must be an object"),
        ("{", "not JSON"),
        ('{"log": {"level": "debug", "level": "info"}}', "twice"),
    ],
)
def test_what_cannot_be_is_refused_and_what_was_in_force_stays(house, settings, said):
    house.take(1, CAMERA)
    house.take(2, settings)
    assert house.site.done == ["add c"]
    assert house.last["state"] == "applied"
    assert house.last["desired"]["counter"] == 1
    assert house.last["not_taken"]["counter"] == 2
    assert said in house.last["not_taken"]["reason"]
    assert house.events.told[-1][:2] == ("config", "error")
    house.start()
    assert house.last["desired"]["counter"] == 1
    assert "c" in house.reloader.config.cameras


def test_they_outlast_a_restart_privately(house):
    house.take(1, {**CAMERA, "log": {"level": "debug"}})
    assert stat.S_IMODE(house.file.path.stat().st_mode) == 0o600
    house.start()
    assert house.reloader.config.cameras["c"].source == "rtsp://cam/3"
    assert house.reloader.config.log.level == "debug"
    assert house.last["source"] == "desired"
    assert house.site.done == []


def test_who_looks_at_the_events_sees_which_settings_came(house):
    house.take(7, CAMERA)
    assert house.events.data[-1]["afar"] == 7
    house.write(log={"level": "debug"})
    house.reloader.reload()
    assert "afar" not in house.events.data[-1]


def test_a_reload_of_the_file_keeps_them_over_it(house):
    house.take(1, CAMERA)
    house.write(log={"level": "debug"})
    assert house.reloader.reload().state == "applied"
    assert house.site.done == ["add c", "log level='debug' format='auto'"]
    assert sorted(house.reloader.config.cameras) == ["a", "b", "c"]


def test_empty_ones_lead_back_to_the_file(house):
    house.take(1, {"cameras": {"c": {"source": "rtsp://cam/3"}, "b": {"fps": 2}}})
    house.take(2, {})
    assert house.site.done == ["remove b", "add b", "add c", "remove b", "remove c", "add b"]
    assert house.reloader.config.cameras["b"].fps is None
    assert (house.last["source"], house.last["desired"]["counter"]) == ("file", 2)
    house.start()
    assert sorted(house.reloader.config.cameras) == ["a", "b"]
    assert (house.last["source"], house.last["desired"]["counter"]) == ("file", 2)


def test_the_same_again_change_and_tell_nothing(house):
    house.take(1, CAMERA)
    told = len(house.states)
    house.take(1, CAMERA)
    house.start()
    house.take(1, CAMERA)
    assert house.site.done == []
    assert len(house.states) == 1
    assert told == 2


def test_what_fails_of_them_is_told_and_the_rest_is_in_force(house):
    house.site.failing["model main"] = BackendError("no memory")
    house.take(1, {**CAMERA, "models": {"main": {"confidence": 0.9}}})
    assert (house.last["state"], house.last["reason"]) == ("partly", "model main: no memory")
    assert house.last["desired"]["counter"] == 1


def test_an_agent_that_ends_whenever_it_tries_them_goes_on_without_them(house):
    house.take(1, {"log": {"level": "debug"}})
    house.take(2, CAMERA, proven=False)
    # It crashed and is started again, twice.
    house.start()
    assert "c" in house.reloader.config.cameras
    house.start()
    assert "c" not in house.reloader.config.cameras
    assert house.last["not_taken"]["reason"] == TRIED
    # The broker sends the settings again.
    house.take(2, CAMERA)
    assert house.site.done == []
    assert house.last["not_taken"] == {**house.last["not_taken"], "counter": 2, "reason": TRIED}
    house.start()
    assert "c" not in house.reloader.config.cameras
    house.take(3, CAMERA)
    assert house.site.done == ["add c"]


def test_an_agent_that_ends_before_they_are_in_force_does_not_try_them_for_ever(house):
    class EndedError(BaseException):
        """The process is gone."""

    for _ in range(2):
        house.site.failing["add c"] = EndedError()
        with pytest.raises(EndedError):
            house.take(1, CAMERA)
        house.start()
        assert house.begin.desired is None
    house.take(1, CAMERA)
    assert house.site.done == []
    assert house.last["not_taken"]["reason"] == TRIED


def test_one_power_cut_in_the_first_seconds_does_not_count_against_them(house):
    house.take(1, CAMERA, proven=False)
    house.start()
    house.reloader.proven()
    for _ in range(3):
        house.start()
        assert "c" in house.reloader.config.cameras


def test_settings_that_the_file_stood_in_the_way_of_come_into_force_with_its_next_reload(house):
    house.path.write_text("cameras: [")
    house.take(1, CAMERA)
    assert "agent.yaml" in house.last["not_taken"]["reason"]
    house.write()
    assert house.reloader.reload().desired.counter == 1
    assert house.site.done == ["add c"]
    assert "not_taken" not in house.last


def test_a_file_that_no_longer_fits_is_served_alone(house):
    house.take(1, {"cameras": {"b": {"fps": 2}}})
    house.write(cameras={"a": {"source": "rtsp://cam/1"}})
    house.start()
    assert sorted(house.reloader.config.cameras) == ["a"]
    assert house.last["source"] == "file"
    assert "cameras.b.source: is missing" in house.last["not_taken"]["reason"]


def test_settings_that_leave_no_camera_of_a_changed_file_are_not_used(house):
    house.take(1, {"cameras": {"b": {"enabled": False}}})
    house.write(cameras={"b": {"source": "rtsp://cam/1"}})
    house.start()
    assert house.reloader.config.cameras["b"].enabled
    assert "they leave none enabled" in house.last["not_taken"]["reason"]


def test_a_reload_of_a_file_that_does_not_fit_them_changes_nothing(house):
    house.take(1, {"cameras": {"b": {"fps": 2}}})
    house.write(cameras={"a": {"source": "rtsp://cam/1"}})
    state = house.reloader.reload()
    assert state.state == "refused"
    assert "settings from afar: cameras.b.source" in state.reason
    assert sorted(house.reloader.config.cameras) == ["a", "b"]


def test_they_lie_over_the_last_good_copy_too(house):
    house.take(1, CAMERA)
    house.path.write_text("cameras: [")
    house.start()
    assert "c" in house.reloader.config.cameras
    assert house.last["state"] == "recovered"
    assert house.last["source"] == "desired"


@pytest.mark.parametrize("damage", [b"", b"{", b"x" * 200_000])
def test_a_damaged_file_of_them_is_told_and_the_devices_own_serves(house, damage):
    house.take(1, CAMERA)
    house.file.path.write_bytes(damage)
    house.start()
    assert "c" not in house.reloader.config.cameras
    assert str(house.file.path) in house.last["not_taken"]["reason"]
    house.take(1, CAMERA)
    assert house.site.done == ["add c"]


def test_an_agent_without_updates_uses_none_that_were_kept(house):
    house.take(1, CAMERA)
    house.path.write_text(yaml.safe_dump(values()))
    house.start()
    assert house.begin.desired is None
    assert "c" not in house.reloader.config.cameras


def test_where_nothing_can_be_noted_nothing_is_tried(house, monkeypatch):
    monkeypatch.setattr("agent.desired.replace_file", full)
    house.take(1, CAMERA)
    assert house.site.done == []
    assert "No space left" in house.last["not_taken"]["reason"]


def full(_path, _text):
    raise OSError(28, "No space left on device")


def test_doubtful_ones_are_told_without_a_counter_and_change_nothing(house):
    house.reloader.doubt("nobody signed them")
    assert house.last["not_taken"] == {"reason": "nobody signed them"}
    assert house.last["state"] == "applied"
    house.take(1, CAMERA)
    assert "not_taken" not in house.last


class Slow:
    """Brings into force when it is let."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.doubts: list[str] = []
        self.began, self.go, self.well = threading.Event(), threading.Event(), threading.Event()

    def take(self, settings, _envelope):
        self.began.set()
        assert self.go.wait(SOON_S)
        self.taken.append(settings.counter)

    def doubt(self, reason):
        self.doubts.append(reason)

    def proven(self):
        self.well.set()


def test_the_newest_of_several_is_brought_into_force_next():
    site = Slow()
    applier = Applier(lambda: site, prove_s=0.05)
    applier.start()
    applier.take(*signed(1, {}))
    assert site.began.wait(SOON_S)
    applier.take(*signed(2, {}))
    applier.take(*signed(3, {}))
    site.go.set()
    assert site.well.wait(SOON_S)
    assert applier.close(SOON_S)
    assert site.taken == [1, 3]


def test_a_flood_of_what_nobody_signed_is_told_now_and_then_and_pushes_nothing_out():
    site, now = Slow(), [0.0]
    applier = Applier(lambda: site, prove_s=0.05, clock=lambda: now[0])
    applier.start()
    applier.take(*signed(1, {}))
    assert site.began.wait(SOON_S)
    applier.take(*signed(2, {}))
    applier.refused("while others wait")
    site.go.set()
    assert site.well.wait(SOON_S)
    for number in range(12):
        site.well.clear()
        applier.refused(f"garbage {number}")
        if number % 5 == 0:
            assert site.well.wait(SOON_S)
        now[0] += 1.0
    assert applier.close(SOON_S)
    assert site.taken == [1, 2]
    assert site.doubts == ["garbage 0", "garbage 5", "garbage 10"]


def test_an_end_in_between_counts_as_proof():
    site = Slow()
    applier = Applier(lambda: site, prove_s=1000)
    applier.start()
    assert applier.close(SOON_S)
    assert site.well.is_set()


def test_the_command_tells_what_settings_from_afar_change(house):
    said = CliRunner().invoke(app, ["diff", "-c", str(house.path)])
    assert said.output == "nothing changes\n"
    source = "rtsp://user:hunter22@cam/3"
    house.take(4, {"cameras": {"c": {"source": source}}, "pipeline": {"queue_frames": 9}})
    said = CliRunner().invoke(app, ["diff", "-c", str(house.path)])
    told = ["settings 4 from afar:", "camera c: started", "pipeline: with a restart"]
    assert said.output.splitlines() == told
    said = CliRunner().invoke(app, ["diff", "-c", str(house.path), "--json"])
    assert json.loads(said.output)["afar"]["counter"] == 4
    assert "hunter22" not in said.output
