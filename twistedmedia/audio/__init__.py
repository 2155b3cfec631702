"""Whether the bytes of a file are the audio that its name promises. Pure."""
