"""The query count of an assessment, against numbers worked out by hand."""

import pytest

from securitynet.assessments.result import count_queries
from securitynet.records import Queries

RECORDS = Queries(total=100, unique=90)


@pytest.mark.parametrize(
    ("trials", "total", "unique"),
    [
        ([], 100, 90),
        ([Queries(total=100, unique=90, records=90)] * 3, 400, 90),  # the same records, four times
        ([Queries(total=150, unique=130, records=90)], 250, 130),  # 40 images of its own
        ([Queries(total=150, unique=130, records=90)] * 2, 400, 170),
        ([Queries(total=120, unique=110, records=110), Queries(total=60, unique=50, records=20)], 280, 140),
        ([Queries()], 100, 90),  # skipped
        ([Queries(total=150, unique=130), Queries(total=10, unique=10)], 260, 130),  # of an earlier version
    ],
)
def test_records_are_distinct_once_and_other_images_for_each_trial(trials, total, unique):
    assert count_queries(RECORDS, trials, sent=7) == {"total": total, "unique": unique, "sent": 7}
