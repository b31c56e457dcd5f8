"""TensorFlow: tracing a model into one function, and what its converters share."""
