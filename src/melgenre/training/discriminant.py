"""A linear head in closed form: scaling, principal components and a linear discriminant."""

import torch
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.preprocessing import StandardScaler
from torch import nn

COMPONENTS = 400
"""Principal components that the discriminant uses; fewer where there are fewer clips."""


def fit_discriminant(
    head: nn.Sequential, features: torch.Tensor, genres: torch.Tensor, *, shrinkage: float
) -> None:
    """Fit a linear head by linear discriminant analysis with a shrunk covariance.

    There are more features than clips, so the features are standardised and projected to their
    principal components first. The three steps are linear: the statistics of the batch norm are the
    first, and the weights of the last layer are the product of the others. The method is that of
    Friedman, "Regularized discriminant analysis" (1989), and scikit-learn computes it.

    Parameters
    ----------
    head
        It ends with a batch norm and a linear layer, and is changed in place.
    features : torch.Tensor [shape=(n, d)]
        Of a frozen body, for the training clips.
    genres : torch.Tensor [shape=(n,)]
        Numbers of the genres; each occurs.
    shrinkage
        Between 0, the covariance of the clips, and 1, the same variance for all components.
    """
    *first, norm, last = head.eval()
    with torch.no_grad():
        x = nn.Sequential(*first)(features).cpu().numpy().astype("float64")
    scaler = StandardScaler().fit(x)
    pca = PCA(min(COMPONENTS, len(x) - 1, x.shape[1]), svd_solver="full")
    components = pca.fit_transform(scaler.transform(x))
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage)
    lda.fit(components, genres.cpu().numpy())
    weights = lda.coef_ @ pca.components_
    bias = lda.intercept_ - weights @ pca.mean_
    with torch.no_grad():
        norm.weight.fill_(1)
        norm.bias.fill_(0)
        for ours, fitted in (
            (norm.running_mean, scaler.mean_),
            (norm.running_var, scaler.scale_**2),
            (last.weight, weights),
            (last.bias, bias),
        ):
            ours.copy_(torch.from_numpy(fitted))
