import http.server
import io
import tarfile
import threading
import zipfile

import pytest

from melgenre.download import DownloadError, download, unpack


class Server(http.server.BaseHTTPRequestHandler):
    """Serves one file with ranges, as the hosts of GTZAN do; it can break off half-way."""

    content, etag, breaks_after = b"", '"1"', None

    def do_GET(self):
        self.server.asked.append(dict(self.headers))
        content, start = self.content, 0
        if self.path != "/genres.tar.gz":
            self.send_error(404)
            return
        wanted = self.headers.get("Range")
        if wanted and self.headers.get("If-Range") == self.etag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        if start and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("ETag", self.etag)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = len(content) if self.breaks_after is None else start + self.breaks_after
        self.wfile.write(content[start:end])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    handler = type("Handler", (Server,), {"content": bytes(range(256)) * 20_000})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.asked, running.handler = [], handler
        running.url = f"http://127.0.0.1:{running.server_port}/genres.tar.gz"
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def test_a_download_arrives_whole_and_only_once(server, tmp_path):
    target = download(server.url, tmp_path / "below" / "music.tar.gz", progress=False)
    assert target.read_bytes() == server.handler.content
    assert [file.name for file in target.parent.iterdir()] == ["music.tar.gz"]
    download(server.url, target, progress=False)
    assert len(server.asked) == 1


def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path):
    target = tmp_path / "music.tar.gz"
    server.handler.breaks_after = 3_000_000
    with pytest.raises(DownloadError, match="goes on where it stopped"):
        download(server.url, target, progress=False)
    assert not target.exists(), "half a file never stands under its final name"
    so_far = (tmp_path / "music.tar.gz.part").stat().st_size
    assert so_far > 0
    server.handler.breaks_after = None
    download(server.url, target, progress=False)
    assert server.asked[-1]["Range"] == f"bytes={so_far}-"
    assert target.read_bytes() == server.handler.content


def test_a_download_that_only_lacked_its_name_gets_it(server, tmp_path):
    target = tmp_path / "music.tar.gz"
    (tmp_path / "music.tar.gz.part").write_bytes(server.handler.content)
    (tmp_path / "music.tar.gz.etag").write_text(server.handler.etag)
    download(server.url, target, progress=False)
    assert target.read_bytes() == server.handler.content


def test_a_file_that_changed_meanwhile_is_fetched_anew(server, tmp_path):
    target = tmp_path / "music.tar.gz"
    server.handler.breaks_after = 1_000_000
    with pytest.raises(DownloadError):
        download(server.url, target, progress=False)
    server.handler.content, server.handler.etag = b"another" * 500_000, '"2"'
    server.handler.breaks_after = None
    assert download(server.url, target, progress=False).read_bytes() == server.handler.content


def test_an_unreachable_host_gets_a_sentence_that_says_what_to_do_by_hand(tmp_path):
    with pytest.raises(DownloadError, match="cannot be reached.*browser.*music.zip"):
        download("http://127.0.0.1:9/music.zip", tmp_path / "music.zip", progress=False)
    assert not (tmp_path / "music.zip").exists()


def test_a_file_that_is_not_there_is_told(server, tmp_path):
    with pytest.raises(DownloadError, match="answers 404"):
        download(server.url + "x", tmp_path / "music.zip", progress=False)


def make_zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def make_tar(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_an_archive_gives_its_music_and_nothing_else(tmp_path, make):
    members = {
        "genres/jazz/jazz.00000.wav": b"la",
        "genres/jazz/._jazz.00000.wav": b"a file system's note",
        "genres/bextract_single.mf": b"a list",
        "run.sh": b"echo",
    }
    folder = unpack(make(tmp_path / "archive", members), tmp_path / "music")
    files = [f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()]
    assert files == ["jazz/jazz.00000.wav"]
    assert (folder / files[0]).read_bytes() == b"la"


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_unpacking_again_makes_no_file_newer(tmp_path, make):
    archive = make(tmp_path / "archive", {"jazz/a.wav": b"la"})
    times = set()
    for target in ("once", "again"):
        file = unpack(archive, tmp_path / target) / "jazz" / "a.wav"
        times.add(file.stat().st_mtime)
    assert len(times) == 1
    assert times.pop() <= archive.stat().st_mtime


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize("name", ["../out.wav", "/out.wav", "a/../../out.wav", "c:/out.wav"])
def test_no_path_leads_out_of_the_target(tmp_path, make, name):
    target = tmp_path / "below" / "music"
    archive = make(tmp_path / "archive", {"jazz/a.wav": b"la", name: b"out"})
    with pytest.raises(DownloadError, match="outside its folder"):
        unpack(archive, target)
    assert not target.exists()
    assert list(target.parent.iterdir()) == []
    assert not list(tmp_path.rglob("out.wav"))


def test_links_in_a_tar_are_not_followed(tmp_path):
    with tarfile.open(tmp_path / "archive", "w") as archive:
        link = tarfile.TarInfo("jazz/link.wav")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert list(unpack(tmp_path / "archive", tmp_path / "music").iterdir()) == []


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_damaged_archive_leaves_nothing_behind(tmp_path, make):
    archive = make(tmp_path / "archive", {f"jazz/{i}.wav": bytes(9999) for i in range(20)})
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(DownloadError, match="cannot be unpacked"):
        unpack(archive, tmp_path / "music")
    assert [file.name for file in tmp_path.iterdir()] == ["archive"]
