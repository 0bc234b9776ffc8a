"""Reads the configuration: secrets filled in, paths resolved, every mistake with line and key path.

What comes from `${env:NAME}` or `${file:PATH}` is a secret: no message repeats it, and `shown` puts
`***` in its place.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, SecretStr, ValidationError

from agent import configproblems, configremote, references, yamlfile
from agent.config import CameraConfig, Config, Section
from agent.confighttp import HttpConfig
from agent.errors import ConfigError
from agent.secrets import mask_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.yamlfile import Document, Key

SectionT = TypeVar("SectionT", bound=Section)

NOWHERE: dict[Key, int] = {}
"""Lines of settings from afar: they stand in no file."""

CONTROL = ("device", "mqtt", "log")
"""Sections that an agent needs to say that it has no others."""


def load(
    path: Path,
    environ: Mapping[str, str] = os.environ,
    *,
    origin: Path | None = None,
    over: Mapping[str, Any] | None = None,
) -> Config:
    """Read, check and complete a configuration.

    Args:
        path: the YAML file. Relative paths in it are relative to its folder.
        environ: where `${env:NAME}` looks.
        origin: the file that `path` is a copy of: relative paths are relative to its folder.
        over: settings from afar that lie over those of the file.

    Raises:
        ConfigError: one line for every mistake: file, line, key path, what is wrong, what to do.
    """
    document = yamlfile.read(path)
    config = _load(document, origin or path, environ)
    if not over:
        return config
    try:
        configremote.check(over, config.models)
        values = configremote.overlaid(document.values, over)
        return _load(yamlfile.Document(values, NOWHERE), origin or path, environ)
    except ConfigError as error:
        # The file alone has no mistake, so that all there are come from what lies over it.
        lines = str(error).splitlines()
        raise ConfigError("\n".join(f"settings from afar: {line}" for line in lines)) from error


def load_control(path: Path, environ: Mapping[str, str] = os.environ) -> Config:
    """What a file with mistakes elsewhere says of the device, its broker, its log and its page.

    Returns:
        A configuration without cameras, with defaults for all else; for the page too, if what is
        said of it has a mistake.

    Raises:
        ConfigError: these parts have mistakes too.
    """
    document = yamlfile.read(path)
    filling = references.References(path.absolute().parent, environ)
    parts = {key: document.values[key] for key in CONTROL if key in document.values}
    nothing = {"none": {"source": "synthetic://64x64@1", "enabled": False}}
    values = {**_page(document, path, environ), **filling.fill(parts), "cameras": nothing}
    problems = list(filling.problems)
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        problems += [configproblems.problem(e, values) for e in error.errors(include_url=False)]
    if problems:
        raise ConfigError(_lines(problems, path, document.lines))
    resolved = _resolve(config, path.absolute().parent)
    return resolved.model_copy(update={"cameras": {}})


def _page(document: Document, path: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """The section `http`, where the status page is looked for; nothing if it has a mistake."""
    if "http" not in document.values:
        return {}
    filling = references.References(path.absolute().parent, environ)
    part = filling.fill({"http": document.values["http"]})
    try:
        HttpConfig.model_validate(part["http"])
    except ValidationError:
        return {}
    return {} if filling.problems else part


def read_fragment(path: Path) -> dict[str, Any]:
    """Settings that are to lie over the file of a device that is elsewhere.

    Whether they fit that file, only the device can say; everything else is found out here.

    Args:
        path: YAML with sections as in a configuration.

    Returns:
        What the file says: mappings, lists, texts and None.

    Raises:
        ConfigError: one line for every mistake.
    """
    document = yamlfile.read(path)
    given = document.values
    try:
        configremote.check(given)
    except ConfigError as error:
        lines = str(error).splitlines()
        raise ConfigError("\n".join(f"{path}: {line}" for line in lines)) from error
    cameras = given.get("cameras", {})
    models = {"main", *given.get("models", {})}
    models |= {str(camera["model"]) for camera in cameras.values() if "model" in camera}
    stand_in = {
        "mqtt": {"host": "broker"},
        "cameras": {name: {"source": "synthetic://64x64@1"} for name in [*cameras, "other"]},
        "models": {name: {} for name in models},
    }
    values = configremote.overlaid(stand_in, given)
    _load(yamlfile.Document(values, document.lines, document.problems), path, {})
    return given


def shown(path: Path, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The whole configuration with defaults, as plain values without any secret.

    Raises:
        ConfigError: as `load`.
    """
    document = yamlfile.read(path)
    config = _load(document, path, environ)
    values = plain(config)
    assert isinstance(values, dict)
    _hide(values, document.values)
    return values


def from_options(section: type[SectionT], values: Mapping[str, object]) -> SectionT:
    """A section from options of the command line instead of a file.

    Raises:
        ConfigError: one line for every option that is not possible.
    """
    try:
        return section.model_validate(values)
    except ValidationError as error:
        told = [configproblems.problem(e, values) for e in error.errors(include_url=False)]
        lines = [f"--{yamlfile.dotted(key)}: {what}" for key, what in told]
        raise ConfigError("\n".join(lines)) from None


def schema() -> dict[str, Any]:
    """JSON Schema of the configuration file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Config.model_json_schema(),
        "title": "Vigia agent configuration",
    }


def _load(document: Document, path: Path, environ: Mapping[str, str]) -> Config:
    folder = path.absolute().parent
    filling = references.References(folder, environ)
    values = filling.fill(document.values)
    problems = document.problems + filling.problems
    problems += configproblems.empty_sections(document.values)
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        problems += [configproblems.problem(e, values) for e in error.errors(include_url=False)]
    if problems:
        raise ConfigError(_lines(problems, path, document.lines))
    return _resolve(config, folder)


def _lines(problems: list[tuple[Key, str]], path: Path, lines: Mapping[Key, int]) -> str:
    """One line a mistake, in the file's order; of several at one place the first is the cause."""
    firsts: dict[Key, str] = {}
    for key, what in problems:
        firsts.setdefault(key, what)
    if lines is NOWHERE:
        return "\n".join(f"{yamlfile.dotted(key)}: {what}" for key, what in firsts.items())
    placed = sorted(firsts.items(), key=lambda item: _line(lines, item[0]))
    return "\n".join(
        f"{path}:{_line(lines, key)}: {f'{yamlfile.dotted(key)}: ' if key else ''}{what}"
        for key, what in placed
    )


def _line(lines: Mapping[Key, int], key: Key) -> int:
    """Line of the key, or of the nearest section around it that is written in the file."""
    while key and key not in lines:
        key = key[:-1]
    return lines.get(key, 1)


def plain(value: Any) -> Any:
    """The same in values that YAML and JSON know, without secrets and passwords in URLs."""
    if isinstance(value, BaseModel):
        return {name: plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, SecretStr):
        return references.HIDDEN
    return mask_url(str(value)) if isinstance(value, (str, Path)) else value


def _hide(plain: Any, written: Any) -> None:
    """Put the text of the file, with references hidden, in place of every value made from one."""
    for key, text in written.items() if isinstance(written, dict) else enumerate(written):
        if isinstance(text, (dict, list)):
            _hide(plain[key], text)
        elif isinstance(text, str) and references.has_reference(text):
            plain[key] = mask_url(references.hide(text))


def _resolve(config: Config, folder: Path) -> Config:
    """Make relative paths absolute, from the configuration's folder."""

    def file(path: Path | None) -> Path | None:
        return None if path is None else _absolute(str(path), folder)

    cameras = {
        name: camera.model_copy(update={"source": _source(camera, folder)})
        for name, camera in config.cameras.items()
    }
    models = {
        name: model.model_copy(
            update={
                "path": file(model.path),
                "names": file(model.names) if isinstance(model.names, Path) else model.names,
            }
        )
        for name, model in config.models.items()
    }
    mqtt = config.mqtt
    if mqtt.tls is not None:
        paths = ("ca_file", "cert_file", "key_file")
        tls = mqtt.tls.model_copy(update={n: file(getattr(mqtt.tls, n)) for n in paths})
        mqtt = mqtt.model_copy(update={"tls": tls})
    pipeline = config.pipeline.model_copy(update={"cache_dir": file(config.pipeline.cache_dir)})
    spool = config.spool.model_copy(update={"dir": file(config.spool.dir)})
    updates = config.updates
    if updates is not None:
        keys = updates.keys.model_copy(update={"module": file(updates.keys.module)})
        places = {n: file(getattr(updates, n)) for n in ("state_dir", "root_file")}
        updates = updates.model_copy(update={**places, "keys": keys})
    return config.model_copy(
        update={
            "cameras": cameras,
            "models": models,
            "mqtt": mqtt,
            "pipeline": pipeline,
            "spool": spool,
            "updates": updates,
        }
    )


def _absolute(path: str, folder: Path) -> Path:
    return folder / os.path.expanduser(path)  # noqa: PTH111 - Path's raises for ~nobody


def _source(camera: CameraConfig, folder: Path) -> str:
    source = camera.source
    plain = "://" not in source and "!" not in source and not source.isdigit()
    if plain and camera.kind in {"auto", "file", "images"}:
        return str(_absolute(source, folder))
    return source
