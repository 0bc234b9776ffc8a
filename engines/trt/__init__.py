"""TensorRT: engines built and run on NVIDIA devices. Sole importer of tensorrt and pycuda."""
