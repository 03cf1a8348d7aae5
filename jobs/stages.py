"""The pipeline's stages in order, with the import paths of their transforms. To add a stage, add a line."""

STAGES: dict[str, str] = {
    "ingest": "echo_targets.transforms.stages.ingest:Ingest",
    "transcribe": "echo_targets.transforms.stages.transcribe:Transcribe",
    "measure": "echo_targets.transforms.stages.measure:Measure",
    "align": "echo_targets.transforms.stages.align:Align",
    "tokenize": "echo_targets.transforms.stages.tokenize:Tokenize",
    "echo": "echo_targets.transforms.stages.echo.stage:Echo",
    "publish_s2t": "echo_targets.transforms.stages.publish.stage:PublishS2T",
    "publish_t2c": "echo_targets.transforms.stages.publish.stage:PublishT2C",
    "publish_echo": "echo_targets.transforms.stages.publish.stage:PublishEcho",
}
