"""One HTML page that shows results: tables, figures, proofs, and for each number what made it and how to repeat it."""
