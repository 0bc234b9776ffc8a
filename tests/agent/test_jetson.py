from __future__ import annotations

import jsonschema
import pytest

from agent.device import HostProbe
from agent.jetson import MAX_RAILS, BoardFiles
from agent.wire.schema import TELEMETRY, schema
from tests.fakes import jetson

HOST = schema(TELEMETRY)["properties"]["host"]


def look(root, **changes):
    return BoardFiles(jetson.write(root, **changes)).look()


def test_an_orin_nano_tells_heat_power_and_load(tmp_path):
    told = look(tmp_path).as_dict()
    assert told["thermal"] == {"cpu-thermal": 52.88, "gpu-thermal": 51.28}
    assert told["temperature_max_c"] == 52.88
    assert told["power"]["mode"] == "MAXN_SUPER"
    assert told["power"]["rails_w"] == pytest.approx(
        {"VDD_IN": 8.346, "VDD_CPU_GPU_CV": 3.532, "VDD_SOC": 2.265}, abs=0.001
    )
    assert told["gpu"] == {"load_percent": 73.4, "mhz": 1020.0}
    assert told["throttle"] == {
        "now": [], "overcurrent": {"oc1": 0, "oc2": 0, "oc3": 0}, "hot_events": 0,
    }  # fmt: skip


def test_what_a_board_tells_fits_the_schema_of_telemetry(tmp_path):
    jsonschema.validate({**HostProbe().look(), **look(tmp_path).as_dict()}, HOST)


def test_what_this_machine_tells_fits_the_schema_of_telemetry():
    jsonschema.validate(HostProbe().look(), HOST)


def test_the_input_rail_is_the_power_of_the_board(tmp_path):
    assert look(tmp_path).total_w == pytest.approx(8.346, abs=0.001)


def test_without_an_input_rail_all_rails_together_are(tmp_path):
    """As on an AGX Orin, whose sensors stand beside each other; NC is not connected."""
    label = f"{jetson.POWER}/in1_label"
    readings = look(tmp_path, **{label: "VDD_GPU_SOC\n", f"{jetson.POWER}/in3_label": "NC\n"})
    assert sorted(readings.rails) == ["VDD_CPU_GPU_CV", "VDD_GPU_SOC"]
    assert readings.total_w == pytest.approx(8.346 + 3.532, abs=0.001)


def test_industrial_io_sensors_of_older_systems_are_read(tmp_path):
    folder = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    changes = {name: None for name in jetson.FILES if name.startswith(jetson.POWER)}
    changes |= {f"{folder}/rail_name_0": "POM_5V_IN\n", f"{folder}/in_power0_input": "2145\n"}
    assert look(tmp_path, **changes).total_w == pytest.approx(2.145)


def test_sensors_that_compute_the_power_themselves_are_read(tmp_path):
    changes = {name: None for name in jetson.FILES if name.startswith(jetson.POWER)}
    changes |= {f"{jetson.POWER}/name": "ina238\n", f"{jetson.POWER}/power1_input": "31500000\n"}
    assert look(tmp_path, **changes).total_w == pytest.approx(31.5)


def test_the_tightest_zone_is_the_one_nearest_to_slowing_down(tmp_path):
    zone, left = look(tmp_path).tightest(limit_c=60)
    assert zone.name == "cpu-thermal"
    assert left == pytest.approx(99 - 52.875), "a zone's own trip point counts, not the limit"


def test_without_trip_points_the_limit_counts(tmp_path):
    kind = f"{jetson.THERMAL}/thermal_zone0/trip_point_1_type"
    zone, left = look(tmp_path, **{kind: "active\n"}).tightest(limit_c=60)
    assert zone.name == "cpu-thermal"
    assert left == pytest.approx(60 - 52.875)


def test_zones_of_the_same_name_count_by_the_hottest(tmp_path):
    readings = look(tmp_path, **{f"{jetson.THERMAL}/thermal_zone1/type": "cpu-thermal\n"})
    assert [(z.name, z.celsius) for z in readings.zones] == [("cpu-thermal", 52.875)]


def test_slowing_down_is_seen_and_fans_are_not(tmp_path):
    alert = f"{jetson.THERMAL}/cooling_device1/cur_state"
    assert look(tmp_path, **{alert: "1\n"}).capping == ("gpu-throttle-alert",)


def test_a_machine_without_any_of_it_tells_so(tmp_path):
    readings = BoardFiles(tmp_path).look()
    assert readings.tightest(90) is None
    assert readings.total_w is None
    assert readings.as_dict() == {"throttle": {"now": [], "overcurrent": {}, "hot_events": 0}}


@pytest.mark.parametrize("rubbish", ["", "nan\n", "-\n", "9" * 400, "\0", "ü"])
def test_rubbish_in_the_files_is_left_out(tmp_path, rubbish):
    readings = look(tmp_path, **{name: rubbish for name in jetson.FILES if name.endswith("_input")})
    assert readings.rails == {}
    readings = look(tmp_path, **dict.fromkeys(jetson.FILES, rubbish))
    jsonschema.validate({**HostProbe().look(), **readings.as_dict()}, HOST)


def test_a_driver_gone_wild_does_not_fill_messages(tmp_path):
    changes = {}
    for number in range(100):
        folder = f"sys/class/hwmon/hwmon{number + 10}"
        changes |= {f"{folder}/name": "ina3221", f"{folder}/in1_label": f"R{number}"}
        changes |= {f"{folder}/in1_input": "5000", f"{folder}/curr1_input": "100"}
    assert len(look(tmp_path, **changes).rails) == MAX_RAILS
