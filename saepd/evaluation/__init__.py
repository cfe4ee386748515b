"""Compare methods on a task: draws of feedback, methods, bootstrap, and files that can be resumed.

task -> draws (fold) -> methods (nulls, few_shot, probes, ...) -> parts -> run -> summary -> table

`saepd.evaluation.run.evaluate` is the whole way. Nothing is imported here, so that a command which
needs one module does not wait for all.
"""
