"""A real software token (SoftHSM2) in a folder of the test's own."""

from __future__ import annotations

import os
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

LIBRARY = Path("/usr/lib/softhsm/libsofthsm2.so")
LABEL = "vigia-test"
PIN = "48151623"


def library() -> Path:
    """SoftHSM2's library; skips the test where there is none, except in CI."""
    missing = [
        text
        for there, text in (
            (LIBRARY.exists(), "SoftHSM2 is not installed (apt-get install softhsm2)"),
            (find_spec("pkcs11"), "python-pkcs11 is not installed (extra pkcs11)"),
        )
        if not there
    ]
    if missing and os.environ.get("CI"):
        pytest.fail(missing[0])
    if missing:
        pytest.skip(missing[0], allow_module_level=True)
    return LIBRARY


class SoftHsm:
    """A token; it is there until `close`.

    Args:
        folder: where it lies.
        monkeypatch: sets the environment that the library reads when it is loaded.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.library = library()
        tokens = folder / "tokens"
        tokens.mkdir()
        config = folder / "softhsm2.conf"
        config.write_text(f"directories.tokendir = {tokens}\nlog.level = ERROR\n")
        monkeypatch.setenv("SOFTHSM2_CONF", str(config))
        command = ["softhsm2-util", "--init-token", "--free", "--label", LABEL]
        pins = ["--pin", PIN, "--so-pin", "87654321"]
        subprocess.run([*command, *pins], check=True, capture_output=True)

    def session(self):
        """A session of the test's own, logged in, which may write."""
        import pkcs11  # noqa: PLC0415 - only where it is installed

        token = pkcs11.lib(str(self.library.resolve())).get_token(token_label=LABEL)
        try:
            return token.open(rw=True, user_pin=PIN)
        except pkcs11.UserAlreadyLoggedIn:
            return token.open(rw=True)

    def close(self) -> None:
        """Unload the library, so that the next test's configuration counts."""
        import pkcs11  # noqa: PLC0415 - only where it is installed

        pkcs11.unload(str(self.library.resolve()))
