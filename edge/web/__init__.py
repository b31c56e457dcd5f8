"""Artifacts for the browser: serving them, and running them in a browser of this machine."""
