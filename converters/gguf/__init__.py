"""Language models on their way to GGUF: what they are, their tokenisers, their weights, and the proof of the result."""
