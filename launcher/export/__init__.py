"""A finished run in other programs' formats: ONNX (Netron), TensorBoard, Perfetto."""
