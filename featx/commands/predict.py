"""`featx predict`: LightningCLI with four flat blocks, and no other verb."""

from argparse import HelpFormatter, RawDescriptionHelpFormatter
from collections.abc import Sequence
from inspect import signature
from typing import Any, Union, get_args

from jsonargparse import DefaultHelpFormatter, Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from featx.commands.parser import ConciseParser
from featx.errors import UsageError
from featx.extraction.datamodule import VideoDataModule
from featx.extraction.extractor import FeatureExtractor
from featx.extraction.writer import FeatureWriter
from featx.progress import without_chatter

_HELP = """
the options that matter first:
  --data.root ROOT            the data set: ROOT/<split>/<category>/<subcategory>/processed_data.pt;
                              with --data.source clips, the video files themselves
  --data.table FILE           or a table of clips: .csv, .tsv, .jsonl, .parquet, ...
  --writer.output_dir DIR     where the feature files go (default: features)
  --model.backbone NAME       resnet50, resnet101, efficientnet_v2_s, efficientnet_v2_m (default),
                              efficientnet_lite0 (small, its weights are a package), another of
                              torchvision's classification models, or timm:<name>
  --trainer.devices N         how many GPUs, or processes on a CPU (default: all GPUs)
  --trainer.precision P       32-true (default), or bf16-mixed: up to twice as fast where there are
                              instructions for it, with an error of 3e-2 to 1e-1 (trained weights)
  --config FILE               any of these in a file; --print_config writes one with all defaults
"""


class _HelpFormatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Keeps the lines of the description."""


class PredictParser(ConciseParser, LightningArgumentParser):
    """The parser of `featx predict`."""

    def add_lightning_class_args(
        self,
        lightning_class: Any,  # noqa: ANN401  # whatever Lightning takes
        nested_key: str,
        subclass_mode: bool = False,
        required: bool = True,
    ) -> list[str]:
        """Add the settings of a class; a whole number stays one, where a fraction is taken, too.

        Of the Trainer's `float | int`, the first would be tried first: 1, one batch, would become
        1.0, all of them.
        """
        if lightning_class is not Trainer:
            return super().add_lightning_class_args(
                lightning_class, nested_key, subclass_mode, required
            )
        limits = {
            name: parameter
            for name, parameter in signature(Trainer).parameters.items()
            if name.endswith("_batches") and float in get_args(parameter.annotation)
        }
        names = self.add_class_arguments(
            Trainer, nested_key, fail_untyped=False, instantiate=False, skip={*limits}
        )
        group = (self.groups or {})[nested_key]
        for name, parameter in limits.items():
            kinds = sorted(get_args(parameter.annotation), key=lambda kind: kind is not int)
            group.add_argument(
                f"--{nested_key}.{name}",
                type=Union[tuple(kinds)],  # noqa: UP007  # the kinds are not known before
                default=parameter.default,
                help="a number of batches, or a share of all, such as 0.5 or 1.0",
            )
        return [*names, *(f"{nested_key}.{name}" for name in limits)]

    def format_help(self, formatter: HelpFormatter | None = None) -> str:
        """The options of featx in their order, and those of the Trainer last."""
        blocks = [(self.groups or {})[name] for name in ("data", "model", "writer")]
        trainers = (self.groups or {})["trainer"]
        others = [group for group in self._action_groups if group not in (*blocks, trainers)]
        self._action_groups = [*others, *blocks, trainers]
        return str(super().format_help(formatter))


class PredictCLI(LightningCLI):
    """The blocks `model`, `data`, `writer` and `trainer`."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the block of the writer."""
        parser.add_lightning_class_args(FeatureWriter, "writer")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the arguments after `featx predict`, without the warning about sys.argv."""
        try:
            self.config = parser.parse_args(args)  # type: ignore[arg-type]  # always a list here
        except UnicodeDecodeError as error:
            parser.error(f"config: expected a file in UTF-8, found: {error}")
        for name in ("model", "data", "writer", "trainer"):
            if not isinstance(self.config.get(name), Namespace):
                parser.error(f'"{name}": expected a mapping of options')
        if self.config.get("data.root") is None and self.config.get("data.table") is None:
            parser.error("data.root: expected the data set's folder, or data.table a table of it")
        if self.config.get("writer.output_dir") is None:
            parser.error('"writer.output_dir": expected a folder, found null')

    def instantiate_trainer(self, **settings: Any) -> Trainer:  # noqa: ANN401  # of any Trainer
        """Make the Trainer; what it refuses is a wrong use."""
        try:
            return super().instantiate_trainer(**settings)
        except (MisconfigurationException, ValueError, TypeError) as error:
            raise UsageError(f"trainer: {' '.join(str(error).split())}") from error


def main(args: Sequence[str], summary: str) -> int:
    """Run `featx predict`; returns its exit status."""
    with without_chatter():
        cli = PredictCLI(
            FeatureExtractor,
            VideoDataModule,
            args=[*args],
            run=False,  # no subcommands: this is the one
            parser_class=PredictParser,
            parser_kwargs={
                "prog": "featx predict",
                "usage": "featx predict (--data.root ROOT | --data.table FILE) [options]",
                "description": f"{summary}\n{_HELP}",
                "formatter_class": _HelpFormatter,
            },
            save_config_callback=None,  # it writes config.yaml to the working folder, and only once
            seed_everything_default=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            trainer_defaults={"logger": False, "enable_checkpointing": False},
        )
        cli.trainer.predict(cli.model, datamodule=cli.datamodule, return_predictions=False)
    return 0
