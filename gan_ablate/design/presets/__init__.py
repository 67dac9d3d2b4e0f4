"""Base models, one TOML file each."""
