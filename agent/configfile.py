"""Reads the configuration: secrets filled in, paths resolved, every mistake with line and key path.

Values that came from `${env:NAME}` or `${file:PATH}` are secrets: no message repeats them, and
`shown` puts `***` in their place.
"""

from __future__ import annotations

import difflib
import os
import re
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, SecretStr, ValidationError

from agent.config import CameraConfig, Config
from agent.errors import ConfigError
from agent.secrets import mask_url
from agent.yamlfile import Key, read

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

REFERENCE = re.compile(r"\$\{(env|file):([^{}]*)\}")

MAX_SECRET_BYTES = 65_536
"""A password or a URL is far smaller; a device like /dev/zero has no end."""

HIDDEN = "***"

PLAIN_NUMBER = re.compile(r"^\s*[-+]?\d+(\.\d+)?\s*[a-zA-Z%µ]+\s*$")
"""A number with a unit behind it, like `5s`."""


def load(path: Path, environ: Mapping[str, str] = os.environ) -> Config:
    """Read, check and complete a configuration.

    Args:
        path: the YAML file. Relative paths in it are relative to its folder.
        environ: where `${env:NAME}` looks.

    Raises:
        ConfigError: one line for every mistake: file, line, key path, what is wrong, what to do.
    """
    values, lines = read(path)
    filled = _fill(values, (), _Place(path, lines, environ))
    try:
        config = Config.model_validate(filled)
    except ValidationError as error:
        problems = [_problem(e, path, lines) for e in error.errors(include_url=False)]
        raise ConfigError("\n".join(dict.fromkeys(problems))) from None
    return _resolve(config, path.resolve().parent)


def shown(path: Path, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The whole configuration with defaults, as plain values without any secret.

    Raises:
        ConfigError: as `load`.
    """
    config = load(path, environ)
    values, _ = read(path)
    plain = config.model_dump(mode="json")
    for key in _references(values, ()):
        _hide(plain, key)
    return typing.cast("dict[str, Any]", _masked(plain))


def schema() -> dict[str, Any]:
    """JSON Schema of the configuration file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Vigia agent configuration",
        **Config.model_json_schema(),
    }


class _Place:
    """Where values come from, for messages."""

    def __init__(self, path: Path, lines: Mapping[Key, int], environ: Mapping[str, str]) -> None:
        self.path = path
        self.environ = environ
        self._lines = lines

    def at(self, key: Key) -> str:
        return f"{self.path}:{_line(self._lines, key)}: {_dotted(key)}"


def _fill(value: Any, key: Key, place: _Place) -> Any:
    """Replace every reference by what it refers to."""
    if isinstance(value, dict):
        return {k: _fill(v, (*key, k), place) for k, v in value.items()}
    if isinstance(value, list):
        return [_fill(v, (*key, i), place) for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value
    return REFERENCE.sub(lambda match: _secret(match[1], match[2], key, place), value)


def _secret(kind: str, name: str, key: Key, place: _Place) -> str:
    if kind == "env":
        if name not in place.environ:
            raise ConfigError(
                f"{place.at(key)}: the environment variable {name!r} is not set; set it for the "
                "service, or use ${file:/path}"
            )
        return place.environ[name]
    file_path = place.path.resolve().parent / name
    try:
        with file_path.open("rb") as file:
            raw = file.read(MAX_SECRET_BYTES + 1)
        text = raw.decode("utf-8")
    except OSError as error:
        raise ConfigError(
            f"{place.at(key)}: the file {file_path} cannot be read: {error.strerror}"
        ) from error
    except UnicodeDecodeError:
        raise ConfigError(f"{place.at(key)}: the file {file_path} is not UTF-8 text") from None
    if len(raw) > MAX_SECRET_BYTES:
        raise ConfigError(f"{place.at(key)}: the file {file_path} is larger than a secret is")
    return text.rstrip("\r\n")


def _references(value: Any, key: Key) -> list[Key]:
    if isinstance(value, dict):
        return [found for k, v in value.items() for found in _references(v, (*key, k))]
    if isinstance(value, list):
        return [found for i, v in enumerate(value) for found in _references(v, (*key, i))]
    return [key] if isinstance(value, str) and REFERENCE.search(value) else []


def _hide(values: Any, key: Key) -> None:
    for part in key[:-1]:
        values = values[part]
    values[key[-1]] = HIDDEN


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _masked(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_masked(v) for v in value]
    return mask_url(value) if isinstance(value, str) else value


def _problem(error: ErrorDetails, path: Path, lines: Mapping[Key, int]) -> str:
    """One line for one mistake that pydantic found. Never repeats a value: it may be a secret."""
    key = tuple(part for part in error["loc"] if part != "[key]")
    where = f"{path}:{_line(lines, key)}: {_dotted(key)}" if key else f"{path}"
    kind, message = error["type"], error["msg"]
    if kind == "extra_forbidden":
        return f"{where}: unknown key{_hint(key)}"
    if kind == "missing":
        return f"{where}: is missing; add it"
    if kind == "value_error":
        return f"{where}: {message.removeprefix('Value error, ')}"
    if kind == "string_pattern_mismatch" and key and key[0] in ("cameras", "models", "device"):
        return f"{where}: a name has letters, digits, - and _, begins with a letter or digit"
    given = error.get("input")
    if isinstance(given, str) and PLAIN_NUMBER.match(given):
        return f"{where}: give a plain number; the unit stands in the key's name ({key[-1]})"
    return f"{where}: {message[0].lower()}{message[1:]}"


def _hint(key: Key) -> str:
    known = _keys_at(Config, key[:-1])
    wrong = str(key[-1])
    near = difflib.get_close_matches(wrong, known, n=1, cutoff=0.6)
    # A forgotten unit is the commonest slip: `stall_timeout` for `stall_timeout_s`.
    near = near or [k for k in known if k.startswith(wrong) or wrong.startswith(k)][:1]
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known here: {', '.join(sorted(known))}" if known else ""


def _keys_at(model: type[BaseModel], key: Key) -> list[str]:
    """Names of the settings of the section that `key` leads to."""
    if not key:
        return list(model.model_fields)
    field = model.model_fields.get(str(key[0]))
    if field is None:
        return []
    section, named = _section(field.annotation)
    if section is None:
        return []
    return _keys_at(section, key[2:] if named else key[1:])


def _section(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The section class inside an annotation, and whether it is a mapping by name."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    named = typing.get_origin(annotation) is dict
    for part in typing.get_args(annotation):
        section, _ = _section(part)
        if section is not None:
            return section, named
    return None, False


def _line(lines: Mapping[Key, int], key: Key) -> int:
    """Line of the key, or of the nearest section around it that is written in the file."""
    while key and key not in lines:
        key = key[:-1]
    return lines.get(key, 1)


def _dotted(key: Key) -> str:
    return ".".join(map(str, key))


def _resolve(config: Config, folder: Path) -> Config:
    """Make relative paths absolute, from the configuration's folder."""

    def file(path: Path | None) -> Path | None:
        return None if path is None else folder / path.expanduser()

    cameras = {
        name: camera.model_copy(update={"source": _resolve_source(camera, folder)})
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
    return config.model_copy(
        update={"cameras": cameras, "models": models, "mqtt": mqtt, "pipeline": pipeline}
    )


def _resolve_source(camera: CameraConfig, folder: Path) -> str:
    source = camera.source
    plain = "://" not in source and "!" not in source and not source.isdigit()
    if camera.kind in ("file", "images") or (camera.kind == "auto" and plain):
        return str(folder / Path(source).expanduser())
    return source


def reveal(secret: SecretStr | None) -> str | None:
    """The secret itself, for the library that needs it."""
    return None if secret is None else secret.get_secret_value()
