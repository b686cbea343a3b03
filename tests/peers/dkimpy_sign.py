"""Signs a message with dkimpy, so that the verifiers can be tried on what the gateway did not make.

Arguments: algorithm (rsa-sha256, ed25519-sha256), key file (RSA: PEM; Ed25519: the seed in base64), selector, domain,
message file. Writes the message with its new signature on top to standard output.
"""
import sys

import dkim

algorithm, key_file, selector, domain, message_file = sys.argv[1:]
with open(message_file, "rb") as file:
    message = file.read()
with open(key_file, "rb") as file:
    key = file.read()
signature = dkim.sign(
    message,
    selector.encode(),
    domain.encode(),
    key,
    canonicalize=(b"relaxed", b"relaxed"),
    signature_algorithm=algorithm.encode(),
)
sys.stdout.buffer.write(signature + message)
