"""The facts that a profile is made of: one class per table of its file, with the reading beside the fields."""

from __future__ import annotations

from dataclasses import dataclass

from device_profiles.reader import Table

KINDS = ("board", "computer", "accelerator")
FORMATS = ("onnx", "tflite", "edgetpu", "openvino", "tensorrt", "gguf", "keras")
PRECISIONS = ("fp32", "fp16", "int8", "w8", "q4_0", "q4_k_m", "q8_0")
DYNAMIC_BATCH = "dynamic-batch"  # a model whose batch size is free
NEWEST_RUNTIME = "newest-runtime"  # a file as today's release of the format's runtime writes it
ASKED = (*PRECISIONS, DYNAMIC_BATCH, NEWEST_RUNTIME)


@dataclass(frozen=True)
class Cpu:
    """The processor of a board or computer; `features` by Linux' names (`avx2`, `asimddp`)."""

    name: str
    cores: int
    max_mhz: int | None
    isa: str
    features: tuple[str, ...]
    source: str

    @classmethod
    def read(cls, table: Table) -> Cpu:
        """The facts of one table of a profile."""
        return cls(
            name=table.text("name"),
            cores=table.require("cores", int),
            max_mhz=table.find("max_mhz", int),
            isa=table.text("isa"),
            features=table.texts("features"),
            source=table.text("source"),
        )


@dataclass(frozen=True)
class Accelerator:
    """The part that runs networks beside the CPU: a GPU, a TPU, a VPU; `on_chip_bytes` is its own fast memory."""

    name: str
    link: str | None
    on_chip_bytes: int | None
    compute_capability: str | None
    source: str

    @classmethod
    def read(cls, table: Table) -> Accelerator:
        """The facts of one table of a profile."""
        return cls(
            name=table.text("name"),
            link=table.find("link", str),
            on_chip_bytes=table.find("on_chip_bytes", int),
            compute_capability=table.find("compute_capability", str),
            source=table.text("source"),
        )


@dataclass(frozen=True)
class Memory:
    """Main memory; `bytes` is None where a board is sold with several sizes. Bandwidth in 10^9 bytes a second."""

    bytes: int | None
    type: str | None
    bandwidth_gb_s: float | None
    source: str

    @classmethod
    def read(cls, table: Table) -> Memory:
        """The facts of one table of a profile."""
        return cls(
            bytes=table.find("bytes", int),
            type=table.find("type", str),
            bandwidth_gb_s=table.find("bandwidth_gb_s", float),
            source=table.text("source"),
        )


@dataclass(frozen=True)
class Format:
    """A model format that the device takes.

    `precisions` stand in the device's order, best first; `int8` needs calibration pictures. `max_opset` is the
    highest ONNX opset of the graph that it is made from. `static_shapes`: every dimension fixed beforehand.
    `built_on_device`: the file works only on the device that wrote it. `last_runtime`: the last release that
    supports the device. `release`: that of the format's own tools which has to write the file, where not any will do.
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
    def read(cls, table: Table) -> Format:
        """The facts of one table of a profile."""
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


@dataclass(frozen=True)
class Refusal:
    """What the device cannot do: any of `asked` (a word of `ASKED`) in `format`, why, and what works `instead`."""

    format: str
    asked: tuple[str, ...]
    why: str
    instead: str
    source: str

    @classmethod
    def read(cls, table: Table) -> Refusal:
        """The facts of one table of a profile."""
        return cls(
            format=table.word("format", FORMATS),
            asked=table.words("asked", ASKED),
            why=table.text("why"),
            instead=table.text("instead"),
            source=table.text("source"),
        )


@dataclass(frozen=True)
class Recognise:
    """How the device shows itself: `vendor:product` ids, and shell patterns for device nodes and names."""

    usb: tuple[str, ...]
    pci: tuple[str, ...]
    nodes: tuple[str, ...]
    board: tuple[str, ...]
    cpu: tuple[str, ...]
    gpu: tuple[str, ...]
    source: str

    @classmethod
    def read(cls, table: Table) -> Recognise:
        """The facts of one table of a profile."""
        return cls(
            usb=table.texts("usb"),
            pci=table.texts("pci"),
            nodes=table.texts("nodes"),
            board=table.texts("board"),
            cpu=table.texts("cpu"),
            gpu=table.texts("gpu"),
            source=table.text("source"),
        )


@dataclass(frozen=True)
class Power:
    """Electrical power in watts."""

    min_w: float | None
    max_w: float | None
    note: str | None
    source: str

    @classmethod
    def read(cls, table: Table) -> Power:
        """The facts of one table of a profile."""
        return cls(
            min_w=table.find("min_w", float),
            max_w=table.find("max_w", float),
            note=table.find("note", str),
            source=table.text("source"),
        )


@dataclass(frozen=True)
class Price:
    """What it cost new, in US dollars."""

    usd: float
    note: str | None
    source: str

    @classmethod
    def read(cls, table: Table) -> Price:
        """The facts of one table of a profile."""
        return cls(usd=table.require("usd", float), note=table.find("note", str), source=table.text("source"))


@dataclass(frozen=True)
class Peak:
    """Dense peak rates of the fastest unit, in 10^9 operations a second; a multiply-add counts as two."""

    fp32_gflops: float | None
    fp16_gflops: float | None
    int8_gops: float | None
    source: str

    @classmethod
    def read(cls, table: Table) -> Peak:
        """The facts of one table of a profile."""
        return cls(
            fp32_gflops=table.find("fp32_gflops", float),
            fp16_gflops=table.find("fp16_gflops", float),
            int8_gops=table.find("int8_gops", float),
            source=table.text("source"),
        )
