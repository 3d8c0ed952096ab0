"""What a test expects of an error: which field, file and row it names."""

from typing import Any

import pytest

from modeling_roberta_gru.errors import InputError


def refused(*, match: str | None = None, **names: Any) -> Any:
    """Expect an InputError that names these: `with refused(field="warmup_steps"): …`.

    Args:
        match: what else its sentence must hold, if it says something worked out for the user: rows, the nearest name.
        **names: `field`, `file`, `row`.
    """

    def check(error: InputError) -> bool:
        assert {name: getattr(error, name) for name in names} == names, str(error)
        return True

    return pytest.raises(InputError, match=match, check=check)
