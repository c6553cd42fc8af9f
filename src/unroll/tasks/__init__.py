"""The tasks: what the entry point can carry out, each a page that reads like a recipe."""
