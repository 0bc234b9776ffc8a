"""Other settings while the agent runs: the way there, walking it, and the last good copy."""

from __future__ import annotations

import functools
import json
import stat
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from agent.commands.config import app
from agent.config import Config
from agent.configfile import load
from agent.desired import Afar, DesiredFile
from agent.errors import ConfigError, PipelineError
from agent.lastgood import LastGood
from agent.reload import Reloader
from agent.reloadplan import plan
from agent.wire.configstate import MAX_REASON_CHARS, ConfigState, encode_config_state
from agent.wire.schema import schema
from engines.errors import BackendError


def values(**changes: object) -> dict:
    base = {
        "mqtt": {"host": "broker"},
        "cameras": {"a": {"source": "synthetic://64x48@30"}, "b": {"source": "rtsp://cam/1"}},
        "models": {"main": {"path": "/m.onnx"}},
    }
    return {**base, **changes}


def config(**changes: object) -> Config:
    return Config.model_validate(values(**changes))


def cameras(**changes: object) -> dict:
    return {"cameras": {**values()["cameras"], **changes}}


def test_the_same_settings_need_nothing():
    way = plan(config(), config())
    assert way.empty
    assert way.config == config()


def test_one_camera_changes_and_no_other_is_touched():
    way = plan(config(), config(**cameras(b={"source": "rtsp://cam/2"})))
    assert (way.removed, way.added, way.restart) == (("b",), ("b",), ())


def test_cameras_come_go_and_are_disabled():
    wanted = {
        "a": {"source": "synthetic://64x48@30", "enabled": False},
        "c": {"source": "rtsp://cam/3"},
    }
    way = plan(config(), config(cameras=wanted))
    assert (way.removed, way.added, way.disabled) == (("a", "b"), ("c",), ("a",))


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"mqtt": {"host": "elsewhere"}}, "mqtt"),
        ({"device": {"id": "other"}}, "device"),
        ({"pipeline": {"queue_frames": 9}}, "pipeline"),
        ({"updates": {}}, "updates"),
        ({"models": {"main": {"path": "/m.onnx"}, "more": {}}}, "models.more"),
    ],
)
def test_what_could_strand_a_device_waits_for_a_restart(changes, key):
    way = plan(config(), config(**changes))
    assert way.restart == (key,)
    assert not way.changes
    assert way.config == config()


def test_a_camera_of_a_model_that_is_not_there_yet_stays_as_it_was():
    new = config(
        models={"main": {"path": "/m.onnx"}, "more": {}},
        **cameras(b={"source": "rtsp://cam/2", "model": "more"}),
    )
    way = plan(config(), new)
    assert way.restart == ("models.more", "cameras.b")
    assert way.config.cameras["b"] == config().cameras["b"]
    assert not way.changes


def test_thresholds_are_a_swap_and_whole_sections_a_change():
    new = config(
        models={"main": {"path": "/m.onnx", "confidence": 0.6}},
        log={"level": "debug"},
        governor={"margin_c": 12},
        health={"stall_timeout_s": 20},
        mqtt={"host": "broker", "detections": {"max_rate_hz": 2}},
    )
    way = plan(config(), new)
    assert (way.models, way.restart) == (("main",), ())
    assert way.sections == ("log", "governor", "health", "mqtt.detections")
    assert way.config == new


SOURCES = st.sampled_from(["rtsp://x/1", "rtsp://x/2", "synthetic://64x48@30"])


def test_what_is_published_changes_at_once_and_the_broker_with_a_restart():
    way = plan(config(), config(mqtt={"host": "x", "detections": {"qos": 1}}))
    assert (way.sections, way.restart) == (("mqtt.detections",), ("mqtt",))
    assert (way.config.mqtt.host, way.config.mqtt.detections.qos) == ("broker", 1)


CAMERA = st.fixed_dictionaries(
    {"source": SOURCES, "enabled": st.booleans(), "model": st.sampled_from(["main", "m2"])}
)
CONFIGS = st.builds(
    lambda cams, confidence, host: config(
        cameras=cams,
        models={"main": {"confidence": confidence}, "m2": {}},
        mqtt={"host": host},
    ),
    st.dictionaries(st.sampled_from("abcd"), CAMERA, min_size=1),
    st.sampled_from([0.1, 0.2]),
    st.sampled_from(["x", "y"]),
)


@given(CONFIGS, CONFIGS)
def test_the_way_leads_to_what_is_wanted_and_is_walked_once(old, new):
    way = plan(old, new)
    running = {n for n, c in old.cameras.items() if c.enabled}
    running = (running - set(way.removed)) | set(way.added)
    assert running == {n for n, c in new.cameras.items() if c.enabled}
    again = plan(way.config, new)
    assert not again.changes
    assert again.restart == way.restart
    assert way.config.mqtt == old.mqtt


class Site:
    """Notes what is done; fails where it is told to."""

    def __init__(self, failing: dict[str, Exception] | None = None) -> None:
        self.done: list[str] = []
        self.failing = failing or {}
        self.meanwhile = lambda: None

    def _do(self, what: str) -> None:
        self.meanwhile()
        if what in self.failing:
            raise self.failing[what]
        self.done.append(what)

    def add_camera(self, name, _camera):
        self._do(f"add {name}")

    def remove_camera(self, name):
        self._do(f"remove {name}")

    def change_model(self, slot, _model):
        self._do(f"model {slot}")

    def change_section(self, name, config):
        self._do(f"{name} {functools.reduce(getattr, name.split('.'), config)}")


class Tales:
    """Keeps events."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str]] = []
        self.data: list[dict] = []

    def tell(self, kind, severity, what, **data):
        self.told.append((kind, severity, what))
        self.data.append(data)


class House:
    """A reloader on a real file."""

    def __init__(self, folder: Path, failing: dict[str, Exception] | None = None) -> None:
        self.path = folder / "agent.yaml"
        self.write(values())
        self.site, self.events = Site(failing), Tales()
        self.states: list[ConfigState] = []
        self.copy = LastGood(self.path, folder / "state")
        self.reloader = Reloader(
            self.path,
            load(self.path),
            self.site,
            self.copy,
            self.events,
            self.states.append,
            Afar(DesiredFile(self.copy.path)),
        )

    def write(self, wanted: dict | str) -> None:
        self.path.write_text(wanted if isinstance(wanted, str) else yaml.safe_dump(wanted))


def test_a_reload_does_what_differs_and_keeps_the_copy(tmp_path):
    house = House(tmp_path)
    house.reloader.started()
    house.write(
        values(**cameras(c={"source": "rtsp://cam/3"}), log={"level": "debug"}, device={"id": "d9"})
    )
    state = house.reloader.reload()
    assert house.site.done == ["log level='debug' format='auto'", "add c"]
    assert state == ConfigState("applied", "", ("device",))
    assert house.states == [ConfigState("applied"), state]
    assert house.copy.path.read_bytes() == house.path.read_bytes()
    assert house.events.told[-1][:2] == ("config", "warning")
    assert "with a restart: device" in house.events.told[-1][2]
    assert sorted(house.reloader.config.cameras) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cameras: [", "agent.yaml"),
        (yaml.safe_dump(values(cameras={"a": {"source": "x", "fpss": 3}})), "fpss"),
        (yaml.safe_dump(values(cameras={"a": {"source": "x", "enabled": False}})), "enable one"),
    ],
)
def test_a_mistake_changes_nothing_and_is_told(tmp_path, text, said):
    house = House(tmp_path)
    house.reloader.started()
    kept = house.copy.path.read_bytes()
    before = house.reloader.config
    house.write(text)
    state = house.reloader.reload()
    assert state.state == "refused"
    assert said in state.reason
    assert house.site.done == []
    assert house.reloader.config == before
    assert house.copy.path.read_bytes() == kept
    assert house.events.told[-1][:2] == ("config", "error")


def test_a_section_of_the_brokers_changes_alone(tmp_path):
    house = House(tmp_path)
    house.write(values(mqtt={"host": "x", "detections": {"qos": 1}}))
    assert house.reloader.reload() == ConfigState("applied", "", ("mqtt",))
    assert house.site.done[0].startswith("mqtt.detections")
    assert house.reloader.config.mqtt.host == "broker"
    assert house.reloader.config.mqtt.detections.qos == 1


def test_the_watch_sees_how_long_a_step_of_a_change_takes(tmp_path):
    house = House(tmp_path)
    ages: list[float | None] = []
    house.site.meanwhile = lambda: ages.append(house.reloader.activity.age_s)
    house.write(values(**cameras(c={"source": "rtsp://cam/3"})))
    house.reloader.reload()
    assert [age is None for age in ages] == [False]
    assert house.reloader.activity.age_s is None


def test_a_file_that_is_gone_is_refused(tmp_path):
    house = House(tmp_path)
    house.path.unlink()
    assert "cannot be read" in house.reloader.reload().reason


def test_what_fails_is_told_keeps_nothing_else_from_changing_and_is_tried_again(tmp_path):
    house = House(tmp_path, {"model main": BackendError("no memory")})
    wanted = values(
        models={"main": {"path": "/m.onnx", "confidence": 0.7}},
        **cameras(c={"source": "rtsp://cam/3"}),
    )
    house.write(wanted)
    state = house.reloader.reload()
    assert state == ConfigState("partly", "model main: no memory")
    assert house.site.done == ["add c"]
    assert not house.copy.path.exists()
    house.site.failing.clear()
    assert house.reloader.reload().state == "applied"
    assert house.site.done == ["add c", "model main"]


def test_a_camera_that_does_not_end_keeps_its_settings(tmp_path):
    house = House(tmp_path, {"remove b": PipelineError("camera b: it does not end")})
    house.write(values(**cameras(b={"source": "rtsp://cam/2"})))
    assert house.reloader.reload().state == "partly"
    assert house.site.done == []
    assert house.reloader.config.cameras["b"].source == "rtsp://cam/1"


def test_a_camera_that_cannot_start_is_not_in_force(tmp_path):
    house = House(tmp_path, {"add c": PipelineError("camera c: no")})
    house.write(values(**cameras(c={"source": "rtsp://cam/3"})))
    assert house.reloader.reload() == ConfigState("partly", "camera c: no")
    assert sorted(house.reloader.config.cameras) == ["a", "b"]


def test_the_copy_is_private_and_read_as_if_it_lay_at_its_origin(tmp_path):
    source = tmp_path / "etc" / "agent.yaml"
    source.parent.mkdir()
    (source.parent / "pw").write_text("secret\n")
    wanted = values(cameras={"a": {"source": "clip.mp4"}})
    wanted["mqtt"] |= {"username": "u", "password": "${file:pw}"}
    source.write_text(yaml.safe_dump(wanted))
    copy = LastGood(source, tmp_path / "state")
    assert copy.load() is None
    copy.keep(copy.read_source())
    assert copy.load() == load(source)
    assert b"secret" not in copy.path.read_bytes()
    assert stat.S_IMODE(copy.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(copy.path.parent.stat().st_mode) == 0o700
    assert [p.name for p in copy.path.parent.iterdir()] == [copy.path.name]


def test_a_damaged_copy_is_none(tmp_path):
    copy = LastGood(tmp_path / "agent.yaml", tmp_path / "state")
    copy.keep(b"cameras: [")
    assert copy.load() is None


def test_a_copy_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "state").write_text("a file")
    with pytest.raises(ConfigError, match="cannot be written"):
        LastGood(tmp_path / "agent.yaml", tmp_path / "state").keep(b"x")


@pytest.mark.parametrize(
    "state",
    [
        ConfigState("applied"),
        ConfigState("applied", restart=("mqtt", "models.x")),
        ConfigState("refused", "ä" * 9999),
        ConfigState("recovered", "line 3"),
    ],
)
def test_the_message_is_what_its_schema_says(state):
    message = json.loads(encode_config_state("d1", "b1", state, ts=1.23456))
    jsonschema.validate(message, schema("vigia.config-state/1"))
    assert len(message.get("reason", "")) <= MAX_REASON_CHARS


def test_the_command_tells_what_a_reload_would_do(tmp_path):
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text(yaml.safe_dump(values()))
    new.write_text(
        yaml.safe_dump(values(mqtt={"host": "x"}, **cameras(b={"source": "rtsp://cam/2"})))
    )
    said = CliRunner().invoke(app, ["diff", str(new), "-c", str(old)])
    assert said.output == "camera b: changed\nmqtt: with a restart\n"
    said = CliRunner().invoke(app, ["diff", str(old), "-c", str(old)])
    assert said.output == "nothing changes\n"
    said = CliRunner().invoke(app, ["diff", str(new), "-c", str(old), "--json"])
    assert json.loads(said.output)["cameras_started"] == ["b"]
