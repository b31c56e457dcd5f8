"""Bounded readers of the two wire formats that model files use: FlatBuffers and Protocol Buffers."""
