"""The appearance of a board: files that are added to its root. The processor and /proc/cpuinfo are those of qemu.

Only what Linux and the makers' tools show in files is here. No face computes like its board, and none is as slow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

Files = Mapping[str, str | PurePosixPath]  # path → text, or where a link leads; a text that begins with #! is a program


@dataclass(frozen=True)
class Face:
    """A board as programs on it see it.

    cpu        the processor that qemu plays: its features, and its /proc/cpuinfo
    memory_kb  what /proc/meminfo says; nothing enforces it
    files      below the board's /
    absent     commands that the board does not have
    """

    cpu: str
    memory_kb: int
    files: Files = field(default_factory=dict)
    absent: tuple[str, ...] = ()

    def with_files(self, *more: Files) -> Face:
        """The same board with sticks in it, another governor, other flags."""
        merged = dict(self.files)
        for files in more:
            merged.update(files)
        return replace(self, files=merged)

    def without(self, *commands: str) -> Face:
        """The same board without these commands, such as `python3`; `python3.11` goes with it."""
        return replace(self, absent=(*self.absent, *commands))

    def write(self, folder: Path) -> None:
        """Write the files to `folder`."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, PurePosixPath):
                path.symlink_to(content)
                continue
            path.write_text(content)
            path.chmod(0o755 if content.startswith("#!") else 0o644)

    def meminfo(self) -> str:
        """The lines of /proc/meminfo that are read."""
        free = self.memory_kb * 2 // 3
        lines = {"MemTotal": self.memory_kb, "MemFree": free, "MemAvailable": free, "SwapTotal": 0, "SwapFree": 0}
        return "".join(f"{name}: {value:>14} kB\n" for name, value in lines.items())


def processors(count: int, governor: str = "ondemand", khz: tuple[int, int] = (600_000, 1_400_000)) -> Files:
    """/sys/devices/system/cpu. Without it XNNPACK picks other kernels; half of it crashes hwloc (OpenVINO)."""
    base = "sys/devices/system"
    everyone, mask = f"0-{count - 1}\n", f"{(1 << count) - 1:x}\n"
    files: dict[str, str | PurePosixPath] = dict.fromkeys(
        [f"{base}/cpu/{name}" for name in ("online", "possible", "present")], everyone
    )
    files |= {f"{base}/node/online": "0\n", f"{base}/node/node0/cpulist": everyone}
    files[f"{base}/node/node0/cpumap"] = mask
    for n in range(count):
        cpu, alone = f"{base}/cpu/cpu{n}", {"list": f"{n}\n", "mask": f"{1 << n:x}\n"}
        files |= {
            f"sys/bus/cpu/devices/cpu{n}": PurePosixPath(f"../../../devices/system/cpu/cpu{n}"),
            f"{base}/node/node0/cpu{n}": PurePosixPath(f"../../cpu/cpu{n}"),
            f"{cpu}/node0": PurePosixPath("../../node/node0"),
            f"{cpu}/online": "1\n",
            f"{cpu}/topology/core_id": f"{n}\n",
            f"{cpu}/topology/physical_package_id": "0\n",
            f"{cpu}/cpufreq/scaling_governor": f"{governor}\n",
            f"{cpu}/cpufreq/cpuinfo_min_freq": f"{khz[0]}\n",
            f"{cpu}/cpufreq/cpuinfo_max_freq": f"{khz[1]}\n",
            f"{cpu}/cpufreq/scaling_cur_freq": f"{khz[1]}\n",
        }
        for name in ("thread_siblings", "core_cpus"):
            files |= {f"{cpu}/topology/{name}": alone["mask"], f"{cpu}/topology/{name}_list": alone["list"]}
        for name in ("core_siblings", "package_cpus"):
            files |= {f"{cpu}/topology/{name}": mask, f"{cpu}/topology/{name}_list": everyone}
    return files


def usb(port: str, ids: str, product: str, speed: int, bus: int = 1, number: int = 2) -> Files:
    """A stick in `port` ("1-1"): `ids` as lsusb writes them, `speed` in Mbit/s: 480 is USB 2, 5000 USB 3."""
    vendor, model = ids.split(":")
    facts = {
        "idVendor": vendor,
        "idProduct": model,
        "product": product,
        "speed": speed,
        "busnum": bus,
        "devnum": number,
    }
    return {f"sys/bus/usb/devices/{port}/{name}": f"{value}\n" for name, value in facts.items()}


# Before its firmware is loaded, by the first inference, a Coral stick is Global Unichip's; afterwards Google's.
CORAL_FRESH_USB3 = usb("2-1", "1a6e:089a", "", 5000, bus=2)
CORAL_USB3 = usb("2-1", "18d1:9302", "", 5000, bus=2)
CORAL_USB2 = usb("1-1", "18d1:9302", "", 480)
CORAL_FRESH_USB2 = usb("1-1", "1a6e:089a", "", 480)
MOVIDIUS_USB2 = usb("1-2", "03e7:2485", "Movidius MyriadX", 480, number=3)


def vcgencmd(throttled: str = "0x0", celsius: float = 48.3, mhz: int = 1500) -> Files:
    """Raspberry Pi's own tool, as far as edge uses it."""
    return {"usr/bin/vcgencmd": _VCGENCMD.format(throttled=f"echo throttled={throttled}", celsius=celsius, mhz=mhz)}


def throttling_vcgencmd(*flags: str) -> Files:
    """A tool that answers each `get_throttled` with the next of `flags`, and repeats the last."""
    pick = "\n    ".join(
        [
            "calls=$(cat /tmp/vcgencmd.calls 2>/dev/null || echo 0)",
            "echo $((calls + 1)) > /tmp/vcgencmd.calls",
            f"set -- {' '.join(flags)}",
            "[ $calls -lt $# ] || calls=$(($# - 1))",
            "shift $calls",
            "echo throttled=$1",
        ]
    )
    return {"usr/bin/vcgencmd": _VCGENCMD.format(throttled=pick, celsius=81.7, mhz=1000)}


_VCGENCMD = """#!/bin/sh
case "$1" in
  get_throttled)
    {throttled} ;;
  measure_temp) echo "temp={celsius}'C" ;;
  measure_clock) echo "frequency(48)={mhz}000000" ;;
  *) echo 'error=1 error_msg="Command not registered"'; exit 255 ;;
esac
"""
_OTHER_MACHINE = '#!/bin/sh\ncase "$1" in -m) echo {machine} ;; *) echo Linux ;; esac\n'


def machine(name: str) -> Files:
    """A board whose `uname -m` prints something else, although its programs are for aarch64."""
    return {"usr/bin/uname": _OTHER_MACHINE.format(machine=name)}


def _device_tree(model: str, compatible: str) -> Files:
    # A chroot has no /proc/device-tree: on a board it is a link to this folder.
    base = "sys/firmware/devicetree/base"
    return {f"{base}/model": f"{model}\0", f"{base}/compatible": compatible.replace(" ", "\0") + "\0"}


def _zone(kind: str, celsius: float, number: int = 0) -> Files:
    zone = f"sys/class/thermal/thermal_zone{number}"
    return {f"{zone}/type": f"{kind}\n", f"{zone}/temp": f"{celsius * 1000:.0f}\n"}


RASPBERRY_PI_3B_PLUS = Face("cortex-a53", 945_512).with_files(
    processors(4),
    _device_tree("Raspberry Pi 3 Model B Plus Rev 1.3", "raspberrypi,3-model-b-plus brcm,bcm2837"),
    _zone("cpu-thermal", 52.6),
    vcgencmd(celsius=52.6, mhz=1400),
)
RASPBERRY_PI_4 = Face("cortex-a72", 3_884_340).with_files(
    processors(4, khz=(600_000, 1_500_000)),
    _device_tree("Raspberry Pi 4 Model B Rev 1.4", "raspberrypi,4-model-b brcm,bcm2711"),
    _zone("cpu-thermal", 48.3),
    vcgencmd(),
)
# All well, then too low a voltage and too hot at once, then recovered: the bits "since boot" stay.
THROTTLING_PI = RASPBERRY_PI_4.with_files(throttling_vcgencmd("0x0", "0x50005", "0x50000"), _zone("cpu-thermal", 81.7))

_INA3221 = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"  # JetPack 4's driver: mW, mA, mV
_NANO_GPU = "sys/class/devfreq/57000000.gpu"
JETSON_NANO = Face("cortex-a57", 4_059_256).with_files(
    processors(4, governor="schedutil", khz=(102_000, 1_479_000)),
    _device_tree("NVIDIA Jetson Nano Developer Kit", "nvidia,p3450-0000 nvidia,tegra210"),
    _zone("CPU-therm", 41.5),
    {
        "etc/nv_tegra_release": "# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref, EABI: aarch64\n",
        "usr/sbin/nvpmodel": "#!/bin/sh\necho 'NV Fan Mode:quiet'\necho 'NV Power Mode: MAXN'\necho 0\n",
        "var/lib/nvpmodel/status": "pmode:0000 fmode:fanNull\n",
        f"{_NANO_GPU}/min_freq": "76800000\n",
        f"{_NANO_GPU}/max_freq": "921600000\n",
        f"{_NANO_GPU}/cur_freq": "76800000\n",
        f"{_INA3221}/rail_name_0": "POM_5V_IN\n",
        f"{_INA3221}/in_power0_input": "2840\n",
        f"{_INA3221}/in_current0_input": "568\n",
        f"{_INA3221}/in_voltage0_input": "5000\n",
        f"{_INA3221}/rail_name_1": "POM_5V_GPU\n",
        f"{_INA3221}/in_power1_input": "40\n",
        f"{_INA3221}/rail_name_2": "POM_5V_CPU\n",
        f"{_INA3221}/in_power2_input": "480\n",
    },
)

FACES = {
    "raspberry-pi-3b-plus": RASPBERRY_PI_3B_PLUS,
    "raspberry-pi-4": RASPBERRY_PI_4,
    "jetson-nano": JETSON_NANO,
    "throttling-pi": THROTTLING_PI,
}
