"""Studies: grids that are run together and share their runs, a TOML file each."""
