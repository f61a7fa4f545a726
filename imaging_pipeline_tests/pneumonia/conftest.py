"""Keeps torch to one thread: the images are so small that threads would only wait for each other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from imaging_pipeline_tests.pneumonia.learned import LearnedModel, learn_in


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="package")
def learned_model(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> LearnedModel:
    """One model, registered and champion; a test that moves the champion puts it back."""
    return learn_in(tmp_path_factory.mktemp("learned"))
