"""Sharing what is scarce: who holds what, who waits, and who gives way."""
