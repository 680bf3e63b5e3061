"""The base of all errors that this package raises on purpose."""


class MelgenreError(Exception):
    """Something that cannot be used or done; the message says what, why, and what to do.

    The specific errors also derive from the built-in error that fits, such as `ValueError`.
    """


class MissingPackageError(MelgenreError, ImportError):
    """An optional package that is not installed; the message says how to install it."""
