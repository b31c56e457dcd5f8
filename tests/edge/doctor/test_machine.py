"""Processor, memory and disk: each check reports its problem, and nothing without it."""

from __future__ import annotations

import pytest

from edge.doctor import cpu, disk

GOVERNOR = "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
OLD_X86 = {"proc/cpuinfo": "processor\t: 0\nmodel name\t: Old\nflags\t\t: sse4_1 avx2\n"}
CORTEX_A53 = {"proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd03\n"}
UNKNOWN_CPU = {"proc/cpuinfo": "processor\t: 0\n"}


@pytest.mark.parametrize(
    ("files", "level", "words"),
    [({}, "ok", "has an int8 dot product"), (OLD_X86, "note", "saturate in 16 bits"), (CORTEX_A53, "note", "asimddp")],
)
def test_int8_is_judged_by_the_processors_features(snapshot, files, level, words):
    (found,) = cpu.int8(snapshot(files))
    assert found.level == level
    assert words in found.what


def test_an_unknown_processors_int8_is_not_judged(snapshot):
    assert list(cpu.int8(snapshot(UNKNOWN_CPU))) == []


def test_a_saving_governor_is_reported_with_its_command(snapshot):
    (found,) = cpu.governor(snapshot({GOVERNOR: "powersave\n"}))
    assert (found.level, "'powersave'" in found.what) == ("warning", True)
    assert found.fix == "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"


def test_a_jetson_has_a_command_of_its_own(snapshot):
    files = {GOVERNOR: "schedutil\n", "etc/nv_tegra_release": "# R32 (release), REVISION: 7.1, GCID: 1"}
    (found,) = cpu.governor(snapshot(files))
    assert found.fix == "sudo nvpmodel -m 0 && sudo jetson_clocks"


def test_the_performance_governor_is_fine_and_no_governor_is_no_finding(snapshot):
    assert list(cpu.governor(snapshot())) == []
    assert [one.level for one in cpu.governor(snapshot({GOVERNOR: "performance\n"}))] == ["ok"]


@pytest.mark.parametrize(
    ("load", "cores", "levels"), [(0.4, 1, []), (0.5, 1, ["warning"]), (1.9, 4, []), (None, 1, [])]
)
def test_a_busy_machine_is_reported(snapshot, load, cores, levels):
    busy = snapshot(conditions={"load_average": load}, cpu={"usable_cores": cores})
    assert [one.level for one in cpu.load(busy)] == levels


def test_cores_that_are_kept_from_us_are_reported(snapshot):
    assert list(cpu.share(snapshot())) == []
    (found,) = cpu.share(snapshot(cpu={"logical_cores": 16, "usable_cores": 2}))
    assert (found.what, found.fix) == ("this process may use 2 of 16 cores", "set the number of threads: --threads 2")


@pytest.mark.parametrize(("celsius", "levels"), [(None, []), (45.0, ["ok"]), (84.9, ["warning"])])
def test_heat_is_reported(snapshot, celsius, levels):
    conditions = {"temperature_c": celsius, "temperature_sensor": "cpu-thermal"}
    assert [one.level for one in cpu.heat(snapshot(conditions=conditions))] == levels


def pi_signs(now, since_boot):
    return {"throttling": {"source": "vcgencmd", "now": now, "since_boot": since_boot, "events": None}}


def test_under_voltage_now_is_an_error_that_names_the_power_supply(snapshot):
    signs = pi_signs(["under-voltage", "throttled"], ["under-voltage", "throttled"])
    (found,) = cpu.throttling(snapshot(conditions=signs))
    assert (found.level, found.what) == ("error", "the board reports now: under-voltage, throttled")
    assert "power supply" in found.fix


def test_throttling_in_the_past_is_a_warning_that_names_the_fan(snapshot):
    (found,) = cpu.throttling(snapshot(conditions=pi_signs([], ["soft temperature limit"])))
    assert (found.level, "fan" in found.fix) == ("warning", True)


def test_a_pi_that_never_throttled_is_fine(snapshot):
    assert [one.level for one in cpu.throttling(snapshot(conditions=pi_signs([], [])))] == ["ok"]


@pytest.mark.parametrize(("events", "level"), [("0", "ok"), ("12", "note")])
def test_throttle_events_of_a_pc_are_reported(snapshot, events, level):
    folder = "sys/devices/system/cpu/cpu0/thermal_throttle"
    (found,) = cpu.throttling(snapshot({f"{folder}/core_throttle_count": events}))
    assert found.level == level


def test_a_machine_that_does_not_tell_is_no_finding(snapshot):
    assert list(cpu.throttling(snapshot())) == []


def meminfo(total_kb, available_kb, swap_kb):
    text = f"MemTotal: {total_kb} kB\nMemAvailable: {available_kb} kB\nSwapTotal: {swap_kb} kB\n"
    return {"proc/meminfo": text}


def test_a_small_board_needs_swap(snapshot):
    (found,) = disk.swap(snapshot(meminfo(945512, 612000, 0)))
    assert (found.what, "mkswap" in found.fix) == ("0.9 GiB of memory and no swap", True)
    assert list(disk.swap(snapshot(meminfo(945512, 612000, 102396)))) == []
    assert list(disk.swap(snapshot(meminfo(8000000, 612000, 0)))) == []


def test_low_memory_is_reported(snapshot):
    (found,) = disk.available_memory(snapshot(meminfo(945512, 100000, 0)))
    assert (found.level, found.what) == ("warning", "only 97 MiB of memory are available")
    assert [one.level for one in disk.available_memory(snapshot())] == ["ok"]


def test_memory_that_cannot_be_read_is_no_finding(snapshot):
    unknown = snapshot({"proc/meminfo": ""})
    assert [*disk.swap(unknown), *disk.available_memory(unknown), *disk.container_limit(unknown)] == []


def test_a_containers_memory_limit_is_reported(snapshot):
    assert list(disk.container_limit(snapshot())) == []
    (found,) = disk.container_limit(snapshot({"sys/fs/cgroup/memory.max": str(2**30)}))
    assert found.what == "this container may use 1.0 of 15.3 GiB"


@pytest.mark.parametrize(("free", "levels"), [(None, []), (50 * 2**30, ["ok"]), (2**29, ["warning"])])
def test_a_full_disk_is_reported(snapshot, free, levels):
    found = list(disk.disk(snapshot(free_bytes=lambda folder: free)))
    assert [one.level for one in found] == levels
    assert all("/nowhere/edge" in one.what for one in found)
