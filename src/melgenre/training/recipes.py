"""The recipes: how a network is cut, what of it is trained, and for how long."""

import re
from dataclasses import dataclass, replace

from ..errors import MelgenreError

FROM_SCRATCH = "none (from scratch)"
"""The weights of a network that starts from random numbers."""


BALANCED = "balanced-"
"""The start of a recipe's name with which every genre weighs the same in the training."""


class RecipeError(MelgenreError, ValueError):
    """A recipe that does not exist."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes
    ----------
    body
        The kind of body and head, as for `melgenre.networks.build_network`.
    freeze_epochs, epochs
        Epochs with the body frozen, and epochs of all layers after them.
    smoothing
        Label smoothing of the cross-entropy; where songs have several genres there is none.
    shrinkage
        Of the covariances, for linear heads that are fitted in closed form, by linear discriminant
        analysis (of each genre against the rest, where songs have several); None: all heads are
        trained by the optimiser.
    lr, lr_ratio
        Largest learning rate of the last layers once all layers are trained, and how many times
        smaller that of the first ones is.
    averaging
        Share of the averaged weights that stays after a batch of fine-tuning.
    augmentation
        Names in `melgenre.training.augment.AUGMENTATIONS`.
    balanced
        Every genre weighs the same, however many tracks it has: the loss of a track is divided by
        the number of its genre's tracks (King and Zeng, "Logistic regression in rare events data",
        2001), and a linear discriminant has the same prior for all genres. Where songs have several
        genres, the tracks with a genre weigh as much as those without it.
    built_in
        The recipe for the backbone in the package, which is trained where the weights of a network
        cannot be downloaded.
    """

    body: str
    freeze_epochs: int
    epochs: int = 0
    smoothing: float = 0.0
    shrinkage: float | None = None
    lr: float = 3e-4
    lr_ratio: float = 10.0
    averaging: float = 0.98
    augmentation: tuple[str, ...] = ()
    balanced: bool = False
    built_in: str | None = None


RECIPES = {
    # Textures of the early layers, pretrained and frozen, and a head that is trained on these.
    "texture": Recipe("texture", freeze_epochs=30, smoothing=0.1, built_in="texture"),
    # The same textures and a linear discriminant, which is one linear layer and has no epochs: the
    # recipe of the model in the package.
    "discriminant": Recipe("linear", freeze_epochs=30, shrinkage=0.2, built_in="discriminant"),
    # The mean of several heads on the same textures.
    "ensemble": Recipe(
        "texture+texture+texture+linear",
        freeze_epochs=30,
        smoothing=0.1,
        shrinkage=0.2,
        built_in="ensemble",
    ),
    # The original project's: a head on the last layer, pretrained and frozen.
    "frozen-head": Recipe("whole", freeze_epochs=10),
    # The head first, then all layers, the early ones at smaller learning rates.
    "fine-tune": Recipe(
        "whole", freeze_epochs=10, epochs=20, augmentation=("crop",), built_in="fine-tune-texture"
    ),
    # The same for the textures, whose head is large: at smaller rates.
    "fine-tune-texture": Recipe(
        "texture",
        freeze_epochs=30,
        epochs=20,
        smoothing=0.1,
        lr=1e-4,
        lr_ratio=2.0,
        augmentation=("crop", "time", "filter", "style"),
        built_in="fine-tune-texture",
    ),
    # To see that everything runs: the tests use it.
    "smoke-test": Recipe("whole", freeze_epochs=1, epochs=3),
}
"""Each recipe by its name."""


def get_recipe(name: str) -> Recipe:
    """The recipe of a name.

    Parameters
    ----------
    name
        In `RECIPES`; or with a number of epochs of all layers, such as `fine-tune@100`. With
        `balanced-` before it, such as `balanced-texture`, every genre weighs the same in the
        training: for unbalanced genres. On GTZAN with half of its genres cut down to a tenth, the
        macro F1 rises by 8 points for `texture` and by 2 for `discriminant`
        (`benchmarks/balancing.py`). It is not the default: where the test is as unbalanced as the
        training, the accuracy of `texture` falls by 8 points.

    Raises
    ------
    RecipeError
        If there is no such recipe, or if its body stays frozen.

    Examples
    --------
    >>> get_recipe("fine-tune@100").epochs
    100
    >>> get_recipe("balanced-texture").balanced
    True
    """
    if name.startswith(BALANCED):
        recipe = get_recipe(name.removeprefix(BALANCED))
        built_in = recipe.built_in and BALANCED + recipe.built_in
        return replace(recipe, balanced=True, built_in=built_in)
    base, _, epochs = name.partition("@")
    if base not in RECIPES:
        raise RecipeError(f"No recipe {base!r}. Choose one of {', '.join(RECIPES)}.")
    recipe = RECIPES[base]
    if "@" not in name:
        return recipe
    if not re.fullmatch("[1-9][0-9]*", epochs):
        raise RecipeError(
            f"{name!r} has no number of epochs. Write it as a whole number, as in 'fine-tune@100'."
        )
    if not recipe.epochs:
        raise RecipeError(
            f"The recipe {base!r} trains a head on a frozen body, so {name!r} has no meaning. "
            "Choose a recipe of all layers, such as 'fine-tune@100'."
        )
    return replace(recipe, epochs=int(epochs))
