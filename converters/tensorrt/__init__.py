"""TensorRT: an ONNX model shaped for one release of it, and what a board needs to build an engine from that."""
