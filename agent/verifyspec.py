"""How `vigia engine verify` names the two things that it compares."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from agent.errors import ConfigError
from engines.backend import BackendName, Precision

SLOT = "slot:"
PLAN = re.compile(r"[0-9a-f]{6,64}")
"""The beginning of a plan's key, as `vigia engine list` shows it."""

FORMS = (
    "give an ONNX file, FILE:BACKEND:PRECISION, slot:NAME or slot:NAME:BACKEND:PRECISION with "
    "--config, or the first digits of a plan's key (`vigia engine list`)"
)


@dataclass(frozen=True, slots=True)
class Spec:
    """One of the two.

    Attributes:
        text: as given.
        path: ONNX file, or None.
        slot: model slot of the configuration, or empty.
        plan: beginning of a plan's key, or empty.
        backend: library to build it with; None: the file as it is, on ONNX Runtime.
        precision: to build it in; None as for `backend`.
    """

    text: str
    path: Path | None = None
    slot: str = ""
    plan: str = ""
    backend: BackendName | None = None
    precision: Precision | None = None


def parse(text: str) -> Spec:
    """Read a name.

    Raises:
        ConfigError: it is none of the forms.
    """
    if PLAN.fullmatch(text) and not Path(text).exists():
        return Spec(text, plan=text)
    what, backend, precision = _recipe(text)
    if what.startswith(SLOT):
        slot = what.removeprefix(SLOT)
        if not slot or ":" in slot:
            raise ConfigError(f"{text!r} is not understood: {FORMS}")
        return Spec(text, slot=slot, backend=backend, precision=precision)
    if not what or not Path(what).is_file():
        raise ConfigError(f"{what!r}: no such file; {FORMS}")
    return Spec(text, path=Path(what), backend=backend, precision=precision)


def _recipe(text: str) -> tuple[str, BackendName | None, Precision | None]:
    """Split off backend and precision, if the last two parts are these."""
    what, *rest = text.rsplit(":", 2)
    if len(rest) < 2 or Path(text).is_file():  # noqa: PLR2004 - backend and precision
        return text, None, None
    for backend in get_args(BackendName):
        for precision in get_args(Precision):
            if rest == [backend, precision]:
                return what, backend, precision
    raise ConfigError(
        f"{text!r}: {':'.join(rest)} is no backend and precision; backends are "
        f"{', '.join(get_args(BackendName))}, precisions {', '.join(get_args(Precision))}"
    )
