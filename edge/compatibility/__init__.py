"""Check whether a model runs on a device: node by node for tensor models, by memory for language models."""
