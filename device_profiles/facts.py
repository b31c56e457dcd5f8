"""The facts of a profile: one class per table of its TOML file, each with its own parser."""

from __future__ import annotations

from dataclasses import dataclass

from device_profiles.reader import TomlTable

KINDS = ("board", "computer", "accelerator", "browser")
FORMATS = ("onnx", "tflite", "edgetpu", "openvino", "tensorrt", "gguf", "keras", "browser")
PRECISIONS = ("fp32", "fp16", "int8", "w8", "q4_0", "q4_k_m", "q8_0")
DYNAMIC_BATCH = "dynamic-batch"  # a model with a variable batch size
NEWEST_RUNTIME = "newest-runtime"  # a file written by the current release of the format's runtime
ASKED = (*PRECISIONS, DYNAMIC_BATCH, NEWEST_RUNTIME)


@dataclass(frozen=True, kw_only=True)
class Cpu:
    """The processor of a board or computer; `features` by Linux' names (`avx2`, `asimddp`)."""

    name: str
    cores: int
    max_mhz: int | None
    isa: str
    features: tuple[str, ...]
    source: str

    @classmethod
    def read(cls, table: TomlTable) -> Cpu:
        """Parse the table of a profile."""
        return cls(
            name=table.text("name"),
            cores=table.require("cores", int),
            max_mhz=table.find("max_mhz", int),
            isa=table.text("isa"),
            features=table.texts("features"),
            source=table.text("source"),
        )


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """A processor for networks besides the CPU: a GPU, TPU or VPU. `on_chip_bytes` is its own fast memory."""

    name: str
    link: str | None
    on_chip_bytes: int | None
    compute_capability: str | None
    source: str

    @classmethod
    def read(cls, table: TomlTable) -> Accelerator:
        """Parse the table of a profile."""
        return cls(
            name=table.text("name"),
            link=table.find("link", str),
            on_chip_bytes=table.find("on_chip_bytes", int),
            compute_capability=table.find("compute_capability", str),
            source=table.text("source"),
        )


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Main memory. `bytes` is None if a board is sold with several sizes. Bandwidth is in 10^9 bytes per second."""

    bytes: int | None
    type: str | None
    bandwidth_gb_s: float | None
    source: str

    @classmethod
    def read(cls, table: TomlTable) -> Memory:
        """Parse the table of a profile."""
        return cls(
            bytes=table.find("bytes", int),
            type=table.find("type", str),
            bandwidth_gb_s=table.find("bandwidth_gb_s", float),
            source=table.text("source"),
        )


@dataclass(frozen=True, kw_only=True)
class FormatSupport:
    """A model format that the device supports.

    precisions: Supported precisions, best first; `int8` needs calibration pictures.
    max_opset: The highest ONNX opset of the source graph.
    static_shapes: Whether every dimension must be fixed.
    built_on_device: Whether the file only works on the device that built it.
    last_runtime: The last runtime release that supports the device.
    release: The release of the format's tools that must write the file, if not any will do.
    """

    format: str
    precisions: tuple[str, ...]
    max_opset: int | None
    static_shapes: bool
    built_on_device: bool
    last_runtime: str | None
    release: str | None
    source: str

    @classmethod
    def read(cls, table: TomlTable) -> FormatSupport:
        """Parse the table of a profile."""
        return cls(
            format=table.word("format", FORMATS),
            precisions=table.words("precisions", PRECISIONS),
            max_opset=table.find("max_opset", int),
            static_shapes=table.find("static_shapes", bool) or False,
            built_on_device=table.find("built_on_device", bool) or False,
            last_runtime=table.find("last_runtime", str),
            release=table.find("release", str),
            source=table.text("source"),
        )


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """What the device cannot do: `asked` (values of `ASKED`) in `format`, why, and what works `instead`."""

    format: str
    asked: tuple[str, ...]
    why: str
    instead: str
    source: str

    @classmethod
    def read(cls, table: TomlTable) -> Refusal:
        """Parse the table of a profile."""
        return cls(
            format=table.word("format", FORMATS),
            asked=table.words("asked", ASKED),
            why=table.text("why"),
            instead=table.text("instead"),
            source=table.text("source"),
        )


@dataclass(frozen=True, kw_only=True)
class Recognition:
    """How to recognize the device: `vendor:product` ids, and shell patterns for device nodes and names."""

    usb: tuple[str, ...]
    pci: tuple[str, ...]
    nodes: tuple[str, ...]
    board: tuple[str, ...]
    cpu: tuple[str, ...]
    gpu: tuple[str, ...]
    source: str

    @classmethod
    def read(cls, table: TomlTable) -> Recognition:
        """Parse the table of a profile."""
        return cls(
            usb=table.texts("usb"),
            pci=table.texts("pci"),
            nodes=table.texts("nodes"),
            board=table.texts("board"),
            cpu=table.texts("cpu"),
            gpu=table.texts("gpu"),
            source=table.text("source"),
        )


@dataclass(frozen=True, kw_only=True)
class Power:
    """Electrical power in watts."""

    min_w: float | None
    max_w: float | None
    note: str | None
    source: str

    @classmethod
    def read(cls, table: TomlTable) -> Power:
        """Parse the table of a profile."""
        return cls(
            min_w=table.find("min_w", float),
            max_w=table.find("max_w", float),
            note=table.find("note", str),
            source=table.text("source"),
        )


@dataclass(frozen=True, kw_only=True)
class Price:
    """The price when new, in US dollars."""

    usd: float
    note: str | None
    source: str

    @classmethod
    def read(cls, table: TomlTable) -> Price:
        """Parse the table of a profile."""
        return cls(usd=table.require("usd", float), note=table.find("note", str), source=table.text("source"))


@dataclass(frozen=True, kw_only=True)
class Peak:
    """Dense peak rates of the fastest unit, in 10^9 operations per second; a multiply-add counts as two."""

    fp32_gflops: float | None
    fp16_gflops: float | None
    int8_gops: float | None
    source: str

    @classmethod
    def read(cls, table: TomlTable) -> Peak:
        """Parse the table of a profile."""
        return cls(
            fp32_gflops=table.find("fp32_gflops", float),
            fp16_gflops=table.find("fp16_gflops", float),
            int8_gops=table.find("int8_gops", float),
            source=table.text("source"),
        )
