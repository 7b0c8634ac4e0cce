"""Trunks, as lists of blocks."""

from kmtl.backbones.base import Backbone
from kmtl.backbones.cnn import CNN
from kmtl.backbones.conv1d import TCN, ConvNet1D
from kmtl.backbones.ensemble import Ensemble
from kmtl.backbones.from_keras import FromKeras
from kmtl.backbones.ft_transformer import FTTransformer
from kmtl.backbones.fusion import Fusion
from kmtl.backbones.mlp import MLP
from kmtl.backbones.resnet import ResNet
from kmtl.backbones.rnn import RNN
from kmtl.backbones.sequence import SequenceBackbone
from kmtl.backbones.tabular_mlp import TabularMLP
from kmtl.backbones.transformer import Transformer
from kmtl.backbones.vit import ViT

__all__ = [
    "CNN",
    "ConvNet1D",
    "Ensemble",
    "FTTransformer",
    "FromKeras",
    "Fusion",
    "MLP",
    "RNN",
    "TCN",
    "Backbone",
    "ResNet",
    "SequenceBackbone",
    "TabularMLP",
    "Transformer",
    "ViT",
]
