"""Callbacks of fine-tuning: averaged weights, and the weights of the best epoch."""

import torch
from fastai.vision.all import Callback, CancelFitException, TrackerCallback, get_model
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class WeightAveraging(Callback):
    """Validate, and keep at the end, an exponential moving average of the weights.

    The average generalises better than the last weights: Polyak and Juditsky, "Acceleration of
    stochastic approximation by averaging" (1992). It is torch's own.

    Parameters
    ----------
    decay
        Share of the average that stays after a batch.
    """

    order = 50  # after the training step, before the recorder

    def __init__(self, decay: float):
        self.decay, self.shown = decay, False

    def before_fit(self) -> None:
        """Begin with the weights of the network."""
        average = get_ema_multi_avg_fn(self.decay)
        self.average = AveragedModel(get_model(self.model), multi_avg_fn=average)
        self.shown = False  # whether the network has the averaged weights

    def before_train(self) -> None:
        """Go on with the network's own weights."""
        self._show(False)

    def after_batch(self) -> None:
        """Update the average after each training step."""
        if self.training:
            self.average.update_parameters(get_model(self.model))

    def before_validate(self) -> None:
        """Give the network the averaged weights until the next epoch, or for good."""
        self._show(True)

    def _show(self, shown):
        if shown != self.shown:
            pairs = zip(self.model.parameters(), self.average.module.parameters(), strict=True)
            for own, averaged in pairs:
                own.data, averaged.data = averaged.data, own.data
            self.shown = shown

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The other weights: the network's own while it has the averaged ones."""
        return self.average.state_dict()

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Restore the state after an epoch, when the network has the averaged weights."""
        self.average.load_state_dict(state)
        self.shown = True


class BestEpoch(TrackerCallback):
    """Keep the weights of the epoch with the lowest validation loss; stop when it is long ago.

    In memory and without fastai's printed lines, which `SaveModelCallback` and
    `EarlyStoppingCallback` have.

    Parameters
    ----------
    patience
        Epochs without a lower loss after which the training ends.
    """

    order = 60  # after fastai's recorder and `WeightAveraging`

    def __init__(self, patience: int):
        super().__init__(monitor="valid_loss")
        self.patience, self.waited, self.weights = patience, 0, {}
        self.validated = False

    def before_epoch(self) -> None:
        """An epoch that a resumed training skips is not validated."""
        self.validated = False

    def after_validate(self) -> None:
        """The epoch has a validation loss."""
        self.validated = True

    def after_epoch(self) -> None:
        """Compare the epoch with the best one."""
        if not self.validated:
            return
        super().after_epoch()
        self.waited = 0 if self.new_best else self.waited + 1
        if self.new_best:
            self.weights = {k: v.clone() for k, v in get_model(self.model).state_dict().items()}
        elif self.waited >= self.patience:
            raise CancelFitException

    def after_fit(self) -> None:
        """Load the best epoch's weights."""
        if self.weights:
            get_model(self.model).load_state_dict(self.weights)

    def state_dict(self) -> dict:
        """What a resumed training needs."""
        return {"best": float(self.best), "waited": self.waited, "weights": self.weights}

    def load_state_dict(self, state: dict) -> None:
        """Restore the state after an epoch."""
        self.best, self.waited, self.weights = state["best"], state["waited"], state["weights"]
