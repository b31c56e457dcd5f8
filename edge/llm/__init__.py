"""Language models on the host: loading, sessions, chat templates, quantization."""
