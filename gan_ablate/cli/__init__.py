"""The command line: commands, their options, and what each prints."""
