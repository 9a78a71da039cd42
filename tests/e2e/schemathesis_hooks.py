"""Teaches schemathesis lines of JSON (application/x-ndjson): how to make them, and how to check them."""

import json

import jsonschema_rs
import schemathesis
from hypothesis import strategies

NDJSON = "application/x-ndjson"

with open("openapi.json") as file:
    COMPONENTS = json.load(file)["components"]


def joined(*parts):
    return json.dumps({name: value for part in parts for name, value in part.items()}).encode()


RECIPIENTS = [{"uid": "u1"}, {"uids": ["u1", "u9"]}, {"connection": "1"}, {"group": "g"}, {"everyone": True}, {}]
MESSAGES = [{"text": "hello"}, {"json": {"n": 1}}, {"base64": "AAEC"}, {"base64": "?"}, {}]
OTHERS = [{}, {"id": "1"}, {"key": "k"}, {"key": ""}, {"unknown": 1}]
ITEMS = strategies.builds(joined, *map(strategies.sampled_from, [RECIPIENTS, MESSAGES, OTHERS]))
LINES = strategies.lists(strategies.one_of(ITEMS, strategies.binary(max_size=100)), max_size=20)


@schemathesis.hook.apply_to(path="/v1/stream")
def flatmap_body(_, body):
    """Most bodies of a stream are lines with items."""
    return strategies.one_of(strategies.just(body), LINES.map(b"\n".join))


@schemathesis.serializer(NDJSON)
def serialize(_, body):
    return body if isinstance(body, bytes) else str(body).encode()


@schemathesis.deserializer(NDJSON)
def deserialize(_, response):
    return response.content.decode()


@schemathesis.hook.apply_to(path="/v1/push")
def map_query(_, query):
    """A push names one kind of recipient. Schemathesis names several, because the document cannot forbid that."""
    kinds = [name for name in ("uid", "connection", "group", "everyone") if name in (query or {})]
    return {name: query[name] for name in query if name not in kinds[1:]} if query else query


def conforms(line, name):
    jsonschema_rs.validate({"$ref": f"#/components/schemas/{name}", "components": COMPONENTS}, json.loads(line))


@schemathesis.check
def lines_conform(_, response, case):
    """Each line of a stream's answer is a result, and the last one is the summary."""
    if response.status_code == 200 and case.path == "/v1/stream":
        *results, summary = response.content.decode().splitlines()
        for line in results:
            conforms(line, "Result")
        conforms(summary, "Summary")
