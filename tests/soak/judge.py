"""What a soak must have kept to: each invariant with what was wanted and what was seen. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.soak.account import Account, flat
from tests.soak.supervisor import WATCHDOG_S, Life

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.soak.chaos import Hang

RSS_ALLOWED = 0.02
DESCRIPTORS_ALLOWED = 2
WARM_S = 300.0
"""A life's memory rises until each kind of trouble has come more than once (docs/soak.md).
What rises after that is a growth."""

JUDGED_S = 300.0
"""A life whose warm part is shorter says nothing of growth."""

ABORTED_S = 4.0
"""From the watchdog's time to the end: one look, SIGABRT, SIGKILL, on a busy machine."""

BACK_S = 15.0
"""From the watchdog's kill to results."""


@dataclass(frozen=True)
class Invariant:
    """One line of the report.

    Attributes:
        name: what must hold.
        ok: None if nothing of this soak could tell.
        wanted: in words.
        seen: in words.
    """

    name: str
    ok: bool | None
    wanted: str
    seen: str


@dataclass(frozen=True)
class Seen:
    """All that the invariants are about.

    Attributes:
        told: account of the consumer.
        lives: of the agent.
        crashes: ends that nobody asked for.
        tracebacks: in the agent's log.
        exit_code: of the last life.
        hangs: frozen agents.
        dropped: messages that spools dropped by their own count, all runs.
        left: messages that are on the disk in the end and never came.
        spool_fault: what SQLite says of the file.
    """

    told: Account
    lives: Sequence[Life]
    crashes: Sequence[str]
    tracebacks: int
    exit_code: int
    hangs: Sequence[Hang]
    dropped: int
    left: int
    spool_fault: str


def life_row(life: Life) -> dict[str, Any]:
    """How long a life was, and what grew in it after it was warm."""
    warm = [s for s in life.samples if s[0] >= life.began_s + WARM_S]
    seconds = (life.ended_s or life.began_s) - life.began_s
    row: dict[str, Any] = {
        "seconds": round(seconds, 1),
        "ready_s": None if life.ready_s is None else round(life.ready_s, 2),
        "ended": life.cause,
        "rss_growth": None,
        "descriptors_growth": None,
    }
    if len(warm) >= JUDGED_S:
        row["rss_growth"] = round(flat([(t, float(r)) for t, r, _ in warm], RSS_ALLOWED)[0], 4)
        row["descriptors_growth"] = _more([d for *_, d in warm])
    return row


def judge(seen: Seen) -> list[Invariant]:
    """Every invariant."""
    told = seen.told
    rows = [life_row(life) for life in seen.lives]
    rss = [r["rss_growth"] for r in rows if r["rss_growth"] is not None]
    more = [r["descriptors_growth"] for r in rows if r["descriptors_growth"] is not None]
    lives = f"{len(rss)} li{'fe' if len(rss) == 1 else 'ves'}"
    none = f"no life of {WARM_S + JUDGED_S:.0f} s"
    ended = max((h.ended_s for h in seen.hangs), default=0.0)
    back = max((h.served_s for h in seen.hangs), default=0.0)
    return [
        Invariant(
            "the agent ends only when it is made to, and is started again", not seen.crashes,
            "no other end",
            "; ".join(seen.crashes[:3]) or f"{len(seen.lives)} starts, each asked for",
        ),
        Invariant("no unhandled exception", not seen.tracebacks, "0", str(seen.tracebacks)),
        Invariant(
            "memory stays", max(rss) <= RSS_ALLOWED if rss else None, f"<= {RSS_ALLOWED:.0%}",
            f"{max(rss):+.1%} at most in {lives}" if rss else none,
        ),
        Invariant(
            "descriptors stay", max(more) <= DESCRIPTORS_ALLOWED if more else None,
            f"<= {DESCRIPTORS_ALLOWED} more",
            f"{max(more):+d} at most in {lives}" if more else none,
        ),
        Invariant(
            "all messages came", not (told.missing or seen.dropped or seen.left),
            "none missing, dropped or left",
            f"{told.missing} missing, {seen.dropped} dropped, {seen.left} left, "
            f"of {told.messages}",
        ),
        Invariant("in order", not told.late, "none late", f"{told.late} late"),
        Invariant(
            "frame numbers add up with `dropped`", not told.unexplained, "all",
            f"{told.unexplained} do not",
        ),
        Invariant(
            "the spool's file is whole", not seen.spool_fault, "ok", seen.spool_fault or "ok"
        ),
        Invariant(
            "the watchdog ends a frozen agent, which serves again",
            (ended <= WATCHDOG_S + ABORTED_S and back <= BACK_S) if seen.hangs else None,
            f"<= {WATCHDOG_S + ABORTED_S:.0f} s, <= {BACK_S:.0f} s",
            f"{ended:.1f} s, {back:.1f} s at most of {len(seen.hangs)}" if seen.hangs else "none",
        ),
        Invariant("asked to stop, it ends well", not seen.exit_code, "code 0", str(seen.exit_code)),
    ]  # fmt: skip


def _more(values: list[int]) -> int:
    """Median of the last third less that of the second."""
    third = len(values) // 3
    middle, last = sorted(values[third : 2 * third]), sorted(values[2 * third :])
    return last[len(last) // 2] - middle[len(middle) // 2]
