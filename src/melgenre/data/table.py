"""The columns of a table of predictions: a probability `p_<genre>` for each genre.

Nothing is imported here: a model that runs by ONNX Runtime uses it without pandas.
"""

PREFIX = "p_"

SEPARATOR = "; "
"""Between the genres of one song, in a cell of a CSV."""


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


def genres_above(probabilities, thresholds):
    """The genres of a multi-label prediction: those whose probability reaches their threshold.

    Where none does, it is the most probable genre, because every song has one: the T-criterion of
    Boutell et al., "Learning multi-label scene classification" (2004).

    Parameters
    ----------
    probabilities, thresholds : dict of str to float
        Of each genre.

    Returns
    -------
    list of str
        The most probable first.

    Examples
    --------
    >>> thresholds = {"jazz": 0.2, "punk": 0.5, "rock": 0.5}
    >>> genres_above({"jazz": 0.3, "punk": 0.4, "rock": 0.9}, thresholds)
    ['rock', 'jazz']
    >>> genres_above({"jazz": 0.1, "punk": 0.4, "rock": 0.3}, thresholds)
    ['punk']
    """
    ranked = sorted(probabilities, key=probabilities.get, reverse=True)
    return [genre for genre in ranked if probabilities[genre] >= thresholds[genre]] or ranked[:1]
