"""Image classification data with a fixed train / valid / test split.

Images are uint8 [N, H, W, C]; whoever trains standardises them with `mean` and `deviation`. Dimension letters:
N images, H height, W width, C channels.
"""

from nas_gym.datasets.catalogue import DATASETS
from nas_gym.datasets.core import Dataset, Images, Source, Split
from nas_gym.datasets.digits import DIGITS_SIZES, digits
from nas_gym.datasets.splits import stratified_split

__all__ = ["DATASETS", "DIGITS_SIZES", "Dataset", "Images", "Source", "Split", "digits", "stratified_split"]
