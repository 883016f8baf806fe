"""The command line: one function a verb, which parses, calls and prints. Errors are one line and exit status 1."""

from amden.cli.program import main

__all__ = ["main"]
