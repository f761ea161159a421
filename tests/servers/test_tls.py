"""https by the service's own settings: a real supervisor and gunicorn, and a certificate of the test's own."""

from __future__ import annotations

import datetime
import http.client
import ipaddress
import json
import select
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from test_supervisor import Service, wait_until

from recognizer import config
from recognizer.errors import StartupError
from recognizer.servers.address import check_certificate
from recognizer.servers.secure import SecureSocket

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn, which alone has TLS")

MEGABYTE = b"x" * 2**20


def certify(folder: Path, password: bytes | None = None) -> tuple[Path, Path]:
    """Write a new certificate for localhost and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    number = x509.random_serial_number()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"test {number}"[:64])])  # none like another's
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(number)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    sealing = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    key_text = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, sealing)
    files = folder / "certificate.pem", folder / "key.pem"
    for file, text in zip(files, (certificate.public_bytes(serialization.Encoding.PEM), key_text), strict=True):
        file.write_bytes(text)
    return files


class SecureService(Service):
    """A service that speaks https, whose certificate is checked at every call."""

    def __init__(self, folder: Path, files: Path, **settings: object) -> None:
        certificate, key = certify(files)
        self.context = ssl.create_default_context(cafile=certificate)
        super().__init__(folder, tls_certificate=certificate, tls_key=key, **settings)

    def connect(self, timeout: float = 15) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=self.context)

    def call(self, method: str, path: str, timeout: float = 15) -> tuple[int, Any]:
        connection = self.connect(timeout)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the service's certificate and key are."""
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def service(folder_of_all: Path, files: Path) -> Iterator[SecureService]:
    with SecureService(folder_of_all, files, threads=2, max_request_bytes=2**22, max_image_bytes=2**22) as it:
        it.wait_until_ready()
        yield it


def test_it_answers_https_with_all_that_http_has(service: SecureService) -> None:
    wait_until(lambda: f"Ready: https://127.0.0.1:{service.port}" in service.text())  # so the supervisor's check works
    connection = service.connect()
    for _ in range(2):  # on one connection
        connection.request("POST", "/body", body=MEGABYTE)
        assert json.loads(connection.getresponse().read()) == {"bytes": len(MEGABYTE)}
    connection.request("POST", "/body", body=iter([MEGABYTE] * 3), encode_chunked=True)
    assert json.loads(connection.getresponse().read()) == {"bytes": 3 * len(MEGABYTE)}
    connection.request("POST", "/body", body=MEGABYTE * 5)
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["code"]) == (413, "image_too_large")
    connection.close()


def test_what_is_not_tls_gets_no_answer_and_stops_nobody(service: SecureService) -> None:
    guests = [socket.create_connection(("127.0.0.1", service.port), timeout=10) for _ in range(20)]
    for number, guest in enumerate(guests):
        guest.sendall(b"GET /kept HTTP/1.1\r\nHost: localhost\r\n\r\n" if number % 2 else b"\x16\x03\x01\x02")
    began = time.monotonic()
    assert service.call("GET", "/health/ready")[0] == 200
    assert time.monotonic() - began < 5, "none of them holds a thread"
    answered = b""
    try:
        while piece := guests[1].recv(1000):
            answered += piece
    except ConnectionResetError:
        pass
    assert b"HTTP" not in answered
    for guest in guests:
        guest.close()


def test_a_client_that_sends_and_reads_byte_by_byte_is_served(service: SecureService) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = service.context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as wire:

        def exchange() -> None:
            for byte in outgoing.read():
                wire.sendall(bytes([byte]))
            incoming.write(wire.recv(1))

        def until_done(step: Any) -> Any:
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    exchange()

        until_done(tls.do_handshake)
        assert tls.version() in ("TLSv1.2", "TLSv1.3")
        tls.write(b"GET /slow/0 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b""
        while piece := until_done(lambda: tls.read(1000)):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"pid" in answer


def test_a_renewed_certificate_is_taken_over_by_a_reload(service: SecureService, files: Path) -> None:
    failures: list[int] = []
    over = threading.Event()

    def call() -> None:
        while not over.is_set():
            status = service.call("GET", "/slow/0.01")[0]
            if status != 200:
                failures.append(status)

    before = service.context
    certify(files)
    service.context = ssl.create_default_context(cafile=files / "certificate.pem")
    service.context.load_verify_locations(cadata="".join(map(ssl.DER_cert_to_PEM_cert, before.get_ca_certs(True))))
    caller = threading.Thread(target=call)
    caller.start()
    service.process.send_signal(signal.SIGHUP)
    renewed = ssl.create_default_context(cafile=files / "certificate.pem")

    def shows_the_new_one() -> bool:
        with socket.create_connection(("127.0.0.1", service.port), timeout=10) as wire:
            try:
                renewed.wrap_socket(wire, server_hostname="localhost").close()
            except ssl.SSLError:
                return False
        return True

    wait_until(shows_the_new_one)
    over.set()
    caller.join()
    assert failures == []


def test_a_client_that_does_not_read_is_waited_for_by_nobody_and_gets_all_of_it(tmp_path: Path) -> None:
    certificate, key = certify(tmp_path)
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(certificate, key)
    theirs = ssl.create_default_context(cafile=certificate)
    one, other = socket.socketpair()
    may_read = threading.Event()
    received = bytearray()

    def read() -> None:
        with theirs.wrap_socket(other, server_hostname="localhost") as client:
            client.sendall(b"hello")
            may_read.wait(10)
            while piece := client.recv(2**16):  # ends with the word that nothing more comes, or raises
                received.extend(piece)

    reader = threading.Thread(target=read)
    reader.start()
    heard = b""
    with SecureSocket(one, ours) as server:
        while not heard:
            select.select([server], [], [], 10)
            with suppress(BlockingIOError):
                heard = server.recv(2**18)
        server.sendall(MEGABYTE * 8)
        assert server.unsent, "more than the system takes, and it has come back all the same"
        may_read.set()
        while server.unsent:
            select.select([], [server], [], 10)
            server.send_rest()
        server.shutdown(socket.SHUT_WR)
        reader.join(10)
    assert (heard, bytes(received)) == (b"hello", MEGABYTE * 8)


@pytest.mark.parametrize("wrong", ["no file", "another's key", "a password", "no certificate", "no server"])
def test_files_that_cannot_be_used_are_named_before_anything_starts(tmp_path: Path, wrong: str) -> None:
    certificate, key = certify(tmp_path, b"hunter2" if wrong == "a password" else None)
    settings = config.load({"tls_certificate": certificate, "tls_key": key, "server": "gunicorn"})
    if wrong == "no file":
        key.unlink()
    elif wrong == "another's key":
        kept = certificate.read_bytes()
        certify(tmp_path)
        certificate.write_bytes(kept)
    elif wrong == "no certificate":
        certificate.write_text("nothing")
    elif wrong == "no server":
        settings = settings.model_copy(update={"server": "development"})
    with pytest.raises(StartupError, match="no other server has TLS" if wrong == "no server" else "tls_key"):
        check_certificate(settings)


def test_good_files_and_none_at_all_are_right(tmp_path: Path) -> None:
    certificate, key = certify(tmp_path)
    check_certificate(config.load({"tls_certificate": certificate, "tls_key": key, "server": "gunicorn"}))
    check_certificate(config.load())
