"""Where the service's files lie, and what they say: pure, but for looking what is there."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from agent.errors import ServiceError

UNIT = "vigia-agent.service"
REST_TIMER = "vigia-agent-rest.timer"
REST_UNIT = "vigia-agent-rest.service"
USER = "vigia"

UNITS = (UNIT, REST_UNIT, REST_TIMER)

DATA = "share/vigia/systemd"
"""Below the prefix of an environment: where the wheel puts the folder `systemd`."""

CREDENTIAL_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
"""What may become a part of a unit without quoting."""

MAX_CREDENTIALS = 64


@dataclass(frozen=True, slots=True)
class Layout:
    """Places below a root folder, `/` but in tests."""

    root: Path = Path("/")

    @property
    def units(self) -> Path:
        """Units of the administrator's."""
        return self.root / "etc/systemd/system"

    @property
    def dropins(self) -> Path:
        """What adds to the agent's unit."""
        return self.units / f"{UNIT}.d"

    @property
    def sysusers(self) -> Path:
        """Who the user is."""
        return self.root / "etc/sysusers.d/vigia-agent.conf"

    @property
    def tmpfiles(self) -> Path:
        """Whose the folders are."""
        return self.root / "etc/tmpfiles.d/vigia-agent.conf"

    @property
    def config(self) -> Path:
        """The configuration."""
        return self.root / "etc/vigia/agent.yaml"

    @property
    def credentials(self) -> Path:
        """Secrets that systemd hands to the service."""
        return self.root / "etc/vigia/credentials"

    @property
    def prefix(self) -> Path:
        """What the installer makes."""
        return self.root / "opt/vigia"

    @property
    def releases(self) -> Path:
        """Environments, one a release."""
        return self.prefix / "releases"

    @property
    def current(self) -> Path:
        """A link to the environment that serves."""
        return self.prefix / "current"

    @property
    def command(self) -> Path:
        """A link for people's shells."""
        return self.root / "usr/local/bin/vigia"

    @property
    def kept(self) -> tuple[Path, ...]:
        """What an upgrade and an uninstallation without `--purge` keep."""
        return (self.root / "etc/vigia", self.root / "var/lib/vigia", self.root / "var/cache/vigia")

    @property
    def is_jetson(self) -> bool:
        """NVIDIA's Linux for Tegra says its release there."""
        return (self.root / "etc/nv_tegra_release").exists()


def unit_folder(prefix: Path | None = None) -> Path:
    """The folder `systemd` of this installation, or of the source tree.

    Raises:
        ServiceError: neither has one.
    """
    installed = (prefix or Path(sys.prefix)) / DATA
    source = Path(__file__).parents[1] / "systemd"
    for folder in (installed, source):
        if (folder / UNIT).is_file():
            return folder
    raise ServiceError(f"no units at {installed} or {source}; install the agent anew")


def files(layout: Layout, folder: Path) -> dict[Path, str]:
    """Every file that the service consists of, with its text.

    Args:
        layout: where they go.
        folder: as `unit_folder` gives it.

    Raises:
        ServiceError: one cannot be read, or a credential's name cannot be used.
    """
    jetson = layout.dropins / "10-jetson.conf"
    credentials = layout.dropins / "20-credentials.conf"
    try:
        wanted = {layout.units / name: (folder / name).read_text("utf-8") for name in UNITS}
        wanted[layout.sysusers] = (folder / "vigia-agent.sysusers.conf").read_text("utf-8")
        wanted[layout.tmpfiles] = (folder / "vigia-agent.tmpfiles.conf").read_text("utf-8")
        if layout.is_jetson:
            wanted[jetson] = (folder / "jetson.conf").read_text("utf-8")
        names = credential_names(layout.credentials)
    except OSError as error:
        raise ServiceError(f"cannot read {error.filename}: {error.strerror}") from error
    if names:
        wanted[credentials] = credentials_text(names)
    return wanted


def ours(layout: Layout) -> tuple[Path, ...]:
    """Every file that `files` can ask for; what is not asked for any more is removed."""
    dropins = ("10-jetson.conf", "20-credentials.conf")
    return (
        *(layout.units / name for name in UNITS),
        *(layout.dropins / name for name in dropins),
        layout.sysusers,
        layout.tmpfiles,
    )


def credential_names(folder: Path) -> list[str]:
    """Names of the secrets in a folder, sorted; none if there is no folder.

    Raises:
        ServiceError: a name that a unit cannot carry, or too many.
        OSError: the folder cannot be read.
    """
    if not folder.is_dir():
        return []
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    for name in names:
        if not CREDENTIAL_NAME.fullmatch(name):
            raise ServiceError(
                f"{folder / name!s}: a credential's name has letters, digits, '.', '_' and '-' "
                "only; rename it"
            )
    if len(names) > MAX_CREDENTIALS:
        raise ServiceError(f"{folder} has more than {MAX_CREDENTIALS} files; keep credentials only")
    return names


def credentials_text(names: list[str]) -> str:
    """The drop-in that has systemd load them; one line each works from systemd 247 on."""
    lines = [f"LoadCredential={name}:/etc/vigia/credentials/{name}" for name in names]
    return "\n".join(["# Made by `vigia service install`.", "[Service]", *lines, ""])
