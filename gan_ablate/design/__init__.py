"""The design of experiments: read grids from TOML files and resolve them into plans of runs."""
