"""Describe this machine: its devices, its accelerators and the profiles that they match."""
