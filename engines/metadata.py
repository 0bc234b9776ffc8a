"""What exporters of the YOLO family write about a model into its ONNX file.

Values are texts, some of them Python literals (`names` is "{0: 'person', ...}"). They come from
outside and are parsed as literals, never evaluated.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engines.errors import UnsupportedModelError
from engines.model import Task

if TYPE_CHECKING:
    import onnx

MAX_TEXT_CHARACTERS = 4 * 2**20
"""Longest metadata value that is parsed; 20 000 class names need a tenth."""

MAX_CLASSES = 100_000

MAX_NAME_CHARACTERS = 256

MAX_NUMBER = 100_000
"""Largest stride, picture side or keypoint count that is believed."""

KEYPOINT_VALUES = (2, 3)
"""x and y, with or without visibility."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """What the file says of itself; None or False where it says nothing.

    Attributes:
        task: what the model answers.
        names: class names by class id.
        stride: largest stride, pixels.
        size: (width, height) of the input, pixels.
        keypoint_shape: (number, values each).
        end2end: whether suppression is part of the graph.
        detr: the model calls itself an RT-DETR.
        ignored: one sentence for each entry that was not understood and does not matter much.
    """

    task: Task | None = None
    names: tuple[str, ...] | None = None
    stride: int | None = None
    size: tuple[int, int] | None = None
    keypoint_shape: tuple[int, int] | None = None
    end2end: bool | None = None
    detr: bool = False
    ignored: tuple[str, ...] = ()


def read_metadata(model: onnx.ModelProto, *, task: bool = True, names: bool = True) -> Metadata:
    """Parse the metadata of a model.

    Args:
        model: the model.
        task: whether to read the task; not where it is overridden.
        names: whether to read the class names; not where they are overridden.

    Raises:
        UnsupportedModelError: task or class names are there but cannot be used.
    """
    texts = {p.key: p.value for p in model.metadata_props if len(p.value) <= MAX_TEXT_CHARACTERS}
    ignored: list[str] = []

    def literal(key: str) -> Any:
        try:
            return None if key not in texts else _literal(texts[key])
        except ValueError:
            return None

    def noted(key: str, value: Any) -> Any:
        if key in texts and value is None:
            ignored.append(f"{key}: the metadata {texts[key][:60]!r} was not understood")
        return value

    arguments = literal("args")
    end2end = {"true": True, "false": False}.get(texts.get("end2end", "").lower())
    if isinstance(arguments, dict) and arguments.get("nms") is True:
        end2end = True
    return Metadata(
        task=_task(texts["task"]) if task and "task" in texts else None,
        names=_names(model) if names else None,
        stride=noted("stride", _integer(literal("stride"))),
        size=noted("imgsz", _size(literal("imgsz"))),
        keypoint_shape=noted("kpt_shape", _keypoint_shape(literal("kpt_shape"))),
        end2end=end2end,
        detr="rtdetr" in texts.get("description", "").lower().replace("-", ""),
        ignored=tuple(ignored),
    )


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, TypeError, MemoryError, RecursionError) as error:
        # The last two are how the parser refuses what is nested too deep.
        raise ValueError("not a literal") from error


def _task(text: str) -> Task:
    try:
        return Task(text.strip().lower())
    except ValueError as error:
        known = ", ".join(t.value for t in Task)
        raise UnsupportedModelError(
            f"the metadata says task {text[:60]!r}; understood are {known}. "
            "If it is one of these, set models.<slot>.task"
        ) from error


def _names(model: onnx.ModelProto) -> tuple[str, ...] | None:
    text = next((p.value for p in model.metadata_props if p.key == "names"), None)
    if text is None:
        return None
    problem = f"longer than {MAX_TEXT_CHARACTERS} characters"
    if len(text) <= MAX_TEXT_CHARACTERS:
        try:
            return check_names(_ordered(_literal(text)))
        except ValueError as error:
            problem = str(error)
    raise UnsupportedModelError(
        f"the class names in the metadata are {problem}; set models.<slot>.names instead"
    )


def _ordered(value: Any) -> list[Any]:
    """Class names in order of class id, from a list or a dictionary by class id."""
    if isinstance(value, (list, tuple)):
        return list(value)
    if not isinstance(value, dict):
        raise ValueError("neither a list nor a dictionary")  # noqa: TRY004 - mapped by the caller
    by_id = {int(k) if isinstance(k, str) and k.isdecimal() else k: v for k, v in value.items()}
    if any(type(k) is not int for k in by_id) or set(by_id) != set(range(len(value))):
        raise ValueError("not numbered from 0 without gaps")
    return [by_id[i] for i in range(len(by_id))]


def check_names(names: list[Any]) -> tuple[str, ...]:
    """Class names as a tuple.

    Raises:
        ValueError: none, too many, or one that is no short printable text; the message completes
            "the class names are ...".
    """
    if not 1 <= len(names) <= MAX_CLASSES:
        raise ValueError(f"{len(names)} in number; 1 to {MAX_CLASSES} are possible")
    for name in names:
        if not isinstance(name, str) or not name.isprintable() or len(name) > MAX_NAME_CHARACTERS:
            raise ValueError(
                f"not all printable texts of up to {MAX_NAME_CHARACTERS} characters: "
                f"{str(name)[:60]!r}"
            )
    return tuple(names)


def _integer(value: Any) -> int | None:
    if isinstance(value, (list, tuple)) and value:
        integers = [_integer(v) for v in value]
        return None if None in integers else max(i for i in integers if i is not None)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 < value <= MAX_NUMBER else None


def _size(value: Any) -> tuple[int, int] | None:
    sides = value if isinstance(value, (list, tuple)) else [value, value]
    if len(sides) != 2:  # noqa: PLR2004 - height and width
        return None
    height, width = (_integer(side) for side in sides)
    return None if height is None or width is None else (width, height)


def _keypoint_shape(value: Any) -> tuple[int, int] | None:
    if not isinstance(value, (list, tuple)) or len(value) != 2:  # noqa: PLR2004 - as documented
        return None
    number, values = (_integer(v) for v in value)
    return None if number is None or values not in KEYPOINT_VALUES else (number, values)
