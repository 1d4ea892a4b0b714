"""The one exception that users are meant to read."""


class InputError(Exception):
    """Something the user gave is missing, corrupt or inconsistent.

    The message names the file or setting, says what is wrong with it and what to do.
    """
