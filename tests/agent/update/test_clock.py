"""A clock that stands at 1970, at 2106, or jumps: no update is lost by it, and no floor moves."""

import itertools

import pytest

from tests.fakes.tufrepository import DAY, NOW
from tests.fakes.updating import Controller, Site

Y1970 = 0.0
Y2106 = 4_294_967_295.0


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path, Controller(tmp_path / "controller"))
    yield made
    made.stop()


def begin(site, clock: float) -> None:
    site.clock = clock
    site.start()


def test_at_1970_what_signatures_have_proven_is_the_time(site):
    begin(site, Y1970)
    packed = site.controller.release(1)
    site.trust()
    site.assign(packed)
    assert site.wait_outcome(1).outcome == "COMMITTED"
    assert NOW - DAY <= site.store.trust.time_floor() <= NOW


def test_at_2106_nothing_new_is_taken_until_the_clock_is_right(site):
    begin(site, NOW)
    first = site.controller.release(1)
    site.trust()
    site.assign(first)
    site.wait_outcome(1)
    floor = site.store.trust.time_floor()
    site.clock = Y2106
    second = site.controller.release(2)
    site.trust()
    site.wait_refused("trust message")
    assert site.store.trust.time_floor() == floor
    assert site.proofs.serving == first.digest
    site.stop()
    # What was committed serves at 2106, too.
    site.start()
    assert site.proofs.serving == first.digest
    site.clock = NOW
    site.trust()
    site.assign(second)
    assert site.wait_outcome(2).outcome == "COMMITTED"


def test_a_clock_that_jumps_at_every_look_ends_no_update(site):
    begin(site, NOW)
    packed = site.controller.release(1)
    site.fetcher.hold.clear()
    site.trust()
    site.assign(packed)
    site.wait_state("FETCHING")
    times = itertools.cycle([Y1970, Y2106, NOW])

    class Jumping(Site):
        clock = property(lambda _: next(times), lambda _self, _value: None)

    site.__class__ = Jumping
    del site.__dict__["clock"]
    site.fetcher.hold.set()
    assert site.wait_outcome(1).outcome == "COMMITTED"
    assert site.store.floor("conveyor") == 1
    assert site.store.trust.time_floor() <= NOW
