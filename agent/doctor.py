"""Why is it slower or less accurate than it was? Looks at everything that is known to be a cause.

Measured facts go through small pure checks, each of which gives findings as `vigia check` does.
Their names begin with what they cost: "accuracy." or "speed.".
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from agent import (
    doctor_answers,
    doctor_input,
    doctor_pictures,
    doctor_reference,
    doctor_speed,
    doctor_variants,
    doctor_weights,
)
from agent.check import Finding
from agent.doctor_case import Case
from agent.doctor_host import HostFiles
from agent.errors import AgentError, ConfigError
from agent.versions import versions
from engines.backends import available, unavailable
from engines.describe import describe_model
from engines.errors import EngineError
from engines.graphfacts import input_steps, weight_facts
from engines.model import Task
from engines.onnxfile import read_model
from engines.orttensors import PlainModel, feed, first_difference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from agent.doctor_host import Host
    from agent.plans import PlanRequest

COMPARED = 8
"""Pictures that engines are compared on."""

TRIED = 12
"""Pictures that other preparations of the input are tried on, as far as time allows."""

SAME = 0.01
"""Relative difference of intermediate tensors that is still the same."""

TOPICS = {"accuracy": "less accurate", "speed": "slower"}
"""First part of a finding's name, and what it would make of the model."""

LIKELY = (
    "accuracy.weights",
    "accuracy.scaling",
    "accuracy.preprocessing",
    "accuracy.input",
    "accuracy.export",
    "accuracy.serving",
    "accuracy.resizing",
    "accuracy.range",
    "accuracy.pictures",
    "accuracy.confidence",
    "accuracy.description",
    "accuracy.size",
    "speed.heat",
    "speed.supply",
    "speed.memory",
    "speed.power",
    "speed.plan",
    "speed.backends",
    "speed.precision",
    "speed.load",
    "speed.threads",
    "speed.clocks",
    "speed.denormals",
    "speed.decode",
    "speed.steadiness",
    "speed.padding",
)
"""Causes before their consequences: among findings of equal weight the first is told first."""

WEIGHT = {"fail": 0, "warn": 1, "ok": 2}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found.

    Attributes:
        findings: the most likely cause first, topic by topic.
        facts: circumstances, for JSON: the machine, versions, the engine.
    """

    findings: tuple[Finding, ...]
    facts: dict[str, object] = field(default_factory=dict)

    def verdict(self, topic: str) -> str:
        """The most likely cause of what a topic is about, in a sentence."""
        found = [finding for finding in self.findings if finding.name.startswith(topic + ".")]
        if not found:
            return f"if it is {TOPICS[topic]}: not looked at"
        first = found[0]
        if first.status == "ok":
            return (
                f"if it is {TOPICS[topic]}: none of the {len(found)} things looked at explains it"
            )
        fix = f". Do: {first.fix}" if first.fix else ""
        return f"if it is {TOPICS[topic]}, most likely: {first.what}{fix}"


def examine(
    request: PlanRequest,
    pictures: Sequence[NDArray[np.uint8]] = (),
    reference: Path | None = None,
    *,
    files: HostFiles | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Diagnosis:
    """Look at everything.

    Args:
        request: the model slot.
        pictures: of what the cameras see, BGR, uint8, [h, w, 3]; without them the checks that need
            some are left out.
        reference: another ONNX file of the same model, or an .npz recording.
        files: this machine's files, or another's.
        tell: takes what is being done.

    Raises:
        EngineError: the model file cannot be used.
        ConfigError: settings that do not fit it.
    """
    # Looked at first: what is measured here would be found as load and heat.
    host = (files or HostFiles()).read()
    case = Case(request, pictures)
    findings: list[Finding] = []
    try:
        for name, what, look in _looks(case, host, reference):
            tell(what)
            findings += _guarded(name, look)
        facts = _facts(case, host)
    finally:
        case.close()
    return Diagnosis(tuple(sorted(findings, key=_rank)), facts)


def _rank(finding: Finding) -> tuple[int, int, int]:
    topic = list(TOPICS).index(finding.name.partition(".")[0])
    likely = LIKELY.index(finding.name) if finding.name in LIKELY else len(LIKELY)
    return topic, WEIGHT[finding.status], likely


Look = tuple[str, str, "Callable[[], Iterable[Finding]]"]
"""The name its findings go by if it fails, what it does, and the function."""


def _looks(case: Case, host: Host, reference: Path | None) -> Iterator[Look]:
    threads = case.plans.options.run.threads
    yield "speed.load", "looking at the machine", lambda: _host(host, threads)
    yield "accuracy.weights", "looking at the weights", lambda: _weights(case)
    yield "accuracy.scaling", "following the input", lambda: _input(case)
    if case.given:
        yield "accuracy.pictures", "looking at the pictures", lambda: _pictures(case)
    else:
        yield "accuracy.pictures", "looking at the pictures", _no_pictures
    yield "accuracy.serving", "comparing the engine with the file", lambda: _serving(case)
    if case.given:
        yield "accuracy.confidence", "looking at the answers", lambda: _answers(case)
        yield "accuracy.input", "trying other inputs", lambda: _variants(case)
    if reference is not None:
        yield "accuracy.export", "comparing with the reference", lambda: _reference(case, reference)
    yield "speed.plan", "looking at the engine", lambda: _engine(case, host)
    yield "speed.steadiness", "timing", lambda: _timing(case)


def _guarded(name: str, look: Callable[[], Iterable[Finding]]) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(look())
    except ConfigError:
        # What was given on the command line is wrong; that is no finding about the model.
        raise
    except (AgentError, EngineError) as error:
        what, _, fix = str(error).rpartition("; ")
        found.append(Finding(name, "fail", what or fix, fix if what else ""))
    return found


def _host(host: Host, threads: int) -> Iterator[Finding]:
    yield from doctor_speed.check_threads(host, threads)
    yield from doctor_speed.check_power(host)
    yield from doctor_speed.check_clocks(host)
    yield from doctor_speed.check_heat(host)
    yield from doctor_speed.check_load(host)
    yield from doctor_speed.check_memory(host)


def _weights(case: Case) -> Iterator[Finding]:
    facts = weight_facts(case.file.model)
    yield from doctor_weights.check_weights(facts, case.info.precision, case.config.precision)


def _input(case: Case) -> Iterator[Finding]:
    for sentence in case.info.inferred:
        yield Finding(
            "accuracy.description",
            "warn",
            f"the file does not say it: {sentence}",
            "say it in models.<slot> if it is wrong",
        )
    steps = input_steps(case.file.model, case.info.input.name)
    yield from doctor_input.check_steps(steps, case.info)
    yield from doctor_input.check_parity(
        doctor_input.parity_levels(case.pictures[:COMPARED], case.info)
    )
    if case.given and case.info.input.dtype != np.uint8:
        seen = [case.same_input(picture) for picture in case.prepared[:COMPARED]]
        yield from doctor_input.check_seen(np.concatenate(seen))


def _no_pictures() -> Iterator[Finding]:
    yield Finding(
        "accuracy.pictures",
        "ok",
        "none were given: whether light, scale, channel order and threshold suit the model was not "
        "looked at",
        "give --pictures a folder or a video of what the cameras see",
    )


def _pictures(case: Case) -> Iterator[Finding]:
    facts = [doctor_pictures.measure(picture) for picture in case.pictures]
    yield from doctor_pictures.check_pictures(facts)
    yield from doctor_pictures.check_fit(facts, case.info)


def _serving(case: Case) -> Iterator[Finding]:
    """The engine as it serves, beside the file as any other program would run it."""
    pairs = [
        (case.run_plain(case.same_input(prepared)), case.serve(prepared))
        for prepared in case.prepared[:COMPARED]
    ]
    ref = case.loaded.ref
    yield from doctor_reference.check_outputs(
        "accuracy.serving",
        f"{ref.precision} on {ref.backend} beside the file itself in plain ONNX Runtime",
        doctor_reference.compare_outputs(case.info, pairs),
        ref.precision,
        "build it anew: vigia engine build --fresh; if that does not help, report it",
    )


def _answers(case: Case) -> Iterator[Finding]:
    facts = case.answers()
    yield from doctor_answers.check_answers(
        facts, case.config.confidence, case.settings.max_detections
    )
    yield from doctor_answers.check_decode(facts)


def _variants(case: Case) -> Iterator[Finding]:
    if case.info.input.dtype == np.uint8:
        yield Finding("accuracy.input", "ok", "the model takes pixels as they are, 0..255")
        return
    if case.info.task is Task.CLASSIFY:
        yield Finding("accuracy.input", "ok", "other inputs are not tried on classifiers")
        return
    agreements = doctor_variants.try_variants(
        case.run_plain, case.decoder, case.info, case.pictures[:TRIED]
    )
    yield from doctor_variants.check_variants(agreements)


def _reference(case: Case, path: Path) -> Iterator[Finding]:
    if path.suffix.lower() == ".npz":
        yield from _recording(case, path)
        return
    other = read_model(path)
    info = describe_model(other)
    plain = PlainModel(other.model, threads=case.plans.options.run.threads)
    if (info.width, info.height) != (case.info.width, case.info.height):
        raise ConfigError(
            f"--reference {path}: its input is {info.width}x{info.height}, this model's "
            f"{case.info.width}x{case.info.height}; give a reference of the same size"
        )
    images = [case.same_input(prepared) for prepared in case.prepared[:COMPARED]]
    pairs = []
    for image in images:
        theirs = plain.run(feed(other.model, info.input.name, image))
        named = zip(case.info.outputs, info.outputs)  # noqa: B905 - other numbers are told below
        pairs.append(
            ({mine.name: theirs[their.name] for mine, their in named}, case.run_plain(image))
        )
    for finding in doctor_reference.check_outputs(
        "accuracy.export",
        f"the model beside {path.name}",
        doctor_reference.compare_outputs(case.info, pairs),
        case.info.precision,
        "export it again; compare opset, exporter version, options and weights of the two",
    ):
        where = ""
        if finding.status != "ok":
            feeds = (
                feed(other.model, info.input.name, images[0]),
                feed(case.file.model, case.info.input.name, images[0]),
            )
            difference = first_difference(other.model, case.file.model, feeds, SAME)
            where = doctor_reference.parting(difference)
        yield replace(finding, what=finding.what + where)


def _recording(case: Case, path: Path) -> Iterator[Finding]:
    recording = doctor_reference.read_recording(path, case.info)
    ours = case.run_plain(recording.image.astype(np.float32))
    yield from doctor_reference.check_outputs(
        "accuracy.export",
        f"the model on the input recorded in {path.name}",
        doctor_reference.compare_outputs(case.info, [(recording.outputs, ours)]),
        case.info.precision,
        "the recording is of another model, or the export went wrong: export it again",
    )
    if recording.picture is not None:
        apart, explanation = doctor_reference.explain_input(
            recording.picture, recording.image, case.info
        )
        yield from doctor_reference.check_recorded_input(apart, explanation)


def _engine(case: Case, host: Host) -> Iterator[Finding]:
    ref = case.loaded.ref
    plans = case.plans
    built = [entry for entry in plans.cache.entries() if not entry.problem]
    yield from doctor_weights.check_plan(
        there=plans.find() is not None,
        wanted=plans.wanted(),
        others=sum(entry.sidecar.get("model") == case.info.name for entry in built),
        serves=f"{ref.precision} on {ref.backend}",
    )
    yield from doctor_weights.check_precision(
        case.info.precision,
        case.config.precision,
        {"backend": ref.backend, "precision": ref.precision},
        host.features,
    )
    yield from doctor_weights.check_offers(
        {backend.name: backend.offers() for backend in available()},
        {str(name): reason for name, reason in unavailable().items()},
        host.features,
        gpu=host.jetson,
    )


def _timing(case: Case) -> Iterator[Finding]:
    prepared = case.prepared[0]
    picture_ms, black_ms = case.timed(prepared, np.zeros_like(prepared))
    p50, p95 = (float(value) for value in np.percentile(picture_ms, (50, 95)))
    yield from doctor_speed.check_steadiness(p50, p95)
    yield from doctor_speed.check_denormals(p50, float(np.median(black_ms)))


def _facts(case: Case, host: Host) -> dict[str, object]:
    run = case.plans.options.run
    return {
        "model": {"name": case.info.name, "digest": case.info.digest},
        "host": {**host.summary(), "overcurrent": host.overcurrent},
        "threads": run.threads,
        "arrangement": run.arrangement,
        "versions": versions(),
    }
