"""Single sign-on against a provider over HTTP: whose account it opens; that an answer counts for its act alone."""

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from django.test import Client
from joserfc.jwk import OctKey, RSAKey
from pytest_django import Settings

from pld_app import oidc
from pld_app.models import AuditEvent, Ceremony, Notification, Reauthentication, SsoIdentity, User
from rules.models import Signature, Task
from tests.factories import PROOF, audit_actions
from tests.governance.oidc_provider import CLIENT, SECRET, Provider, oidc_provider
from tests.governance.test_factors import code_of, enrolled_app
from tests.publishing import steps

type ClientOf = Callable[[User], Client]


@pytest.fixture
def idp(settings: Settings) -> Iterator[Provider]:
    with oidc_provider() as one:
        settings.OIDC_ISSUER, settings.OIDC_CLIENT_ID, settings.OIDC_CLIENT_SECRET = one.issuer, CLIENT, SECRET
        yield one


def address_of(response: Any) -> str:
    """Where the page sends the browser."""
    assert response.status_code == 200, response.content.decode()[:2000]
    return str(response.headers["Refresh"]).removeprefix("0; url=")


def back(browser: Client, query: dict[str, str]) -> Any:
    return browser.get(f"/sign-in/sso/callback/?{urlencode(query)}")


def sign_in(idp: Provider, browser: Client | None = None) -> tuple[Client, Any]:
    browser = browser or Client()
    url = address_of(browser.post("/sign-in/sso/", {"next": "/inbox/"}))
    return browser, back(browser, idp.authorize(url))


def test_an_account_is_matched_by_name_bound_and_found_again(idp: Provider, sam: User) -> None:
    browser, response = sign_in(idp)
    assert response.headers["Location"] == "/inbox/"
    assert browser.get("/inbox/").status_code == 200
    identity = SsoIdentity.objects.get()
    assert (identity.user, identity.issuer, identity.subject) == (sam, idp.issuer, "idp-1")
    assert audit_actions(sam) == ["sso.bound", "login.succeeded"]
    assert Notification.objects.filter(user=sam, kind="factor.changed").exists()
    # From now on the subject counts, whatever name the provider says.
    idp.claims["preferred_username"] = "somebody-else"
    _browser, response = sign_in(idp)
    assert response.headers["Location"] == "/inbox/"
    assert SsoIdentity.objects.count() == 1


def test_the_question_is_bound_by_state_nonce_and_pkce(idp: Provider, sam: User) -> None:
    browser = Client()
    query = idp.authorize(address_of(browser.post("/sign-in/sso/")))
    asked = idp.asked[0]
    assert asked["code_challenge_method"] == "S256"
    assert asked["scope"].split()[0] == "openid"
    assert "prompt" not in asked
    for changed in (query | {"state": "x"}, {"state": query["state"]}, {"code": query["code"]}):
        assert back(browser, changed).status_code == 422
    assert back(Client(), query).status_code == 422  # another browser
    assert back(browser, query).status_code == 422  # and the question is asked once
    assert "_auth_user_id" not in browser.session


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://other.example"},
        {"aud": "another client"},
        {"aud": [CLIENT, "another"], "azp": "another"},
        {"exp": 1},
        {"nonce": "of another question"},
        {"nonce": None},
        {"sub": None},
        {"iat": None},
    ],
    ids=str,
)
def test_a_token_that_does_not_fit_opens_nothing(idp: Provider, sam: User, claims: dict[str, Any]) -> None:
    idp.spoil["claims"] = claims
    _browser, response = sign_in(idp)
    assert response.status_code == 422
    assert "Single sign-on did not work" in response.content.decode()
    assert not SsoIdentity.objects.exists()


@pytest.mark.parametrize("spoilt", ["another key", "the client's secret", "none", "no token", "cut", "no JSON"])
def test_a_token_that_the_provider_did_not_sign_opens_nothing(idp: Provider, sam: User, spoilt: str) -> None:
    match spoilt:
        case "another key":
            idp.spoil["key"] = RSAKey.generate_key(2048, {"kid": "k1"})
        case "the client's secret":
            idp.spoil |= {"key": OctKey.import_key(SECRET * 2), "header": {"alg": "HS256"}}
        case "none":
            idp.spoil["id_token"] = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJpZHAtMSJ9."
        case "no token":
            idp.spoil["id_token"] = 7
        case "cut":
            idp.spoil["id_token"] = "eyJhbGciOiJSUzI1NiJ9.e30"
        case "no JSON":
            idp.spoil["/keys"] = (200, b"<html>")
    _browser, response = sign_in(idp)
    assert response.status_code == 422
    assert not AuditEvent.objects.filter(action="login.succeeded").exists()


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://other.example"},
        {"token_endpoint": None},
        {"jwks_uri": "http://keys.example/keys"},
        {"authorization_endpoint": "javascript:alert(1)"},
    ],
    ids=str,
)
def test_metadata_that_do_not_fit_lead_nowhere(idp: Provider, sam: User, metadata: dict[str, Any]) -> None:
    idp.spoil["metadata"] = metadata
    assert Client().post("/sign-in/sso/").status_code == 422


@pytest.mark.parametrize(
    "answer", [(200, b"[" * 300_000), (302, b""), (500, b"{}"), (200, b"{}"), (200, b"[]")], ids=lambda a: str(a[0])
)
def test_a_provider_that_answers_badly_is_a_refusal_not_an_error(
    idp: Provider, sam: User, answer: tuple[int, bytes]
) -> None:
    idp.spoil["/.well-known/openid-configuration"] = answer
    assert Client().post("/sign-in/sso/").status_code == 422


def test_only_https_or_this_machine(settings: Settings) -> None:
    for url in (
        "http://id.example",
        "http://10.0.0.1",
        "ftp://id.example",
        "file:///etc/passwd",
        "http://127.0.0.1.x.example",
    ):
        settings.OIDC_ISSUER = url
        with pytest.raises(oidc.SsoRefused):
            oidc.provider()


def test_nobody_is_made_by_single_sign_on(idp: Provider, sam: User, settings: Settings) -> None:
    for claims in ({"preferred_username": "nobody"}, {"preferred_username": ""}, {"preferred_username": None}):
        idp.claims = {"sub": "idp-2"} | claims
        _browser, response = sign_in(idp)
        assert response.status_code == 403
    User.objects.filter(pk=sam.pk).update(is_active=False)
    idp.claims = {"sub": "idp-1", "preferred_username": "sam"}
    assert sign_in(idp)[1].status_code == 403
    assert User.objects.count() == 1
    assert not SsoIdentity.objects.exists()


def test_an_account_is_bound_to_one_subject(idp: Provider, sam: User) -> None:
    sign_in(idp)
    idp.claims["sub"] = "idp-2"
    _browser, response = sign_in(idp)
    assert response.status_code == 403
    assert "bound to another" in response.content.decode()


def test_domains_are_held_to(idp: Provider, sam: User, settings: Settings) -> None:
    settings.OIDC_DOMAINS = ["bank.example"]
    for claims in ({}, {"email": "sam@bank.example"}, {"email": "sam@evil.example", "email_verified": True}):
        idp.spoil["claims"] = claims
        assert sign_in(idp)[1].status_code == 403
    idp.spoil["claims"] = {"email": "sam@bank.example", "email_verified": True}
    assert sign_in(idp)[1].status_code == 302


def test_a_second_factor_is_asked_after_single_sign_on_too(idp: Provider, sam: User) -> None:
    device = enrolled_app(sam)
    browser, response = sign_in(idp)
    assert response.headers["Location"] == "/sign-in/second/"
    assert browser.post("/sign-in/second/", {"code": code_of(device)}).headers["Location"] == "/inbox/"
    assert AuditEvent.objects.get(action="login.succeeded").data["method"] == "oidc+totp"


# The step-up of a signature.


class Signing:
    """A signatory who came in by single sign-on, before a ruleset in sign-off."""

    def __init__(self, idp: Provider, task: Task, ana: User) -> None:
        self.idp, self.ruleset = idp, steps.frozen(task, ana, 1)
        self.browser, _response = sign_in(idp)
        self.path = f"/tasks/nda/rulesets/{self.ruleset.number}/"
        self.page = self.browser.get(self.path).content.decode()

    def form(self, **fields: str) -> dict[str, str]:
        act = {
            "ceremony_purpose": "sign",
            "ceremony_subject_type": "ruleset",
            "ceremony_subject_id": str(self.ruleset.pk),
            "ceremony_goal": self.path,
            "manifest_sha256": self.ruleset.manifest_sha256,
            "meaning": "approved",
            "consent": "on",
        }
        return act | fields

    def stepped_up(self, **fields: str) -> str:
        """Through the provider and back; the token of the answered ceremony."""
        url = address_of(self.browser.post("/ceremony/sso/", self.form(**fields)))
        response = back(self.browser, self.idp.authorize(url))
        assert response.status_code == 302, response.content.decode()
        where = str(response.headers["Location"])
        assert where.startswith(f"{self.path}?sso=")
        assert "has confirmed that it is you" in self.browser.get(where).content.decode()
        return where.partition("sso=")[2].partition("#")[0]

    def sign(self, **fields: str) -> Any:
        return self.browser.post(f"{self.path}sign/", self.form(**fields))


@pytest.fixture
def signing(idp: Provider, task: Task, ana: User, sam: User) -> Signing:
    return Signing(idp, task, ana)


def test_a_signature_by_single_sign_on(signing: Signing, idp: Provider) -> None:
    assert "Use single sign-on instead" in signing.page
    token = signing.stepped_up()
    asked = idp.asked[-1]
    assert (asked["prompt"], asked["max_age"]) == ("login", "0")
    assert signing.sign(sso=token).status_code == 302
    assert Signature.objects.get().method == "oidc"


@pytest.mark.parametrize("fields", [{"meaning": "reviewed"}, {"sso": ""}, {"sso": "not a token"}], ids=str)
def test_the_answer_counts_for_its_act_alone(signing: Signing, fields: dict[str, str]) -> None:
    token = signing.stepped_up()
    assert signing.sign(**({"sso": token} | fields)).status_code == 422
    assert not Signature.objects.exists()


def test_the_answer_counts_once_and_for_no_other_ruleset_person_or_session(
    signing: Signing, task: Task, ana: User, sue: User, client_of: ClientOf, idp: Provider
) -> None:
    other = steps.again_frozen(task, ana)
    token = signing.stepped_up()
    elsewhere = signing.form(sso=token, manifest_sha256=other.manifest_sha256)
    assert signing.browser.post(f"/tasks/nda/rulesets/{other.number}/sign/", elsewhere).status_code == 422
    token = signing.stepped_up()
    assert client_of(sue).post(f"{signing.path}sign/", signing.form(sso=token)).status_code == 422
    second, _response = sign_in(idp)  # the same person in another browser
    assert second.post(f"{signing.path}sign/", signing.form(sso=token)).status_code == 422
    assert signing.sign(sso=token).status_code == 302
    third = steps.again_frozen(task, ana)
    again = signing.form(sso=token, manifest_sha256=third.manifest_sha256)
    assert signing.browser.post(f"/tasks/nda/rulesets/{third.number}/sign/", again).status_code == 422
    assert Signature.objects.count() == 1
    assert Reauthentication.objects.count() == 1


@pytest.mark.parametrize(
    "claims", [{"auth_time": None}, {"auth_time": 1_600_000_000}, {"sub": "idp-2"}, {"nonce": "x"}], ids=str
)
def test_the_provider_must_authenticate_this_person_anew(signing: Signing, claims: dict[str, Any]) -> None:
    signing.idp.spoil["claims"] = claims
    url = address_of(signing.browser.post("/ceremony/sso/", signing.form()))
    response = back(signing.browser, signing.idp.authorize(url))
    assert response.status_code in {403, 422}
    assert not Ceremony.objects.filter(answered_at__isnull=False).exists()


def test_the_way_back_is_taken_once_by_the_session_that_asked(signing: Signing, sue: User, client_of: ClientOf) -> None:
    url = address_of(signing.browser.post("/ceremony/sso/", signing.form()))
    query = signing.idp.authorize(url)
    assert back(client_of(sue), query).status_code == 403
    assert back(signing.browser, query).status_code == 302
    assert back(signing.browser, query).status_code == 403


def test_the_way_back_stays_on_this_site(signing: Signing) -> None:
    url = address_of(signing.browser.post("/ceremony/sso/", signing.form(ceremony_goal="https://evil.example/")))
    response = back(signing.browser, signing.idp.authorize(url))
    assert response.headers["Location"].startswith("/?sso=")


def test_without_a_provider_there_is_none(sam: User, client_of: ClientOf) -> None:
    assert Client().post("/sign-in/sso/").status_code == 302
    assert "single sign-on" not in Client().get("/sign-in/").content.decode()
    assert client_of(sam).post("/ceremony/sso/", PROOF).status_code == 422
