"""`vigia check --deep`: everything below and beside a configuration that can go wrong."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from agent import deepbroker, deepcamera, deepclock, deephost, deeprights, deepversions
from agent.check import GRACE_S, Finding, check, run_probes
from agent.deepfix import completed
from agent.deepmachine import Machine
from agent.device import device_id
from agent.doctor_host import HostFiles
from agent.jetson import BoardFiles
from agent.plans import default_cache_dir
from agent.statefolder import spool_folder, state_folder

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from agent.check import Probe
    from agent.config import Config

LIMIT_S = 180.0
"""For all of it; imports of large libraries from a slow card take most."""


def full_check(
    config: Config, config_path: Path, *, network: bool = True, timeout_s: float = 10.0
) -> list[Finding]:
    """`agent.check.check`, then `deep_check`; each that is not good with something to do.

    Args: as `deep_check`.
    """
    found = completed(check(config, network=network, timeout_s=timeout_s))
    failed = {finding.name for finding in found if finding.status == "fail"}
    return found + deep_check(
        config, config_path, network=network, timeout_s=timeout_s, failed=failed
    )


def deep_check(
    config: Config,
    config_path: Path,
    *,
    network: bool = True,
    timeout_s: float = 10.0,
    failed: Collection[str] = (),
    machine: Machine | None = None,
) -> list[Finding]:
    """Look at everything at the same time; after `agent.check.check`, as cameras serve few readers.

    Args:
        config: a valid configuration.
        config_path: where it is from.
        network: False leaves broker, cameras and time servers alone.
        timeout_s: for each camera and the broker.
        failed: names of findings of `agent.check.check`; a camera or broker that cannot be reached
            is not looked into, and not told twice.
        machine: another one than this, in tests.
    """
    tried = probes(config, config_path, network, timeout_s, machine or Machine())
    told = {f"{name}.stream" for name in failed} | ({"mqtt.acl"} if "mqtt" in failed else set())
    tried = [(name, look) for name, look in tried if name not in told]
    return completed(run_probes(tried, LIMIT_S + 2 * timeout_s + GRACE_S))


def probes(
    config: Config, config_path: Path, network: bool, timeout_s: float, machine: Machine
) -> list[Probe]:
    """What is looked at, in the order of its telling."""
    host = HostFiles(machine.root).read()
    places = {
        "state": state_folder(config),
        "spool": spool_folder(config),
        "cache": config.pipeline.cache_dir or default_cache_dir(),
    }
    hosts = (config.mqtt.host,) if network and config.mqtt.host not in deepbroker.LOOPBACK else ()
    tried: list[Probe] = [
        ("wheels", partial(deepversions.look, machine)),
        ("host", partial(_host, machine)),
        ("disk", partial(deephost.disks, places)),
        ("permissions", partial(deeprights.look, config, config_path, places, machine)),
        ("clock", partial(deepclock.look, machine, hosts)),
    ]
    if network:
        tried += [
            (
                f"cameras.{name}.stream",
                partial(deepcamera.look, name, camera, timeout_s, jetson=host.jetson),
            )
            for name, camera in config.cameras.items()
        ]
        device, updates = device_id(config.device), config.updates is not None
        tried.append(
            ("mqtt.acl",
             partial(deepbroker.look, config.mqtt, device, timeout_s, updates=updates))
        )  # fmt: skip
    return tried


def _host(machine: Machine) -> Iterator[Finding]:
    host = HostFiles(machine.root).read()
    yield from deephost.power(host)
    yield from deephost.heat(BoardFiles(machine.root).look())
    yield from deephost.memory(host)
