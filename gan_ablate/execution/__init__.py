"""A plan's runs come in, their records go out: computed, kept on disk, and told of meanwhile."""
