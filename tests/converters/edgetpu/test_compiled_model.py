"""What the Edge TPU compiler wrote into a file, read from real files and from files built here."""

from __future__ import annotations

from pathlib import Path

import pytest

from converters.edgetpu.compiled_model import CUSTOM_OP, CompiledModel, read_compiled
from converters.tflite.reader import Graph, Operator, TfliteModel, read_tflite
from converters.wire.buffer import ByteSource
from converters.wire.flatbuffer import flexbuffer_blob, flexbuffer_number
from runtimes.errors import InputError

STAND_ALONE, PARAMETER_CACHING, EXECUTION_ONLY = 0, 1, 2
NARROW_MEMORY = 192 * 1024  # bytes in each tile of the chip


def compiled(path: Path) -> CompiledModel:
    found = read_compiled(read_tflite(path))
    assert found is not None
    return found


# name → runtime, bytes kept on the chip, bytes sent along, operators left on the CPU.
KNOWN = {
    "edgetpu/mobilenet_v1_0.25_128_quant": (12, 566_912, 0, {}),
    "edgetpu/mobilenet_v1_1.0_224_quant_embedding_extractor": (12, 3_363_072, 0, {}),
    "edgetpu/keras_lstm_mnist_ptq": (12, 43_968, 576, {}),
    "edgetpu/tools/split_concat": (13, 192, 0, {}),
    "edgetpu/posenet/posenet_mobilenet_v1_075_353_481_16_quant_decoder": (12, 1_444_608, 0, {"PosenetDecoderOp": 1}),
    "edgetpu/deeplabv3_mnv2_dm05_pascal_quant": (
        12,
        766_720,
        0,
        {"RESIZE_BILINEAR": 3, "CONV_2D": 2, "QUANTIZE": 1, "CONCATENATION": 1, "ARG_MAX": 1},
    ),
    "mobilenet_v2/mobilenet_v2_1.0_224_quant": (12, 3_900_864, 0, {}),
}


@pytest.mark.data
@pytest.mark.parametrize("name", KNOWN)
def test_real_compiled_files(data, name):
    runtime, cached, streamed, cpu_ops = KNOWN[name]
    found = compiled(data / f"{name}_edgetpu.tflite")
    assert found.chips == ("beagle",)
    assert len(found.packages) == 1
    assert found.min_runtime_version == runtime
    assert (found.cached_bytes, found.streamed_bytes) == (cached, streamed)
    assert dict(found.cpu_ops) == cpu_ops
    assert 0 < found.narrow_memory_bytes_per_tile <= NARROW_MEMORY
    assert (found.caching_token != 0) == (cached > 0)


@pytest.mark.data
@pytest.mark.parametrize("name", KNOWN)
def test_compilation_keeps_inputs_outputs_and_the_order_of_the_parameters_size(data, name):
    source, target = (read_tflite(data / f"{name}{end}.tflite").graphs[0] for end in ("", "_edgetpu"))
    assert target.specs(target.inputs) == source.specs(source.inputs)
    before = sum(tensor.constant_bytes for tensor in source.tensors)
    found = compiled(data / f"{name}_edgetpu.tflite")
    on_cpu = sum(tensor.constant_bytes for tensor in target.tensors)
    after = found.cached_bytes + found.streamed_bytes + on_cpu
    # Parameters are laid out for the chip: padded to its tiles, biases among them; the LSTM's are written out twice.
    assert before * 0.9 <= after <= max(before * 1.3, before + 44_000)


@pytest.mark.data
def test_a_model_that_was_not_compiled_holds_nothing(data):
    assert read_compiled(read_tflite(data / "mobilenet_v2" / "mobilenet_v2_1.0_224_quant.tflite")) is None


@pytest.mark.data
def test_flexbuffer_is_read_as_the_library_reads_it(data):
    flexbuffers = pytest.importorskip("flatbuffers.flexbuffers")
    for path in sorted(data.rglob("*_edgetpu.tflite")):
        for operator in read_tflite(path).graphs[0].operators:
            if operator.name == CUSTOM_OP:
                theirs = flexbuffers.GetRoot(bytearray(operator.options.view)).AsMap["4"]
                ours = flexbuffer_blob(operator.options, "4")
                assert ours is not None
                assert bytes(ours.view) == bytes(theirs.AsStringBytes if theirs.IsString else theirs.AsBlob)


def test_two_packages_add_up():
    resident = package(14, executable(PARAMETER_CACHING, 700, 10, 5), executable(EXECUTION_ONLY, 30, 60, 5))
    found = read_compiled(model_of(operator(resident), operator(package(12, executable(STAND_ALONE, 200, 90)))))
    assert found is not None
    assert found.as_dict() == {
        "custom_ops": 2,
        "min_runtime_version": 14,
        "compiler_versions": ["16.0"],
        "chips": ["beagle"],
        "cached_bytes": 700,
        "streamed_bytes": 230,
        "narrow_memory_bytes_per_tile": 90,
        "caching_token": "0x5",
        "cpu_ops": {"SOFTMAX": 1},
    }


@pytest.mark.parametrize("size", [1, 300, 70_000])  # offsets of one, two and four bytes
def test_blobs_of_every_width(size):
    flexbuffers = pytest.importorskip("flatbuffers.flexbuffers")
    content = bytes(range(256)) * (size // 256 + 1)
    found = flexbuffer_blob(source(bytes(flexbuffers.Dumps({"1": 7, "4": content, "5": 2.5}))), "4")
    assert found is not None
    assert bytes(found.view) == content


@pytest.mark.parametrize("value", [{"1": b"x"}, [b"x"], 4, {"4": 4}])
def test_other_flexbuffers_hold_no_package(value):
    flexbuffers = pytest.importorskip("flatbuffers.flexbuffers")
    assert flexbuffer_blob(source(bytes(flexbuffers.Dumps(value))), "4") is None


@pytest.mark.parametrize("count", [3, 90, 40_000])  # integers of one, two and four bytes
def test_numbers_of_every_width(count):
    flexbuffers = pytest.importorskip("flatbuffers.flexbuffers")
    options = source(bytes(flexbuffers.Dumps({"nms": 0.5, "num_classes": count, "z": "text"})))
    assert flexbuffer_number(options, "num_classes") == count
    for other in ("nms", "z", "a_key_that_is_longer_than_everything_in_the_whole_buffer_together"):
        assert flexbuffer_number(options, other) is None


@pytest.mark.parametrize("options", [b"", b"\0\0", b"\xff" * 40, bytes(40)])
def test_an_operator_without_a_package_is_not_supported(options):
    with pytest.raises(InputError, match="without a package of the compiler, which edge does not support"):
        read_compiled(model_of(operator(options)))


def source(content: bytes) -> ByteSource:
    return ByteSource(memoryview(content), "model_edgetpu.tflite")


def operator(options: bytes) -> Operator:
    return Operator(
        name=CUSTOM_OP, version=1, is_custom=True, inputs=(), outputs=(), options=source(options), builtin_options=None
    )


def model_of(*operators: Operator) -> TfliteModel:
    softmax = Operator(
        name="SOFTMAX", version=1, is_custom=False, inputs=(), outputs=(), options=source(b""), builtin_options=None
    )
    return TfliteModel(
        description="", graphs=(Graph(tensors=(), operators=(*operators, softmax), inputs=(), outputs=()),), metadata={}
    )


def package(runtime: int, *executables: bytes) -> bytes:
    """The options of a custom operator, written with the official libraries."""
    flatbuffers = pytest.importorskip("flatbuffers")
    from flatbuffers import flexbuffers

    inner = flatbuffers.Builder(0)
    strings = [inner.CreateString(one) for one in executables]
    inner.StartVector(4, len(strings), 4)
    for one in reversed(strings):
        inner.PrependUOffsetTRelative(one)
    vector = inner.EndVector()
    inner.StartObject(1)
    inner.PrependUOffsetTRelativeSlot(0, vector, 0)
    inner.Finish(inner.EndObject())
    outer = flatbuffers.Builder(0)
    content, version = outer.CreateByteVector(bytes(inner.Output())), outer.CreateString("16.0")
    outer.StartObject(8)
    outer.PrependInt32Slot(0, runtime, 0)
    outer.PrependUOffsetTRelativeSlot(1, content, 0)
    outer.PrependUOffsetTRelativeSlot(4, version, 0)
    outer.Finish(outer.EndObject(), b"DWN1")
    return bytes(flexbuffers.Dumps({"1": 1, "4": bytes(outer.Output())}))


def executable(kind: int, parameters: int, narrow: int, token: int = 0) -> bytes:
    flatbuffers = pytest.importorskip("flatbuffers")
    builder = flatbuffers.Builder(0)
    chip, content = builder.CreateString("beagle"), builder.CreateByteVector(bytes(parameters))
    builder.StartObject(18)
    builder.PrependUOffsetTRelativeSlot(6, content, 0)
    builder.PrependUOffsetTRelativeSlot(10, chip, 0)
    builder.PrependInt32Slot(12, narrow, 0)
    builder.PrependInt16Slot(13, kind, 0)
    builder.PrependUint64Slot(14, token, 0)
    builder.Finish(builder.EndObject())
    return bytes(builder.Output())
