"""What TensorFlow keeps private. Checked on TensorFlow 2.21."""

from __future__ import annotations

from typing import Any

#: Attributes of a `tf.function` that stays a call in the graph: no argument of
#: `tf.function` says so, and inlined, an untaken branch runs operation by operation.
STAYS_A_CALL: dict[str, Any] = {"_noinline": True}
