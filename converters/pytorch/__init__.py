"""PyTorch models: reading, and exporting to programs without Python code (`.pt2`)."""
