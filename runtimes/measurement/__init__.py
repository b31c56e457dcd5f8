"""Timing of a model in this process: protocols, samples, statistics."""
