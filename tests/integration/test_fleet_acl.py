"""Whom the broker that `vigia fleet init` writes lets do what: a real Mosquitto."""

from __future__ import annotations

import contextlib
import queue
import signal
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from agent.wire.topics import FleetTopics, Topics
from fleet.enrolling import revoke
from fleet.roles import Permission, Role
from fleet.staffing import let_go, take_on
from tests.fakes.fleetfolder import (
    PREFIX,
    enroll_new,
    found_fleet,
    open_fleet,
    remembered_derivations,
)
from tests.integration.certificates import Authority
from tests.integration.mosquitto import _listens, binary
from tests.integration.ports import free_port

WAIT_S = 10.0
SUCCESS, NO_SUBSCRIBERS, NOT_AUTHORIZED = 0x00, 0x10, 0x87
A, B = Topics(PREFIX, "line-a"), Topics(PREFIX, "line-b")
FLEET = FleetTopics(PREFIX)


class Broker:
    """Mosquitto, started with the generated configuration and nothing else."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self._config = folder / "mosquitto.conf"
        self._log = folder.parent / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([binary(), "-c", self._config], stderr=log)
        self._until(lambda: _listens(self.port))

    def stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(WAIT_S) == 0

    def reload(self) -> None:
        """Have it read its lists again, as `systemctl reload` does, and wait until it has begun."""
        assert self._process is not None
        before = self._log.read_text().count("Reloading config")
        self._process.send_signal(signal.SIGHUP)
        self._until(lambda: self._log.read_text().count("Reloading config") > before)

    def _until(self, true) -> None:
        assert self._process is not None
        end = time.monotonic() + WAIT_S
        while not true():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < end, self._log.read_text()
            # Nothing tells when; the deadline above bounds this.
            time.sleep(0.01)


class Client:
    """One connection with a certificate; `received` are (topic, payload)."""

    def __init__(self, port, files, name="", username=None, will=None, fresh=True) -> None:
        self._acknowledged: dict[int, int] = {}
        self._change = threading.Condition()
        self.received: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self._mqtt = mqtt.Client(CallbackAPIVersion.VERSION2, name, protocol=mqtt.MQTTv5)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(files["ca_file"])
        if "cert_file" in files:
            context.load_cert_chain(files["cert_file"], files["key_file"])
        self._mqtt.tls_set_context(context)
        if username is not None:
            self._mqtt.username_pw_set(username, "claimed")
        if will is not None:
            self._mqtt.will_set(will, b"will", qos=1, retain=True)
        self._mqtt.on_connect = self._connected
        self._mqtt.on_publish = lambda _c, _u, mid, code, _p: self._note(mid, code.value)
        self._mqtt.on_subscribe = lambda _c, _u, mid, codes, _p: self._note(mid, codes[0].value)
        self._mqtt.on_message = lambda _c, _u, m: self.received.put((m.topic, m.payload))
        self._ready = threading.Event()
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 0 if fresh else 3600
        self._mqtt.connect("localhost", port, clean_start=fresh, properties=properties)
        self._mqtt.loop_start()
        if not self._ready.wait(WAIT_S):
            self.close()
            raise TimeoutError("no answer to CONNECT")

    def publish(self, topic, payload, retain=True) -> bool:
        """Whether the broker took it."""
        code = self._answer(self._mqtt.publish(topic, payload, qos=1, retain=retain).mid)
        assert code in {SUCCESS, NO_SUBSCRIBERS, NOT_AUTHORIZED}
        return code != NOT_AUTHORIZED

    def subscribe(self, topic) -> int:
        return self._answer(self._mqtt.subscribe(topic, qos=1)[1])

    def next(self):
        return self.received.get(timeout=WAIT_S)

    def reads(self, *filters, fence):
        """Everything that subscribing to `filters` brings, before what `fence` brings."""
        for topic_filter in filters:
            self.subscribe(topic_filter)
        self.subscribe(fence)
        found = []
        while (message := self.next())[0] != fence:
            found.append(message)
        return found

    def drop(self) -> None:
        """Go without a word, so that the broker publishes the will."""
        self._mqtt.loop_stop()
        self._mqtt.socket().shutdown(2)

    def close(self) -> None:
        self._mqtt.disconnect()
        self._mqtt.loop_stop()

    def _connected(self, _client, _userdata, _flags, code, _properties) -> None:
        assert not code.is_failure, code
        self._ready.set()

    def _note(self, mid, code) -> None:
        with self._change:
            self._acknowledged[mid] = code
            self._change.notify_all()

    def _answer(self, mid) -> int:
        with self._change:
            assert self._change.wait_for(lambda: mid in self._acknowledged, WAIT_S)
            return self._acknowledged.pop(mid)


class Place:
    """A fleet with its broker, and the certificates of those who are in it."""

    def __init__(self, folder: Path, fleet, broker: Broker) -> None:
        self.folder = folder
        self.fleet = fleet
        self.broker = broker
        self.files: dict[str, dict[str, Path]] = {}

    def enroll(self, name: str) -> None:
        device, answer = enroll_new(self.fleet, self.folder / "devices", name)
        self.files[name] = device.tls_files(answer)

    def client(self, who: str, **options) -> Client:
        return Client(self.broker.port, self.files[who], **options)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("acl")
    port = free_port()
    with remembered_derivations():
        found_fleet(folder / "fleet", broker_port=port)
        with open_fleet(folder / "fleet") as fleet:
            broker = Broker(fleet.layout.broker, port)
            place = Place(folder, fleet, broker)
            for name in ("line-a", "line-b", "thief"):
                place.enroll(name)
            ann = fleet.act(Permission.ADMINISTER)
            for name in ("vic", "former"):
                viewer = take_on(fleet, ann, name, Role.VIEWER).viewer
                pair = {"cert_file": viewer.certificate.pem.encode(), "key_file": viewer.key}
                place.files[name] = _written(folder / name, pair, fleet)
            place.files["controller"] = _files_of(fleet.mqtt.tls)
            broker.start()
            yield place
            broker.stop()


def _files_of(tls):
    return {"ca_file": tls.ca_file, "cert_file": tls.cert_file, "key_file": tls.key_file}


def _written(folder, pair, fleet):
    folder.mkdir()
    for name, content in pair.items():
        (folder / name).write_bytes(content)
    ca = {"ca_file": fleet.layout.broker / "ca.pem"}
    return {**ca, **{name: folder / name for name in pair}}


@pytest.fixture
def connect(place):
    """Connects as one of the fleet, until the test's end."""
    made = []

    def as_(who, **options):
        made.append(place.client(who, **options))
        return made[-1]

    yield as_
    for client in made:
        client.close()


@pytest.fixture
def controller(connect):
    return connect("controller")


@pytest.fixture
def filled(controller):
    """The broker with retained messages of all kinds."""
    assert controller.publish(FLEET.trust, b"trust")
    assert controller.publish(FLEET.block("b" * 32, 0), b"block")
    for topics in (A, B):
        assert controller.publish(topics.assignment, topics.assignment.encode())
        assert controller.publish(topics.command("pause"), topics.assignment.encode())
        assert controller.publish(topics.config_desired, b"settings")
    return controller


def test_a_device_reads_what_is_for_it(filled, connect):
    device = connect("line-a")
    mine = (
        A.assignment,
        A.command("+"),
        A.config_desired,
        FLEET.trust,
        f"{PREFIX}/bundles/#",
    )
    for topic_filter in mine:
        device.subscribe(topic_filter)
    found = {device.next()[0] for _ in range(5)}
    assert found == {
        A.assignment,
        A.command("pause"),
        A.config_desired,
        FLEET.trust,
        FLEET.block("b" * 32, 0),
    }


@pytest.mark.parametrize(
    "topic_filter",
    [
        B.assignment,
        B.command("+"),
        B.config_desired,
        f"{PREFIX}/+/config/desired",
        f"{PREFIX}/line-b/#",
        f"{PREFIX}/+/update/assignment",
        f"{PREFIX}/+/status",
        f"$share/all/{PREFIX}/line-b/#",
        "$SYS/#",
        "#",
    ],
)
def test_a_device_reads_nothing_of_another(filled, connect, topic_filter):
    other = connect("line-b")
    assert other.publish(B.status, b"of b")
    device = connect("line-a")
    assert device.publish(A.check, b"fence")
    found = {topic for topic, _ in device.reads(topic_filter, fence=A.check)}
    # What is published while it is subscribed does not come either.
    assert other.publish(B.update_report("main"), b"later")
    assert filled.publish(B.assignment, b"later")
    assert device.publish(A.check, b"end", retain=False)
    while (message := device.next()) != (A.check, b"end"):
        found.add(message[0])
    own = {A.assignment, A.command("pause"), A.config_desired, A.check}
    assert found <= {*own, FLEET.trust, FLEET.block("b" * 32, 0)}


@pytest.mark.parametrize(
    "topic",
    [
        A.status,
        A.info,
        A.telemetry,
        A.check,
        A.camera_status("door"),
        A.detections("door"),
        A.events,
        A.config_state,
        A.model_state("main"),
        A.update_request,
        A.update_report("main"),
        A.update_state("main"),
        A.reply("0" * 32),
    ],
)
def test_a_device_writes_its_own_topics(controller, connect, topic):
    controller.subscribe(topic)
    assert connect("line-a").publish(topic, b"mine", retain=False)

    # One that other tests retained may come first.
    while (message := controller.next()) != (topic, b"mine"):
        assert message[0] == topic


@pytest.mark.parametrize(
    "topic",
    [
        A.assignment,
        A.command("rollback"),
        A.config_desired,
        B.config_desired,
        B.assignment,
        B.status,
        B.update_report("main"),
        B.update_state("main"),
        B.detections("door"),
        FLEET.trust,
        FLEET.manifest("b" * 32),
        FLEET.block("b" * 32, 0),
        f"{PREFIX}/line-a",
        f"{PREFIX}/new",
        "elsewhere",
        "$SYS/broker/version",
    ],
)
def test_a_device_writes_nothing_else(filled, connect, topic):
    device = connect("line-a")
    assert not device.publish(topic, b"forged")
    # An empty retained message would take away what others said.
    assert not device.publish(topic, b"")
    assert device.publish(A.status, b"fence")
    found = filled.reads(topic, fence=A.status)
    assert b"forged" not in [payload for _, payload in found]
    kept = {A.assignment, B.assignment, A.config_desired, B.config_desired, FLEET.trust}
    if topic in {*kept, FLEET.block("b" * 32, 0)}:
        assert len(found) == 1


def test_a_will_for_another_device_is_not_published(controller, connect, place):
    controller.subscribe(B.status)
    controller.subscribe(A.status)
    with contextlib.suppress(TimeoutError, AssertionError):
        place.client("line-a", will=B.status).drop()
    place.client("line-a", will=A.status).drop()
    seen = []
    while (A.status, b"will") not in seen:
        seen.append(controller.next())
    assert (B.status, b"will") not in seen


def test_a_claimed_user_name_counts_for_nothing(filled, connect):
    device = connect("line-a", username="line-b")
    assert not device.publish(B.status, b"forged")
    assert device.publish(A.status, b"mine")
    impostor = connect("line-a", username="fleet-controller")
    assert not impostor.publish(B.assignment, b"forged")


def test_the_session_of_another_device_gives_nothing_of_it_away(filled, connect):
    owner = connect("line-b", name="vigia-line-b", fresh=False)
    owner.subscribe(B.assignment)
    assert owner.next()[0] == B.assignment
    owner.close()
    # Kept for the owner, who is away.
    assert filled.publish(B.assignment, b"in between")
    thief = connect("line-a", name="vigia-line-b", fresh=False)
    assert filled.publish(B.assignment, b"later")
    assert thief.publish(A.check, b"fence")
    thief.subscribe(A.check)
    assert thief.next() == (A.check, b"fence")


def test_a_viewer_reads_everything_and_writes_nothing(filled, connect):
    viewer = connect("vic")
    viewer.subscribe(f"{PREFIX}/#")
    wanted = {A.assignment, B.assignment, FLEET.trust}
    while wanted:
        wanted.discard(viewer.next()[0])
    for topic in (
        A.status,
        A.assignment,
        A.config_desired,
        FLEET.trust,
        f"{PREFIX}/viewer-vic/status",
        f"{PREFIX}/vic/status",
        "elsewhere",
    ):
        assert not viewer.publish(topic, b"forged")
        assert not viewer.publish(topic, b"")


def test_the_controller_hears_devices_but_does_not_speak_for_them(controller, connect):
    controller.subscribe(A.update_report("main"))
    assert connect("line-a").publish(A.update_report("main"), b"report", retain=False)
    assert controller.next() == (A.update_report("main"), b"report")
    foreign = (A.status, A.config_state, A.update_report("main"), A.update_state("main"))
    for topic in (*foreign, "elsewhere"):
        assert not controller.publish(topic, b"forged")


def _refused(port, files):
    with pytest.raises((OSError, TimeoutError)):
        _connect_tls(port, files)


def _connect_tls(port, files):
    """Shake hands and read: TLS 1.3 tells of a refused client certificate only then."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(files["ca_file"])
    if "cert_file" in files:
        context.load_cert_chain(files["cert_file"], files["key_file"])
    with (
        socket.create_connection(("127.0.0.1", port), WAIT_S) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        # CONNECT, MQTT 3.1.1, clean session, client id "x".
        tls.sendall(bytes.fromhex("100d00044d5154540402003c000178"))
        answer = tls.recv(4)
        if not answer:
            raise ConnectionResetError("closed without an answer")
        return answer


def test_without_a_certificate_nobody_gets_in(place):
    _refused(place.broker.port, {"ca_file": place.files["line-a"]["ca_file"]})


def test_a_certificate_of_another_authority_is_refused(place, tmp_path):
    pair = Authority(tmp_path, "Vigia fleet test").issue("line-a", ())
    files = {**place.files["line-a"], "cert_file": pair.cert, "key_file": pair.key}
    _refused(place.broker.port, files)


def test_the_brokers_own_certificate_is_none_for_clients(place):
    layout = place.fleet.layout
    files = {
        "ca_file": layout.broker / "ca.pem",
        "cert_file": layout.broker / "server.pem",
        "key_file": layout.broker / "server.key",
    }
    _refused(place.broker.port, files)


def test_the_handshake_of_these_tests_succeeds_for_a_device(place):
    assert _connect_tls(place.broker.port, place.files["line-a"]) == bytes.fromhex("20020000")


def test_a_revoked_device_is_cut_off_and_cannot_come_back(place, filled, connect):
    thief = connect("thief")
    topics = Topics(PREFIX, "thief")
    assert thief.publish(topics.status, b"here")
    assert thief.subscribe(FLEET.trust) == 1
    assert thief.next() == (FLEET.trust, b"trust")
    ann = place.fleet.act(Permission.REVOKE)
    revoke(place.fleet, ann, "thief", "stolen")
    place.broker.reload()
    # What was open is cut off: it neither says nor hears anything any more.
    assert not thief.publish(topics.status, b"forged")
    assert filled.publish(FLEET.trust, b"secret")
    assert not thief.publish(topics.update_report("main"), b"fence")
    assert thief.received.empty()
    _refused(place.broker.port, place.files["thief"])
    # The others are not concerned.
    assert connect("line-a").publish(A.status, b"here")


def test_a_viewer_who_left_is_cut_off_too(place, filled):
    _connect_tls(place.broker.port, place.files["former"])
    let_go(place.fleet, place.fleet.act(Permission.ADMINISTER), "former")
    place.broker.reload()
    _refused(place.broker.port, place.files["former"])
    _connect_tls(place.broker.port, place.files["vic"])


def test_a_device_that_was_enrolled_later_needs_no_word_to_the_broker(place, connect):
    place.enroll("later")
    assert connect("later").publish(Topics(PREFIX, "later").status, b"here")


def test_retained_messages_outlive_a_restart(place, filled, connect):
    place.broker.stop()
    place.broker.start()
    device = connect("line-b")
    device.subscribe(B.assignment)
    assert device.next() == (B.assignment, B.assignment.encode())
