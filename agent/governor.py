"""When to do less, and when to do more again: the governor's decisions. Pure.

Heat answers late, so a step down waits for the one before to show; a step up waits until it has
been calm for long, and longer each time that a step up had to be taken back before it had been calm
there for as long. Between the two limits lies a band in which nothing happens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

RELEASE_POWER = 0.85
"""Share of the power limit below which there is room for more."""

MAX_RELAPSES = 3
"""The wait before a step up is doubled so many times at the most."""

Step = Literal["down", "up"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What is allowed.

    Attributes:
        levels: the highest level; 0 is doing everything.
        margin_c: it is too hot when less than this is left.
        release_c: it is cool when at least this is left; more than `margin_c`.
        power_w: power to stay below, or None.
        hold_s: least time between two steps down.
        calm_s: how long it must have been cool before a step up.
    """

    levels: int
    margin_c: float
    release_c: float
    power_w: float | None
    hold_s: float
    calm_s: float


@dataclass(frozen=True, slots=True)
class Look:
    """What was measured.

    Attributes:
        now_s: when, monotonic seconds.
        headroom_c: kelvin to where the board slows itself down; None if no sensor tells.
        power_w: power of the board; None if no sensor tells.
        slowed: the board slows itself down, or did since the last look.
    """

    now_s: float
    headroom_c: float | None
    power_w: float | None
    slowed: bool


@dataclass(frozen=True, slots=True)
class State:
    """Where the governor stands.

    Attributes:
        level: how much less is done; 0 is everything.
        down_s: when the last step down was, or None.
        calm_since_s: since when it has been cool, or None.
        unproven: the last step was one up, and it has not been calm for long since.
        relapses: steps up that had to be taken back, and are not forgotten yet.
    """

    level: int = 0
    down_s: float | None = None
    calm_since_s: float | None = None
    unproven: bool = False
    relapses: int = 0

    def wait_s(self, limits: Limits) -> float:
        """How long it must be cool before the next step up."""
        return limits.calm_s * float(2**self.relapses)


def too_much(look: Look, limits: Limits) -> bool:
    """Whether less should be done."""
    hot = look.headroom_c is not None and look.headroom_c < limits.margin_c
    hungry = None not in (limits.power_w, look.power_w) and look.power_w > limits.power_w  # type: ignore[operator]
    return look.slowed or hot or hungry


def calm(look: Look, limits: Limits) -> bool:
    """Whether there is room for more; not if nothing can be measured."""
    if look.slowed or (look.headroom_c is None and look.power_w is None):
        return False
    cool = look.headroom_c is None or look.headroom_c >= limits.release_c
    if limits.power_w is None:
        return cool and look.headroom_c is not None
    return cool and look.power_w is not None and look.power_w <= RELEASE_POWER * limits.power_w


def decide(state: State, look: Look, limits: Limits) -> tuple[State, Step | None]:
    """What follows from one look.

    Returns:
        The new state, and the step that was taken, if any.
    """
    now = look.now_s
    if state.level > limits.levels:
        state = replace(state, level=limits.levels)
    if too_much(look, limits):
        return _less(replace(state, calm_since_s=None), now, limits)
    if not calm(look, limits):
        return replace(state, calm_since_s=None), None
    return _more(state, now, limits)


def _less(state: State, now: float, limits: Limits) -> tuple[State, Step | None]:
    held = state.down_s is not None and now - state.down_s < limits.hold_s
    if held or state.level >= limits.levels:
        return state, None
    relapses = min(MAX_RELAPSES, state.relapses + state.unproven)
    level = state.level + 1
    return replace(state, level=level, down_s=now, unproven=False, relapses=relapses), "down"


def _more(state: State, now: float, limits: Limits) -> tuple[State, Step | None]:
    if state.calm_since_s is None:
        return replace(state, calm_since_s=now), None
    if now - state.calm_since_s < state.wait_s(limits):
        return state, None
    if state.level == 0:
        return replace(state, unproven=False, relapses=0), None
    # The next step up needs a calm time of its own.
    return replace(state, level=state.level - 1, unproven=True, calm_since_s=now), "up"
