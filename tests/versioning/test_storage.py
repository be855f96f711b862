"""What goes wrong with a storage, in words. The real server's refusals are in test_inbox, test_faults and test_secrets."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from ti_pipeline.versioning.storage import Place, explain

HERE = Place(None, "bucket", "dvc", "http://127.0.0.1:1")


@pytest.mark.parametrize("headers", [{}, {"date": "some day"}, {"date": "Fri, 27 Nov 1970 03:00:00 -0000"}])
def test_a_refusal_whose_date_says_nothing_is_a_refusal(headers: dict[str, str]) -> None:
    answer = {"Error": {"Code": "403"}, "ResponseMetadata": {"HTTPStatusCode": 403, "HTTPHeaders": headers}}
    assert "the key is refused (403)" in str(explain(ClientError(answer, "HeadObject"), HERE))


def test_a_refusal_from_a_server_of_another_time_is_its_clock() -> None:
    headers = {"date": "Fri, 27 Nov 1970 03:00:00 GMT"}
    answer = {"Error": {"Code": "403"}, "ResponseMetadata": {"HTTPStatusCode": 403, "HTTPHeaders": headers}}
    assert "the clocks of this machine and of the server differ" in str(explain(ClientError(answer, "HeadObject"), HERE))
