"""A multipart/byteranges body, read by the standard library's mail parser."""

from __future__ import annotations

from email import message_from_bytes

from tests.http1 import Answer


def parts_of(answer: Answer) -> list[tuple[str, bytes]]:
    """(Content-Range, bytes) of each part, in order."""
    return parts_of_mail(f"Content-Type: {answer.get('Content-Type')}\r\n\r\n".encode() + answer.body)


def parts_of_mail(mail: bytes) -> list[tuple[str, bytes]]:
    """The same of header fields and a body."""
    message = message_from_bytes(mail)
    assert message.get_content_type() == "multipart/byteranges"
    assert not message.defects
    found = []
    for part in message.walk():
        if part is message:
            continue
        assert part.get_content_type() == "application/octet-stream"
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        found.append((part["Content-Range"], content))
    return found
