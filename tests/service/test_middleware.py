import structlog

from .conftest import Served


def test_one_line_for_each_request_and_no_secret_in_it(served: Served) -> None:
    with structlog.testing.capture_logs() as lines:
        served.http.get("/v1/models?limit=7&cursor=secret", headers={"X-Request-Id": "r1"})
        served.http.get("/healthz")
    (line,) = lines
    assert (line["event"], line["method"], line["path"], line["status"]) == ("request", "GET", "/v1/models", 422)
    assert "secret" not in str(line)
    assert served.key not in str(line)


def test_a_fault_of_our_own_says_little_outside_and_all_inside(served: Served) -> None:
    def boom() -> None:
        raise RuntimeError("the password is open-sesame")

    served.app.add_api_route("/boom", boom)
    with structlog.testing.capture_logs() as lines:
        answer = served.http.get("/boom")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["X-Request-Id"] in answer.json()["detail"]
    assert "open-sesame" not in answer.text
    error = next(line for line in lines if line["event"] == "unhandled error")
    assert "open-sesame" in str(error["exc_info"])
    assert error["request_id"] == answer.headers["X-Request-Id"]
    assert served.http.get("/healthz").status_code == 200
