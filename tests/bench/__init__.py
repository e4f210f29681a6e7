"""Speed and memory of comigs beside plain PyTorch; see README.md here."""
