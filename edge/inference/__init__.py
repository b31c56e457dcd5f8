"""From an input to an answer: reading, preprocessing, what is known of a model without manifest, the run."""
