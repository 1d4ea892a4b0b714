"""What every room stands on: errors, files, pages and pictures, timing, verification, doors to mm* and ONNX."""
