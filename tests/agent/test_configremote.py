"""Which settings may come from afar, and what they make of the file's."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agent.config import Config
from agent.configfile import load
from agent.configremote import SECTIONS, check, overlaid
from agent.errors import ConfigError


def file(**changes: object) -> dict:
    return {
        "mqtt": {"host": "broker"},
        "cameras": {
            "a": {"source": "rtsp://cam/1", "fps": 5},
            "b": {"source": "clip.mp4", "kind": "file"},
        },
        "models": {"main": {"path": "/m.onnx", "confidence": 0.3}},
        **changes,
    }


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"cameras": {"a": {"fps": 3}, "new": {"source": "rtsp://user:pw@cam/2"}}},
        {"cameras": {"a": {"enabled": False, "crop": {"left": 0.5}}}},
        {"cameras": {"a": {"source": "/dev/video0", "kind": "v4l2"}}},
        {"cameras": {"a": {"source": "/dev/v4l/by-id/usb-046d_C920-video-index0"}}},
        {"cameras": {"a": {"source": "0"}, "b": {"source": "csi://1"}}},
        {"models": {"main": {"confidence": 0.5, "classes": ["cap"], "precision": "fp32"}}},
        {"pipeline": {"queue_frames": 8}, "log": {"level": "debug"}},
        {"health": {"stall_timeout_s": 20}, "governor": {"steps": [0.5]}},
        {"mqtt": {"detections": {"max_rate_hz": 2}}},
        {"cameras": {"a": {"source": "http://cam/$${x}"}}},
    ],
)
def test_what_may_come_from_afar(settings):
    check(settings, {"main"})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"device": {"id": "other"}}, "device: comes from the device's own file only"),
        ({"updates": {}}, "updates: comes"),
        ({"updates": None}, "updates: comes"),
        ({"http": {"token": "t"}}, "http: comes"),
        ({"spool": {"dir": "/x"}}, "spool: comes"),
        ({"mqtt": {"host": "evil"}}, "mqtt.host: comes"),
        ({"mqtt": {"password": "p"}}, "mqtt.password: comes"),
        ({"mqtt": {"tls": {"ca_file": "/x"}}}, "mqtt.tls: comes"),
        ({"mqtt": "x"}, "mqtt: must be a section"),
        ({"pipeline": {"cache_dir": "/"}}, "pipeline.cache_dir: comes"),
        ({"models": {"main": {"path": "/etc/x.onnx"}}}, "models.main.path: comes"),
        ({"models": {"main": {"gate": {"min_cosine": 0}}}}, "models.main.gate: comes"),
        ({"models": {"main": {"quantize": {"calibration": "/"}}}}, "models.main.quantize: comes"),
        ({"models": {"main": {"names": "/etc/passwd"}}}, "models.main.names: comes"),
        ({"models": {"more": {"confidence": 1}}}, "models.more: no such model; there: main"),
        ({"models": {"main": 3}}, "models.main: must be a section"),
        ({"cameras": {"a": {"source": "/etc/passwd"}}}, "cameras.a.source: from afar come only"),
        ({"cameras": {"a": {"source": "file:///etc/passwd"}}}, "cameras.a.source: from afar"),
        ({"cameras": {"a": {"source": "/dev/mem"}}}, "cameras.a.source: from afar"),
        ({"cameras": {"a": {"source": "/dev/video0/../mem"}}}, "cameras.a.source: from afar"),
        ({"cameras": {"a": {"source": "/x", "kind": "rtsp"}}}, "cameras.a.source: from afar"),
        ({"cameras": {"a": {"source": "rtsp://x/1\n"}}}, "cameras.a.source: from afar"),
        (
            {"cameras": {"a": {"source": "videotestsrc ! filesink location=/x ! appsink"}}},
            "cameras.a.source: from afar",
        ),
        (
            {"cameras": {"a": {"source": "rtsp://x!filesink", "kind": "gstreamer"}}},
            "cameras.a.kind: from afar come only the kinds",
        ),
        (
            {"cameras": {"a": {"kind": "gstreamer"}}},
            "cameras.a.kind: comes from afar only together",
        ),
        ({"cameras": {"a": {"source": ["x"]}}}, "cameras.a.source: from afar"),
        ({"cameras": {"a": {"sauce": 1}}}, "cameras.a.sauce: unknown key"),
        ({"cameras": {"a": None}}, "cameras.a: must be a section"),
        ({"cameras": {"a": {"source": "rtsp://x/${file:/key}"}}}, "cameras.a.source: ${env:…}"),
        ({"models": {"main": {"classes": ["${env:HOME}"]}}}, "models.main.classes.0: ${env:…}"),
        ({"bogus": 1}, "bogus: unknown section"),
    ],
)
def test_what_may_not_and_where_it_belongs(settings, said):
    with pytest.raises(ConfigError) as error:
        check(settings, {"main"})
    assert str(error.value).startswith(said)


def test_every_mistake_is_told_at_once():
    with pytest.raises(ConfigError) as error:
        check({"device": {}, "mqtt": {"host": "x"}})
    assert len(str(error.value).splitlines()) == 2


ALLOWED = st.sampled_from(SECTIONS)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(ALLOWED | st.text(max_size=5), VALUES, max_size=4))
def test_whatever_comes_is_taken_or_refused_and_never_touches_what_is_the_files_alone(settings):
    try:
        check(settings, {"main"})
    except ConfigError:
        return
    merged = overlaid(file(), settings)
    for section in set(Config.model_fields) - set(SECTIONS):
        assert merged.get(section) == file().get(section)
    assert merged["mqtt"].get("host") == "broker"
    assert merged["models"]["main"]["path"] == "/m.onnx"


def test_sections_lie_over_those_of_the_file_key_by_key():
    merged = overlaid(
        file(),
        {"cameras": {"a": {"fps": 3}, "c": {"source": "rtsp://cam/3"}}, "log": {"level": "debug"}},
    )
    assert merged["cameras"]["a"] == {"source": "rtsp://cam/1", "fps": 3}
    assert sorted(merged["cameras"]) == ["a", "b", "c"]
    assert merged["log"] == {"level": "debug"}
    assert file()["cameras"]["a"]["fps"] == 5


def test_another_source_does_not_keep_the_kind_of_the_one_before():
    merged = overlaid(file(), {"cameras": {"b": {"source": "rtsp://cam/2"}}})
    assert merged["cameras"]["b"] == {"source": "rtsp://cam/2"}


def test_a_mistake_in_settings_from_afar_is_told_without_a_line_of_the_file(tmp_path):
    path = tmp_path / "agent.yaml"
    path.write_text(yaml.safe_dump(file()))
    with pytest.raises(ConfigError) as error:
        load(path, over={"cameras": {"a": {"fps": -1}, "c": {"fps": 1}}})
    lines = str(error.value).splitlines()
    assert lines[0] == "settings from afar: cameras.a.fps: must be more than 0"
    assert lines[1].startswith("settings from afar: cameras.c.source: is missing")
    with pytest.raises(ConfigError, match=r"settings from afar: device: comes"):
        load(path, over={"device": {"id": "x"}})
    assert load(path, over={"cameras": {"a": {"fps": 3}}}).cameras["a"].fps == 3
