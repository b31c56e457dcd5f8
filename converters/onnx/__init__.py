"""ONNX graphs: clean-up, shapes, float16, weight quantization, opsets."""
