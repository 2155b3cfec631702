"""The application core: what can be done with media, whichever interface asks."""
