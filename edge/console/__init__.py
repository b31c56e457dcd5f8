"""What the terminal shows: safe text and progress bars."""
