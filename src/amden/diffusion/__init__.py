"""The diffusion process: noise schedules, forward process, loss and samplers over the `Denoiser` protocol.

No network and no files live here: a sampler sees only a callable that predicts noise.
"""
