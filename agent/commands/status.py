"""`vigia status`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from agent.commands import DEFAULT_CONFIG, ConfigOption, JsonOption

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FAILED = 1
NOT_RUNNING = 3
"""As `systemctl status` and the LSB have it."""

SHOWN_EVENTS = 5
DIGEST_CHARS = len("sha256:") + 12


def status(config: ConfigOption = DEFAULT_CONFIG, json_output: JsonOption = False) -> None:
    """Say how the agent of this machine is: cameras, models, broker, last events.

    Asks the agent itself; where it does not answer, what systemd knows is told. Exit code 0 if it
    is well, 1 if something is not, 3 if it does not run.

    Example: [bold]vigia status[/bold]
    """
    import json

    from agent.askagent import ask_status
    from agent.commands.output import output, plain
    from agent.configfile import load
    from agent.errors import AgentError

    service = _service()
    shown: dict[str, Any] = {"service": service}
    try:
        shown["agent"] = ask_status(load(config).http)
    except AgentError as error:
        shown["problem"] = str(error)
    if json_output:
        typer.echo(json.dumps(shown))
    else:
        console = output()
        for line in lines(shown):
            console.print(plain(line))
    raise typer.Exit(code(shown))


def code(shown: Mapping[str, Any]) -> int:
    """Pure: the exit code."""
    agent = shown.get("agent")
    if agent is None:
        active = shown["service"].get("ActiveState") in ("active", "reloading")
        return FAILED if active else NOT_RUNNING
    return 0 if _well(agent) else FAILED


def lines(shown: Mapping[str, Any]) -> Iterator[str]:
    """Pure: for people."""
    service = shown["service"]
    state = service.get("ActiveState")
    if state:
        yield (
            f"service: {state} ({service.get('SubState', '')}), "
            f"restarts {service.get('NRestarts', '?')}: {service.get('StatusText') or '-'}"
        )
    else:
        yield f"service: {service.get('problem', 'not installed')}"
    agent = shown.get("agent")
    if agent is None:
        yield f"agent: {shown.get('problem', 'does not answer')}"
        return
    health = agent.get("health", {})
    serves = bool(health.get("healthy", True)) and bool(health.get("ready", True))
    reasons = [str(reason) for reason in health.get("reasons", ())]
    yield f"agent: {'serves' if serves else 'DOES NOT SERVE'}, {_count(reasons)}"
    for reason in reasons:
        yield f"  wrong: {reason}"
    for part, label in (("cameras", "camera"), ("models", "model")):
        for name, values in _items(agent.get(part)):
            words = (f"{k} {_short(k, v)}" for k, v in values.items() if _plain(v))
            yield f"{label} {name}: {', '.join(words)}"
    for part in ("broker", "spool", "governor"):
        values = agent.get(part)
        if values:
            words = (f"{k} {_short(k, v)}" for k, v in values.items() if _plain(v))
            yield f"{part}: {', '.join(words)}"
    for event in list(agent.get("events", ()))[-SHOWN_EVENTS:]:
        yield f"event: {_clock(event.get('ts'))} {event.get('severity')} {event.get('what')}"


def _well(agent: Mapping[str, Any]) -> bool:
    """Every stage makes progress, what shall serve does, and nothing else is wrong."""
    health = agent.get("health", {})
    serves = bool(health.get("healthy", True)) and bool(health.get("ready", True))
    return serves and not health.get("reasons")


def _count(reasons: list[str]) -> str:
    if not reasons:
        return "all is well"
    return f"{len(reasons)} thing{'s are' if len(reasons) > 1 else ' is'} wrong"


def _items(part: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """A part as WEB gives it: by name, or a list with names."""
    if isinstance(part, dict):
        return [(str(name), values) for name, values in part.items()]
    return [(str(values.get("name", "?")), values) for values in part or ()]


def _plain(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and value != ""


def _short(name: str, value: Any) -> str:
    if name == "since":
        return _clock(value)
    if name == "digest":
        return str(value)[:DIGEST_CHARS]
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _clock(seconds: Any) -> str:
    import time

    if not isinstance(seconds, (int, float)):
        return "-"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _service() -> dict[str, str]:
    from agent.errors import ServiceError
    from agent.servicemanager import Manager

    try:
        state = Manager().state()
    except ServiceError as error:
        # Which command it was helps nobody here.
        told = str(error).strip().partition("` failed with code ")[2] or str(error)
        return {"problem": f"not known: {' '.join(told.split())}"}
    return dict(state.values) if state.installed else {}
