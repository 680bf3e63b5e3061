"""fastai's DataLoader of one of several processes. Importing fastai's needs Accelerate."""

import math
import random

import torch
from fastai.distributed import DistributedDL


class SharedDL(DistributedDL):
    """A share of the items of a DataLoader: other ones in each process, and as many; on any device.

    Where the items are no multiple of the processes, the last process repeats the first ones.
    """

    @property
    def rng(self) -> random.Random:
        """The random numbers of the order, for checkpoints."""
        return self.dl.rng

    def __len__(self) -> int:
        """Batches of this process; fastai also counts one that `drop_last` has dropped."""
        items = math.ceil(self.dl.n / self.world_size)
        return items // self.bs if self.drop_last else math.ceil(items / self.bs)

    def _broadcast(self, t, rank):
        """The order of the items, from one process to all; fastai has this for GPUs only."""
        order = torch.tensor(t, device=self.device)
        torch.distributed.broadcast(order, rank)
        return order.tolist()
