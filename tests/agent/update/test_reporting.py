from __future__ import annotations

from agent.bundle.documents import REPORT, Report
from agent.bundle.dsse import key_of_pem, verify
from agent.bundle.softkeys import SoftKeys
from agent.update.reporting import Reporter
from agent.wire.topics import Topics
from tests.fakes.updates import drive, way


def test_slots_do_not_hide_each_others_reports(store):
    keys = SoftKeys.generate()
    retained = {}

    def send(topic, payload, told):
        retained[topic] = payload
        told()
        return True

    drive(store, "main", way(1))
    drive(store, "side", way(2, bundle=1))
    reporter = Reporter(
        store=store,
        keys=keys,
        send=send,
        topics=Topics("vigia/v1", "d1"),
        device="d1",
        boot="b",
        clock=lambda: 0.0,
    )
    reporter.send()
    reporter.send()
    key = key_of_pem(keys.sign_public_pem)
    found = {topic: verify(data, REPORT, Report, [key]) for topic, data in retained.items()}
    assert {topic: (r.slot, r.counter) for topic, r in found.items()} == {
        "vigia/v1/d1/update/report/main": ("main", 1),
        "vigia/v1/d1/update/report/side": ("side", 2),
    }
    assert store.reports() == ()
