"""Our gateway buys from orchestrators of go-livepeer, each defect of which is a test."""

import asyncio
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.dispatch import Routing
from gateway.orchestrators import client
from gateway.orchestrators.standing import Pausing
from network.errors import Problem, ProblemError
from network.wire.session import AuthToken
from tests.gateway.routing import Desk, Key, open_desk, request_for, until
from tests.livepeer.go_orchestrator import TOKEN_SECONDS, GoOrchestrator
from tests.livepeer.go_port import serving
from tests.node.fakes import png


async def delivered(desk: Desk, name: str = "r", **fields: object) -> str:
    """The orchestrator that delivered what was asked for."""
    result = await desk.dispatcher.run(name, Key(), request_for(**fields))
    await result.settled
    count = fields.get("num_images_per_prompt", 1)
    assert isinstance(count, int)
    assert [image.png for image in result.images] == [png(64, 64, 7 + n) for n in range(count)]
    return result.orchestrator


async def problem_of(desk: Desk, **fields: object) -> Problem:
    with pytest.raises(ProblemError) as caught:
        await desk.dispatcher.run("r", Key(), request_for(**fields))
    return caught.value.problem


def failures(desk: Desk, orchestrator: GoOrchestrator) -> int:
    return next(
        state.failures for state in desk.directory.states() if state.uri == orchestrator.uri
    )


async def test_a_certificate_for_no_name_we_know_is_no_obstacle(tmp_path: Path) -> None:
    """Its only name is an IP address written as a DNS name; HTTP and gRPC share the port."""
    async with (
        serving(GoOrchestrator(), tmp_path) as go,
        open_desk(tmp_path, [go.uri]) as desk,
    ):
        assert await delivered(desk) == go.uri
        assert go.downloads, "its images were links"


async def test_images_behind_links_are_fetched_from_its_own_port(tmp_path: Path) -> None:
    async with (
        serving(GoOrchestrator(), tmp_path) as go,
        open_desk(tmp_path, [go.uri]) as desk,
    ):
        await delivered(desk, num_images_per_prompt=3)
        assert len(set(go.downloads)) == len(go.downloads) == 3


async def test_one_name_for_several_images_is_a_wrong_answer_and_no_delivery(
    tmp_path: Path,
) -> None:
    """A combined orchestrator overwrites each image by the next, and names one url for all."""
    one_name, good = GoOrchestrator(workers="local"), GoOrchestrator()
    async with (
        serving(one_name, tmp_path),
        open_desk(tmp_path, [one_name.uri]) as desk,
    ):
        await delivered(desk, "one image is its own")
        problem = await problem_of(desk, num_images_per_prompt=2)
        assert "one url for several images" in problem.message
        assert failures(desk, one_name) == 1
    (tmp_path / "both").mkdir()
    async with (
        serving(one_name, tmp_path),
        serving(good, tmp_path),
        open_desk(tmp_path / "both", [one_name.uri, good.uri]) as desk,
    ):
        assert await delivered(desk, num_images_per_prompt=2) == good.uri


async def test_stale_capacity_is_no_fault_and_the_next_has_a_place(tmp_path: Path) -> None:
    """With remote workers it says that more and more is free, and refuses all the same."""
    full, other = GoOrchestrator(capacity=1), GoOrchestrator()
    async with (
        serving(full, tmp_path),
        serving(other, tmp_path),
        open_desk(tmp_path, [full.uri, other.uri]) as desk,
    ):
        full._drift = 5
        full.job_seconds = 1.0
        await until(lambda: _free(desk, full) > 2)
        found = await asyncio.gather(*(delivered(desk, f"r{number}") for number in range(6)))
        assert other.uri in found
        assert failures(desk, full) == failures(desk, other) == 0


def _free(desk: Desk, go: GoOrchestrator) -> int:
    offer = desk.directory.offer(go.uri)
    return 0 if offer is None else next(model.free for model in offer.models.values())


async def test_a_lone_orchestrator_that_only_says_it_has_places_is_explained(
    tmp_path: Path,
) -> None:
    go = GoOrchestrator(capacity=0)
    go._drift = 3
    async with (
        serving(go, tmp_path),
        open_desk(tmp_path, [go.uri], routing=Routing(max_wait=0.2)) as desk,
    ):
        problem = await problem_of(desk)
        assert problem.status == 503
        assert "insufficient capacity" in problem.message or "busy" in problem.message
        assert failures(desk, go) == 0


async def test_a_restart_costs_one_question_and_no_standing(tmp_path: Path) -> None:
    """Its tokens are signed by a secret that lives as long as the process."""
    async with (
        serving(GoOrchestrator(), tmp_path) as go,
        open_desk(tmp_path, [go.uri]) as desk,
    ):
        await delivered(desk, "r1")
        go.restart()
        await delivered(desk, "r2")
        assert failures(desk, go) == 0


async def test_a_token_that_ran_out_is_renewed(tmp_path: Path) -> None:
    async with (
        serving(GoOrchestrator(), tmp_path) as go,
        open_desk(tmp_path, [go.uri]) as desk,
    ):
        await delivered(desk, "r1")
        go.now = lambda: 2_000_000_000.0 + TOKEN_SECONDS + 1
        await delivered(desk, "r2")
        assert failures(desk, go) == 0


async def test_a_worker_that_fails_is_a_fault_and_its_words_are_told(tmp_path: Path) -> None:
    go = GoOrchestrator()
    go.failures.append("CUDA out of memory")
    async with serving(go, tmp_path), open_desk(tmp_path, [go.uri]) as desk:
        problem = await problem_of(desk)
        assert "it answered 500: CUDA out of memory" in problem.message
        assert failures(desk, go) == 1


async def test_what_the_runner_calls_a_400_is_told_to_the_client_as_one(tmp_path: Path) -> None:
    go, other = GoOrchestrator(), GoOrchestrator()
    go.failures.append("text-to-image container returned 400: the prompt is too long")
    other.failures.append("text-to-image container returned 400: the prompt is too long")
    async with (
        serving(go, tmp_path),
        serving(other, tmp_path),
        open_desk(tmp_path, [go.uri, other.uri]) as desk,
    ):
        problem = await problem_of(desk)
        assert (problem.status, problem.message) == (400, "the prompt is too long")
        assert len(go.seen) + len(other.seen) == 1
        assert failures(desk, go) == failures(desk, other) == 0


async def _panicking(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    raise ConnectionResetError


async def _empty(_request: web.Request) -> web.StreamResponse:
    return web.Response()


@pytest.mark.parametrize(
    ("job", "words"),
    [(_panicking, "the connection broke"), (_empty, "it answered 200: nothing")],
    ids=["a panic drops the connection", "an empty 200"],
)
async def test_an_answer_that_is_none_is_a_fault_and_the_next_delivers(
    tmp_path: Path, job: Handler, words: str
) -> None:
    """What a missing model_id and a wrong method do there; our gateway sends neither."""
    bad, good = GoOrchestrator(), GoOrchestrator()
    bad.job = job  # type: ignore[method-assign, assignment]
    async with (
        serving(bad, tmp_path),
        serving(good, tmp_path),
        open_desk(tmp_path, [bad.uri, good.uri], pausing=Pausing(60.0)) as desk,
    ):
        # More than one has places for: some are sent to the other.
        good.job_seconds = 0.1
        crowd = [delivered(desk, f"r{number}") for number in range(4)]
        assert set(await asyncio.gather(*crowd)) == {good.uri}
        state = next(one for one in desk.directory.states() if one.uri == bad.uri)
        assert state.failures == 1
        assert words in state.last_fault
        assert all(one.body["model_id"] == "m" for one in good.seen)


async def test_one_that_takes_no_work_is_passed_over(tmp_path: Path) -> None:
    idle, good = GoOrchestrator(takes_work=False), GoOrchestrator()
    async with (
        serving(idle, tmp_path),
        serving(good, tmp_path),
        open_desk(tmp_path, [idle.uri, good.uri]) as desk,
    ):
        for number in range(4):
            assert await delivered(desk, f"r{number}") == good.uri
        assert not idle.seen
        assert failures(desk, idle) == 0


async def test_one_that_is_capped_is_asked_again_later(tmp_path: Path) -> None:
    go = GoOrchestrator(is_capped=True)
    async with serving(go, tmp_path), open_desk(tmp_path, [go.uri]) as desk:
        problem = await problem_of(desk)
        assert "OrchestratorCapped" in problem.message
        go.is_capped = False
        await until(lambda: desk.directory.offer(go.uri) is not None)
        assert await delivered(desk, "later") == go.uri


async def test_progress_that_it_does_not_tell_is_sent_and_nothing_more(tmp_path: Path) -> None:
    go = GoOrchestrator(job_seconds=0.5)
    async with serving(go, tmp_path), open_desk(tmp_path, [go.uri]) as desk:
        task = asyncio.create_task(delivered(desk))
        await until(lambda: go.under_way)
        told = await desk.dispatcher.watching.progress("r", "key")
        assert told is not None
        assert (told.state, told.done_steps) == ("sent", 0)
        assert await task == go.uri


async def test_a_client_that_leaves_frees_its_place(tmp_path: Path) -> None:
    go = GoOrchestrator(job_seconds=30.0)
    async with serving(go, tmp_path), open_desk(tmp_path, [go.uri]) as desk:
        task = asyncio.create_task(delivered(desk))
        await until(lambda: go.under_way)
        task.cancel()
        await asyncio.wait([task])
        await until(lambda: go.cancelled and not go.under_way)


# Links, as bad as they come

_ELSEWHERE = "an image url leads to another host"
#: And what becomes of them.
_LINKS = {
    "another host": ("https://localhost:1/stream/x/y.png", _ELSEWHERE),
    "another port": ("https://127.0.0.1:1/stream/x/y.png", _ELSEWHERE),
    "another scheme": ("http://127.0.0.1:{port}/stream/x/y.png", _ELSEWHERE),
    "a user": ("https://me:secret@127.0.0.1:{port}/stream/x/y.png", _ELSEWHERE),
    "a network path": ("//localhost:1/stream/x/y.png", _ELSEWHERE),
    "a file": ("file:///etc/passwd", _ELSEWHERE),
    "gone": ("https://127.0.0.1:{port}/stream/x/gone.png", "an image url answered 404"),
    "elsewhere by redirect": (
        "https://127.0.0.1:{port}/stream/redirect",
        "an image url answered 302",
    ),
    "far too large": ("https://127.0.0.1:{port}/stream/large", "is larger than asked for"),
    "no image": ("https://127.0.0.1:{port}/stream/text", "an image is not a PNG"),
}


@pytest.mark.parametrize("kind", _LINKS)
async def test_a_bad_link_is_a_fault_and_no_way_into_other_hosts(
    tmp_path: Path, kind: str
) -> None:
    bad, other = GoOrchestrator(), GoOrchestrator()
    url, words = _LINKS[kind]

    async def job(_request: web.Request) -> web.StreamResponse:
        link = url.format(port=bad.uri.rpartition(":")[2])
        return web.json_response({"images": [{"url": link, "seed": 7, "nsfw": False}]})

    async def stream(request: web.Request) -> web.Response:
        bad.downloads.append(request.path)
        match request.match_info["path"]:
            case "redirect":
                raise web.HTTPFound(f"{other.uri}/stream/x/y.png")
            case "large":
                return web.Response(body=bytes(2**21))
            case "text":
                return web.Response(text="not an image, but as long as one is: " + 100 * "x")
            case _:
                return web.Response(status=404)

    bad.job, bad.stream = job, stream  # type: ignore[method-assign, assignment]
    async with (
        serving(bad, tmp_path),
        serving(other, tmp_path),
        open_desk(tmp_path, [bad.uri]) as desk,
    ):
        assert words in (await problem_of(desk)).message
        # Elsewhere than at home, or no image: that is more than a failure to answer.
        is_wrong = "another host" in words or "not a PNG" in words
        assert failures(desk, bad) == (3 if is_wrong else 1)
        assert len(bad.downloads) == ("another host" not in words)
        assert not other.downloads


async def test_a_link_that_leads_to_nothing_ever_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_FETCH_SECONDS", 0.2)
    go = GoOrchestrator()
    go.stream = _hanging  # type: ignore[method-assign, assignment]
    async with serving(go, tmp_path), open_desk(tmp_path, [go.uri]) as desk:
        problem = await problem_of(desk, num_images_per_prompt=2)
        assert "an image it keeps did not arrive within 0.2 s" in problem.message
        assert failures(desk, go) == 1


async def _hanging(_request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(3600)
    raise AssertionError


async def test_a_link_without_a_host_leads_to_its_own(tmp_path: Path) -> None:
    go = GoOrchestrator()
    answer = go._images

    def relative(body: dict[str, object], *, as_links: bool) -> list[dict[str, object]]:
        images = answer(body, as_links=as_links)
        return [{**image, "url": image["url"].removeprefix(go.uri)} for image in images]

    go._images = relative  # type: ignore[method-assign]
    async with serving(go, tmp_path), open_desk(tmp_path, [go.uri]) as desk:
        assert await delivered(desk, num_images_per_prompt=2) == go.uri
        assert len(go.downloads) == 2


async def test_the_headers_are_those_that_it_demands(tmp_path: Path) -> None:
    async with (
        serving(GoOrchestrator(), tmp_path) as go,
        open_desk(tmp_path, [go.uri]) as desk,
    ):
        await delivered(desk)
        job = go.seen[0]
        assert job.credentials.manifest_id == b"27_m"
        assert job.credentials.profiles == b"invalid"
        assert isinstance(job.credentials.auth_token, AuthToken)
        asked = [request.capabilities for request in go.requests]
        assert None in asked, "it is asked for all its models at times"
        exact = next(one for one in asked if one is not None)
        assert exact.capacities[27] == 1
        assert not exact.models[27]["m"].warm
