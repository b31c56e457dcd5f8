"""What is known of each board and accelerator: one TOML file each, every fact with its source.

`profiles` reads them, `published` reads the tables that other people printed.
"""
