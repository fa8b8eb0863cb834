"""The landmark networks: TensorFlow Lite to ONNX."""
