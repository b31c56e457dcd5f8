"""Write the tiny models beside this file again: one for each engine, named after it, all computing the same function.

Inputs a [batch, 4] and b [batch, 3]; outputs a × W + b, [batch, 3], and 2 a, [batch, 4], where W counts from −6 to 5.
The tests tell inputs and outputs apart by their width, since each format has its own way with names.

    python tests/runtimes/models/make_models.py     (needs keras, tensorflow, openvino, onnx, torch and gguf)
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
WEIGHTS = np.arange(-6, 6, dtype=np.float32).reshape(4, 3)


def write_onnx() -> None:
    """ONNX with its names in an order that is not alphabetical."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def tensor(name: str, width: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])

    nodes = [
        helper.make_node("MatMul", ["wide", "weights"], ["product"]),
        helper.make_node("Add", ["product", "narrow"], ["sum"]),
        helper.make_node("Add", ["wide", "wide"], ["double"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [tensor("wide", 4), tensor("narrow", 3)],
        [tensor("sum", 3), tensor("double", 4)],
        [numpy_helper.from_array(WEIGHTS, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    onnx.checker.check_model(model)
    onnx.save(model, HERE / "onnxruntime.onnx")


def write_openvino() -> None:
    """OpenVINO's IR of the same graph."""
    import openvino

    model = openvino.Core().read_model(HERE / "onnxruntime.onnx")
    openvino.save_model(model, HERE / "openvino.xml", compress_to_fp16=False)


def write_keras() -> None:
    """The same from Keras, with a dictionary of inputs."""
    import keras

    wide, narrow = keras.Input((4,), name="wide"), keras.Input((3,), name="narrow")
    product = keras.layers.Dense(3, use_bias=False, name="product")(wide)
    outputs = [keras.layers.Add(name="sum")([product, narrow]), keras.layers.Add(name="double")([wide, wide])]
    model = keras.Model({"wide": wide, "narrow": narrow}, outputs)
    model.get_layer("product").set_weights([WEIGHTS])
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.keras")
        _compress(Path(folder) / "model.keras", HERE / "keras.keras")


def _compress(source: Path, target: Path) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))


def write_tensorflow() -> None:
    """The same as a SavedModel, and as TFLite flatbuffers: float32, and quantized with uint8 at its ends."""
    import tensorflow as tf

    class Tiny(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = tf.Variable(WEIGHTS)

        @tf.function(
            input_signature=[tf.TensorSpec([None, 4], name="wide"), tf.TensorSpec([None, 3], name="narrow")],
            autograph=False,
        )
        def serve(self, wide: Any, narrow: Any) -> Any:
            return {"sum": wide @ self.weights + narrow, "double": wide + wide}

    model = Tiny()
    folder = HERE / "tensorflow"
    shutil.rmtree(folder, ignore_errors=True)
    tf.saved_model.save(model, str(folder), signatures=model.serve)
    (folder / "fingerprint.pb").unlink()
    (HERE / "litert.tflite").write_bytes(_converter(tf, model).convert())
    (HERE / "quantized.tflite").write_bytes(_quantized(tf, _converter(tf, model)))


def _converter(tf: Any, model: Any) -> Any:
    return tf.lite.TFLiteConverter.from_concrete_functions([model.serve.get_concrete_function()], model)


def _quantized(tf: Any, converter: Any) -> bytes:
    grid = np.linspace(-1, 1, 32, dtype=np.float32)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        {"wide": np.full((1, 4), value, np.float32), "narrow": np.full((1, 3), -value, np.float32)} for value in grid
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    return bytes(converter.convert())


def write_torch() -> None:
    """The same as an exported program; one input by position, one by name."""
    import torch

    class Tiny(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = torch.nn.Parameter(torch.from_numpy(WEIGHTS))

        def forward(self, wide: Any, narrow: Any) -> Any:
            return {"sum": wide @ self.weights + narrow, "double": wide + wide}

    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(
        Tiny().eval(),
        (torch.zeros(2, 4),),
        {"narrow": torch.zeros(2, 3)},
        dynamic_shapes={"wide": {0: batch}, "narrow": {0: batch}},
    )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    with tempfile.TemporaryDirectory() as folder:
        torch.export.save(program, Path(folder) / "torch.pt2")
        shutil.copy(Path(folder) / "torch.pt2", HERE)


def write_gguf() -> None:
    """A LLaMA of one layer with random weights and a vocabulary of bytes: it computes nothing sensible, but fast."""
    from gguf import GGUFWriter

    width, hidden, vocabulary = 16, 32, 288
    random = np.random.default_rng(0)
    writer = GGUFWriter(HERE / "llama_cpp.gguf", "llama")
    writer.add_name("tiny")
    writer.add_context_length(512)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(1)  # mostly F16
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words += [f"\u2581{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"] + ["\u2581", "\u2581é", "\u2581ü"]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_scores([0.0] * 259 + [-float(i) for i in range(vocabulary - 259)])
    writer.add_token_types([2, 3, 3, *[6] * 256, *[1] * (vocabulary - 259)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    square, wide, tall = (width, width), (hidden, width), (width, hidden)
    shapes = {"token_embd": (vocabulary, width)}
    shapes.update({f"blk.0.attn_{part}": square for part in ("q", "k", "v", "output")})
    shapes.update({"blk.0.ffn_gate": wide, "blk.0.ffn_up": wide, "blk.0.ffn_down": tall})
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", random.normal(0, 0.6, shape).astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_rest() -> None:
    """The null engine's model, what the Edge TPU adapter looks for in a compiled one, what a played TensorRT loads."""
    (HERE / "null.null").write_bytes(b"\0")
    (HERE / "tensorrt.engine").write_bytes(b"an engine that tests play\n")
    (HERE / "edgetpu_edgetpu.tflite").write_bytes(b"\x1c\0\0\0TFL3edgetpu-custom-op")


if __name__ == "__main__":
    write_onnx()
    write_openvino()
    write_keras()
    write_tensorflow()
    write_torch()
    write_gguf()
    write_rest()
