"""kmtl's own contract tests, for classes of yours.

Call them in your test suite; they need no pytest, and say in a note what failed:

```python
def test_my_rule():
    kmtl.testing.check_weighting(MyRule)
```
"""

from kmtl.testing.inputs import check_input
from kmtl.testing.relations import check_relations
from kmtl.testing.tasks import check_task
from kmtl.testing.trunks import check_backbone, check_sharing
from kmtl.testing.weightings import check_weighting

__all__ = [
    "check_backbone",
    "check_input",
    "check_relations",
    "check_sharing",
    "check_task",
    "check_weighting",
]
