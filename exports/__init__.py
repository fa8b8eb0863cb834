"""What is done once, before anything runs: networks and models converted into the files that fastface reads.

Ships as ``fastface.exports``. Nothing that runs a finished file needs it; torch and onnx come with the extra
``fastface[export]``.
"""
