"""What is to be run, as checked data: a TOML grid comes in, a plan of run configurations goes out."""
