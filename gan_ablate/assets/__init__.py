"""Embedded files: ten thousand training digits, the held-out digits, and the weights of the scoring classifiers."""
