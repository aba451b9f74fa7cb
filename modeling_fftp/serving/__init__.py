"""Trained models at work: tags of files, ONNX."""
