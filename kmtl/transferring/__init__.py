"""Models that begin with what others have learned; tasks that come and go."""

from kmtl.transferring._forgetting import Forgetting, forgetting
from kmtl.transferring._transfer import transfer
from kmtl.transferring.carrying import Transferred
from kmtl.transferring.tasks import add_task, remove_task

__all__ = [
    "Forgetting",
    "Transferred",
    "add_task",
    "forgetting",
    "remove_task",
    "transfer",
]
