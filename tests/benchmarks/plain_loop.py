"""Time a model with an engine's own Python API, without any code of this project.

    python plain_loop.py onnxruntime|litert MODEL THREADS RUNS

prints the median in ms of RUNS inferences after one warm-up and a pause of a second.
"""

import statistics
import sys
import time

import numpy as np


def with_onnxruntime(model, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    spec = session.get_inputs()[0]
    shape = [size if isinstance(size, int) else 1 for size in spec.shape]
    feeds = {spec.name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    return lambda: session.run(None, feeds)


def with_litert(model, threads):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model, num_threads=threads)
    interpreter.allocate_tensors()
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    values = np.random.default_rng(0).integers(0, 256, taken["shape"]).astype(taken["dtype"])

    def infer():
        interpreter.set_tensor(taken["index"], values)
        interpreter.invoke()
        return interpreter.get_tensor(given["index"])

    return infer


def main(engine, model, threads, runs):
    infer = {"onnxruntime": with_onnxruntime, "litert": with_litert}[engine](model, int(threads))
    infer()
    time.sleep(1)
    samples = []
    for _ in range(int(runs)):
        start = time.perf_counter()
        infer()
        samples.append(time.perf_counter() - start)
    print(statistics.median(samples) * 1e3)


if __name__ == "__main__":
    main(*sys.argv[1:])
