"""Machine facts, read from folders of files copied from real boards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtimes import host

PI_CPU = """\
processor\t: {n}
model name\t: ARMv7 Processor rev 4 (v7l)
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU part\t: 0xd03
"""
X86_CPU = """\
processor\t: {n}
vendor_id\t: GenuineIntel
model name\t: Intel(R) Core(TM) i7-7700K CPU @ 4.20GHz
cpu MHz\t\t: {mhz}
physical id\t: 0
core id\t\t: {core}
flags\t\t: fpu sse4_1 avx avx2 fma f16c {more}
"""


def write(root: Path, files: dict) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def write_program(root: Path, name: str, script: str) -> None:
    path = write(root, {f"usr/bin/{name}": f"#!/bin/sh\n{script}\n"}) / "usr/bin" / name
    path.chmod(0o755)


@pytest.fixture
def pi(tmp_path: Path) -> Path:
    """A Raspberry Pi 3B+ as its files show it."""
    cpu = "sys/devices/system/cpu"
    files = {
        "proc/cpuinfo": "\n".join(PI_CPU.format(n=n) for n in range(4))
        + "\nModel\t: Raspberry Pi 3 Model B Plus Rev 1.3\n",
        "proc/meminfo": "MemTotal:  945512 kB\nMemAvailable:  612000 kB\nSwapTotal:  102396 kB\nSwapFree:  102396 kB\n",
        "proc/device-tree/model": "Raspberry Pi 3 Model B Plus Rev 1.3\0",
        "etc/os-release": 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "sys/class/thermal/thermal_zone0/temp": "61224\n",
    }
    for n in range(4):
        files[f"{cpu}/cpu{n}/cpufreq/scaling_governor"] = "ondemand\n"
        files[f"{cpu}/cpu{n}/cpufreq/cpuinfo_max_freq"] = "1400000\n"
        files[f"{cpu}/cpu{n}/cpufreq/scaling_cur_freq"] = "600000\n" if n else "1400000\n"
        files[f"{cpu}/cpu{n}/topology/thread_siblings_list"] = f"{n}\n"
    return write(tmp_path, files)


def test_a_raspberry_pi_is_described(pi: Path) -> None:
    facts = host.facts(pi)
    assert facts["cpu"]["model"] == "Cortex-A53"
    assert (facts["cpu"]["logical_cores"], facts["cpu"]["physical_cores"]) == (4, 4)
    assert facts["cpu"]["max_mhz"] == 1400.0
    assert facts["cpu"]["features"] == ["asimd"]
    assert facts["cpu"]["int8_dot_product"] is False
    assert facts["cpu"]["int8_saturates"] is False  # ARM's kernels add in 32 bits, with the instruction or without
    assert facts["memory"]["total_bytes"] == 945512 * 1024
    assert facts["memory"]["available_bytes"] == 612000 * 1024
    assert facts["memory"]["swap_total_bytes"] == 102396 * 1024
    assert facts["board"] == {"model": "Raspberry Pi 3 Model B Plus Rev 1.3", "jetson_l4t": None}
    assert facts["os"]["name"] == "Debian GNU/Linux 12 (bookworm)"
    json.dumps(facts)


def test_a_raspberry_pis_conditions(pi: Path) -> None:
    conditions = host.conditions(pi)
    assert conditions["governor"] == "ondemand"
    assert conditions["temperature_c"] == pytest.approx(61.224)
    assert conditions["temperature_sensor"] == "cpu-thermal"
    assert conditions["mhz"] == 1400.0
    assert conditions["throttling"] is None


def test_vcgencmds_flags_are_decoded(pi: Path) -> None:
    write_program(pi, "vcgencmd", '[ "$1" = get_throttled ] && echo throttled=0xd0005')
    assert host.conditions(pi)["throttling"] == {
        "source": "vcgencmd",
        "now": ["under-voltage", "throttled"],
        "since_boot": ["under-voltage", "throttled", "soft temperature limit"],
        "events": None,
    }


def test_a_healthy_pi_raises_no_flag(pi: Path) -> None:
    write_program(pi, "vcgencmd", "echo throttled=0x0")
    throttling = host.conditions(pi)["throttling"]
    assert (throttling["now"], throttling["since_boot"]) == ([], [])


@pytest.mark.parametrize("script", ["exit 1", "echo VCHI initialization failed"])
def test_a_vcgencmd_that_fails_tells_nothing(pi: Path, script: str) -> None:
    write_program(pi, "vcgencmd", script)
    assert host.conditions(pi)["throttling"] is None


def test_a_jetson_is_known_by_its_release_file(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "sys/firmware/devicetree/base/model": "NVIDIA Jetson Nano Developer Kit\0",
            "etc/nv_tegra_release": "# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref, EABI: aarch64\n",
            "proc/cpuinfo": PI_CPU.format(n=0).replace("0xd03", "0xd07"),
        },
    )
    assert host.facts(root)["board"] == {"model": "NVIDIA Jetson Nano Developer Kit", "jetson_l4t": "32.7.1"}
    assert host.facts(root)["cpu"]["model"] == "Cortex-A57"


def test_cores_of_two_kinds_are_both_named(tmp_path: Path) -> None:
    small, big = PI_CPU.format(n=0).replace("0xd03", "0xd05"), PI_CPU.format(n=1).replace("0xd03", "0xd0b")
    root = write(tmp_path, {"proc/cpuinfo": f"{small}\n{big}"})
    assert host.facts(root)["cpu"]["model"] == "Cortex-A55 + Cortex-A76"


def test_an_unknown_arm_core_is_named_by_its_numbers(tmp_path: Path) -> None:
    root = write(tmp_path, {"proc/cpuinfo": PI_CPU.format(n=0).replace("0xd03", "0xfff")})
    assert host.facts(root)["cpu"]["model"] == "ARM part 0xfff"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("", False), ("avx512f", False), ("avx512f avx512_vnni", True), ("avx_vnni", True)],
)
def test_vnni_is_what_makes_int8_right_on_x86(tmp_path: Path, flags: str, expected: bool) -> None:
    root = write(tmp_path, {"proc/cpuinfo": X86_CPU.format(n=0, core=0, mhz=4200.0, more=flags)})
    assert host.has_int8_dot_product(root) is expected
    assert host.int8_saturates(root) is not expected
    assert host.cpu_features(root) == {"sse4_1", "avx", "avx2", "fma", "f16c", *flags.split()}


@pytest.mark.parametrize(("name", "expected"), [("AMD64", True), ("x86_64", True), ("aarch64", False)])
def test_where_no_features_are_told_the_processors_name_decides(tmp_path, monkeypatch, name, expected):
    monkeypatch.setattr("platform.machine", lambda: name)
    monkeypatch.setattr("runtimes.host.darwin.sysctl", lambda _name: None)
    assert host.int8_saturates(tmp_path) is expected


def test_dotprod_is_found_on_arm(tmp_path: Path) -> None:
    text = PI_CPU.format(n=0).replace("cpuid", "fphp asimdhp asimddp")
    root = write(tmp_path, {"proc/cpuinfo": text})
    assert host.cpu_features(root) == {"asimd", "fphp", "asimdhp", "asimddp"}
    assert host.has_int8_dot_product(root) is True


def test_a_feature_of_only_some_cores_does_not_count(tmp_path: Path) -> None:
    cpus = X86_CPU.format(n=0, core=0, mhz=1, more="avx_vnni") + "\n" + X86_CPU.format(n=1, core=1, mhz=1, more="")
    assert "avx_vnni" not in host.cpu_features(write(tmp_path, {"proc/cpuinfo": cpus}))


def test_hyper_threads_are_not_physical_cores(tmp_path: Path) -> None:
    cpus = "\n".join(X86_CPU.format(n=n, core=n % 4, mhz=4200.0, more="") for n in range(8))
    root = write(tmp_path, {"proc/cpuinfo": cpus})
    assert host.physical_cores(root) == 4
    for n in range(8):
        write(root, {f"sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list": f"{n % 4},{n % 4 + 4}"})
    assert host.physical_cores(root) == 4


def test_the_fastest_cores_clock_is_read_from_cpuinfo_without_cpufreq(tmp_path: Path) -> None:
    cpus = X86_CPU.format(n=0, core=0, mhz=800.012, more="") + "\n" + X86_CPU.format(n=1, core=1, mhz=4199.5, more="")
    root = write(tmp_path, {"proc/cpuinfo": cpus})
    assert host.conditions(root)["mhz"] == 4199.5
    assert host.facts(root)["cpu"]["max_mhz"] is None


def test_governors_that_differ_are_all_named(pi: Path) -> None:
    write(pi, {"sys/devices/system/cpu/cpu3/cpufreq/scaling_governor": "performance\n"})
    assert host.conditions(pi)["governor"] == "ondemand, performance"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1),
        ({"sys/fs/cgroup/cpu.max": "20000 100000\n"}, 1),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 1),
    ],
)
def test_a_containers_quota_limits_the_usable_cores(pi: Path, files: dict, expected: int) -> None:
    assert host.usable_cores(write(pi, files)) == expected


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"sys/fs/cgroup/cpu.max": "max 100000\n"},
        {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
    ],
)
def test_without_a_quota_the_affinity_mask_decides(pi: Path, files: dict) -> None:
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4
    assert host.usable_cores(write(pi, files)) == min(4, affinity)


def test_the_hottest_plausible_sensor_wins(tmp_path: Path) -> None:
    zones = {"acpitz": "27800", "x86_pkg_temp": "71000", "off": "-274000", "iwlwifi": "no number", "broken": "255000"}
    for number, (kind, value) in enumerate(zones.items()):
        folder = f"sys/class/thermal/thermal_zone{number}"
        write(tmp_path, {f"{folder}/type": kind, f"{folder}/temp": value})
    conditions = host.conditions(tmp_path)
    assert (conditions["temperature_c"], conditions["temperature_sensor"]) == (71.0, "x86_pkg_temp")


def test_cpu_sensors_stand_in_where_there_are_no_thermal_zones(tmp_path: Path) -> None:
    chips = {
        "hwmon0/name": "nvme",
        "hwmon0/temp1_input": "80000",
        "hwmon1/name": "k10temp",
        "hwmon1/temp1_input": "45500",
    }
    root = write(tmp_path, {f"sys/class/hwmon/{name}": text for name, text in chips.items()})
    assert host.conditions(root)["temperature_c"] == 45.5


def test_a_packages_throttle_count_is_counted_once(tmp_path: Path) -> None:
    for cpu, package, cores in ((0, 0, 2), (1, 0, 3), (2, 1, 0)):
        folder = f"sys/devices/system/cpu/cpu{cpu}"
        write(
            tmp_path,
            {
                f"{folder}/topology/physical_package_id": str(package),
                f"{folder}/thermal_throttle/core_throttle_count": str(cores),
                f"{folder}/thermal_throttle/package_throttle_count": "10" if package == 0 else "7",
            },
        )
    throttling = host.conditions(tmp_path)["throttling"]
    assert (throttling["source"], throttling["events"]) == ("thermal_throttle", 5 + 10 + 7)


def test_a_virtual_machine_and_a_container_are_recognized(tmp_path: Path) -> None:
    assert host.facts(tmp_path)["os"]["virtual_machine"] is False
    assert host.facts(tmp_path)["os"]["container"] is None
    write(tmp_path, {"proc/cpuinfo": X86_CPU.format(n=0, core=0, mhz=1, more="hypervisor"), "run/.containerenv": ""})
    assert host.facts(tmp_path)["os"]["virtual_machine"] is True
    assert host.facts(tmp_path)["os"]["container"] == "podman"


def test_a_containers_memory_limit_is_reported(pi: Path) -> None:
    assert host.facts(pi)["memory"]["limit_bytes"] is None
    write(pi, {"sys/fs/cgroup/memory.max": "268435456\n"})
    assert host.facts(pi)["memory"]["limit_bytes"] == 268435456


def test_an_empty_machine_is_no_error(tmp_path: Path) -> None:
    facts = host.facts(tmp_path)
    assert facts["memory"]["total_bytes"] is None
    assert facts["cpu"]["logical_cores"] >= 1
    assert facts["accelerators"] == {"usb": [], "pci": [], "nodes": [], "nvidia_gpus": []}
    json.dumps([facts, host.conditions(tmp_path)])


def test_this_machine_is_described() -> None:
    facts, conditions = host.facts(), host.conditions()
    assert 1 <= facts["cpu"]["usable_cores"] <= facts["cpu"]["logical_cores"]
    assert 1 <= facts["cpu"]["physical_cores"] <= facts["cpu"]["logical_cores"]
    assert facts["cpu"]["usable_cores"] == host.usable_cores()
    json.dumps([facts, conditions])


def run_python(code: str) -> list:
    """The whole numbers that the code prints, run in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=True, capture_output=True)
    return [int(word) for word in done.stdout.split()]


@pytest.mark.skipif(sys.platform != "linux", reason="VmHWM is Linux' own")
def test_peak_memory_is_this_processs_own_not_its_parents() -> None:
    ballast = bytearray(b"x") * 150_000_000
    (child,) = run_python("from runtimes import host; print(host.peak_rss_bytes())")
    parent = host.peak_rss_bytes()
    assert parent is not None
    assert child < 100_000_000 < len(ballast) < parent


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell")
def test_peak_memory_remembers_what_was_given_back() -> None:
    first, second = run_python(
        "from runtimes import host\n"
        "print(host.peak_rss_bytes())\n"
        "ballast = bytearray(b'x') * 80_000_000\n"
        "del ballast\n"
        "print(host.peak_rss_bytes())"
    )
    assert 70_000_000 < second - first < 90_000_000


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"hw.optional.arm.FEAT_DotProd": "1", "hw.optional.arm.AdvSIMD": "1", "hw.optional.arm.FEAT_I8MM": "0"}, True),
        ({"machdep.cpu.features": "SSE4.1 FMA AVX1.0 F16C", "machdep.cpu.leaf7_features": "AVX2 BMI2"}, False),
    ],
)
def test_macos_is_asked_through_sysctl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: dict, expected: bool
) -> None:
    machine = {"machdep.cpu.brand_string": "Apple M2", "hw.physicalcpu": "8", "hw.memsize": "17179869184"}
    monkeypatch.setattr("runtimes.host.darwin.sysctl", {**machine, **answers}.get)
    facts = host.facts(tmp_path)
    assert (facts["cpu"]["model"], facts["cpu"]["physical_cores"]) == ("Apple M2", 8)
    assert facts["memory"]["total_bytes"] == 16 * 2**30
    assert facts["cpu"]["int8_dot_product"] is expected
