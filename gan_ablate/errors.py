"""The exceptions that a user is meant to read: one line that names what is wrong and what would be valid."""

from __future__ import annotations


class UserError(Exception):
    """Something the user gave cannot be used; the message says what, and what would be. The program exits with 2."""


class RunFailedError(Exception):
    """At least one run of a grid ended with an error; the others are recorded. The program exits with 1."""
