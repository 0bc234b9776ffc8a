"""What to do about findings whose message does not say it itself. Pure."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.check import Finding

LAST_RESORT = (
    "see docs/how-to/troubleshoot.md, and send a `vigia support-bundle` if it does not help"
)

CAMERA: tuple[tuple[str, str], ...] = (
    (r"wrong user or password|wants a user",
     "write rtsp://USER:PASSWORD@HOST/...; in a password @ : / # are %40 %3A %2F %23"),
    (r"access denied", "allow this user to view the stream in the camera's settings"),
    (r"no stream of this name|answers 4\d\d", "look up the stream's path in the camera's manual"),
    (r"too many viewers|overloaded", "end other viewers, or take the camera's second stream"),
    (r"does not speak RTSP", "see that address and port are the camera's, and RTSP is on in it"),
    (r"host name of .* is not known", "write the camera's address, or mend the name server"),
    (r"no answer from|[Nn]o route|unreachable|timed out|took more than|no frame",
     "look at its power, cable, address and the firewall: `ping HOST`, `nc -vz HOST 554`"),
    (r"lost|ended", "look for loss in the network (`ping -c 100 HOST`), and try `transport: tcp`"),
    (r"cannot open it|not a video|cannot be read", "play it with `ffplay`; write its right path"),
)  # fmt: skip
"""Words of a camera's failure, and what helps."""


def completed(findings: Iterable[Finding]) -> list[Finding]:
    """The same, each that is not good with something to do."""
    return [f if f.status == "ok" or f.fix else replace(f, fix=fix_for(f)) for f in findings]


def fix_for(finding: Finding) -> str:
    """What helps."""
    if finding.name.startswith("cameras."):
        found = (fix for words, fix in CAMERA if re.search(words, finding.what))
        return next(found, "try it alone: `vigia cameras probe`")
    return LAST_RESORT
