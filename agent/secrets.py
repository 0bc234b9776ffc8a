"""Hides passwords in text that people or logs will see."""

from __future__ import annotations

import re

HIDDEN = "***"

USER_INFO = re.compile(r"(?P<scheme>\b[a-zA-Z][a-zA-Z0-9+.-]*://)(?P<info>[^\s/?#]*)@")
"""Everything between `scheme://` and the last `@` before a path."""

QUERY = re.compile(
    r"(?P<key>[?&](?:[a-z_-]*(?:password|passwd|pwd|pass|token|secret|api_?key|auth)[a-z_-]*)=)"
    r"[^&\s#'\"]*",
    re.IGNORECASE,
)


def mask_url(text: str) -> str:
    """Replace the passwords of all URLs in a text by `***`; user names stay.

    Args:
        text: a URL, a GStreamer pipeline or a message with URLs in it.
    """

    def user_only(match: re.Match[str]) -> str:
        user, colon, _ = match["info"].partition(":")
        # Without a colon the whole of it may be a token.
        return f"{match['scheme']}{user}:{HIDDEN}@" if colon else f"{match['scheme']}{HIDDEN}@"

    return QUERY.sub(lambda m: f"{m['key']}{HIDDEN}", USER_INFO.sub(user_only, text))
