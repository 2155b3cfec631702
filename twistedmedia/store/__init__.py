"""Stores of media: one interface (`interface.Store`) and its implementations."""
