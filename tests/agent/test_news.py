from __future__ import annotations

from agent.capture.camera import CameraStatus
from agent.events import Events
from agent.news import News
from tests.fakes.frames import frame, result


def test_only_what_differs_is_told():
    told = []
    news = News(Events(told.append))
    ref = result(frame("a", 0)).model
    for attempts in (1, 2):
        news.camera("a", CameraStatus("connecting", "no route", 0.0, attempts))
    news.camera("a", CameraStatus("online", "", 0.0, 0))
    for _ in range(2):
        news.models({"main": ref})
        news.degraded(("it is bad",))
    news.models({"main": None})
    news.degraded(())
    assert [(e.kind, e.severity) for e in told] == [
        ("camera", "warning"),
        ("camera", "info"),
        ("model", "info"),
        ("agent", "warning"),
        ("model", "error"),
        ("agent", "info"),
    ]
    assert told[0].data == {"cam": "a", "state": "connecting", "attempts": 1}
