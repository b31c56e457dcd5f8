"""Model folders for the browser: the engines, the page that verifies itself, and the folder's content."""
