"""Work on all cores, or on a Dask cluster, with a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from .errors import MelgenreError, extra_packages

MIN_PARALLEL = 8
"""Up to so many songs, starting worker processes takes longer than the work."""

TASK_SECONDS = 1, 5
"""At least and at most, of short calls sent to a cluster together: Dask takes 10 ms for a task."""


class ClusterError(MelgenreError, OSError):
    """A cluster that cannot be reached, or that gave up a call."""


def parallel_map(
    function: Callable,
    calls: Iterable[tuple],
    *,
    total: int,
    desc: str,
    unit: str,
    progress: bool = True,
    threads: bool = False,
    serial: int = MIN_PARALLEL,
) -> Iterator[tuple[int, Any]]:
    """Call a function many times, on all cores, or where `joblib.parallel_config` sends the calls.

    The calls are independent of each other, and one can be repeated: a cluster repeats those of a
    worker that it has lost. A few calls for each core are under way at a time. Workers may have
    another working directory, so paths among the arguments must be absolute.

    Parameters
    ----------
    calls
        The arguments of each call.
    total
        The number of calls.
    desc, unit
        Text of the progress bar: what is done, and to what.
    threads
        Without a cluster, use threads: for functions that work outside of Python's lock.
    serial
        So many calls or fewer are made one after the other: processes would take longer to start.

    Yields
    ------
    tuple of (int, object)
        The index of a call and what it returned, as soon as it has returned.

    Raises
    ------
    ClusterError
        If a call cannot be run on the cluster.
    """
    # Imported here: a single prediction needs neither.
    from joblib import Parallel, delayed
    from tqdm.auto import tqdm

    few = 1 if threads else serial
    workers = Parallel(
        n_jobs=1 if total <= few else -1,
        prefer="threads" if threads else "processes",
        return_as="generator_unordered",
        # Threads need no batches of short calls; in one, a long call holds back the others.
        batch_size=1 if threads else "auto",
    )
    if type(workers._backend).__name__ == "DaskDistributedBackend":
        workers.batch_size = "auto"
        workers.pre_dispatch = "4 * n_jobs"  # with joblib's 2, workers wait between two tasks
        _adapt_dask(workers._backend)
    results = workers(delayed(_numbered)(function, *numbered) for numbered in enumerate(calls))
    bar = tqdm(total=total, desc=desc, unit=unit, disable=not (progress and total))
    with bar, _cluster_errors():
        for result in results:
            bar.update()
            yield result


def _numbered(function, number, arguments):
    return number, function(*arguments)


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """Run the calls of `parallel_map` in this block on a Dask cluster.

    Parameters
    ----------
    address
        Of the scheduler, as in `tcp://10.0.0.5:8786`. None: the block runs on this machine.

    Raises
    ------
    ClusterError
        If there is no scheduler.
    MissingPackageError
        If dask.distributed is not installed.
    """
    if address is None:
        yield
        return
    with extra_packages("cluster", "A cluster"):
        from dask.distributed import Client
    from joblib import parallel_config

    try:
        client = Client(address)
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"No Dask scheduler answers at {address}. `dask scheduler` starts one and prints its "
            "address, such as tcp://10.0.0.5:8786."
        ) from error
    with client, parallel_config(backend="dask"):
        yield


def _adapt_dask(backend: Any) -> None:
    """Adapt joblib's Dask backend in three points.

    It runs the callback of a call only if the call has returned or raised: joblib would wait for
    ever for a call that the cluster gave up. Of a cluster with one worker joblib makes no use. And
    its batches are as short as processes of one machine need them.
    """
    backend.MIN_IDEAL_BATCH_DURATION, backend.MAX_IDEAL_BATCH_DURATION = TASK_SECONDS
    submit, retrieve = backend.submit, backend.retrieve_result_callback

    def submit_and_watch(function, callback):
        future = submit(function, callback)
        future.add_done_callback(lambda done: done.exception() and callback(done))
        return future

    count = backend.effective_n_jobs
    backend.effective_n_jobs = lambda n_jobs: max(2, count(n_jobs))
    backend.submit = submit_and_watch
    backend.retrieve_result_callback = lambda found: (
        found.result() if isinstance(found, Future) else retrieve(found)
    )


@contextmanager
def _cluster_errors() -> Iterator[None]:
    """Turn the errors of Dask into sentences."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("distributed"):
            raise
        raise ClusterError(
            f"The cluster gave up a call ({type(error).__name__}). A recording that ends its "
            "worker, or too little memory, may be the cause: see the log of the workers. Run this "
            "again: it resumes."
        ) from error
