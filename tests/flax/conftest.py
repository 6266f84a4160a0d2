"""What the tests of the Flax classes share."""

import pytest


@pytest.fixture
def twin_calls(monkeypatch):
    """The calls that the C++ encoder has served, by the shapes of their ids."""
    from electra_fast.functional.twin import Twin

    calls, call = [], Twin.__call__

    def note(twin, input_ids, *others, **options):
        calls.append(input_ids.shape)
        return call(twin, input_ids, *others, **options)

    monkeypatch.setattr(Twin, "__call__", note)
    return calls
