"""A file of somebody else is made to be slow: however its marks stand, time grows with its length and no faster."""

import time

import pytest

from modeling_roberta_gru.data.dialect import (
    DOUBLED,
    NONE,
    SAMPLE_BYTES,
    Dialect,
    find_dialect,
    read_rows,
    split_lines,
)

NUM_CHARACTERS = 30_000
MOST_SECONDS = 0.2
"""Of the processor: what grows with the square of the length takes a minute and more."""
UNITS = [
    *('"', "\\", '\\"', '""', '","', 'a,"b\n', '\t"', "\\\n", "\\N", "\r", '"\n', ', "', '""\\', '"a"b', "a\tb\n"),
    'sep=\\\n"',
]
DIALECTS = [
    Dialect(","),
    Dialect(",", DOUBLED, "\\"),
    Dialect("\t", NONE, "\\"),
    Dialect("\t", NONE),
    Dialect(",", DOUBLED, None, skip_spaces=True),
    Dialect("\t", DOUBLED),
]


@pytest.mark.parametrize("start", ["", 'a,b\n"', 'sep=;\n"'])
@pytest.mark.parametrize("unit", UNITS)
def test_finding_a_dialect_and_reading_by_any_takes_time_in_proportion(unit, start):
    text = start + unit * (NUM_CHARACTERS // len(unit))

    def seconds(call):
        begun = time.process_time()
        call()
        return time.process_time() - begun

    taken = {"find": seconds(lambda: find_dialect(text[:SAMPLE_BYTES], is_cut=True))}
    for dialect in DIALECTS:
        taken[f"read {dialect}"] = seconds(lambda dialect=dialect: list(read_rows(split_lines(text), dialect)))
        if dialect.quoting == DOUBLED or dialect.escape:
            taken[f"write {dialect}"] = seconds(lambda dialect=dialect: dialect.line([text, text]))
    assert max(taken.values()) < 10 * MOST_SECONDS, taken  # ten times, for machines that are slow or busy
