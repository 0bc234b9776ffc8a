"""What the doctor says of cores, clocks and measured times, beyond a Jetson's files."""

import pytest

from agent.doctor_host import Clock, Host, Zone
from agent.doctor_speed import (
    check_clocks,
    check_denormals,
    check_heat,
    check_memory,
    check_power,
    check_steadiness,
    check_threads,
)


def only(findings):
    (finding,) = findings
    return finding


@pytest.mark.parametrize(
    ("host", "threads", "status", "words"),
    [
        ({"affinity": 4}, 4, "ok", "4 of 4 cores are used"),
        ({"affinity": 4}, 3, "ok", "3 of 4 cores are used"),
        ({"affinity": 4}, 2, "warn", "2 of 4 cores are used by the engine"),
        ({"affinity": 1}, 1, "ok", "1 of 1 cores are used"),
        ({"affinity": 2}, 8, "warn", "8 threads share 2 cores"),
    ],
)
def test_threads_are_judged_by_cores(host, threads, status, words):
    found = only(check_threads(Host(cores=4, possible_cores=4, **host), threads))
    assert (found.status, words in found.what) == (status, True)


def test_a_machine_that_is_no_jetson_has_no_power_mode():
    assert list(check_power(Host())) == []


def test_a_machine_that_tells_nothing_is_not_accused():
    assert only(check_clocks(Host())).status == "ok"
    assert only(check_heat(Host())).status == "ok"
    assert only(check_memory(Host())).status == "ok"


def test_capped_clocks_of_alike_cores_are_one_finding():
    clocks = tuple(
        Clock(f"cpu{n}", "schedutil", "", now=800, low=400, high=1200, most=2400) for n in range(4)
    )
    found = only(check_clocks(Host(clocks=clocks)))
    assert found.what == "cpu0, cpu1, cpu2, cpu3 may run at 1200 MHz, the hardware at 2400"
    assert found.fix == "raise scaling_max_freq"


def test_a_processor_that_has_slowed_itself_down_is_told():
    zones = (Zone("x86_pkg_temp", 61.0, None),)
    found = only(check_heat(Host(hot_events=12, zones=zones)))
    assert (found.status, "12 times" in found.what) == ("warn", True)


@pytest.mark.parametrize(("p95", "status"), [(11.0, "ok"), (25.0, "warn")])
def test_uneven_times_are_told(p95, status):
    assert only(check_steadiness(10.0, p95)).status == status


@pytest.mark.parametrize(("black", "status"), [(10.5, "ok"), (4.0, "ok"), (30.0, "warn")])
def test_a_slow_black_picture_is_told(black, status):
    assert only(check_denormals(10.0, black)).status == status
