"""What an agent knows of a file with mistakes: enough to say so."""

import pytest

from agent.configfile import load_control
from agent.errors import ConfigError

WRONG = "mqtt: {host: broker}\ncameras: {door: {sauce: 1}}\n"
TOKEN = "a token of sixteen or more"


@pytest.fixture
def control(tmp_path):
    def read(text):
        path = tmp_path / "agent.yaml"
        path.write_text(text)
        return load_control(path, {"TOKEN": TOKEN})

    return read


def test_the_broker_is_known_and_no_camera_is(control):
    config = control(WRONG)
    assert config.mqtt.host == "broker"
    assert config.cameras == {}


def test_the_page_is_where_the_file_says(control):
    config = control(WRONG + "http: {host: 0.0.0.0, port: 9000, token: '${env:TOKEN}'}\n")
    assert (config.http.host, config.http.port) == ("0.0.0.0", 9000)
    assert config.http.token.get_secret_value() == TOKEN
    assert not control(WRONG + "http: {enabled: false}\n").http.enabled


@pytest.mark.parametrize(
    "section", ["{port: -1}", "{host: 0.0.0.0}", "{token: '${env:NOTHING}'}", "[]", "9000"]
)
def test_a_mistake_in_the_pages_section_leaves_it_at_its_usual_place(control, section):
    config = control(WRONG + f"http: {section}\n")
    assert (config.http.host, config.http.port, config.http.token) == ("127.0.0.1", 8642, None)
    assert config.mqtt.host == "broker"


def test_without_a_broker_nothing_can_be_said(control):
    with pytest.raises(ConfigError, match=r"mqtt\.host"):
        control("mqtt: {hosts: broker}\n")
