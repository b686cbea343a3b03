"""Verifies every DKIM signature of every given message with dkimpy, against the given records and never DNS.

First argument: a JSON file {"selector._domainkey.domain": "v=DKIM1; ..."}; then message files.
Prints one JSON line for each message: a list, in the order of its DKIM-Signature headers, of
{"domain", "selector", "algorithm", "passed", "reason"}.
"""
import json
import sys

import dkim
from dkim.util import InvalidTagValueList, parse_tag_value

with open(sys.argv[1], encoding="utf-8") as file:
    RECORDS = {name.lower(): record.encode() for name, record in json.load(file).items()}


def record(name, timeout=5):
    return RECORDS.get(name.decode().lower().rstrip("."))


def verdict(message, index, value):
    try:
        tags = parse_tag_value(value)
    except InvalidTagValueList as failure:
        return {"domain": "", "selector": "", "algorithm": "", "passed": False, "reason": repr(failure)}
    found = {word: tags.get(tag, b"").decode() for word, tag in (("domain", b"d"), ("selector", b"s"), ("algorithm", b"a"))}
    try:
        passed, reason = dkim.DKIM(message, minkey=1024).verify(idx=index, dnsfunc=record), ""
    except Exception as failure:  # what a mangled signature raises is not always dkimpy's own
        passed, reason = False, repr(failure)
    return {**found, "passed": passed, "reason": reason if passed or reason else "does not verify"}


for path in sys.argv[2:]:
    with open(path, "rb") as file:
        message = file.read()
    headers, _ = dkim.rfc822_parse(message)
    signatures = [value for name, value in headers if name.lower() == b"dkim-signature"]
    print(json.dumps([verdict(message, index, value) for index, value in enumerate(signatures)]))
