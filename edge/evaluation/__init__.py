"""Measure the accuracy of models on labeled inputs."""
