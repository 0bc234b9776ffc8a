"""Points of the plots."""

from agent.detection import StageTimes
from agent.http.history import POINTS, History
from agent.pipeline.stats import PipelineStats

TIMES = StageTimes(1.0, 2.0, 3.0, 4.0, 10.0)


def test_a_point_tells_what_happened_since_the_one_before():
    stats, now = PipelineStats(["a"]), [0.0]
    history = History(stats.counted, clock=lambda: now[0], wall=lambda: 5.0)
    for _ in range(20):
        stats.result("a", TIMES)
    now[0] = 2.0
    history.look()
    now[0] = 4.0
    history.look()
    first, second = history.after(0)
    assert first["cameras"]["a"]["fps"] == 10.0
    assert 10.0 <= first["cameras"]["a"]["p95"] <= 10.5
    assert second["cameras"]["a"] == {"fps": 0.0}
    assert [p["n"] for p in history.after(1)] == [2]


def test_a_camera_that_came_back_counts_from_nothing_and_points_are_bounded():
    stats, now = PipelineStats(["a"]), [0.0]
    history = History(stats.counted, clock=lambda: now[0])
    stats.result("a", TIMES)
    now[0] = 1.0
    history.look()
    stats.remove("a")
    stats.add("a")
    now[0] = 2.0
    history.look()
    assert history.latest() == {}
    for step in range(POINTS + 5):
        now[0] = 3.0 + step
        history.look()
    assert len(history.after(0)) == POINTS


def test_buckets_of_prometheus_count_each_duration_once():
    stats = PipelineStats(["a"])
    stats.result("a", TIMES)
    total = stats.counted()["a"].stages["total"]
    assert total.at_most((5, 20, 1000)) == [0, 1, 1]
    assert total.sum_ms == 10.0
