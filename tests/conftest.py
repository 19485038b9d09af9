"""Settings of the whole suite."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from forking import Zygote, build_commands_once, leave_modules_out, leave_syncs_out

# Tiny tensors: one thread is faster than two, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests and the processes that they start compile each module once, also where the environment says to keep nothing.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

build_commands_once()
leave_syncs_out()
leave_modules_out()

REPOSITORY = Path(__file__).parent.parent
LONG = ("test_quality.py", "test_readme.py")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out `slow` tests unless they are asked for, and `gpu` tests where there is no GPU. The longest ones come
    first: at the end, the other workers would wait for them."""
    items.sort(key=lambda item: item.path.name not in LONG)
    if "slow" not in config.getoption("-m"):
        slow = [item for item in items if "slow" in item.keywords]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if "slow" not in item.keywords]
    for item in items:
        if "gpu" in item.keywords:
            import torch

            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def pytest_collection_finish() -> None:
    """Leave what has been imported out of the searches for garbage, which sweeps ask for after each trial."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder for caches: never the user's own. Weights that libraries have downloaded stay where they are."""
    usual = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TORCH_HOME", os.environ.get("TORCH_HOME") or f"{usual}/torch")
        environment.setenv("HF_HOME", os.environ.get("HF_HOME") or f"{usual}/huggingface")
        environment.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the repository; the test is skipped where there is none."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real data: ../shared/data is not there")
    return folder


@pytest.fixture
def one_stem(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training does not say how much more its stem costs than the other one, which would be built for that."""
    monkeypatch.setattr("dltrain.engine.stem._cost", lambda *_: 0)


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """A warm interpreter that forks a process per command."""
    warm = Zygote()
    yield warm
    warm.close()


@pytest.fixture(scope="session")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An .npz of 150 small images in 3 classes."""
    from training import write_arrays

    return write_arrays(tmp_path_factory.mktemp("arrays") / "a.npz")


@pytest.fixture(scope="session")
def photo_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on pictures of mixed sizes. See `train_on_photos`."""
    from exporting import train_on_photos

    return train_on_photos(tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="session")
def onnx_once() -> Iterator[None]:
    """torch's exporter, which takes seconds, writes the file of a network only the first time."""
    pytest.importorskip("onnxscript")
    from exporting import remembered

    from dltrain.export import onnx_file

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_file, "onnx_of", remembered(onnx_file.onnx_of))
        yield


@pytest.fixture(scope="session")
def exported(photo_run: Path, onnx_once: None) -> Path:
    """Its ONNX file."""
    from evaluating import invoke

    result = invoke("export", photo_run)
    assert result.exit_code == 0, result.stderr
    return photo_run / "export" / "model.onnx"
