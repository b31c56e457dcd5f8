"""Profiles of boards and accelerators: one TOML file each, every fact with its source.

`profiles` reads them; `published` reads published benchmark tables.
"""
