"""Where media lives: one contract (`boundaries.Store`), more than one place."""
