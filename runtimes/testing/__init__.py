"""Contract test suites for engines and tasks, used by our own tests and by extensions."""
