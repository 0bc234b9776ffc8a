"""A folder like the /proc, /sys, /etc and /var of a Jetson Orin Nano with JetPack 6.2.

Written by hand: names and forms of the files are those of the board (NVIDIA's developer guide for
r36.4, the kernel's documentation of sysfs and procfs), values are plausible ones.
"""

from __future__ import annotations

from pathlib import Path

NVPMODEL = """\
< PARAM TYPE=FILE NAME=CPU_ONLINE >
CORE_1 /sys/devices/system/cpu/cpu1/online
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_1 1
< POWER_MODEL ID=1 NAME=25W >
CPU_ONLINE CORE_1 1
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
CPU_ONLINE CORE_1 1
< PM_CONFIG DEFAULT=1 >
"""

CPU = """\
processor\t: 0
BogoMIPS\t: 62.50
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc \
dcpop asimddp uscat ilrcpc flagm paca pacg
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd42
CPU revision\t: 1
"""

MEMORY = """\
MemTotal:        7802824 kB
MemFree:          412344 kB
MemAvailable:    4021036 kB
SwapTotal:       3901408 kB
SwapFree:        3901408 kB
"""

GPU = "sys/class/devfreq/17000000.gpu"
THERMAL = "sys/class/thermal"
OVERCURRENT = "sys/class/hwmon/hwmon3"
POWER = "sys/class/hwmon/hwmon1"
"""An INA3221: three channels in millivolts and milliamperes, then sums without a voltage."""

FILES = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit\0",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, "
    "EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025\n",
    "etc/nvpmodel.conf": NVPMODEL,
    "var/lib/nvpmodel/status": "pmode:0002 fmode:cool\n",
    "proc/cpuinfo": CPU,
    "proc/meminfo": MEMORY,
    "proc/loadavg": "0.42 0.51 0.48 1/512 4242\n",
    "proc/pressure/cpu": "some avg10=0.50 avg60=0.40 avg300=0.30 total=12345\n"
    "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    "proc/pressure/memory": "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
    "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    "proc/self/cgroup": "0::/system.slice/vigia-agent.service\n",
    "sys/fs/cgroup/system.slice/vigia-agent.service/cpu.max": "max 100000\n",
    "sys/devices/system/cpu/online": "0-5\n",
    "sys/devices/system/cpu/present": "0-5\n",
    **{
        f"sys/devices/system/cpu/cpufreq/policy{n}/{name}": f"{value}\n"
        for n in (0, 4)
        for name, value in {
            "scaling_governor": "schedutil",
            "scaling_driver": "tegra194",
            "scaling_cur_freq": 729600,
            "scaling_min_freq": 729600,
            "scaling_max_freq": 1728000,
            "cpuinfo_max_freq": 1728000,
        }.items()
    },
    f"{GPU}/governor": "nvhost_podgov\n",
    f"{GPU}/cur_freq": "1020000000\n",
    f"{GPU}/min_freq": "1020000000\n",
    f"{GPU}/max_freq": "1020000000\n",
    f"{GPU}/available_frequencies": "306000000 408000000 510000000 612000000 714000000 816000000 "
    "918000000 1020000000\n",
    f"{GPU}/device/load": "734\n",
    f"{POWER}/name": "ina3221\n",
    f"{POWER}/in1_label": "VDD_IN\n",
    f"{POWER}/in1_input": "4968\n",
    f"{POWER}/curr1_input": "1680\n",
    f"{POWER}/in2_label": "VDD_CPU_GPU_CV\n",
    f"{POWER}/in2_input": "4960\n",
    f"{POWER}/curr2_input": "712\n",
    f"{POWER}/in3_label": "VDD_SOC\n",
    f"{POWER}/in3_input": "4968\n",
    f"{POWER}/curr3_input": "456\n",
    f"{POWER}/in7_label": "sum of shunt voltages\n",
    f"{POWER}/in7_input": "3\n",
    f"{POWER}/curr4_input": "2848\n",
    "sys/class/devfreq/15340000.vic/cur_freq": "115200000\n",
    f"{THERMAL}/thermal_zone0/type": "cpu-thermal\n",
    f"{THERMAL}/thermal_zone0/temp": "52875\n",
    f"{THERMAL}/thermal_zone0/trip_point_0_type": "critical\n",
    f"{THERMAL}/thermal_zone0/trip_point_0_temp": "104500\n",
    f"{THERMAL}/thermal_zone0/trip_point_1_type": "passive\n",
    f"{THERMAL}/thermal_zone0/trip_point_1_temp": "99000\n",
    f"{THERMAL}/thermal_zone1/type": "gpu-thermal\n",
    f"{THERMAL}/thermal_zone1/temp": "51281\n",
    f"{THERMAL}/thermal_zone2/type": "cv0-thermal\n",
    f"{THERMAL}/thermal_zone2/temp": "-256000\n",
    f"{THERMAL}/cooling_device0/type": "pwm-fan\n",
    f"{THERMAL}/cooling_device0/cur_state": "2\n",
    f"{THERMAL}/cooling_device1/type": "gpu-throttle-alert\n",
    f"{THERMAL}/cooling_device1/cur_state": "0\n",
    f"{THERMAL}/cooling_device2/type": "cpufreq-cpu0\n",
    f"{THERMAL}/cooling_device2/cur_state": "0\n",
    f"{OVERCURRENT}/name": "soctherm_oc\n",
    f"{OVERCURRENT}/oc1_event_cnt": "0\n",
    f"{OVERCURRENT}/oc2_event_cnt": "0\n",
    f"{OVERCURRENT}/oc3_event_cnt": "0\n",
}


def write(root: Path, **changes: str | None) -> Path:
    """Write the tree below `root`, as it is when all is well."""
    return write_files(root, {**FILES, **changes})


def write_files(root: Path, files: dict[str, str | None]) -> Path:
    """Write files below `root`; None leaves one out."""
    for name, text in files.items():
        if text is not None:
            place = root / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
    return root
