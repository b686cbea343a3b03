"""Hands one message to a server with Python's smtplib, octet for octet.

Prints one JSON line: {"accepted": bool, "refused": {recipient: [code, text]}, "error": text or null,
"code": of the reply that refused everything, or null}.
"""
import argparse
import json
import smtplib
import ssl
import sys

arguments = argparse.ArgumentParser()
arguments.add_argument("--host", default="127.0.0.1")
arguments.add_argument("--port", type=int, required=True)
arguments.add_argument("--tls", choices=["off", "starttls", "implicit"], default="off")
arguments.add_argument("--ca", help="PEM file; the certificate must be for --host")
arguments.add_argument("--login", nargs=2, metavar=("USER", "PASSWORD"))
arguments.add_argument("--option", action="append", default=[], help="a MAIL parameter, such as BODY=8BITMIME")
arguments.add_argument("--from", dest="sender", required=True)
arguments.add_argument("--to", action="append", required=True)
arguments.add_argument("message")
given = arguments.parse_args()


def connect():
    name = "client.example.test"
    if given.tls == "off":
        return smtplib.SMTP(given.host, given.port, local_hostname=name, timeout=60)
    context = ssl.create_default_context(cafile=given.ca)
    if given.tls == "implicit":
        return smtplib.SMTP_SSL(given.host, given.port, local_hostname=name, timeout=60, context=context)
    client = smtplib.SMTP(given.host, given.port, local_hostname=name, timeout=60)
    client.starttls(context=context)
    return client


def in_words(replies):
    return {recipient: [code, text.decode(errors="replace")] for recipient, (code, text) in replies.items()}


def send(message):
    with connect() as client:
        if given.login:
            client.login(*given.login)
        return client.sendmail(given.sender, given.to, message, mail_options=given.option)


with open(given.message, "rb") as file:
    content = file.read()
result = {"accepted": False, "refused": {}, "code": None, "error": None}
try:
    result["refused"] = in_words(send(content))
    result["accepted"] = True
except smtplib.SMTPRecipientsRefused as failure:
    result["refused"] = in_words(failure.recipients)
    result["error"] = "every recipient was refused"
except smtplib.SMTPResponseException as failure:
    text = failure.smtp_error
    result["code"] = failure.smtp_code
    result["error"] = text.decode(errors="replace") if isinstance(text, bytes) else text
except (smtplib.SMTPException, OSError) as failure:
    result["error"] = f"{type(failure).__name__}: {failure}"
print(json.dumps(result))
sys.exit(0 if result["accepted"] else 1)
