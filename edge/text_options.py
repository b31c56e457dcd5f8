"""The options of `edge convert` that only language models take; apart, since `--help` needs nothing else."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that only language models take."""
    group = parser.add_argument_group("language models: Hugging Face, Meta and llama2.c to gguf")
    group.add_argument("--lora", type=Path, metavar="FOLDER", help="a PEFT LoRA adapter to merge into the model")
    group.add_argument(
        "--base", type=Path, metavar="FOLDER", help="the model that an adapter belongs to, where MODEL is the adapter"
    )
    group.add_argument("--no-template", action="store_true", help="leave the chat template out")
