"""A run's configuration and images come in, trained networks go out, with their history and what a step cost."""
