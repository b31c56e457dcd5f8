"""Code shared by engine adapters: imports, error mapping, TFLite interpreters, TensorFlow."""
