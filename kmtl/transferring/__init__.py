"""Models that begin with what others have learned; tasks that come and go."""

from kmtl.transferring.carrying import Transferred
from kmtl.transferring.forgetting import Forgetting, forgetting
from kmtl.transferring.tasks import add_task, remove_task
from kmtl.transferring.transfer import transfer

__all__ = [
    "Forgetting",
    "Transferred",
    "add_task",
    "forgetting",
    "remove_task",
    "transfer",
]
