"""Takes secrets out of texts that leave the device. Pure.

Known secrets are taken out wherever they stand; unknown ones by their looks.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from pydantic import BaseModel, SecretStr

from agent.secrets import HIDDEN, mask_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MIN_SECRET = 4
"""Shorter ones would tear holes into every text; they are hidden where their names stand."""

PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
NAMED = re.compile(
    r"""(?P<name>["']?\b[\w-]*(?:password|passwd|passphrase|secret|token|api_?key|private_?key|cookie|community|psk)\b["']?
    \s*[:=]\s*)(?P<value>"(?:[^"\\]|\\.)*"|'[^']*'|[^\s,;}\]]+)""",
    re.IGNORECASE | re.VERBOSE,
)
EMPTY = ("", HIDDEN, "null", "None", "true", "false", "[", "{")
"""What is no secret, whatever its name."""

BEARER = re.compile(r"\b(?P<kind>bearer|basic|digest)\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)


class Redactor:
    """Hides secrets.

    Args:
        known: secrets as they are, of the configuration.
    """

    def __init__(self, known: Iterable[str] = ()) -> None:
        forms = {form for secret in known for form in _forms(secret)}
        # The longest first: one may stand within another.
        self._known = sorted((f for f in forms if len(f) >= MIN_SECRET), key=len, reverse=True)
        self.hidden = 0

    def text(self, text: str) -> str:
        """The same text without secrets; `hidden` counts the places."""
        for secret in self._known:
            self.hidden += text.count(secret)
            text = text.replace(secret, HIDDEN)
        text = self._sub(PRIVATE_KEY, HIDDEN, text)
        text = NAMED.sub(self._named, text)
        text = self._sub(BEARER, rf"\g<kind> {HIDDEN}", text)
        return mask_url(text)

    def _named(self, match: re.Match[str]) -> str:
        """Quotes stay, so that JSON stays JSON."""
        value = match["value"]
        quote = value[0] if value[0] in "\"'" else ""
        if value.strip("\"'") in EMPTY:
            return match[0]
        self.hidden += 1
        return f"{match['name']}{quote}{HIDDEN}{quote}"

    def _sub(self, pattern: re.Pattern[str], by: str, text: str) -> str:
        text, count = pattern.subn(by, text)
        self.hidden += count
        return text


def _forms(secret: str) -> Iterator[str]:
    """How a secret may stand in a text: as it is, in a URL, decoded of one, within JSON."""
    yield secret
    yield unquote(secret)
    yield quote(secret, safe="")
    for ascii_ in (True, False):
        once = json.dumps(secret, ensure_ascii=ascii_)[1:-1]
        yield once
        # A log line of ours within the status of ours.
        yield json.dumps(once, ensure_ascii=ascii_)[1:-1]


def secrets_of(value: object) -> Iterator[str]:
    """Every secret of a configuration, and the passwords of its URLs."""
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from secrets_of(getattr(value, name))
    elif isinstance(value, dict):
        for inner in value.values():
            yield from secrets_of(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from secrets_of(inner)
    elif isinstance(value, str):
        found = re.match(
            r"[a-z0-9+.-]+://[^\s/?#]*?:(?P<password>[^\s/?#]*)@", value, re.IGNORECASE
        )
        if found:
            yield found["password"]
