"""Reading of a machine's files, and what the doctor says of them."""

from pathlib import Path

import pytest

from agent import doctor_speed
from agent.doctor_host import Clock, Host, HostFiles, Zone
from tests.fakes.jetson import FILES, GPU, OVERCURRENT, THERMAL, write_files

CHECKS = (
    lambda host: doctor_speed.check_threads(host, 6),
    doctor_speed.check_power,
    doctor_speed.check_clocks,
    doctor_speed.check_heat,
    doctor_speed.check_load,
    doctor_speed.check_memory,
)


def jetson(root: Path, changes: dict[str, str | None] | None = None) -> Host:
    return HostFiles(write_files(root, {**FILES, **(changes or {})})).read()


def problems(host: Host) -> dict[str, str]:
    found = [finding for check in CHECKS for finding in check(host)]
    return {f.name: f"{f.status}: {f.what}; {f.fix}" for f in found if f.status != "ok"}


def test_a_jetson_is_read(tmp_path):
    host = jetson(tmp_path)
    assert host.jetson
    assert host.board == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit"
    assert host.l4t == "36.4.3"
    assert (host.power_mode, list(host.power_modes)) == ("MAXN_SUPER", ["15W", "25W", "MAXN_SUPER"])
    assert {"asimddp", "asimdhp"} <= host.features
    assert (host.cores, host.possible_cores, host.quota) == (6, 6, None)
    assert [clock.name for clock in host.clocks] == ["cpu0", "cpu4", "gpu"]
    assert host.clocks[0] == Clock("cpu0", "schedutil", "tegra194", 729.6, 729.6, 1728, 1728)
    assert host.clocks[2].most == 1020
    # A sensor that is switched off is none.
    assert host.zones == (Zone("cpu-thermal", 52.875, 99.0), Zone("gpu-thermal", 51.281, None))
    assert host.capping == ()
    assert host.overcurrent == {"oc1": 0, "oc2": 0, "oc3": 0}
    assert host.load == 0.42
    assert host.cpu_pressure == pytest.approx(0.005)
    assert host.memory_total == 7802824 * 1024


def test_nothing_is_wrong_with_a_jetson_in_good_order(tmp_path):
    assert problems(jetson(tmp_path)) == {}


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        (
            {"var/lib/nvpmodel/status": "pmode:0000\n"},
            "speed.power",
            ["warn: power mode 15W of 15W, 25W, MAXN_SUPER", "nvpmodel -m 2 (MAXN_SUPER)"],
        ),
        (
            {f"{GPU}/min_freq": "306000000\n", f"{GPU}/cur_freq": "306000000\n"},
            "speed.clocks",
            ["moves between 306 and 1020 MHz (now 306)", "jetson_clocks"],
        ),
        (
            {f"{GPU}/max_freq": "612000000\n", f"{GPU}/min_freq": "612000000\n"},
            "speed.clocks",
            ["gpu may run at 612 MHz, the hardware at 1020", "nvpmodel"],
        ),
        (
            {f"{THERMAL}/cooling_device1/cur_state": "1\n"},
            "speed.heat",
            ["fail: it is slowed down at this moment: gpu-throttle-alert", "cooling"],
        ),
        (
            {f"{THERMAL}/thermal_zone0/temp": "95500\n"},
            "speed.heat",
            ["warn: cpu-thermal is at 96 degrees; from 99 on"],
        ),
        (
            {f"{THERMAL}/thermal_zone1/temp": "91000\n"},
            "speed.heat",
            ["warn: gpu-thermal is at 91 degrees; better cooling"],
        ),
        (
            {f"{OVERCURRENT}/oc3_event_cnt": "37\n"},
            "speed.supply",
            ["oc3 37 times", "stronger supply"],
        ),
        (
            {"sys/devices/system/cpu/online": "0-3\n"},
            "speed.threads",
            ["4 of 6 cores are switched on by power mode MAXN_SUPER"],
        ),
        (
            {"sys/fs/cgroup/system.slice/vigia-agent.service/cpu.max": "150000 100000\n"},
            "speed.threads",
            ["6 threads share 1.5 cores", "threads: 1"],
        ),
        ({"proc/loadavg": "5.80 3.0 2.0 7/512 4242\n"}, "speed.load", ["5.8 processes run on 6"]),
        (
            {"proc/pressure/cpu": "some avg10=34.00 avg60=9.00 avg300=3.00 total=1\n"},
            "speed.load",
            ["34% of the time somebody waits"],
        ),
        (
            {"proc/meminfo": "MemTotal: 8000000 kB\nMemAvailable: 300000 kB\n"},
            "speed.memory",
            ["fail: 292 of 7812 MB are free", "smaller model"],
        ),
        (
            {
                "proc/meminfo": "MemTotal: 8000000 kB\nMemAvailable: 4000000 kB\n"
                "SwapTotal: 4000000 kB\nSwapFree: 3000000 kB\n"
            },
            "speed.memory",
            ["warn: ", "976 MB are swapped out"],
        ),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(tmp_path, changes, name, words):
    found = problems(jetson(tmp_path, changes))
    assert name in found
    assert [word for word in words if word not in found[name]] == []


def test_the_quota_of_an_outer_control_group_counts(tmp_path):
    host = jetson(tmp_path, {"sys/fs/cgroup/system.slice/cpu.max": "200000 100000\n"})
    assert host.quota == 2.0


def test_control_groups_of_version_1_are_understood(tmp_path):
    base = "sys/fs/cgroup/cpu/docker/abc"
    host = jetson(
        tmp_path,
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n",
            f"{base}/cpu.cfs_quota_us": "50000\n",
            f"{base}/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
    )
    assert host.quota == 0.5


def test_a_limit_of_memory_is_the_memory_there_is(tmp_path):
    host = jetson(
        tmp_path,
        {
            "sys/fs/cgroup/memory.max": "1073741824\n",
            "sys/fs/cgroup/memory.current": "1000000000\n",
        },
    )
    assert host.memory_total == 2**30
    assert host.memory_available == 2**30 - 10**9


def test_powersave_is_a_fault_with_some_drivers_only(tmp_path):
    place = "sys/devices/system/cpu/cpufreq/policy0"
    saving = {f"{place}/scaling_governor": "powersave\n"}
    told = problems(jetson(tmp_path / "a", {**saving, f"{place}/scaling_driver": "acpi-cpufreq\n"}))
    assert "powersave keeps them at 730 of 1728 MHz" in told["speed.clocks"]
    told = problems(jetson(tmp_path / "b", {**saving, f"{place}/scaling_driver": "intel_pstate\n"}))
    assert told == {}


@pytest.mark.parametrize("text", ["", "garbage", "pmode:xyz", "\0\xff", "-", "1 2 3 4"])
def test_files_with_anything_in_them_are_survived(tmp_path, text):
    host = jetson(tmp_path, dict.fromkeys(FILES, text))
    assert [finding for check in CHECKS for finding in check(host)]


def test_a_machine_without_any_of_the_files_is_survived(tmp_path):
    host = HostFiles(tmp_path).read()
    assert not host.jetson
    assert problems(host) == {} or set(problems(host)) <= {"speed.threads"}


def test_this_machine_is_read():
    host = HostFiles().read()
    assert host.affinity >= 1
    assert host.memory_total > 2**20
    assert host.summary()["cores"] == host.affinity
