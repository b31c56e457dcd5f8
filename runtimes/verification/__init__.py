"""Verify an artifact's outputs: metrics between arrays, and the stored self-check."""
