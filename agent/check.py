"""Looks whether a configuration would work: models, cameras and broker are tried for real."""

from __future__ import annotations

import queue
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from agent.errors import AgentError
from engines.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from agent.config import CameraConfig, Config

NETWORK_KINDS = frozenset({"rtsp", "http"})
"""Camera kinds that are left alone by `--no-network`."""

GRACE_S = 5.0
"""Added to the time of a probe before it is given up: it ends itself, if it can."""

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: key of the configuration, like `cameras.door`.
        status: "ok", "warn" (it works, but) or "fail".
        what: what was found.
        fix: what to do; empty if nothing.
    """

    name: str
    status: Literal["ok", "warn", "fail"]
    what: str
    fix: str = ""


Probe = tuple[str, "Callable[[], Iterable[Finding]]"]
"""The name its findings go by, and the function that looks."""


def check(config: Config, *, network: bool = True, timeout_s: float = 10.0) -> list[Finding]:
    """Look at everything at the same time.

    Args:
        config: a valid configuration.
        network: False leaves the broker and network cameras alone.
        timeout_s: for each camera and the broker.
    """
    return advice(config) + run_probes(probes(config, network, timeout_s), 2 * timeout_s + GRACE_S)


def exit_code(findings: Iterable[Finding]) -> int:
    """0 if nothing failed, else 1."""
    return 1 if any(f.status == "fail" for f in findings) else 0


def as_dicts(findings: Iterable[Finding]) -> list[dict[str, str]]:
    """For JSON: name, status, what, fix."""
    return [asdict(f) for f in findings]


def advice(config: Config) -> list[Finding]:
    """What can be said without trying anything."""
    findings: list[Finding] = []
    mqtt = config.mqtt
    if mqtt.password is not None and mqtt.tls is None and mqtt.host not in LOOPBACK:
        findings.append(
            Finding(
                "mqtt.tls",
                "warn",
                "the password goes over the network unencrypted",
                "add `tls: {}` or `tls: {ca_file: ...}` below `mqtt:`",
            )
        )
    used = {camera.model for camera in config.cameras.values() if camera.enabled}
    findings += [
        Finding(f"models.{slot}", "warn", "no enabled camera uses it", "remove it or use it")
        for slot in config.models
        if slot not in used
    ]
    if not any(camera.enabled for camera in config.cameras.values()):
        findings.append(Finding("cameras", "fail", "none is enabled", "enable one"))
    return findings


def probes(config: Config, network: bool, timeout_s: float) -> list[Probe]:
    """What has to be tried for a configuration."""
    return [
        *((f"models.{slot}", partial(_model, slot, config)) for slot in config.models),
        *(
            (f"cameras.{name}", partial(_camera, name, camera, network, timeout_s))
            for name, camera in config.cameras.items()
        ),
        ("mqtt", partial(_broker, config, network, timeout_s)),
    ]


def run_probes(tried: Sequence[Probe], limit_s: float) -> list[Finding]:
    """Run all at once; one that fails or hangs is a finding and does not hold up the others.

    Returns:
        Findings in the order of the probes.
    """
    answers: queue.Queue[tuple[int, list[Finding]]] = queue.Queue()

    def run(number: int) -> None:
        answers.put((number, _guarded(*tried[number])))

    for number, (name, _) in enumerate(tried):
        # Daemon threads: a driver that hangs must not keep the command from ending.
        threading.Thread(target=run, args=(number,), name=f"check-{name}", daemon=True).start()
    found: dict[int, list[Finding]] = {}
    deadline = time.monotonic() + limit_s
    while len(found) < len(tried):
        try:
            number, findings = answers.get(timeout=max(deadline - time.monotonic(), 0.0))
        except queue.Empty:
            break
        found[number] = findings
    late = f"no answer within {limit_s:g} s"
    return [
        finding
        for number, (name, _) in enumerate(tried)
        for finding in found.get(number, [Finding(name, "fail", late, "look whether it hangs")])
    ]


def _guarded(name: str, look: Callable[[], Iterable[Finding]]) -> list[Finding]:
    try:
        return list(look())
    except (AgentError, EngineError) as error:
        return [_told(name, "fail", str(error))]
    except Exception as error:  # noqa: BLE001 - a probe is supervised: its bug is a finding
        return [Finding(name, "fail", f"internal error: {error!r}", "report it")]


def _told(name: str, status: Literal["warn", "fail"], message: str) -> Finding:
    """A message of ours: what to do stands after the last semicolon."""
    what, _, fix = message.rpartition("; ")
    return Finding(name, status, what or fix, fix if what else "")


def _model(slot: str, config: Config) -> Iterable[Finding]:
    from agent.models import load_model  # noqa: PLC0415 - slow to import

    name = f"models.{slot}"
    live = any(_is_live(c) for c in config.cameras.values() if c.model == slot and c.enabled)
    # Whoever runs the check need not be the agent's user, so its cache is left alone.
    with tempfile.TemporaryDirectory() as folder:
        model = load_model(slot, config.models[slot], live=live, cache_dir=Path(folder))
    info, ref = model.info, model.ref
    model.engine.close()
    yield Finding(
        name,
        "ok",
        f"{info.name}: {info.task.value}, layout {info.layout.value}, {len(info.names)} classes, "
        f"{info.width}x{info.height}, {ref.precision} on {ref.backend}",
    )
    for sentence in info.inferred:
        yield Finding(name, "warn", sentence, "say it in the configuration if it is wrong")


def _is_live(camera: CameraConfig) -> bool:
    from agent.capture.base import is_live  # noqa: PLC0415 - OpenCV may be missing

    try:
        return is_live(camera)
    except AgentError:
        # The camera's own probe says what is wrong with it.
        return True


def _camera(name: str, config: CameraConfig, network: bool, timeout_s: float) -> Iterable[Finding]:
    from agent.capture.base import kind_of  # noqa: PLC0415 - OpenCV may be missing
    from agent.capture.probe import probe  # noqa: PLC0415

    key = f"cameras.{name}"
    if not config.enabled:
        return [Finding(key, "ok", "disabled, not probed")]
    if not network and kind_of(config) in NETWORK_KINDS:
        return [Finding(key, "ok", "not probed: --no-network")]
    report = probe(name, config, timeout_s)
    if not report.ok:
        return [_told(key, "fail", report.reason)]
    return [Finding(key, "ok", report.text().removeprefix(f"{name}: "))]


def _broker(config: Config, network: bool, timeout_s: float) -> Iterable[Finding]:
    from agent.device import device_id  # noqa: PLC0415
    from agent.mqttcheck import check_broker  # noqa: PLC0415

    if not network:
        return [Finding("mqtt", "ok", "not probed: --no-network")]
    report = check_broker(config.mqtt, device_id(config.device), timeout_s)
    findings = [Finding("mqtt", "ok", report.text())]
    return [*findings, _told("mqtt", "warn", report.warning)] if report.warning else findings
