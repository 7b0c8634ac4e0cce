"""Data: arrays, bundled sets and tensorflow-datasets, as batches of labels and masks.

Importing this loads NumPy and no backend: TensorFlow, Keras, scikit-learn and
tensorflow-datasets are imported by the functions that need them.
"""

from kmtl.data.arrays import from_arrays
from kmtl.data.augmentation import augment
from kmtl.data.boxes import boxes
from kmtl.data.bundled import digits, multi_digits
from kmtl.data.checking import check
from kmtl.data.containers import Split, TaskData
from kmtl.data.data_report import DataReport
from kmtl.data.folding import Folds, folds
from kmtl.data.frames import from_csv, from_dataframe
from kmtl.data.from_files import from_folder
from kmtl.data.generators import from_generator
from kmtl.data.hashing import fingerprint
from kmtl.data.idx import fashion_mnist, load_idx, mnist
from kmtl.data.mixed_sets import Mixture
from kmtl.data.mixing import mixture
from kmtl.data.mixup import cutmix, mixup
from kmtl.data.overlaying import multi_mnist
from kmtl.data.presets import Preset, preset
from kmtl.data.records import from_records, write_records
from kmtl.data.splitting import split
from kmtl.data.tensorflow_sets import from_tfds
from kmtl.data.views import two_views

__all__ = [
    "DataReport",
    "Folds",
    "Mixture",
    "Preset",
    "Split",
    "TaskData",
    "augment",
    "boxes",
    "check",
    "cutmix",
    "digits",
    "fashion_mnist",
    "fingerprint",
    "folds",
    "from_arrays",
    "from_csv",
    "from_dataframe",
    "from_folder",
    "from_generator",
    "from_records",
    "from_tfds",
    "load_idx",
    "mixture",
    "mixup",
    "mnist",
    "multi_digits",
    "multi_mnist",
    "preset",
    "split",
    "two_views",
    "write_records",
]
