"""The client library requests-oauth2client, for the same jobs as client_library.js.

`audience` of a job is the `aud` of its assertion; without it, that of the library.
"""

import json
import sys
from urllib.parse import parse_qs

import requests
from jwskate import Jwk, Jwt, SymmetricJwk
from requests_oauth2client import (
    ClientSecretBasic,
    ClientSecretJwt,
    ClientSecretPost,
    OAuth2Client,
    PrivateKeyJwt,
    PublicApp,
)
from requests_oauth2client.exceptions import EndpointError

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"


def changed(members, changes):
    """A copy with other members, and without those that are None."""
    return {name: value for name, value in {**members, **changes}.items() if value is not None}


def modified(base, job, key, alg):
    """A method whose assertion differs from the library's as the job says."""

    class Modified(base):
        def client_assertion(self, audience):
            made = super().client_assertion(audience)
            if "assertion" in job:
                return job["assertion"]
            header, claims = job.get("header", {}), job.get("claims", {})
            jwt = Jwt(made)
            header, claims = changed(jwt.headers, header), changed(jwt.claims, claims)
            if job.get("unsigned"):
                return str(Jwt.unprotected(claims))
            if (header, claims) == (jwt.headers, jwt.claims):
                return made
            return str(Jwt.sign_arbitrary(claims, header, key, alg=alg))

    return Modified


def method(name, job):
    """The library's method."""
    client_id, secret, audience = job["client_id"], job["secret"], job.get("audience")
    if name == "client_secret_basic":
        return ClientSecretBasic(client_id, secret)
    if name == "client_secret_post":
        return ClientSecretPost(client_id, secret)
    if name == "client_secret_jwt":
        key = SymmetricJwk.from_bytes(secret.encode())
        return modified(ClientSecretJwt, job, key, "HS256")(client_id, secret, aud=audience)
    if name == "private_key_jwt":
        key, alg = Jwk.from_pem(job["key"]["pem"]), job["key"]["alg"]
        key["kid"] = job["key"]["kid"]
        return modified(PrivateKeyJwt, job, key, alg)(client_id, key, alg=alg, aud=audience)
    raise ValueError(name)


class Authentication(requests.auth.AuthBase):
    """Methods of the library, one after the other, and what differs in the request."""

    def __init__(self, methods, form):
        self.methods, self.form = methods, form

    def __call__(self, request):
        for authenticate in self.methods:
            request = authenticate(request)
        if self.form:
            body = parse_qs(request.body, keep_blank_values=True)
            request.prepare_body({**body, **self.form}, files=None)
        return request


def send(job):
    """What the server answers."""
    methods = [method(name, job) for name in job["methods"]]
    parameters, grant = job["parameters"], job["grant"]
    if grant == JWT_BEARER:
        parameters["assertion"] = methods[0].client_assertion(job["audience"])
        methods = [PublicApp(job["client_id"])]
    session = requests.Session()
    session.trust_env = False
    client = OAuth2Client.from_discovery_endpoint(
        issuer=job["issuer"],
        auth=Authentication(methods, job.get("form")),
        session=session,
        # The development server is on loopback, without TLS.
        testing=True,
    )
    if grant == "introspection":
        return client.introspect_token(**parameters)
    if grant == "client_credentials":
        return client.client_credentials(**parameters).as_dict()
    if grant == JWT_BEARER:
        return client.jwt_bearer(**parameters).as_dict()
    if grant == TOKEN_EXCHANGE:
        return client.token_exchange(**parameters).as_dict()
    raise ValueError(grant)


def run(job):
    """The outcome of a job."""
    try:
        return {"status": 200, "body": send(job)}
    except EndpointError as error:
        challenge = error.response.headers.get("WWW-Authenticate")
        body = {"error": error.error, "error_description": error.description}
        outcome = {"status": error.response.status_code, "body": body}
        return {**outcome, "challenge": challenge.split()[0].lower()} if challenge else outcome


for line in sys.stdin:
    # `as_dict` has times that are no JSON.
    print(json.dumps(run(json.loads(line)), default=str), flush=True)
