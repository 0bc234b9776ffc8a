"""With which settings an agent starts: of its file, of the last good copy, and from afar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.configfile import load, load_control
from agent.desired import DesiredFile
from agent.errors import ConfigError
from agent.lastgood import LastGood

if TYPE_CHECKING:
    from pathlib import Path

    from agent.config import Config
    from agent.desired import Desired


@dataclass(frozen=True, slots=True)
class Start:
    """With which settings an agent starts.

    Attributes:
        config: the settings.
        mistake: what is wrong with the file, where they are of the last good copy; else empty.
        desired: settings from afar among them.
        not_taken: why those that were kept are not; else empty.
    """

    config: Config
    mistake: str = ""
    desired: Desired | None = None
    not_taken: str = ""


def read_start(source: Path, *, service: bool) -> Start:
    """Read what there is.

    Args:
        source: the configuration file.
        service: nobody is there to see a mistake at once, so that any settings are better than
            none.

    Raises:
        ConfigError: a mistake in the file, and nothing to start with instead.
    """
    copy = LastGood(source)
    file, mistake = source, ""
    try:
        config = load(source)
    except ConfigError as error:
        good = copy.load()
        if good is None and not service:
            raise
        # As a service, it says from afar what is wrong, if it can reach its broker.
        config, mistake = good or load_control(source), str(error)
        file = copy.path
    if config.updates is None:
        # Nobody has a right to send any; or nothing is known of it.
        return Start(config, mistake)
    try:
        kept = DesiredFile(copy.path)
        desired = kept.load()
        if desired is None:
            return Start(config, mistake)
        effective = _overlaid(file, source, desired)
        kept.again(desired)
        return Start(effective, mistake, desired)
    except ConfigError as error:
        return Start(config, mistake, None, str(error))


def _overlaid(file: Path, source: Path, desired: Desired) -> Config:
    config = load(file, origin=source, over=desired.values)
    if not any(camera.enabled for camera in config.cameras.values()):
        raise ConfigError("settings from afar: cameras: they leave none enabled; enable one")
    return config
