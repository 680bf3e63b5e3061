"""Work on all cores: one process per core, and a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

MIN_PARALLEL = 8
"""Up to so many calls, starting worker processes takes longer than the work."""


def parallel_map(
    function: Callable,
    calls: Sequence[tuple],
    *,
    desc: str,
    unit: str,
    progress: bool = True,
) -> Iterator[Any]:
    """Call a function many times, on all cores.

    The workers may have another working directory, so paths among the arguments must be absolute.

    Parameters
    ----------
    calls
        The arguments of each call.
    desc, unit
        Text of the progress bar: what is done, and to what.

    Yields
    ------
    object
        What each call returns, in the order of `calls`.
    """
    # Imported here: a prediction by ONNX Runtime needs neither.
    from joblib import Parallel, delayed
    from tqdm.auto import tqdm

    workers = Parallel(n_jobs=1 if len(calls) <= MIN_PARALLEL else -1, return_as="generator")
    results = workers(delayed(function)(*arguments) for arguments in calls)
    yield from tqdm(
        results, total=len(calls), desc=desc, unit=unit, disable=not (progress and calls)
    )
