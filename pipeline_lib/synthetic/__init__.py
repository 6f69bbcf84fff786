"""Made-up pictures in AutoVI's layout: the six categories, their defects and their masks, drawn from simple shapes."""

from pipeline_lib.synthetic.dataset import synthesize_dataset

__all__ = ["synthesize_dataset"]
