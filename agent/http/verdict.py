"""What is wrong with an agent, in words, the worst first: for the page and for probes. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from agent.http.ports import Sources, Values

AT_REST = ("online", "disabled", "ended")
"""States of a camera that nobody has to look after."""


def reasons(sources: Sources, stalled: Iterable[str]) -> list[str]:
    """Everything that is not as it should be; empty if all is well.

    Args:
        sources: what is looked at.
        stalled: stages that make no progress.
    """
    found = [f"{stage} makes no progress" for stage in stalled]
    found += sources.troubles()
    found += _cameras(sources.cameras())
    found += [f"model {s}: {m['reason']}" for s, m in sources.models().items() if m.get("reason")]
    spool = sources.spool() or {}
    found += _broker(sources.broker() or {}, spool)
    found += _spool(spool)
    found += _governor(sources.governor() or {})
    return found


def _cameras(cameras: Mapping[str, Values]) -> Iterator[str]:
    for name, camera in cameras.items():
        if camera.get("state") not in AT_REST:
            yield f"camera {name}: {camera.get('reason') or camera.get('state')}"


def _broker(broker: Values, spool: Values) -> Iterator[str]:
    if broker.get("connected", True):
        return
    kept = spool.get("memory_messages", 0) + spool.get("disk_messages", 0)
    text = f"no broker: {broker.get('reason') or 'not connected yet'}"
    yield text + (f"; {kept:,} messages are kept for it" if kept else "")


def _spool(spool: Values) -> Iterator[str]:
    disk = spool.get("disk", "ok")
    if disk not in ("ok", "none"):
        yield f"spool: {disk}"


def _governor(governor: Values) -> Iterator[str]:
    if not governor.get("level"):
        return
    limits: dict[float, list[str]] = {}
    for name, fps in (governor.get("fps_limits") or {}).items():
        limits.setdefault(fps, []).append(name)
    slowed = "; ".join(
        f"{', '.join(names)} at most {fps:g} frames a second" for fps, names in limits.items()
    )
    light = ", ".join(governor.get("light_engines") or ())
    doing = "; ".join(part for part in (slowed, light and f"lighter engine: {light}") if part)
    why = governor.get("reason") or "waits until it is cool for long enough"
    yield f"slowed down to stay cool: {why}" + (f" ({doing})" if doing else "")
