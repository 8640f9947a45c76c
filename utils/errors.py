"""The one exception that a script shows without a traceback."""


class UserError(Exception):
    """Something its user can mend; the message names the file or constant and says what to do."""
