"""Code that runs inside the sandbox, in the same process as the submission: stand-in GPU, recorder, bootstrap.

It imports nothing of the rest of the auditor, so that a submission finds little to meddle with, and is loaded from a
read-only path.
"""
