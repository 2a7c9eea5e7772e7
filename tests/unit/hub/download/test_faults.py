"""Everything that goes wrong on the way: what is tried again, what is kept, what is said."""

from __future__ import annotations

import re
import threading
import time
from email.utils import formatdate

import pytest

from tests.builders.download import MODEL, Downloads, model_files, weights
from tests.builders.hub import Fault
from tgi_cli.errors import (
    HubUnreachableError,
    ModelNotFoundError,
    StartError,
)

WEIGHTS = "model.safetensors"
SIZE = len(weights())


@pytest.mark.parametrize("tenth", range(1, 10))
def test_a_connection_cut_at_any_tenth_goes_on_where_it_broke(
    tenth: int, downloads: Downloads
) -> None:
    downloads.hub.publish(model_files())
    downloads.hub.fail(WEIGHTS, Fault(cut_at=SIZE * tenth // 10))

    obtained = downloads.get()

    first, second = downloads.hub.asked_for(WEIGHTS)
    assert first.first_byte == 0
    assert second.first_byte == SIZE * tenth // 10
    assert (obtained.folder / WEIGHTS).read_bytes() == weights()
    assert any(
        "model.safetensors: the connection broke off" in text for text in downloads.progress.said
    )


@pytest.mark.parametrize("tenth", range(1, 10))
def test_a_run_that_was_cut_off_is_resumed_by_the_next(tenth: int, downloads: Downloads) -> None:
    downloads.hub.publish(model_files())
    downloads.hub.fail(WEIGHTS, Fault(cut_at=SIZE * tenth // 10), *[Fault(status=503)] * 6)
    with pytest.raises(HubUnreachableError):
        downloads.get()
    assert WEIGHTS not in downloads.placed()
    [partial] = downloads.partials()
    arrived = partial.stat().st_size

    obtained = downloads.get()

    assert downloads.hub.asked_for(WEIGHTS)[-1].first_byte == arrived > 0
    assert downloads.progress.phases[-1][-1] == arrived
    assert (obtained.folder / WEIGHTS).read_bytes() == weights()
    assert downloads.partials() == []


def test_a_line_that_breaks_often_but_brings_bytes_is_not_given_up(downloads: Downloads) -> None:
    downloads.hub.publish(model_files())
    downloads.hub.fail(WEIGHTS, *[Fault(cut_at=500)] * 19)

    obtained = downloads.get()

    assert (obtained.folder / WEIGHTS).read_bytes() == weights()


def test_a_server_that_ignores_the_range_makes_the_file_begin_anew(downloads: Downloads) -> None:
    downloads.hub.publish(model_files())
    downloads.hub.fail(WEIGHTS, Fault(cut_at=4_000), Fault(ignores_range=True))

    obtained = downloads.get()

    assert (obtained.folder / WEIGHTS).read_bytes() == weights()
    total = sum(file.num_bytes for file in obtained.files)
    assert downloads.progress.num_advanced == total


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("where", ["info", "config.json", WEIGHTS, f"redirect {WEIGHTS}"])
def test_what_may_pass_is_tried_again(status: int, where: str, downloads: Downloads) -> None:
    downloads.hub.publish(model_files())
    downloads.hub.fail(where, Fault(status=status), Fault(status=status))

    downloads.get()

    assert len(downloads.waits_s) == 2
    assert 0.5 <= downloads.waits_s[0] <= 1.0 <= downloads.waits_s[1] <= 2.0
    assert WEIGHTS in downloads.placed()


@pytest.mark.parametrize("where", ["info", WEIGHTS])
def test_the_wait_is_the_one_that_the_hub_asks_for(where: str, downloads: Downloads) -> None:
    downloads.hub.publish(model_files())
    soon = formatdate(time.time() + 100, usegmt=True)
    downloads.hub.fail(
        where,
        Fault(status=429, headers={"Retry-After": "17"}),
        Fault(status=503, headers={"Retry-After": soon}),
        Fault(status=429, headers={"Retry-After": "soon"}),
    )

    downloads.get()

    assert downloads.waits_s[0] == 17
    assert 90 < downloads.waits_s[1] <= 100
    assert downloads.waits_s[2] <= 4


def test_a_wait_of_hours_is_left_to_the_user(downloads: Downloads) -> None:
    downloads.hub.publish(model_files())
    downloads.hub.fail(WEIGHTS, Fault(status=429, headers={"Retry-After": "7200"}))

    with pytest.raises(HubUnreachableError, match=r"model\.safetensors: .*429.*120 minutes"):
        downloads.get()

    assert downloads.waits_s == []


def test_trouble_that_stays_ends_with_the_file_the_cause_and_the_fix(downloads: Downloads) -> None:
    downloads.hub.publish(model_files())
    downloads.hub.fail(WEIGHTS, *[Fault(status=502)] * 6)

    with pytest.raises(
        HubUnreachableError, match=f"{MODEL}: {WEIGHTS}: .*status 502.*6 times"
    ) as failure:
        downloads.get()

    assert "run the same command again" in str(failure.value.hint)
    assert len(downloads.waits_s) == 5


@pytest.mark.parametrize("address", ["/somebody/tiny/resolve/{commit}/{name}", "ftp://host/x"])
def test_a_redirect_that_leads_nowhere_is_told_at_once(address: str, downloads: Downloads) -> None:
    commit = downloads.hub.publish(model_files())
    away = {"Location": address.format(commit=commit, name=WEIGHTS)}
    downloads.hub.fail(f"redirect {WEIGHTS}", *[Fault(status=302, headers=away)] * 30)

    with pytest.raises(HubUnreachableError, match=f"{WEIGHTS}: the way to it ends") as failure:
        downloads.get()

    assert "HF_ENDPOINT" in str(failure.value.hint)
    assert downloads.waits_s == []


@pytest.mark.parametrize(
    ("fault", "token", "message", "hint"),
    [
        (
            Fault(status=401, headers={"X-Error-Code": "RepoNotFound"}),
            None,
            "no such repository on the hub",
            "private",
        ),
        (Fault(status=401), None, r"wants a token \(401\)", "/settings/tokens"),
        (Fault(status=401), "hf_secret", r"doesn't know the token \(401\)", "/settings/tokens"),
        (Fault(status=403), "hf_secret", r"may not read this \(403\)", "read access"),
        (
            Fault(status=403, headers={"X-Error-Code": "GatedRepo"}),
            "hf_secret",
            r"access is restricted \(gated\)",
            f"Accept the licence on http://.*/{MODEL} with the account of your token",
        ),
        (
            Fault(status=401, headers={"X-Error-Code": "GatedRepo"}),
            None,
            r"access is restricted \(gated\)",
            f"Accept the licence on http://.*/{MODEL} and set HF_TOKEN",
        ),
        (Fault(status=404), None, "no such repository on the hub", "Check the name"),
        (
            Fault(status=404, headers={"X-Error-Code": "RevisionNotFound"}),
            None,
            "no revision 'main'",
            "tree/main",
        ),
        (
            Fault(status=403, headers={"X-Error-Message": "Access to this resource is disabled."}),
            None,
            "has disabled it",
            "may say why",
        ),
    ],
)
def test_each_refusal_has_its_own_line(
    fault: Fault, token: str | None, message: str, hint: str, downloads: Downloads
) -> None:
    downloads.hub.publish(model_files())
    downloads.hub.fail("info", fault)

    with pytest.raises(ModelNotFoundError, match=message) as failure:
        downloads.get(token=token)

    assert re.search(hint, str(failure.value.hint))
    assert "\n" not in failure.value.message
    assert "hf_secret" not in f"{failure.value.message} {failure.value.hint}"
    assert downloads.waits_s == []


def test_a_file_behind_a_gate_names_itself_and_the_licence_page(downloads: Downloads) -> None:
    downloads.hub.publish(model_files())
    downloads.hub.fail(
        f"redirect {WEIGHTS}", Fault(status=403, headers={"X-Error-Code": "GatedRepo"})
    )

    with pytest.raises(ModelNotFoundError, match=f"{MODEL}: {WEIGHTS}: access is restricted"):
        downloads.get()

    assert WEIGHTS not in downloads.placed()


@pytest.mark.parametrize("headers", [{"X-Error-Code": "EntryNotFound"}, {}])
def test_a_listed_file_that_is_gone_is_named(headers: dict[str, str], downloads: Downloads) -> None:
    downloads.hub.publish(model_files())
    downloads.hub.fail("config.json", Fault(status=404, headers=headers))

    with pytest.raises(ModelNotFoundError, match=r"config\.json: the hub lists this file"):
        downloads.get()


def test_the_token_of_a_login_counts_as_one(
    downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    downloads.hub.publish(model_files())
    downloads.hub.fail("info", Fault(status=401))

    with pytest.raises(ModelNotFoundError, match="doesn't know the token"):
        downloads.get()

    assert downloads.hub.asked[0].headers["authorization"] == "Bearer hf_secret"


def test_a_server_that_falls_silent_is_asked_again_for_the_rest(
    downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    downloads.hub.publish(model_files())
    silence = threading.Event()
    downloads.hub.fail(WEIGHTS, Fault(wait_for=silence))

    obtained = downloads.get()
    silence.set()

    assert downloads.hub.asked_for(WEIGHTS)[-1].first_byte == SIZE // 2
    assert (obtained.folder / WEIGHTS).read_bytes() == weights()
    assert any("nothing came for too long" in text for text in downloads.progress.said)


def test_nothing_at_the_address_is_a_hub_that_cant_be_reached(
    downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")

    with pytest.raises(
        StartError, match=r"the hub can't be reached \(ConnectError; tried 6 times\)"
    ):
        downloads.get()


def test_the_first_failure_ends_the_other_files_too(downloads: Downloads) -> None:
    shards = {f"model-{n}.safetensors": weights(seed=n) for n in range(9)}
    files = {name: data for name, data in model_files(**shards).items() if name != WEIGHTS}
    downloads.hub.publish(files)
    for name in shards:
        downloads.hub.fail(f"redirect {name}", Fault(status=403))

    with pytest.raises(ModelNotFoundError, match="403"):
        downloads.get(num_workers=3)

    asked = [asked for asked in downloads.hub.asked if asked.path.endswith(".safetensors")]
    assert len(asked) <= 3
