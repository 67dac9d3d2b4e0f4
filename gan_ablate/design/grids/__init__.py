"""Shipped grids, one TOML file each."""
