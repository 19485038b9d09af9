"""Models: the catalogue of networks, written here or taken from torchvision and timm."""
