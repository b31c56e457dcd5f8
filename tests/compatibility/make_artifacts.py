"""Write the folders of `artifacts/`: one for each format that `edge convert` writes, less than 20 KiB each.

edgeproof 0.1.0 wrote the existing ones, before its packages were restructured. They do not change: every later version
has to open, verify and run them. Write a folder only for a new format:

    python tests/compatibility/make_artifacts.py NAME ...    (needs keras, onnx, litert, openvino, torch, gguf)

The script only calls the command line, on tiny seeded models: a convolutional classifier of 8 × 8 pictures in five
classes, and a language model with one layer.
"""

from __future__ import annotations

import os
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LABELS = ("cat", "dog", "bird", "fish", "horse")
SIDE = 8
# A tokenizer of llama2.c has 259 marks and bytes before its first piece.
PIECES = ("a", "b", "c", "d", "e", " ", " a", "ab", "abc", "de", " ab", " de", "cab")
WIDTH, HIDDEN, HEADS, CONTEXT = 4, 8, 1, 128

Names = dict[str, Callable[[Path, Path], None]]


def edge(*words: object, program_folder: Path | None = None) -> None:
    """Run one command of this checkout; `program_folder` comes first on PATH."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    environment["PATH"] = f"{program_folder or '/nowhere'}{os.pathsep}{environment['PATH']}"
    command = [sys.executable, "-m", "edge", *map(str, words)]
    subprocess.run(command, check=True, env=environment, cwd=ROOT)


def convert(source: Path, out: Path, *words: object, program_folder: Path | None = None) -> None:
    """Run `edge convert` on the picture classifier, with its labels and preprocessing."""
    labels = out.parent / "labels.txt"
    labels.write_text("\n".join(LABELS) + "\n", encoding="utf-8")
    picture = ("--preprocess", "keras-mobilenet-v2", "--labels", labels)
    edge("convert", source, "--out", out, *picture, *words, program_folder=program_folder)


def write_keras(folder: Path) -> Path:
    """`tiny.keras`: convolution, average, softmax; [1, 8, 8, 3] → [1, 5], seeded weights."""
    import keras

    picture = keras.Input((SIDE, SIDE, 3), batch_size=1, name="picture")
    features = keras.layers.Conv2D(6, 3, strides=2, activation="relu", name="conv")(picture)
    average = keras.layers.GlobalAveragePooling2D(name="average")(features)
    model = keras.Model(picture, keras.layers.Dense(len(LABELS), activation="softmax", name="scores")(average))
    draw = np.random.default_rng(11)
    model.set_weights([draw.normal(0, 0.7, values.shape).astype(np.float32) for values in model.get_weights()])
    model.save(folder / "stored.keras")
    path = folder / "tiny.keras"
    with zipfile.ZipFile(folder / "stored.keras") as stored, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in stored.namelist():
            packed.writestr(zipfile.ZipInfo(name), stored.read(name), zipfile.ZIP_DEFLATED)
    return path


def write_savedmodel(folder: Path) -> Path:
    """The same weights as a TensorFlow SavedModel, as `tf.saved_model.save` writes it."""
    import keras
    import tensorflow as tf

    model = keras.models.load_model(write_keras(folder))
    weights = [tf.constant(values) for values in model.get_weights()]

    class Tiny(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([1, SIDE, SIDE, 3], name="picture")], autograph=False)
        def serve(self, picture: Any) -> Any:
            features = tf.nn.relu(tf.nn.conv2d(picture, weights[0], 2, "VALID") + weights[1])
            return {"scores": tf.nn.softmax(tf.reduce_mean(features, [1, 2]) @ weights[2] + weights[3])}

    tiny = Tiny()
    path = folder / "tiny"
    tf.saved_model.save(tiny, str(path), signatures=tiny.serve)
    (path / "fingerprint.pb").unlink(missing_ok=True)
    return path


def write_pt2(folder: Path) -> Path:
    """A convolutional classifier of the same size as PyTorch's exported program; [1, 3, 8, 8] → [1, 5]."""
    import torch

    torch.manual_seed(11)
    layers = (torch.nn.Conv2d(3, 4, 3, 2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    model = torch.nn.Sequential(*layers, torch.nn.Linear(4, len(LABELS)), torch.nn.Softmax(dim=-1)).eval()
    program = torch.export.export(model, (torch.zeros(1, 3, SIDE, SIDE),))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
        node.meta.pop("nn_module_stack", None)
    path = folder / "tiny.pt2"
    torch.export.save(program, path)
    return path


def write_inputs(folder: Path) -> Path:
    """`inputs.npz` to calibrate with: colored 8 × 8 patches between −1 and 1."""
    draw = np.random.default_rng(12)
    colors = draw.uniform(-1, 1, (24, 2, 2, 3)).repeat(SIDE // 2, axis=1).repeat(SIDE // 2, axis=2)
    path = folder / "inputs.npz"
    np.savez(path, picture=colors.astype(np.float32))
    return path


def write_language_model(folder: Path) -> Path:
    """`tiny.bin`: a checkpoint of llama2.c with one layer and seeded weights, and its `tokenizer.bin`."""
    marks = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens = [*marks, *PIECES]
    scores = [0.0] * len(marks) + [-float(len(PIECES) - rank) for rank in range(len(PIECES))]
    content = struct.pack("<i", max(map(len, tokens)))
    for token, score in zip(tokens, scores, strict=True):
        content += struct.pack("<fi", score, len(token.encode())) + token.encode()
    (folder / "tokenizer.bin").write_bytes(content)
    draw = np.random.default_rng(13)
    square, wide = (WIDTH, WIDTH), (HIDDEN, WIDTH)
    shapes = [(len(tokens), WIDTH), (WIDTH,), square, square, square, square, (WIDTH,), wide, (WIDTH, HIDDEN), wide]
    weights = [draw.normal(0, 0.7, shape) if len(shape) > 1 else np.ones(shape) for shape in [*shapes, (WIDTH,)]]
    output = draw.normal(0, 0.7, (len(tokens), WIDTH))
    output[: len(marks)] = 0  # marks and bytes score 0, so that no text ends early and the self-check is small
    weights += [
        np.zeros((CONTEXT, WIDTH // HEADS)),
        output,
    ]  # the first are the cosines and sines, which no reader uses
    # A negative vocabulary size means that the output has separate weights.
    header = struct.pack("<7i", WIDTH, HIDDEN, 1, HEADS, HEADS, -len(tokens), CONTEXT)
    path = folder / "tiny.bin"
    path.write_bytes(header + b"".join(values.astype("<f4").tobytes() for values in weights))
    return path


def onnx_fp32(work: Path, out: Path) -> None:
    """Convert to ONNX, the form that PyTorch and Keras users publish."""
    convert(write_keras(work), out, "--to", "onnx", "--opset", 13)


def onnx_int8(work: Path, out: Path) -> None:
    """Convert to ONNX in int8 with QDQ nodes."""
    convert(write_keras(work), out, "--to", "onnx", "--precision", "int8", "--calibration", write_inputs(work))


def tflite_fp32(work: Path, out: Path) -> None:
    """Convert to TFLite in single precision."""
    convert(write_keras(work), out, "--to", "tflite")


def tflite_int8(work: Path, out: Path) -> None:
    """Convert to TFLite in full int8, including inputs and outputs."""
    convert(write_keras(work), out, "--to", "tflite", "--precision", "int8", "--calibration", write_inputs(work))


def tflite_for_coral(work: Path, out: Path) -> None:
    """Convert with `--for coral-usb` without Google's compiler: checked TFLite, and the remaining command."""
    convert(write_keras(work), out, "--for", "coral-usb", "--calibration", write_inputs(work))


def edgetpu_int8(work: Path, out: Path) -> None:
    """Convert for the Edge TPU with the stand-in for Google's compiler below."""
    calibration = write_inputs(work)
    convert(write_keras(work), out, "--for", "coral-usb", "--calibration", calibration, program_folder=compiler(work))


def openvino_fp32(work: Path, out: Path) -> None:
    """Convert to OpenVINO's IR."""
    convert(write_keras(work), out, "--to", "openvino")


def openvino_fp16(work: Path, out: Path) -> None:
    """Convert to OpenVINO's IR with weights in half precision."""
    convert(write_keras(work), out, "--to", "openvino", "--precision", "fp16")


def tensorrt_fp16(work: Path, out: Path) -> None:
    """Convert to what a Jetson Nano builds its engine from: a shaped ONNX graph, `build.sh` and `build_engine.py`."""
    inputs = write_inputs(work)  # they make a smaller self-check than synthetic ones
    convert(write_keras(work), out, "--for", "jetson-nano", "--precision", "fp16", "--calibration", inputs)


def tensorrt_implicit(work: Path, out: Path) -> None:
    """Convert the same to int8 by a calibration cache next to a float graph."""
    wanted = ("--to", "tensorrt", "--tensorrt", "8.2", "--implicit", "--calibration", write_inputs(work))
    convert(write_keras(work), out, *wanted)


def keras_fp32(work: Path, out: Path) -> None:
    """Package a Keras model unchanged."""
    convert(write_keras(work), out, "--to", "keras")


def savedmodel_fp32(work: Path, out: Path) -> None:
    """Package a SavedModel unchanged."""
    convert(write_savedmodel(work), out, "--to", "savedmodel")


def pt2_fp32(work: Path, out: Path) -> None:
    """Package a PyTorch program unchanged."""
    convert(write_pt2(work), out, "--to", "pt2")


def gguf_fp16(work: Path, out: Path) -> None:
    """Convert a language model."""
    edge("convert", write_language_model(work), "--to", "gguf", "--precision", "fp16", "--out", out)


def compiler(folder: Path) -> Path:
    """Create a folder with a program `edgetpu_compiler`, because Google's may not be copied and only runs on x86-64
    Debian.

    It prints what version 16 prints, and puts all operators into one `edgetpu-custom-op` with an empty program.
    """
    place = folder / "bin"
    place.mkdir()
    program = place / "edgetpu_compiler"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" --stand-in "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return place


def compile_as_stand_in(words: list[str]) -> None:
    """Run `edgetpu_compiler -s -t SECONDS -o FOLDER MODEL`, of which only FOLDER and MODEL are used."""
    model, out = Path(words[-1]), Path(words[words.index("-o") + 1])
    compiled, count = compiled_model(model.read_bytes())
    (out / f"{model.stem}_edgetpu.tflite").write_bytes(compiled)
    rows = "".join(f"{name:<31}{number:<11}Mapped to Edge TPU\n" for name, number in count.items())
    log = f"Edge TPU Compiler version 16.0.384591198\nOperator                       Count      Status\n\n{rows}"
    (out / f"{model.stem}_edgetpu.log").write_text(log)
    print("Edge TPU Compiler version 16.0.384591198\nNumber of Edge TPU subgraphs: 1")
    print("On-chip memory used for caching model parameters: 192.00B")
    print("Off-chip memory used for streaming uncached model parameters: 0.00B\nCompilation succeeded!")


def compiled_model(content: bytes) -> tuple[bytes, dict[str, int]]:
    """Return a model with the same interface around one custom operator, and the operators that it replaces."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    network = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = network.subgraphs[0]
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    kinds = [names[network.operatorCodes[one.opcodeIndex].builtinCode] for one in graph.operators]
    code, operator = schema.OperatorCodeT(), schema.OperatorT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.version, code.customCode = 1, "edgetpu-custom-op"
    operator.inputs, operator.outputs = list(graph.inputs), list(graph.outputs)
    operator.customOptions = list(package())
    kept = [graph.tensors[place] for place in (*graph.inputs, *graph.outputs)]
    for tensor in kept:
        tensor.buffer = 0
    graph.tensors = kept
    graph.inputs = operator.inputs = list(range(len(graph.inputs)))
    graph.outputs = operator.outputs = list(range(len(graph.inputs), len(kept)))
    network.operatorCodes, graph.operators = [code], [operator]
    network.buffers = [schema.BufferT()]
    network.metadata, network.signatureDefs = None, None
    builder = flatbuffers.Builder(1024)
    builder.Finish(network.Pack(builder), b"TFL3")
    return bytes(builder.Output()), {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def package() -> bytes:
    """Return the options of the custom operator: one program that keeps 192 bytes of parameters on the chip.

    Field numbers are those of executable/executable.fbs in google-coral/libedgetpu.
    """
    import flatbuffers
    from flatbuffers import flexbuffers

    program = flatbuffers.Builder(0)
    chip, parameters = program.CreateString("beagle"), program.CreateByteVector(bytes(192))
    program.StartObject(18)
    program.PrependUOffsetTRelativeSlot(6, parameters, 0)
    program.PrependUOffsetTRelativeSlot(10, chip, 0)
    program.PrependInt32Slot(12, 64, 0)  # bytes of activations in each tile
    program.PrependInt16Slot(13, 1, 0)  # its parameters are kept on the chip
    program.PrependUint64Slot(14, 5, 0)  # and identified there by this token
    program.Finish(program.EndObject())
    inner = flatbuffers.Builder(0)
    one = inner.CreateString(bytes(program.Output()))
    inner.StartVector(4, 1, 4)
    inner.PrependUOffsetTRelative(one)
    vector = inner.EndVector()
    inner.StartObject(1)
    inner.PrependUOffsetTRelativeSlot(0, vector, 0)
    inner.Finish(inner.EndObject())
    outer = flatbuffers.Builder(0)
    content, version = outer.CreateByteVector(bytes(inner.Output())), outer.CreateString("16.0")
    outer.StartObject(8)
    outer.PrependInt32Slot(0, 14, 0)  # the oldest runtime that accepts it
    outer.PrependUOffsetTRelativeSlot(1, content, 0)
    outer.PrependUOffsetTRelativeSlot(4, version, 0)
    outer.Finish(outer.EndObject(), b"DWN1")
    return bytes(flexbuffers.Dumps({"1": 1, "4": bytes(outer.Output())}))


ARTIFACTS: Names = {
    "edgetpu-int8": edgetpu_int8,
    "gguf-fp16": gguf_fp16,
    "keras-fp32": keras_fp32,
    "onnx-fp32": onnx_fp32,
    "onnx-int8": onnx_int8,
    "openvino-fp16": openvino_fp16,
    "openvino-fp32": openvino_fp32,
    "pt2-fp32": pt2_fp32,
    "savedmodel-fp32": savedmodel_fp32,
    "tensorrt-fp16": tensorrt_fp16,
    "tensorrt-int8-implicit": tensorrt_implicit,
    "tflite-fp32": tflite_fp32,
    "tflite-int8": tflite_int8,
    "tflite-int8-for-coral": tflite_for_coral,
}


def main(words: list[str]) -> None:
    """Write the named artifacts."""
    if words[:1] == ["--stand-in"]:
        compile_as_stand_in(words[1:])
        return
    if not words or not set(words) <= set(ARTIFACTS):
        raise SystemExit(f"name the artifacts to write: {' '.join(ARTIFACTS)}")
    for name in words:
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            ARTIFACTS[name](work, work / name)
            target = HERE / "artifacts" / name
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(work / name, target)
            size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
            print(f"{name}: {size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
