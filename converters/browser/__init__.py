"""Model folders for the browser: the engines that run there, the page that proves itself, and the folder's content."""
