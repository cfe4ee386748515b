"""The way of ``saepd features`` and ``saepd explore`` from feedback to the table of its latents."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saepd.cli.feedback import FeedbackOptions
from saepd.cli.options import load_model_and_sae
from saepd.common.checks import check_number
from saepd.common.progress import progress_bar
from saepd.features.config import FeatureConfig
from saepd.models.choice import ModelConfig
from saepd.models.wording import ReadoutConfig

if TYPE_CHECKING:
    from sae_lens import SAE

    from saepd.features.index.feature_index import FeatureIndex
    from saepd.features.table import FeatureTable


@dataclass(frozen=True)
class Tabled:
    """The table of latents that encode feedback, and what it is of.

    Attributes:
        sae: The dictionary that the latents are of.
        index: What its latents do in texts; None where there is no index.
        table: The table.
    """

    sae: SAE[Any]
    index: FeatureIndex | None
    table: FeatureTable


@dataclass(kw_only=True)
class TableOptions:
    """What is shown of the latents.

    Attributes:
        index: Folder of an index, for labels and contexts; the one beside the SAE if not given.
        top: Latents of each perspective that are shown.
    """

    index: Path | None = None
    top: int = 5
    rows: FeedbackOptions = field(default_factory=FeedbackOptions)
    where: ModelConfig = field(default_factory=ModelConfig)
    features: FeatureConfig = field(default_factory=FeatureConfig)
    readout: ReadoutConfig = field(default_factory=ReadoutConfig)

    def compute(self, *, needs_index: bool = False) -> Tabled:
        """The table that was asked for.

        Args:
            needs_index: Whether an SAE without an index is refused.

        Raises:
            InputError: whatever cannot be read or loaded; as much of it as possible before the
                model is.
        """
        from saepd.features.index.reading import index_folder, load_index, own_index, read_info
        from saepd.features.table import feature_table

        check_number("--top", self.top, at_least=1, whole=True)
        folder = self.index
        if folder is None and needs_index:
            folder = index_folder(self.where.sae_source, self.where.sae_id)
        if folder is not None:
            read_info(folder)
        rows = self.rows.load()
        model, sae = load_model_and_sae(self.where)
        index = own_index(sae) if folder is None else load_index(folder, sae)
        with progress_bar(f"encoding {len(rows)} rows") as report:
            table = feature_table(
                model,
                sae,
                rows,
                self.features,
                self.readout,
                index=index,
                top=self.top,
                progress=report,
            )
        return Tabled(sae, index, table)
