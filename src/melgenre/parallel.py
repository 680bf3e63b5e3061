"""Work on all cores: a process for each, in this folder."""

import os

MIN_PARALLEL = 8
"""Below so many calls, starting worker processes takes longer than the work."""


def parallel_map(function, calls, *, desc, unit, progress=True):
    """Call a function many times, on all cores.

    Parameters
    ----------
    function : callable
    calls : list of tuple
        The arguments of each call.
    desc, unit : str
        Of the progress bar: what is done, to what.
    progress : bool
        Show a progress bar.

    Yields
    ------
    object
        What each call returned, in the order of `calls`.
    """
    # Here alone: a model answers where only ONNX Runtime and librosa are installed.
    from joblib import Parallel, delayed
    from tqdm.auto import tqdm

    workers = Parallel(n_jobs=1 if len(calls) <= MIN_PARALLEL else -1, return_as="generator")
    jobs = workers(delayed(_call)(os.getcwd(), function, arguments) for arguments in calls)
    yield from tqdm(jobs, total=len(calls), desc=desc, unit=unit, disable=not (progress and calls))


def _call(folder, function, arguments):
    """Workers are kept from one call to the next, and may stand in an earlier one's folder."""
    os.chdir(folder)
    return function(*arguments)
