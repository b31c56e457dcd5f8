"""Convert language models to GGUF: their configurations, tokenizers and weights, and the proof of the result."""

PLAIN = ("fp16", "fp32", "bf16")  # the precisions that are written without llama.cpp's quantizer


def encoder_name(model: str) -> str:
    """Return the name of the picture encoder's file next to the language model `model`, a file name without suffix."""
    return f"mmproj-{model}.gguf"
