"""The base of all errors and warnings that this package raises on purpose."""


class MelgenreError(Exception):
    """Something that cannot be used or done; the message says what, why, and what to do.

    The specific errors also derive from the built-in error that fits, such as `ValueError`.
    """


class MissingPackageError(MelgenreError, ImportError):
    """An optional package that is not installed; the message says how to install it."""


class MelgenreWarning(UserWarning):
    """Something that a user should know although the work goes on, in one sentence."""
