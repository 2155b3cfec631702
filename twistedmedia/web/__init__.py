"""The HTTP interface: Klein routes, with a module for each family of them."""
