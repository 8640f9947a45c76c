"""The exception that scripts show without a traceback."""


class UserError(Exception):
    """A problem that the user can fix; the message names the file or constant and says what to do."""
