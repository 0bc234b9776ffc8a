"""What Prometheus is told: names, types and units."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.detection import StageTimes
from agent.http.history import History
from agent.http.metrics import Metrics
from agent.http.numbers import MAX_NUMBERS, numbers
from agent.http.ports import Sources
from agent.pipeline.stats import PipelineStats

HOST = {
    "cpu_percent": 41.0,
    "process_rss_bytes": 412_000_000,
    "temperature_max_c": 58.5,
    "thermal": {"cpu": 56.0, "gpu": 58.5},
    "power": {"mode": "15W", "rails_w": {"VDD_IN": 11.4, "VDD_SOC": 2.0}, "total_w": 11.4},
    "throttle": {"now": ["oc1"], "overcurrent": {"oc1": 3}, "hot_events": 2},
}
SPOOL = {
    "taken": 90,
    "memory_messages": 7,
    "memory_bytes": 700,
    "disk_messages": 50,
    "disk_bytes": 5000,
    "dropped": {"memory": 1, "age": 2},
    "written": 60,
    "disk": "ok",
}
MODEL = {
    "name": "n", "digest": "sha256:9f", "backend": "tensorrt", "precision": "int8", "reason": "",
    "waiting": 4, "waiting_s": 0.25, "busy_s": 0.5, "build": {"state": "building"},
    "update": {"state": "CANARY", "version": "2"},
}  # fmt: skip

WANTED = {
    "vigia_info": "gauge",
    "vigia_start_time_seconds": "gauge",
    "vigia_camera_state": "gauge",
    "vigia_camera_fps": "gauge",
    "vigia_frames": "counter",
    "vigia_objects": "counter",
    "vigia_frames_dropped": "counter",
    "vigia_stage_seconds": "histogram",
    "vigia_model_info": "gauge",
    "vigia_model_flagged": "gauge",
    "vigia_queue_frames": "gauge",
    "vigia_queue_age_seconds": "gauge",
    "vigia_worker_busy_seconds": "gauge",
    "vigia_engine_build_state": "gauge",
    "vigia_update_state": "gauge",
    "vigia_spool_messages": "gauge",
    "vigia_spool_bytes": "gauge",
    "vigia_spool_dropped": "counter",
    "vigia_spool_taken": "counter",
    "vigia_temperature_celsius": "gauge",
    "vigia_power_watts": "gauge",
    "vigia_power_rail_watts": "gauge",
    "vigia_throttled": "gauge",
    "vigia_overcurrent": "counter",
    "vigia_hot_events": "counter",
    "vigia_host_cpu_percent": "gauge",
    "vigia_host_process_rss_bytes": "gauge",
    "vigia_broker_connected": "gauge",
    "vigia_broker_connects": "counter",
    "vigia_publisher_published": "counter",
    "vigia_publisher_outbox_messages": "gauge",
    "vigia_governor_level": "gauge",
    "vigia_events": "counter",
    "vigia_http_live_views": "gauge",
}


@pytest.fixture
def told():
    """Families by name, of an agent that has everything."""
    stats, now = PipelineStats(["dock"]), [0.0]
    history = History(stats.counted, clock=lambda: now[0])
    for ms in (3.0, 30.0, 300.0):
        stats.result("dock", StageTimes(1.0, 2.0, ms, 1.0, ms + 4.0), 2)
    stats.drop("dock", "superseded", 5)
    now[0] = 2.0
    history.look()
    sources = Sources(
        identity=lambda: {"device": "edge-7", "boot": "b", "version": "1", "started": 5.0},
        cameras=lambda: {"dock": {"state": "online"}},
        stats=stats.counted,
        models=lambda: {"main": MODEL},
        host=lambda: HOST,
        broker=lambda: {"connected": True, "connects": 1},
        publisher=lambda: {"published": 3, "outbox_messages": 0},
        spool=lambda: SPOOL,
        governor=lambda: {"enabled": True, "level": 1, "fps_limits": {"dock": 12.0}},
        event_counts=lambda: {"camera": 4},
    )
    text = Metrics(sources, history, {"live_views": 0}).text().decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(told, family, name=None, **labels):
    samples = [s.value for s in told[family].samples
               if s.labels == labels and s.name == (name or s.name)]  # fmt: skip
    assert len(samples) == 1, told[family].samples
    return samples[0]


def test_everything_has_its_name_and_type(told):
    assert {name: told[name].type for name in WANTED if name in told} == WANTED


def test_every_family_says_what_it_is_and_is_told_once(told):
    assert [name for name, family in told.items() if not family.documentation] == []


def test_stage_times_are_histograms_in_seconds(told):
    buckets = {
        s.labels["le"]: s.value
        for s in told["vigia_stage_seconds"].samples
        if s.name.endswith("_bucket") and s.labels["stage"] == "infer"
    }
    assert buckets["0.01"] == 1
    assert buckets["0.1"] == 2
    assert buckets["0.5"] == buckets["+Inf"] == 3
    assert list(buckets.values()) == sorted(buckets.values())
    total = value(told, "vigia_stage_seconds", "vigia_stage_seconds_sum",
                  camera="dock", stage="infer")  # fmt: skip
    assert total == pytest.approx(0.333)
    stages = {s.labels["stage"] for s in told["vigia_stage_seconds"].samples}
    assert stages == {"queue", "pre", "infer", "post", "total"}


def test_frames_drops_and_rates_are_told_by_camera(told):
    assert value(told, "vigia_frames", camera="dock") == 3
    assert value(told, "vigia_frames_dropped", camera="dock", cause="superseded") == 5
    assert value(told, "vigia_camera_fps", camera="dock") == 1.5


def test_queues_engines_and_updates_are_told_by_slot(told):
    assert value(told, "vigia_queue_frames", slot="main") == 4
    assert value(told, "vigia_queue_age_seconds", slot="main") == 0.25
    assert value(told, "vigia_worker_busy_seconds", slot="main") == 0.5
    assert value(told, "vigia_engine_build_state", slot="main", state="building") == 1
    assert value(told, "vigia_update_state", slot="main", state="CANARY") == 1
    assert value(told, "vigia_update_state", slot="main", state="COMMITTED") == 0


def test_spool_heat_and_power_have_labels_and_units(told):
    assert value(told, "vigia_spool_messages", place="disk") == 50
    assert value(told, "vigia_spool_bytes", place="memory") == 700
    assert value(told, "vigia_spool_dropped", cause="age") == 2
    assert value(told, "vigia_temperature_celsius", zone="gpu") == 58.5
    assert value(told, "vigia_temperature_celsius", zone="max") == 58.5
    assert value(told, "vigia_power_watts") == 11.4
    assert value(told, "vigia_power_rail_watts", rail="VDD_SOC") == 2.0
    assert value(told, "vigia_throttled") == 1
    assert "vigia_host_thermal" not in told


def test_a_part_that_does_not_exist_is_not_told():
    sources = Sources(
        identity=lambda: {"device": "d"}, cameras=dict, stats=dict, models=dict
    )  # fmt: skip
    text = Metrics(sources, History(dict), {}).text().decode()
    assert "vigia_info" in text
    assert "vigia_spool" not in text
    assert "vigia_power_watts" not in text


def test_numbers_of_a_part_are_bounded_and_texts_left_out():
    many = {"state": "fine", "counts": {f"c{i}": i for i in range(MAX_NUMBERS + 50)}}
    (family,) = numbers("part", many, ("counts",))
    assert family.type == "counter"
    assert len(family.samples) == MAX_NUMBERS
