"""Numbers as people read them."""

import pytest

from lanline.evaluation.numbers import fixed


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.0186, 4, "0.0186"),
        (1.249e-5, 4, "1.2e-05"),
        (0.0, 3, "0.000"),
        (-0.00001, 3, "-1.0e-05"),
        (14.775, 3, "14.775"),
    ],
)
def test_no_error_is_shown_as_nothing(value, digits, text):
    assert fixed(value, digits) == text
