"""Where a target's outputs come from: a torch module, an ONNX file, an HTTP endpoint, a file of recorded outputs."""
