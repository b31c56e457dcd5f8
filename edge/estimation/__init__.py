"""Estimate latency, energy and memory of a model on a device without having it, from published rows."""
