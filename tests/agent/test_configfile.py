"""Configuration files: what is accepted, and what each mistake is told."""

import os
import re
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agent.config import Config
from agent.configfile import load, schema, shown
from agent.errors import ConfigError

NOBODY = 65534

GOOD = """\
mqtt:
  host: broker
cameras:
  door:
    source: rtsp://cam/1
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="agent.yaml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def mistakes(path, environ=None):
    """Lines of the error without the file's name."""
    with pytest.raises(ConfigError) as caught:
        load(path, environ or {})
    lines = str(caught.value).splitlines()
    assert all(line.startswith(str(path)) for line in lines)
    return [line.removeprefix(f"{path}:").strip() for line in lines]


def test_cameras_and_broker_suffice(write):
    config = load(write(GOOD))
    assert config.mqtt.effective_port == 1883
    assert config.cameras["door"].model == "main"
    assert config.models["main"].path == Path("/var/lib/vigia/models/main.onnx")


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("camras: {}\n" + GOOD, "1: camras: unknown key; did you mean 'cameras'?"),
        (
            GOOD + "    stall_timeout: 5\n",
            "6: cameras.door.stall_timeout: unknown key; did you mean 'stall_timeout_s'?",
        ),
        (
            GOOD + "    confidence: 0.5\n",
            "6: cameras.door.confidence: unknown key; you may mean models.NAME.confidence",
        ),
        (
            GOOD + "log: {qwertz: 1}\n",
            "6: log.qwertz: unknown key; known here are format, level",
        ),
        (
            GOOD + "    stall_timeout_s: 5s\n",
            "6: cameras.door.stall_timeout_s: must be a number of seconds, written without a unit",
        ),
        (GOOD + "    max_age_ms: 0\n", "6: cameras.door.max_age_ms: must be more than 0"),
        (GOOD + "    fps: fast\n", "6: cameras.door.fps: must be a number"),
        (GOOD + "    fps: .nan\n", "6: cameras.door.fps: must be a number"),
        (GOOD + "    width: 12.5\n", "6: cameras.door.width: must be a whole number"),
        (GOOD + "    width: 8\n", "6: cameras.door.width: must be at least 16"),
        (GOOD + "    enabled: maybe\n", "6: cameras.door.enabled: must be true or false"),
        (GOOD + "    rotate: 45\n", "6: cameras.door.rotate: must be 0, 90, 180 or 270"),
        (GOOD + "    flip: up\n", "6: cameras.door.flip: must be 'none', 'horizontal', "),
        (GOOD + "    source: [a]\n", "5: cameras.door.source: is there twice, again in line 6"),
        (
            GOOD + "    model: other\n",
            "6: cameras.door.model: no such model in `models`; there: main",
        ),
        (
            GOOD + "    crop: {left: 0.5, right: 0.5}\n",
            "6: cameras.door.crop: left must be less than right",
        ),
        (GOOD + "    fourcc: MJPEG\n", "6: cameras.door.fourcc: must be the four characters"),
        ("mqtt: {}\ncameras: {a: {source: 0}}\n", "1: mqtt.host: is missing; add it: Broker's"),
        ("cameras: {a: {source: 0}}\n", "1: mqtt: is missing; add it with at least host below it"),
        ("mqtt: {host: h}\n", "1: cameras: is missing; add it: Sources of frames"),
        ("mqtt: {host: h}\ncameras: {}\n", "2: cameras: must have at least 1"),
        ("mqtt: {host: h}\ncameras:\n", "2: cameras: is empty; it must be a mapping"),
        ("mqtt: {host: h}\ncameras: [a]\n", "2: cameras: must be a mapping of names"),
        ("mqtt: {host: h}\ncameras: {a: }\n", "2: cameras.a: is empty; write its settings"),
        ("mqtt: {host: 'mqtt://h'}\n", "1: mqtt.host: must be a host name or address alone"),
        ("mqtt: {host: h, tls: }\n", "1: mqtt.tls: is empty; write its settings below it, `{}`"),
        ("mqtt: {host: h, tls: {cert_file: c}}\n", "1: mqtt.tls: cert_file and key_file belong"),
        ("mqtt: {host: h, port: 99999}\n", "1: mqtt.port: must be at most 65535"),
        ("mqtt: {host: h, prefix: 'a/#'}\n", "1: mqtt.prefix: must be topic levels"),
        ("mqtt: {host: h, detections: {qos: 2}}\n", "1: mqtt.detections.qos: must be 0 or 1"),
        ("device: {id: a b}\n", "1: device.id: must be a name"),
        ("cameras:\n  'a/b': {source: 0}\n", "2: cameras.a/b: must be a name"),
        (
            "cameras:\n  a: {source: 0}\n  b: {source: 1}\n  a: {source: 2}\n",
            "2: cameras.a: is the",
        ),
        ("models: {main: {names: {a: b}}}\n", "1: models.main.names: must be a list: Class names"),
        ("models: {main: {mean: [1, 2]}}\n", "1: models.main.mean.2: is missing"),
        (
            'mqtt: {host: h, password: "${env:NOPE}"}\n',
            "1: mqtt.password: the environment variable",
        ),
        ('mqtt: {host: h, password: "${nope}"}\n', "1: mqtt.password: `${` begins a reference"),
        ('mqtt: {host: h, password: "${env:A"}\n', "1: mqtt.password: `${` begins a reference"),
        ('mqtt: {host: h, username: "a\\0"}\n', "1: mqtt.username: has a NUL character"),
        ('mqtt: {host: h, username: "\\uD800"}\n', "1: mqtt.username: has bytes in it that"),
    ],
)
def test_mistake_is_told_with_line_key_and_remedy(write, text, mistake):
    found = mistakes(write(text))
    assert any(line.startswith(mistake) for line in found), found


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(write):
    text = GOOD.replace("host: broker", "hots: broker") + "    fps: x\nlog:\n  level: loud\n"
    assert [line.partition(": ")[0] for line in mistakes(write(text))] == ["1", "2", "6", "8"]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        ("- a\n", "the top must be a mapping"),
        ("text\n", "the top must be a mapping"),
        ("a: [\n", "2: not valid YAML"),
        ("a:\n\tb: 1\n", "2: not valid YAML"),
        ("a: 1\nb: \x01\n", "2: not valid YAML: a control character"),
        (b"a: 1\nb: \xff\n", "2: not UTF-8 text"),
        ("a: &x {b: 1}\nc: *x\n", "1: YAML anchors and aliases"),
        ("a: 1\nc: *x\n", "2: YAML anchors and aliases"),
        ("a: !!python/object:os.system {}\n", "1: YAML tags"),
        ("a: 1\n---\nb: 1\n", "2: a second document begins here"),
        ("? [a, b]\n: 1\n", "1: a key must be a plain word"),
        ("a: " + "[" * 3000, "1: nested deeper than 20 levels"),
        ("# " + "x" * 300_000, "larger than 262144 bytes"),
    ],
)
def test_what_is_no_such_yaml_is_refused(write, text, mistake):
    (found,) = mistakes(write(text))
    assert found.startswith(mistake)


def test_file_that_cannot_be_read_is_told(tmp_path):
    assert "No such file" in mistakes(tmp_path / "none.yaml")[0]
    assert "Is a directory" in mistakes(tmp_path)[0]


def test_file_without_permission_is_told(write):
    path = write(GOOD)
    path.chmod(0)
    was = os.geteuid()
    if was == 0:
        # Root may read everything.
        os.seteuid(NOBODY)
    try:
        assert "Permission denied" in mistakes(path)[0]
    finally:
        os.seteuid(was)


def test_setting_decides_the_type_not_the_looks(write):
    config = load(
        write(
            "mqtt: {host: h, protocol: 5, username: 0123, password: 1e5}\n"
            "cameras: {no: {source: 0, rotate: 90}}\n"
            "models: {main: {names: [yes, no, 2024-01-01]}}\n"
        )
    )
    assert config.mqtt.protocol == "5"
    assert config.mqtt.username == "0123"
    assert config.mqtt.password.get_secret_value() == "1e5"
    assert config.cameras["no"].source == "0"
    assert config.cameras["no"].rotate == 90
    assert config.models["main"].names == ["yes", "no", "2024-01-01"]


def test_references_are_filled_in_wholly_or_in_part(write, tmp_path):
    (tmp_path / "pw").write_text("s3cret\n")
    path = write(
        'mqtt: {host: h, port: "${env:PORT}", password: "${file:pw}", username: "$${env:A}"}\n'
        'cameras: {a: {source: "rtsp://u:${env:PW}@${env:HOST}/1"}}\n'
    )
    config = load(path, {"PORT": "1234", "PW": "x${env:PORT}", "HOST": "cam"})
    assert config.mqtt.port == 1234
    assert config.mqtt.password.get_secret_value() == "s3cret"
    assert config.mqtt.username == "${env:A}"
    # What a secret contains is not a reference.
    assert config.cameras["a"].source == "rtsp://u:x${env:PORT}@cam/1"


@pytest.mark.parametrize(
    ("name", "mistake"),
    [
        ("none", "cannot be read: No such file"),
        (".", "is not a regular file"),
        ("fifo", "is not a regular file"),
        ("/dev/zero", "is not a regular file"),
        ("binary", "is not UTF-8 text"),
        ("large", "is larger than 65536 bytes"),
    ],
)
def test_secret_file_that_is_none_is_told_without_its_content(write, tmp_path, name, mistake):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "binary").write_bytes(b"hunter2\xff")
    (tmp_path / "large").write_bytes(b"hunter2" * 10_000)
    (found,) = mistakes(
        write(f'mqtt: {{host: h, password: "${{file:{name}}}"}}\ncameras: {{a: {{source: 0}}}}\n')
    )
    assert found.startswith(("1: mqtt.password: the file ", "1: mqtt.password: /"))
    assert mistake in found
    assert "hunter2" not in found


def test_relative_paths_begin_at_the_file(write, tmp_path):
    config = load(
        write(
            "mqtt: {host: h, tls: {ca_file: ca.pem, cert_file: c.pem, key_file: /k.pem}}\n"
            "cameras:\n"
            "  a: {source: video.mp4}\n"
            "  b: {source: 'shots/*.jpg'}\n"
            "  c: {source: /dev/video0}\n"
            "  d: {source: 2}\n"
            "  e: {source: 'rtsp://h/1'}\n"
            "  f: {source: 'videotestsrc ! appsink'}\n"
            "  g: {source: '/abs.mp4'}\n"
            "models: {main: {path: m.onnx, names: names.txt}}\n"
            "pipeline: {cache_dir: cache}\n"
            "updates:\n"
            "  state_dir: state\n"
            "  root_file: /root.json\n"
            "  keys: {kind: pkcs11, module: lib.so, token: t, pin: p}\n"
        )
    )
    tls = config.mqtt.tls
    assert (tls.ca_file, tls.cert_file) == (tmp_path / "ca.pem", tmp_path / "c.pem")
    assert tls.key_file == Path("/k.pem")
    assert [c.source for c in config.cameras.values()] == [
        str(tmp_path / "video.mp4"),
        str(tmp_path / "shots/*.jpg"),
        "/dev/video0",
        "2",
        "rtsp://h/1",
        "videotestsrc ! appsink",
        "/abs.mp4",
    ]
    assert config.models["main"].path == tmp_path / "m.onnx"
    assert config.models["main"].names == tmp_path / "names.txt"
    assert config.pipeline.cache_dir == tmp_path / "cache"
    updates = config.updates
    assert (updates.state_dir, updates.root_file) == (tmp_path / "state", Path("/root.json"))
    assert updates.keys.module == tmp_path / "lib.so"


def test_shown_hides_every_secret_and_keeps_the_rest(write):
    path = write(
        'mqtt: {host: "${env:HOST}", port: "${env:PORT}", password: literal}\n'
        "cameras:\n"
        '  a: {source: "rtsp://user:${env:PW}@cam/1"}\n'
        "  b: {source: 'rtsp://user:literal@cam/1?token=literal'}\n"
        'models: {main: {names: ["${env:PW}", b]}}\n'
    )
    values = shown(path, {"HOST": "hidden", "PORT": "1234", "PW": "hidden"})
    assert values["mqtt"]["host"] == "***"
    assert values["mqtt"]["port"] == "***"
    assert values["mqtt"]["password"] == "***"
    assert values["cameras"]["a"]["source"] == "rtsp://user:***@cam/1"
    assert values["cameras"]["b"]["source"] == "rtsp://user:***@cam/1?token=***"
    assert values["models"]["main"]["names"] == ["***", "b"]
    assert "hidden" not in str(values)
    assert "literal" not in str(values)
    assert values["log"] == {"level": "info", "format": "auto"}


SECRET = "5eCr3t"  # a value that no message has by chance

DOTTED = [
    "device.id",
    "mqtt.host",
    "mqtt.port",
    "mqtt.protocol",
    "mqtt.password",
    "mqtt.prefix",
    "mqtt.tls",
    "mqtt.detections.qos",
    "cameras.a.source",
    "cameras.a.kind",
    "cameras.a.model",
    "cameras.a.fps",
    "cameras.a.crop",
    "cameras.a.fourcc",
    "models.main.path",
    "models.main.names",
    "models.main.mean",
    "models.main.class_confidence.x",
    "log.level",
    "log",
    "nonsense",
]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    key=st.sampled_from(DOTTED),
    before=st.sampled_from(["", "rtsp://u:", "5", "a b", "file:", "\0"]),
    after=st.sampled_from(["", "@h/x", "s", "\n", "?x=1"]),
)
def test_no_message_and_no_show_has_a_secret(tmp_path, key, before, after):
    values = {"mqtt": {"host": "h"}, "cameras": {"a": {"source": "0"}}}
    *above, last = key.split(".")
    place = values
    for part in above:
        place = place.setdefault(part, {})
    place[last] = f"{before}${{env:S}}{after}"
    path = tmp_path / "secret.yaml"
    path.write_text(yaml.safe_dump(values))
    try:
        text = str(shown(path, {"S": SECRET}))
    except ConfigError as error:
        text = str(error) + str(error.__cause__) + str(error.__suppress_context__ or "")
    assert SECRET not in text


KEYS = st.sampled_from(
    sorted({part for key in DOTTED for part in key.split(".")} | {"", "a b", "é", "1"})
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=10),
    st.dates(),
    st.sampled_from(["${env:A}", "${", "${file:/}", "0", "rtsp://h", "a.mp4"]),
)
MAPPINGS = st.dictionaries(
    KEYS,
    st.recursive(
        LEAVES,
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner)),
        max_leaves=12,
    ),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(values=MAPPINGS)
@example(values={"mqtt": {"host": "h"}, "cameras": {"a": {"source": "~nobody/x"}}})
def test_any_mapping_is_a_configuration_or_one_error(tmp_path, values):
    path = tmp_path / "any.yaml"
    path.write_text(yaml.safe_dump(values, allow_unicode=False))
    try:
        made = load(path, {"A": "1"})
    except ConfigError as error:
        message = str(error)
    else:
        assert isinstance(made, Config)
        return
    assert message
    assert all(line.startswith(f"{path}:") for line in message.splitlines())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(raw=st.one_of(st.binary(max_size=60), st.text("ab:{}[]&*!|>'\"#-?, \n\t%@`$", max_size=60)))
def test_any_bytes_are_a_configuration_or_one_error(tmp_path, raw):
    path = tmp_path / "any.yaml"
    path.write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        load(path, {})


def test_schema_accepts_what_the_agent_accepts_and_explains_every_setting(write):
    made = schema()
    jsonschema.Draft202012Validator.check_schema(made)
    validator = jsonschema.Draft202012Validator(made)
    assert validator.is_valid(yaml.safe_load(GOOD))
    assert validator.is_valid({"mqtt": {"host": "h"}, "cameras": {"a": {"source": 0}}})
    assert not validator.is_valid({"mqtt": {"hots": "h"}, "cameras": {"a": {"source": 0}}})
    for name, section in [("", made), *made["$defs"].items()]:
        for key, setting in section["properties"].items():
            assert setting.get("description") or "$ref" in setting, f"{name}.{key}"
