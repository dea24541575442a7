"""From a module to a running model: ONNX export and the runtimes behind one `Runner` protocol."""
