"""Talking with a language model: templates, contexts, histories, and the terminal that shows them."""
