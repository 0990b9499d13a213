"""Hugging Face's hub: the folders of `save` pushed there, and read from there."""

from pathlib import Path
from typing import Any, Self

from huggingface_hub import ModelHubMixin, snapshot_download

from archspec.network.segnet import SegNet
from archspec.saved.info import ModelInfo
from archspec.saved.read import from_pretrained, model_info
from archspec.saved.save import CONFIG, WEIGHTS, info_of, write


class HubModel(ModelHubMixin, library_name="archspec-seg"):
    """A network with `save_pretrained`, `push_to_hub` and `from_pretrained` of huggingface_hub.

    `HubModel.from_pretrained("owner/name").net` is the network of a repository; a local folder
    needs no connection. `info` is what is known of it beside its plan, see `ModelInfo`.
    """

    def __init__(self, net: SegNet, info: ModelInfo | None = None) -> None:
        self.net = net
        self.info = info_of(net) if info is None else info

    def _save_pretrained(self, save_directory: Path) -> None:
        write(self.net, self.info, save_directory, force=True)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> Self:
        folder = Path(model_id)
        if not folder.is_dir():
            files = [CONFIG, WEIGHTS]
            folder = Path(snapshot_download(model_id, allow_patterns=files, **options))
        return cls(from_pretrained(folder), model_info(folder))
