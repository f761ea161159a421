"""After an erasure and `recognizer scrub`, nothing of the person is in any file; real people, all that touches them."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
from PIL import Image, ImageOps
from system_calls import Service, enroll, recognize
from traces import execute, found_in, traces_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="reads the files of a running PostgreSQL")

LIMIT_SECONDS = 60
KINDS = ("id in bytes", "name", "faces.embedding 0", "template 0")


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "recognizer", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )


def listen(url: str, over: threading.Event) -> None:
    """Be told of recognitions, names included, until it is over."""
    with httpx.stream("GET", f"{url}/v1/events", timeout=LIMIT_SECONDS) as stream:
        for line in stream.iter_lines():
            if line.startswith("data:"):
                over.set()
                return


def mirrored(photo: bytes) -> bytes:
    """A photo whose embedding nobody else has."""
    turned = io.BytesIO()
    ImageOps.mirror(Image.open(io.BytesIO(photo))).save(turned, "JPEG")
    return turned.getvalue()


def a_life(service: Service, photos: list[bytes], name: str, other: bytes, tag: str) -> tuple[str, dict[str, bytes]]:
    """Enrol somebody and do everything with them that leaves traces; their id and all traces of them."""
    url, folder = service.url, service.data_dir
    words = {
        "first name": f"Firstly {tag}",
        "name": name,
        "name as compared": name.casefold(),
        "external id": f"extern-{tag}",
        "metadata": f"metadatum-{tag}",
        "name of who was merged": f"Mergee {tag}",
    }
    answer = httpx.post(
        f"{url}/enroll",
        files=[("image", ("a.jpg", photos[0])), ("image", ("b.jpg", photos[1]))],
        data={"name": words["first name"], "external_id": words["external id"], "force": "true"},
        headers={"Idempotency-Key": f"once-{tag}"},
        timeout=LIMIT_SECONDS,
    )
    assert answer.status_code == 201, answer.text
    person_id = str(answer.json()["person"]["id"])
    person = f"{url}/v1/people/{person_id}"
    metadata = {"note": words["metadata"]}
    assert httpx.patch(person, json={"name": name, "metadata": metadata}).status_code == 200
    merged = enroll(url, words["name of who was merged"], photos[2], force="true").json()["person"]["id"]
    before = traces_of(folder, merged)
    into = {"into": person_id}
    assert httpx.post(f"{url}/v1/people/{merged}/merge", json=into, timeout=LIMIT_SECONDS).status_code == 200
    image = {"image": ("c.jpg", other)}
    assert httpx.post(f"{person}/rejections", files=image, timeout=LIMIT_SECONDS).status_code == 201
    traces = {f"merged {kind}": trace for kind, trace in before.items()} | traces_of(folder, person_id)
    execute(folder, "ANALYZE")  # now what PostgreSQL knows of its tables has all of this in it
    face_id = httpx.get(person).json()["faces"][0]["id"]
    assert httpx.delete(f"{person}/faces/{face_id}").status_code == 200
    assert recognize(url, photos[1]).status_code == 200
    traces |= {f"photo {number}": photo[len(photo) // 2 :][:64] for number, photo in enumerate(photos)}
    traces |= {f"later {kind}": trace for kind, trace in traces_of(folder, person_id).items()}
    return person_id, traces | {kind: word.encode() for kind, word in words.items()}


def test_nothing_of_who_was_erased_is_in_any_file_after_scrub(own_service: Service, photos: Path) -> None:
    service, folder = own_service, own_service.data_dir
    assert command("encryption", "create-key", "--data-dir", folder).returncode == 0
    service.start()
    collection = f"{service.url}/v1/collections/default"
    assert httpx.patch(collection, json={"keep_photos": True}).status_code == 200
    obama, obama2, obama3, biden = ((photos / f"{n}.jpg").read_bytes() for n in ("obama", "obama2", "obama3", "biden"))
    told = threading.Event()
    listener = threading.Thread(target=listen, args=(service.url, told), daemon=True)
    listener.start()
    gone, traces = a_life(service, [obama, obama2, obama3], "Barack Zzyzx", mirrored(biden), "gone")
    stays = enroll(service.url, "Joseph Qqstays", biden, external_id="extern-stays", force="true").json()["person"][
        "id"
    ]
    assert told.wait(LIMIT_SECONDS), "nobody was told of a recognition"
    execute(folder, "ANALYZE")
    assert httpx.post(f"{service.url}/v1/collections", json={"name": "guests"}).status_code == 201
    guest = {"external_id": "extern-guest", "metadata": '{"note": "metadatum-guest"}', "collection": "guests"}
    guest_id = enroll(service.url, "Grace Qqguest", mirrored(obama2), **guest).json()["person"]["id"]
    of_guest = {"name": b"Grace Qqguest", "name as compared": b"grace qqguest", "external id": b"extern-guest"}
    guests = {**traces_of(folder, guest_id), **of_guest, "metadata": b"metadatum-guest"}
    assert httpx.post(f"{service.url}/v1/collections", json={"name": "locked"}).status_code == 201
    locked_id = enroll(service.url, "Edith Qqlocked", mirrored(obama), collection="locked").json()["person"]["id"]
    numbers = {
        kind: trace for kind, trace in traces_of(folder, locked_id).items() if kind.startswith(("faces", "temp"))
    }
    execute(folder, "ANALYZE")
    traces |= {f"guest's {kind}": trace for kind, trace in guests.items()}
    others = {**traces_of(folder, stays), "name": b"Joseph Qqstays", "name as compared": b"joseph qqstays"}

    receipt = httpx.delete(f"{service.url}/v1/people/{gone}", timeout=LIMIT_SECONDS)
    assert receipt.status_code == 200, receipt.text
    assert httpx.delete(f"{service.url}/v1/collections/guests", timeout=LIMIT_SECONDS).status_code == 200
    encrypted = {"encrypt_embeddings": True}
    assert httpx.patch(f"{service.url}/v1/collections/locked", json=encrypted).status_code == 200
    traces |= {f"plain {kind}": trace for kind, trace in numbers.items()}
    left = found_in(folder, traces)
    assert {"plain faces.embedding 0", "plain template 0"} <= left.keys(), "PostgreSQL keeps what was plain"
    kept = {"id in bytes", "name", "faces.embedding 0", "template 0"}
    assert kept | {f"guest's {kind}" for kind in kept} | {"sealed photo 0"} <= left.keys(), (
        "PostgreSQL keeps what is erased"
    )
    assert not [kind for kind, files in left.items() if "dump" in files], "but in no table"

    done = command("scrub", "--data-dir", folder)
    assert done.returncode == 0, done.stderr
    assert "REMAINS" not in done.stdout
    assert found_in(folder, traces) == {}
    still = found_in(folder, others)
    assert {
        "id",
        "id in bytes",
        "name",
        "name as compared",
        "faces.embedding 0",
        "template 0",
        "sealed chip 0",
    } <= still.keys()
    assert "dump" in still["faces.embedding 0 as text"]
    assert not [kind for kind, trace in traces.items() if trace.decode("latin-1") in service.said()]
    assert recognize(service.url, biden).json()["faces"][0]["decision"] == "match"
    assert recognize(service.url, mirrored(obama), collection="locked").json()["faces"][0]["decision"] == "match"
