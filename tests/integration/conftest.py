"""Real peers for integration tests."""

from __future__ import annotations

import os
import secrets
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.fakes.adversary import Stand
from tests.integration import browser
from tests.integration.agents import Agents
from tests.integration.certificates import Authority, Pair
from tests.integration.mosquitto import Mosquitto, binary
from tests.integration.subscriber import Subscriber
from tests.vectors.models import make_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

USER = "device"
PASSWORD = "correct horse"
READ_ONLY_USER = "reader"


@dataclass(frozen=True)
class Certificates:
    """What the brokers and devices of the tests hold."""

    authority: Authority
    other_authority: Authority
    server: Pair
    expired_server: Pair
    other_name_server: Pair
    device: Pair
    stranger: Pair
    locked_device: Pair


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    authority = Authority(folder / "ca")
    other = Authority(folder / "other", "Other CA")
    return Certificates(
        authority=authority,
        other_authority=other,
        server=authority.issue("server"),
        expired_server=authority.issue("expired", days=(-3, -2)),
        other_name_server=authority.issue("elsewhere", ("broker.example",)),
        device=authority.issue("device", ()),
        stranger=other.issue("stranger", ()),
        locked_device=authority.issue("locked", (), password=b"opens it"),
    )


@pytest.fixture(scope="session")
def mosquitto(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[Mosquitto]:
    """One broker for all tests, with a listener for each way to connect. Never stop it."""
    folder = tmp_path_factory.mktemp("mosquitto")
    passwords = _passwords(folder / "passwords")
    acl = folder / "acl"
    acl.write_text(f"user {USER}\ntopic readwrite #\nuser {READ_ONLY_USER}\ntopic read #\n")

    def tls(pair: Pair) -> tuple[str, ...]:
        return (
            f"cafile {certificates.authority.file}",
            f"certfile {pair.cert}",
            f"keyfile {pair.key}",
        )

    anonymous = ("allow_anonymous true",)
    locked = ("allow_anonymous false", f"password_file {passwords}", f"acl_file {acl}")
    listeners = {
        "plain": anonymous,
        "password": locked,
        "tls": (*locked, *tls(certificates.server)),
        "mutual": (*anonymous, *tls(certificates.server), "require_certificate true"),
        "expired": (*anonymous, *tls(certificates.expired_server)),
        "other_name": (*anonymous, *tls(certificates.other_name_server)),
    }
    with Mosquitto(folder, listeners) as broker:
        yield broker


@pytest.fixture
def own_mosquitto(tmp_path: Path) -> Iterator[Callable[..., Mosquitto]]:
    """Makes and starts a broker that the test may kill; arguments are lines of configuration."""
    made: list[Mosquitto] = []

    def make(*general: str) -> Mosquitto:
        folder = tmp_path / f"mosquitto{len(made)}"
        broker = Mosquitto(folder, {"plain": ("allow_anonymous true",)}, general)
        broker.start()
        made.append(broker)
        return broker

    yield make
    for broker in made:
        broker.kill()


@pytest.fixture
def prefix() -> str:
    """A topic prefix that no other test uses."""
    return f"test/{secrets.token_hex(4)}"


@pytest.fixture
def subscriber(mosquitto: Mosquitto, prefix: str) -> Iterator[Subscriber]:
    """Reads everything below the test's prefix."""
    with Subscriber(mosquitto.ports["plain"], f"{prefix}/#") as reader:
        yield reader


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Agents]:
    agents = Agents(tmp_path)
    yield agents
    agents.kill()


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    """A device that is going to be attacked."""
    made = Stand(tmp_path)
    yield made
    made.close()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A tiny detector, so that the tests' time goes into what they test."""
    path = tmp_path / "tiny.onnx"
    make_model(path, "detect", "yolo", nc=3, size=64)
    return path


def _passwords(file: Path) -> Path:
    binary()
    file.touch()
    for user in (USER, READ_ONLY_USER):
        subprocess.run(["mosquitto_passwd", "-b", file, user, PASSWORD], check=True)
    return file


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    """A real browser; absent, the test is skipped, but not under CI=true."""
    command = browser.find()
    if command is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no Chromium; install the Debian package chromium")
        pytest.skip("no Chromium; install the Debian package chromium")
    running = browser.Browser(command, tmp_path_factory.mktemp("browser"))
    yield running
    running.close()
