"""Errors a user can act on. Each is also the standard error it stands in for, so `except ValueError` keeps working."""


class ReckonError(Exception):
    """Something outside reckon is wrong: the message names the file, row or key, and the remedy.

    The command line prints the message alone, without a traceback. Bugs of ours are never of this class.
    """


class InputError(ReckonError, ValueError):
    """A setting, a row or an argument has a value that cannot be used."""


class MissingError(ReckonError, FileNotFoundError):
    """A file, folder, model or optional package that was named is not there."""


class RunError(ReckonError, RuntimeError):
    """A run cannot go on: no room on the disk, another recipe, a reward function that failed."""
