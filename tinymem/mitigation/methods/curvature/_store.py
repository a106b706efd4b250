"""Stored spectra: one pass over the rows and one eigendecomposition a projection serve every rho, layer and matrix.

<cache>/curvature/<id>/<weight's name>.safetensors, where <cache> is that of texts ($TINYMEM_CACHE) and <id> a hash of the model's weights,
the rows, how labels are made, and the type of device. A file holds eigenvectors and eigenvalues of A and G in fp32, which is A and G.
"""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from tinymem.data.rows import Rows
from tinymem.data.text.kept import in_use
from tinymem.data.text.tokens import cache_directory
from tinymem.errors import UserError
from tinymem.mitigation.methods.curvature._moments import Labels, counted, moments, objectives_of
from tinymem.mitigation.methods.curvature._projections import Projection
from tinymem.mitigation.methods.curvature._spectrum import Spectrum
from tinymem.models.fingerprint import fingerprint
from tinymem.runtime.files import content_id, write_bytes
from tinymem.runtime.progress import Bar

ROOM = 24 * 2**30
"""Bytes of fp64 moments that one pass over the rows may hold; more projections take more passes."""
HELD = 2**30
"""Bytes of spectra that stay in memory; larger ones are read again for each edit."""
PARTS = ("U", "l", "V", "m")


@dataclass
class Spectra:
    """The spectra of a model's projections, by the weight's name, on one device; read when they are asked for.

    Attributes:
        folder: of the files.
        device: they go there.
        seconds: that passes and eigendecompositions took, whenever they were made.
        rows: number of rows that they were measured on.
    """

    folder: Path
    device: torch.device
    rows: int = 0
    seconds: float = 0.0
    _held: dict[str, Spectrum] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Spectrum:
        if name in self._held:
            return self._held[name]
        try:
            with safe_open(self._path(name), "pt", device=str(self.device)) as file:
                found = Spectrum(*(file.get_tensor(part) for part in PARTS))
        except FileNotFoundError:
            raise UserError(f"expected the curvature of {name} in {self.folder}, found it removed meanwhile; run again") from None
        if _size(found) + sum(map(_size, self._held.values())) <= HELD:
            self._held[name] = found
        return found

    def write(self, name: str, spectrum: Spectrum, seconds: float) -> None:
        """Store a spectrum that took so many seconds; where it cannot be written it stays in memory, which a warning says."""
        tensors = {part: tensor.contiguous().cpu() for part, tensor in zip(PARTS, _tensors(spectrum), strict=True)}
        try:
            write_bytes(self._path(name), save(tensors, metadata={"seconds": str(seconds)}))
        except UserError as error:
            self._held[name] = spectrum
            warnings.warn(f"the curvature of {name} is not kept for other edits: {error}", stacklevel=3)

    def seconds_of(self, name: str) -> float | None:
        """Seconds that a stored spectrum took to make; None where there is none, or a file that is damaged."""
        try:
            with safe_open(self._path(name), "pt") as file:
                return float(file.metadata()["seconds"]) if {*file.keys()} == {*PARTS} else None
        except (OSError, SafetensorError):
            return None

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"


@contextmanager
def spectra(
    model: nn.Module, rows: Rows, found: Sequence[Projection], labels: Labels, seed: int, bar: Bar | None = None
) -> Iterator[Spectra]:
    """The stored spectra of some projections, which nobody removes inside the context; those that are not there yet are made.

    Args:
        model: which is left as it is.
        rows: that the curvature is measured on, on the model's device.
        found: the projections.
        labels: `sampled` from the model by the seed, or the rows' own tokens, `gold`.
        seed: of sampled labels.
        bar: advances by a row for each row of a pass.
    """
    stored = Spectra(cache_directory() / "curvature" / spectra_id(model, rows, labels, seed), rows.ids.device, len(rows))
    with ExitStack() as stack:
        with suppress(UserError):  # a cache that cannot be written: nothing is stored, which `write` says
            stack.enter_context(in_use(stored.folder))
        _make_missing(stored, model, rows, found, labels, seed, bar)
        yield stored


def _make_missing(
    stored: Spectra, model: nn.Module, rows: Rows, found: Sequence[Projection], labels: Labels, seed: int, bar: Bar | None
) -> None:
    stored.seconds = sum(stored.seconds_of(projection.name) or 0 for projection in found)
    missing = [projection for projection in found if stored.seconds_of(projection.name) is None]
    for group in _groups(missing):
        started = time.perf_counter()
        sums = moments(model, rows, group, objectives_of(labels, torch.Generator().manual_seed(seed)), bar=bar)
        share = (time.perf_counter() - started) / len(group)
        for projection in group:
            started = time.perf_counter()
            spectrum = Spectrum.of(sums.pop(0))  # of a large model there is no room for all of both
            seconds = share + time.perf_counter() - started
            stored.write(projection.name, spectrum, seconds)
            stored.seconds += seconds


def spectra_id(model: nn.Module, rows: Rows, labels: Labels, seed: int) -> str:
    """Content id of what the spectra of a model on some rows depend on."""
    digest = hashlib.sha256()
    for part in (rows.ids.int(), counted(rows)):
        digest.update(part.cpu().contiguous().numpy().data)  # no copy: at 10,000 rows hashing is most of an edit
    drawn = [labels, seed] if labels == "sampled" else [labels]
    weights = {name: [str(part) for part in parts] for name, parts in fingerprint(model).items()}
    return content_id([weights, digest.hexdigest(), list(rows.ids.shape), drawn, rows.ids.device.type], 32)


def _groups(found: Sequence[Projection]) -> Iterator[list[Projection]]:
    """Consecutive projections whose moments fit `ROOM` together."""
    group: list[Projection] = []
    room = 0
    for projection in found:
        size = 8 * sum(side**2 for side in projection.shape)
        if group and room + size > ROOM:
            yield group
            group, room = [], 0
        group.append(projection)
        room += size
    if group:
        yield group


def _tensors(spectrum: Spectrum) -> tuple[Tensor, ...]:
    return spectrum.U_PP, spectrum.l_P, spectrum.V_QQ, spectrum.m_Q


def _size(spectrum: Spectrum) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(spectrum))
