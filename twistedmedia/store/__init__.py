"""Where media lives: one contract (`interface.Store`), more than one place."""
