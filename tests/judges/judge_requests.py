"""Holds recorded requests against AWS's own service models, as botocore ships them.

usage: judge_requests.py REQUESTS

REQUESTS has one JSON object a line, {"operation": "RunTask", "body": {...}}: the simulator's requests.jsonl. In its
others.jsonl a line names the service that the request is signed for, and has a form where the service takes one:
{"service": "ec2", "form": "Action=DescribeSubnets&..."}.
Prints one line for each violation, `line 3: RunTask.tags[0].key: ...`. The exit status is 0 when there is none, 1 when
there are some, and 2 when there was nothing to judge.

botocore's own ParamValidator judges unknown and missing members, types and lower limits. Upper limits, enumerations
and patterns are in the model too, but it leaves them to the service: `Limits` judges those. Limits that AWS states in
prose only (16 subnets, 128 characters of `startedBy`) are in no model.
"""

import functools
import json
import sys
import urllib.parse

import botocore.session
import regex
from botocore.validate import ParamValidator


class TwofoldMember(Exception):
    """A JSON object names a member twice."""


def members_once(pairs):
    """The hook of json.loads that takes a JSON object only if it names no member twice."""
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        raise TwofoldMember(next(name for name in names if names.count(name) > 1))
    return members


class Limits:
    """What the model says of a value and ParamValidator does not look at.

    Values of a wrong type and unknown members are passed over: ParamValidator has found them.
    """

    def __init__(self):
        self.violations = []

    def judge(self, path, value, shape):
        """Judges `value`, and all that is in it, by `shape`."""
        judge = getattr(self, f"judge_{shape.type_name}", None)
        if judge is not None:
            judge(path, value, shape)

    def judge_structure(self, path, value, shape):
        if isinstance(value, dict):
            for name, member in value.items():
                if name in shape.members:
                    self.judge(f"{path}.{name}", member, shape.members[name])

    def judge_list(self, path, value, shape):
        if isinstance(value, list):
            self.at_most(path, len(value), shape, "items")
            for index, item in enumerate(value):
                self.judge(f"{path}[{index}]", item, shape.member)

    def judge_map(self, path, value, shape):
        if isinstance(value, dict):
            self.at_most(path, len(value), shape, "entries")
            if len(value) < shape.metadata.get("min", 0):
                self.violate(path, f"{len(value)} entries, at least {shape.metadata['min']} are needed")
            for key, entry in value.items():
                self.judge(f"{path} (key {key!r})", key, shape.key)
                self.judge(f"{path}.{key}", entry, shape.value)

    def judge_string(self, path, value, shape):
        if not isinstance(value, str):
            return
        self.at_most(path, len(value), shape, "characters")
        # `Shape.enum` is empty for strings that are no enumeration.
        if shape.enum and value not in shape.enum:
            self.violate(path, f"{value!r} is none of {', '.join(shape.enum)}")
        pattern = shape.metadata.get("pattern")
        # As a whole, as the service does: most of the model's patterns would find something in any string.
        if pattern is not None and not regex.fullmatch(pattern, value):
            self.violate(path, f"{value!r} does not match {pattern}")

    def judge_number(self, path, value, shape):
        # To Python, and so to ParamValidator, true is an integer.
        if isinstance(value, bool):
            self.violate(path, f"{value!r} is no number")
        elif isinstance(value, (int, float)):
            self.at_most(path, value, shape, "")

    judge_integer = judge_long = judge_float = judge_double = judge_number

    def at_most(self, path, number, shape, unit):
        limit = shape.metadata.get("max")
        if limit is not None and number > limit:
            self.violate(path, f"{f'{number} {unit}'.strip()}, at most {limit} are allowed")

    def violate(self, path, words):
        self.violations.append(f"{path}: {words}")


# By the name in signatures.
SERVICES = {"ec2": "ec2", "ecs": "ecs", "iam": "iam", "servicequotas": "service-quotas", "sts": "sts"}


@functools.cache
def model_of(service):
    """The model of the service that signatures call so; None for an unknown one."""
    return botocore.session.get_session().get_service_model(SERVICES[service]) if service in SERVICES else None


class Form:
    """A form of the query protocol, or of EC2's variant of it, on its way back to parameters.

    https://smithy.io/2.0/aws/protocols/aws-query-protocol.html, https://smithy.io/2.0/aws/protocols/aws-ec2-query-protocol.html
    """

    def __init__(self, fields, is_ec2):
        self.fields = dict(fields)
        self.is_ec2 = is_ec2

    def has(self, key):
        return any(name == key or name.startswith(f"{key}.") for name in self.fields)

    def take(self, key, shape):
        """What the fields below `key` are, by `shape`; they are taken out of the form."""
        if shape.type_name == "structure":
            members = {}
            for name, member in shape.members.items():
                below = f"{key}.{self.name(name, member)}".lstrip(".")
                if self.has(below):
                    members[name] = self.take(below, member)
            return members
        if shape.type_name == "list":
            if not self.is_ec2 and not shape.serialization.get("flattened"):
                key = f"{key}.{shape.member.serialization.get('name', 'member')}"
            items = []
            while self.has(f"{key}.{len(items) + 1}"):
                items.append(self.take(f"{key}.{len(items) + 1}", shape.member))
            return items
        text = self.fields.pop(key, None)
        if shape.type_name in ("integer", "long"):
            return int(text)
        if shape.type_name == "boolean":
            return {"true": True, "false": False}.get(text, text)
        return text

    def name(self, name, member):
        if not self.is_ec2:
            return member.serialization.get("name", name)
        given = member.serialization.get("queryName") or member.serialization.get("name", name)
        return given[:1].upper() + given[1:]


def unform(model, form):
    """Operation, parameters and violations of a form."""
    pairs = urllib.parse.parse_qsl(form, keep_blank_values=True, strict_parsing=True)
    fields = dict(pairs)
    violations = ["a field is there twice"] if len(fields) < len(pairs) else []
    operation, version = fields.pop("Action", None), fields.pop("Version", None)
    if version != model.api_version:
        violations.append(f"{operation}: the version is {version}, the model's {model.api_version}")
    if operation not in model.operation_names:
        return operation, {}, violations
    shape = model.operation_model(operation).input_shape
    form = Form(fields, model.metadata["protocol"] == "ec2")
    # Operations without parameters have no shape.
    body = form.take("", shape) if shape is not None else {}
    violations.extend(f"{operation}: no member is called {name}" for name in form.fields)
    return operation, body, violations


def judge(line):
    """The violations of one recorded request."""
    try:
        request = json.loads(line, object_pairs_hook=members_once)
    except TwofoldMember as error:
        return [f"the member `{error}` is there twice"]
    except ValueError as error:
        return [f"no JSON: {error}"]
    model = model_of(request.get("service", "ecs"))
    if model is None:
        return [f"{request['service']}: no such service"]
    violations = []
    if "form" in request:
        operation, body, violations = unform(model, request["form"])
    else:
        operation, body = request["operation"], request["body"]
    if operation not in model.operation_names:
        return [*violations, f"{operation}: the service has no such operation"]
    shape = model.operation_model(operation).input_shape
    if shape is None:
        return violations
    report = ParamValidator().validate(body, shape).generate_report()
    violations += [f"{operation}: {words}" for words in report.splitlines()]
    limits = Limits()
    limits.judge(operation, body, shape)
    return violations + limits.violations


def main(path):
    """Judges a file, and answers the exit status."""
    with open(path, encoding="utf-8", newline="\n") as file:
        lines = file.readlines()
    violations = [
        f"line {number}: {words}" for number, line in enumerate(lines, 1) for words in judge(line)
    ]
    for words in violations:
        print(words)
    if not lines:
        print(f"{path} has no request", file=sys.stderr)
        return 2
    print(f"{len(lines)} requests, {len(violations)} violations", file=sys.stderr)
    return 1 if violations else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    # Not the locale's: tags are in any script.
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    sys.exit(main(sys.argv[1]))
