"""Which built engine belongs to a model slot: the key of everything it depends on, and the cache.

Looking for an engine reads and hashes the model and its calibration pictures, and builds nothing.
"""

from __future__ import annotations

import functools
import hashlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from agent.calibration import pictures_digest
from agent.config import ModelConfig
from agent.errors import ConfigError
from agent.modelsettings import BYTES_PER_MB, engine_options, overrides
from engines.backend import BackendName, Precision
from engines.backends import available
from engines.describe import describe_model
from engines.errors import ModelFileError, PlanError
from engines.onnxfile import read_model
from engines.plan import PlanCache, PlanKey
from engines.seal import FileKey, Sealer
from engines.selection import REFERENCE, Policy, candidates
from engines.source import RECIPE_VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

    from engines.backend import Backend, Options
    from engines.base import Engine
    from engines.canonical import JSON
    from engines.model import ModelInfo
    from engines.plan import Plan

PLANS_FOLDER = "engines"
"""Below the cache folder."""

KEY_FILE = "device.key"
"""The device key that seals plans at rest, below the cache folder."""

DEFAULT_CACHE_MB = 2048
"""As `agent.config.PipelineConfig.cache_max_mb`."""


def default_cache_dir() -> Path:
    """Where built engines are kept if the configuration does not say: the user's cache folder.

    systemd's `CacheDirectory=` wins, then the XDG base directory specification's folder.
    """
    for variable, below in (("CACHE_DIRECTORY", ""), ("XDG_CACHE_HOME", "vigia")):
        if os.environ.get(variable):
            return Path(os.environ[variable]) / below
    return Path.home() / ".cache" / "vigia"


def open_cache(cache_dir: Path, max_mb: int = DEFAULT_CACHE_MB) -> PlanCache:
    """The plan cache below a cache folder; makes nothing until something is put into it."""
    sealer = Sealer(FileKey(cache_dir / KEY_FILE))
    return PlanCache(cache_dir / PLANS_FOLDER, sealer, max_mb * BYTES_PER_MB)


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """An engine that is wanted.

    Attributes:
        slot: name of the model in the configuration.
        config: the slot's settings.
        live: whether a live camera uses it, which decides the default arrangement.
        cache_dir: where built engines are kept.
        cache_max_mb: their size at the most.
    """

    slot: str
    config: ModelConfig
    live: bool
    cache_dir: Path
    cache_max_mb: int = DEFAULT_CACHE_MB

    def to_json(self) -> dict[str, object]:
        """For another process; `from_json` reads it."""
        return {
            "slot": self.slot,
            "config": self.config.model_dump(mode="json"),
            "live": self.live,
            "cache_dir": str(self.cache_dir),
            "cache_max_mb": self.cache_max_mb,
        }

    @classmethod
    def from_json(cls, value: dict[str, object]) -> PlanRequest:
        """The inverse of `to_json`."""
        return cls(
            slot=str(value["slot"]),
            config=ModelConfig.model_validate(value["config"]),
            live=bool(value["live"]),
            cache_dir=Path(str(value["cache_dir"])),
            cache_max_mb=int(str(value["cache_max_mb"])),
        )


@dataclass(frozen=True, slots=True)
class Report:
    """How an engine came to be chosen; JSON values, kept beside the plan.

    Attributes:
        plan: the key of the plan, hexadecimal.
        cached: whether it had been built before.
        value: the report.
    """

    plan: str
    cached: bool
    value: Mapping[str, object]


def report_of(plan: Plan) -> Report:
    """The report that is kept beside a plan."""
    value = plan.sidecar.get("report")
    return Report(plan.hex, cached=True, value=value if isinstance(value, dict) else {})


class Plans:
    """What is known of a request before anything is built.

    Args:
        request: which engine is wanted.

    Raises:
        EngineError: the model file cannot be used.
        ConfigError: settings that do not fit it.
    """

    def __init__(self, request: PlanRequest) -> None:
        self.request = request
        file = read_model(request.config.path)
        self.info: ModelInfo = describe_model(file, overrides(request.slot, request.config))
        self.options: Options = engine_options(
            request.config, live=request.live, cache_dir=request.cache_dir
        )
        self.policy = policy(request.config)
        self.cache = open_cache(request.cache_dir, request.cache_max_mb)

    @functools.cached_property
    def backends(self) -> list[Backend]:
        """The backends that can be used here and are allowed."""
        return available(self.policy.backends)

    @functools.cached_property
    def key(self) -> PlanKey:
        """The key of the engine that a build would choose.

        Raises:
            CalibrationError: the calibration pictures cannot be read.
            ConfigError: the ground truth cannot be read.
        """
        config = self.request.config
        quantize = config.quantize
        return PlanKey(
            {
                "schema": "vigia.engine/1",
                "recipe": RECIPE_VERSION,
                "model": self.model_parts(),
                "pictures": None
                if quantize.calibration is None
                else pictures_digest(quantize.calibration, self.info, quantize.images),
                "truth": None if quantize.truth is None else _file_digest(quantize.truth),
                "policy": _plain(asdict(self.policy)),
                "method": quantize.method,
                "gate": config.gate.model_dump(mode="json"),
                "answers": config.model_dump(
                    mode="json",
                    include={
                        "confidence",
                        "class_confidence",
                        "iou",
                        "agnostic_nms",
                        "classes",
                        "max_detections",
                    },
                ),
                "options": self.option_parts(),
                "backends": {b.name: dict(b.fingerprint()) for b in self.backends},
            }
        )

    def read_model(self) -> onnx.ModelProto:
        """The model itself; read anew, because it is large and changed by those who use it.

        Raises:
            ModelFileError: it cannot be read, or is not the file it was.
        """
        file = read_model(self.request.config.path)
        if file.digest != self.info.digest:
            raise ModelFileError(f"{file.path} was replaced while it was being used; start again")
        return file.model

    def model_parts(self) -> dict[str, JSON]:
        """What of the model an engine depends on, for a key."""
        info = self.info
        return {
            "digest": info.digest,
            "task": info.task.value,
            "layout": info.layout.value,
            "size": [info.width, info.height],
            "resize": info.resize.value,
            "max_batch": info.max_batch,
            "mean": list(info.mean),
            "std": list(info.std),
            "names": list(info.names),
        }

    def option_parts(self) -> dict[str, JSON]:
        """What of the options an engine depends on, for a key."""
        options: dict[str, Any] = _plain(asdict(self.options))
        # Where timing caches lie changes how long a build takes, not what it makes.
        del options["tensorrt"]["timing_folder"]
        return options

    def find(self) -> Plan | None:
        """The engine that was built for exactly this, or None.

        Raises:
            CalibrationError: the calibration pictures cannot be read.
            ConfigError: the ground truth cannot be read.
        """
        return self.cache.get(self.key)

    def wanted(self) -> bool:
        """Whether a build could choose anything but the reference."""
        tried = candidates(self.backends, self.policy)
        if self.request.config.quantize.calibration is None:
            tried = [(b, precision) for b, precision in tried if precision != "int8"]
        only_reference = all((b.name, precision) == REFERENCE for b, precision in tried)
        asked = (self.request.config.backend, self.request.config.precision) != ("auto", "auto")
        # What was asked for by name and cannot be tried is a failure to be told, not to be passed.
        return not only_reference or (asked and not tried)

    def load(self, plan: Plan) -> Engine:
        """Load a built engine.

        Raises:
            PlanError: it is not for this library, version or machine, or not what it says it is.
            BackendError: the library is not here, or refuses it.
        """
        name, precision = plan.sidecar.get("backend"), plan.sidecar.get("precision")
        backend = next((b for b in self.backends if b.name == name), None)
        if backend is None:
            raise PlanError(f"the plan {plan.hex[:12]} is for {name}, which cannot be used here")
        engine = backend.load(plan.blob, self.info, self.options)
        if engine.precision != precision:
            engine.close()
            raise PlanError(
                f"the plan {plan.hex[:12]} says {precision} and computes in {engine.precision}"
            )
        return engine


def policy(config: ModelConfig) -> Policy:
    """What a build may choose."""
    precision = config.precision
    return Policy(
        backends=get_args(BackendName) if config.backend == "auto" else (config.backend,),
        precisions=get_args(Precision) if precision == "auto" else (precision,),
        keep_float=config.quantize.keep_float,
        min_speedup=config.gate.min_speedup if precision == "auto" else 1.0,
    )


def _file_digest(path: Path) -> str:
    try:
        return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(
            f"cannot read the ground truth {path}: {error.strerror}; check quantize.truth"
        ) from error


def _plain(value: Any) -> Any:
    """JSON's own types only: tuples become lists, paths texts."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
