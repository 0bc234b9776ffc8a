"""Metrics in the text format of Prometheus, made from the sources when somebody asks.

Counts and histograms are the agent's own; nothing is counted twice for the sake of metrics. Parts
whose values are not known here by name are told number by number, under the name of the part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from agent.http.metricparts import parts
from agent.http.numbers import numbers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from agent.http.history import History
    from agent.http.ports import Sources
    from agent.pipeline.stats import CameraStats

MS_PER_S = 1000.0

BOUNDS_MS = (1, 2, 5, 10, 20, 35, 50, 75, 100, 150, 250, 500, 1000, 2500, 10_000)
"""Upper bounds of the buckets of stage times."""

STATES = ("online", "connecting", "stalled", "disabled", "ended", "failed")

BUILD_STATES = ("none", "building", "ready", "failed")

UPDATE_STATES = (
    "IDLE", "OFFERED", "TRUSTED", "FETCHING", "SEALED", "BUILDING", "GATING", "SHADOWING",
    "CANARY", "COMMITTED", "REJECTED", "ROLLED_BACK",
)  # fmt: skip


class Metrics(Collector):
    """See the module.

    Args:
        sources: what is told.
        history: for the present rates.
        own: counts of the HTTP side itself.
    """

    def __init__(self, sources: Sources, history: History, own: Mapping[str, Any]) -> None:
        self._sources = sources
        self._history = history
        self._own = own
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        """All metrics."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """For prometheus_client."""
        yield from self._identity()
        yield from self._cameras()
        yield from self._stages(self._sources.stats())
        yield from self._models()
        yield from parts(self._sources)
        yield from _by("vigia_events", "Events told", "kind", self._sources.event_counts() or {})
        yield from numbers("http", self._own)

    def _identity(self) -> Iterator[Metric]:
        identity = self._sources.identity()
        names = ("device", "boot", "version")
        info = GaugeMetricFamily("vigia_info", "Who this is; always 1", labels=names)
        info.add_metric([str(identity.get(n, "")) for n in names], 1)
        yield info
        yield GaugeMetricFamily(
            "vigia_start_time_seconds",
            "When this run began, seconds since the epoch",
            value=float(identity.get("started", 0)),
        )

    def _cameras(self) -> Iterator[Metric]:
        state = GaugeMetricFamily(
            "vigia_camera_state", "1 for the state a camera is in", labels=("camera", "state")
        )
        fps = GaugeMetricFamily(
            "vigia_camera_fps", "Frames analysed a second, lately", labels=("camera",)
        )
        lately = self._history.latest()
        for name, camera in self._sources.cameras().items():
            for known in STATES:
                state.add_metric([name, known], float(camera.get("state") == known))
            if name in lately:
                fps.add_metric([name], lately[name]["fps"])
        yield state
        yield fps

    def _stages(self, stats: Mapping[str, CameraStats]) -> Iterator[Metric]:
        frames = CounterMetricFamily("vigia_frames", "Frames analysed", labels=("camera",))
        objects = CounterMetricFamily("vigia_objects", "Objects found", labels=("camera",))
        drops = CounterMetricFamily(
            "vigia_frames_dropped", "Frames not analysed", labels=("camera", "cause")
        )
        stages = HistogramMetricFamily(
            "vigia_stage_seconds", "Time of a frame in a stage", labels=("camera", "stage")
        )
        for name, camera in stats.items():
            frames.add_metric([name], camera.results)
            objects.add_metric([name], camera.objects)
            for cause, count in camera.drops.items():
                drops.add_metric([name, cause], count)
            for stage, histogram in camera.stages.items():
                counts = histogram.at_most(BOUNDS_MS)
                buckets = [
                    (f"{bound / MS_PER_S:g}", float(count))
                    for bound, count in zip(BOUNDS_MS, counts, strict=True)
                ]
                stages.add_metric(
                    [name, stage],
                    [*buckets, ("+Inf", float(histogram.count))],
                    sum_value=histogram.sum_ms / MS_PER_S,
                )
        yield from (frames, objects, drops, stages)

    def _models(self) -> Iterator[Metric]:
        labels = ("slot", "name", "digest", "backend", "precision")
        info = GaugeMetricFamily("vigia_model_info", "What serves; always 1", labels=labels)
        flagged = GaugeMetricFamily(
            "vigia_model_flagged", "1 while a model gives nothing trustworthy", labels=("slot",)
        )
        waiting = GaugeMetricFamily(
            "vigia_queue_frames", "Frames that wait for a model", labels=("slot",)
        )
        age = GaugeMetricFamily(
            "vigia_queue_age_seconds",
            "How long the oldest frame has waited for a model, since its capture",
            labels=("slot",),
        )
        busy = GaugeMetricFamily(
            "vigia_worker_busy_seconds",
            "How long the slowest worker has been at its frames",
            labels=("slot",),
        )
        build = GaugeMetricFamily(
            "vigia_engine_build_state", "1 for the state the building of an engine is in",
            labels=("slot", "state"),
        )  # fmt: skip
        update = GaugeMetricFamily(
            "vigia_update_state", "1 for the state an update is in", labels=("slot", "state")
        )
        for slot, model in self._sources.models().items():
            if model.get("name"):
                info.add_metric([slot, *(str(model.get(n, "")) for n in labels[1:])], 1)
            flagged.add_metric([slot], float(bool(model.get("reason"))))
            waiting.add_metric([slot], model.get("waiting", 0))
            age.add_metric([slot], model.get("waiting_s") or 0.0)
            busy.add_metric([slot], model.get("busy_s") or 0.0)
            at = (model.get("build") or {}).get("state")
            for known in BUILD_STATES if at else ():
                build.add_metric([slot, known], float(at == known))
            at = (model.get("update") or {}).get("state")
            for known in UPDATE_STATES if at else ():
                update.add_metric([slot, known], float(at == known))
        yield from (info, flagged, waiting, age, busy, build, update)


def _by(name: str, text: str, label: str, counts: Mapping[str, Any]) -> Iterator[Metric]:
    family = CounterMetricFamily(name, text, labels=(label,))
    for key, count in counts.items():
        family.add_metric([key], count)
    yield family
