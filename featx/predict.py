"""`featx predict`: LightningCLI with four flat blocks, and no other verb."""

from collections.abc import Sequence

from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from featx.datamodule import VideoDataModule
from featx.extractor import FeatureExtractor
from featx.parsing import ConciseErrors
from featx.writer import FeatureWriter


class PredictParser(ConciseErrors, LightningArgumentParser):
    """The parser of `featx predict`."""


class PredictCLI(LightningCLI):
    """The blocks `model`, `data`, `writer` and `trainer`."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the block of the writer."""
        parser.add_lightning_class_args(FeatureWriter, "writer")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse what stands after `featx predict`; the processes of DDP find it in sys.argv too."""
        self.config = parser.parse_args(args)  # type: ignore[arg-type]  # always a list here


def predict(args: Sequence[str]) -> None:
    """Extract the features of a data set, one feature file a split."""
    cli = PredictCLI(
        FeatureExtractor,
        VideoDataModule,
        args=[*args],
        run=False,  # no subcommands: this is the one
        parser_class=PredictParser,
        parser_kwargs={"prog": "featx predict", "description": predict.__doc__},
        save_config_callback=None,  # it would refuse to run twice; the feature file has it all
        seed_everything_default=False,
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
        trainer_defaults={"logger": False, "enable_checkpointing": False},
    )
    cli.trainer.predict(cli.model, datamodule=cli.datamodule, return_predictions=False)
