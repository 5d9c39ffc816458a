import httpx2
import pytest
from pydantic import TypeAdapter

from sparring.errors import ApiError, ServiceAway, UsageProblem
from sparring.wire import Wire, messages

STREAM = ': hello\n\nid: 1\nevent: state\ndata: {"a":\ndata: "é\u2028"}\n\nid: 2\r\ndata:x\r\n\r\n: ping\n\nid: 3\ndata: cut off'.encode()


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_messages_are_the_same_however_the_bytes_arrive(size):
    chunks = [STREAM[at : at + size] for at in range(0, len(STREAM), size)]
    assert list(messages(chunks)) == [("1", '{"a":\n"é\u2028"}'), ("2", "x")]


def wire(answer):
    return Wire("http://service.test", "svc_x", httpx2.MockTransport(answer))


@pytest.mark.parametrize(
    "url", ["service.test", "ftp://service.test", "http://", "", "http://[::1", "http://h:port", "http://h:99999", "http://a\nb"]
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(UsageProblem, match="no address"):
        Wire(url, None)


@pytest.mark.parametrize("key", ["svc_…", "svc_a b", "clé", "svc_\x1b"])
def test_what_no_key_can_be_is_refused_and_not_repeated(key):
    with pytest.raises(UsageProblem, match="characters that no key has") as caught:
        Wire("http://service.test", key)
    assert key not in str(caught.value)


def test_nobody_there_says_where(free_port):
    with pytest.raises(ServiceAway, match=f"127.0.0.1:{free_port} cannot be reached"):
        Wire(f"http://127.0.0.1:{free_port}", None).request("GET", "/healthz")


def test_the_key_travels_as_bearer():
    seen = []

    def answer(request):
        seen.append(request.headers["authorization"])
        return httpx2.Response(200, json={})

    wire(answer).request("GET", "/")
    assert seen == ["Bearer svc_x"]


def test_problem_details_become_an_error_with_every_fault():
    faults = [{"where": "body", "pointer": "/threats/0/eps", "message": "bad"}, {"where": "body", "pointer": "/seed", "message": "worse"}]
    body = {"type": "urn:sparring:problem:invalid-request", "title": "T", "detail": "threats.0.eps: bad", "hint": "do", "problems": faults}
    with pytest.raises(ApiError) as caught:
        wire(lambda _: httpx2.Response(422, json=body)).request("GET", "/")
    error = caught.value
    assert (error.status, error.code, error.hint) == (422, "invalid-request", "do")
    assert str(error) == "threats.0.eps: bad; /seed: worse"
    assert error.problems == tuple(faults)


@pytest.mark.parametrize("answer", [httpx2.Response(502, text="<h1>Bad gateway"), httpx2.Response(404, json=["no"])])
def test_an_error_of_another_server_is_told_as_one(answer):
    with pytest.raises(ApiError, match="not as Sparring does"):
        wire(lambda _: answer).request("GET", "/")


def test_an_answer_that_is_not_understood_is_told():
    with pytest.raises(ApiError, match="does not understand"):
        wire(lambda _: httpx2.Response(200, text="<html>")).ask(TypeAdapter(int), "GET", "/")
