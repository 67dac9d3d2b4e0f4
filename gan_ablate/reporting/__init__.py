"""Effects and verdicts come in, pages, tables and figures go out."""
