"""Training: train the networks of a run on its images, and measure the cost of a step."""
