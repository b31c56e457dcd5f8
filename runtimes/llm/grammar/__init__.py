"""Translate JSON schemas to GBNF, llama.cpp's language for grammars."""
