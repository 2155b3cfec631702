"""The command `twistedmedia` (docs/client.md)."""
