"""What the bytes of a file are: a verdict that is reached while they arrive. Pure."""
