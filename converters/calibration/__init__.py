"""Calibration data: real inputs for quantization and verification, or synthetic ones."""
