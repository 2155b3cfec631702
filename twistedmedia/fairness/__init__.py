"""Fair shares of scarce resources for each caller, and of the event loop for each client."""
