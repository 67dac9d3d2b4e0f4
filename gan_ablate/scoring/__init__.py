"""A generator and real images come in, numbers go out."""
