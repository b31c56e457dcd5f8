"""Measure the accuracy of models on labelled inputs."""
