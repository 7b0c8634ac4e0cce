from __future__ import annotations

import keras
import pytest


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build models without collecting garbage first, which takes half a second."""
    monkeypatch.setattr(keras.utils, "clear_session", lambda: None)
