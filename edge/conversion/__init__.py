"""The host side of conversions: planning, data sets, and starting the worker that converts."""
