"""Trained models at work: tags and embeddings of files, live sound, explanations, ONNX."""
