"""HTTP. Knows bytes, headers and connections, and nothing of media."""
