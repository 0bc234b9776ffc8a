"""A real Mosquitto with the files that a fleet folder holds for it."""

from __future__ import annotations

import contextlib
import subprocess

from fleet.layout import Layout
from tests.fakes.fleetfolder import copy_fleet
from tests.integration.mosquitto import START_S, _listens, binary
from tests.integration.ports import free_port
from tests.integration.subscriber import until


@contextlib.contextmanager
def fleet_broker(template, folder):
    """A fleet folder of the test's own with its broker running; gives the folder."""
    port = free_port()
    copy_fleet(template, folder, port)
    log = folder.with_suffix(".log").open("wb")
    config = Layout(folder).broker / "mosquitto.conf"
    with log, subprocess.Popen([binary(), "-c", config], stdout=log, stderr=log) as process:
        try:
            until(lambda: _listens(port), START_S)
            yield folder
        finally:
            process.terminate()
