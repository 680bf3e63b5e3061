"""The columns of a table of predictions: a probability `p_<genre>` for each genre.

Nothing is imported here: a model that runs by ONNX Runtime uses it without pandas.
"""

PREFIX = "p_"


def probability_columns(genres):
    """The names of the columns that hold the probabilities of some genres.

    Parameters
    ----------
    genres : iterable of str

    Returns
    -------
    list of str

    Examples
    --------
    >>> probability_columns(["jazz", "rock"])
    ['p_jazz', 'p_rock']
    """
    return [PREFIX + genre for genre in genres]


def probabilities(table):
    """The probabilities of a table of predictions.

    Parameters
    ----------
    table : pd.DataFrame

    Returns
    -------
    pd.DataFrame [shape=(n, n_genres)]
        The columns `p_<genre>` of `table`, each named by its genre; no column where it has none.

    Examples
    --------
    >>> import pandas as pd
    >>> probabilities(pd.DataFrame({"genre": ["jazz"], "p_jazz": [0.9], "p_rock": [0.1]}))
       jazz  rock
    0   0.9   0.1
    """
    named = [column for column in table if str(column).startswith(PREFIX)]
    return table[named].rename(columns=lambda column: column.removeprefix(PREFIX))
