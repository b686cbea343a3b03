"""Reads From headers as Python's readers do: the old parser, lenient and strict, and the one of email.policy.default.

Argument: a JSON file, a list of values. Prints a JSON list as long: every address with an @ that a reader found in it.
"""
import email
import email.policy
import email.utils
import inspect
import json
import sys

STRICTNESS = [{"strict": False}, {"strict": True}] if "strict" in inspect.signature(email.utils.parseaddr).parameters else [{}]


def by_the_policy(value):
    try:
        field = email.message_from_bytes(b"From: " + value.encode() + b"\r\n\r\n", policy=email.policy.default)["From"]
        # Octets beyond ASCII come as surrogates.
        return [address.addr_spec.encode(errors="surrogateescape").decode() for address in field.addresses]
    except Exception:  # on some values it breaks, and then it shows nothing
        return []


def found(value):
    addresses = by_the_policy(value)
    for strictness in STRICTNESS:
        addresses.append(email.utils.parseaddr(value, **strictness)[1])
        addresses += [address for _, address in email.utils.getaddresses([value], **strictness)]
    return sorted({address for address in addresses if address and "@" in address})


with open(sys.argv[1], encoding="utf-8") as file:
    print(json.dumps([found(value) for value in json.load(file)]))
