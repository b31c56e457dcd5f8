"""Latency, energy and memory of a model on a device that is not at hand, from published rows."""
