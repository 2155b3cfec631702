"""Logs that are written by threads, so that the event loop does not wait for them."""
