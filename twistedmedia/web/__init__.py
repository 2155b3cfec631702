"""The HTTP interface: a Klein tree, one file for each family of routes."""
