"""Language models; host only, this folder is never copied to a board."""
