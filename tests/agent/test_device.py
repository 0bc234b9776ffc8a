from __future__ import annotations

import re
import socket

import pytest

from agent.config import NAME_PATTERN, DeviceConfig
from agent.device import HostProbe, device_id, hardware


@pytest.mark.parametrize("host", ["plain", "edge-7.example.org", "Küche 3", "...", "x" * 300])
def test_an_id_made_of_the_host_name_is_a_valid_one(monkeypatch, host):
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    assert re.match(NAME_PATTERN, device_id(DeviceConfig()))


def test_the_configured_id_wins():
    assert device_id(DeviceConfig(id="gate-1")) == "gate-1"


def test_facts_and_load_are_plain_values():
    assert hardware()["cores"] >= 1
    look = HostProbe().look()
    assert look["process_rss_bytes"] > 1_000_000
    assert 0 <= look["cpu_percent"] <= 100
