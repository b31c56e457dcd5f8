"""Predict from a model file alone, node by node, whether a device runs it."""
