"""Logs that the event loop does not wait for."""
