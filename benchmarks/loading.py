"""Loading training images against WebDataset, MosaicML streaming and a folder of PNGs. Last line: one JSON object.

The same images, 8 bit, one channel, 224 x 224, as batches of 64 with labels. WebDataset and MosaicML streaming hold
them twice: as raw arrays, which need no decoding, and as PNG. Each pass over all images is a process of its own, forked
from one that has imported the tool; it opens the tool's files and reads them once. The tools take turns; median of the
rounds.

Memory is what a pass adds: anonymous and shared pages of its process, and what its workers have for themselves. Pages
of mapped files are said apart: they are the system's page cache, which it takes back when it needs room; tools that
read their files fill it as well, without being charged for it.

WebDataset and MosaicML streaming are no dependencies: name the interpreter of an environment that has them, and torch,
numpy and Pillow, in LOADING_PYTHON. Without it they are left out, and the output says so.
"""

# ruff: noqa: PLC0415 - each tool is imported by the process that uses it
from __future__ import annotations

import argparse
import importlib
import io
import itertools
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

BATCH, SIZE, PER_FILE = 64, 224, 500
ORDERS, CACHES = ("sequential", "shuffled"), ("warm", "cold")
OURS = ("ours_stream", "ours_map", "png_folder")
PEERS = ("webdataset_raw", "webdataset_png", "mosaicml_raw", "mosaicml_png")
FIGURES = {"cpu_us": "µs CPU", "per_second": "images/s", "megabytes": "MB", "mapped_megabytes": "mapped"}

Batches = Iterable[Any]


# The images, as each tool keeps them


def images(count: int) -> Iterator[np.ndarray]:
    """Smooth shapes with the noise of a radiograph, so that PNG has something to do."""
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / SIZE
    for number in range(count):
        chance = np.random.default_rng(number)
        a, b, c, d = chance.uniform(1, 6, 4)
        shapes = 110 + 60 * np.sin(a * rows + b * columns) + 40 * np.cos(c * columns * d * rows)
        noise = 3 * chance.standard_normal((SIZE, SIZE), dtype=np.float32)
        yield np.clip(shapes + noise, 0, 255).astype(np.uint8)


def png(image: np.ndarray) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def npy(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, image)
    return stream.getvalue()


def write_shards(folder: Path, count: int) -> None:
    from imaging_pipeline.tensors.recipe import load_recipe
    from imaging_pipeline.tensors.shards import TensorRow, write_shard

    recipe = load_recipe("chest-xray-224")
    assert recipe.shape == (1, SIZE, SIZE)
    numbered = enumerate(images(count))
    made = (
        TensorRow(
            tensor_key=f"{number:032x}",
            series_key=f"{number:032x}",
            instance_key=f"{number:032x}",
            sop_instance_uid=f"2.25.{number}",
            frame_number=1,
            patient_id=f"P{number}",
            array=image[None],
            minimum=0.0,
            maximum=255.0,
            mean=110.0,
            standard_deviation=50.0,
            tensor_sha256="",
            source_content_sha256="",
        )
        for number, image in numbered
    )
    for number in range(0, count, PER_FILE):
        write_shard(folder / f"{number:06d}.arrow", itertools.islice(made, PER_FILE), recipe)


def write_pngs(folder: Path, count: int) -> None:
    for number, image in enumerate(images(count)):
        (folder / f"{number:06d}.png").write_bytes(png(image))


def write_tars(folder: Path, count: int, encode: Callable[[np.ndarray], bytes], suffix: str) -> None:
    tar = None
    for number, image in enumerate(images(count)):
        if number % PER_FILE == 0:
            if tar is not None:
                tar.close()
            tar = tarfile.open(folder / f"{number // PER_FILE:06d}.tar", "w")  # noqa: SIM115
        assert tar is not None
        for name, data in ((suffix, encode(image)), ("cls", str(number % 2).encode())):
            entry = tarfile.TarInfo(f"{number:06d}.{name}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    assert tar is not None
    tar.close()


def write_mds(folder: Path, count: int, encoding: str) -> None:
    from PIL import Image
    from streaming import MDSWriter

    columns = {"image": encoding, "label": "int"}
    with MDSWriter(out=str(folder), columns=columns) as writer:
        for number, image in enumerate(images(count)):
            writer.write({"image": Image.fromarray(image) if encoding == "png" else image, "label": number % 2})


def write(tool: str, folder: Path, count: int) -> None:
    if tool.startswith("ours"):
        write_shards(folder, count)
    elif tool == "png_folder":
        write_pngs(folder, count)
    elif tool.startswith("webdataset"):
        write_tars(folder, count, *((npy, "npy") if tool.endswith("raw") else (png, "png")))
    else:
        write_mds(folder, count, f"ndarray:uint8:{SIZE},{SIZE}" if tool.endswith("raw") else "png")


# The loaders


def samples(folder: Path) -> list[Any]:
    from imaging_pipeline.objects.folder import path_to_uri
    from imaging_pipeline.tensors.dataset import Sample
    from imaging_pipeline.tensors.shards import ShardReader

    shards = sorted(folder.glob("*.arrow"))
    return [Sample(path_to_uri(path), row, row % 2) for path in shards for row in range(len(ShardReader(path)))]


def ours_stream(folder: Path, *, shuffled: bool, workers: int) -> Batches:
    from imaging_pipeline.tensors.streaming import ImageStream, StreamLoader

    return StreamLoader(ImageStream(samples(folder), BATCH, shuffle=shuffled, scale=False), workers)


def ours_map(folder: Path, *, shuffled: bool, workers: int) -> Batches:
    from torch.utils.data import DataLoader

    from imaging_pipeline.tensors.dataset import ImageDataset

    return DataLoader(ImageDataset(samples(folder), scale=False), BATCH, shuffle=shuffled, num_workers=workers)


def png_folder(folder: Path, *, shuffled: bool, workers: int) -> Batches:
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    class Folder(Dataset[Any]):
        paths = sorted(folder.glob("*.png"))

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            with Image.open(self.paths[index]) as image:
                return torch.from_numpy(np.array(image))[None], index % 2

    return DataLoader(Folder(), BATCH, shuffle=shuffled, num_workers=workers)


def webdataset(folder: Path, *, shuffled: bool, workers: int) -> Batches:
    import torch
    import webdataset as wds

    is_raw = folder.name.endswith("raw")
    tars = sorted(map(str, folder.glob("*.tar")))
    stream = wds.WebDataset(tars, shardshuffle=len(tars) if shuffled else False, seed=0, empty_check=False)
    stream = stream.shuffle(PER_FILE) if shuffled else stream
    stream = stream.decode() if is_raw else stream.decode("l8")
    stream = stream.to_tuple("npy" if is_raw else "png", "cls")
    stream = stream.map_tuple(lambda image: torch.from_numpy(image)[None], lambda label: label)
    return wds.WebLoader(stream.batched(BATCH), batch_size=None, num_workers=workers)


def mosaicml(folder: Path, *, shuffled: bool, workers: int) -> Batches:
    import torch
    from streaming import StreamingDataset
    from streaming.base.util import clean_stale_shared_memory
    from torch.utils.data import DataLoader

    class Images(StreamingDataset):
        def __getitem__(self, index: Any) -> Any:
            found = super().__getitem__(index)
            return torch.from_numpy(np.array(found["image"]))[None], found["label"]

    clean_stale_shared_memory()
    stream = Images(local=str(folder), shuffle=shuffled, shuffle_seed=1, batch_size=BATCH)
    return DataLoader(stream, BATCH, num_workers=workers)


LOADERS: dict[str, Callable[..., Batches]] = {
    "ours_stream": ours_stream,
    "ours_map": ours_map,
    "png_folder": png_folder,
    "webdataset": webdataset,
    "mosaicml": mosaicml,
}


MODULES = {
    "ours_stream": "imaging_pipeline.tensors.streaming",
    "ours_map": "imaging_pipeline.tensors.dataset",
    "png_folder": "PIL.PngImagePlugin",
    "webdataset": "webdataset",
    "mosaicml": "streaming",
}
"""What each loader needs besides torch."""


# One pass, in a process of its own


def kilobytes(path: str, *names: str) -> int:
    """Sum of some lines of a file below /proc."""
    found = (line.split(":") for line in Path(path).read_text().splitlines())
    return sum(int(value.split()[0]) for name, value in found if name in names)


def memory() -> tuple[float, float]:
    """Memory of this process and its workers that is no page of a file, and their pages of files (MB)."""
    own = kilobytes("/proc/self/status", "RssAnon", "RssShmem")
    mapped = kilobytes("/proc/self/status", "RssFile")
    for worker in multiprocessing.active_children():
        with suppress(ProcessLookupError, FileNotFoundError):  # it has ended meanwhile
            own += kilobytes(f"/proc/{worker.pid}/smaps_rollup", "Private_Dirty")
            mapped += kilobytes(f"/proc/{worker.pid}/smaps_rollup", "Pss_File")
    return own / 1000, mapped / 1000


def cpu_seconds() -> float:
    """Of this process and the workers that ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def forget(folder: Path) -> None:
    """Let the system drop its pages of a folder's files."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def one_pass(tool: str, folder: Path, order: str, cache: str, workers: int) -> dict[str, float]:
    if cache == "cold":
        forget(folder)
    load = next(load for name, load in LOADERS.items() if tool.startswith(name))
    before, start = cpu_seconds(), time.perf_counter()
    added, count = [memory()], 0
    for number, (pictures, _) in enumerate(load(folder, shuffled=order == "shuffled", workers=workers)):
        assert pictures.element_size() == 1
        assert pictures.shape[1:] == (1, SIZE, SIZE)
        count += len(pictures)
        if number % 8 == 7:
            added.append(memory())
    wall, cpu = time.perf_counter() - start, cpu_seconds() - before
    own, mapped = (max(values) - values[0] for values in zip(*added, strict=True))
    return {"images": count, "wall": wall, "cpu": cpu, "megabytes": own, "mapped": mapped}


def all_passes(tool: str, folder: Path, workers: int) -> None:
    """Each order and cache in a process of its own; prints what they found as JSON."""
    import torch
    import torch.utils.data

    torch.set_num_threads(1)
    importlib.import_module(next(module for name, module in MODULES.items() if tool.startswith(name)))
    found = {}
    for order, cache in itertools.product(ORDERS, CACHES):
        ours, theirs = multiprocessing.Pipe(duplex=False)
        child = multiprocessing.get_context("fork").Process(
            target=lambda: theirs.send(one_pass(tool, folder, order, cache, workers))  # noqa: B023 - it runs at once
        )
        child.start()
        theirs.close()
        found[f"{tool}_{order}_{cache}"] = ours.recv()
        child.join()
    print(json.dumps(found))


# All tools


def run(python: str, *arguments: str) -> str:
    done = subprocess.run([python, __file__, *arguments], capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}:\n{done.stderr[-2000:]}")
    return done.stdout.strip().rpartition("\n")[2]


def measure(count: int, rounds: int, workers: int) -> dict[str, float]:
    peer = os.environ.get("LOADING_PYTHON")
    if not peer:
        print("left out: WebDataset and MosaicML streaming (LOADING_PYTHON names no interpreter)")
    pythons = dict.fromkeys(OURS, sys.executable) | (dict.fromkeys(PEERS, peer) if peer else {})
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for tool, python in pythons.items():
            folder = Path(scratch) / tool
            folder.mkdir()
            run(python, "--write", tool, str(folder), str(count))
        for number in range(rounds):
            for tool in list(pythons)[:: -1 if number % 2 else 1]:
                passes = json.loads(run(pythons[tool], "--passes", tool, str(Path(scratch) / tool), str(workers)))
                for name, said in passes.items():
                    assert said["images"] == count, (name, said)
                    found.setdefault(name, []).append(said)
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
    figures: dict[str, float] = {"images": count, "rounds": rounds, "workers": workers}
    for name, passes in found.items():
        middle = {key: statistics.median(said[key] for said in passes) for key in passes[0]}
        figures[f"{name}_cpu_us"] = round(middle["cpu"] / count * 1e6, 1)
        figures[f"{name}_per_second"] = round(count / middle["wall"])
        figures[f"{name}_megabytes"] = round(middle["megabytes"], 1)
        figures[f"{name}_mapped_megabytes"] = round(middle["mapped"], 1)
    for peer_tool, (order, cache) in itertools.product(pythons, itertools.product(ORDERS, CACHES)):
        pairs = [found[f"{tool}_{order}_{cache}"] for tool in (peer_tool, OURS[0])]
        ratios = [theirs["cpu"] / ours["cpu"] for theirs, ours in zip(*pairs, strict=True)]
        if peer_tool not in OURS[:2]:
            figures[f"{order}_{cache}_ratio_vs_{peer_tool}"] = round(statistics.median(ratios), 2)
    return figures


def show(figures: dict[str, float]) -> None:
    for order, cache in itertools.product(ORDERS, CACHES):
        print(f"{f'{order}, {cache}':22}" + "".join(f"{name:>12}" for name in FIGURES.values()))
        for tool in (*OURS, *PEERS):
            if f"{tool}_{order}_{cache}_cpu_us" in figures:
                cells = [figures[f"{tool}_{order}_{cache}_{key}"] for key in FIGURES]
                print(f"  {tool:20}" + "".join(f"{cell:12,.1f}" for cell in cells))


def main() -> None:
    if sys.argv[1:2] == ["--write"]:
        write(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
        return
    if sys.argv[1:2] == ["--passes"]:
        all_passes(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    figures = measure(options.images, options.rounds, options.workers)
    show(figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
