"""An object store that fails now and then, or for good: nothing is lost, and nobody waits long."""

import fsspec
import pytest
from pyarrow.fs import FSSpecHandler, PyFileSystem

from nnclr_study.errors import ClusterError
from nnclr_study.study.run_folder import RunFolder
from nnclr_study.study.spec import parse_study
from nnclr_study.sweep import store as module
from nnclr_study.sweep.store import FIRST_WAIT_SECONDS, PATIENCE_SECONDS, Store
from tests.study.test_run_folder import epoch
from tests.study.test_spec import GOOD

DOWN = "When reading information for key 'x': AWS Error SLOW_DOWN (HTTP status 503)"


class Flaky(FSSpecHandler):
    """Files in memory, of which so many of the next answers are errors."""

    def __init__(self):
        super().__init__(fsspec.filesystem("memory", skip_instance_cache=True))
        self.fs.store = {}
        self.failing, self.error, self.asked = 0, OSError(DOWN), 0

    def _answer(self):
        self.asked += 1
        if self.failing:
            self.failing -= 1
            raise self.error

    def get_file_info(self, paths):
        self._answer()
        return super().get_file_info(paths)

    def get_file_info_selector(self, selector):
        self._answer()
        return super().get_file_info_selector(selector)

    def open_input_stream(self, path):
        self._answer()
        return super().open_input_stream(path)

    def open_output_stream(self, path, metadata):
        self._answer()
        return super().open_output_stream(path, metadata)


class Clock:
    """A clock that only waiting moves."""

    def __init__(self):
        self.now, self.waits = 0.0, []

    def sleep(self, seconds):
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(module, "sleep", made.sleep)
    monkeypatch.setattr(module, "monotonic", lambda: made.now)
    return made


@pytest.fixture
def folder(tmp_path):
    made = RunFolder.create(tmp_path / "good").keep(parse_study(GOOD, "good.toml"))
    made.append_epoch("t", epoch(1))
    return made


@pytest.fixture
def store(folder, clock):
    """Return a store that was reached, and holds a run folder."""
    made = Store("s3://key:hunter2@lab/studies?endpoint_override=127.0.0.1:1&scheme=http", "good")
    made.flaky = Flaky()
    made.filesystem = PyFileSystem(made.flaky)
    made.push(folder.path)
    assert clock.waits == []
    return made


@pytest.mark.parametrize("failures", [1, 3, 6])
def test_what_fails_a_few_times_is_done_in_the_end(store, folder, clock, tmp_path, failures):
    folder.append_epoch("t", epoch(2))
    store.flaky.failing = failures
    store.push(folder.path)
    assert len(clock.waits) == failures
    store.flaky.failing = failures
    fresh = RunFolder.create(tmp_path / "fresh")
    store.pull(fresh.path)
    assert fresh.epochs() == folder.epochs()
    assert fresh.study() == folder.study()


def test_waits_grow_and_are_no_two_nodes_alike(store, folder, clock):
    store.flaky.failing = 6
    store.put(folder.study_file, "study.toml")
    for n, wait in enumerate(clock.waits):
        longest = FIRST_WAIT_SECONDS * 2**n
        assert longest / 2 <= wait <= longest
    first = clock.waits[:]
    clock.waits.clear()
    store.flaky.failing = 6
    store.put(folder.study_file, "study.toml")
    assert clock.waits != first


@pytest.mark.parametrize("work", ["push", "pull", "get"])
def test_what_fails_for_ever_is_told_in_bounded_time(store, folder, clock, tmp_path, work):
    store.flaky.failing = 10**9
    folder.append_epoch("t", epoch(2))
    with pytest.raises(ClusterError) as caught:
        if work == "get":
            store.get("study.toml", tmp_path / "x")
        else:
            getattr(store, work)(folder.path)
    assert clock.now == pytest.approx(PATIENCE_SECONDS)
    assert len(clock.waits) < 10
    said = str(caught.value)
    assert said.startswith("the object store s3://key:***@lab/studies cannot be used: ")
    assert "SLOW_DOWN (HTTP status 503)" in said
    assert "the same command goes on" in said
    assert "hunter2" not in said
    assert caught.value.exit_code == 3
    store.flaky.failing = 0
    store.push(folder.path)
    store.pull(tmp_path / "later")
    assert RunFolder(tmp_path / "later").epochs() == folder.epochs(), "nothing is lost"


@pytest.mark.parametrize(
    "error",
    [
        OSError("When reading: AWS Error ACCESS_DENIED during HeadObject operation: No body"),
        OSError("When reading: AWS Error NO_SUCH_BUCKET during PutObject operation: None"),
        OSError("When reading: AWS Error INVALID_ACCESS_KEY_ID during PutObject operation"),
        OSError("When reading: AWS Error UNKNOWN (HTTP status 400) during HeadObject operation"),
        OSError(28, "No space left on device"),
        OSError("AWS Error BUCKET_NOT_FOUND during PutObject operation"),
        OSError("AWS Error REQUEST_TIME_TOO_SKEWED during ListObjectsV2 operation: of 900 s"),
        OSError("AWS Error REQUEST_EXPIRED during PutObject operation"),
        OSError("AWS Error EXPIRED_TOKEN during PutObject operation: The token has expired."),
        OSError("AWS Error SIGNATURE_DOES_NOT_MATCH during PutObject operation"),
        OSError("AWS Error MISSING_AUTHENTICATION_TOKEN during PutObject operation"),
        OSError("AWS Error OPT_IN_REQUIRED during PutObject operation"),
        OSError("AWS Error VALIDATION during PutObject operation"),
        OSError("AWS Error UNKNOWN (HTTP status 301) during HeadObject operation: No body"),
        OSError(
            "AWS Error UNKNOWN (HTTP status 400) during PutObject operation: Unable to parse "
            "ExceptionName: ExpiredToken Message: The provided token has expired."
        ),
        OSError("for key 'timeout/slowdown' in bucket 'x': AWS Error ACCESS_DENIED during Put"),
        OSError("google::cloud::Status(PERMISSION_DENIED: no access)"),
        OSError("google::cloud::Status(UNAUTHENTICATED: no credentials)"),
        OSError("Azure Error: [ContainerNotFound] 404 The specified container does not exist."),
        PermissionError(13, "Permission denied"),
        FileNotFoundError(2, "No such file or directory"),
    ],
    ids=str,
)
def test_what_asking_again_does_not_change_is_told_at_once(store, folder, clock, error):
    store.flaky.failing, store.flaky.error = 10**9, error
    with pytest.raises(ClusterError, match="cannot be used"):
        store.put(folder.study_file, "study.toml")
    assert clock.waits == []


@pytest.mark.parametrize(
    "error",
    [
        OSError("AWS Error NETWORK_CONNECTION during PutObject operation: curlCode: 6, host"),
        OSError("AWS Error INTERNAL_FAILURE during PutObject operation: 400 Bad Things"),
        OSError("AWS Error SERVICE_UNAVAILABLE during PutObject operation"),
        OSError("AWS Error THROTTLING during PutObject operation"),
        OSError("AWS Error REQUEST_TIMEOUT during PutObject operation"),
        OSError("AWS Error UNKNOWN (HTTP status 400) during Put: ExceptionName: RequestTimeout"),
        OSError("AWS Error UNKNOWN (HTTP status 409) during Put: ExceptionName: OperationAborted"),
        OSError("AWS Error UNKNOWN (HTTP status 507) during PutObject: XMinioStorageFull"),
        OSError("AWS Error [code 99] during PutObject operation: who knows"),
        OSError("google::cloud::Status(UNAVAILABLE: try later)"),
        OSError("something that nobody has seen before"),
        ConnectionResetError(104, "Connection reset by peer"),
        TimeoutError(110, "Connection timed out"),
    ],
    ids=str,
)
def test_what_may_pass_is_asked_again(store, folder, clock, error):
    store.flaky.failing, store.flaky.error = 2, error
    store.put(folder.study_file, "study.toml")
    assert len(clock.waits) == 2


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        ("AWS Error REQUEST_TIME_TOO_SKEWED during PutObject", "set the clock of this machine"),
        ("AWS Error NO_SUCH_BUCKET during PutObject", "check the name of the bucket"),
        ("AWS Error ACCESS_DENIED during PutObject", "credentials"),
    ],
)
def test_a_permanent_error_says_how_to_fix_it(store, folder, error, fix):
    store.flaky.failing, store.flaky.error = 1, OSError(error)
    with pytest.raises(ClusterError, match=fix):
        store.put(folder.study_file, "study.toml")


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
def test_a_server_that_is_busy_is_asked_again(store, folder, clock, status):
    store.flaky.failing = 2
    store.flaky.error = OSError(f"AWS Error UNKNOWN (HTTP status {status}) during HeadObject")
    store.put(folder.study_file, "study.toml")
    assert len(clock.waits) == 2


def test_an_address_that_never_answered_is_told_at_once(folder, clock):
    store = Store("s3://lab/studies?endpoint_override=127.0.0.1:1&scheme=http", "good")
    flaky = Flaky()
    flaky.failing = 10**9
    store.filesystem = PyFileSystem(flaky)
    with pytest.raises(ClusterError, match="cannot be used"):
        store.pull(folder.path)
    assert clock.waits == []


def test_a_file_on_its_way_is_whole_or_not_there(store, clock, tmp_path, monkeypatch):
    class Torn:
        """A stream that breaks after ten bytes."""

        def __init__(self, stream):
            self._stream, self.closed = stream, False

        def read(self, _):
            if self._stream.tell():
                raise OSError(DOWN)
            return self._stream.read(10)

        def close(self):
            self.closed = True

    usual, torn, seen = store.flaky.fs.open, iter([True, True]), []

    def opened(path, **words):
        return Torn(usual(path, **words)) if next(torn, False) else usual(path, **words)

    monkeypatch.setattr(store.flaky.fs, "open", opened)
    monkeypatch.setattr(module, "sleep", lambda _: seen.append((tmp_path / "x").exists()))
    assert store.get("study.toml", tmp_path / "x")
    assert seen == [False, False]
    assert (tmp_path / "x").read_text() == GOOD
    assert not list(tmp_path.glob("*.part"))
