"""Converters, one file per pair of formats, and the verification that a result matches its source."""
